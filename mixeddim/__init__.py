"""Mixed-dimensional 3D-1D coupled problems on FEniCSx: build, reduce, solve, look at them.

Names are loaded when first used, so that `import mixeddim.tensors` or `mixeddim.networks.graphs`
works where DOLFINx is not installed.
"""

import contextlib

import lazy_loader

# The wheel of DOLFINx wants this before any `import dolfinx`, the user's own included.
with contextlib.suppress(ImportError):
    import dolfinx_solver  # noqa: F401

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"

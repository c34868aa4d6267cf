"""Mixed-dimensional 3D-1D coupled problems on FEniCSx: assembly, reduction, solution, pictures.

Names are loaded at their first use, so that `import mixeddim.tensors` or
`mixeddim.networks.graphs` works without DOLFINx.
"""

import contextlib

import lazy_loader

# The wheel of DOLFINx needs this before any `import dolfinx`, also before the user's own.
with contextlib.suppress(ImportError):
    import dolfinx_solver  # noqa: F401

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"

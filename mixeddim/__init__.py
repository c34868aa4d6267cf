"""Mixed-dimensional 3D-1D coupled problems on FEniCSx: build, reduce, solve, look at them.

Names are loaded when first used, so that `import mixeddim.tensors` or `mixeddim.graphs` works
where DOLFINx is not installed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"

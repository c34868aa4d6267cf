"""Make the FEniCSx stack importable; every module that uses DOLFINx imports this one first.

The PyPI wheel `dolfinx-solver-real` needs `dolfinx_solver` imported before DOLFINx or petsc4py,
so that MPI is loaded ahead of the compiled modules. Installations from conda-forge, Debian or
source have no such module and need none.
"""

import importlib.util

if importlib.util.find_spec("dolfinx_solver") is not None:
    import dolfinx_solver as _dolfinx_solver  # noqa: F401

if importlib.util.find_spec("dolfinx") is None:
    raise ImportError(
        "mixeddim found no DOLFINx in this environment; building and solving problems needs it. "
        "Run `pip install -e '.[fenics]'` in the checkout (Linux x86-64), or install "
        "`fenics-dolfinx` from conda-forge. Graphs, mixeddim.reduction, mixeddim.tensors and "
        "learning work without."
    )

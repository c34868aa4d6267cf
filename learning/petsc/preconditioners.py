"""PETSc's preconditioners under our protocol, and the matrices they are built from.

`learning.petsc` offers them; this is the one file of `learning` that imports petsc4py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.krylov.operators import SystemBatch, grids_of
from learning.krylov.preconditioner import on_host
from learning.preconditioners.multigrid.geometric import MOST_COARSE_NODES
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    coupling_along_axes,
    interpolation,
)
from mixeddim.tensors import ReducedSystem

# The PyPI wheel of PETSc wants MPI to be loaded first, by this module.
if importlib.util.find_spec("dolfinx_solver") is not None:
    import dolfinx_solver as _dolfinx_solver  # noqa: F401
try:
    from petsc4py import PETSc
except ImportError as error:
    raise ImportError(
        "learning.petsc found no petsc4py in this environment. Run `pip install -e '.[fenics]'` in "
        "the checkout (Linux x86-64), or install petsc4py from conda-forge."
    ) from error

__all__ = ["PETSc", "PetscMultigrid", "PetscPreconditioner", "pc_of", "tissue_block"]

Kind = Literal["icc", "gamg", "mumps"]
Smoother = Literal["chebyshev", "sor"]

# PETSc configures what is inside a preconditioner from options, which shall not be the user's.
_PREFIX: Final = "learning_"


class PetscPreconditioner:
    """A preconditioner of PETSc, serial; linear and symmetric.

    Attributes:
        kind: "icc": incomplete Cholesky factors of A_33 without fill-in. "gamg": a V-cycle of
            algebraic multigrid on A_33. "mumps": the inverse of S, by Cholesky factors of the
            whole block matrix; not approximate, and so the time to beat.
    """

    is_linear = is_symmetric = True

    def __init__(self, kind: Kind) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f"got kind={kind!r}; wanted one of {get_args(Kind)}.")
        self.kind = kind

    def __repr__(self) -> str:
        return f"PetscPreconditioner({self.kind!r})"

    def setup(
        self,
        systems: Sequence[ReducedSystem],
        batch: SystemBatch,  # noqa: ARG002
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Factor or coarsen each system, and return the map r -> M r (see `Preconditioner`)."""
        if self.kind == "mumps":
            return on_host([_block_inverse(system) for system in systems])
        return on_host([_application(pc_of(tissue_block(s), self.kind)) for s in systems])


@dataclass(frozen=True)
class PetscMultigrid:
    """One symmetric V(1,1)-cycle of geometric multigrid on A_33, by PETSc's PCMG; serial.

    On the grids of `GeometricMultigrid` and with its interpolation, but for each system on its own
    and without the Schur term: Galerkin's operators of A_33, Cholesky factors on the coarsest grid.

    Attributes:
        smoother: "chebyshev" takes two Chebyshev steps, on the matrix over the sums of |a_ij| along
            its rows, which bound it. "sor" sweeps forth and back: symmetric Gauss-Seidel.
    """

    smoother: Smoother = "chebyshev"

    is_linear = True
    is_symmetric = True

    def __post_init__(self) -> None:
        if self.smoother not in get_args(Smoother):
            raise ValueError(
                f"got smoother={self.smoother!r}; wanted one of {get_args(Smoother)}. Choose one."
            )

    def setup(
        self,
        systems: Sequence[ReducedSystem],
        batch: SystemBatch,  # noqa: ARG002
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Coarsen each system, and return the map r -> M r (see `Preconditioner`).

        Raises:
            ValueError: If a system does not live on a structured box, or A_33 is singular.
        """
        return on_host([_application(self.create_pc(system)) for system in systems])

    def create_pc(self, system: ReducedSystem) -> PETSc.PC:
        """Return the cycle as a PC of A_33, set up, for a KSP of one's own.

        Args:
            system: The system.

        Raises:
            ValueError: As `setup`.
        """
        prolongations = _prolongations(system)
        pc = pc_of(tissue_block(system), "mg")
        pc.setMGLevels(len(prolongations) + 1)
        coarse = pc.getMGCoarseSolve()
        # A single level PETSc would take for one to smooth on.
        coarse.setOptionsPrefix(_PREFIX + "mg_coarse_")
        coarse.setType("preonly")
        coarse.getPC().setType("cholesky")
        coarse.getPC().setFactorPivot(_ROUNDING * system.A_33.diagonal().max())
        # Levels count from the coarsest.
        for level, P in enumerate(reversed(prolongations), start=1):
            pc.setMGInterpolation(level, petsc_matrix(P))
        with _options(_CYCLE | _SMOOTHING[self.smoother]):
            pc.setFromOptions()
            pc.setUp()
        if pc.getFailedReason() != PETSc.PC.FailedReason.NOERROR:
            raise ValueError(
                "got a system whose tissue block is singular on its coarsest grid; wanted a "
                "positive definite one. Give the tissue a reaction or a Dirichlet condition."
            )
        return pc


# What a few hundred steps of elimination leave of a zero.
_ROUNDING: Final = 1e-12

# petsc4py has functions for few of these.
_CYCLE: Final = {
    "pc_mg_galerkin": "both",
    "mg_levels_ksp_norm_type": "none",
}
_SMOOTHING: Final[Mapping[Smoother, dict[str, str]]] = {
    "chebyshev": {
        "mg_levels_ksp_type": "chebyshev",
        "mg_levels_ksp_max_it": "2",
        # Over those sums no eigenvalue exceeds 1, and M is positive definite; PETSc would estimate
        # them at ten iterations a level, and bound nothing.
        "mg_levels_ksp_chebyshev_eigenvalues": "0.2,1.0",
        "mg_levels_pc_type": "jacobi",
        "mg_levels_pc_jacobi_type": "rowl1",
        "mg_levels_pc_jacobi_rowl1_scale": "1.0",
    },
    "sor": {
        "mg_levels_ksp_type": "richardson",
        "mg_levels_ksp_max_it": "1",
        "mg_levels_pc_type": "sor",
        "mg_levels_pc_sor_local_symmetric": "true",
    },
}


@contextmanager
def _options(options: Mapping[str, str]) -> Iterator[None]:
    """Put options, under our prefix, into the one database that PETSc has, and take them out."""
    database = PETSc.Options(_PREFIX)
    try:
        for name, value in options.items():
            database.setValue(name, value)
        yield
    finally:
        for name in options:
            database.delValue(name)


def _prolongations(system: ReducedSystem) -> list[sparse.csr_array]:
    """Return the interpolations to each grid from the next coarser one, the finest first.

    Vectors of the finest grid are in dof order, of all others in grid order.
    """
    [grid] = grids_of([system])
    axes, coupling = axes_of(grid), coupling_along_axes(system.K, grid)[None]
    prolongations: list[sparse.csr_array] = []
    while np.prod([len(x) for x in axes]) > MOST_COARSE_NODES:
        fine, axes = axes, coarsened(axes, coupling)
        P = interpolation(axes, fine)
        prolongations.append(P if prolongations else P[grid.node_of_dof])
    return prolongations


# --- PETSc's objects --------------------------------------------------------------------------


def tissue_block(reduced: ReducedSystem) -> PETSc.Mat:
    """Return A_33 as a PETSc matrix: what PETSc's own preconditioners of S are built from."""
    return _definite(petsc_matrix(reduced.A_33))


def petsc_matrix(A: sparse.csr_array) -> PETSc.Mat:
    """Return a scipy matrix as one of PETSc, on this process alone."""
    A.sort_indices()
    index = PETSc.IntType
    csr = (A.indptr.astype(index), A.indices.astype(index), A.data)
    return PETSc.Mat().createAIJ(A.shape, csr=csr, comm=PETSc.COMM_SELF)


def _definite(A: PETSc.Mat) -> PETSc.Mat:
    A.setOption(PETSc.Mat.Option.SPD, True)
    return A


def pc_of(A: PETSc.Mat, kind: str) -> PETSc.PC:
    """Return a PC of A, not set up, which the user's options do not reach."""
    pc = PETSc.PC().create(A.comm)
    pc.setOptionsPrefix(_PREFIX)
    pc.setOperators(A)
    pc.setType(kind)
    return pc


def _application(pc: PETSc.PC) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Set a PC up, and return its application; each overwrites what the last one returned."""
    pc.setUp()
    A, _ = pc.getOperators()
    y = A.createVecLeft()

    def apply(r: NDArray[np.float64]) -> NDArray[np.float64]:
        # PETSc only reads r, which need not be copied.
        pc.apply(PETSc.Vec().createWithArray(r, comm=A.comm), y)
        return y.getArray(readonly=True)

    return apply


def _block_inverse(
    system: ReducedSystem,
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return r -> S⁻¹ r: the tissue part of the block system's solution for (r, 0)."""
    blocks = [[system.A_33, system.A_31], [system.A_13, system.A_11]]
    matrix = _definite(petsc_matrix(sparse.block_array(blocks, format="csr")))
    pc = pc_of(matrix, "cholesky")
    pc.setFactorSolverType("mumps")
    solve = _application(pc)
    n_3, zeros = len(system.b_3), np.zeros(len(system.b_1))
    return lambda r: solve(np.concatenate([r, zeros]))[:n_3]

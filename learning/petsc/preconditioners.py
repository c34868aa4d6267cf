"""PETSc's preconditioners under our protocol, and the PETSc matrices they are built from.

This is the only file of `learning` that imports petsc4py.
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

from learning.krylov.preconditioner import on_host
from learning.preconditioners.multigrid.grids import between_boxes
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    coupling_along_axes,
    interpolation,
)
from learning.systems.boxes import boxes_of
from learning.systems.operators import SystemBatch, grids_of
from mixeddim.tensors import Ownership, ReducedSystem, TissueMatrix

# The PyPI wheel of PETSc needs MPI to be loaded before it, which this module does.
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

# PETSc configures the parts of a preconditioner from options. The prefix keeps out the user's.
_PREFIX: Final = "learning_"

MOST_COARSE_NODES: Final = 1400
"""A grid of no more nodes is solved directly: PETSc visits each coarse grid once."""


class PetscPreconditioner:
    """A preconditioner of PETSc, linear and symmetric.

    Attributes:
        kind: "icc": incomplete Cholesky factors of A_33 without fill-in. "gamg": a V-cycle of
            algebraic multigrid on A_33, the only one that runs on several processes. "mumps": the
            exact inverse of S, by Cholesky factors of the whole block matrix.
    """

    is_linear = is_symmetric = True

    @property
    def is_parallel(self) -> bool:
        """Whether it takes a system on several processes."""
        return self.kind == "gamg"

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
    """One symmetric V(1,1)-cycle of geometric multigrid on A_33, by PETSc's PCMG.

    It uses the grids and the interpolation of `GeometricMultigrid`, but treats each system alone
    and leaves out the Schur term. The coarse operators are Galerkin products of A_33, and the
    coarsest one has Cholesky factors, on several processes on each.

    Attributes:
        smoother: "chebyshev" takes two Chebyshev steps, on the matrix divided by its row sums of
            |a_ij|, which bound its eigenvalues by 1. "sor" is symmetric Gauss-Seidel, one sweep
            forward and one back, on several processes within the nodes of each.
    """

    smoother: Smoother = "chebyshev"

    is_linear = True
    is_symmetric = True
    is_parallel = True

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
        """Return the cycle as a PC of A_33 that is set up, for use in any KSP.

        Args:
            system: The system; on several processes in the order of boxes.

        Raises:
            ValueError: As `setup`.
        """
        prolongations = _prolongations(system)
        pc = pc_of(tissue_block(system), "mg")
        pc.setMGLevels(len(prolongations) + 1)
        coarse = pc.getMGCoarseSolve()
        # Without these settings, PETSc would smooth on a single level instead of solving.
        coarse.setOptionsPrefix(_PREFIX + "mg_coarse_")
        coarse.setType("preonly")
        coarse.getPC().setType("cholesky" if system.processes.size == 1 else "redundant")
        zero_pivot = _ROUNDING * system.processes.max(system.A_33.diagonal().max(initial=0.0))
        coarse.getPC().setFactorPivot(zero_pivot)
        # On several processes each factors the whole.
        redundant = {
            "mg_coarse_redundant_ksp_type": "preonly",
            "mg_coarse_redundant_pc_type": "cholesky",
            "mg_coarse_redundant_pc_factor_zeropivot": str(zero_pivot),
        }
        # Level 0 is the coarsest.
        for level, P in enumerate(reversed(prolongations), start=1):
            pc.setMGInterpolation(level, P)
        with _options(_CYCLE | _SMOOTHING[self.smoother] | redundant):
            pc.setFromOptions()
            pc.setUp()
        has_failed = pc.getFailedReason() != PETSc.PC.FailedReason.NOERROR
        if system.processes.size > 1:  # factors on each process do not tell by themselves
            x, b = coarse.getOperators()[0].createVecs()
            b.set(1.0)
            coarse.solve(b, x)
            has_failed = not np.isfinite(x.norm())
        if has_failed:
            raise ValueError(
                "got a system whose tissue block is singular on its coarsest grid; wanted a "
                "positive definite one. Give the tissue a reaction or a Dirichlet condition."
            )
        return pc


# The relative rounding error of a zero pivot after a few hundred steps of elimination.
_ROUNDING: Final = 1e-12

# petsc4py has no functions for most of these.
_CYCLE: Final = {
    "pc_mg_galerkin": "both",
    "mg_levels_ksp_norm_type": "none",
}
_SMOOTHING: Final[Mapping[Smoother, dict[str, str]]] = {
    "chebyshev": {
        "mg_levels_ksp_type": "chebyshev",
        "mg_levels_ksp_max_it": "2",
        # Divided by the row sums, the matrix has no eigenvalue above 1, so M is positive definite.
        # PETSc would estimate the eigenvalues in ten iterations per level, without a bound.
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
    """Set options with our prefix in PETSc's global database, and remove them afterwards."""
    database = PETSc.Options(_PREFIX)
    try:
        for name, value in options.items():
            database.setValue(name, value)
        yield
    finally:
        for name in options:
            database.delValue(name)


def _prolongations(system: ReducedSystem) -> list[PETSc.Mat]:
    """Return the interpolations to each grid from the next coarser one, the finest first.

    Vectors on the finest grid are in dof order, those on all others in grid order, or on several
    processes in the order of boxes.
    """
    [grid] = grids_of([system])
    axes, coupling = axes_of(grid), coupling_along_axes(system.K, grid)[None]
    prolongations: list[PETSc.Mat] = []
    boxes = None if system.processes.size == 1 else boxes_of(system)
    while np.prod([len(x) for x in axes]) > MOST_COARSE_NODES:
        fine, axes = axes, coarsened(axes, coupling)
        if boxes is not None:
            P, boxes = between_boxes(boxes, axes, fine)
            prolongations.append(_distributed(P.rows, P.fine, P.coarse))
        else:
            rows = interpolation(axes, fine)
            prolongations.append(petsc_matrix(rows if prolongations else rows[grid.node_of_dof]))
    return prolongations


# --- PETSc's objects --------------------------------------------------------------------------


def tissue_block(reduced: ReducedSystem) -> PETSc.Mat:
    """Return A_33 as a PETSc matrix, from which PETSc builds its preconditioners of S."""
    A = reduced.A_33
    if isinstance(A, TissueMatrix):
        return _definite(_distributed(A.rows, A.ownership, A.ownership))
    return _definite(petsc_matrix(A))


def _distributed(rows: sparse.csr_array, to: Ownership, of: Ownership) -> PETSc.Mat:
    """Return the rows that each process holds, with columns by global numbers, as one matrix."""
    comm, index, rows = to.processes.comm, PETSc.IntType, rows.sorted_indices()
    PETSc.garbage_cleanup(comm)  # Python cannot free by itself what several processes share
    csr = (rows.indptr.astype(index), rows.indices.astype(index), rows.data)
    sizes = tuple((side.count, side.total) for side in (to, of))
    return PETSc.Mat().createAIJ(sizes, csr=csr, comm=comm)


def petsc_matrix(A: sparse.csr_array) -> PETSc.Mat:
    """Return a scipy matrix as a PETSc matrix on this process alone."""
    A.sort_indices()
    index = PETSc.IntType
    csr = (A.indptr.astype(index), A.indices.astype(index), A.data)
    return PETSc.Mat().createAIJ(A.shape, csr=csr, comm=PETSc.COMM_SELF)


def _definite(A: PETSc.Mat) -> PETSc.Mat:
    A.setOption(PETSc.Mat.Option.SPD, True)
    return A


def pc_of(A: PETSc.Mat, kind: str) -> PETSc.PC:
    """Return a PC of A that is not set up yet and ignores the user's options."""
    pc = PETSc.PC().create(A.comm)
    pc.setOptionsPrefix(_PREFIX)
    pc.setOperators(A)
    pc.setType(kind)
    return pc


def _application(pc: PETSc.PC) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Set a PC up, and return its application; each call overwrites the result of the last one."""
    pc.setUp()
    A, _ = pc.getOperators()
    y = A.createVecLeft()

    def apply(r: NDArray[np.float64]) -> NDArray[np.float64]:
        # PETSc only reads r, so no copy is needed.
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

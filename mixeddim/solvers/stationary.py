"""Solve the coupled problem through PETSc: all at once, or reduced to the tissue."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import dolfinx
import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc
from scipy import sparse

from mixeddim.fem.assembly import CoupledSystem
from mixeddim.reduction import ReducedSystem, reduce
from mixeddim.solvers.mass_balance import MassBalance, balance_mass

__all__ = ["Method", "Solution", "SolverError", "solve"]

Method = Literal["direct", "krylov", "reduced"]


class SolverError(RuntimeError):
    """A linear solve did not reach its tolerance."""


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """A solution of the coupled problem.

    It keeps its system and so its meshes alive: see `CoupledSystem` before you keep many.

    Attributes:
        system: The system it solves.
        u_3d: Tissue field, a P1 function.
        u_1d: Network field, a P1 function.
        method: How it was solved.
        iterations: Krylov iterations; 1 for a direct solve.
        relative_residual: Norm of b - A u over that of b, of the whole block system, computed
            from the solution.
    """

    system: CoupledSystem
    u_3d: dolfinx.fem.Function
    u_1d: dolfinx.fem.Function
    method: Method
    iterations: int
    relative_residual: float

    def __repr__(self) -> str:
        return (
            f"Solution({self.method}, {self.iterations} iterations, relative residual "
            f"{self.relative_residual:.1e})"
        )

    @cached_property
    def wall_flux(self) -> NDArray[np.float64]:
        """Flux from network to tissue per length at the points `system.coupling.points`."""
        return self.system.coupling.flux(self.u_3d.x.array, self.u_1d.x.array)

    @cached_property
    def cell_wall_flux(self) -> dolfinx.fem.Function:
        """Mean flux from network to tissue per length on each segment, a DG0 function."""
        coupling, mesh = self.system.coupling, self.system.network.mesh
        flux = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)), name="wall_flux")
        size = len(flux.x.array)
        length = np.bincount(coupling.cells, coupling.weights, minlength=size)
        total = np.bincount(coupling.cells, coupling.weights * self.wall_flux, minlength=size)
        dofs = flux.function_space.dofmap.list[:, 0]
        flux.x.array[dofs] = np.divide(total, length, out=np.zeros(size), where=length > 0)
        return flux

    @cached_property
    def mass_balance(self) -> MassBalance:
        """What enters and leaves tissue and network."""
        return balance_mass(self.system, self.u_3d.x.array, self.u_1d.x.array)


def solve(
    system: CoupledSystem,
    method: Method = "direct",
    *,
    rtol: float = 1e-10,
    max_iterations: int = 1000,
) -> Solution:
    """Solve the coupled problem.

    Args:
        system: The assembled system.
        method: "direct": Cholesky factors of the whole block matrix by MUMPS. "krylov": CG on
            the block matrix, preconditioned by algebraic multigrid (GAMG) on the tissue and
            exact factors on the network, for problems too large to factor. "reduced": CG on the
            Schur complement, preconditioned by GAMG on A_33.
        rtol: Residual reduction at which the iterative methods stop.
        max_iterations: Where the iterative methods give up.

    Raises:
        SolverError: If an iterative method does not converge, or the system is singular and its
            data incompatible.
        ValueError: If the method is unknown.
    """
    if method not in get_args(Method):
        raise ValueError(f"got method={method!r}; wanted one of {get_args(Method)}.")
    V_3d, V_1d = system.side_3d.V, system.side_1d.V
    comm = V_3d.mesh.comm
    reduced = reduce(system)
    if method == "direct":
        x_3, x_1 = _solve_direct(reduced, comm)
        iterations = 1
    else:
        if method == "krylov":
            x_3, iterations = _solve_krylov(reduced, comm, rtol, max_iterations)
        else:
            x_3, iterations = _solve_reduced(reduced, comm, rtol, max_iterations)
        x_1 = reduced.back_substitute(x_3)  # which leaves no residual in the network

    residual = np.hypot(
        np.linalg.norm(reduced.b_3 - reduced.A_33 @ x_3 - reduced.A_31 @ x_1),
        np.linalg.norm(reduced.b_1 - reduced.A_13 @ x_3 - reduced.A_11 @ x_1),
    )
    scale = np.hypot(np.linalg.norm(reduced.b_3), np.linalg.norm(reduced.b_1))
    u_3d, u_1d = dolfinx.fem.Function(V_3d, name="u_3d"), dolfinx.fem.Function(V_1d, name="u_1d")
    u_3d.x.array[:], u_1d.x.array[:] = x_3, x_1
    relative = float(residual / scale) if scale > 0 else float(residual)
    if method == "direct" and not relative < 1e-6:
        raise SolverError(
            f"got a direct solution with a relative residual of {relative:.1e}; wanted one that "
            "solves the system. It is singular if nothing holds the level of the fields: give a "
            "Dirichlet or Robin condition, or an uptake sigma_3d > 0."
        )
    return Solution(system, u_3d, u_1d, method, iterations, relative)


def _solve_direct(
    blocks: ReducedSystem, comm: PETSc.Comm
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    A = _petsc_matrix(
        sparse.block_array([[blocks.A_33, blocks.A_31], [blocks.A_13, blocks.A_11]]), comm
    )
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(A)
    ksp.setType("preonly")
    ksp.getPC().setType("cholesky")
    ksp.getPC().setFactorSolverType("mumps")
    x, _ = _run(ksp, np.concatenate([blocks.b_3, blocks.b_1]), comm)
    return x[: len(blocks.b_3)], x[len(blocks.b_3) :]


def _solve_krylov(
    blocks: ReducedSystem, comm: PETSc.Comm, rtol: float, max_iterations: int
) -> tuple[NDArray[np.float64], int]:
    A = PETSc.Mat().createNest(
        [
            [_petsc_matrix(blocks.A_33, comm), _petsc_matrix(blocks.A_31, comm)],
            [_petsc_matrix(blocks.A_13, comm), _petsc_matrix(blocks.A_11, comm)],
        ],
        comm=comm,
    )
    A.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    rows, _ = A.getNestISs()
    ksp = _cg(A, comm, rtol, max_iterations)
    pc = ksp.getPC()
    pc.setType("fieldsplit")
    pc.setFieldSplitIS(("tissue", rows[0]), ("network", rows[1]))
    pc.setFieldSplitType(PETSc.PC.CompositeType.SYMMETRIC_MULTIPLICATIVE)
    pc.setUp()
    tissue, network = pc.getFieldSplitSubKSP()
    for split, kind in ((tissue, "gamg"), (network, "cholesky")):
        split.setType("preonly")
        split.getPC().setType(kind)
    # PETSc's own factors refuse pivots below 2e-14, and in SI units all are.
    network.getPC().setFactorSolverType("mumps")
    x, iterations = _run(ksp, np.concatenate([blocks.b_3, blocks.b_1]), comm)
    return x[: len(blocks.b_3)], iterations


class _SchurComplement:
    """PETSc shell matrix of S."""

    def __init__(self, reduced: ReducedSystem) -> None:
        self.S = reduced.S

    def mult(self, _: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self.S @ x.getArray(readonly=True))


def _solve_reduced(
    reduced: ReducedSystem, comm: PETSc.Comm, rtol: float, max_iterations: int
) -> tuple[NDArray[np.float64], int]:
    n = len(reduced.b_3)
    S = PETSc.Mat().createPython((n, n), _SchurComplement(reduced), comm=comm)
    S.setOption(PETSc.Mat.Option.SYMMETRIC, True)
    ksp = _cg(S, comm, rtol, max_iterations)
    ksp.setOperators(S, _petsc_matrix(reduced.A_33, comm))
    ksp.getPC().setType("gamg")
    return _run(ksp, reduced.g, comm)


def _cg(A: PETSc.Mat, comm: PETSc.Comm, rtol: float, max_iterations: int) -> PETSc.KSP:
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(A)
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=rtol, atol=0.0, max_it=max_iterations)
    return ksp


def _run(
    ksp: PETSc.KSP, right_hand_side: NDArray[np.float64], comm: PETSc.Comm
) -> tuple[NDArray[np.float64], int]:
    b = PETSc.Vec().createWithArray(right_hand_side, comm=comm)
    x = b.duplicate()
    ksp.solve(b, x)
    if ksp.getConvergedReason() < 0:
        raise SolverError(
            f"got {ksp.getType()} with {ksp.getPC().getType()} stopped after "
            f"{ksp.getIterationNumber()} iterations at residual {ksp.getResidualNorm():.2e} "
            f"(PETSc reason {ksp.getConvergedReason()}); wanted {ksp.getTolerances()[0]:.0e} of "
            f"{np.linalg.norm(right_hand_side):.2e}. Raise max_iterations or rtol, or use "
            "method='direct'."
        )
    return x.getArray().copy(), ksp.getIterationNumber()


def _petsc_matrix(A: sparse.sparray, comm: PETSc.Comm) -> PETSc.Mat:
    csr = A.tocsr()
    csr.sort_indices()
    index = PETSc.IntType
    return PETSc.Mat().createAIJ(
        csr.shape, csr=(csr.indptr.astype(index), csr.indices.astype(index), csr.data), comm=comm
    )

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

from mixeddim.assembly import CoupledSystem
from mixeddim.reduction import ReducedSystem, reduce
from mixeddim.sides import Side

__all__ = ["MassBalance", "Method", "Solution", "SolverError", "solve"]

Method = Literal["direct", "krylov", "reduced"]


class SolverError(RuntimeError):
    """A linear solve did not reach its tolerance."""


@dataclass(frozen=True)
class MassBalance:
    """What enters and leaves each side; amounts per time, in the units of the coefficients.

    Attributes:
        source_3d: Sources in the tissue, integral of f_3d.
        boundary_3d: Inflow through the boundary of the tissue.
        reaction_3d: What the tissue takes up, integral of sigma_3d u_3d.
        exchange: Flow over the vessel wall into the tissue, integral of beta (u_1d - T u_3d).
        source_1d: Sources in the network, integral of f_1d.
        boundary_1d: Inflow through the inlets and ends of the network.
        traded_3d: Sum of the magnitudes of what the tissue trades, place by place; where
            that cancels, as at equal values on both sides of a wall, 1e-4 of what goes back and
            forth. The scale of `error_3d`.
        traded_1d: The same for the network.
    """

    source_3d: float
    boundary_3d: float
    reaction_3d: float
    exchange: float
    source_1d: float
    boundary_1d: float
    traded_3d: float
    traded_1d: float

    @property
    def error_3d(self) -> float:
        """Amount missing in the tissue, relative to what it trades."""
        missing = self.source_3d + self.boundary_3d + self.exchange - self.reaction_3d
        return abs(missing) / self.traded_3d if self.traded_3d > 0 else 0.0

    @property
    def error_1d(self) -> float:
        """Amount missing in the network, relative to what it trades."""
        missing = self.source_1d + self.boundary_1d - self.exchange
        return abs(missing) / self.traded_1d if self.traded_1d > 0 else 0.0

    @property
    def error(self) -> float:
        """The larger of the two relative errors."""
        return max(self.error_3d, self.error_1d)

    def __str__(self) -> str:
        """Return a table, one amount a line."""
        return "\n".join(
            [
                "                     tissue       network",
                f"sources       {self.source_3d:13.4e} {self.source_1d:13.4e}",
                f"boundary      {self.boundary_3d:13.4e} {self.boundary_1d:13.4e}",
                f"uptake        {-self.reaction_3d:13.4e}",
                f"through wall  {self.exchange:13.4e} {-self.exchange:13.4e}",
                f"error         {self.error_3d:13.1e} {self.error_1d:13.1e}",
            ]
        )


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
        system, u_3d, u_1d = self.system, self.u_3d.x.array, self.u_1d.x.array
        side_3d, side_1d, coupling = system.side_3d, system.side_1d, system.coupling
        residual_3d, residual_1d = system.unconstrained_residual(u_3d, u_1d)
        exchange = coupling.weights * self.wall_flux
        through_wall = coupling.weights * coupling.beta
        through_wall *= abs(coupling.N @ u_1d) + abs(coupling.Pi @ u_3d)
        boundary_3d = _boundary_inflow(side_3d, u_3d, residual_3d)
        boundary_1d = _boundary_inflow(side_1d, u_1d, residual_1d)
        reaction_3d = side_3d.M @ u_3d
        return MassBalance(
            source_3d=float(side_3d.f.sum()),
            boundary_3d=float(boundary_3d.sum()),
            reaction_3d=float(reaction_3d.sum()),
            exchange=float(exchange.sum()),
            source_1d=float(side_1d.f.sum()),
            boundary_1d=float(boundary_1d.sum()),
            traded_3d=_traded(
                [side_3d.f, boundary_3d, reaction_3d, exchange],
                [through_wall, *_both_ways(side_3d, u_3d)],
            ),
            traded_1d=_traded(
                [side_1d.f, boundary_1d, exchange], [through_wall, *_both_ways(side_1d, u_1d)]
            ),
        )


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
    if method == "direct":
        x_3, x_1 = _solve_direct(system, comm)
        iterations = 1
    else:
        reduced = reduce(system)
        if method == "krylov":
            x_3, iterations = _solve_krylov(system, comm, rtol, max_iterations)
        else:
            x_3, iterations = _solve_reduced(reduced, comm, rtol, max_iterations)
        x_1 = reduced.back_substitute(x_3)  # which leaves no residual in the network

    residual = np.hypot(
        np.linalg.norm(system.b_3 - system.A_33 @ x_3 - system.A_31 @ x_1),
        np.linalg.norm(system.b_1 - system.A_13 @ x_3 - system.A_11 @ x_1),
    )
    scale = np.hypot(np.linalg.norm(system.b_3), np.linalg.norm(system.b_1))
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
    system: CoupledSystem, comm: PETSc.Comm
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    A = _petsc_matrix(
        sparse.block_array([[system.A_33, system.A_31], [system.A_13, system.A_11]]), comm
    )
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(A)
    ksp.setType("preonly")
    ksp.getPC().setType("cholesky")
    ksp.getPC().setFactorSolverType("mumps")
    x, _ = _run(ksp, np.concatenate([system.b_3, system.b_1]), comm)
    return x[: len(system.b_3)], x[len(system.b_3) :]


def _solve_krylov(
    system: CoupledSystem, comm: PETSc.Comm, rtol: float, max_iterations: int
) -> tuple[NDArray[np.float64], int]:
    A = PETSc.Mat().createNest(
        [
            [_petsc_matrix(system.A_33, comm), _petsc_matrix(system.A_31, comm)],
            [_petsc_matrix(system.A_13, comm), _petsc_matrix(system.A_11, comm)],
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
    x, iterations = _run(ksp, np.concatenate([system.b_3, system.b_1]), comm)
    return x[: len(system.b_3)], iterations


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


def _boundary_inflow(
    side: Side, u: NDArray[np.float64], residual: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what Neumann, Robin and Dirichlet conditions let in at each dof."""
    inflow = side.h - side.R @ u
    inflow[side.dirichlet_dofs] += residual[side.dirichlet_dofs]
    return inflow


def _both_ways(side: Side, u: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return what would be traded at each dof if nothing came back."""
    size = abs(u)
    return [side.M @ size, abs(side.R) @ size, abs(side.K[side.dirichlet_dofs]) @ size]


def _traded(net: list[NDArray[np.float64]], both_ways: list[NDArray[np.float64]]) -> float:
    """Return the sum of net magnitudes; where all cancels, that of gross ones times 1e-4."""
    amount, gross = (sum(float(abs(part).sum()) for part in parts) for parts in (net, both_ways))
    return max(amount, 1e-4 * gross)

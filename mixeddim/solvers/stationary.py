"""Solve the coupled problem through PETSc: all at once, or reduced to the tissue.

Every field that is returned has a bound on its error (see `accuracy`). A small residual is not
enough: one norm over both sides hides the side with the smaller numbers, and no residual shows that
the matrix is ill-conditioned.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, get_args

import dolfinx
import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from mixeddim.accuracy import (
    ACCURACY,
    ErrorBound,
    Pair,
    bound_error,
    relative_residual,
    uncertainty,
)
from mixeddim.algebra.distributed import held_rows
from mixeddim.fem.assembly import CoupledSystem
from mixeddim.reduction import ReducedSystem, reduce
from mixeddim.solvers.coupled_multigrid import CoupledMultigrid
from mixeddim.solvers.factors import BlockFactors, distributed_matrix, petsc_comm
from mixeddim.solvers.mass_balance import MassBalance, balance_mass

__all__ = ["Method", "Solution", "SolverError", "check_accuracy", "solve"]

Method = Literal["direct", "krylov", "reduced"]

_PREFIX: Final = "mixeddim_gamg_"


class SolverError(RuntimeError):
    """A linear solve did not reach its tolerance, or what it reached cannot be trusted."""


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
        relative_residual: The larger of both sides' residuals, computed from the solution, each
            in units of what drives that side: b_3 - A_31 u_1d for the tissue, b_1 - A_13 u_3d for
            the network.
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
        """The flows into and out of tissue and network."""
        return balance_mass(self.system, self.u_3d.x.array, self.u_1d.x.array)


def solve(
    system: CoupledSystem,
    method: Method = "direct",
    *,
    rtol: float = 1e-10,
    max_iterations: int = 1000,
) -> Solution:
    """Solve the coupled problem.

    Both fields are right to 1e-5 of their own size, or to 100 rtol where that is more, or there is
    an error: a bound is computed with every solution.

    Args:
        system: The assembled system.
        method: "direct": Cholesky factors of the whole block matrix by MUMPS, refined. "krylov": CG
            with the network eliminated, preconditioned by multigrid that knows of the network
            (`CoupledMultigrid`): for problems too large to factor, whatever the coefficients and
            the strength of exchange. "reduced": the same CG, preconditioned by PETSc's GAMG on
            A_33: slow where exchange is strong. All three run on several processes.
        rtol: Reduction at which the iterative methods stop, of the residual of S u_3d = g and of
            the error in the energy norm.
        max_iterations: Where the iterative methods give up.

    Raises:
        SolverError: If an iterative method does not converge, or the system is singular, or so
            ill-conditioned that its coefficients, rounded to float64, do not determine the fields.
        ValueError: If the method is unknown.
    """
    if method not in get_args(Method):
        raise ValueError(f"got method={method!r}; wanted one of {get_args(Method)}.")
    reduced = reduce(system)
    if method == "direct":
        x, bound = _solve_direct(reduced)
        iterations, accuracy = 1, ACCURACY
    else:
        try:
            M = CoupledMultigrid(system) if method == "krylov" else None
            cg = _ConjugateGradients(reduced, M, rtol, max_iterations)
            x, bound = cg.solve()
            cg.ksp.destroy()  # on several processes nothing else frees the multigrid
        except RuntimeError as error:
            if isinstance(error, SolverError):
                raise
            raise SolverError(
                f"got factors that broke down ({error}); wanted those of a positive definite "
                "matrix. It is singular if nothing holds the level of a field: give a Dirichlet or "
                "Robin condition, or exchange."
            ) from error
        iterations, accuracy = cg.iterations, max(ACCURACY, 100.0 * rtol)
    check_accuracy(bound, accuracy, f"a solution by method={method!r}")
    u_3d, u_1d = system.side_3d.function(x[0], "u_3d"), system.side_1d.function(x[1], "u_1d")
    b = reduced.b_3, reduced.b_1
    return Solution(system, u_3d, u_1d, method, iterations, relative_residual(reduced, b, x))


def check_accuracy(bound: ErrorBound, accuracy: float, name: str) -> None:
    """Raise SolverError where the bound on the error of a solution is too large."""
    if not bound.largest <= accuracy:
        raise SolverError(
            f"got {name} that may be off by {bound}; wanted at most {accuracy:.0e}. It is singular "
            "if nothing holds the level of the fields: give a Dirichlet or Robin condition, or an "
            "uptake sigma_3d > 0. Or what holds it is lost in the rounding of far larger "
            "coefficients: bring those of diffusion, uptake, exchange and the network nearer to "
            "each other."
        )


def _solve_direct(blocks: ReducedSystem) -> tuple[Pair, ErrorBound]:
    """Return the solution, refined twice, and the bound on its error."""
    factors, b = BlockFactors(blocks, "cholesky"), (blocks.b_3, blocks.b_1)
    x_3, x_1 = factors.solve(*b)
    for _ in range(2):
        change_3, change_1 = factors.solve(
            blocks.b_3 - blocks.A_33 @ x_3 - blocks.A_31 @ x_1,
            blocks.b_1 - blocks.A_13 @ x_3 - blocks.A_11 @ x_1,
        )
        x_3, x_1 = x_3 + change_3, x_1 + change_1
    error = factors.solve(*uncertainty(blocks, b, (x_3, x_1)))
    factors.destroy()
    return (x_3, x_1), bound_error((x_3, x_1), error, blocks.processes)


class _ConjugateGradients:
    """CG on S u_3d = g by PETSc, until the residual and the energy of the error are small.

    With theta the smallest eigenvalue of M S, which CG finds, the error e of a residual r has the
    energy e'S e <= r'M r / theta, and the solution that of g'u_3d. Where exchange is strong, g
    has entries so large that a residual small beside them hides that error.

    Args:
        reduced: The system.
        M: The preconditioner, or None for GAMG on A_33.
        rtol: As in `solve`.
        max_iterations: As in `solve`.
    """

    def __init__(
        self,
        reduced: ReducedSystem,
        M: CoupledMultigrid | None,
        rtol: float,
        max_iterations: int,
    ) -> None:
        sizes, comm = (len(reduced.b_3), None), petsc_comm(reduced.processes)
        self.reduced, self.rtol, self.most, self.iterations = reduced, rtol, max_iterations, 0
        S = PETSc.Mat().createPython((sizes, sizes), _Product(reduced.S.matvec), comm=comm)
        S.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        self.ksp = ksp = PETSc.KSP().create(comm)
        ksp.setType("cg")
        ksp.setComputeEigenvalues(True)
        if M is None:
            rows = held_rows(reduced.A_33)
            ksp.setOperators(S, distributed_matrix(rows, reduced.processes))
            _use_gamg(ksp.getPC())
        else:
            ksp.setOperators(S)
            ksp.getPC().setType("python")
            ksp.getPC().setPythonContext(_Product(M))
        self.precondition = lambda r: self._apply(ksp.getPC().apply, r)

    def solve(self) -> tuple[Pair, ErrorBound]:
        """Return the solution and the bound on its error."""
        reduced = self.reduced
        x_3 = self._correct(reduced.g)
        x = x_3, reduced.back_substitute(x_3)
        w_3, w_1 = uncertainty(reduced, (reduced.b_3, reduced.b_1), x)
        rtol, self.rtol, done = self.rtol, 1e-2, self.iterations
        error_3 = self._correct(w_3 + reduced.exchange_3(reduced.solve_11(w_1)))
        error_1 = reduced.solve_11(w_1 + reduced.exchange_1(error_3))
        self.rtol, self.iterations = rtol, done
        return x, bound_error(x, (error_3, error_1), reduced.processes)

    def _correct(self, b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the solution of S x = b."""
        norms, dot = PETSc.KSP.NormType, self.reduced.processes.dot
        x, theta = self._run(b, norms.UNPRECONDITIONED, self.rtol, 0.0)
        before = np.inf
        while True:
            r = b - self.reduced.S @ x
            wanted = self.rtol * np.sqrt(max(theta * dot(b, x), 0.0))
            size = np.sqrt(max(dot(r, self.precondition(r)), 0.0))
            # Where it hardly falls any more, rounding alone is left: the bound knows of that.
            if not wanted < size < before / 10.0:
                return x
            correction, _ = self._run(r, norms.NATURAL, 0.0, wanted)
            x, before = x + correction, size

    def _run(
        self,
        right_hand_side: NDArray[np.float64],
        norm: PETSc.KSP.NormType,
        rtol: float,
        atol: float,
    ) -> tuple[NDArray[np.float64], float]:
        """Return x, and the smallest eigenvalue of M S that was found."""
        ksp = self.ksp
        ksp.setNormType(norm)
        ksp.setTolerances(rtol=rtol, atol=atol, max_it=self.most)
        b = PETSc.Vec().createWithArray(right_hand_side, comm=ksp.comm)
        x = b.duplicate()
        ksp.solve(b, x)
        self.iterations += ksp.getIterationNumber()
        if ksp.getConvergedReason() < 0:
            raise SolverError(
                f"got cg with {ksp.getPC().getType()} stopped after "
                f"{ksp.getIterationNumber()} iterations at residual {ksp.getResidualNorm():.2e} "
                f"(PETSc reason {ksp.getConvergedReason()}); wanted {self.rtol:.0e} of "
                f"{self.reduced.processes.norm(right_hand_side):.2e}. Raise max_iterations or "
                "rtol, or use method='direct'."
            )
        eigenvalues = ksp.computeEigenvalues().real
        return x.getArray().copy(), float(min(eigenvalues, default=1.0))

    def _apply(
        self, apply: Callable[[PETSc.Vec, PETSc.Vec], None], vector: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        x = PETSc.Vec().createWithArray(vector, comm=self.ksp.comm)
        y = x.duplicate()
        apply(x, y)
        return y.getArray().copy()


def _use_gamg(pc: PETSc.PC) -> None:
    """Choose GAMG, which finds distant neighbours by walks: by default it squares the matrix."""
    name = "pc_gamg_aggressive_square_graph"
    pc.setType("gamg")
    pc.setOptionsPrefix(_PREFIX)
    options = PETSc.Options(_PREFIX)
    options.setValue(name, "false")
    pc.setFromOptions()
    options.delValue(name)


class _Product:
    """PETSc context of a symmetric map of numpy vectors, as matrix and as preconditioner."""

    def __init__(self, product: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> None:
        self.product = product

    def mult(self, _: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self.product(x.getArray(readonly=True)))

    def apply(self, _: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self.product(x.getArray(readonly=True)))

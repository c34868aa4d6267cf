"""Solve the coupled problem through PETSc: all at once, or reduced to the tissue.

Every field that is returned has a bound on its error (see `accuracy`). A small residual is not
enough: one norm over both sides hides the side with the smaller numbers, and no residual shows that
the matrix is ill-conditioned.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import dolfinx
import numpy as np
from numpy.typing import NDArray

from mixeddim.accuracy import (
    ACCURACY,
    ErrorBound,
    Pair,
    bound_error,
    relative_residual,
    uncertainty,
)
from mixeddim.fem.assembly import CoupledSystem
from mixeddim.reduction import ReducedSystem, reduce
from mixeddim.solvers.conjugate_gradients import (
    ConjugateGradients,
    SolverError,
    as_solver_error,
    check_accuracy,
)
from mixeddim.solvers.coupled_multigrid import CoupledMultigrid
from mixeddim.solvers.factors import BlockFactors
from mixeddim.solvers.mass_balance import MassBalance, balance_mass

__all__ = ["Method", "Solution", "SolverError", "solve"]

Method = Literal["direct", "krylov", "reduced"]


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
    initial_guess: dolfinx.fem.Function | None = None,
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
        initial_guess: Tissue field from which the iterative methods start, such as u_3d of a
            solution for other coefficients in the same tissue; zero by default.
        rtol: Where the iterative methods stop: the residual of S u_3d = g, in units of g whatever
            the guess, and the error in the energy norm.
        max_iterations: Where the iterative methods give up.

    Raises:
        SolverError: If an iterative method does not converge, or the system is singular, or so
            ill-conditioned that its coefficients, rounded to float64, do not determine the fields.
        ValueError: If the method is unknown, or the guess does not fit the tissue.
    """
    if method not in get_args(Method):
        raise ValueError(f"got method={method!r}; wanted one of {get_args(Method)}.")
    start = None if initial_guess is None else _start(system, initial_guess)
    reduced = reduce(system)
    if method == "direct":
        x, bound = _solve_direct(reduced)
        iterations, accuracy = 1, ACCURACY
    else:
        with as_solver_error():
            M = CoupledMultigrid(system) if method == "krylov" else None
            cg = ConjugateGradients(reduced, M, rtol, max_iterations)
            x = cg.solve(start)
            bound = cg.bound(x)
            cg.ksp.destroy()  # on several processes nothing else frees the multigrid
        iterations, accuracy = cg.iterations, max(ACCURACY, 100.0 * rtol)
    check_accuracy(bound, accuracy, f"a solution by method={method!r}")
    u_3d, u_1d = system.side_3d.function(x[0], "u_3d"), system.side_1d.function(x[1], "u_1d")
    b = reduced.b_3, reduced.b_1
    return Solution(system, u_3d, u_1d, method, iterations, relative_residual(reduced, b, x))


def _start(system: CoupledSystem, guess: dolfinx.fem.Function) -> NDArray[np.float64]:
    """Return the owned dofs of an initial guess."""
    V = system.side_3d.V
    space = getattr(guess, "function_space", None)
    fits = space is not None and space.mesh is V.mesh and space.ufl_element() == V.ufl_element()
    with system.processes.together():
        if not fits:
            raise ValueError(
                f"got an initial guess of type {type(guess).__name__}; wanted a P1 function on the "
                "mesh of the tissue. Pass u_3d of a solution in the same tissue."
            )
        start: NDArray[np.float64] = guess.x.array[: len(system.side_3d.f)].copy()
        if not np.all(np.isfinite(start)):
            raise ValueError("got an initial guess with NaN or infinity; wanted numbers.")
    return start


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

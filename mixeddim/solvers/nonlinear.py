"""Nonlinear uptake in the tissue, by Newton's or Picard's method.

    -div(k_3d grad u_3d) + sigma_3d u_3d + r(u_3d) + beta (T u_3d - u_1d) delta = f_3d

and on the network as in `forms`. Each iteration is a linear problem with the same blocks; only the
reaction and the source of the tissue are assembled again, around the last iterate w:

    Newton:   M <- M + M[r'(w)]       f <- f - r(w) + r'(w) w
    Picard:   M <- M + M[r(w) / w]

Both start from zero. For an uptake that grows ever more slowly, as Michaelis-Menten's, the tangent
lies above r: Newton's iterates then rise towards the solution from below and need no damping, where
the discrete problem keeps the maximum principle (Ortega, Rheinboldt 1970, section 13.3).

Each linear problem starts from the last iterate and is solved as far as the next one needs, which
keeps the rate of convergence (Dembo, Eisenstat & Steihaug 1982, doi:10.1137/0719025). Factors or a
multigrid of an earlier iteration precondition it.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal, get_args

import dolfinx
import numpy as np
import ufl
from numpy.typing import NDArray

from mixeddim.accuracy import ACCURACY, relative_change
from mixeddim.fem.assembly import CoupledSystem
from mixeddim.fem.forms import as_ufl, check_number, reaction, source
from mixeddim.fem.matrices import assemble_matrices, assemble_vector
from mixeddim.solvers.conjugate_gradients import SequenceSolver, SolverError
from mixeddim.solvers.mass_balance import MassBalance, balance_mass
from mixeddim.solvers.stationary import Method, Solution

__all__ = [
    "Linearisation",
    "MichaelisMenten",
    "NonlinearSolution",
    "Uptake",
    "less_source",
    "solve_nonlinear",
]

Linearisation = Literal["newton", "picard"]

type Uptake = Callable[[ufl.core.expr.Expr], ufl.core.expr.Expr]
"""From u_3d to the rate r(u_3d) per volume, both UFL, with r(0) = 0."""


@dataclass(frozen=True)
class MichaelisMenten:
    """The uptake maximum u / (half + u), of enzymes or carriers that saturate.

    For concentrations, which are not negative: at u = -half it has a pole, and beyond it solutions
    that mean nothing.

    Attributes:
        maximum: What it tends to where there is plenty, per volume and time. Not negative.
        half: The concentration at which it is half of that. Positive.
    """

    maximum: float
    half: float

    def __post_init__(self) -> None:
        check_number("maximum", self.maximum, positive=False)
        check_number("half", self.half, positive=True)

    def __call__(self, u: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
        """Return the rate of uptake per volume."""
        domain = ufl.domain.extract_unique_domain(u)
        maximum, half = (dolfinx.fem.Constant(domain, float(c)) for c in (self.maximum, self.half))
        return maximum * u / (half + u)


@dataclass(frozen=True, eq=False, repr=False)
class NonlinearSolution(Solution):
    """A solution of the coupled problem with nonlinear uptake.

    Attributes:
        linearisation: How each iteration was made linear; `method` says how that was solved.
        residual_norms: Norm of the residual of the whole nonlinear system, that of the start
            first, shape (iterations + 1,). `relative_residual` is the last one over the first.
        uptake_load: Integrals of r(u_3d) times each basis function of the tissue, shape
            (num_dofs_3d,); of those that this process owns.
    """

    linearisation: Linearisation
    residual_norms: NDArray[np.float64]
    uptake_load: NDArray[np.float64]

    def __repr__(self) -> str:
        return (
            f"NonlinearSolution({self.linearisation}, {self.iterations} iterations, relative "
            f"residual {self.relative_residual:.1e})"
        )

    @cached_property
    def uptake(self) -> float:
        """Integral of r(u_3d)."""
        return self.system.processes.sum(self.uptake_load.sum())

    @cached_property
    def mass_balance(self) -> MassBalance:
        """The flows into and out of tissue and network; r(u_3d) is part of `reaction_3d`."""
        u_3d, u_1d = self.u_3d.x.array, self.u_1d.x.array
        balance = balance_mass(less_source(self.system, self.uptake_load), u_3d, u_1d)
        return replace(
            balance,
            source_3d=balance.source_3d + self.uptake,
            reaction_3d=balance.reaction_3d + self.uptake,
            traded_3d=balance.traded_3d + self.system.processes.sum(abs(self.uptake_load).sum()),
        )


def solve_nonlinear(
    system: CoupledSystem,
    uptake: Uptake,
    linearisation: Linearisation = "newton",
    *,
    method: Method = "direct",
    rtol: float = 1e-12,
    max_iterations: int = 50,
) -> NonlinearSolution:
    """Solve the coupled problem with a nonlinear uptake in the tissue, besides its sigma_3d.

    Args:
        system: The assembled system without this uptake.
        uptake: r, from u_3d (UFL) to the rate of uptake per volume (UFL), such as
            `MichaelisMenten(maximum, half)` or `lambda u: 3 * u**2`. No uptake of nothing:
            r(0) = 0.
        linearisation: "newton", which converges quadratically, or "picard", which takes r(u) / u
            from the last iterate and converges linearly; where r grows as u^2 or faster, it may go
            in circles.
        method: How each linear problem is solved (see `solve`).
        rtol: Reduction at which to stop of the residual of the whole system, whose first norm
            given values in the network can make far larger than what the tissue takes up; and one
            more step would change neither field by more than 1e-6 of its size, or 1000 rtol.
        max_iterations: Where to give up.

    Raises:
        SolverError: If the iteration does not converge, or a linear problem cannot be solved.
        ValueError: If the linearisation is unknown, rtol out of range, or uptake returns no scalar
            UFL expression on the tissue.
        TypeError: If uptake fails for a UFL expression.
    """
    if not 0 < rtol < 1:
        raise ValueError(f"got rtol={rtol!r}; wanted a reduction between 0 and 1, such as 1e-12.")
    if linearisation not in get_args(Linearisation):
        raise ValueError(
            f"got linearisation={linearisation!r}; wanted one of {get_args(Linearisation)}."
        )
    side_3d, side_1d = system.side_3d, system.side_1d
    u_3d = side_3d.function(side_3d.given_values, "u_3d")
    u_1d = side_1d.function(side_1d.given_values, "u_1d")
    rate, slope = _compile(uptake, linearisation, u_3d)
    n_3, n_1 = len(side_3d.f), len(side_1d.f)
    sequence, work = SequenceSolver(method), dolfinx.fem.create_matrix(slope)
    norms: list[float] = []
    # The norm of both sides may be that of one. Another step tells how far each field is off.
    accuracy = max(ACCURACY, 1000.0 * rtol)
    while True:
        load = assemble_vector(rate)
        residual_3d, residual_1d = less_source(system, load).unconstrained_residual(
            u_3d.x.array, u_1d.x.array
        )
        free = residual_3d[side_3d.is_free], residual_1d[side_1d.is_free]
        norms.append(float(np.hypot(system.processes.norm(free[0]), np.linalg.norm(free[1]))))
        is_small = norms[-1] <= rtol * norms[0] < np.inf
        if is_small and (norms[0] == 0.0 or accuracy >= 1.0):
            break
        if not is_small and (len(norms) > max_iterations or not np.isfinite(norms[-1])):
            raise _not_converged(linearisation, norms, rtol)
        [M] = assemble_matrices(slope, into=work)
        source_3d = side_3d.f - (load - M @ u_3d.x.array)
        step = system.with_parts(side_3d=replace(side_3d, f=source_3d, M=side_3d.M + M))
        old_3d, old_1d = u_3d.x.array[:n_3], u_1d.x.array[:n_1]
        reduction = norms[-1] / norms[0]
        needed = FORCING * (reduction**2 if linearisation == "newton" else reduction)
        needed = 0.1 * rtol if is_small else max(0.1 * rtol, needed)
        new_3d, new_1d = sequence.solve(step, old_3d, needed, check=is_small)
        change_3d = relative_change(new_3d - old_3d, new_3d, system.processes)
        change_1d = relative_change(new_1d - old_1d, new_1d)
        if is_small and max(change_3d, change_1d) <= accuracy:
            break
        if len(norms) > max_iterations:
            raise _not_converged(linearisation, norms, rtol)
        u_3d, u_1d = _set(u_3d, new_3d), _set(u_1d, new_1d)
    sequence.destroy()
    relative = norms[-1] / norms[0] if norms[0] > 0 else 0.0
    iterations = len(norms) - 1
    return NonlinearSolution(
        system, u_3d, u_1d, method, iterations, relative, linearisation, np.array(norms), load
    )


FORCING: Final = 1e-3
"""Where a linear problem is left, in units of what the next iterate is off by at best."""


def _set(field: dolfinx.fem.Function, dofs: NDArray[np.float64]) -> dolfinx.fem.Function:
    """Give a function other dofs, those that this process owns."""
    field.x.array[: len(dofs)] = dofs
    field.x.scatter_forward()
    return field


def less_source(system: CoupledSystem, load: NDArray[np.float64]) -> CoupledSystem:
    """Return the system with a load taken off the source of its tissue."""
    return replace(system, side_3d=replace(system.side_3d, f=system.side_3d.f - load))


def _compile(
    uptake: Uptake, linearisation: Linearisation, w: dolfinx.fem.Function
) -> tuple[dolfinx.fem.Form, dolfinx.fem.Form]:
    """Return the forms of r(w) and of the slope that stands for it."""
    V = w.function_space
    u = ufl.variable(w)
    try:
        r = uptake(u)
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(
            f"got an uptake that fails for a UFL u: {error}; wanted one written with ufl "
            "(ufl.exp and ufl.conditional, not numpy.exp and if)."
        ) from error
    if not isinstance(r, ufl.core.expr.Expr) or r.ufl_shape != ():
        raise ValueError(
            f"got uptake(u) = {r!r}; wanted a scalar UFL expression of u, such as u / (1 + u)."
        )
    r, tangent = (as_ufl(e, V.mesh, "uptake(u)") for e in (r, ufl.diff(r, u)))
    # Where nothing is left, the tangent is the limit of the secant r(u) / u.
    secant = ufl.conditional(ufl.eq(u, 0), tangent, r / u)
    # The same points for both, so that the slope is the derivative of the discrete rate.
    dx = ufl.Measure("dx", metadata={"quadrature_degree": 4})
    v = ufl.TestFunction(V)
    slope = tangent if linearisation == "newton" else secant
    mass = reaction(ufl.TrialFunction(V), v, slope, dx)
    return dolfinx.fem.form(source(v, r, dx)), dolfinx.fem.form(mass)


def _not_converged(linearisation: Linearisation, norms: list[float], rtol: float) -> SolverError:
    other = "picard" if linearisation == "newton" else "newton"
    return SolverError(
        f"got {linearisation} stopped after {len(norms) - 1} iterations, the residual from "
        f"{norms[0]:.2e} to {norms[-1]:.2e}; wanted {rtol:.0e} of the first. Try "
        f"linearisation={other!r}, a larger max_iterations or rtol; and see that the uptake is "
        "defined and grows for all values that u_3d can take."
    )

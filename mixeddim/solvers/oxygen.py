"""Oxygen: carried by blood, released through the wall, consumed by the tissue.

With p_1d and p_3d the partial pressures in blood and tissue, Q the flow and F = H Q the flow
of red cells along the vessels, and C as in `mixeddim.networks.oxygen`:

    d_s (alpha Q p_1d + C0 F S(p_1d)) - d_s(k_1d d_s p_1d) + beta (p_1d - T p_3d) = 0    on Lambda
    -div(k_3d grad p_3d) + M0 p_3d / (p_3d + p_half) + beta (T p_3d - p_1d) delta = 0    in Omega

k_3d is D alpha of the tissue, and beta = 1 / K(D) where the blood's own resistance K is all that
the wall opposes. P1 in the tissue, with consumption lumped at its nodes; finite volumes with upwind
advection on the network (`advection`), one for plasma that flows with Q and one for red cells that
flow with F. Junctions mix perfectly: p_1d is one number there. The exchange is lumped at the
vertices of the network, N' W B N to its row sums, so that blood which runs dry does not undershoot;
what leaves a vessel still is what enters the tissue.

Newton's method solves for both pressures at once; its matrix is that of the coupled system and two
diagonals more. A step is halved while it does not reduce the residual. Where p < 0, which rounding
and steps may reach, consumption goes on linearly and saturation is 0, so that both still rise
with p. Stagnant vessels take the pressure of the tissue around them, since p is the unknown, not C.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, cast

import dolfinx  # noqa: F401  (as Method)
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mixeddim.accuracy import ACCURACY, Pair, relative_change
from mixeddim.fem.assembly import CoupledSystem
from mixeddim.fem.blocks import Blocks
from mixeddim.fem.forms import Coefficient
from mixeddim.networks.oxygen import BloodOxygen
from mixeddim.processes import Processes
from mixeddim.solvers.advection import discretise_advection
from mixeddim.solvers.conjugate_gradients import SolverError
from mixeddim.solvers.factors import BlockFactors
from mixeddim.solvers.mass_balance import MassBalance, balance_mass
from mixeddim.solvers.nonlinear import less_source
from mixeddim.solvers.oxygen_budget import OxygenBudget
from mixeddim.solvers.oxygen_data import (
    advection_of_cells,
    check_numbers,
    check_system,
    demand,
    entering_po2,
    flow_and_hematocrit,
    loads,
)
from mixeddim.solvers.stationary import Method, Solution  # noqa: F401  (the site resolves types)

__all__ = ["OxygenSolution", "solve_oxygen"]

MOST_ITERATIONS: Final = 25
"""Of GMRES with the factors of an earlier step; then new factors cost less."""

SHORTEST_STEP: Final = 2.0**-12
"""Part of a Newton step below which halving it is given up."""


@dataclass(frozen=True, eq=False, repr=False)
class OxygenSolution(Solution):
    """Partial pressures of oxygen: `u_3d` in the tissue, `u_1d` in the blood [mmHg, or blood.unit].

    Attributes:
        blood: What blood carries.
        budget: What came in, was consumed and flowed out.
        consumed: What is consumed at each tissue node of this process [m³/s],
            shape (num_dofs_3d,).
        residual_norms: Sum of the magnitudes of the residual, over that of the inflow, at the start
            and after each iteration, shape (iterations + 1,).
    """

    blood: BloodOxygen
    budget: OxygenBudget
    consumed: NDArray[np.float64]
    residual_norms: NDArray[np.float64]

    def __repr__(self) -> str:
        return (
            f"OxygenSolution({self.iterations} iterations, extraction {self.extraction:.1%}, "
            f"balance error {self.budget.error:.1e})"
        )

    @cached_property
    def mass_balance(self) -> MassBalance:
        """The budget side by side: blood is part of `boundary_1d`, consumption of `reaction_3d`."""
        u_3d, u_1d = self.u_3d.x.array, self.u_1d.x.array
        balance = balance_mass(less_source(self.system, self.consumed), u_3d, u_1d)
        budget = self.budget
        return replace(
            balance,
            source_3d=balance.source_3d + budget.consumption,
            reaction_3d=balance.reaction_3d + budget.consumption,
            boundary_1d=balance.boundary_1d + budget.inflow - budget.outflow,
            traded_3d=balance.traded_3d + budget.consumption,
            traded_1d=balance.traded_1d + budget.inflow + budget.outflow,
        )

    @cached_property
    def saturation(self) -> NDArray[np.float64]:
        """Saturation of red cells at the dofs of the network, shape (num_dofs_1d,)."""
        return self.blood.saturation(self.u_1d.x.array)

    @cached_property
    def wall_po2(self) -> NDArray[np.float64]:
        """T p_3d, the tissue's pressure at the wall, at `system.coupling.points`."""
        wall: NDArray[np.float64] = self.system.coupling.Pi @ self._owned
        return wall

    @cached_property
    def blood_po2(self) -> NDArray[np.float64]:
        """Pressure in the blood, at `system.coupling.points`."""
        inside: NDArray[np.float64] = self.system.coupling.N @ self.u_1d.x.array
        return inside

    @property
    def extraction(self) -> float:
        """Part of the oxygen that flowed in which did not flow out."""
        inflow = self.budget.inflow
        return (inflow - self.budget.outflow) / inflow if inflow > 0 else 0.0

    @cached_property
    def vessel_mean(self) -> float:
        """Mean pressure in the blood, over the length of the vessels."""
        weights = self.system.coupling.weights
        return float(weights @ self.blood_po2 / weights.sum())

    @cached_property
    def tissue_mean(self) -> float:
        """Mean pressure in the tissue, over its volume."""
        total = self.system.processes.sum
        return total(float(self._volumes @ self._owned)) / total(self._volumes.sum())

    def hypoxic_fraction(self, below: float) -> float:
        """Return the part of the tissue's volume, shared out to its nodes, below a pressure.

        `tissue_statistics` takes the linear field in each cell instead, on one process.
        """
        total = self.system.processes.sum
        return total(float(self._volumes @ (self._owned < below))) / total(self._volumes.sum())

    @cached_property
    def _volumes(self) -> NDArray[np.float64]:
        return loads(self.system, 1.0, "volume")

    @property
    def _owned(self) -> NDArray[np.float64]:
        owned: NDArray[np.float64] = self.u_3d.x.array[: len(self.system.side_3d.f)]
        return owned


def solve_oxygen(
    system: CoupledSystem,
    flow: ArrayLike,
    hematocrit: ArrayLike,
    *,
    inlet_po2: float | Mapping[Hashable, float],
    consumption: Coefficient,
    half_consumption: float,
    blood: BloodOxygen = BloodOxygen(),  # noqa: B008  (frozen)
    rtol: float = 1e-10,
    max_iterations: int = 50,
) -> OxygenSolution:
    """Solve for the partial pressures of oxygen in blood and tissue.

    Args:
        system: Diffusion and exchange, in m, assembled with `bcs_1d=[]` since oxygen enters with
            the blood. Of the coefficients k_3d is D alpha of the tissue [m²/s/mmHg], k_1d that of
            the blood times the cross-section of the vessel, and permeability 1 / (2 pi R K) of a
            resistance K (see `IntravascularResistance` and `unresolved_resistance`).
        flow: Volume per time along each edge [m³/s], shape (num_edges,), in the order of
            `network.graph.edges`, as `Blood.flow`.
        hematocrit: Discharge hematocrit of each edge, or one number, as `Blood.hematocrit`.
        inlet_po2: Partial pressure of oxygen in the blood that enters [mmHg]: a number, or one for
            each node where blood enters.
        consumption: M0, the largest rate of consumption per volume [1/s]; not negative.
        half_consumption: Partial pressure at which it is half of that [mmHg]; positive.
        blood: What blood carries. Its `unit` is that of all partial pressures, mmHg or Pa, here and
            in the coefficients.
        rtol: Where to stop: sum of the magnitudes of the residual, over the inflow of oxygen; and
            the last step changed neither field by more than 1e-6 of its size.
        max_iterations: Where to give up.

    Raises:
        ValueError: If an argument is out of range or does not fit the system.
        SolverError: If Newton's method does not converge.
    """
    problem = _OxygenProblem(
        system, flow, hematocrit, inlet_po2, consumption, half_consumption, blood, rtol
    )
    p, norms = _newton(problem, max_iterations)
    if problem.factors is not None:
        problem.factors.destroy()
    u_3d, u_1d = system.side_3d.function(p[0], "po2_3d"), system.side_1d.function(p[1], "po2_1d")
    relative = norms[-1]
    return OxygenSolution(
        system,
        u_3d,
        u_1d,
        "direct",
        len(norms) - 1,
        relative,
        blood,
        problem.budget(p),
        problem.consumed(p[0]),
        np.array(norms),
    )


def _newton(problem: _OxygenProblem, max_iterations: int) -> tuple[Pair, list[float]]:
    """Return both pressures, and the norm of the residual at the start and after each step."""
    p, rtol = problem.start(), problem.rtol
    r = problem.residual(p)
    norms = [problem.norm(r)]
    change = np.inf
    while not (norms[-1] <= rtol and change <= ACCURACY):
        if len(norms) > max_iterations or not np.isfinite(norms[-1]):
            raise _not_converged(norms, rtol)
        step = problem.step(p, r)
        part = 1.0
        while True:
            new = p[0] + part * step[0], p[1] + part * step[1]
            r = problem.residual(new)
            norm = problem.norm(r)
            # Near the solution rounding decides which residual is smaller.
            if norm <= max((1 - 1e-4 * part) * norms[-1], rtol) or part <= SHORTEST_STEP:
                break
            part /= 2
        p = new
        norms.append(norm)
        change = part * max(
            relative_change(step[0], p[0], problem.processes), relative_change(step[1], p[1])
        )
    return p, norms


class _OxygenProblem:
    """The discrete problem: its residual, the step of Newton's method, the budget."""

    def __init__(
        self,
        system: CoupledSystem,
        flow: ArrayLike,
        hematocrit: ArrayLike,
        inlet_po2: float | Mapping[Hashable, float],
        consumption: Coefficient,
        half_consumption: float,
        blood: BloodOxygen,
        rtol: float,
    ) -> None:
        check_numbers(rtol, half_consumption, blood)
        if len(system.side_1d.dirichlet_dofs) > 0:
            raise ValueError(
                f"got a system with u_1d given at {len(system.side_1d.dirichlet_dofs)} nodes; "
                "wanted none, since oxygen enters with the blood. Assemble it with bcs_1d=[]."
            )
        check_system(system, blood)
        self.system, self.blood, self.half = system, blood, float(half_consumption)
        self.rtol = rtol
        self.processes: Processes = system.processes
        Q, H = flow_and_hematocrit(system, flow, hematocrit)
        self.plasma = discretise_advection(system.network, Q)
        self.cells = advection_of_cells(system, Q * H)
        self.po2 = entering_po2(system, inlet_po2, self.plasma.inflow, blood)
        self.demand = demand(system, consumption)
        N, conductance = system.coupling.N, system.coupling.weights * system.coupling.beta
        consistent = N.T @ sparse.diags_array(conductance) @ N
        self.lumping = sparse.diags_array(N.T @ conductance) - consistent
        self.inflow = float(self._entering.sum())
        supply = self.inflow if self.inflow > 0 else self.processes.sum(self.demand.sum())
        self.scale = supply if supply > 0 else 1.0
        self.is_free = system.side_3d.is_free
        self.factors: BlockFactors | None = None

    @property
    def _entering(self) -> NDArray[np.float64]:
        """What enters at each dof of the network [m³/s]."""
        blood = self.blood
        return (
            blood.solubility * self.plasma.inflow * self.po2
            + blood.capacity * self.cells.inflow * blood.saturation(self.po2)
        )

    def start(self) -> Pair:
        """Return where Newton's method starts: blood as it enters, and that in the tissue."""
        entering = self.plasma.inflow
        mean = float(entering @ self.po2 / entering.sum()) if entering.any() else 0.0
        given = self.system.side_3d.given_values
        return np.where(self.is_free, mean, given), np.full(len(entering), mean)

    def consumed(self, p_3d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what is consumed at each node [m³/s]."""
        least = np.maximum(p_3d, 0.0)
        return self.demand * np.where(p_3d < 0, p_3d / self.half, least / (least + self.half))

    def residual(self, p: Pair) -> Pair:
        """Return the residuals of both sides [m³/s], zero where a pressure is given."""
        p_3d, p_1d = p
        r_3d, r_1d = self.system.unconstrained_residual(p_3d, p_1d)
        r_3d = np.where(self.is_free, r_3d + self.consumed(p_3d), 0.0)
        blood = self.blood
        r_1d = r_1d + self.lumping @ p_1d - self._entering
        r_1d += blood.solubility * (self.plasma.U @ p_1d)
        r_1d += blood.capacity * (self.cells.U @ blood.saturation(p_1d))
        return r_3d, r_1d

    def norm(self, r: Pair) -> float:
        """Return the sum of the magnitudes, over the inflow of oxygen."""
        return (self.processes.sum(abs(r[0]).sum()) + float(abs(r[1]).sum())) / self.scale

    def step(self, p: Pair, r: Pair) -> Pair:
        """Return the step of Newton's method."""
        p_3d, p_1d = p
        slope = self.demand * self.half / (np.maximum(p_3d, 0.0) + self.half) ** 2
        more_3 = sparse.diags_array(np.where(self.is_free, slope, 0.0))
        bound = sparse.diags_array(self.blood.capacity * self.blood.saturation_slope(p_1d))
        more_1 = self.lumping + self.blood.solubility * self.plasma.U + self.cells.U @ bound
        jacobian = cast("Blocks", _Jacobian(self.system, more_3, more_1))
        b = (-r[0], -r[1])
        if self.factors is not None:
            self.factors.precondition(jacobian, MOST_ITERATIONS)
            # As far as Newton's method needs to stay quadratic, or to end.
            norm = self.norm(r)
            needed = max(1e-2 * norm, 0.01 * self.rtol / norm if norm > 0 else 1.0)
            step = self.factors.solve_to(b, min(1e-2, needed))
            if step is not None:
                return step
            self.factors.destroy()
        self.factors = BlockFactors(jacobian, "lu", check=True)
        return self.factors.solve(*b)

    def budget(self, p: Pair) -> OxygenBudget:
        """Return what flowed where."""
        p_3d, p_1d = p
        total, blood = self.processes.sum, self.blood
        left = blood.solubility * self.plasma.outflow * p_1d
        left += blood.capacity * self.cells.outflow * blood.saturation(p_1d)
        through, _ = self.system.unconstrained_residual(p_3d, p_1d)
        given = ~self.is_free
        consumed = self.consumed(p_3d)
        gained_3d, gained_1d = (
            (side.f + side.h - side.R @ u - side.M @ u).sum()
            for side, u in zip((self.system.side_3d, self.system.side_1d), p, strict=True)
        )
        boundary = total(gained_3d + (through + consumed)[given].sum()) + float(gained_1d)
        coupling = self.system.coupling
        exchange = float(coupling.weights @ coupling.flux(p_3d, p_1d))
        amounts = self.inflow, float(left.sum()), total(consumed.sum()), boundary, exchange
        return OxygenBudget(*amounts)


class _Jacobian:
    """The blocks of the coupled system, and what Newton's method adds to the diagonal ones."""

    def __init__(self, system: CoupledSystem, more_3: Any, more_1: Any) -> None:
        self.processes = system.processes
        self.A_31, self.A_13 = system.A_31, system.A_13
        self.A_33, self.A_11 = (system.A_33 + more_3).tocsr(), (system.A_11 + more_1).tocsr()


def _not_converged(norms: list[float], rtol: float) -> SolverError:
    return SolverError(
        f"got Newton's method stopped after {len(norms) - 1} iterations, the residual from "
        f"{norms[0]:.2e} to {norms[-1]:.2e} of the inflow of oxygen; wanted {rtol:.0e}. Raise "
        "max_iterations or rtol; and see that units are m, m³/s and one of pressure throughout."
    )

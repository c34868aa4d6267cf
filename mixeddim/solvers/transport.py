"""Transport of a tracer: advection along the network, diffusion through the wall into the tissue.

With Q the flow, a = pi R^2 the cross-section of the vessels, phi what is stored per volume and
concentration (a porosity, capacity or solubility), beta and T as in `forms`:

    phi_3d d_t u_3d - div(k_3d grad u_3d) + sigma_3d u_3d + beta (T u_3d - u_1d) delta = f_3d
    phi_1d a d_t u_1d + d_s(Q u_1d) - d_s(k_1d d_s u_1d)  + beta (u_1d - T u_3d)       = f_1d

the first in Omega, the second on Lambda.

The flow brings a given concentration in at the inlets and takes u_1d out at the outlets. P1 in the
tissue; finite volumes with upwind advection on the network (`advection`), whose axial diffusion and
exchange are the P1 ones of `mixeddim.fem.assembly`; implicit Euler in time. Each step is a
stationary problem, with what is stored as a reaction and what was stored as a source:

    M <- M + C / dt       f <- f + C u_old / dt        C the mass matrix of phi_3d
    K_1d <- K_1d + U + diag(c) / dt                    U the upwind matrix, c_i the volume around
                                                       vertex i, weighted with phi_1d

Its matrix is the same for all steps and is factored once. Fluid J that filters through a leaky wall
drags (1 - sigma_f) J u of the side that it comes from, u_1d or u_3d / s (Kedem & Katchalsky 1958,
doi:10.1016/0006-3002(58)90330-5); in the tissue the fluid moves the tracer no further. The
concentration has no over- or undershoots along the network; in the tissue the P1 matrices allow
small ones next to fronts that h and dt do not resolve.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from numbers import Real

import dolfinx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mixeddim.accuracy import (
    ACCURACY,
    ErrorBound,
    Pair,
    bound_error,
    relative_residual,
    uncertainty,
)
from mixeddim.fem.assembly import CoupledSystem
from mixeddim.fem.forms import Coefficient, as_ufl
from mixeddim.fem.sides import interpolate
from mixeddim.solvers.advection import Advection, discretise_advection
from mixeddim.solvers.conjugate_gradients import check_accuracy
from mixeddim.solvers.factors import BlockFactors
from mixeddim.solvers.leaky_flow import LeakyFlow, with_drag
from mixeddim.solvers.mass_balance import balance_mass
from mixeddim.solvers.stationary import Solution
from mixeddim.solvers.storage import stored_in_network, stored_in_tissue
from mixeddim.solvers.transport_balance import TransportBalance

__all__ = ["TransportState", "simulate_transport"]

type Concentration = float | dolfinx.fem.Function
"""A number, or a P1 function of the network, such as `network.node_field(...)`."""


@dataclass(frozen=True, eq=False, repr=False)
class TransportState(Solution):
    """Tissue and network at the end of a time step, as a `Solution` of that step.

    Attributes:
        time: The end of the step.
        mass_balance: What entered, left and stayed during the step.
    """

    time: float
    mass_balance: TransportBalance = field()  # takes the place of the stationary one

    def __repr__(self) -> str:
        return f"TransportState(time {self.time:.4g}, balance error {self.mass_balance.error:.1e})"


def simulate_transport(
    system: CoupledSystem,
    flow: ArrayLike | LeakyFlow,
    *,
    time_step: float,
    num_steps: int,
    inlet_concentration: Concentration | Callable[[float], Concentration] = 1.0,
    initial_3d: Coefficient = 0.0,
    initial_1d: Coefficient = 0.0,
    storage_3d: Coefficient = 1.0,
    storage_1d: Coefficient = 1.0,
    solvent_reflection: float = 0.0,
) -> Iterator[TransportState]:
    """Simulate the transport of a tracer, step by step.

    Args:
        system: Diffusion, exchange, uptake and sources, assembled with `bcs_1d=[]`, since the
            tracer enters with the flow. Of the coefficients k_3d is the diffusivity in the
            tissue, k_1d that in a vessel times its cross-section.
        flow: Volume per time along each edge, shape (num_edges,), in the order of
            `network.graph.edges`, as `Flow.flow`, in the units of the system;
            or a `LeakyFlow` through the same network.
        time_step: Length of a step.
        num_steps: How many steps.
        inlet_concentration: What the flow brings in, or a function of the time that returns it,
            taken at the end of each step.
        initial_3d: Tissue field at time 0.
        initial_1d: Network field at time 0.
        storage_3d: phi_3d, the amount stored in a unit volume of tissue where u_3d is 1, such as
            its porosity. Not negative; the balance's amounts are what is stored.
        storage_1d: phi_1d, the same for a unit volume of a vessel.
        solvent_reflection: sigma_f, the share of the tracer that a leaky wall holds back from the
            fluid that passes it, from 0 to 1.

    Returns:
        The states at the end of each step, each computed when it is asked for.

    Raises:
        ValueError: If an argument is out of range, or does not fit the system.
        SolverError: While stepping, if the coefficients, rounded to float64, do not determine a
            side's field to 1e-5 of its size.

    Example:
        A bolus of 2 seconds::

            states = simulate_transport(
                system,
                solve_flow(graph, viscosity, pressures).flow,
                time_step=0.1,
                num_steps=100,
                inlet_concentration=lambda t: 1.0 if t <= 2 else 0.0,
            )
            for state in states:
                print(state.time, state.mass_balance.amount_3d)
    """
    if not 0 < time_step < np.inf:
        raise ValueError(f"got time_step={time_step!r}; wanted a finite positive number.")
    if not isinstance(num_steps, int | np.integer) or num_steps < 1:
        raise ValueError(f"got num_steps={num_steps!r}; wanted a positive integer.")
    given = len(system.side_1d.dirichlet_dofs)
    if given > 0:
        raise ValueError(
            f"got a system with u_1d given at {given} nodes; wanted none, since the flow brings "
            "inlet_concentration in. Assemble it with bcs_1d=[]."
        )
    if isinstance(flow, LeakyFlow):
        system = with_drag(system, flow, solvent_reflection)
    elif solvent_reflection != 0:
        raise ValueError(
            f"got solvent_reflection={solvent_reflection!r} and a flow through tight walls; wanted "
            "a leaky one, whose fluid drags the tracer. Pass the result of solve_leaky_flow."
        )
    advection = discretise_advection(system.network, flow)
    start_3d, start_1d = (
        interpolate(as_ufl(value, side.V.mesh, name), side.V)
        for value, side, name in (
            (initial_3d, system.side_3d, "initial_3d"),
            (initial_1d, system.side_1d, "initial_1d"),
        )
    )

    def entering(time: float) -> NDArray[np.float64]:
        concentration = inlet_concentration
        if callable(concentration) and not isinstance(concentration, dolfinx.fem.Function):
            concentration = concentration(time)
        return advection.inflow * _at_dofs(concentration, system.side_1d.V)

    entering(time_step)  # what cannot be used is better refused now
    euler = _ImplicitEuler(system, advection, float(time_step), storage_3d, storage_1d)
    return _march(euler, start_3d, start_1d, entering, num_steps)


def _march(
    euler: _ImplicitEuler,
    u_3d: NDArray[np.float64],
    u_1d: NDArray[np.float64],
    entering: Callable[[float], NDArray[np.float64]],
    num_steps: int,
) -> Iterator[TransportState]:
    for number in range(1, num_steps + 1):
        time = number * euler.dt
        state = euler.step(u_3d, u_1d, entering(time), time)
        # Copies, so that a state is the user's own to change.
        u_3d, u_1d = state.u_3d.x.array[: len(u_3d)].copy(), state.u_1d.x.array.copy()
        yield state


class _ImplicitEuler:
    """The stationary problem of a time step, factored when it is first solved."""

    def __init__(
        self,
        system: CoupledSystem,
        advection: Advection,
        dt: float,
        storage_3d: Coefficient,
        storage_1d: Coefficient,
    ) -> None:
        self.system, self.advection, self.dt = system, advection, dt
        side_3d, side_1d = system.side_3d, system.side_1d
        self.C_3d = stored_in_tissue(side_3d.V, storage_3d, dt)
        self.C_1d = stored_in_network(system.network, storage_1d, dt)
        K_1d = side_1d.K + advection.U + sparse.diags_array(self.C_1d)
        self.problem = replace(
            system,
            side_3d=replace(side_3d, M=side_3d.M + self.C_3d),
            side_1d=replace(side_1d, K=K_1d),
        )

    @cached_property
    def solve(self) -> Callable[[NDArray[np.float64], NDArray[np.float64]], Pair]:
        return BlockFactors(self.problem, "lu", check=True).solve

    def step(
        self,
        old_3d: NDArray[np.float64],
        old_1d: NDArray[np.float64],
        inflow: NDArray[np.float64],
        time: float,
    ) -> TransportState:
        """Return the state at the end of a step, from the fields at its start."""
        side_3d, side_1d = self.problem.side_3d, self.problem.side_1d
        step = replace(
            self.problem,
            side_3d=replace(side_3d, f=side_3d.f + self.C_3d @ old_3d),
            side_1d=replace(side_1d, f=side_1d.f + self.C_1d * old_1d + inflow),
        )
        # The matrices of all steps are those of the problem, assembled once.
        blocks, loads = self.problem, (step.b_3, step.b_1)
        fields = old_3d, old_1d
        for _ in range(2):  # the second time so that smaller amounts balance as well
            residual_3d = loads[0] - blocks.A_33 @ fields[0] - blocks.A_31 @ fields[1]
            residual_1d = loads[1] - blocks.A_13 @ fields[0] - blocks.A_11 @ fields[1]
            change_3d, change_1d = self.solve(residual_3d, residual_1d)
            fields = fields[0] + change_3d, fields[1] + change_1d
        new_3d, new_1d = fields
        bound = self._bound(loads, fields)
        check_accuracy(bound, ACCURACY, f"fields at time {time:.4g}")
        u_3d, u_1d = side_3d.function(new_3d, "u_3d"), side_1d.function(new_1d, "u_1d")
        residual = relative_residual(self.problem, loads, fields)
        balance = self._balance(step, new_3d, new_1d, new_3d - old_3d, new_1d - old_1d, inflow)
        return TransportState(self.system, u_3d, u_1d, "direct", 1, residual, time, balance)

    @cached_property
    def _responses(self) -> tuple[Pair, Pair]:
        """The fields that one at every tissue dof drives, and those of one at every network dof."""
        one_3d, one_1d = np.ones_like(self.problem.b_3), np.ones_like(self.problem.b_1)
        return self.solve(one_3d, 0.0 * one_1d), self.solve(0.0 * one_3d, one_1d)

    def _bound(self, loads: Pair, fields: Pair) -> ErrorBound:
        """Return a bound on the error of a step, mostly without another solve.

        No entry of A^-1 counts as negative (see `accuracy`). So the largest uncertainty, at every
        dof, drives an error at least as large; where that is too large the true one decides.
        """
        processes = self.problem.processes
        w_3, w_1 = uncertainty(self.problem, loads, fields)
        most_3, most_1 = processes.max(w_3.max(initial=0.0)), w_1.max(initial=0.0)
        (from_3, from_1), (by_3, by_1) = self._responses
        error = most_3 * abs(from_3) + most_1 * abs(by_3), most_3 * abs(from_1) + most_1 * abs(by_1)
        bound = bound_error(fields, error, processes)
        if bound.largest <= ACCURACY:
            return bound
        return bound_error(fields, self.solve(w_3, w_1), processes)

    def _balance(
        self,
        step: CoupledSystem,
        u_3d: NDArray[np.float64],
        u_1d: NDArray[np.float64],
        growth_3d: NDArray[np.float64],
        growth_1d: NDArray[np.float64],
        inflow: NDArray[np.float64],
    ) -> TransportBalance:
        """Return the balance of a step, of which the stationary one counts stores as sources."""
        side_3d, side_1d = self.system.side_3d, self.system.side_1d
        total = self.system.processes.sum
        total_in, total_out = float(inflow.sum()), float(self.advection.outflow @ u_1d)
        steady = balance_mass(step, u_3d, u_1d)
        return TransportBalance(
            source_3d=total(side_3d.f.sum()),
            boundary_3d=steady.boundary_3d,
            reaction_3d=total((side_3d.M @ u_3d).sum()),
            exchange=steady.exchange,
            source_1d=float(side_1d.f.sum()),
            boundary_1d=steady.boundary_1d + total_in - total_out,
            traded_3d=steady.traded_3d,
            traded_1d=steady.traded_1d,
            inflow=total_in,
            outflow=total_out,
            storage_3d=total((self.C_3d @ growth_3d).sum()),
            storage_1d=float(self.C_1d @ growth_1d),
            amount_3d=self.dt * total((self.C_3d @ u_3d).sum()),
            amount_1d=self.dt * float(self.C_1d @ u_1d),
        )


def _at_dofs(concentration: Concentration, V: dolfinx.fem.FunctionSpace) -> NDArray[np.float64]:
    """Return the inlet concentration at the dofs of the network."""
    if isinstance(concentration, dolfinx.fem.Function):
        if concentration.function_space.mesh is V.mesh:
            return interpolate(as_ufl(concentration, V.mesh, "inlet_concentration"), V)
    elif isinstance(concentration, Real) and isfinite(concentration):
        return np.full(V.dofmap.index_map.size_local, float(concentration))
    raise ValueError(
        f"got the inlet concentration {concentration!r}; wanted a finite number, or a function on "
        "the mesh of the network, or a function of the time that returns either."
    )

"""Flow through leaky vessels: the pressures of vessels and tissue, coupled by Starling's law.

With G = pi R^4 / (8 mu) the conductance of a vessel, K the mobility of fluid in the tissue, and per
length of a vessel the filtration J through its wall (Starling 1896; Kedem & Katchalsky 1958):

    J = 2 pi R_o L_p ((p_1d - T p_3d) - sigma (pi_1d - pi_3d))

    -d_s(G d_s p_1d) + J = 0                                        on Lambda
    -div(K grad p_3d) + drainage (p_3d - p_lymph) - J delta = 0     in Omega

This is the coupled problem of `mixeddim.fem.forms` with the oncotic part of J as a given source on
both sides. What is solved for is the change from the flow of tight vessels, so that without
filtration that flow remains, to rounding.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real

import dolfinx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixeddim.fem.assembly import CoupledSystem, assemble
from mixeddim.fem.averaging import AveragingOperator, OutsidePolicy
from mixeddim.fem.boundary import BoundaryCondition
from mixeddim.fem.coupling import at_points
from mixeddim.fem.forms import Coefficient, Coefficients, as_ufl, check_number
from mixeddim.fem.meshes import Network, StructuredBox
from mixeddim.networks.blood_flow import Flow, solve_flow
from mixeddim.networks.graphs import edge_radii
from mixeddim.solvers.filtration_balance import FiltrationBalance
from mixeddim.solvers.mass_balance import balance_mass
from mixeddim.solvers.stationary import solve

__all__ = ["Filtration", "LeakyFlow", "solve_leaky_flow", "with_drag"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Filtration:
    """Data of Starling's law, in consistent units; each a number, UFL expression or function.

    Attributes:
        hydraulic_conductivity: L_p of the wall, on the network: velocity per pressure. Not
            negative.
        mobility: K of the tissue, permeability over viscosity of the fluid: a scalar or a
            tensor. Positive.
        oncotic_1d: pi_1d, the oncotic pressure of the plasma, on the network.
        oncotic_3d: pi_3d, that of the fluid around the vessels, also on the network.
        reflection: sigma of the wall for the proteins that make these pressures, from 0 to 1, on
            the network.
        drainage: By lymph vessels, in the tissue: volume per time, volume and pressure. Not
            negative.
        drainage_pressure: p_lymph, in the tissue.
    """

    hydraulic_conductivity: Coefficient
    mobility: Coefficient
    oncotic_1d: Coefficient = 0.0
    oncotic_3d: Coefficient = 0.0
    reflection: Coefficient = 1.0
    drainage: Coefficient = 0.0
    drainage_pressure: Coefficient = 0.0

    def __post_init__(self) -> None:
        check_number("hydraulic_conductivity", self.hydraulic_conductivity, positive=False)
        check_number("mobility", self.mobility, positive=True, tensor=True)
        check_number("drainage", self.drainage, positive=False)


@dataclass(frozen=True, eq=False, repr=False)
class LeakyFlow:
    """Flow through leaky vessels, in the units of its data.

    Attributes:
        system: The coupled problem of the pressures.
        tight: The flow of the same vessels with tight walls.
        pressure_3d: Pressure in the tissue, a P1 function.
        pressure_1d: Pressure in the vessels, a P1 function.
        segment_flow: Volume per time along each segment of the network's mesh, positive from the
            first node of its edge to the second, shape (num_segments,).
        filtration: J at the points `system.coupling.points`, positive out of the vessel: volume
            per time and length, shape (num_points,).
        node_inflow: Inflow from outside at each node, negative for outflow, shape (num_nodes,).
        balance: Where the fluid goes.
    """

    system: CoupledSystem
    tight: Flow
    pressure_3d: dolfinx.fem.Function
    pressure_1d: dolfinx.fem.Function
    segment_flow: NDArray[np.float64]
    filtration: NDArray[np.float64]
    node_inflow: NDArray[np.float64]
    balance: FiltrationBalance

    def __repr__(self) -> str:
        b = self.balance
        return f"LeakyFlow({b.inflow:.4g} in, {b.outflow:.4g} out, {b.net_filtration:.4g} filtered)"

    @property
    def network(self) -> Network:
        """The network."""
        return self.system.network

    @cached_property
    def edge_filtration(self) -> NDArray[np.float64]:
        """What leaves each edge through its wall, volume per time, shape (num_edges,)."""
        coupling = self.system.coupling
        edges = self.network.edge_of_cell[coupling.cells]
        num_edges = self.network.graph.number_of_edges()
        total = np.bincount(edges, coupling.weights * self.filtration, num_edges)
        return np.asarray(total, dtype=float)


def solve_leaky_flow(
    tissue: StructuredBox | dolfinx.mesh.Mesh,
    network: Network,
    viscosity: ArrayLike,
    pressures: Mapping[Hashable, float],
    inflows: Mapping[Hashable, float] | None = None,
    *,
    filtration: Filtration,
    bcs_3d: Sequence[BoundaryCondition] = (),
    averaging: AveragingOperator | None = None,
    outside: OutsidePolicy = "raise",
) -> LeakyFlow:
    """Solve for the flow through leaky vessels and the fluid pressure of the tissue around them.

    Args:
        tissue: Box or mesh of the tissue.
        network: The network.
        viscosity: As of `solve_flow`.
        pressures: Pressure at some nodes, at least one in each connected component.
        inflows: Volume per time that enters at other nodes, negative where it leaves.
        filtration: The wall, the tissue and its drainage.
        bcs_3d: Conditions on the tissue's pressure; without any no fluid passes its faces.
        averaging: The average of the tissue; by default the mean over the circle.
        outside: What to do where a circle leaves the tissue, as of `assemble`.

    Raises:
        NetworkError, ValueError, TypeError: As of `solve_flow` and `assemble`; if sigma is not
            from 0 to 1.
        ValueError: If nothing holds the level of the tissue's pressure.

    Example:
        In cm, s and mmHg, with the wall, tissue and lymph of Baxter & Jain (1989)::

            flow = solve_leaky_flow(
                box, network, viscosity, {arteriole: 25.0, venule: 10.0},
                filtration=Filtration(
                    hydraulic_conductivity=3.6e-8, mobility=8.5e-9, oncotic_1d=20.0,
                    oncotic_3d=10.0, reflection=0.91, drainage=1e-5,
                ),
            )
    """
    tight = solve_flow(network.graph, viscosity, pressures, inflows)
    conductance = np.pi * edge_radii(network.graph) ** 4 / (8 * tight.viscosity)
    mesh = tissue.mesh if isinstance(tissue, StructuredBox) else tissue
    drainage = as_ufl(filtration.drainage, mesh, "drainage")
    level = as_ufl(filtration.drainage_pressure, mesh, "drainage_pressure")
    coefficients = Coefficients(
        k_3d=filtration.mobility,
        sigma_3d=drainage,
        f_3d=drainage * level,
        k_1d=network.on_edges(conductance, "conductance"),
        permeability=filtration.hydraulic_conductivity,
    )
    system = assemble(
        tissue,
        network,
        coefficients,
        bcs_3d=bcs_3d,
        bcs_1d=(),
        averaging=averaging,
        outside=outside,
    )
    _check_level(system)
    coupling, at_start = system.coupling, network.on_nodes(tight.pressure, "p").x.array
    oncotic = _oncotic(network, filtration)[coupling.kept]
    # Filtration of the tight vessels' pressure into tissue at pressure 0: what the rest is due to.
    first = coupling.beta * (coupling.N @ at_start - oncotic)
    step = _with_filtration(system, tight, coupling.weights * first)
    change = solve(step)
    p_3d, delta = change.u_3d.x.array[: len(step.side_3d.f)], change.u_1d.x.array
    J = first + coupling.flux(p_3d, delta)
    segment_flow = _segment_flow(network, tight.flow, conductance, delta)
    lost = coupling.N.T @ (coupling.weights * J)
    node_inflow, missing = _node_inflow(network, tight, segment_flow, lost)
    balance = balance_mass(step, p_3d, delta)
    through_wall = coupling.weights * J
    traded_1d = float(abs(node_inflow).sum() + abs(through_wall).sum())
    return LeakyFlow(
        system=system,
        tight=tight,
        pressure_3d=system.side_3d.function(p_3d, "pressure_3d"),
        pressure_1d=system.side_1d.function(at_start + delta, "pressure_1d"),
        segment_flow=segment_flow,
        filtration=J,
        node_inflow=node_inflow,
        balance=FiltrationBalance(
            inflow=float(np.maximum(node_inflow, 0.0).sum()),
            outflow=float(np.maximum(-node_inflow, 0.0).sum()),
            filtered=float(np.maximum(through_wall, 0.0).sum()),
            reabsorbed=float(np.maximum(-through_wall, 0.0).sum()),
            boundary_3d=balance.boundary_3d,
            drained=balance.reaction_3d - system.processes.sum(system.side_3d.f.sum()),
            error_1d=missing / traded_1d if traded_1d > 0 else 0.0,
            error_3d=balance.error_3d,
        ),
    )


def with_drag(system: CoupledSystem, flow: LeakyFlow, reflection: float) -> CoupledSystem:
    """Return a system of a tracer in which fluid drags (1 - reflection) J u through the wall.

    Raises:
        ValueError: If the reflection is not from 0 to 1, or flow and system differ in where they
            exchange.
    """
    if not (isinstance(reflection, Real) and 0 <= reflection <= 1):
        raise ValueError(
            f"got solvent_reflection={reflection!r}; wanted a number from 0, where the fluid drags "
            "all of the tracer along, to 1."
        )
    ours, theirs = system.coupling, flow.system.coupling
    if system.network is not flow.network or not np.array_equal(ours.kept, theirs.kept):
        raise ValueError(
            "got the flow of another network, or with other circles outside the tissue; wanted "
            "the same. Pass the same network and outside= to solve_leaky_flow and assemble."
        )
    drag = (1.0 - reflection) * flow.filtration
    return system.with_parts(coupling=replace(ours, drag=drag))


def _check_level(system: CoupledSystem) -> None:
    side, any_of = system.side_3d, system.processes.any
    parts = side.M.data, side.R.data, side.dirichlet_dofs + 1, system.coupling.beta
    if not any(any_of(part.any()) for part in parts):
        raise ValueError(
            "got tight walls, no drainage and no condition on the tissue's pressure; wanted one "
            "that holds its level. Pass drainage=, or bcs_3d=[md.Dirichlet(...)]."
        )


def _oncotic(network: Network, filtration: Filtration) -> NDArray[np.float64]:
    """Return sigma (pi_1d - pi_3d) at all quadrature points."""
    mesh = network.mesh
    sigma, inside, outside = (
        as_ufl(getattr(filtration, name), mesh, name)
        for name in ("reflection", "oncotic_1d", "oncotic_3d")
    )
    reflection = at_points(network, sigma)
    if not np.all((reflection >= 0) & (reflection <= 1)):
        raise ValueError(
            f"got a reflection from {reflection.min():.3g} to {reflection.max():.3g}; wanted "
            "values from 0, where the wall lets proteins through, to 1."
        )
    difference = reflection * at_points(network, inside - outside)
    if not np.all(np.isfinite(difference)):
        raise ValueError(
            "got oncotic pressures that are NaN or infinite somewhere; wanted finite values."
        )
    return difference


def _with_filtration(
    system: CoupledSystem, tight: Flow, filtered: NDArray[np.float64]
) -> CoupledSystem:
    """Return the system of the change, in which what filters at the points is given.

    Args:
        system: The system.
        tight: The flow whose given pressures do not change.
        filtered: Volume per time at each point.
    """
    side_3d, side_1d, coupling = system.side_3d, system.side_1d, system.coupling
    given = np.sort(system.network.dof_of_node[tight.is_given])
    return system.with_parts(
        side_3d=replace(side_3d, f=side_3d.f + coupling.Pi.T @ filtered),
        side_1d=replace(
            side_1d,
            f=side_1d.f - coupling.N.T @ filtered,
            dirichlet_dofs=given,
            dirichlet_values=np.zeros(len(given)),
        ),
    )


def _segment_flow(
    network: Network,
    tight: NDArray[np.float64],
    conductance: NDArray[np.float64],
    change: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the flow along each segment, in the direction of its edge."""
    start, end, length, sign = network.segments
    edge = network.edge_of_cell
    flow: NDArray[np.float64] = tight[edge] + sign * conductance[edge] / length * (
        change[start] - change[end]
    )
    return flow


def _node_inflow(
    network: Network, tight: Flow, segment_flow: NDArray[np.float64], lost: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return the inflow at each node, and the sum of what Kirchhoff's law misses elsewhere."""
    start, end, _, sign = network.segments
    size, along = len(lost), sign * segment_flow
    net = np.bincount(start, along, size) - np.bincount(end, along, size) + lost
    dofs = network.dof_of_node
    inflow = np.where(tight.is_given, net[dofs], tight.given_inflow)
    net[dofs] -= inflow
    return inflow, float(abs(net).sum())

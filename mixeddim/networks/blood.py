"""Flow of blood whose red cells split at junctions: flow, hematocrit and viscosity together.

Viscosity depends on the hematocrit, flow on viscosity, and the hematocrit on flow, since at
diverging junctions red cells do not split as the blood does (`hematocrit`). A map goes round,

    mu = viscosity(D, H)   ->   Q by Kirchhoff's law   ->   F(H) by phase separation

and a steady state is its fixed point. `relaxation` finds it; the derivative of Q with respect to mu
is exact, from the factors that gave Q. Iterating F with damping takes hundreds of iterations on
lattices of nearly equal vessels, where F comes close to folds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Final

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.networks.blood_flow import (
    Flow,
    Kirchhoff,
    node_differences,
    solve_flow,
    values_at_nodes,
)
from mixeddim.networks.graphs import edge_indices, edge_lengths, edge_radii
from mixeddim.networks.hematocrit import MOST_CELLS, STILL, Junctions, RedCells
from mixeddim.networks.relaxation import State, relax
from mixeddim.networks.viscosity import ViscosityLaw, relative_viscosity

__all__ = ["Blood", "solve_blood"]

SMALLEST, LARGEST = 1.1, 1e4
"""Diameters between which a vessel may lie [µm]: the pole of the viscosity in vivo, and 1 cm."""

LEAST_VISCOSITY, MOST_VISCOSITY = 1e-4, 0.1
"""Between which the viscosity of plasma may lie [Pa s]: other numbers have other units."""

DIFFERENCE: Final = 1e-7
"""Of hematocrits, by which derivatives are approximated."""


@dataclass(frozen=True, eq=False, repr=False)
class Blood(Flow):
    """Flow of blood through a network, in SI units.

    Attributes:
        hematocrit: Discharge hematocrit of each edge, the share of red cells in the blood that
            flows through, shape (num_edges,). Where blood stands still it means nothing.
        red_cell_flux: Volume of red cells per time along each edge [m³/s], signed as the flow.
        red_cell_inflow: Volume of red cells per time from outside at each node [m³/s], negative for
            outflow, shape (num_nodes,).
        changes: Largest |H' - H| of each iteration, shape (iterations,).
    """

    hematocrit: NDArray[np.float64]
    red_cell_flux: NDArray[np.float64]
    red_cell_inflow: NDArray[np.float64]
    changes: NDArray[np.float64]

    def __repr__(self) -> str:
        return (
            f"Blood({len(self.flow)} edges, {self.inflow:.4g} in, hematocrit "
            f"{self.hematocrit.min():.2f} to {self.hematocrit.max():.2f}, "
            f"{self.iterations} iterations)"
        )

    @property
    def iterations(self) -> int:
        """Number of iterations."""
        return len(self.changes)

    @cached_property
    def red_cell_imbalance(self) -> NDArray[np.float64]:
        """What is missing of the red cells at each node, over the largest flux, (num_nodes,)."""
        missing = node_differences(self.graph).T @ self.red_cell_flux - self.red_cell_inflow
        most = abs(self.red_cell_flux).max()
        return abs(missing) / most if most > 0 else abs(missing)


def solve_blood(
    graph: nx.Graph,
    pressures: Mapping[Hashable, float],
    inflows: Mapping[Hashable, float] | None = None,
    *,
    hematocrit: float | Mapping[Hashable, float] = 0.45,
    plasma_viscosity: float = 1.2e-3,
    law: ViscosityLaw = "in vivo",
    atol: float = 1e-8,
    max_iterations: int = 500,
) -> Blood:
    """Solve for the flow of blood and its hematocrit, which depend on each other.

    Args:
        graph: Network with the node attribute `pos` and the edge attribute `radius`, both in m.
        pressures: Pressure [Pa] at some nodes, at least one in each connected component.
        inflows: Volume per time [m³/s] that enters at other nodes, negative where it leaves; none
            at nodes that are not named.
        hematocrit: Discharge hematocrit of the blood that enters: a number, or one for each node
            where blood enters. Those of other nodes are not used.
        plasma_viscosity: Viscosity of plasma [Pa s].
        law: Law of the apparent viscosity (see `relative_viscosity`).
        atol: Where to stop: no hematocrit would change by more in another iteration.
        max_iterations: Where to give up.

    Raises:
        NetworkError: As `solve_flow`.
        ValueError: If an argument is out of range, lengths are not in m, or blood enters at a node
            without hematocrit.
        RuntimeError: If the iteration does not converge.

    Example:
        A file of `read_network("network.dat")`, which holds what enters where::

            nodes = graph.nodes
            blood = solve_blood(
                graph,
                pressures={n: p for n, p in nodes(data="pressure") if p is not None},
                inflows={n: q for n, q in nodes(data="inflow") if q is not None},
                hematocrit=nx.get_node_attributes(graph, "hematocrit"),
            )
    """
    _check_numbers(plasma_viscosity, atol, max_iterations)
    flow = solve_flow(graph, plasma_viscosity, pressures, inflows)  # checks what it is given
    diameter = _diameters(graph)
    inlet_hematocrit, is_known = _inlet_hematocrit(graph, hematocrit)
    problem = _Problem(graph, flow, diameter, inlet_hematocrit, plasma_viscosity, law)
    start = np.full(len(diameter), inlet_hematocrit.mean())
    _, state, changes = relax(problem.at, start, (0.0, MOST_CELLS), atol, max_iterations)
    cells = state.cells
    if not changes[-1] <= atol:  # nor where it is NaN
        raise _not_converged(graph, state, changes, atol)
    blood = Blood(
        graph,
        state.pressure,
        state.flow,
        state.viscosity,
        flow.is_given,
        flow.given_inflow,
        cells.hematocrit,
        cells.flux,
        cells.node_inflow,
        np.array(changes),
    )
    _check_entering(graph, blood, is_known)
    return blood


@dataclass(frozen=True, eq=False)
class _State(State):
    """Flow and red cells that follow from a hematocrit."""

    pressure: NDArray[np.float64]
    flow: NDArray[np.float64]
    viscosity: NDArray[np.float64]
    cells: RedCells


@dataclass(frozen=True, eq=False)
class _Problem:
    """F: from hematocrit to viscosity, to flow, to the hematocrit of the red cells it carries."""

    graph: nx.Graph
    plasma: Flow  # with the viscosity of plasma
    diameter: NDArray[np.float64]
    inlet_hematocrit: NDArray[np.float64]
    plasma_viscosity: float
    law: ViscosityLaw

    @cached_property
    def junctions(self) -> Junctions:
        return Junctions(edge_indices(self.graph), self.diameter, self.inlet_hematocrit)

    @cached_property
    def differences(self) -> sparse.csr_array:
        return node_differences(self.graph)

    @cached_property
    def plasma_conductance(self) -> NDArray[np.float64]:
        lengths = edge_lengths(self.graph)
        return np.asarray(
            np.pi * edge_radii(self.graph) ** 4 / (8 * self.plasma_viscosity * lengths)
        )

    def at(self, H: NDArray[np.float64]) -> _State:
        """Return what follows from the hematocrit H of each edge."""
        plasma = self.plasma
        mu = relative_viscosity(self.diameter, H, self.law)
        law = Kirchhoff(self.differences, self.plasma_conductance / mu, plasma.is_given)
        p, Q = law.pressure_and_flow(plasma.pressure, plasma.given_inflow)
        cells = self.junctions.distribute(Q, self._node_inflow(Q), H)

        def derivative(v: NDArray[np.float64]) -> NDArray[np.float64]:
            """Return F'(H) v, by differences but for the linear part, the pressures."""
            most = abs(v).max(initial=0.0)
            if most == 0.0:
                return v
            near = np.clip(H + DIFFERENCE / most * v, 0.0, MOST_CELLS)
            change = Q * (mu / relative_viscosity(self.diameter, near, self.law) - 1)
            Q_near = Q + law.change_of_flow(change)
            there = self.junctions.distribute(Q_near, self._node_inflow(Q_near), H)
            difference = there.hematocrit - cells.hematocrit
            return np.asarray(difference * (most / DIFFERENCE))

        largest = abs(Q).max(initial=0.0)
        weight = np.sqrt(abs(Q) / largest) if largest > 0 else np.zeros_like(Q)
        viscosity = self.plasma_viscosity * mu
        return _State(cells.hematocrit - H, weight, derivative, p, Q, viscosity, cells)

    def _node_inflow(self, Q: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(self.plasma.is_given, self.differences.T @ Q, self.plasma.given_inflow)


def _check_numbers(plasma_viscosity: float, atol: float, max_iterations: int) -> None:
    for name, value in (("plasma_viscosity", plasma_viscosity), ("atol", atol)):
        if not isinstance(value, Real) or not 0 < value < np.inf:
            raise ValueError(f"got {name}={value!r}; wanted a finite positive number.")
    if not LEAST_VISCOSITY <= plasma_viscosity <= MOST_VISCOSITY:
        raise ValueError(
            f"got plasma_viscosity={plasma_viscosity!r}; wanted Pa s, from {LEAST_VISCOSITY} to "
            f"{MOST_VISCOSITY}: plasma has 1.2e-3. Multiply mPa s, or centipoise, by 1e-3."
        )
    if not isinstance(max_iterations, int | np.integer) or max_iterations < 1:
        raise ValueError(f"got max_iterations={max_iterations!r}; wanted a positive integer.")


def _diameters(graph: nx.Graph) -> NDArray[np.float64]:
    """Return the diameters [µm]."""
    diameter: NDArray[np.float64] = 2e6 * edge_radii(graph)
    if not np.all((diameter > SMALLEST) & (diameter < LARGEST)):
        raise ValueError(
            f"got radii from {0.5e-6 * diameter.min():.3g} to {0.5e-6 * diameter.max():.3g}; "
            f"wanted diameters from {SMALLEST} µm to 1 cm, in m: the laws of blood need them. Read "
            "the file with length_unit=1e-6 if it is in µm, or convert pos and radius with "
            "mixeddim.Scaling."
        )
    return diameter


def _inlet_hematocrit(
    graph: nx.Graph, hematocrit: float | Mapping[Hashable, float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the hematocrit of blood from outside at each node, and where it is known."""
    if isinstance(hematocrit, Mapping) and hematocrit:
        values, is_known = values_at_nodes(graph, hematocrit, "hematocrit")
    else:
        try:
            number = float(hematocrit)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ValueError(
                f"got hematocrit={hematocrit!r}; wanted a number, or a dictionary from the nodes "
                "where blood enters to numbers."
            ) from None
        values = np.full(graph.number_of_nodes(), number)
        is_known = np.ones(len(values), dtype=bool)
    known = values[is_known]
    if not np.all((known >= 0) & (known <= MOST_CELLS)):
        raise ValueError(
            f"got hematocrits from {known.min():.3g} to {known.max():.3g}; wanted them from 0 to "
            f"{MOST_CELLS}. Give shares, not per cent."
        )
    # Blood may enter elsewhere while the iteration is under way.
    return np.where(is_known, values, known.mean()), is_known


def _check_entering(graph: nx.Graph, flow: Flow, is_known: NDArray[np.bool_]) -> None:
    inflow = flow.node_inflow
    for ordinal in np.flatnonzero(~is_known & (inflow > STILL * abs(flow.flow).max())):
        raise ValueError(
            f"got an inflow of {inflow[ordinal]:.3g} m³/s at node {list(graph)[ordinal]!r}, which "
            "has no hematocrit; wanted that of all blood that enters. Add the node to hematocrit."
        )


def _not_converged(
    graph: nx.Graph, state: _State, changes: list[float], atol: float
) -> RuntimeError:
    change, flow = abs(state.change), abs(state.flow)
    worst, moving = int(change.argmax()), int((change > atol).sum())
    return RuntimeError(
        f"got a hematocrit that still changes by {change[worst]:.2e} after {len(changes)} "
        f"iterations, in edge {list(graph.edges)[worst]!r} whose flow is "
        f"{flow[worst] / flow.max():.1e} of the largest, and by more than {atol:.0e} in {moving} "
        f"of {len(change)} edges; wanted {atol:.0e}. Raise max_iterations, or atol if so little "
        "flow does not matter to you. If the change no longer falls, there may be no stable "
        "steady state: change a pressure or the hematocrit slightly."
    )

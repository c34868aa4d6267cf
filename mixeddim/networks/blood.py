"""Flow of blood whose red cells split at junctions: flow, hematocrit and viscosity together.

Viscosity depends on the hematocrit, flow on viscosity, and the hematocrit on flow, since at
diverging junctions red cells do not split as the blood does (`hematocrit`). A fixed-point iteration
goes round:

    mu = viscosity(D, H)   ->   Q by Kirchhoff's law   ->   H' by phase separation
    H  <- H + omega (H' - H)

In some vessels the blood nearly stands still. Where its flow turns from one iterate to the next, it
comes from the other end, and H' jumps. So each vessel has an omega of its own, which is halved when
H' - H changes its sign and grows again while it does not (Jacobs 1988,
doi:10.1016/0893-6080(88)90003-2, for another fixed point).
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

from mixeddim.networks.blood_flow import (
    Flow,
    node_differences,
    pressure_and_flow,
    solve_flow,
    values_at_nodes,
)
from mixeddim.networks.graphs import edge_indices, edge_lengths, edge_radii
from mixeddim.networks.hematocrit import MOST_CELLS, STILL, RedCells, distribute_red_cells
from mixeddim.networks.viscosity import ViscosityLaw, relative_viscosity

__all__ = ["Blood", "solve_blood"]

SMALLEST, LARGEST = 1.1, 1e4
"""Diameters between which a vessel may lie [µm]: the pole of the viscosity in vivo, and 1 cm."""

LESS: Final = 0.5
MORE: Final = 1.2
"""What omega is multiplied by where H' - H has changed its sign, and where it has not."""


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
    G_plasma = np.pi * edge_radii(graph) ** 4 / (8 * plasma_viscosity * edge_lengths(graph))
    D, edges = node_differences(graph), edge_indices(graph)

    def iterate(H: NDArray[np.float64]) -> tuple[Flow, RedCells]:
        """Return the flow that a hematocrit gives, and the red cells that this flow carries."""
        mu = relative_viscosity(diameter, H, law)
        given = np.where(flow.is_given, flow.pressure, 0.0)
        at_nodes = given, flow.is_given, flow.given_inflow
        p, Q = pressure_and_flow(D, G_plasma / mu, *at_nodes)
        new = Flow(graph, p, Q, plasma_viscosity * mu, flow.is_given, flow.given_inflow)
        entering = new.node_inflow
        return new, distribute_red_cells(edges, Q, entering, inlet_hematocrit, diameter, H)

    H = np.full(len(edges), inlet_hematocrit.mean())
    omega, last_change, changes = np.ones_like(H), np.zeros_like(H), []
    while True:
        result, cells = iterate(H)
        change = cells.hematocrit - H
        changes.append(float(abs(change).max()))
        if changes[-1] <= atol:
            break
        if len(changes) >= max_iterations:
            raise _not_converged(graph, change, result.flow, changes, atol)
        turned = change * last_change < 0
        omega, last_change = np.where(turned, LESS * omega, np.minimum(MORE * omega, 1.0)), change
        H = np.minimum(H + omega * change, MOST_CELLS)
    _check_entering(graph, result, is_known)
    return Blood(
        graph,
        result.pressure,
        result.flow,
        result.viscosity,
        result.is_given,
        result.given_inflow,
        cells.hematocrit,
        cells.flux,
        cells.node_inflow,
        np.array(changes),
    )


def _check_numbers(plasma_viscosity: float, atol: float, max_iterations: int) -> None:
    for name, value in (("plasma_viscosity", plasma_viscosity), ("atol", atol)):
        if not isinstance(value, Real) or not 0 < value < np.inf:
            raise ValueError(f"got {name}={value!r}; wanted a finite positive number.")
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
    graph: nx.Graph,
    change: NDArray[np.float64],
    flow: NDArray[np.float64],
    changes: list[float],
    atol: float,
) -> RuntimeError:
    worst = int(abs(change).argmax())
    return RuntimeError(
        f"got a hematocrit that still changes by {changes[-1]:.2e} after {len(changes)} "
        f"iterations, in edge {list(graph.edges)[worst]!r} whose flow is "
        f"{abs(flow[worst]) / abs(flow).max():.1e} of the largest; wanted {atol:.0e}. Raise "
        "max_iterations, or atol if so little flow does not matter to you."
    )

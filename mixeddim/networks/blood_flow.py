"""Poiseuille flow through a network: a pressure at each node, a flow along each edge.

A vessel of radius R and length L conducts G = pi R^4 / (8 mu L), so that Q = G (p_u - p_v) flows
from its first node u to its second node v. At each node without a given pressure, what flows in
from outside leaves along its edges (Kirchhoff). With D the matrix that takes differences along
edges, this reads

    D' G D p = inflow

with given pressures moved to the right-hand side. Viscosity is given: `blood` finds it together
with the hematocrit. The walls are tight; for leaky ones see `mixeddim.solvers.leaky_flow`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mixeddim.algebra.network_block import laplacian_solver
from mixeddim.networks.graphs import (
    NetworkError,
    check_structure,
    edge_indices,
    edge_lengths,
    edge_radii,
    inlet_mask,
)

__all__ = [
    "Flow",
    "Kirchhoff",
    "balance_flow",
    "node_differences",
    "solve_flow",
    "values_at_nodes",
]


@dataclass(frozen=True, eq=False, repr=False)
class Flow:
    """Flow through a network, in the units of the graph, the viscosity and the pressures.

    With lengths in m, viscosity in Pa s and pressures in Pa, flows are in m³/s.

    Attributes:
        graph: The network.
        pressure: Pressure at each node, shape (num_nodes,), in the order of `graph.nodes`.
        flow: Volume per time along each edge, shape (num_edges,), in the order of `graph.edges`,
            positive from its first node to its second.
        viscosity: Viscosity in each edge, shape (num_edges,).
        is_given: Which nodes have a given pressure, shape (num_nodes,).
        given_inflow: Inflow from outside that was asked for at each node, shape (num_nodes,).
    """

    graph: nx.Graph
    pressure: NDArray[np.float64]
    flow: NDArray[np.float64]
    viscosity: NDArray[np.float64]
    is_given: NDArray[np.bool_]
    given_inflow: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"Flow({len(self.flow)} edges, {self.inflow:.4g} in, {self.outflow:.4g} out)"

    @cached_property
    def mean_velocity(self) -> NDArray[np.float64]:
        """Flow over cross-section of each edge, signed as the flow, shape (num_edges,)."""
        return self.flow / (np.pi * edge_radii(self.graph) ** 2)

    @cached_property
    def wall_shear_stress(self) -> NDArray[np.float64]:
        """4 mu |Q| / (pi R^3) of each edge, in the unit of pressure, shape (num_edges,)."""
        return 4 * self.viscosity * abs(self.flow) / (np.pi * edge_radii(self.graph) ** 3)

    @cached_property
    def node_inflow(self) -> NDArray[np.float64]:
        """Inflow from outside at each node, negative for outflow, shape (num_nodes,)."""
        net = node_differences(self.graph).T @ self.flow
        return np.where(self.is_given, net, self.given_inflow)

    @cached_property
    def inflow(self) -> float:
        """Total inflow into the network."""
        return float(np.maximum(self.node_inflow, 0.0).sum())

    @cached_property
    def outflow(self) -> float:
        """Total outflow from the network."""
        return float(np.maximum(-self.node_inflow, 0.0).sum())

    @cached_property
    def imbalance(self) -> NDArray[np.float64]:
        """What Kirchhoff's law misses at each node, over what passes it, shape (num_nodes,).

        In a loop where blood stands still, flow is rounding and misses as much again: what is
        below the rounding of the largest flow counts as that.
        """
        D = node_differences(self.graph)
        missing = abs(D.T @ self.flow - self.node_inflow)
        passing = 0.5 * (abs(D).T @ abs(self.flow) + abs(self.node_inflow))
        passing = np.maximum(passing, np.finfo(float).eps * passing.max(initial=0.0))
        return np.divide(missing, passing, out=np.zeros_like(missing), where=passing > 0)


def solve_flow(
    graph: nx.Graph,
    viscosity: ArrayLike,
    pressures: Mapping[Hashable, float],
    inflows: Mapping[Hashable, float] | None = None,
) -> Flow:
    """Solve for the flow of a viscous fluid through a network of narrow vessels.

    Args:
        graph: Network with the node attribute `pos` and the edge attribute `radius`.
        viscosity: A number, or one for each edge, shape (num_edges,), in the order of
            `graph.edges`; `relative_viscosity` gives those of blood.
        pressures: Pressure at some nodes, at least one in each connected component.
        inflows: Volume per time that enters at other nodes, negative where it leaves; none at
            nodes that are not named.

    Raises:
        NetworkError: If the graph cannot carry a flow, a component has no given pressure, or radii
            differ so much that float64 does not determine the pressures.
        ValueError: If viscosity, pressures or inflows do not fit the graph.

    With more than 50,000 junctions multigrid takes over from factors if PyAMG is installed
    (`pip install pyamg`), with the same accuracy in a fraction of their time and memory.

    Example:
        Blood from a file in m and Pa that holds the pressures at its end points::

            ends = {node: graph.nodes[node]["pressure"] for node, d in graph.degree if d == 1}
            mu = 1.2e-3 * relative_viscosity(2e6 * edge_radii(graph), hematocrit=0.45)
            flow = solve_flow(graph, mu, ends)
    """
    check_structure(graph)
    mu = _check_viscosity(viscosity, graph)
    given, is_given = values_at_nodes(graph, pressures, "pressure")
    inflow, has_inflow = values_at_nodes(graph, {} if inflows is None else inflows, "inflow")
    for ordinal in np.flatnonzero(is_given & has_inflow):
        raise ValueError(
            f"got both a pressure and an inflow at node {list(graph)[ordinal]!r}; wanted one of "
            "them. With the pressure given, the inflow is part of the result."
        )
    _check_pressures(graph, is_given)
    lengths = edge_lengths(graph)
    for edge in np.flatnonzero(lengths == 0):
        raise NetworkError(
            f"edge {list(graph.edges)[edge]!r} has length 0; wanted a positive length. Contract it "
            "with networkx.contracted_nodes."
        )
    conductance = np.pi * edge_radii(graph) ** 4 / (8 * mu * lengths)
    law = Kirchhoff(node_differences(graph), conductance, is_given)
    pressure, flow = law.pressure_and_flow(given, inflow)
    return Flow(graph, pressure, flow, mu, is_given, inflow)


def balance_flow(graph: nx.Graph, flow: ArrayLike) -> NDArray[np.float64]:
    """Return the flow nearest to a given one that Kirchhoff's law admits, shape (num_edges,).

    Measured flows, and those of files with few digits, do not add up at junctions. Each is changed
    in proportion to itself: the sum of (change)^2 / |flow| is the least possible.

    Args:
        graph: The network. Flow may enter and leave at end points and inlets.
        flow: Volume per time along each edge, in the order of `graph.edges`, positive from its
            first node to its second.

    Raises:
        ValueError: If there is no finite number for each edge.
    """
    check_structure(graph)
    Q, num_edges = np.asarray(flow, dtype=float), graph.number_of_edges()
    if Q.shape != (num_edges,) or not np.all(np.isfinite(Q)):
        raise ValueError(
            f"got a flow of shape {Q.shape}; wanted a finite number for each of the {num_edges} "
            "edges, in the order of graph.edges."
        )
    is_open = np.array([degree == 1 for _, degree in graph.degree]) | inlet_mask(graph)
    if is_open.all() or not Q.any():
        return Q.copy()
    inner = node_differences(graph)[:, np.flatnonzero(~is_open)]
    weight = sparse.diags_array(abs(Q))
    held = sparse.eye_array(inner.shape[1]) * (1e-12 * abs(Q).max())  # nodes that nothing passes
    solve = laplacian_solver(inner.T @ weight @ inner + held)
    for _ in range(3):  # the solution, and two refinements
        Q = Q - weight @ (inner @ solve(inner.T @ Q))
    return np.asarray(Q)


class Kirchhoff:
    """Kirchhoff's law with conductances G, factored for flows and for changes of them.

    Args:
        D: From `node_differences`.
        G: Conductance of each edge.
        is_given: Where the pressure is given, in each component of the network.

    Raises:
        NetworkError: If rounding hides the pressures.
    """

    def __init__(
        self, D: sparse.csr_array, G: NDArray[np.float64], is_given: NDArray[np.bool_]
    ) -> None:
        self.D, self.G, self.is_given = D, G, is_given
        self.free = D[:, np.flatnonzero(~is_given)]
        if is_given.all():
            return
        try:
            self.solve = laplacian_solver(self.free.T @ sparse.diags_array(G) @ self.free)
        except RuntimeError as error:
            raise NetworkError(
                f"got vessels that conduct from {G.min():.3g} to {G.max():.3g}; wanted fewer "
                "orders of magnitude: rounding hides which pressures hold which vessels. Check the "
                "radii and lengths of the extreme ones."
            ) from error

    def pressure_and_flow(
        self, given: NDArray[np.float64], inflow: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the pressure at each node and the flow along each edge.

        Args:
            given: Pressure at each node where that is given.
            inflow: Inflow from outside at the other nodes.
        """
        # The differences of pressures along short vessels lose digits, and with them Kirchhoff's
        # law. So the level is taken off first, and corrections are added to the flows, not the
        # pressures.
        is_given = self.is_given
        level = given[is_given].mean()
        pressure = np.where(is_given, given - level, 0.0)
        flow = self.G * (self.D @ pressure)
        if not is_given.all():
            for _ in range(3):  # the solution, and two refinements
                missing = inflow[~is_given] - self.free.T @ flow
                correction = self.solve(missing)
                pressure[~is_given] += correction
                flow += self.G * (self.free @ correction)
        return np.where(is_given, given, pressure + level), flow

    def change_of_flow(self, change: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how the flow changes, to first order.

        Args:
            change: By how much the flow along each edge would change at the same pressures,
                because its conductance does.
        """
        if self.is_given.all():
            return change
        adjusted: NDArray[np.float64] = change - self.G * (
            self.free @ self.solve(self.free.T @ change)
        )
        return adjusted


def node_differences(graph: nx.Graph) -> sparse.csr_array:
    """Return the matrix from nodes to edges that takes first node minus second."""
    edges = edge_indices(graph)
    rows = np.arange(len(edges)).repeat(2)
    signs = np.tile([1.0, -1.0], len(edges))
    shape = (len(edges), graph.number_of_nodes())
    return sparse.coo_array((signs, (rows, edges.ravel())), shape=shape).tocsr()


def _check_viscosity(viscosity: ArrayLike, graph: nx.Graph) -> NDArray[np.float64]:
    mu, num_edges = np.asarray(viscosity, dtype=float), graph.number_of_edges()
    if mu.shape not in ((), (num_edges,)):
        raise ValueError(
            f"got viscosities of shape {mu.shape}; wanted a number, or one for each of the "
            f"{num_edges} edges in the order of graph.edges."
        )
    if not np.all((mu > 0) & np.isfinite(mu)):
        raise ValueError(
            f"got a viscosity from {mu.min():.3g} to {mu.max():.3g}; wanted finite positive ones."
        )
    return np.broadcast_to(mu, num_edges)


def values_at_nodes(
    graph: nx.Graph, values: Mapping[Hashable, float], name: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a mapping from nodes to numbers as an array with zeros, and where it has a number."""
    if not isinstance(values, Mapping):
        raise ValueError(
            f"got {name}s of type {type(values).__name__}; wanted a dictionary from nodes to "
            f"numbers, such as {{{next(iter(graph), 0)!r}: 1.0}}."
        )
    ordinals = {node: ordinal for ordinal, node in enumerate(graph)}
    at_nodes, has_value = np.zeros(len(ordinals)), np.zeros(len(ordinals), dtype=bool)
    for node, value in values.items():
        if node not in ordinals:
            raise ValueError(
                f"got the {name} {value!r} at {node!r}; wanted a node of the graph, such as "
                f"{next(iter(graph))!r}."
            )
        try:
            at_nodes[ordinals[node]] = value
        except (TypeError, ValueError):
            at_nodes[ordinals[node]] = np.nan
        if not np.isfinite(at_nodes[ordinals[node]]):
            raise ValueError(f"got the {name} {value!r} at node {node!r}; wanted a finite number.")
        has_value[ordinals[node]] = True
    return at_nodes, has_value


def _check_pressures(graph: nx.Graph, is_given: NDArray[np.bool_]) -> None:
    with_pressure = {node for node, given in zip(graph, is_given, strict=True) if given}
    loose = [c for c in nx.connected_components(graph) if with_pressure.isdisjoint(c)]
    if loose or not with_pressure:
        names = "; ".join(
            f"that of node {next(node for node in graph if node in c)!r} ({len(c)} nodes)"
            for c in loose[:5]
        )
        raise NetworkError(
            f"got no pressure in {len(loose)} connected components: {names}"
            f"{'; ...' if len(loose) > 5 else ''}. Wanted one in each, to hold its level. Add a "
            "node of each to pressures, or leave these components out."
        )

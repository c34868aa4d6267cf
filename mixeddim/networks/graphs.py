"""Vascular networks as plain `networkx.Graph` objects: the contract, its checks, statistics.

A network is an undirected graph that carries

- on each node `pos`, three floats, and optionally `inlet`, a bool (missing means False);
- on each edge `radius`, a positive float, in the unit of `pos`, and optionally `outer_radius`.

The radius is that of the lumen, which carries the flow; the outer radius is that of the wall, where
vessel and tissue exchange. Without one the wall has no thickness.

Edges are straight vessels. Node labels may be any hashable. All of mixeddim works on such a graph;
`random_vascular_graph` and the readers of `mixeddim.networks.io` build one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from mixeddim.networks.kinds import wrong_kind

__all__ = [
    "NetworkError",
    "NetworkStatistics",
    "Spread",
    "check_inlets",
    "check_structure",
    "edge_indices",
    "edge_lengths",
    "edge_outer_radii",
    "edge_radii",
    "inlet_mask",
    "mark_ends_as_inlets",
    "network_statistics",
    "node_positions",
    "validate_graph",
]

# Nodes nearer than this part of the network's extent count as one point: no mesh can part them.
COINCIDENCE = 1e-12


class NetworkError(ValueError):
    """A graph that cannot serve as a network; the message names the node or edge and the remedy."""


# --- Attributes as arrays ---------------------------------------------------------------------


def node_positions(graph: nx.Graph) -> NDArray[np.float64]:
    """Return the positions, shape `(num_nodes, 3)`, in the order of `graph.nodes`.

    Raises:
        NetworkError: if a node has no `pos`, or one that is not three finite numbers.
    """
    given = [pos for _, pos in graph.nodes(data="pos")]
    positions = _numbers_or_none(given)
    if positions is None or positions.shape != (len(given), 3):
        positions = np.empty((len(given), 3))
        for ordinal, (node, pos) in enumerate(zip(graph, given, strict=True)):
            try:
                positions[ordinal] = np.asarray(pos, dtype=np.float64).reshape(3)
            except (TypeError, ValueError):
                raise NetworkError(
                    f"node {node!r} has position {pos!r}; wanted three numbers. "
                    f"Set graph.nodes[{node!r}]['pos'] = (x, y, z)."
                ) from None
    for row in np.flatnonzero(~np.isfinite(positions).all(axis=1)):
        node = list(graph)[row]
        raise NetworkError(
            f"node {node!r} has position {_numbers(positions[row])}; wanted finite numbers. "
            f"Set graph.nodes[{node!r}]['pos'] = (x, y, z)."
        )
    return positions


def inlet_mask(graph: nx.Graph) -> NDArray[np.bool_]:
    """Return which nodes are inlets, shape `(num_nodes,)`, in the order of `graph.nodes`.

    Raises:
        NetworkError: if an `inlet` is no bool; the string "false", for one, would count as true.
    """
    for node, inlet in graph.nodes(data="inlet", default=False):
        if not isinstance(inlet, bool | np.bool_):
            raise NetworkError(
                f"node {node!r} has inlet {inlet!r}; wanted True or False. "
                f"Set graph.nodes[{node!r}]['inlet']."
            )
    return np.fromiter((inlet for _, inlet in graph.nodes(data="inlet", default=False)), bool)


def edge_indices(graph: nx.Graph) -> NDArray[np.int64]:
    """Return the end points of the edges as node ordinals, shape `(num_edges, 2)`.

    Ordinal `i` is row `i` of `node_positions`; edges come in the order of `graph.edges`.
    """
    ordinals = {node: ordinal for ordinal, node in enumerate(graph)}
    ends = (ordinals[node] for edge in graph.edges for node in edge)
    return np.fromiter(ends, np.int64).reshape(-1, 2)


def edge_radii(graph: nx.Graph) -> NDArray[np.float64]:
    """Return the radii, shape `(num_edges,)`, in the order of `graph.edges`.

    Raises:
        NetworkError: if an edge has no `radius`, or one that is not a finite positive number.
    """
    given = [radius for *_, radius in graph.edges(data="radius")]
    radii = _numbers_or_none(given)
    if (
        radii is not None
        and radii.shape == (len(given),)
        and np.all((radii > 0) & (radii < np.inf))
    ):
        return radii
    radii = np.empty(len(given))
    for ordinal, (u, v, radius) in enumerate(graph.edges(data="radius")):
        try:
            radii[ordinal] = radius
        except (TypeError, ValueError):
            radii[ordinal] = np.nan
        if not 0.0 < radii[ordinal] < np.inf:
            raise NetworkError(
                f"edge {(u, v)!r} has radius {radius!r}; wanted a finite positive number. "
                f"Set graph.edges[{u!r}, {v!r}]['radius']."
            )
    return radii


def edge_outer_radii(graph: nx.Graph) -> NDArray[np.float64]:
    """Return the outer radii, shape `(num_edges,)`: the radius where an edge carries none.

    Raises:
        NetworkError: if an edge has no valid `radius`, or an `outer_radius` that is not a finite
            number, or is below its radius.
    """
    radii = edge_radii(graph)
    given = [outer for *_, outer in graph.edges(data="outer_radius")]
    if all(outer is None for outer in given):
        return radii
    outer_radii = radii.copy()
    for ordinal, outer in enumerate(given):
        if outer is None:
            continue
        try:
            outer_radii[ordinal] = outer
        except (TypeError, ValueError):
            outer_radii[ordinal] = np.nan
        if not radii[ordinal] <= outer_radii[ordinal] < np.inf:
            u, v = list(graph.edges)[ordinal]
            raise NetworkError(
                f"edge {(u, v)!r} has outer_radius {outer!r} and radius {radii[ordinal]:.6g}; "
                "wanted a finite number that is not below the radius of the lumen. Set "
                f"graph.edges[{u!r}, {v!r}]['outer_radius'] to the radius plus the thickness of "
                "the wall, in the unit of pos."
            )
    return outer_radii


def edge_lengths(graph: nx.Graph) -> NDArray[np.float64]:
    """Return the lengths, shape `(num_edges,)`, in the order of `graph.edges` and unit of `pos`."""
    start, end = node_positions(graph)[edge_indices(graph)].swapaxes(0, 1)
    lengths: NDArray[np.float64] = np.linalg.norm(end - start, axis=1)
    return lengths


def _numbers_or_none(given: list[Any]) -> NDArray[np.float64] | None:
    """Return what is given as one array, or None where something among it is no number."""
    try:
        return np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        return None


# --- Validation -------------------------------------------------------------------------------


def validate_graph(
    graph: nx.Graph,
    lower: Sequence[float] | None = None,
    upper: Sequence[float] | None = None,
) -> None:
    """Check that a graph is a network that can be meshed and solved on, and say what is wrong.

    The graph must be a simple undirected graph with an edge, each node must have a position of
    its own and an edge, each edge two distinct ends, a positive radius, and no outer radius below
    it. Inlets are asked for by `assemble`, and only where a value is held at them.

    Args:
        graph: The network.
        lower: Lower corner of the box that must hold every node, `(3,)`; unchecked if None.
        upper: Upper corner of that box, `(3,)`; unchecked if None.

    Raises:
        NetworkError: naming the first offending node or edge, what was wanted, and the remedy.
    """
    check_structure(graph)
    inlet_mask(graph)
    edge_outer_radii(graph)
    positions = node_positions(graph)
    _check_distinct_positions(graph, positions)
    if lower is not None:
        _check_inside(graph, positions < np.asarray(lower), "lower", lower)
    if upper is not None:
        _check_inside(graph, positions > np.asarray(upper), "upper", upper)


def check_structure(graph: nx.Graph) -> None:
    """Check that a graph is simple and undirected, with an edge at all and at every node.

    Raises:
        NetworkError: naming what is wrong, what was wanted, and the remedy.
    """
    if message := wrong_kind(graph):
        raise NetworkError(message)
    if graph.number_of_edges() == 0:
        raise NetworkError(
            f"the graph has {graph.number_of_nodes()} nodes and no edge; wanted at least one. "
            "Add vessels with graph.add_edge(u, v, radius=...)."
        )
    for node in nx.nodes_with_selfloops(graph):
        raise NetworkError(
            f"edge {(node, node)!r} is a self loop; wanted two distinct ends. "
            f"Call graph.remove_edge({node!r}, {node!r})."
        )
    for node in nx.isolates(graph):
        raise NetworkError(
            f"node {node!r} is isolated; wanted an edge at every node. "
            f"Call graph.remove_node({node!r}), or give it an edge."
        )


def _check_distinct_positions(graph: nx.Graph, positions: NDArray[np.float64]) -> None:
    tolerance = COINCIDENCE * float(np.ptp(positions, axis=0).max())
    lengths = edge_lengths(graph)
    for edge in np.flatnonzero(lengths <= tolerance):
        u, v = list(graph.edges)[edge]
        raise NetworkError(
            f"edge {(u, v)!r} has length {lengths[edge]:.3g}; wanted a positive length. Contract "
            f"it with networkx.contracted_nodes(graph, {u!r}, {v!r}, self_loops=False)."
        )
    distances, neighbours = KDTree(positions).query(positions, k=2)
    for ordinal in np.flatnonzero(distances[:, 1] <= tolerance):
        u, v = (list(graph)[neighbour] for neighbour in sorted(neighbours[ordinal]))
        raise NetworkError(
            f"nodes {u!r} and {v!r} are at the same position {_numbers(positions[ordinal])}; "
            "wanted distinct points. Move one, or merge them with "
            f"networkx.contracted_nodes(graph, {u!r}, {v!r})."
        )


def _check_inside(
    graph: nx.Graph, outside: NDArray[np.bool_], corner: str, bound: Sequence[float]
) -> None:
    for ordinal in np.flatnonzero(outside.any(axis=1)):
        node = list(graph)[ordinal]
        raise NetworkError(
            f"node {node!r} at {_numbers(graph.nodes[node]['pos'])} is outside the box, whose "
            f"{corner} corner is {_numbers(bound)}; wanted it inside. Enlarge the box, or move or "
            "rescale the network with mixeddim.Scaling(length, origin).apply(graph)."
        )


def _numbers(values: Sequence[float] | NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def check_inlets(graph: nx.Graph) -> None:
    """Check that each connected component has an inlet, where a value held at inlets is to act.

    Raises:
        NetworkError: naming the first component without one, and the remedy.
    """
    inlets = {node for node, inlet in zip(graph, inlet_mask(graph), strict=True) if inlet}
    for component in nx.connected_components(graph):
        if inlets.isdisjoint(component):
            node = next(node for node in graph if node in component)
            raise NetworkError(
                f"the connected component of node {node!r} ({len(component)} nodes) has no inlet; "
                "wanted one in each component, to hold its Dirichlet value. Set "
                f"graph.nodes[{node!r}]['inlet'] = True, or use mark_ends_as_inlets(graph), before "
                "create_network; or pass bcs_1d without Dirichlet('inlets')."
            )


def mark_ends_as_inlets(graph: nx.Graph) -> nx.Graph:
    """Return a copy in which every end point (node of degree 1) is an inlet, as are those before.

    Networks cut out of tissue need it: each of their components is held at its own cut ends.
    """
    copy = graph.copy()
    for node, degree in graph.degree:
        if degree == 1:
            copy.nodes[node]["inlet"] = True
    return copy


# --- Statistics -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """The least, median and greatest of a quantity."""

    minimum: float
    median: float
    maximum: float

    def __str__(self) -> str:
        """Return the three numbers in one line."""
        return f"{self.minimum:.4g} / {self.median:.4g} / {self.maximum:.4g} (min / median / max)"


@dataclass(frozen=True)
class NetworkStatistics:
    """Describe a network in numbers; `print` it for a table. Lengths are in the unit of `pos`.

    Attributes:
        num_nodes: Number of nodes.
        num_edges: Number of edges.
        num_components: Number of connected components.
        num_loops: Independent loops (cyclomatic number): edges - nodes + components.
        num_inlets: Nodes marked `inlet`.
        num_ends: End points, that is nodes of degree 1.
        num_junctions: Nodes of degree 3 or more.
        length: Spread of the edge lengths L.
        radius: Spread of the edge radii R.
        total_length: Sum of L.
        wall_area: Sum of 2 π R_o L with the outer radius R_o, the surface over which network and
            tissue exchange.
        volume: Sum of π R² L.
    """

    num_nodes: int
    num_edges: int
    num_components: int
    num_loops: int
    num_inlets: int
    num_ends: int
    num_junctions: int
    length: Spread
    radius: Spread
    total_length: float
    wall_area: float
    volume: float

    def __str__(self) -> str:
        """Return a table, one quantity a line."""
        return "\n".join(
            [
                f"nodes         {self.num_nodes} ({self.num_inlets} inlets, {self.num_ends} ends, "
                f"{self.num_junctions} junctions)",
                f"edges         {self.num_edges} ({self.num_components} components, "
                f"{self.num_loops} loops)",
                f"edge length   {self.length}",
                f"edge radius   {self.radius}",
                f"total length  {self.total_length:.4g}",
                f"wall area     {self.wall_area:.4g}",
                f"volume        {self.volume:.4g}",
            ]
        )


def network_statistics(graph: nx.Graph) -> NetworkStatistics:
    """Measure a network.

    Raises:
        NetworkError: if the graph has no edge, or a position or radius is missing or senseless.
    """
    check_structure(graph)
    lengths, radii = edge_lengths(graph), edge_radii(graph)
    degrees = np.array([degree for _, degree in graph.degree])
    num_components = nx.number_connected_components(graph)
    return NetworkStatistics(
        num_nodes=graph.number_of_nodes(),
        num_edges=graph.number_of_edges(),
        num_components=num_components,
        num_loops=graph.number_of_edges() - graph.number_of_nodes() + num_components,
        num_inlets=int(inlet_mask(graph).sum()),
        num_ends=int((degrees == 1).sum()),
        num_junctions=int((degrees >= 3).sum()),
        length=_spread(lengths),
        radius=_spread(radii),
        total_length=float(lengths.sum()),
        wall_area=float(2.0 * np.pi * edge_outer_radii(graph) @ lengths),
        volume=float(np.pi * radii**2 @ lengths),
    )


def _spread(values: NDArray[np.float64]) -> Spread:
    return Spread(float(values.min()), float(np.median(values)), float(values.max()))

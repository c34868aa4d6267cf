"""Mend measured networks: merge close nodes, keep the largest part, straighten chains.

Each step returns a new graph and a report of what it did; the graph it is given stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from mixeddim.networks.graphs import (
    NetworkError,
    edge_indices,
    edge_lengths,
    edge_radii,
    inlet_mask,
    node_positions,
)
from mixeddim.networks.kinds import wrong_kind

__all__ = [
    "Chain",
    "Cleaning",
    "chains_of",
    "check_network",
    "components",
    "directed",
    "largest_component",
    "merge_close_nodes",
    "merge_groups",
    "report_step",
    "resolve_chains",
]

type Chain = list[Hashable]
type Ordinals = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Cleaning:
    """A network after a step of cleaning; `print` it for the report.

    Attributes:
        graph: The network.
        step: What was done.
        nodes_removed: How many nodes are gone.
        edges_removed: How many edges are gone.
        length_before: The total length before, in the unit of `pos`.
        length_after: The total length after.
    """

    graph: nx.Graph
    step: str
    nodes_removed: int
    edges_removed: int
    length_before: float
    length_after: float

    def __str__(self) -> str:
        """Return the report in one line."""
        change = (self.length_after - self.length_before) / self.length_before
        return (
            f"{self.step}: {self.nodes_removed} nodes and {self.edges_removed} edges removed, "
            f"{self.graph.number_of_nodes()} and {self.graph.number_of_edges()} left; length "
            f"{self.length_before:.4g} -> {self.length_after:.4g} ({change:+.2%})"
        )


def report_step(step: str, before: nx.Graph, after: nx.Graph) -> Cleaning:
    """Return what a step made of a graph, with its report."""
    return Cleaning(
        graph=after,
        step=step,
        nodes_removed=before.number_of_nodes() - after.number_of_nodes(),
        edges_removed=before.number_of_edges() - after.number_of_edges(),
        length_before=float(edge_lengths(before).sum()),
        length_after=float(edge_lengths(after).sum()),
    )


def check_network(graph: nx.Graph, tolerance: float = 0.0) -> None:
    """Check what every step is given: a network with edges, a tolerance of zero or more."""
    if message := wrong_kind(graph):
        raise ValueError(message)
    if graph.number_of_edges() == 0:
        raise ValueError("got a graph without an edge; wanted a network. Add edges.")
    if not tolerance >= 0.0:
        raise ValueError(
            f"got tolerance={tolerance!r}; wanted zero or more. Pass a length in the unit of pos."
        )


def largest_component(graph: nx.Graph) -> Cleaning:
    """Keep the connected component of the greatest total length.

    Args:
        graph: A network.

    Raises:
        NetworkError: if a node has no valid `pos`.
        ValueError: if the graph has no edge, or is directed or a multigraph.
    """
    check_network(graph)
    start, end = edge_indices(graph).T
    component = components(graph, start, end)
    lengths = np.bincount(component[start], weights=edge_lengths(graph))
    kept = [
        node for node, ordinal in zip(graph, component == lengths.argmax(), strict=True) if ordinal
    ]
    return report_step("largest component", graph, graph.subgraph(kept).copy())


def merge_close_nodes(graph: nx.Graph, tolerance: float = 0.0) -> Cleaning:
    """Merge nodes that lie no farther apart than a tolerance, and those that such nodes link.

    The first one of each group, in the order of `graph.nodes`, stays where it is and keeps its
    attributes; it becomes an inlet if any of the group is one. Edges within a group vanish; of
    several edges between the same groups the widest stays.

    Args:
        graph: A network.
        tolerance: The distance, in the unit of `pos`. With 0 only equal points are merged; more
            than the least distance between vessels joins what does not belong together.

    Raises:
        NetworkError: if a node has no valid `pos`, or an edge no valid `radius`.
        ValueError: if the graph has no edge left, is directed or a multigraph, or the tolerance
            is negative.
    """
    check_network(graph, tolerance)
    pairs = KDTree(node_positions(graph)).query_pairs(tolerance, output_type="ndarray")
    group = components(graph, *pairs.T)
    merged = merge_groups(graph, group)
    if merged.number_of_edges() == 0:
        raise ValueError(
            f"got tolerance={tolerance!r}, which merges the whole network into "
            f"{len(merged)} points; wanted less than its extent. Pass a smaller one."
        )
    return report_step(f"nodes within {tolerance:.3g} merged", graph, merged)


def merge_groups(graph: nx.Graph, group: Ordinals) -> nx.Graph:
    """Return a graph with one node for each group, as `merge_close_nodes` describes.

    Args:
        graph: A network.
        group: Number of the group of each node, shape `(num_nodes,)`.
    """
    nodes, inlets = list(graph), inlet_mask(graph)
    _, first = np.unique(group, return_index=True)
    kept = [nodes[ordinal] for ordinal in first[group]]  # of each node the one that stands for it
    merged = nx.Graph()
    for ordinal in np.sort(first):
        merged.add_nodes_from([(nodes[ordinal], graph.nodes[nodes[ordinal]])])
    for ordinal in np.flatnonzero(inlets):
        merged.nodes[kept[ordinal]]["inlet"] = True
    for (start, end), radius, attributes in zip(
        edge_indices(graph), edge_radii(graph), graph.edges.values(), strict=True
    ):
        u, v = kept[start], kept[end]
        if u != v and not (merged.has_edge(u, v) and merged.edges[u, v]["radius"] >= radius):
            order_stays = first[group[start]] < first[group[end]]
            merged.add_edge(u, v)
            merged.edges[u, v].clear()  # of what a narrower one had
            merged.edges[u, v].update(directed(attributes, order_stays))
    return merged


def directed(attributes: Mapping[str, Any], along: bool) -> dict[str, Any]:
    """Return what an edge carries, its `flow` as seen along the order of the nodes or against."""
    if along or "flow" not in attributes:
        return dict(attributes)
    return {**attributes, "flow": -attributes["flow"]}


def components(graph: nx.Graph, start: Ordinals, end: Ordinals) -> Ordinals:
    """Return the number of the connected component of each node, given the links."""
    num_nodes = graph.number_of_nodes()
    links = coo_array((np.ones(len(start)), (start, end)), shape=(num_nodes, num_nodes))
    component: Ordinals = connected_components(links, directed=False)[1]
    return component


# --- Chains -----------------------------------------------------------------------------------


def resolve_chains(graph: nx.Graph, tolerance: float = math.inf) -> Cleaning:
    """Straighten chains, that is vessels drawn as many edges between junctions, ends and inlets.

    Of the nodes of degree 2 in between only those stay without which a point of the chain would
    lie farther than the tolerance from the new, straighter one (Douglas & Peucker 1973). Loops and
    parallel vessels keep as many as a simple graph needs.

    An edge of length L that replaces edges of lengths L_i and radii R_i gets the radius R with

        L / R⁴ = Σ L_i / R_i⁴,

    and so the resistance 8 μ L / (π R⁴) of the chain to Poiseuille's flow; where a wall has a
    thickness (`outer_radius`), it gets the mean thickness along the chain. It keeps the other
    attributes on which its edges agree, among them a flow, whose sign goes with the order of the
    nodes; wall area and volume change, the less so the straighter the chain.

    Args:
        graph: A network.
        tolerance: The distance, in the unit of `pos`; the default leaves straight edges between
            junctions, ends and inlets, 0 removes nodes on straight lines only.

    Raises:
        NetworkError: if a node has no valid `pos`, an edge no valid `radius`, or the ends of what
            should become one edge lie at the same point.
        ValueError: if the graph has no edge, is directed or a multigraph, or the tolerance is
            negative.

    Source:
        D. H. Douglas, T. K. Peucker, Cartographica 10 (1973) 112.
    """
    check_network(graph, tolerance)
    position = dict(zip(graph, node_positions(graph), strict=True))
    ordinal = {node: number for number, node in enumerate(graph)}
    edge_radii(graph)
    straight = nx.Graph()
    straight.add_nodes_from(graph.nodes(data=True))
    for chain in sorted(chains_of(graph), key=len):  # single edges first: long chains can give way
        if len(chain) == 2:
            straight.add_edges_from([(*chain, dict(graph.edges[chain]))])
            continue
        points = np.array([position[node] for node in chain])
        kept = _straighten(points, tolerance, num_inner=2 if chain[0] == chain[-1] else 0)
        if len(kept) == 2 and straight.has_edge(chain[0], chain[-1]):
            kept = _straighten(points, tolerance, num_inner=1)
        straight.remove_nodes_from({*chain} - {chain[index] for index in kept})
        for i, j in pairwise(kept):
            attributes = _joined(graph, ordinal, chain[i : j + 1], points[i : j + 1])
            straight.add_edges_from([(chain[i], chain[j], attributes)])
    return report_step(f"chains straightened within {tolerance:.3g}", graph, straight)


def chains_of(graph: nx.Graph) -> Iterator[Chain]:
    """Yield the paths through nodes of degree 2, each edge in one; loops end where they start."""
    neighbours = {node: tuple(around) for node, around in graph.adjacency()}
    inlets = zip(graph.degree, inlet_mask(graph), strict=True)
    stops = dict.fromkeys(node for (node, degree), inlet in inlets if inlet or degree != 2)
    inner: set[Hashable] = set()
    last: set[tuple[Hashable, Hashable]] = set()  # steps of chains, as seen from their far ends

    def chain_along(node: Hashable, neighbour: Hashable) -> Chain:
        chain = [node, neighbour]
        while chain[-1] not in stops and chain[-1] != node:
            one, other = neighbours[chain[-1]]
            chain.append(other if one == chain[-2] else one)
        inner.update(chain[1:-1])
        return chain

    for node in stops:
        for neighbour in neighbours[node]:
            if (node, neighbour) not in last:
                chain = chain_along(node, neighbour)
                last.add((chain[-1], chain[-2]))
                yield chain
    for node in graph:
        if node not in stops and node not in inner:  # of a ring without a stop
            chain = chain_along(node, neighbours[node][0])
            inner.add(node)
            yield chain


def _straighten(points: NDArray[np.float64], tolerance: float, num_inner: int) -> list[int]:
    """Return which points stay: first and last, `num_inner` between, and whatever lies far off."""
    last, num_pieces = len(points) - 1, num_inner + 1
    kept = {round(number * last / num_pieces) for number in range(num_pieces + 1)}
    pieces = list(pairwise(sorted(kept))) if tolerance < math.inf else []
    while pieces:
        i, j = pieces.pop()
        if j - i < 2:
            continue
        along, offsets = points[j] - points[i], points[i + 1 : j] - points[i]
        t = np.clip(offsets @ along / max(along @ along, np.finfo(float).tiny), 0.0, 1.0)
        distances = np.linalg.norm(offsets - t[:, None] * along, axis=1)
        if distances.max() > tolerance:
            farthest = i + 1 + int(distances.argmax())
            kept.add(farthest)
            pieces += [(i, farthest), (farthest, j)]
    return sorted(kept)


def _joined(
    graph: nx.Graph, ordinal: Mapping[Hashable, int], chain: Chain, points: NDArray[np.float64]
) -> dict[str, Any]:
    """Return what the edge from the first to the last node of a chain carries."""
    forward = ordinal[chain[0]] < ordinal[chain[-1]]
    edges = [
        directed(graph.edges[u, v], (ordinal[u] < ordinal[v]) == forward)
        for u, v in pairwise(chain)
    ]
    if len(edges) == 1:
        return edges[0]
    length = float(np.linalg.norm(points[-1] - points[0]))
    if length == 0.0:
        raise NetworkError(
            f"got a chain of {len(edges)} edges from node {chain[0]!r} to node {chain[-1]!r}, "
            "which are at the same point; wanted one node there. Call merge_close_nodes first."
        )
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    resistance = math.fsum(
        length / edge["radius"] ** 4 for length, edge in zip(lengths, edges, strict=True)
    )
    radius = (length / resistance) ** 0.25
    joined = {
        name: value
        for name, value in edges[0].items()
        if all(name in edge and _equal(edge[name], value) for edge in edges)
    } | {"radius": radius}
    if any("outer_radius" in edge for edge in edges):
        thickness = [edge.get("outer_radius", edge["radius"]) - edge["radius"] for edge in edges]
        joined["outer_radius"] = radius + float(np.average(thickness, weights=lengths))
    return joined


def _equal(one: object, other: object) -> bool:
    if isinstance(one, int | float | str) and isinstance(other, int | float | str):
        return one == other
    return np.array_equal(one, other)  # type: ignore[arg-type]

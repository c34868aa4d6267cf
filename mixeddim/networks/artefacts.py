"""Artefacts of segmentation: spurs, hubs, and edges without length.

Like `cleaning`, each step returns a new graph and a report; the graph it is given stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np

from mixeddim.networks.cleaning import (
    Chain,
    Cleaning,
    chains_of,
    check_network,
    components,
    merge_groups,
    report_step,
)
from mixeddim.networks.graphs import (
    COINCIDENCE,
    edge_indices,
    edge_lengths,
    edge_radii,
    inlet_mask,
    node_positions,
)

__all__ = ["Hubs", "find_hubs", "prune_spurs", "remove_empty_edges"]


def prune_spurs(
    graph: nx.Graph, shorter_than: float = 1.0, keep: Iterable[Hashable] = ()
) -> Cleaning:
    """Remove dead ends that are shorter than a multiple of the radius of the vessel they leave.

    A dead end is a vessel, of one edge or of many, from a junction to an end that is no inlet.
    Thinning an image leaves such spurs where the wall is rough; they hardly leave the lumen. The
    shortest go first. A node where only two vessels are left is no junction any more, so that of
    two short tips the longer stays. Pruning repeats until no new dead end is short.

    Args:
        graph: A network.
        shorter_than: The multiple of the radius of the widest other vessel at the junction, below
            which a dead end is removed.
        keep: Nodes that stay in any case, such as outlets whose pressure is known. Inlets stay too.

    Raises:
        NetworkError: if a node has no valid `pos`, or an edge no valid `radius`.
        ValueError: if the graph has no edge, is directed or a multigraph, the multiple is not
            positive and finite, or a node of `keep` is not in the graph.
    """
    check_network(graph)
    if not 0.0 < shorter_than < math.inf:
        raise ValueError(
            f"got shorter_than={shorter_than!r}; wanted a finite positive number. Pass a multiple "
            "of the radius of the vessel that a spur leaves."
        )
    kept = set(keep)
    if unknown := kept.difference(graph):
        raise ValueError(
            f"got keep with {next(iter(unknown))!r}, which is no node of the graph; wanted nodes. "
            "Correct its label."
        )
    kept |= {node for node, inlet in zip(graph, inlet_mask(graph), strict=True) if inlet}
    edge_radii(graph)
    pruned = graph.copy()
    lengths = dict(zip(map(frozenset, graph.edges), edge_lengths(graph).tolist(), strict=True))
    size = -1
    while size != len(pruned):
        size = len(pruned)
        spurs = [(math.fsum(lengths[frozenset(edge)] for edge in pairwise(chain)), chain)
                 for chain in _dead_ends(pruned, kept)]  # fmt: skip
        for length, (junction, neighbour, *rest) in sorted(spurs, key=lambda spur: spur[0]):
            if pruned.degree[junction] < 3:
                continue
            others = [
                edge["radius"] for node, edge in pruned[junction].items() if node != neighbour
            ]
            if length < shorter_than * max(others):
                pruned.remove_nodes_from([neighbour, *rest])
    return report_step(f"spurs shorter than {shorter_than:.3g} radii pruned", graph, pruned)


def _dead_ends(graph: nx.Graph, kept: set[Hashable]) -> Iterator[Chain]:
    """Yield the chains from a junction to an end, that node first, without nodes to keep."""
    for chain in chains_of(graph):
        for way in (chain, chain[::-1]):
            is_dead = graph.degree[way[0]] > 2 and graph.degree[way[-1]] == 1
            if is_dead and kept.isdisjoint(way[1:]):
                yield way


@dataclass(frozen=True, eq=False)
class Hubs:
    """The nodes where more vessels meet than is likely; `print` it for the report.

    Attributes:
        degrees: Of each such node its degree, the greatest first.
        more_than: The degree that is still likely.
    """

    degrees: dict[Hashable, int]
    more_than: int

    def __str__(self) -> str:
        """Return the report in one line."""
        listed = [f"{node!r} ({degree})" for node, degree in self.degrees.items()]
        more = [f"and {len(listed) - 10} more"] if len(listed) > 10 else []
        names = ", ".join(listed[:10] + more)
        return f"nodes of degree above {self.more_than}: {len(listed)}" + (names and f": {names}")


def find_hubs(graph: nx.Graph, more_than: int = 4) -> Hubs:
    """Find the nodes where more vessels meet than is likely.

    Vessels mostly fork into two; hubs are left where a segmentation fuses vessels that touch, or
    `merge_close_nodes` is given too great a tolerance.

    Args:
        graph: A network.
        more_than: The degree above which a node is a hub.

    Raises:
        ValueError: if the graph has no edge, or is directed or a multigraph.
    """
    check_network(graph)
    degrees = [(node, degree) for node, degree in graph.degree if degree > more_than]
    return Hubs(dict(sorted(degrees, key=lambda item: -item[1])), more_than)


def remove_empty_edges(graph: nx.Graph) -> Cleaning:
    """Remove self loops, and contract edges whose ends are at the same point.

    The first of the ends, in the order of `graph.nodes`, stays and becomes an inlet if the other is
    one, so that what was connected stays so. Of several edges that come to join the same two nodes,
    which are one straight vessel drawn twice, the widest stays. A node that has no other edges
    vanishes with them, unless it is an inlet.

    Args:
        graph: A network; ends are at the same point where `validate_graph` says so, within 1e-12 of
            the extent.

    Raises:
        NetworkError: if a node has no valid `pos`, or an edge no valid `radius`.
        ValueError: if the graph has no edge, or none that has a length, or is directed or a
            multigraph.
    """
    check_network(graph)
    tolerance = COINCIDENCE * float(np.ptp(node_positions(graph), axis=0).max())
    empty = edge_lengths(graph) <= tolerance
    merged = merge_groups(graph, components(graph, *edge_indices(graph)[empty].T))
    if merged.number_of_edges() == 0:
        raise ValueError(
            f"got a graph of {graph.number_of_edges()} edges, none of which has a length; wanted a "
            "network. Check pos."
        )
    bare = [node for node, degree in merged.degree if degree == 0 and graph.degree[node] > 0]
    merged.remove_nodes_from([node for node in bare if not merged.nodes[node].get("inlet", False)])
    return report_step(f"{empty.sum()} edges without length removed", graph, merged)

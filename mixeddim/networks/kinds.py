"""Check the kind of a graph, and say how to convert other kinds without losing vessels."""

from __future__ import annotations

from collections import Counter

import networkx as nx

__all__ = ["wrong_kind"]


def wrong_kind(graph: object) -> str | None:
    """Return what is wrong with the kind of a graph and what to do, or None if it is right.

    `networkx.Graph(graph)` keeps one of several edges between the same nodes, so that it is advised
    only where there are none.
    """
    if not isinstance(graph, nx.Graph):
        remedy = "Build one with networkx.Graph()."
    elif not (graph.is_directed() or graph.is_multigraph()):
        return None
    else:
        counts = Counter(frozenset((u, v)) for u, v in graph.edges())
        ends, number = max(counts.items(), key=lambda item: item[1], default=(frozenset(), 0))
        if number < 2:
            remedy = "Convert it with networkx.Graph(graph)."
        else:
            u, v = (*ends, *ends)[:2]
            remedy = (
                f"networkx.Graph(graph) would keep one of the {number} edges between {u!r} and "
                f"{v!r}: put a node into each of the others first"
            )
            remedy += (
                ", whichever way they point."
                if graph.is_directed()
                else ", or call mixeddim.from_skeleton(graph, ...), if edges hold centre lines."
            )
    return (
        f"got a {type(graph).__name__}; wanted an undirected networkx.Graph without parallel "
        f"edges. {remedy}"
    )

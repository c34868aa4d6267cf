"""What of a graph goes into a file: `pos`, and the attributes that are numbers or booleans."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np

from mixeddim.graphs import node_positions

__all__ = ["Number", "attribute_names", "check_labels", "check_writable", "numbers"]

type Number = bool | int | float


def check_writable(graph: nx.Graph) -> None:
    """Check that a graph is one that can be written and read back.

    Raises:
        NetworkError: if a node has no valid `pos`.
        ValueError: if the graph has no edge, or is directed or a multigraph.
    """
    if graph.is_directed() or graph.is_multigraph() or graph.number_of_edges() == 0:
        raise ValueError(
            f"got a {type(graph).__name__} of {graph.number_of_edges()} edges; wanted an "
            "undirected simple graph with an edge. Convert it with networkx.Graph(graph)."
        )
    node_positions(graph)


def check_labels(graph: nx.Graph) -> None:
    """Check that the labels of the nodes are integers or strings, and differ as text.

    Raises:
        ValueError: naming the label that is not.
    """
    texts: dict[str, object] = {}
    for node in graph:
        if isinstance(node, bool) or not isinstance(node, int | str) or str(node) in texts:
            raise ValueError(
                f"got the label {node!r} of a node; wanted integers or strings that differ as "
                "text. Relabel with networkx.convert_node_labels_to_integers(graph)."
            )
        texts[str(node)] = node


def numbers(attributes: Mapping[Any, object]) -> dict[str, Number]:
    """Return the attributes that are finite numbers or booleans, as Python's own.

    Integers beyond 64 bits, which most formats cannot hold, do not count among them.
    """
    kept: dict[str, Number] = {}
    for name, value in attributes.items():
        number = value.item() if isinstance(value, np.generic) else value
        if (isinstance(number, int) and abs(number) < 2**63) or (
            isinstance(number, float) and math.isfinite(number)
        ):
            kept[str(name)] = number
    return kept


def attribute_names(
    rows: Iterable[Mapping[str, Number]], reserved: Collection[str] = ()
) -> list[str]:
    """Return the names that any of the rows has, in the order of their first appearance.

    Raises:
        ValueError: if one of them is reserved.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if clash := [name for name in names if name in reserved]:
        raise ValueError(
            f"got an attribute {clash[0]!r}; wanted other names than {', '.join(reserved)}, which "
            "the file has for something else. Rename it."
        )
    return names

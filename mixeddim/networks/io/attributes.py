"""The attributes of a graph that go into a file: `pos`, numbers and booleans."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from mixeddim.networks.graphs import inlet_mask, node_positions
from mixeddim.networks.kinds import wrong_kind

__all__ = [
    "Number",
    "attribute_names",
    "check_labels",
    "check_writable",
    "has_control_characters",
    "numbers",
]

type Number = bool | int | float


def check_writable(graph: nx.Graph) -> NDArray[np.float64]:
    """Check that a graph can be written and read back; return its positions, `(num_nodes, 3)`.

    Raises:
        NetworkError: if a node has no valid `pos`, or an `inlet` that is no bool.
        ValueError: if the graph has no edge, or is directed or a multigraph.
    """
    if message := wrong_kind(graph):
        raise ValueError(message)
    if graph.number_of_edges() == 0:
        raise ValueError(
            f"got a {type(graph).__name__} of 0 edges; wanted a network. Add vessels with "
            "graph.add_edge(u, v, radius=...)."
        )
    inlet_mask(graph)
    return node_positions(graph)


def check_labels(graph: nx.Graph) -> None:
    """Check that the labels of the nodes are integers or strings of one line that differ as text.

    Raises:
        ValueError: naming the label that is not.
    """
    texts: dict[str, object] = {}
    for node in graph:
        is_label = isinstance(node, int | str) and not isinstance(node, bool)
        if not is_label or str(node) in texts or has_control_characters(str(node)):
            raise ValueError(
                f"got the label {node!r} of a node; wanted integers or strings of one line that "
                "differ as text. Relabel with networkx.convert_node_labels_to_integers(graph)."
            )
        texts[str(node)] = node


def has_control_characters(text: str) -> bool:
    """Tell whether a text holds ends of lines or what else few formats can keep."""
    return re.search(r"[\x00-\x1f\x7f]", text) is not None


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

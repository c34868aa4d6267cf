"""Networks in GraphML, read and written by networkx."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import networkx as nx

from mixeddim.atomic import replacing
from mixeddim.networks.io.attributes import (
    attribute_names,
    check_labels,
    check_writable,
    numbers,
)
from mixeddim.networks.io.places import (
    NetworkFileError,
    Place,
    check_position,
    existing_file,
    in_units,
    is_integer_label,
)

__all__ = ["read_graphml", "write_graphml"]


def read_graphml(
    path: str | os.PathLike[str],
    *,
    position: Sequence[str] = ("x", "y", "z"),
    radius: str | None = "radius",
    diameter: str | None = None,
    length_unit: float = 1.0,
) -> nx.Graph:
    """Read a network from a GraphML file; a directed one loses its directions.

    Args:
        path: The file.
        position: Node attributes with the three coordinates.
        radius: Edge attribute with the radius, or None if there is none.
        diameter: Edge attribute with the diameter; it replaces `radius` where given.
        length_unit: What to multiply `pos` and `radius` by, such as 1e-6 to turn µm into m.

    Returns:
        A graph with all attributes of the file. Labels are integers if all of them are written
        so, strings otherwise.

    Raises:
        NetworkFileError: if the file does not hold such a network.
        FileNotFoundError: if there is no such file.
        ValueError: if `position` does not hold three names.
    """
    check_position(position)
    path = existing_file(path)
    try:
        source = nx.read_graphml(path)
        source = nx.relabel_nodes(source, _labels(source))
    except Exception as error:  # networkx passes on whatever its parsers meet
        raise NetworkFileError(
            f"{path}: got GraphML that cannot be read ({type(error).__name__}: {error}); wanted a "
            "graph. Correct the file, or write it anew."
        ) from None
    graph = nx.Graph()
    for node, attributes in source.nodes(data=True):
        place = Place(path, f"node {node!r}")
        remedy = f"Set {', '.join(position)} on each node, or pass position=."
        x, y, z = [place.number(attributes.pop(name, None), remedy) for name in position]
        if not isinstance(attributes.get("inlet", False), bool):
            raise place.error(
                f"got the inlet {attributes['inlet']!r}; wanted a boolean. Correct its type."
            )
        place.add_node(graph, node, (x, y, z), attributes)
    for u, v, attributes in source.edges(data=True):
        place = Place(path, f"edge {(u, v)!r}")
        if diameter is not None:
            remedy = f"Set its {diameter!r}, or pass another name as diameter=."
            attributes["radius"] = 0.5 * place.number(attributes.pop(diameter, None), remedy)
        elif radius is not None:
            remedy = f"Set its {radius!r}, or pass radius= or diameter=."
            attributes["radius"] = place.number(attributes.pop(radius, None), remedy)
        place.add_edge(graph, u, v, attributes)
    if graph.number_of_edges() == 0:
        raise NetworkFileError(f"{path}: got no edge; wanted one. Pass the file of a network.")
    return in_units(graph, length_unit)


def write_graphml(graph: nx.Graph, path: str | os.PathLike[str]) -> Path:
    """Write a network as GraphML that `read_graphml` reads back to the last digit.

    Args:
        graph: A network whose labels are integers or strings. Its attributes that are numbers or
            booleans go along, `pos` as `x`, `y` and `z`; others are left out.
        path: The file, replaced once the new one is complete.

    Returns:
        The path.

    Raises:
        NetworkError: if a node has no valid `pos`, or an `inlet` that is no bool.
        ValueError: if the graph has no edge, a label is of another kind, or a node has an
            attribute `x`, `y` or `z`.
    """
    positions = check_writable(graph)
    check_labels(graph)
    path = Path(path)
    attribute_names(map(numbers, graph.nodes.values()), reserved=("x", "y", "z"))
    target = nx.Graph()
    for (node, attributes), (x, y, z) in zip(
        graph.nodes(data=True), positions.tolist(), strict=True
    ):
        target.add_node(node, x=x, y=y, z=z, **numbers(attributes))
    for u, v, attributes in graph.edges(data=True):
        target.add_edge(u, v, **numbers(attributes))
    with replacing(path) as part:
        nx.write_graphml(target, part)
    return path


def _labels(graph: nx.Graph) -> dict[str, int | str]:
    are_integers = all(map(is_integer_label, graph))
    return {node: int(node) if are_integers else node for node in graph}

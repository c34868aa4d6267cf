"""Networks in the `.pts` files of MANworks: arcs of points, joined where these coincide."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import networkx as nx

from mixeddim.networks.io.places import Line, NetworkFileError, existing_file, in_units, read_lines

__all__ = ["read_manworks"]

type Point = tuple[float, ...]


def read_manworks(
    path: str | os.PathLike[str],
    radii: float | str | os.PathLike[str] | None = None,
    *,
    length_unit: float = 1.0,
) -> nx.Graph:
    """Read a network from a `.pts` file of MANworks.

    An arc lists its start, then its end, and only then the points between them. Arcs are joined
    where points have the same coordinates. Each arc states a condition at its start and one at
    its end: `DIR p` a pressure p, `MIX p` a flow proportional to the difference from p, `INT`
    none.

    Args:
        path: The file.
        radii: The radius of all vessels, or the `.pts` file with that of each arc; without it the
            edges have none.
        length_unit: What to multiply `pos` and `radius` by. MANworks scales its lengths: pass the
            length that is 1 in the file.

    Returns:
        A graph whose nodes are numbered from 0 along the arcs, with `pos`; at the ends with a
        condition `pressure` and `inlet` = True, or `mixed`, both as in the file. Edges have `arc`,
        the ordinal of theirs, and `radius`.

    Raises:
        NetworkFileError: if a file does not hold what it should.
        FileNotFoundError: if there is no such file.

    Source:
        L. Possenti et al., Int. J. Numer. Methods Biomed. Eng. 35 (2019) e3165, and its code,
        where `mesh1d.hpp` describes the format.
    """
    path = existing_file(path)
    graph = nx.Graph()
    nodes: dict[Point, int] = {}
    arcs = list(_read_arcs(path))
    if not arcs:
        raise NetworkFileError(
            f"{path}: got no BEGIN_ARC; wanted arcs of points. Pass the .pts file of a network."
        )
    arc_radii = _radii(radii, len(arcs))
    for arc, (lines, conditions) in enumerate(arcs):
        ordinals = []
        for line in lines:
            point = line.floats(slice(1, 4))
            ordinals.append(nodes.setdefault(point, len(nodes)))
            if ordinals[-1] == len(graph):
                line.add_node(graph, len(graph), point)
        attributes = {"arc": arc} | ({} if arc_radii is None else {"radius": arc_radii[arc]})
        for line, (u, v) in zip(lines[1:], pairwise(ordinals), strict=True):
            line.add_edge(graph, u, v, dict(attributes))
        for condition, node in zip(conditions, (ordinals[0], ordinals[-1]), strict=True):
            _set_condition(graph.nodes[node], condition)
    return in_units(graph, length_unit)


def _read_arcs(path: Path) -> Iterator[tuple[list[Line], list[Line]]]:
    """Yield the points of each arc from start to end, and its two conditions."""
    points: list[Line] = []
    conditions: list[Line] = []
    head, word = None, ""
    for line in read_lines(path):
        word = line.words[0]
        if word == "BEGIN_ARC" and head is None:
            head, points, conditions = line, [], []
        elif head is None and word in ("BEGIN_LIST", "END_LIST"):
            continue
        elif head is None or word == "BEGIN_ARC":
            raise line.error(
                f"got {word!r} {'outside' if head is None else 'within'} an arc; wanted each arc "
                "between BEGIN_ARC and END_ARC. Add the one that is missing; radii have a file of "
                "their own, radii=."
            )
        elif word == "BC":
            conditions.append(line)
        elif word != "END_ARC":
            line.require(4, "index, x, y, z")
            points.append(line)
        elif len(points) < 2 or len(conditions) != 2:
            raise head.error(
                f"got an arc of {len(points)} points and {len(conditions)} conditions BC; wanted "
                "2 points or more and 2 conditions. Complete it, or delete it."
            )
        else:
            start, end, *between = points
            yield [start, *between, end], conditions
            head = None
    if head is not None or word != "END_LIST":
        raise NetworkFileError(
            f"{path}: got the end of the file {'within an arc' if head else 'without END_LIST'}: "
            "it may be cut off. Complete it."
        )


def _set_condition(attributes: dict[str, object], line: Line) -> None:
    """Note the condition of a line `BC word value` at a node."""
    word = line.words[1] if len(line.words) > 1 else ""
    if word == "INT":
        return
    if word not in ("DIR", "MIX") or len(line.words) < 3:
        raise line.error(
            f"got {' '.join(line.words)[:60]!r}; wanted 'BC DIR' or 'BC MIX' and a pressure, or "
            "'BC INT'. Correct it."
        )
    name = "pressure" if word == "DIR" else "mixed"
    (value,) = line.floats(slice(2, 3))
    if attributes.get(name, value) != value:
        raise line.error(
            f"got the {name} {value} at a point that has {attributes[name]} from another arc; "
            "wanted one. Correct either."
        )
    attributes[name] = value
    if word == "DIR":
        attributes["inlet"] = True


def _radii(radii: float | str | os.PathLike[str] | None, num_arcs: int) -> list[float] | None:
    """Return the radius of each arc."""
    if radii is None:
        return None
    if not isinstance(radii, str | os.PathLike):
        return [float(radii)] * num_arcs
    path = existing_file(radii)
    lines = [line for line in read_lines(path) if line.words[0] not in ("BEGIN_LIST", "END_LIST")]
    values = [line.floats(slice(0, 1))[0] for line in lines]
    if len(values) != num_arcs:
        raise NetworkFileError(
            f"{path}: got {len(values)} radii; wanted {num_arcs}, one for each arc of the network. "
            "Pass the file that belongs to it."
        )
    return values

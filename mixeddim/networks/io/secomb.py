"""Networks in the format of T. W. Secomb's programs: `Network.dat`, in µm, mmHg and nl/min."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Final

import networkx as nx

from mixeddim.networks.io.places import Line, NetworkFileError, Place, existing_file, read_lines

__all__ = ["lines_of", "next_filled", "read_secomb"]

MICROMETRE: Final = 1e-6  # m
MMHG: Final = 133.322387415  # Pa
NANOLITRE_PER_MINUTE: Final = 1e-12 / 60.0  # m³/s

NUM_HEADER_LINES: Final = 6
"""The title, the box, tissue points, outer bound, longest segment and segments per node."""
FLOWING: Final = (4, 5)
PRESSURE, INFLOW = 0, 2


def read_secomb(path: str | os.PathLike[str]) -> nx.Graph:
    """Read a network with its blood flow and boundary data, in SI units.

    After six lines of header come three tables, each under its number of rows and a line of
    titles: segments `name type from to diameter flow hematocrit`, nodes `name x y z` and boundary
    nodes `name type value hematocrit` and, if there, the PO2; what follows on a line, or after an
    asterisk, is left out. Names are integers in any order. Segments of a type other than 4 and 5
    carry no blood: the programs skip them, and so does this reader, and nodes that only they join.
    The second of two segments between the same nodes gets a node in its middle, with a new name.

    Args:
        path: The file.

    Returns:
        A graph whose nodes are labelled by name.

        - Nodes have `pos` [m]; boundary nodes `pressure` [Pa] and `inlet` = True where the
          pressure is given (type 0), `inflow` [m³/s] into the network where that is given (type
          2), `hematocrit`, and where the file has it `po2` [mmHg] of the blood that enters.
        - Edges have `radius` [m], `flow` [m³/s] from the end that comes first in `graph.nodes` to
          the other, `hematocrit`, `name` and `type`.
        - The graph has what the header says, where it says it in numbers: `box`, the sides of the
          tissue from the origin [m], `tissue_points` along each, and `outer_bound` [m], the largest
          distance of tissue from the convex hull of the vessels.

        Some published files give outflow without its sign: check that the inflows add up.

    Raises:
        NetworkFileError: if the file does not hold such a network.
        FileNotFoundError: if there is no such file.

    Example:
        What `solve_flow` wants to know about the ends::

            pressures = {n: p for n, p in graph.nodes(data="pressure") if p is not None}
            inflows = {n: q for n, q in graph.nodes(data="inflow") if q is not None}

    Source:
        https://github.com/secomb/NetFlowV2 and https://github.com/secomb/GreensV4, which describe
        the format and its units.
    """
    path = existing_file(path)
    lines = lines_of(path)
    next(lines, None)  # the title, which may be blank
    header = [line for _ in range(NUM_HEADER_LINES - 1) if (line := next_filled(lines))]
    if len(header) < NUM_HEADER_LINES - 1:
        raise NetworkFileError(
            f"{path}: got fewer than the {NUM_HEADER_LINES} lines of header; wanted a "
            "Network.dat. Pass a file in that format."
        )
    segments = _read_table(path, lines, "segments", 7)
    nodes = _read_table(path, lines, "nodes", 4)
    boundary_nodes = _read_table(path, lines, "boundary nodes", 4)

    graph = nx.Graph(**_tissue(header))
    for line in nodes:
        x, y, z = line.floats(slice(1, 4))
        pos = (MICROMETRE * x, MICROMETRE * y, MICROMETRE * z)
        line.add_node(graph, line.integer(0, "name of a node"), pos)
    ordinals = {node: ordinal for ordinal, node in enumerate(graph)}
    for line in segments:
        _add_segment(graph, ordinals, line)
    for line in boundary_nodes:
        _add_boundary_data(graph, line)
    graph.remove_nodes_from([node for node in graph if graph.degree[node] == 0])
    if not graph:
        raise segments[0].error(
            f"got no segment of the types {FLOWING}, which carry blood, here or below; wanted one. "
            "Correct the second column."
        )
    return graph


def lines_of(path: Path) -> Iterator[Line]:
    """Yield all lines of a file of these programs, without what follows an asterisk."""
    return read_lines(path, "*", blank=True)


def next_filled(lines: Iterator[Line]) -> Line | None:
    """Return the next line with words: the programs look for numbers beyond blank lines."""
    return next((line for line in lines if line.words), None)


def _tissue(header: list[Line]) -> dict[str, object]:
    """Return what the lines after the title say about the tissue, where they hold numbers."""
    with suppress(NetworkFileError, IndexError):
        sides, bound = header[0].floats(slice(3)), header[2].floats(slice(1))[0]
        points = tuple(header[1].integer(i, "number of tissue points") for i in range(3))
        if len(sides) == 3 and min(sides) > 0 and min(points) > 0 and bound > 0:
            box = tuple(MICROMETRE * side for side in sides)
            return {"box": box, "tissue_points": points, "outer_bound": MICROMETRE * bound}
    return {}


def _read_table(path: Path, lines: Iterator[Line], what: str, num_columns: int) -> list[Line]:
    """Return the rows of the next table."""
    head = next_filled(lines)
    titles = next(lines, None)
    if head is None or titles is None:
        raise NetworkFileError(
            f"{path}: got the end of the file before the table of {what}: it may be cut off. "
            "Complete it."
        )
    num_rows = head.integer(0, f"number of {what}")
    filled: Iterator[Line] = (line for line in lines if line.words)
    if not titles.words:
        first = next(filled, None)
        if first is not None and first.words[0].lstrip("-").isdecimal():
            filled = chain([first], filled)
    rows = list(islice(filled, num_rows))
    if len(rows) < max(num_rows, 1):
        raise head.error(
            f"got {len(rows)} rows of {num_rows} {what}; wanted all of them, and at least one: the "
            "file may be cut off. Complete it, or correct the number."
        )
    for row in rows:
        row.require(num_columns, f"those of a table of {what}")
    return rows


def _add_segment(graph: nx.Graph, ordinals: dict[int, int], line: Line) -> None:
    name, kind, start, end = (
        line.integer(column, what)
        for column, what in enumerate(("name of a segment", "type", "node", "node"))
    )
    if kind not in FLOWING:
        return
    diameter, flow, hematocrit = line.floats(slice(4, 7))
    attributes: dict[str, object] = {"radius": 0.5 * MICROMETRE * diameter}
    attributes |= {"hematocrit": hematocrit, "name": name, "type": kind}
    place = Place(line.path, f"{line.part}, segment {name}")
    route = [start, end]
    if graph.has_edge(start, end):
        middle = max(ordinals) + 1
        pos = zip(graph.nodes[start]["pos"], graph.nodes[end]["pos"], strict=True)
        place.add_node(graph, middle, tuple(0.5 * (a + b) for a, b in pos))
        ordinals[middle] = len(ordinals)
        route = [start, middle, end]
    for u, v in pairwise(route):
        place.add_edge(graph, u, v, attributes)
        sign = 1.0 if ordinals[u] < ordinals[v] else -1.0
        graph.edges[u, v]["flow"] = sign * NANOLITRE_PER_MINUTE * flow


def _add_boundary_data(graph: nx.Graph, line: Line) -> None:
    node, kind = line.integer(0, "name of a node"), line.integer(1, "type of a boundary node")
    value, hematocrit = line.floats(slice(2, 4))
    if node not in graph:
        raise line.error(
            f"got the boundary node {node}, which the file does not have; wanted one of its nodes. "
            "Add the node, or correct the line."
        )
    graph.nodes[node]["hematocrit"] = hematocrit
    with suppress(NetworkFileError, IndexError):  # a comment may stand there
        graph.nodes[node]["po2"] = line.floats(slice(4, 5))[0]
    if kind == PRESSURE:
        graph.nodes[node].update(pressure=MMHG * value, inlet=True)
    elif kind == INFLOW:
        graph.nodes[node]["inflow"] = NANOLITRE_PER_MINUTE * value

"""Networks in the Dune Grid Format: its blocks VERTEX and SIMPLEX, no others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx

from mixeddim.atomic import replacing
from mixeddim.networks.io.attributes import attribute_names, check_writable, numbers
from mixeddim.networks.io.places import Line, NetworkFileError, existing_file, in_units

__all__ = ["read_dgf", "write_dgf"]

SETTINGS = ("dimension", "firstindex", "parameters")
REMEDY = "Correct it, or end the block above with a line that holds only #."


def read_dgf(
    path: str | os.PathLike[str],
    *,
    node_parameters: Mapping[str, int] | None = None,
    edge_parameters: Mapping[str, int] | None = None,
    length_unit: float = 1.0,
) -> nx.Graph:
    """Read a network in the Dune Grid Format.

    A line of VERTEX is `x y z` and parameters, one of SIMPLEX is `i j` and parameters. The format
    does not name the parameters, so the caller does, by their column: 0 is the first one after
    the coordinates or indices. Columns without a name are dropped.

    Args:
        path: The file.
        node_parameters: Columns of VERTEX to keep on the nodes, by attribute name.
        edge_parameters: Columns of SIMPLEX to keep on the edges, by attribute name.
        length_unit: What to multiply `pos` and `radius` by, such as 1e-6 to turn µm into m.

    Returns:
        A graph whose nodes are labelled by their index in the file, with `pos`, `inlet` (False,
        unless a column is named so) and the named parameters, which are floats.
        `validate_graph` tells what it still lacks.

    Raises:
        NetworkFileError: if the file does not hold such a network.
        FileNotFoundError: if there is no such file.

    Example:
        Capillaries with a pressure at each node and a radius on each edge::

            graph = read_dgf(
                "capillaries.dgf", node_parameters={"pressure": 0}, edge_parameters={"radius": 0}
            )

        Roots without a radius, but with a surface 2 π R L::

            graph = read_dgf("roots.dgf", edge_parameters={"surface": 2})
            for edge, length in zip(graph.edges, edge_lengths(graph)):
                graph.edges[edge]["radius"] = graph.edges[edge]["surface"] / (2 * pi * length)

    Source:
        https://www.dune-project.org/doxygen/master/group__DuneGridFormatParser.html. Beyond it,
        a `#` after data starts a comment, as published files have it.
    """
    blocks = _read_blocks(existing_file(path))
    vertices, simplices = blocks["VERTEX"], blocks["SIMPLEX"]
    node_columns = vertices.columns(node_parameters)
    edge_columns = simplices.columns(edge_parameters)

    graph = nx.Graph()
    first_index = vertices.settings.get("firstindex", 0)
    for index, row in enumerate(vertices.data(num_leading=3), start=first_index):
        x, y, z, *values = row.floats(slice(None), REMEDY)
        named: dict[str, float] = {name: values[column] for name, column in node_columns.items()}
        if "inlet" in named:
            named["inlet"] = bool(named["inlet"])
        row.add_node(graph, index, (x, y, z), named)
    for row in simplices.data(num_leading=2):
        u, v = _ends(row, graph)
        parameters = row.floats(slice(2, None), REMEDY)
        attributes = {name: parameters[column] for name, column in edge_columns.items()}
        row.add_edge(graph, u, v, attributes)
    return in_units(graph, length_unit)


def write_dgf(
    graph: nx.Graph,
    path: str | os.PathLike[str],
    *,
    node_parameters: Sequence[str] | None = None,
    edge_parameters: Sequence[str] | None = None,
) -> Path:
    """Write a network in the Dune Grid Format, to the last digit.

    Vertices are numbered from 0 in the order of `graph.nodes`; labels are lost. The format does
    not name its columns: a comment in the file does, and `read_dgf` has to be told.

    Args:
        graph: A network.
        path: The file, replaced once the new one is complete.
        node_parameters: Attributes to write as the columns of VERTEX, each carried by all nodes;
            by default whatever numbers and booleans there are. Only `inlet` may be missing on
            some, which means False.
        edge_parameters: The same for the edges and the columns of SIMPLEX.

    Returns:
        The path.

    Raises:
        NetworkError: if a node has no valid `pos`, or an `inlet` that is no bool.
        ValueError: if the graph has no edge, or if some node or edge lacks a parameter.

    Example:
        ::

            write_dgf(graph, "y.dgf", node_parameters=["pressure"], edge_parameters=["radius"])
            read_dgf("y.dgf", node_parameters={"pressure": 0}, edge_parameters={"radius": 0})
    """
    positions = check_writable(graph)
    path = Path(path)
    ordinals = {node: ordinal for ordinal, node in enumerate(graph)}
    names, rows = _parameters("node", dict(graph.nodes), node_parameters)
    vertices = [
        " ".join(map(repr, (*pos, *row))) for pos, row in zip(positions.tolist(), rows, strict=True)
    ]
    lines = ["DGF", f"% x y z {' '.join(names)}", "VERTEX", f"parameters {len(names)}"]
    lines += [*vertices, "#"]
    names, rows = _parameters("edge", dict(graph.edges), edge_parameters)
    simplices = [
        " ".join(map(repr, (ordinals[u], ordinals[v], *row)))
        for (u, v), row in zip(graph.edges, rows, strict=True)
    ]
    lines += [f"% i j {' '.join(names)}", "SIMPLEX", f"parameters {len(names)}", *simplices, "#"]
    with replacing(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _parameters(
    kind: str, elements: Mapping[object, Mapping[str, object]], wanted: Sequence[str] | None
) -> tuple[list[str], list[list[int | float]]]:
    """Return the names of the columns, and the values of each node or edge."""
    rows = [numbers(attributes) for attributes in elements.values()]
    names = attribute_names(rows) if wanted is None else list(wanted)
    for element, row in zip(elements, rows, strict=True):
        if kind == "node":
            row.setdefault("inlet", False)
        for name in names:
            if name not in row:
                raise ValueError(
                    f"got no number {name!r} on the {kind} {element!r}; wanted one on each, since "
                    f"a column of DGF has no gaps. Set it, or pass {kind}_parameters without it."
                )
    return names, [[_without_bool(row[name]) for name in names] for row in rows]


def _without_bool(number: bool | int | float) -> int | float:
    return int(number) if isinstance(number, bool) else number


# --- Blocks and lines -------------------------------------------------------------------------


def _ends(row: Line, graph: nx.Graph) -> tuple[int, int]:
    """Return the first two words as nodes of the graph."""
    for word in row.words[:2]:
        if not re.fullmatch(r"\d{1,18}", word, re.ASCII):
            raise row.error(
                f"got the vertex index {word!r}; wanted a non-negative integer. {REMEDY}"
            )
        if int(word) not in graph:
            raise row.error(
                f"got the vertex index {word}; wanted {min(graph)} to {max(graph)}, those of "
                "the block VERTEX. Add the vertex, or set firstindex in that block."
            )
    return int(row.words[0]), int(row.words[1])


@dataclass(frozen=True)
class _Block:
    """A block: its keyword, the settings and the lines of data between that and the lone `#`."""

    head: Line
    settings: dict[str, int] = field(default_factory=dict)
    rows: list[Line] = field(default_factory=list)

    @property
    def num_parameters(self) -> int:
        return self.settings.get("parameters", 0)

    def append(self, line: Line) -> None:
        """Add a line, which is a setting, as in `parameters 1`, or data."""
        name = line.words[0].lower()
        if name not in SETTINGS:
            self.rows.append(line)
            return
        # Published files go on after the number: `parameters 8: order, branch, ...`.
        value = re.match(r"\d{1,18}(?!\d)", "".join(line.words[1:2]), re.ASCII)
        if value is None:
            raise line.error(
                f"got {' '.join(line.words)!r}; wanted a non-negative integer after {name!r}. "
                "Correct it, or delete the line."
            )
        self.settings[name] = int(value.group())

    def columns(self, parameters: Mapping[str, int] | None) -> dict[str, int]:
        """Return the named columns, checked."""
        if parameters is not None and not isinstance(parameters, Mapping):
            raise self.head.error(
                f"got the parameters {parameters!r}; wanted a dictionary from names to columns, "
                "counted from 0, such as {'radius': 0}, since the file names none."
            )
        for name, column in (parameters or {}).items():
            if column not in range(self.num_parameters):
                raise self.head.error(
                    f"got column {column!r} for {name!r}; wanted less than the "
                    f"{self.num_parameters} parameters of the block, counted from 0. "
                    "Pass another column, or correct the file."
                )
        return dict(parameters or {})

    def data(self, num_leading: int) -> Iterator[Line]:
        """Yield the lines of data, each of `num_leading` words and the parameters."""
        if not self.rows:
            raise self.head.error("got an empty block; wanted at least one line of data.")
        for row in self.rows:
            if len(row.words) != num_leading + self.num_parameters:
                raise row.error(
                    f"got {len(row.words)} columns; wanted {num_leading} and "
                    f"{self.num_parameters} parameters. Correct the line, or the number of "
                    "parameters above it."
                )
            yield row


def _read_blocks(path: Path) -> dict[str, _Block]:
    """Return the blocks of a file by keyword in upper case, among them VERTEX and SIMPLEX."""
    blocks: dict[str, _Block] = {}
    block = None
    for line in _read_lines(path):
        if line.words == ["#"]:
            block = None
        elif block is not None:
            block.append(line)
        elif (keyword := line.words[0].upper()) in blocks:
            raise line.error(f"got a second block {keyword}; wanted one. Merge the two.")
        else:
            block = blocks[keyword] = _Block(line)
    if block is not None:
        raise block.head.error(
            f"got a block {block.head.words[0]} without an end: the file may be cut off. "
            "Complete it, and end the block with a line that holds only #."
        )
    for keyword in ("VERTEX", "SIMPLEX"):
        if keyword not in blocks:
            raise NetworkFileError(
                f"{path}: got the blocks {', '.join(blocks) or 'none'}; wanted a block {keyword}."
            )
    return blocks


def _read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines that are neither empty nor comments; the end of a block is the word `#`."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    if lines[0].split()[:1] not in (["DGF"], ["dgf"]):
        raise NetworkFileError(
            f"{path}, line 1: got {lines[0][:40]!r}; wanted the keyword DGF. Pass a file in the "
            "Dune Grid Format."
        )
    for number, text in enumerate(lines[1:], start=2):
        content = "#" if text.lstrip().startswith("#") else re.split("[%#]", text)[0]
        if words := content.split():
            yield Line(path, f"line {number}", words)

"""Read networks from files into graphs that keep the contract of `graphs`.

Readers return the lengths and values of the file; `Scaling` maps them to those of the problem.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx

__all__ = ["NetworkFileError", "read_dgf"]


class NetworkFileError(ValueError):
    """A file that holds no readable network; the message names file, line and remedy."""


# --- Dune Grid Format -------------------------------------------------------------------------

DGF_SETTINGS = ("dimension", "firstindex", "parameters")


def read_dgf(
    path: str | os.PathLike[str],
    *,
    node_parameters: Mapping[str, int] | None = None,
    edge_parameters: Mapping[str, int] | None = None,
) -> nx.Graph:
    """Read a network in the Dune Grid Format: its blocks VERTEX and SIMPLEX, no others.

    A line of VERTEX is `x y z` and parameters, one of SIMPLEX is `i j` and parameters. The format
    does not name the parameters, so the caller does, by their column: 0 is the first one after
    the coordinates or indices. Columns without a name are dropped.

    Args:
        path: The file.
        node_parameters: Columns of VERTEX to keep on the nodes, by attribute name.
        edge_parameters: Columns of SIMPLEX to keep on the edges, by attribute name.

    Returns:
        A graph in the units of the file, its nodes labelled by their index there, with `pos`,
        `inlet` (False) and the named parameters. `validate_graph` tells what it still lacks.

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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"got {os.fspath(path)!r}, which is no file; wanted a network in the Dune Grid Format. "
            "Check the path."
        )
    blocks = _read_dgf_blocks(path)
    vertices, simplices = blocks["VERTEX"], blocks["SIMPLEX"]
    node_columns = vertices.columns(node_parameters)
    edge_columns = simplices.columns(edge_parameters)

    graph = nx.Graph()
    first_index = vertices.settings.get("firstindex", 0)
    for index, row in enumerate(vertices.data(num_leading=3), start=first_index):
        x, y, z, *values = row.floats()
        named = {name: values[column] for name, column in node_columns.items()}
        graph.add_node(index, **({"pos": (x, y, z), "inlet": False} | named))
    for row in simplices.data(num_leading=2):
        u, v = row.ends(graph)
        values = row.floats()[2:]
        graph.add_edge(u, v, **{name: values[column] for name, column in edge_columns.items()})
    return graph


@dataclass(frozen=True)
class _DgfLine:
    """The words of a line, without its comment, and where it stands."""

    path: Path
    number: int
    words: list[str]

    def error(self, message: str) -> NetworkFileError:
        return NetworkFileError(f"{self.path}, line {self.number}: {message}")

    def floats(self) -> list[float]:
        """Return the words as finite numbers."""
        values = []
        for word in self.words:
            try:
                values.append(float(word))
            except ValueError:
                values.append(math.nan)
            if not math.isfinite(values[-1]):
                raise self.error(
                    f"got {word!r}; wanted a finite number. Correct it, or end the block above "
                    "with a line that holds only #."
                )
        return values

    def ends(self, graph: nx.Graph) -> tuple[int, int]:
        """Return the first two words as nodes of the graph, which has no edge between them yet."""
        for word in self.words[:2]:
            if not re.fullmatch(r"\d{1,18}", word):
                raise self.error(
                    f"got the vertex index {word!r}; wanted a non-negative integer. Correct it, or "
                    "end the block above with a line that holds only #."
                )
            if int(word) not in graph:
                raise self.error(
                    f"got the vertex index {word}; wanted {min(graph)} to {max(graph)}, those of "
                    "the block VERTEX. Add the vertex, or set firstindex in that block."
                )
        u, v = int(self.words[0]), int(self.words[1])
        if graph.has_edge(u, v):
            raise self.error(f"got the edge {(u, v)} again; wanted it once. Delete the line.")
        return u, v


@dataclass(frozen=True)
class _DgfBlock:
    """A block: its keyword, the settings and the lines of data between that and the lone `#`."""

    head: _DgfLine
    settings: dict[str, int] = field(default_factory=dict)
    rows: list[_DgfLine] = field(default_factory=list)

    @property
    def num_parameters(self) -> int:
        return self.settings.get("parameters", 0)

    def append(self, line: _DgfLine) -> None:
        """Add a line, which is a setting, as in `parameters 1`, or data."""
        name = line.words[0].lower()
        if name not in DGF_SETTINGS:
            self.rows.append(line)
            return
        # Published files go on after the number: `parameters 8: order, branch, ...`.
        value = re.match(r"\d{1,18}(?!\d)", "".join(line.words[1:2]))
        if value is None:
            raise line.error(
                f"got {' '.join(line.words)!r}; wanted a non-negative integer after {name!r}. "
                "Correct it, or delete the line."
            )
        self.settings[name] = int(value.group())

    def columns(self, parameters: Mapping[str, int] | None) -> dict[str, int]:
        """Return the named columns, checked."""
        for name, column in (parameters or {}).items():
            if column not in range(self.num_parameters):
                raise self.head.error(
                    f"got column {column!r} for {name!r}; wanted less than the "
                    f"{self.num_parameters} parameters of the block, counted from 0. "
                    "Pass another column, or correct the file."
                )
        return dict(parameters or {})

    def data(self, num_leading: int) -> Iterator[_DgfLine]:
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


def _read_dgf_blocks(path: Path) -> dict[str, _DgfBlock]:
    """Return the blocks of a file by keyword in upper case, among them VERTEX and SIMPLEX."""
    blocks: dict[str, _DgfBlock] = {}
    block = None
    for line in _read_dgf_lines(path):
        if line.words == ["#"]:
            block = None
        elif block is not None:
            block.append(line)
        elif (keyword := line.words[0].upper()) in blocks:
            raise line.error(f"got a second block {keyword}; wanted one. Merge the two.")
        else:
            block = blocks[keyword] = _DgfBlock(line)
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


def _read_dgf_lines(path: Path) -> Iterator[_DgfLine]:
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
            yield _DgfLine(path, number, words)

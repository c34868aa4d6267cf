"""Networks as two tables of comma-separated values, one of nodes and one of edges."""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import networkx as nx

from mixeddim.atomic import replacing
from mixeddim.networks.io.attributes import (
    Number,
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

__all__ = ["read_csv", "write_csv"]

# Names of columns in the tables of Voreen's vessel graphs; a column of our own name has priority.
_OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "node": "id",
        "x": "pos_x",
        "y": "pos_y",
        "z": "pos_z",
        "start": "node1id",
        "end": "node2id",
        "radius": "avgRadiusAvg",
    }
)


def read_csv(
    path: str | os.PathLike[str],
    edges: str | os.PathLike[str] | None = None,
    *,
    delimiter: str = ",",
    node: str = "node",
    position: Sequence[str] = ("x", "y", "z"),
    ends: Sequence[str] = ("start", "end"),
    radius: str | None = "radius",
    diameter: str | None = None,
    decimal: str = ".",
    length_unit: float = 1.0,
) -> nx.Graph:
    """Read a network from a table of nodes and one of edges, whose first lines name the columns.

    The names of Voreen's tables are known too: `id;pos_x;pos_y;pos_z` for nodes,
    `node1id;node2id;avgRadiusAvg` for edges.

    Columns beyond those named here become attributes: numbers, `true` and `false`, or strings
    where no cell of the column is a number. An empty cell sets nothing.

    Args:
        path: The table of nodes.
        edges: The table of edges; by default beside the other, "edges" for "nodes" in its name.
        delimiter: The character between cells, such as ";" or a tab.
        node: Column with the labels of the nodes.
        position: Columns with their three coordinates.
        ends: Columns of the other table with the labels of the two ends of each edge.
        radius: Its column with the radii, or None if there is none.
        diameter: Its column with the diameters; it replaces `radius` where given.
        decimal: The decimal sign of the numbers, "." or ",".
        length_unit: What to multiply `pos` and `radius` by, such as 1e-6 to turn µm into m.

    Returns:
        A graph. Labels are integers if all nodes have such, strings otherwise.

    Raises:
        NetworkFileError: if the files do not hold such a network.
        FileNotFoundError: if one of them does not exist.
        ValueError: if `position` does not hold three names, or `decimal` is another sign or that
            of `delimiter`.
    """
    check_position(position)
    _check_decimal(decimal, delimiter)
    path = existing_file(path)
    node_table = _read_table(path, delimiter, decimal, [node, *position])
    width = radius if diameter is None else diameter
    width_column = [] if width is None else [width]
    edge_path = existing_file(_edge_path(path, edges))
    edge_table = _read_table(edge_path, delimiter, decimal, [*ends, *width_column])
    to_radius = 1.0 if diameter is None else 0.5
    graph = nx.Graph()
    label = _label_type(node_table.columns[node])
    points = zip(*(node_table.floats(name) for name in position), strict=True)
    attributes = node_table.attributes({node, *position})
    for place, text, point in zip(node_table.places, node_table.columns[node], points, strict=True):
        place.add_node(graph, label(text), point, next(attributes))
    pairs = zip(*(map(label, edge_table.columns[name]) for name in ends), strict=True)
    widths = [width for name in width_column for width in edge_table.floats(name)]
    radii = [{"radius": to_radius * width} for width in widths]
    attributes = edge_table.attributes({*ends, *width_column})
    for row, (place, (u, v)) in enumerate(zip(edge_table.places, pairs, strict=True)):
        place.add_edge(graph, u, v, next(attributes) | (radii[row] if radii else {}))
    return in_units(graph, length_unit)


def write_csv(
    graph: nx.Graph,
    path: str | os.PathLike[str],
    edges: str | os.PathLike[str] | None = None,
    *,
    delimiter: str = ",",
) -> Path:
    """Write a network as two tables that `read_csv` reads back to the last digit.

    Args:
        graph: A network whose labels are integers or strings. Its attributes that are numbers or
            booleans become columns; others are left out.
        path: The table of nodes; both are replaced once the new ones are complete.
        edges: The same for edges; by default beside the other, "edges" for "nodes" in its name.
        delimiter: The character between cells.

    Returns:
        The path of the table of nodes.

    Raises:
        NetworkError: if a node has no valid `pos`, or an `inlet` that is no bool.
        ValueError: if the graph has no edge, a label is of another kind, or an attribute has the
            name of a column that holds something else.
    """
    positions = check_writable(graph)
    check_labels(graph)
    path = Path(path)
    points = [[node, *pos] for node, pos in zip(graph, positions.tolist(), strict=True)]
    with replacing(_edge_path(path, edges)) as edge_part, replacing(path) as part:
        _write_table(part, delimiter, ["node", "x", "y", "z"], points, graph.nodes.values())
        _write_table(edge_part, delimiter, ["start", "end"], graph.edges, graph.edges.values())
    return path


def _write_table(
    path: Path,
    delimiter: str,
    titles: list[str],
    heads: Iterable[Sequence[object]],
    attributes: Iterable[Mapping[str, object]],
) -> None:
    rows = [numbers(element) for element in attributes]
    names = attribute_names(rows, reserved=titles)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow([*titles, *names])
        for head, row in zip(heads, rows, strict=True):
            writer.writerow([*head, *(row.get(name, "") for name in names)])


def _edge_path(nodes: Path, edges: str | os.PathLike[str] | None) -> Path:
    if edges is None and "nodes" not in nodes.name:
        raise ValueError(
            f"got the table of nodes {nodes.name!r} and none of edges; wanted both, or a name that "
            "holds the word nodes. Pass edges=."
        )
    if edges is not None and Path(edges) == nodes:
        raise ValueError(
            f"got the file {nodes.name!r} for both tables; wanted two. Pass another one as edges=."
        )
    return nodes.with_name(nodes.name.replace("nodes", "edges")) if edges is None else Path(edges)


def _check_decimal(decimal: str, delimiter: str) -> None:
    if decimal not in (".", ","):
        raise ValueError(f"got decimal={decimal!r}; wanted '.' or ','. Pass one of them.")
    if decimal == delimiter:
        raise ValueError(
            f"got {decimal!r} as decimal sign and as delimiter; wanted two signs. Pass the "
            "delimiter of the file, such as ';', as delimiter=."
        )


# --- Tables and their cells -------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """The cells of a file by the name of their column, and the place of each row."""

    places: list[Place]
    columns: dict[str, tuple[str, ...]]
    decimal: str

    def floats(self, name: str) -> list[float]:
        """Return a column of finite numbers."""
        other = {".": ",", ",": "."}[self.decimal]
        remedies = (
            f"Correct the column {name!r}.",
            f"Correct the column {name!r}, or pass decimal={other!r}.",
        )
        return [
            place.number(_with_point(cell, self.decimal), remedies[other in cell])
            for place, cell in zip(self.places, self.columns[name], strict=True)
        ]

    def attributes(self, apart_from: set[str]) -> Iterator[dict[str, Any]]:
        """Yield for each row what its other columns set."""
        names = [name for name in self.columns if name not in apart_from]
        columns = [self._values(name) for name in names]
        for row in range(len(self.places)):
            pairs = ((name, column[row]) for name, column in zip(names, columns, strict=True))
            yield {name: value for name, value in pairs if value is not None}

    def _values(self, name: str) -> list[Number | str | None]:
        """Return a column of numbers, or of strings if none of them is one; None if empty."""
        values = [_value(cell, self.decimal) for cell in self.columns[name]]
        if name == "inlet":
            return [
                None if value is None else self._bool(row, value)
                for row, value in enumerate(values)
            ]
        if any(isinstance(value, int | float) for value in values):
            for place, value in zip(self.places, values, strict=True):
                if value is not None:
                    place.number(value, f"Correct the column {name!r}.")
        return values

    def _bool(self, row: int, value: Number | str) -> bool:
        if value not in (0, 1):
            raise self.places[row].error(
                f"got the inlet {value!r}; wanted true or false. Correct the column 'inlet'."
            )
        return bool(value)


def _with_point(cell: str, decimal: str) -> str:
    """Return the text of a number with a decimal point; a point of another meaning stays none."""
    if decimal == ".":
        return cell
    return f"{cell} with a point" if "." in cell else cell.replace(decimal, ".")


def _value(cell: str, decimal: str) -> Number | str | None:
    """Return the content of a cell."""
    text = cell.strip()
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII):
        return int(text)
    try:
        # 1_0 is a name, though Python reads it as 10
        return text if "_" in text else float(_with_point(text, decimal))
    except ValueError:
        return text or None


def _label_type(cells: Sequence[str]) -> Callable[[str], int | str]:
    """Return how to read labels: as integers if all these are."""
    if not all(is_integer_label(cell.strip()) for cell in cells):
        return str

    def integer(cell: str) -> int | str:
        return int(cell) if is_integer_label(cell.strip()) else cell

    return integer


def _read_table(path: Path, delimiter: str, decimal: str, wanted: Sequence[str]) -> _Table:
    """Return a table that has the wanted columns and a row or more."""
    places: list[Place] = []
    rows: list[list[str]] = []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for row in reader:
                if row:
                    places.append(Place(path, f"line {reader.line_num}"))
                    rows.append(row)
        except csv.Error as error:
            raise Place(path, f"line {reader.line_num}").error(
                f"got cells that cannot be told apart ({error}); wanted a table of text. Pass "
                "another file, or correct the line."
            ) from None
    if len(rows) < 2:
        raise NetworkFileError(
            f"{path}: got {len(rows)} lines; wanted one with the names of the columns and others "
            "below it. Complete the file."
        )
    titles = [name.strip() for name in rows[0]]
    names = list(titles)
    for name in wanted:
        other = _OTHER_NAMES.get(name)
        if name not in names and other is not None and names.count(other) == 1:
            names[names.index(other)] = name
        if names.count(name) != 1:
            raise places[0].error(
                f"got the columns {', '.join(titles)[:200]}; wanted one {name!r}."
                f"{_resembling(name, titles)} Add it, pass the name it has here, or another "
                "delimiter."
            )
    if len(set(names)) < len(names):
        raise places[0].error(
            f"got the columns {', '.join(titles)[:200]}; wanted each name once. Rename one."
        )
    for place, row in zip(places, rows, strict=True):
        if len(row) != len(names):
            raise place.error(
                f"got {len(row)} cells; wanted {len(names)}, one for each column. Correct the line."
            )
    columns = dict(zip(names, zip(*rows[1:], strict=True), strict=True))
    return _Table(places[1:], columns, decimal)


def _resembling(name: str, names: Sequence[str]) -> str:
    """Return a sentence on the column that looks like a missing one, if there is one."""
    if name in names:
        return ""
    if len(names) == 1 and (separators := [sign for sign in ";,\t" if sign in names[0]]):
        return f" The columns seem to be separated by {separators[0]!r}: pass it as delimiter=."
    lower = {other.lower(): other for other in names}
    if name == "radius" and (diameters := [lower[text] for text in lower if "diam" in text]):
        return f" If {diameters[0]!r} holds diameters, pass diameter={diameters[0]!r}."
    parts = [text for text in lower if len(name) > 1 and name.lower() in text]
    close = parts or difflib.get_close_matches(name.lower(), lower, n=1)
    return f" The column {lower[close[0]]!r} looks like it." if close else ""

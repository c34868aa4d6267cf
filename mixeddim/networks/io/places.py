"""Places in a file: checks while reading, and errors that name the line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import networkx as nx

__all__ = [
    "Line",
    "NetworkFileError",
    "Place",
    "check_position",
    "existing_file",
    "in_units",
    "is_integer_label",
    "read_lines",
]


class NetworkFileError(ValueError):
    """A file that holds no readable network; the message names file, line or edge, and remedy."""


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that exists.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"got {os.fspath(path)!r}, which is no file; wanted a network. Check the path."
        )
    return path


def check_position(position: Sequence[str]) -> None:
    """Check that there is a name for each coordinate.

    Raises:
        ValueError: if there are not three.
    """
    if len(position) != 3:
        raise ValueError(
            f"got position={position!r}; wanted three names. Give a network in a plane a third "
            "coordinate in the file, zero throughout."
        )


def is_integer_label(text: str) -> bool:
    """Tell whether a label is an integer in its usual spelling, which "007" and "1_0" are not."""
    return re.fullmatch(r"0|-?[1-9]\d{0,18}", text, re.ASCII) is not None


def in_units(graph: nx.Graph, length_unit: float) -> nx.Graph:
    """Multiply the lengths of a graph, `pos` and `radius`, and return it.

    Raises:
        ValueError: if the factor is not finite and positive.
    """
    if not 0.0 < length_unit < math.inf:
        raise ValueError(
            f"got length_unit={length_unit!r}; wanted a finite positive number. Pass the length, "
            "in the unit you want, of the unit of the file: 1e-6 turns µm into m."
        )
    for _, attributes in graph.nodes(data=True):
        attributes["pos"] = tuple(length_unit * x for x in attributes["pos"])
    for elements in (graph.nodes.values(), graph.edges.values()):
        for attributes in elements:
            if isinstance(attributes.get("radius"), int | float):
                attributes["radius"] *= length_unit
    return graph


@dataclass(frozen=True, slots=True)
class Place:
    """A part of a file, such as "line 7" or "cell 3".

    It adds nodes and edges to a graph and checks that each comes once and that edges join two
    existing nodes.
    """

    path: Path
    part: str

    def error(self, message: str) -> NetworkFileError:
        """Return the error that says what is wrong here."""
        return NetworkFileError(f"{self.path}, {self.part}: {message}")

    def number(self, value: object, remedy: str = "Correct it.") -> float:
        """Return a value as a finite number; 1_0 is none, though Python reads it as 10."""
        try:
            number = math.nan if "_" in str(value) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"got {_short(value)}; wanted a finite number. {remedy}")
        return number

    def add_node(
        self,
        graph: nx.Graph,
        node: Hashable,
        pos: tuple[float, ...],
        attributes: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Add a node, which is no inlet unless its attributes say so."""
        if node in graph:
            raise self.error(
                f"got the node {_short(node)} again; wanted it once. Rename it, or delete it."
            )
        graph.add_nodes_from([(node, {"inlet": False, **attributes, "pos": pos})])

    def add_edge(
        self, graph: nx.Graph, u: Hashable, v: Hashable, attributes: Mapping[str, object]
    ) -> None:
        """Add an edge between two nodes of the graph."""
        for node in (u, v):
            if node not in graph:
                raise self.error(
                    f"got an edge to the node {_short(node)}, which the file does not have; wanted "
                    "one of its nodes. Add the node, or correct the edge."
                )
        if u == v:
            raise self.error(
                f"got an edge from the node {_short(u)} to itself; wanted two ends. Delete it."
            )
        if graph.has_edge(u, v):
            raise self.error(
                f"got the edge {(u, v)} again; wanted it once. Delete the line, or put a node into "
                "one of two parallel vessels."
            )
        graph.add_edges_from([(u, v, attributes)])


@dataclass(frozen=True, slots=True)
class Line(Place):
    """A line of a text file and its words."""

    words: list[str]

    def floats(self, words: slice, remedy: str = "Correct it.") -> tuple[float, ...]:
        """Return some of the words as finite numbers."""
        try:
            values = tuple([float(word) for word in self.words[words]])
        except ValueError:
            values = (math.nan,)
        if not all(map(math.isfinite, values)) or any("_" in word for word in self.words[words]):
            values = tuple([self.number(word, remedy) for word in self.words[words]])
        return values

    def integer(self, word: int, what: str) -> int:
        """Return one of the words as an integer, which may be written as 3.000."""
        text = self.words[word] if word < len(self.words) else ""
        match = re.fullmatch(r"([+-]?\d{1,18})(\.0*)?", text, re.ASCII)
        if match is None:
            raise self.error(f"got {_short(text)} for the {what}; wanted an integer. Correct it.")
        return int(match[1])

    def require(self, num_words: int, what: str) -> None:
        """Check that the line has that many words at least."""
        if len(self.words) < num_words:
            raise self.error(
                f"got {len(self.words)} columns; wanted {num_words}: {what}. Complete the line."
            )


def read_lines(path: Path, comments: str = "", *, blank: bool = False) -> Iterator[Line]:
    """Yield the lines of a text that hold words, without what follows one of the comment signs.

    Bytes that are no UTF-8, as in names and comments of old files, do no harm. With `blank` lines
    without words are among them.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, text in enumerate(file, start=1):
            for sign in comments:
                text = text.partition(sign)[0]
            words = text.split()
            if words or blank:
                yield Line(path, f"line {number}", words)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"

"""Networks in SWC files: trees of points with a radius, each linked to its parent; µm."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace

import networkx as nx

from mixeddim.networks.io.places import Line, NetworkFileError, existing_file, in_units, read_lines

__all__ = ["read_swc"]


def read_swc(
    path: str | os.PathLike[str],
    *,
    omit_types: Collection[int] = (),
    length_unit: float = 1e-6,
) -> nx.Graph:
    """Read a tree of vessels, or a forest, from an SWC file.

    A line is `sample type x y z radius parent`, the parent -1 at a root. Columns are separated by
    blanks, commas or semicolons. Integers may be written as 3.0. Text after a `#` and columns
    after the seventh are ignored. Parents may come after their children.

    Args:
        path: The file.
        omit_types: Types of samples to leave out, such as `(1,)` for the soma of a neuron, whose
            points are no vessel. Samples whose parent is left out become roots.
        length_unit: What to multiply `pos` and `radius` by. The format fixes µm, so that the
            default returns m; pass the length of the file's unit where it breaks this rule.

    Returns:
        A graph whose nodes are labelled by sample, with `pos`, `type`, `radius` and `inlet`, which
        is True at the roots. The `radius` of an edge is the mean of those of its two ends, as of
        the frustum between them.

    Raises:
        NetworkFileError: if the file does not hold such a network, or a radius is not positive.
        FileNotFoundError: if there is no such file.

    Source:
        R. C. Cannon et al., J. Neurosci. Methods 84 (1998) 49; http://www.neuronland.org, format
        specification SWC.
    """
    path = existing_file(path)
    graph = nx.Graph()
    links = []
    omitted = set()
    for line in map(_with_columns, read_lines(path, comments="#")):
        line.require(7, "sample, type, x, y, z, radius, parent")
        sample, parent = line.integer(0, "sample"), line.integer(6, "parent")
        x, y, z, radius = line.floats(slice(2, 6))
        kind = line.integer(1, "type")
        if kind in omit_types:
            omitted.add(sample)
            continue
        if radius <= 0.0:
            raise line.error(
                f"got the radius {radius}; wanted a positive one. Correct it, or leave out the "
                f"samples of its type: omit_types=({kind},)."
            )
        attributes = {"type": kind, "radius": radius, "inlet": parent == -1}
        line.add_node(graph, sample, (x, y, z), attributes)
        if parent != -1:
            links.append((line, parent, sample))
    for line, parent, sample in links:
        if parent in omitted:
            graph.nodes[sample]["inlet"] = True
            continue
        if parent not in graph:
            raise line.error(
                f"got the parent {parent}, which is no sample of the file; wanted one, or -1 at a "
                "root. Add the sample, or correct the parent."
            )
        radius = 0.5 * (graph.nodes[parent]["radius"] + graph.nodes[sample]["radius"])
        line.add_edge(graph, parent, sample, {"radius": radius})
    if graph.number_of_edges() == 0:
        raise NetworkFileError(
            f"{path}: got {len(graph)} samples and no link between them; wanted lines of sample, "
            "type, x, y, z, radius, parent. Pass a file in the SWC format."
        )
    return in_units(graph, length_unit)


def _with_columns(line: Line) -> Line:
    """Split a line at its semicolons, or commas, if they separate all columns.

    A comma inside a number, as in `1 2 0,5`, is left there, and refused with the number.
    """
    text = " ".join(line.words).rstrip(",; ")
    for separator in ";,":
        columns = text.split(separator)
        if len(columns) > 1 and all(len(column.split()) == 1 for column in columns):
            return replace(line, words=[column.strip() for column in columns])
    return line

"""Networks as polylines in VTK's files, XML (`.vtp`) and legacy (`.vtk`)."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyvista as pv
from numpy.typing import NDArray

from mixeddim.atomic import replacing
from mixeddim.networks.graphs import edge_indices
from mixeddim.networks.io.attributes import (
    attribute_names,
    check_writable,
    has_control_characters,
    numbers,
)
from mixeddim.networks.io.places import NetworkFileError, Place, existing_file, in_units

__all__ = ["read_vtk", "write_vtp"]

type Arrays = Mapping[str, NDArray[Any]]


def read_vtk(
    path: str | os.PathLike[str],
    *,
    radius: str | None = "radius",
    diameter: str | None = None,
    length_unit: float = 1.0,
) -> nx.Graph:
    """Read a network from the lines and polylines of a `.vtp` or legacy `.vtk` file.

    Each point becomes a node, each step of a polyline an edge. Polylines meet where they share a
    point; a step that an earlier polyline has taken, with the same radius, counts once. Where they
    have points of their own at the same place, `merge_close_nodes` joins them. Of centre lines that
    run from an inlet to each outlet, as VMTK writes them, `merge_repeated_lines` keeps each trunk
    once.

    Args:
        path: The file.
        radius: Array with the radii, or None if there is none. Where it lies on the points, an
            edge gets the mean of its two ends.
        diameter: Array with the diameters; it replaces `radius` where given.
        length_unit: What to multiply `pos` and `radius` by, such as 1e-6 to turn µm into m.

    Returns:
        A graph whose nodes are numbered as the points. Arrays with one number a point or a cell
        become attributes, but where it is NaN; `inlet` becomes a bool.

    Raises:
        NetworkFileError: if the file does not hold such a network.
        FileNotFoundError: if there is no such file.
    """
    path = existing_file(path)
    arrays = _read_arrays(path)
    points, lines, first_line = arrays["points"], _lines(path, arrays), int(arrays["first_line"])
    names = [*arrays["cell_names"].tolist(), *arrays["point_names"].tolist()]
    width = radius if diameter is None else diameter
    if width is not None and width not in names:
        raise NetworkFileError(
            f"{path}: got the arrays {', '.join(names) or 'none'}; wanted {width!r} on the cells "
            "or points. Pass the name it has as radius= or diameter=, or radius=None to set radii "
            "later."
        )
    nodes = _attributes(path, "point", arrays, len(points), width)
    edges = _attributes(path, "cell", arrays, first_line + len(lines), width)[first_line:]
    if diameter is not None:
        for row in (*nodes, *edges):
            if "radius" in row:
                row["radius"] *= 0.5
    graph = nx.Graph()
    line_of: dict[frozenset[int], int] = {}
    for point, (pos, attributes) in enumerate(zip(points.tolist(), nodes, strict=True)):
        place = Place(path, f"point {point}")
        if "inlet" in attributes:
            attributes["inlet"] = bool(attributes["inlet"])
        place.add_node(graph, point, tuple([place.number(x) for x in pos]), attributes)
    for index, (line, attributes) in enumerate(zip(lines, edges, strict=True)):
        place = Place(path, f"line {index} of {len(lines)}")
        for u, v in pairwise(line):
            ends = [nodes[node]["radius"] for node in (u, v) if "radius" in nodes[node]]
            mean = {"radius": 0.5 * sum(ends)} if len(ends) == 2 else {}
            values = mean | attributes
            is_copy = line_of.setdefault(frozenset((u, v)), index) != index
            if not (is_copy and graph.edges[u, v].get("radius") == values.get("radius")):
                place.add_edge(graph, u, v, values)
    return in_units(graph, length_unit)


def write_vtp(graph: nx.Graph, path: str | os.PathLike[str]) -> Path:
    """Write a network as a `.vtp` file that `read_vtk` reads back to the last digit.

    Points are numbered in the order of `graph.nodes`, labels are lost; each edge is a line.

    Args:
        graph: A network. Its attributes that are numbers go along as arrays on points and cells,
            booleans as 0 and 1, with NaN where a node or edge has none; others are left out.
        path: The file, `.vtp`, replaced once the new one is complete.

    Returns:
        The path.

    Raises:
        NetworkError: if a node has no valid `pos`, or an `inlet` that is no bool.
        ValueError: if the graph has no edge, an attribute a name that VTK cannot read back, or
            the file another suffix.
    """
    positions = check_writable(graph)
    path = Path(path)
    if path.suffix.lower() != ".vtp":
        raise ValueError(f"got the file {str(path)!r}; wanted one that ends in .vtp. Rename it.")
    lines = np.insert(edge_indices(graph), 0, 2, axis=1)
    mesh = pv.PolyData(positions, lines=lines.ravel())
    mesh.point_data.update(_columns(graph.nodes.values()))
    mesh.cell_data.update(_columns(graph.edges.values()))
    with replacing(path) as part:
        mesh.save(part)
    return path


def _columns(elements: Iterable[Mapping[str, object]]) -> Arrays:
    """Return what the nodes, or edges, have as one array a name."""
    rows = [numbers(attributes) for attributes in elements]
    columns = {}
    for name in attribute_names(rows):
        if not name or re.search('[<>&"]', name) or has_control_characters(name):
            raise ValueError(
                f"got the attribute {name!r}; wanted a name without <, >, & and quotation marks, "
                "of one line, which VTK writes so that it can read it. Rename it."
            )
        values = np.array([row.get(name, np.nan) for row in rows])
        columns[name] = values.astype(np.uint8) if values.dtype == bool else values
    return columns


# --- What VTK reads ---------------------------------------------------------------------------


def _read_arrays(path: Path) -> Arrays:
    """Let VTK read a file in a process of its own, since it may crash on a damaged one."""
    script = Path(__file__).with_name("vtk_arrays.py")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "arrays.npz"
        run = subprocess.run(
            [sys.executable, "-P", script, path.absolute(), target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        errors = re.findall(rb"ERR\| ([^\x1b\n]*)", run.stderr)
        if run.returncode != 0 or errors:
            reason = errors[0].decode(errors="replace") if errors else f"exit {run.returncode}"
            raise NetworkFileError(
                f"{path}: got a file that VTK does not read as polylines ({reason}); wanted "
                "PolyData that is complete. Write it anew, in ParaView after Extract Surface."
            )
        with np.load(target) as arrays:
            return dict(arrays)


def _lines(path: Path, arrays: Arrays) -> list[list[int]]:
    """Return the points of each polyline, checked."""
    offsets, connectivity = arrays["offsets"], arrays["connectivity"]
    if len(offsets) < 2:
        raise NetworkFileError(f"{path}: got no polyline; wanted one. Pass the file of a network.")
    if (
        offsets[0] != 0
        or np.any(np.diff(offsets) < 2)
        or offsets[-1] != len(connectivity)
        or connectivity.min() < 0
        or connectivity.max() >= len(arrays["points"])
    ):
        raise NetworkFileError(
            f"{path}: got polylines of fewer than 2 points, or of points beyond the "
            f"{len(arrays['points'])} of the file; wanted 2 or more of these. Write it anew."
        )
    return [line.tolist() for line in np.split(connectivity, offsets[1:-1])]


def _attributes(
    path: Path, kind: str, arrays: Arrays, length: int, radius: str | None
) -> list[dict[str, Any]]:
    """Return what the arrays of the points, or cells, set on each, that of the radii last."""
    rows: list[dict[str, Any]] = [{} for _ in range(length)]
    names = enumerate(arrays[f"{kind}_names"].tolist())
    for index, name in sorted(names, key=lambda item: item[1] == radius):
        values = arrays[f"{kind}_{index}"]
        if len(values) != length or np.isinf(values).any():
            raise NetworkFileError(
                f"{path}: got {len(values)} values {name!r} for {length} {kind}s, "
                f"{np.isinf(values).sum()} of them infinite; wanted a finite one for each. Write "
                "it anew."
            )
        for row, value in zip(rows, values.tolist(), strict=True):
            if not math.isnan(value):
                row["radius" if name == radius else name] = value
    return rows

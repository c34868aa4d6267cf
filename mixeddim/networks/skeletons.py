"""Skeletons of images as networks: centre lines become nodes, parallel vessels and loops stay.

Tools that thin an image, such as `sknw`, write a `networkx.Graph` or `MultiGraph` whose edges hold
their centre lines as arrays of voxels. A network has straight edges, and one at most between two
nodes; with the points of the centre lines as nodes of degree 2 nothing has to be left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from itertools import pairwise
from numbers import Integral
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixeddim.networks.graphs import NetworkError

__all__ = ["from_skeleton"]

type Floats = NDArray[np.float64]


def from_skeleton(
    graph: nx.Graph, *, radius: float | str, axes: str, voxel_size: ArrayLike = 1.0
) -> nx.Graph:
    """Convert the graph of an image's skeleton, with centre lines on its edges, to a network.

    Centre lines on voxels are staircases, longer than the vessel: `resolve_chains` with a tolerance
    of about a voxel straightens them.

    Args:
        graph: A `networkx.Graph` or `MultiGraph`. Each node has its point as `o`, or the mean of
            `pts`, or as `pos`; each edge may have the points of its centre line as `pts`, shape
            `(N, 3)`, from either end to the other. Without them the vessel is straight. All are
            counted in voxels, the coordinates in the order of `axes`.
        radius: The radius of all vessels, or the name of the edge attribute that holds it: a
            number, or one for each of `pts`, shape `(N,)`, of which a piece gets the mean of its
            ends.
            Radii are lengths in the unit of `voxel_size` already; they are not multiplied by it.
        axes: Which axis each coordinate is, such as "zyx" for an image indexed `image[z, y, x]`.
        voxel_size: Edge of a voxel, or three in the order of `axes`; `pos` is in this unit.

    Returns:
        A graph with `pos = (x, y, z)` and `inlet`, False where there is none, on the nodes, and
        `radius` on the edges; no other attribute. Nodes keep their labels, points of centre lines
        are numbered from the first integer above these. A self loop becomes a ring of three nodes
        or more; of parallel vessels without centre lines all but one get a node in between.

    Raises:
        NetworkError: if the graph is directed, has no edge, or a point or radius is missing or
            senseless; the message names the node or edge.
        ValueError: if `axes` or `voxel_size` is out of range.

    Example:
        With the distance from the wall as radius, of an image whose voxels are 2 x 1 x 1 µm::

            distance = scipy.ndimage.distance_transform_edt(image, sampling=(2, 1, 1))
            skeleton = sknw.build_sknw(skeletonize(image), multi=True)
            for *_, edge in skeleton.edges(data=True):
                edge["radius"] = distance[tuple(edge["pts"].T)]
            graph = md.from_skeleton(skeleton, radius="radius", axes="zyx", voxel_size=(2, 1, 1))
    """
    _check_kind(graph)
    size = _check_scale(axes, voxel_size)
    order = [axes.index(axis) for axis in "xyz"]
    network = nx.Graph()
    for node, attributes in graph.nodes(data=True):
        pos = (_node_point(node, attributes) * size)[order]
        inlet = attributes.get("inlet", False)
        network.add_node(node, pos=tuple(pos.tolist()), inlet=inlet)
    labels = [int(node) for node in graph if isinstance(node, Integral)]
    first = max(labels, default=-1) + 1
    twins: Counter[frozenset[Hashable]] = Counter()
    for name, u, v, attributes in _edges(graph):
        points = _points(attributes.get("pts", ()), f"edge {name!r} has pts")
        radii = _radii(attributes, radius, len(points), name)
        start, end = (np.array(network.nodes[node]["pos"]) for node in (u, v))
        path, pieces = _path(start, end, (points * size)[:, order], radii)
        if u == v and len(path) < 4:
            raise NetworkError(
                f"edge {name!r} is a self loop with {len(path) - 2} points of pts apart from its "
                "node; wanted two at least, which make a ring. Call "
                f"graph.remove_edge{name!r}."
            )
        if len(path) == 2 and network.has_edge(u, v):  # straight like its twin: a node tells them
            twins[frozenset((u, v))] += 1
            part = twins[frozenset((u, v))] / (twins[frozenset((u, v))] + 1)
            path = np.insert(path, 1, (1.0 - part) * path[0] + part * path[1], axis=0)
            pieces = pieces.repeat(2)
        inner = range(first, first + len(path) - 2)
        first = inner.stop
        for node, pos in zip(inner, path[1:-1].tolist(), strict=True):
            network.add_node(node, pos=tuple(pos), inlet=False)
        for (a, b), value in zip(pairwise([u, *inner, v]), pieces.tolist(), strict=True):
            network.add_edge(a, b, radius=value)
    return network


def _path(start: Floats, end: Floats, points: Floats, radii: Floats) -> tuple[Floats, Floats]:
    """Return the points from start to end without repeated ones, and the radius of each piece."""
    if len(points):
        distance = np.linalg.norm
        forth = distance(points[0] - start) + distance(points[-1] - end)
        back = distance(points[-1] - start) + distance(points[0] - end)
        if back < forth:
            points, radii = points[::-1], radii[::-1]
    path = np.vstack([start, points, end])
    at_points = np.concatenate([radii[:1], radii, radii[-1:]]) if len(points) else radii.repeat(2)
    kept = np.ones(len(path), dtype=bool)
    kept[1:-1] = (path[1:-1] != path[:-2]).any(axis=1)
    if len(points) and np.array_equal(path[:-1][kept[:-1]][-1], end):
        kept[np.flatnonzero(kept)[-2]] = kept.sum() == 2  # what the end repeats, but not the start
    path, at_points = path[kept], at_points[kept]
    return path, 0.5 * (at_points[1:] + at_points[:-1])


def _edges(graph: nx.Graph) -> Iterator[tuple[tuple[Any, ...], Any, Any, Mapping[str, Any]]]:
    """Yield of each edge its name, ends, and attributes."""
    if graph.is_multigraph():
        for u, v, key, attributes in graph.edges(keys=True, data=True):
            yield (u, v, key), u, v, attributes
    else:
        for u, v, attributes in graph.edges(data=True):
            yield (u, v), u, v, attributes


def _node_point(node: object, attributes: Mapping[str, Any]) -> Floats:
    for name in ("o", "pts", "pos"):
        if name in attributes:
            points = _points(attributes[name], f"node {node!r} has {name}")
            if len(points):
                return np.asarray(points.mean(axis=0))
    raise NetworkError(
        f"node {node!r} has neither o, pts nor pos; wanted its point. Set "
        f"graph.nodes[{node!r}]['pos'], in voxels and in the order of axes."
    )


def _points(value: ArrayLike, what: str) -> Floats:
    """Return points as an array, shape `(N, 3)`; one point alone counts as one row."""
    try:
        points = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.full((1, 1), np.nan)
    if points.size == 0:
        return np.empty((0, 3))
    points = np.atleast_2d(points)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise NetworkError(
            f"{what} of shape {np.shape(value)}; wanted points of three finite numbers, shape "
            "(N, 3). Give an image in a plane a third axis: points = np.insert(points, 0, 0, "
            "axis=-1)."
        )
    return points


def _radii(
    attributes: Mapping[str, Any], radius: float | str, num_points: int, name: tuple[Any, ...]
) -> Floats:
    """Return the radius at each point of a centre line, or one if it has no point."""
    value: Any = attributes.get(radius) if isinstance(radius, str) else radius
    try:
        radii = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        radii = np.array(np.nan)
    fits = radii.shape in ((), (num_points,)) and radii.size > 0
    if not fits or not np.all((radii > 0.0) & (radii < np.inf)):
        got = repr(value) if np.size(value) <= 3 else f"an array of shape {np.shape(value)}"
        raise NetworkError(
            f"edge {name!r} has radius {got}; wanted a finite positive number, or one for each of "
            f"its {num_points} pts. Pass radius=, or the name of the edge attribute that holds it."
        )
    return np.broadcast_to(radii, max(num_points, 1))


def _check_kind(graph: nx.Graph) -> None:
    if not isinstance(graph, nx.Graph) or graph.is_directed():
        raise NetworkError(
            f"got a {type(graph).__name__}; wanted an undirected networkx.Graph or MultiGraph. "
            "Call it with the graph that sknw.build_sknw(skeleton, multi=True) returns."
        )
    if graph.number_of_edges() == 0:
        raise NetworkError(
            f"got a skeleton of {graph.number_of_nodes()} nodes and no edge; wanted one at least. "
            "Check the image."
        )


def _check_scale(axes: str, voxel_size: ArrayLike) -> Floats:
    if not isinstance(axes, str) or sorted(axes) != ["x", "y", "z"]:
        raise ValueError(
            f"got axes={axes!r}; wanted x, y and z in the order of the coordinates. Pass 'zyx' for "
            "an image indexed image[z, y, x]; give one in a plane a third axis, image[None]."
        )
    size = np.asarray(voxel_size, dtype=np.float64)
    if size.shape not in ((), (3,)) or not np.all((size > 0.0) & (size < np.inf)):
        raise ValueError(
            f"got voxel_size={voxel_size!r}; wanted a finite positive length, or three in the "
            f"order of axes={axes!r}. Pass the spacing of the image."
        )
    return size

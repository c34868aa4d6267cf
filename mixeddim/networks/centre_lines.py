"""Centre lines drawn from each inlet to each outlet, as VMTK writes them: each trunk once.

Such lines repeat the trunks that they share, point by point or nearly so. The longest line is
kept first. Of each later line only those parts are kept that lie apart from everything kept before;
they join it where they come near.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from numbers import Integral
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from mixeddim.networks.cleaning import (
    Chain,
    Cleaning,
    chains_of,
    check_network,
    components,
    directed,
    report_step,
)
from mixeddim.networks.graphs import (
    COINCIDENCE,
    edge_indices,
    edge_radii,
    inlet_mask,
    node_positions,
)

__all__ = ["merge_repeated_lines"]

type Floats = NDArray[np.float64]


def merge_repeated_lines(graph: nx.Graph, within: float = 0.1) -> Cleaning:
    """Keep one of vessels that are drawn several times over, as by centre lines of VMTK.

    A line is what runs between ends, junctions and inlets; `read_vtk` makes one of each polyline
    with points of its own. The longest is kept as it is. Where a later one lies within the
    tolerance of those kept, it is the same vessel and is left out; where it leaves them it joins
    them, at a node that is put there if none is near. Vessels farther apart stay apart. The cost
    grows as the number of lines times that of edges: this is for centre lines, not for the
    thousands of vessels of a capillary bed.

    Args:
        graph: A network.
        within: The tolerance, in units of the lesser of both radii. With 0 only exact copies are
            the same, whose points may still differ along the same straight edges. A bifurcation
            moves by about the tolerance, along the trunk by more, the sharper its angle.

    Returns:
        The network; the report says how many pieces were the same. Of copies, radius and other
        attributes of the first stay; a node where one of them has an inlet becomes one.

    Raises:
        NetworkError: if a node has no valid `pos`, or an edge no valid `radius`.
        ValueError: if the graph has no edge, is directed or a multigraph, or the tolerance is
            negative or as wide as a vessel.
    """
    check_network(graph)
    if not 0.0 <= within < 1.0:
        raise ValueError(
            f"got within={within!r}; wanted at least 0 and less than 1. Pass the part of the "
            "radius by which copies of a line may differ."
        )
    edge_radii(graph)
    points = dict(zip(graph, node_positions(graph), strict=True))
    inlets = {node for node, inlet in zip(graph, inlet_mask(graph), strict=True) if inlet}
    extent = float(np.ptp(node_positions(graph), axis=0).max())
    trunks = _Trunks(graph, within, COINCIDENCE * extent)
    ordinals = {node: number for number, node in enumerate(graph)}
    lines = [_sample(graph, points, ordinals, chain) for chain in chains_of(graph)]
    repeated = sum(trunks.add(line, inlets) for line in sorted(lines, key=lambda x: -x.length))
    trunks.network.add_nodes_from((node, graph.nodes[node]) for node in nx.isolates(graph))
    step = f"{repeated} repeated pieces within {within:.3g} radii merged"
    return report_step(step, graph, trunks.network)


@dataclass(frozen=True, eq=False)
class _Line:
    """Points along a line: its nodes, and one at least between two, half a radius apart at most.

    Attributes:
        nodes: Of each point the node, or None between two, length `num_points`.
        points: Positions, shape `(num_points, 3)`.
        edges: What the edge of each step carries, its flow along the line, length `num_points - 1`.
    """

    nodes: list[Hashable | None]
    points: Floats
    edges: list[dict[str, Any]]

    @cached_property
    def arc(self) -> Floats:
        """The length from the first point to each, shape `(num_points,)`."""
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        return np.concatenate([[0.0], steps.cumsum()])

    @property
    def length(self) -> float:
        return float(self.arc[-1])

    @cached_property
    def radii(self) -> Floats:
        """The lesser radius of the steps at each point, shape `(num_points,)`."""
        radii = np.array([edge["radius"] for edge in self.edges], dtype=float)
        return np.minimum(np.r_[radii[0], radii], np.r_[radii, radii[-1]])


def _sample(
    graph: nx.Graph,
    position: Mapping[Hashable, Floats],
    ordinals: Mapping[Hashable, int],
    chain: Chain,
) -> _Line:
    nodes: list[Hashable | None] = [chain[0]]
    points, edges = [position[chain[0]][None]], []
    for u, v in pairwise(chain):
        edge = directed(graph.edges[u, v], ordinals[u] < ordinals[v])
        length = float(np.linalg.norm(position[v] - position[u]))
        steps = min(1000, max(2, math.ceil(2.0 * length / edge["radius"])))
        part = np.arange(1, steps + 1)[:, None] / steps
        points.append((1.0 - part) * position[u] + part * position[v])
        nodes += [*[None] * (steps - 1), v]
        edges += [edge] * steps
    return _Line(nodes, np.vstack(points), edges)


@dataclass(frozen=True, eq=False)
class _Footprint:
    """Where the points of a line lie with regard to what is kept; arrays over the points.

    Attributes:
        is_inside: Whether within the tolerance of a kept edge.
        edge: The nearest kept edge, of those that may be within it.
        part: Where on that edge, from 0 to 1.
        component: The connected component of that edge.
    """

    is_inside: NDArray[np.bool_]
    edge: NDArray[np.int64]
    part: Floats
    component: NDArray[np.int64]


class _Trunks:
    """The lines that have been kept so far."""

    def __init__(self, graph: nx.Graph, within: float, rounding: float) -> None:
        self.graph, self.within, self.rounding = graph, within, rounding
        self.network = nx.Graph()
        self._order: dict[Hashable, int] = {}
        labels = [int(node) for node in graph if isinstance(node, Integral)]
        self._label = max(labels, default=-1) + 1
        self._edges: list[tuple[Hashable, Hashable]] = []
        self._nodes_on: dict[int, list[tuple[float, Hashable]]] = {}

    def add(self, line: _Line, inlets: set[Hashable]) -> int:
        """Keep what of a line is new; return how many pieces of it are not."""
        footprint = self._footprint(line)
        self._edges, self._nodes_on = list(self.network.edges), {}
        inside, last = footprint.is_inside, len(line.points) - 1
        borders = np.flatnonzero(np.diff(inside)) + 1
        repeated = 0
        for run in np.split(np.arange(last + 1), borders):
            first, end = int(run[0]), int(run[-1])
            if inside[first]:
                links = np.flatnonzero(np.diff(footprint.component[run]))
                for step in (first + links).tolist():  # what joins two parts that are kept
                    self._keep(line, footprint, step, step + 1)
                repeated += bool(line.arc[end] - line.arc[first] > line.radii[run].mean())
            else:
                self._keep(line, footprint, max(first - 1, 0), min(end + 1, last))
        for point, node in enumerate(line.nodes):
            if inside[point] and node in inlets:
                self.network.nodes[self._node(line, footprint, point)]["inlet"] = True
        return repeated

    def _keep(self, line: _Line, footprint: _Footprint, first: int, last: int) -> None:
        """Keep a line from one of its points to another, each where it lies or where it joins."""
        between = [i for i in range(first + 1, last) if line.nodes[i] is not None]
        stops = [(i, self._node(line, footprint, i)) for i in (first, *between, last)]
        for (point, u), (_, v) in pairwise(stops):
            if u != v and not self.network.has_edge(u, v):
                self._add_edge(u, v, line.edges[point])

    def _node(self, line: _Line, footprint: _Footprint, point: int) -> Hashable:
        """Return the node that stands for a point; one that lies inside is put on its edge."""
        node = line.nodes[point]
        if not footprint.is_inside[point]:
            self._add_node(node, self.graph.nodes[node])
            return node
        if node in self.network:
            return node
        number, part = int(footprint.edge[point]), float(footprint.part[point])
        u, v = self._edges[number]
        start, end = (np.array(self.network.nodes[n]["pos"], dtype=float) for n in (u, v))
        length = float(np.linalg.norm(end - start))
        on_edge = self._nodes_on.setdefault(number, [(0.0, u), (1.0, v)])
        nearest = min(on_edge, key=lambda item: abs(item[0] - part))
        snap = max(self.within * line.radii[point], self.rounding)
        if abs(nearest[0] - part) * length <= snap:
            return nearest[1]
        index = bisect(on_edge, part, key=lambda item: item[0])
        (_, before), (_, after) = on_edge[index - 1 : index + 1]
        new, self._label = self._label, self._label + 1
        pos = tuple(((1.0 - part) * start + part * end).tolist())
        self._add_node(new, {"pos": pos, "inlet": False})
        edge = directed(self.network.edges[before, after], self._order[before] < self._order[after])
        self.network.remove_edge(before, after)
        self._add_edge(before, new, edge)
        self._add_edge(new, after, edge)
        on_edge.insert(index, (part, new))
        return new

    def _add_node(self, node: Hashable, attributes: Mapping[str, Any]) -> None:
        if node not in self._order:
            self._order[node] = len(self._order)
            self.network.add_nodes_from([(node, attributes)])

    def _add_edge(self, u: Hashable, v: Hashable, along: Mapping[str, Any]) -> None:
        attributes = directed(along, self._order[u] < self._order[v])
        self.network.add_edges_from([(u, v, attributes)])

    def _footprint(self, line: _Line) -> _Footprint:
        size = len(line.points)
        edge, part = np.zeros(size, dtype=np.int64), np.zeros(size)
        distance = np.full(size, np.inf)
        if self.network.number_of_edges() == 0:
            return _Footprint(np.isfinite(distance), edge, part, edge)
        ends = edge_indices(self.network)
        start, stop = node_positions(self.network)[ends].swapaxes(0, 1)
        along, kept_radii = stop - start, edge_radii(self.network)
        reach = 0.5 * float(np.linalg.norm(along, axis=1).max())
        tolerance = np.maximum(self.within * line.radii, self.rounding)
        near = KDTree(0.5 * (start + stop)).query_ball_point(
            line.points, (1.0 + 1e-9) * (reach + tolerance)
        )
        point = np.repeat(np.arange(size), [len(row) for row in near])
        candidate = np.fromiter((number for row in near for number in row), np.int64)
        offset = line.points[point] - start[candidate]
        square = np.maximum((along**2).sum(axis=1), np.finfo(float).tiny)[candidate]
        t = np.clip((offset * along[candidate]).sum(axis=1) / square, 0.0, 1.0)
        apart = np.linalg.norm(offset - t[:, None] * along[candidate], axis=1)
        order = np.lexsort((apart, point))
        found, first = np.unique(point[order], return_index=True)
        best = order[first]
        edge[found], part[found], distance[found] = candidate[best], t[best], apart[best]
        lesser = np.minimum(line.radii, kept_radii[edge])
        is_inside = distance <= np.maximum(self.within * lesser, self.rounding)
        component = components(self.network, *ends.T)[ends[edge, 0]]
        return _Footprint(is_inside, edge, part, component.astype(np.int64))

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
    directed,
    report_step,
)
from mixeddim.networks.graphs import (
    COINCIDENCE,
    edge_indices,
    edge_lengths,
    edge_radii,
    inlet_mask,
    node_positions,
)
from mixeddim.networks.proximity import Proximity, point_distances

__all__ = ["merge_repeated_lines"]

type Floats = NDArray[np.float64]
type Ordinals = NDArray[np.int64]
type Pair = tuple[Hashable, Hashable]  # of nodes, the first that was kept first


def merge_repeated_lines(graph: nx.Graph, within: float = 0.1) -> Cleaning:
    """Keep one of vessels that are drawn several times over, as by centre lines of VMTK.

    A line is what runs between ends, junctions and inlets; `read_vtk` makes one of each polyline
    with points of its own. The longest is kept as it is. Where a later one lies within the
    tolerance of those kept, it is the same vessel and is left out; where it leaves them it joins
    them, at a node that is put there if none is near. Vessels farther apart stay apart.

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
    inlets = {node for node, inlet in zip(graph, inlet_mask(graph), strict=True) if inlet}
    trunks = _Trunks(graph, within)
    repeated = trunks.add_all(inlets)
    trunks.network.add_nodes_from((node, graph.nodes[node]) for node in nx.isolates(graph))
    step = f"{repeated} repeated pieces within {within:.3g} radii merged"
    return report_step(step, graph, trunks.network)


@dataclass(frozen=True, eq=False)
class _Line:
    """A vessel between ends, junctions and inlets.

    Attributes:
        nodes: Its nodes, length `num_edges + 1`.
        edges: Of each of its edges the number in the order of `graph.edges`, shape `(num_edges,)`.
        forward: Which edges run as `graph.edges` has them, shape `(num_edges,)`.
        length: Its length.
    """

    nodes: Chain
    edges: Ordinals
    forward: NDArray[np.bool_]
    length: float


def _lines(graph: nx.Graph, ends: Ordinals) -> list[_Line]:
    """Return the lines of a network with edges of these ends, shape `(num_edges, 2)`."""
    chains, lengths = list(chains_of(graph)), edge_lengths(graph)
    ordinals = {node: number for number, node in enumerate(graph)}
    nodes = np.fromiter((ordinals[node] for chain in chains for node in chain), np.int64)
    base = np.array([len(ordinals), 1])
    names, steps = ends @ base, np.stack([nodes[:-1], nodes[1:]], axis=1)
    by_name = np.argsort(names)
    found = np.searchsorted(names, np.sort(steps, axis=1) @ base, sorter=by_name)
    numbers = by_name[np.minimum(found, len(names) - 1)]  # senseless from one chain to the next
    forward = steps[:, 0] < steps[:, 1]
    lines, first = [], 0
    for chain in chains:
        along = slice(first, first + len(chain) - 1)
        length = math.fsum(lengths[numbers[along]].tolist())
        lines.append(_Line(chain, numbers[along], forward[along], length))
        first += len(chain)
    return lines


@dataclass(frozen=True, eq=False)
class _Points:
    """Points along a line: its nodes, and one at least between two, half a radius apart at most.

    Attributes:
        nodes: Of each point the node, or None between two, length `num_points`.
        positions: Shape `(num_points, 3)`.
        edges: Of each step its edge, counted along the line, shape `(num_points - 1,)`.
        radii: The lesser radius of the steps at each point, shape `(num_points,)`.
    """

    nodes: list[Hashable | None]
    positions: Floats
    edges: Ordinals
    radii: Floats

    @cached_property
    def arc(self) -> Floats:
        """The length from the first point to each, shape `(num_points,)`."""
        steps = np.linalg.norm(np.diff(self.positions, axis=0), axis=1)
        return np.concatenate([[0.0], steps.cumsum()])


@dataclass(frozen=True, eq=False)
class _Footprint:
    """Where the points of a line lie with regard to what is kept; arrays over the points.

    Attributes:
        is_inside: Whether within the tolerance of a kept edge.
        edge: The nearest kept edge, of those that may be within it.
        part: Where on that edge, from 0 to 1.
        component: The connected component of that edge, of points inside.
    """

    is_inside: NDArray[np.bool_]
    edge: Ordinals
    part: Floats
    component: Ordinals


class _Trunks:
    """The lines that have been kept so far.

    A kept edge is an edge of the graph, or a part of one, whose ends may have been moved by twice
    the tolerance to where it joins others. So what is within the tolerance of it is within three
    tolerances of that edge of the graph, which a search over the graph finds.
    """

    def __init__(self, graph: nx.Graph, within: float) -> None:
        self.graph, self.within, self.network = graph, within, nx.Graph()
        self._positions, self._radii = node_positions(graph), edge_radii(graph)
        self._ordinals = {node: number for number, node in enumerate(graph)}
        self._ends = edge_indices(graph)
        self._attributes = [attributes for *_, attributes in graph.edges(data=True)]
        start, stop = self._positions[self._ends].swapaxes(0, 1)
        lengths = np.linalg.norm(stop - start, axis=1)
        steps = np.clip(np.ceil(2.0 * lengths / self._radii), 2, 1000)
        self._steps = steps.astype(np.int64)
        self._rounding = COINCIDENCE * float(np.ptp(self._positions, axis=0).max())
        reach = 3.001 * np.maximum(within * self._radii, self._rounding)
        self._proximity = Proximity(start, stop, reach)

        labels = [int(node) for node in graph if isinstance(node, Integral)]
        self._label = max(labels, default=-1) + 1
        self._order: dict[Hashable, int] = {}  # of the nodes that are kept
        self._parts = nx.utils.UnionFind()  # the connected components
        # Of each edge of the graph what is kept of it, in the order in which it was added.
        self._kept: dict[int, dict[Pair, int]] = {}
        self._num_kept = 0
        self._edges: list[tuple[Pair, int]] = []  # near the line at hand, each with its edge
        self._nodes_on: dict[int, list[tuple[float, Hashable]]] = {}

    def add_all(self, inlets: set[Hashable]) -> int:
        """Keep what is new of all lines, the longest first; return how many pieces are not."""
        lines = sorted(_lines(self.graph, self._ends), key=lambda line: -line.length)
        repeated = start = 0
        while start < len(lines):
            # The search is set up anew for so many edges that this costs little.
            room, stop = max(1000, self._num_kept // 4), start
            while stop < len(lines) and room > 0:
                room -= len(lines[stop].edges)
                stop += 1
            for line, near in zip(lines[start:stop], self._near(lines[start:stop]), strict=True):
                if near is None:
                    self._keep_all(line)
                else:
                    repeated += self._keep_new(line, near, inlets)
            start = stop
        return repeated

    def _near(self, lines: list[_Line]) -> list[Ordinals | None]:
        """Return of each line the edges that are near, or None if it but meets them at its ends."""
        num_edges = len(self._ends)
        owner = np.full(num_edges, -1)
        for number, line in enumerate(lines):
            owner[line.edges] = number
        others = owner >= 0
        others[list(self._kept)] = True
        edge, other = self._proximity.pairs(owner >= 0, others)
        apart = owner[edge] != owner[other]
        edge, other = edge[apart], other[apart]
        is_near = np.ones(len(edge), dtype=bool)
        for column in (0, 1):  # where they have a node in common, the next point of the line tells
            node, far = self._ends[edge, column], self._ends[edge, 1 - column]
            part = 1.0 / self._steps[edge, None]
            point = (1.0 - part) * self._positions[node] + part * self._positions[far]
            distance, _ = point_distances(
                point, self._proximity.start[other], self._proximity.stop[other]
            )
            meet = (self._ends[other] == node[:, None]).any(axis=1)
            is_near &= ~meet | (distance <= self._proximity.reach[other])
        is_apart = np.bincount(owner[edge], weights=is_near, minlength=len(lines)) == 0
        order = np.argsort(owner[edge], kind="stable")
        first = np.searchsorted(owner[edge][order], np.arange(1, len(lines)))
        found = np.split(other[order], first)
        return [None if alone else near for alone, near in zip(is_apart, found, strict=True)]

    def _keep_all(self, line: _Line) -> None:
        """Keep a line that has at most its ends in common with others."""
        for node in line.nodes:
            self._add_node(node, self.graph.nodes[node])
        for number, (u, v) in enumerate(pairwise(line.nodes)):
            if not self.network.has_edge(u, v):
                self._add_edge(u, v, line, number)

    def _keep_new(self, line: _Line, near: Ordinals, inlets: set[Hashable]) -> int:
        """Keep what of a line is new; return how many pieces of it are not.

        Args:
            line: The line.
            near: The edges of the graph that are near it, with repetitions.
            inlets: The inlets of the graph.
        """
        points = self._sample(line)
        footprint = self._footprint(points, near)
        inside, last = footprint.is_inside, len(points.nodes) - 1
        borders = np.flatnonzero(np.diff(inside)) + 1
        repeated = 0
        for run in np.split(np.arange(last + 1), borders):
            first, end = int(run[0]), int(run[-1])
            if inside[first]:
                links = np.flatnonzero(np.diff(footprint.component[run]))
                for step in (first + links).tolist():  # what joins two parts that are kept
                    self._keep(line, points, footprint, step, step + 1)
                length = points.arc[end] - points.arc[first]
                repeated += bool(length > points.radii[run].mean())
            else:
                self._keep(line, points, footprint, max(first - 1, 0), min(end + 1, last))
        for point, node in enumerate(points.nodes):
            if inside[point] and node in inlets:
                self.network.nodes[self._node(points, footprint, point)]["inlet"] = True
        return repeated

    def _keep(
        self, line: _Line, points: _Points, footprint: _Footprint, first: int, last: int
    ) -> None:
        """Keep a line from one of its points to another, each where it lies or where it joins."""
        between = [i for i in range(first + 1, last) if points.nodes[i] is not None]
        stops = [(i, self._node(points, footprint, i)) for i in (first, *between, last)]
        for (point, u), (_, v) in pairwise(stops):
            if u != v and not self.network.has_edge(u, v):
                self._add_edge(u, v, line, int(points.edges[point]))

    def _node(self, points: _Points, footprint: _Footprint, point: int) -> Hashable:
        """Return the node that stands for a point; one that lies inside is put on its edge."""
        node = points.nodes[point]
        if not footprint.is_inside[point]:
            self._add_node(node, self.graph.nodes[node])
            return node
        if node in self.network:
            return node
        number, part = int(footprint.edge[point]), float(footprint.part[point])
        (u, v), edge = self._edges[number]
        start, end = (np.array(self.network.nodes[n]["pos"], dtype=float) for n in (u, v))
        length = float(np.linalg.norm(end - start))
        on_edge = self._nodes_on.setdefault(number, [(0.0, u), (1.0, v)])
        nearest = min(on_edge, key=lambda item: abs(item[0] - part))
        snap = max(self.within * points.radii[point], self._rounding)
        if abs(nearest[0] - part) * length <= snap:
            return nearest[1]
        index = bisect(on_edge, part, key=lambda item: item[0])
        (_, before), (_, after) = on_edge[index - 1 : index + 1]
        new, self._label = self._label, self._label + 1
        pos = tuple(((1.0 - part) * start + part * end).tolist())
        self._add_node(new, {"pos": pos, "inlet": False})
        self._split(before, new, after, edge)
        on_edge.insert(index, (part, new))
        return new

    def _split(self, before: Hashable, new: Hashable, after: Hashable, edge: int) -> None:
        """Put a node on what is kept of an edge of the graph."""
        attributes = self.network.edges[before, after]
        along = directed(attributes, self._order[before] < self._order[after])
        self.network.remove_edge(before, after)
        del self._kept[edge][self._pair(before, after)]
        self._insert(before, new, along, edge)
        self._insert(new, after, along, edge)

    def _add_node(self, node: Hashable, attributes: Mapping[str, Any]) -> None:
        if node not in self._order:
            self._order[node] = len(self._order)
            self.network.add_nodes_from([(node, attributes)])

    def _add_edge(self, u: Hashable, v: Hashable, line: _Line, number: int) -> None:
        """Add what is kept of an edge of a line, counted along it."""
        edge = int(line.edges[number])
        along = directed(self._attributes[edge], bool(line.forward[number]))
        self._insert(u, v, along, edge)

    def _insert(self, u: Hashable, v: Hashable, along: Mapping[str, Any], edge: int) -> None:
        attributes = directed(along, self._order[u] < self._order[v])
        self.network.add_edges_from([(u, v, attributes)])
        self._kept.setdefault(edge, {})[self._pair(u, v)] = self._num_kept
        self._num_kept += 1
        self._parts.union(u, v)

    def _pair(self, u: Hashable, v: Hashable) -> Pair:
        return (u, v) if self._order[u] < self._order[v] else (v, u)

    def _sample(self, line: _Line) -> _Points:
        counts = self._steps[line.edges]
        edges, ends = np.repeat(np.arange(len(counts)), counts), np.cumsum(counts)
        part = (np.arange(1, len(edges) + 1) - (ends - counts)[edges]) / counts[edges]
        corners = self._positions[[self._ordinals[node] for node in line.nodes]]
        inner = (1.0 - part)[:, None] * corners[edges] + part[:, None] * corners[edges + 1]
        nodes: list[Hashable | None] = [line.nodes[0], *[None] * len(edges)]
        for point, node in zip(ends.tolist(), line.nodes[1:], strict=True):
            nodes[point] = node
        radii = self._radii[line.edges[edges]]
        lesser = np.minimum(np.r_[radii[0], radii], np.r_[radii, radii[-1]])
        return _Points(nodes, np.vstack([corners[:1], inner]), edges, lesser)

    def _footprint(self, points: _Points, near: Ordinals) -> _Footprint:
        """Find where the points of a line lie with regard to what is kept of the edges near it."""
        kept = [
            (self._order[pair[0]], number, pair, edge)
            for edge in np.unique(near).tolist()
            for pair, number in self._kept.get(edge, {}).items()
        ]
        self._edges = [(pair, edge) for *_, pair, edge in sorted(kept)]  # as in network.edges
        self._nodes_on = {}
        size = len(points.nodes)
        edge, part = np.zeros(size, dtype=np.int64), np.zeros(size)
        distance, component = np.full(size, np.inf), np.zeros(size, dtype=np.int64)
        if not self._edges:
            return _Footprint(np.isfinite(distance), edge, part, component)
        pairs = [pair for pair, _ in self._edges]
        start, stop = np.array(
            [[self.network.nodes[node]["pos"] for node in pair] for pair in pairs], dtype=float
        ).swapaxes(0, 1)
        kept_radii = np.array([self.network.edges[pair]["radius"] for pair in pairs], dtype=float)
        reach = 0.5 * float(np.linalg.norm(stop - start, axis=1).max())
        tolerance = np.maximum(self.within * points.radii, self._rounding)
        around = KDTree(0.5 * (start + stop)).query_ball_point(
            points.positions, (1.0 + 1e-9) * (reach + tolerance)
        )
        point = np.repeat(np.arange(size), [len(row) for row in around])
        candidate = np.fromiter((number for row in around for number in row), np.int64)
        apart, t = point_distances(points.positions[point], start[candidate], stop[candidate])
        order = np.lexsort((apart, point))
        found, first = np.unique(point[order], return_index=True)
        best = order[first]
        edge[found], part[found], distance[found] = candidate[best], t[best], apart[best]
        lesser = np.minimum(points.radii, kept_radii[edge])
        is_inside = distance <= np.maximum(self.within * lesser, self._rounding)
        numbers: dict[Hashable, int] = {}
        for row in np.flatnonzero(is_inside).tolist():
            root = self._parts[pairs[edge[row]][0]]
            component[row] = numbers.setdefault(root, len(numbers))
        return _Footprint(is_inside, edge, part, component)

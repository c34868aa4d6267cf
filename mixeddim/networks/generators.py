"""Random vascular networks, the same for the same seed on every machine.

Each method turns a cloud of scattered points into a graph that keeps the contract of `graphs`:

- `"spanning_tree"`: the minimum spanning tree of the points, with a few loops closed;
- `"murray_tree"`: a tree that fills the box from one inlet, its radii falling by Murray's law;
- `"capillary_mesh"`: the relative neighbourhood graph of the points, cut to a mean degree of 3.

Every method has the signature `(num_nodes, radius, lower, upper, rng) -> graph`, where `lower`
and `upper` are the corners that the nodes may reach; `METHODS` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Final

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import Delaunay, KDTree

__all__ = ["METHODS", "random_vascular_graph"]

type FloatArray = NDArray[np.float64]
type IntArray = NDArray[np.int64]
type Method = Callable[[int, float, FloatArray, FloatArray, np.random.Generator], nx.Graph]

# Least distance of two scattered points, in units of (volume / number of points)^(1/3). Random
# sequential addition jams at 0.9; up to 0.7 most draws are accepted.
SEPARATION = 0.7
# The circles around a node of the outermost layer keep this part of a radius from the face.
CLEARANCE = 0.2
# How far a branch may grow towards the centre of the region it feeds; Tawhai et al. take 0.4.
BRANCHING_FRACTIONS = np.linspace(0.4, 0.7, 7)
# Of the distance of two points a third one is nearer; leaves the two out, whatever the rounding.
INSIDE = 1.0 - 1e-9


def random_vascular_graph(
    num_nodes: int,
    radius: float,
    seed: int,
    method: str = "spanning_tree",
    *,
    lower: Sequence[float] = (0.0, 0.0, 0.0),
    upper: Sequence[float] = (1.0, 1.0, 1.0),
    margin: float | None = None,
) -> nx.Graph:
    """Generate a random connected vascular network with exactly `num_nodes` nodes in a box.

    Args:
        num_nodes: Number of nodes, at least 2; they are labelled 0, 1, 2, ...
        radius: Radius of every edge; for `"murray_tree"` that of the edge at the inlet.
        seed: Seed of the generator; the same seed gives the same graph on every machine.
        method: `"spanning_tree"`, `"murray_tree"` or `"capillary_mesh"`, as the module says.
        lower: Lower corner of the box, `(3,)`.
        upper: Upper corner of the box, `(3,)`.
        margin: Least distance of a node from the faces. By default 1.2 `radius`, so that every
            circle of radius `radius` around the network stays inside the box.

    Returns:
        A graph with node attributes `pos` and `inlet` and the edge attribute `radius`.

    Raises:
        ValueError: if an argument is out of range, or the box too small for the margin.
    """
    if not isinstance(num_nodes, int | np.integer) or num_nodes < 2:
        raise ValueError(f"got num_nodes={num_nodes!r}; wanted an integer of at least 2.")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"got seed={seed!r}; wanted a non-negative integer.")
    if not 0.0 < radius < np.inf:
        raise ValueError(f"got radius={radius!r}; wanted a finite positive number.")
    if method not in METHODS:
        raise ValueError(f"got method={method!r}; wanted one of {', '.join(sorted(METHODS))}.")
    inner_lower, inner_upper = _shrink_box(
        lower, upper, (1.0 + CLEARANCE) * radius if margin is None else margin
    )
    rng = np.random.Generator(np.random.PCG64(int(seed)))
    return METHODS[method](int(num_nodes), float(radius), inner_lower, inner_upper, rng)


def _shrink_box(
    lower: Sequence[float], upper: Sequence[float], margin: float
) -> tuple[FloatArray, FloatArray]:
    for corner in (lower, upper):
        if np.shape(corner) != (3,) or not np.isfinite(corner).all():
            raise ValueError(f"got a corner of the box at {corner}; wanted three finite numbers.")
    if not 0.0 <= margin < np.inf:
        raise ValueError(f"got margin={margin!r}; wanted a finite non-negative number.")
    sides = np.subtract(upper, lower, dtype=np.float64)
    if sides.min() <= 2.0 * margin:
        raise ValueError(
            f"the box has sides {sides.tolist()}; wanted each longer than twice the margin of "
            f"{margin:.6g}. Enlarge the box, or pass a smaller radius or margin."
        )
    return np.add(lower, margin), np.subtract(upper, margin)


# --- Methods ----------------------------------------------------------------------------------


def spanning_tree(
    num_nodes: int,
    radius: float,
    lower: FloatArray,
    upper: FloatArray,
    rng: np.random.Generator,
) -> nx.Graph:
    """Join scattered points by their minimum spanning tree and close one loop per ten nodes."""
    points = _scatter_points(num_nodes, lower, upper, rng)
    graph = _join(points, _tree_and_loops(points, num_loops=num_nodes // 10), radius)
    return _mark_inlets(graph, points, lower, upper)


def capillary_mesh(
    num_nodes: int,
    radius: float,
    lower: FloatArray,
    upper: FloatArray,
    rng: np.random.Generator,
) -> nx.Graph:
    """Join scattered points by their relative neighbourhood graph, cut to a mean degree of 3."""
    points = _scatter_points(num_nodes, lower, upper, rng)
    graph = _join(points, _tree_and_loops(points, num_loops=num_nodes // 2), radius)
    return _mark_inlets(graph, points, lower, upper)


def murray_tree(
    num_nodes: int,
    radius: float,
    lower: FloatArray,
    upper: FloatArray,
    rng: np.random.Generator,
) -> nx.Graph:
    """Grow a tree from an inlet at the lower z face to scattered end points that fill the box.

    The region that a branch feeds is cut in two across its longest direction, and a branch grows
    to each part: the region-dividing algorithm of Tawhai, Pullan, Hunter, Ann. Biomed. Eng. 28
    (2000) 793. An edge that feeds n of the N end points has the radius R (n / N)^(1/3), so that
    Murray's law r₀³ = r₁³ + r₂³ (Murray, PNAS 12 (1926) 207) holds at every branching. An even
    number of nodes gives a binary tree; an odd one has a node more along the inlet's vessel.
    """
    num_ends = num_nodes // 2
    ends = _scatter_points(num_ends, lower, upper, rng)
    graph = nx.Graph()

    def add_node(position: FloatArray) -> int:
        node: int = graph.number_of_nodes()
        graph.add_node(node, pos=tuple(position.tolist()), inlet=node == 0)
        return node

    def grow(parent: int, region: IntArray) -> None:
        fed = ends[region]
        origin = np.array(graph.nodes[parent]["pos"])
        node = add_node(fed[0] if len(fed) == 1 else _branching_point(origin, fed))
        graph.add_edge(parent, node, radius=radius * float(np.cbrt(len(region) / num_ends)))
        if len(region) > 1:
            across = int(np.argmax(np.ptp(fed, axis=0)))
            cut = int(np.clip(round(len(region) * (0.35 + 0.3 * rng.random())), 1, len(region) - 1))
            ordered = region[np.argsort(fed[:, across])]
            grow(node, ordered[:cut])
            grow(node, ordered[cut:])

    root = np.append(0.5 * (lower + upper)[:2], lower[2])
    trunk = add_node(root)
    if num_nodes % 2 == 1:
        trunk = add_node(root + 0.2 * (ends.mean(axis=0) - root))
        graph.add_edge(0, trunk, radius=radius)
    grow(trunk, np.arange(num_ends))
    return graph


def _branching_point(origin: FloatArray, fed: FloatArray) -> FloatArray:
    """Return where a branch divides, on its way to the centre of the points that it feeds.

    Of the places on the way it is the one farthest from the origin and from the fed points, so
    that vessels are seldom shorter than they are wide.
    """
    places = origin + np.outer(BRANCHING_FRACTIONS, fed.mean(axis=0) - origin)
    distances = np.linalg.norm(places[:, None] - np.vstack([origin, fed]), axis=2)
    farthest: FloatArray = places[np.argmax(distances.min(axis=1))]
    return farthest


METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "capillary_mesh": capillary_mesh,
        "murray_tree": murray_tree,
        "spanning_tree": spanning_tree,
    }
)


# --- Parts of the methods ---------------------------------------------------------------------


def _scatter_points(
    num_points: int, lower: FloatArray, upper: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Draw points in a box one after the other, dropping those too near to an earlier one."""
    separation = SEPARATION * float(np.cbrt(np.prod(upper - lower) / num_points))
    points = np.empty((0, 3))
    while len(points) < num_points:
        draws = lower + (upper - lower) * rng.random((num_points, 3))
        points = np.vstack([points, draws])
        kept = np.ones(len(points), dtype=bool)
        # Pairs come sorted by their first point, so that its own fate is settled before.
        near = KDTree(points).query_pairs(separation, output_type="ndarray")
        for earlier, later in near[np.lexsort(near.T[::-1])].tolist():
            kept[later] &= not kept[earlier]
        points = points[kept]
    return points[:num_points]


def _tree_and_loops(points: FloatArray, num_loops: int) -> IntArray:
    """Return the edges of the minimum spanning tree of points and at most so many that close loops.

    They are the shortest ones of the relative neighbourhood graph, which contains the tree.
    """
    edges = _relative_neighbours(points)
    lengths = np.linalg.norm(points[edges[:, 1]] - points[edges[:, 0]], axis=1)
    weights = coo_array((lengths, tuple(edges.T)), shape=(len(points), len(points)))
    tree = np.stack(minimum_spanning_tree(weights).nonzero(), axis=1)
    names = np.array([len(points), 1])
    chosen = np.isin(edges @ names, tree.astype(np.int64) @ names)
    shortest = np.argsort(np.where(chosen, np.inf, lengths), kind="stable")
    chosen[shortest[:num_loops]] = True
    return edges[chosen]


def _relative_neighbours(points: FloatArray) -> IntArray:
    """Return the sorted edges `(num_edges, 2)` of the relative neighbourhood graph of points.

    Two points are joined where no third one is nearer to both than they are to each other
    (Toussaint, Pattern Recognition 12 (1980) 261). The graph lies between the minimum spanning
    tree and the Delaunay mesh, has no triangles, and its edges meet at 60 degrees or more.
    """
    # Five points are the fewest that span a Delaunay mesh with an interior; below, try all pairs.
    simplices = Delaunay(points).simplices if len(points) > 4 else np.arange(len(points))[None]
    pairs = _pairs_without_third(points, simplices)
    lengths = np.linalg.norm(points[pairs[:, 1]] - points[pairs[:, 0]], axis=1)
    reaches = INSIDE * lengths
    near = KDTree(points).query_ball_point(points[pairs[:, 0]], reaches)
    number = np.arange(len(pairs)).repeat([len(thirds) for thirds in near])
    thirds = np.fromiter(chain.from_iterable(near), np.int64)
    distances = np.linalg.norm(points[thirds] - points[pairs[number, 1]], axis=1)
    is_nearer = distances < reaches[number]
    return pairs[np.bincount(number[is_nearer], minlength=len(pairs)) == 0]


def _pairs_without_third(points: FloatArray, simplices: IntArray) -> IntArray:
    """Return the sorted edges of simplices, but for those with a third corner nearer to both ends.

    Most edges that are none of the relative neighbourhood graph are found so, the long ones of the
    hull among them, around which a search would find very many points.
    """
    size = simplices.shape[1]
    first, second = np.triu_indices(size, k=1)
    ends = points[simplices[:, first]] - points[simplices[:, second]]
    lengths = np.zeros((len(simplices), size, size))
    lengths[:, first, second] = lengths[:, second, first] = np.linalg.norm(ends, axis=2)
    reaches = INSIDE * lengths[:, first, second]
    has_third = np.zeros(reaches.shape, dtype=bool)
    for third in range(size):
        has_third |= np.maximum(lengths[:, first, third], lengths[:, second, third]) < reaches
    pairs = np.sort(simplices[:, np.stack([first, second], axis=1)].astype(np.int64), axis=2)
    names, number = np.unique(pairs.reshape(-1, 2) @ [len(points), 1], return_inverse=True)
    is_kept = np.ones(len(names), dtype=bool)
    is_kept[number[has_third.ravel()]] = False
    return np.stack(np.divmod(names[is_kept], len(points)), axis=1)


def _join(points: FloatArray, edges: IntArray, radius: float) -> nx.Graph:
    graph = nx.Graph()
    for node, position in enumerate(points.tolist()):
        graph.add_node(node, pos=tuple(position), inlet=False)
    graph.add_edges_from(edges.tolist(), radius=radius)
    return graph


def _mark_inlets(
    graph: nx.Graph, points: FloatArray, lower: FloatArray, upper: FloatArray
) -> nx.Graph:
    """Make one node in ten an inlet, at least one: end points first, nearest to a face first."""
    depths = np.minimum(points - lower, upper - points).min(axis=1)
    by_rank = sorted(graph, key=lambda node: (graph.degree[node] != 1, depths[node]))
    for node in by_rank[: max(1, len(points) // 10)]:
        graph.nodes[node]["inlet"] = True
    return graph

"""Which edges of a network come near others, found without looking at all pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

__all__ = ["Proximity", "point_distances"]

type Floats = NDArray[np.float64]
type Ordinals = NDArray[np.int64]

TINY = np.finfo(float).tiny


class Proximity:
    """A search for edges that come near given ones.

    Edges are cut into pieces of half the mean length at most, at most three times as many as there
    are edges; so a few long edges do not widen the search for all.

    Args:
        start: One end of each edge, shape `(num_edges, 3)`.
        stop: The other end, of the same shape.
        reach: The distance that counts as near to an edge, shape `(num_edges,)`.
    """

    def __init__(self, start: Floats, stop: Floats, reach: Floats) -> None:
        self.start, self.stop, self.reach = start, stop, reach
        lengths = np.linalg.norm(stop - start, axis=1)
        counts = np.maximum(1, np.ceil(2.0 * lengths / max(lengths.mean(), TINY))).astype(np.int64)
        self._edge = np.repeat(np.arange(len(lengths)), counts)
        first = np.cumsum(counts) - counts
        part = (np.arange(len(self._edge)) - first[self._edge] + 0.5) / counts[self._edge]
        self._centre = start[self._edge] + part[:, None] * (stop - start)[self._edge]
        self._longest = float((lengths / counts).max())
        # Edges of a great reach are searched for apart, lest all have that reach.
        self._octave = np.floor(np.log2(np.maximum(reach, TINY)))

    def pairs(self, edges: NDArray[np.bool_], others: NDArray[np.bool_]) -> tuple[Ordinals, ...]:
        """Return the pairs of an edge and another one that it is near to, each of shape (n,).

        Args:
            edges: Which edges to take, shape `(num_edges,)`.
            others: Which others to search, shape `(num_edges,)`.
        """
        pieces = np.flatnonzero(edges[self._edge])
        tree = KDTree(self._centre[pieces])
        found = [np.empty(0, dtype=np.int64)]
        for octave in np.unique(self._octave[others]):
            chosen = others & (self._octave == octave)
            targets = np.flatnonzero(chosen[self._edge])
            far = (1.0 + 1e-9) * (self._longest + float(self.reach[chosen].max()))
            near = tree.sparse_distance_matrix(
                KDTree(self._centre[targets]), far, output_type="ndarray"
            )
            one, other = self._edge[pieces[near["i"]]], self._edge[targets[near["j"]]]
            found.append(np.unique(one * len(self.start) + other))
        one, other = np.divmod(np.concatenate(found), len(self.start))
        is_near = one != other
        is_near[is_near] = (
            _distances(*(x[i[is_near]] for i in (one, other) for x in (self.start, self.stop)))
            <= self.reach[other[is_near]]
        )
        return one[is_near], other[is_near]


def point_distances(points: Floats, start: Floats, stop: Floats) -> tuple[Floats, Floats]:
    """Return the distance of points from edges, and where on these the nearest point is.

    Args:
        points: Shape `(n, 3)`.
        start: One end of the edge for each point, shape `(n, 3)`.
        stop: Its other end, shape `(n, 3)`.

    Returns:
        Distances, and parts of the edges from 0 at the start to 1, each of shape `(n,)`.
    """
    along, offset = stop - start, points - start
    square = np.maximum((along**2).sum(axis=1), TINY)
    part = np.clip((offset * along).sum(axis=1) / square, 0.0, 1.0)
    return np.linalg.norm(offset - part[:, None] * along, axis=1), part


def _distances(p: Floats, q: Floats, r: Floats, s: Floats) -> Floats:
    """Return the distances between the edges pq and the edges rs, or hardly less."""
    from_ends = ((p, r, s), (q, r, s), (r, p, q), (s, p, q))
    distances = np.min([point_distances(*ends)[0] for ends in from_ends], axis=0)
    # The nearest points are ends, unless those of both whole lines lie on the edges.
    one, other, apart = q - p, s - r, r - p
    normal = np.cross(one, other)
    square = np.maximum((normal**2).sum(axis=1), TINY)
    inside = np.ones(len(p), dtype=bool)
    for along in (other, one):
        part = (np.cross(apart, along) * normal).sum(axis=1) / square
        inside &= (part > 0.0) & (part < 1.0)
    between = np.abs((apart * normal).sum(axis=1)) / np.sqrt(square)
    return np.where(inside, np.minimum(distances, between), distances)

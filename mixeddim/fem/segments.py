"""The segments that the edges of a graph are cut into for the mesh of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["subdivide"]


def subdivide(
    nodes: NDArray[np.float64], edges: NDArray[np.int64], max_length: float
) -> tuple[NDArray[Any], ...]:
    """Cut edges into segments: points (the nodes first), segments, and where each lies.

    Returns points (n, 3), segments (m, 2), the edge of each segment (m,), and for each point an
    edge that it lies on (n,) with its relative position in [0, 1] along that edge (n,).
    """
    num_nodes, num_edges = len(nodes), len(edges)
    start, end = nodes[edges[:, 0]], nodes[edges[:, 1]]
    length = np.linalg.norm(end - start, axis=1)
    pieces = np.maximum(1, np.ceil(length / max_length * (1 - 1e-12))).astype(np.int64)

    edge_of_segment = np.repeat(np.arange(num_edges), pieces)
    piece = np.arange(len(edge_of_segment)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    is_last = piece == pieces[edge_of_segment] - 1

    # The right end of every segment but an edge's last is a new point.
    new_point = num_nodes + np.cumsum(~is_last) - 1
    right = np.where(is_last, edges[edge_of_segment, 1], new_point)
    left = np.where(piece == 0, edges[edge_of_segment, 0], new_point - (~is_last))
    edge_of_new = edge_of_segment[~is_last]
    t = (piece[~is_last] + 1) / pieces[edge_of_new]
    new = (1 - t[:, None]) * start[edge_of_new] + t[:, None] * end[edge_of_new]

    edge_of_node, position_of_node = np.empty(num_nodes, np.int64), np.empty(num_nodes)
    for column, at in ((0, 0.0), (1, 1.0)):
        edge_of_node[edges[:, column]] = np.arange(num_edges)
        position_of_node[edges[:, column]] = at
    return (
        np.concatenate([nodes, new]),
        np.stack([left, right], axis=1),
        edge_of_segment,
        np.concatenate([edge_of_node, edge_of_new]),
        np.concatenate([position_of_node, t]),
    )

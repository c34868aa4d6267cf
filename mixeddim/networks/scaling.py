"""Change of units: networks in physical lengths and in those of the nondimensional problem."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from mixeddim.networks.graphs import edge_outer_radii, edge_radii, node_positions

__all__ = ["Scaling"]


@dataclass(frozen=True)
class Scaling:
    """Map physical points to those of the problem by x = (x_physical - origin) / length.

    Both directions return a copy with new `pos` and `radius`; other attributes keep their units.

    Attributes:
        length: The physical length that becomes 1, for instance 200e-6 for a cube of 200 µm in m.
        origin: The physical point that becomes the origin, `(3,)`.

    Raises:
        ValueError: if `length` is not finite and positive, or `origin` not three finite numbers.
    """

    length: float
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Check the attributes."""
        if not 0.0 < self.length < np.inf:
            raise ValueError(
                f"got length={self.length!r}; wanted a finite positive number. Pass the physical "
                "length that should become 1."
            )
        if np.shape(self.origin) != (3,) or not np.isfinite(self.origin).all():
            raise ValueError(
                f"got origin={self.origin!r}; wanted three finite numbers. Pass the physical "
                "point that should become (0, 0, 0)."
            )

    def apply(self, graph: nx.Graph) -> nx.Graph:
        """Return a physical network in the lengths of the problem."""
        positions = (node_positions(graph) - self.origin) / self.length
        return _with_geometry(graph, positions, 1.0 / self.length)

    def invert(self, graph: nx.Graph) -> nx.Graph:
        """Return a network of the problem in physical lengths."""
        positions = node_positions(graph) * self.length + self.origin
        return _with_geometry(graph, positions, self.length)


def _with_geometry(graph: nx.Graph, positions: NDArray[np.float64], factor: float) -> nx.Graph:
    outer_radii = (edge_outer_radii(graph) * factor).tolist()
    radii = (edge_radii(graph) * factor).tolist()
    copy = graph.copy()
    for node, position in zip(graph, positions.tolist(), strict=True):
        copy.nodes[node]["pos"] = tuple(position)
    for edge, radius, outer in zip(graph.edges, radii, outer_radii, strict=True):
        copy.edges[edge]["radius"] = radius
        if "outer_radius" in copy.edges[edge]:
            copy.edges[edge]["outer_radius"] = outer
    return copy

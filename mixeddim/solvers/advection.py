"""Advection of a tracer along the network, by finite volumes around the vertices of its mesh.

The volume of a vertex is half of each segment that meets there. Flow along a segment carries the
concentration of its upstream vertex (upwind). So a junction mixes all inflow, and every vessel that
leaves it starts with the same concentration. With Q the flow along a segment from its
vertex i to its vertex j, and q the flow from outside into a vertex:

    (U c)_i = sum over segments (max(Q, 0) c_i + min(Q, 0) c_j) + max(-q_i, 0) c_i
    inflow_i = max(q_i, 0) c_inlet

Except for the outflow at outlets, each column of U adds up to zero: mass is conserved for any flow,
also for one that changes along a vessel because its wall leaks.
Off its diagonal U has no positive entry, so that no concentration undershoots or overshoots,
however fast the flow. The price is first order in the length of the segments.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from dataclasses import dataclass

import dolfinx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mixeddim.fem.meshes import Network
from mixeddim.networks.graphs import edge_indices, inlet_mask
from mixeddim.solvers.leaky_flow import LeakyFlow

__all__ = ["Advection", "discretise_advection"]


@dataclass(frozen=True, eq=False)
class Advection:
    """Volumes and flows at the dofs of a network's P1 space.

    Attributes:
        volume: Part of the network around each vertex, shape (num_dofs,).
        U: Matrix of upwind advection, outlets included, shape (num_dofs, num_dofs).
        inflow: Volume per time that enters at each vertex from outside, shape (num_dofs,).
        outflow: Volume per time that leaves there, shape (num_dofs,).
    """

    volume: NDArray[np.float64]
    U: sparse.csr_array
    inflow: NDArray[np.float64]
    outflow: NDArray[np.float64]


def discretise_advection(network: Network, flow: ArrayLike | LeakyFlow) -> Advection:
    """Discretise advection along a network by upwind finite volumes.

    Args:
        network: The network.
        flow: Volume per time along each edge, shape (num_edges,), in the order of
            `network.graph.edges`, positive from its first node to its second, as `Flow.flow`; or
            one number for all; or a `LeakyFlow` through the same network.

    Raises:
        ValueError: If the flow does not fit the network, or enters or leaves at a node that is
            neither an end point nor an inlet.
    """
    if isinstance(flow, LeakyFlow):
        along_segments = flow.segment_flow
    else:
        along_segments = _check_flow(network, flow)[network.edge_of_cell]
    start, end, length, sign = network.segments
    radius = network.radius.x.array[_cell_dofs(network.radius)]
    Q = along_segments * sign  # cells may run against their edge

    size = network.P1.dofmap.index_map.size_local
    half = 0.5 * np.pi * radius**2 * length
    volume = np.bincount(start, half, size) + np.bincount(end, half, size)
    if isinstance(flow, LeakyFlow):
        net = np.zeros(size)
        net[network.dof_of_node] = flow.node_inflow
    else:
        net = np.bincount(start, Q, size) - np.bincount(end, Q, size)
    forth, back = np.maximum(Q, 0.0), np.minimum(Q, 0.0)
    inflow, outflow, vertices = np.maximum(net, 0.0), np.maximum(-net, 0.0), np.arange(size)
    values = np.concatenate([forth, back, -forth, -back, outflow])
    rows = np.concatenate([start, start, end, end, vertices])
    columns = np.concatenate([start, end, start, end, vertices])
    U = sparse.coo_array((values, (rows, columns)), shape=(size, size)).tocsr()
    return Advection(volume, U, inflow, outflow)


def _check_flow(network: Network, flow: ArrayLike) -> NDArray[np.float64]:
    graph = network.graph
    num_edges = graph.number_of_edges()
    try:
        Q = np.asarray(flow, dtype=float)
    except (TypeError, ValueError):
        Q = np.full((), np.nan)
    if Q.shape not in ((), (num_edges,)) or not np.all(np.isfinite(Q)):
        raise ValueError(
            f"got a {type(flow).__name__} of shape {np.shape(flow)}; wanted a finite number for "
            f"each of the {num_edges} edges, in the order of network.graph.edges, such as "
            "solve_flow(...).flow."
        )
    Q = np.broadcast_to(Q, num_edges)
    first, second = edge_indices(graph).T
    size = graph.number_of_nodes()
    net = np.bincount(first, Q, size) - np.bincount(second, Q, size)
    passing = np.bincount(first, abs(Q), size) + np.bincount(second, abs(Q), size)
    is_end = np.array([degree == 1 for _, degree in graph.degree]) | inlet_mask(graph)
    rounding = 1e-8 * passing + 1e-12 * abs(Q).max()  # the latter where the flow stagnates
    for ordinal in np.flatnonzero(~is_end & (abs(net) > rounding)):
        raise ValueError(
            f"got a flow of {net[ordinal]:.3g} from outside into node {list(graph)[ordinal]!r}, "
            "which is neither an end point nor an inlet; wanted what arrives there to leave. "
            "Take the flow from solve_flow on network.graph, or mark the node as an inlet."
        )
    return Q


def _cell_dofs(field: dolfinx.fem.Function) -> NDArray[np.int32]:
    """Return the dof of a DG0 function in each cell."""
    return field.function_space.dofmap.list[:, 0]

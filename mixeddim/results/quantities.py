"""Quantities per vessel: mean values, exchange with the tissue, axial flux.

The axial flux at the ends of a vessel is computed from the residual of the equations at its nodes,
not from the slope of u_1d. Only these fluxes balance to rounding in each vessel and junction
(Hughes et al. 2000, doi:10.1006/jcph.2000.6577).
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

import csv
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixeddim.atomic import replacing
from mixeddim.networks.graphs import edge_indices, edge_radii
from mixeddim.solvers.stationary import Solution

__all__ = [
    "EdgeTable",
    "edge_table",
    "node_inflow",
    "write_edge_table",
]


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """Values per vessel: contents, exchange and flux; arrays in the order of `graph.edges`.

    Amounts are per time, in the units of the coefficients.

    Attributes:
        ends: The nodes of each edge, from the first to the second.
        length: Length of each edge, shape (num_edges,), as all that follow.
        radius: Its radius.
        mean_u_1d: Mean of u_1d along it.
        mean_wall_u_3d: Mean of T u_3d, the tissue at the wall, along it; NaN on an edge whose
            circles were all dropped (`assemble(..., outside="drop")`).
        exchange: Flow through its wall into the tissue.
        source: What the source f_1d brings.
        flux_start: Axial flux at its first node, positive towards the second.
        flux_end: Axial flux at its second node, positive in the same direction; along each edge
            flux_start + source = flux_end + exchange.
    """

    ends: tuple[tuple[object, object], ...]
    length: NDArray[np.float64]
    radius: NDArray[np.float64]
    mean_u_1d: NDArray[np.float64]
    mean_wall_u_3d: NDArray[np.float64]
    exchange: NDArray[np.float64]
    source: NDArray[np.float64]
    flux_start: NDArray[np.float64]
    flux_end: NDArray[np.float64]


def edge_table(solution: Solution) -> EdgeTable:
    """Sum up a solution along each vessel.

    The load of a source at a junction is shared by the segments there in proportion to their
    lengths, which is exact where f_1d is the same on both sides of it.

    Args:
        solution: A stationary solution.

    Raises:
        ValueError: If u_1d does not solve the equations of the network, as that of a state of
            transport, whose flux is not that of diffusion alone.
    """
    network, coupling = solution.system.network, solution.system.coupling
    graph, num_edges = network.graph, network.graph.number_of_edges()

    def along_edges(cells: NDArray[Any], values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(network.edge_of_cell[cells], values, minlength=num_edges)

    segments = _segments(solution)
    every = np.arange(len(segments.length))
    node = network.mesh.geometry.input_global_indices[network.mesh.geometry.dofmaps[0]]
    first, second = edge_indices(graph)[network.edge_of_cell].T
    flux_start, flux_end = (
        along_edges(every, (segments.residual * (node == end[:, None])).sum(axis=1))
        for end in (first, second)
    )
    wall_length = along_edges(coupling.cells, coupling.weights)
    wall_u_3d = along_edges(
        coupling.cells, coupling.weights * (coupling.Pi @ solution.u_3d.x.array)
    )
    mean_wall_u_3d = np.full(num_edges, np.nan)
    np.divide(wall_u_3d, wall_length, out=mean_wall_u_3d, where=wall_length > 0)
    length = along_edges(every, segments.length)
    return EdgeTable(
        ends=tuple(graph.edges),
        length=length,
        radius=edge_radii(graph),
        mean_u_1d=along_edges(every, segments.length * segments.u_1d.mean(axis=1)) / length,
        mean_wall_u_3d=mean_wall_u_3d,
        exchange=along_edges(coupling.cells, coupling.weights * solution.wall_flux),
        source=along_edges(every, segments.source.sum(axis=1)),
        flux_start=flux_start,
        flux_end=-flux_end,
    )


def node_inflow(solution: Solution) -> NDArray[np.float64]:
    """Return what enters the network from outside at each node, negative where it leaves.

    At junctions it is zero, by Kirchhoff's law; positive and negative values add up to the inflow
    through the inlets and the outflow through the outlets.

    Args:
        solution: A stationary solution.

    Returns:
        Shape (num_nodes,), in the order of `network.graph.nodes`.

    Raises:
        ValueError: As `edge_table` does.
    """
    graph, table = solution.system.network.graph, edge_table(solution)
    first, second = edge_indices(graph).T
    inflow = np.bincount(first, table.flux_start, minlength=len(graph))
    return inflow - np.bincount(second, table.flux_end, minlength=len(graph))


def write_edge_table(solution: Solution, path: str | os.PathLike[str]) -> Path:
    """Write the table of the vessels as CSV, one edge a row.

    The columns are `first` and `second`, the nodes of the edge, and then the attributes of
    `EdgeTable` by their names, in 17 digits.

    Args:
        solution: A stationary solution.
        path: The file; its folder is created where missing, an older file replaced.

    Returns:
        The path.

    Raises:
        ValueError: As `edge_table` does.
    """
    table = edge_table(solution)
    columns = [field.name for field in fields(table) if field.name != "ends"]
    numbers = np.stack([getattr(table, name) for name in columns], axis=1)

    def write() -> Path:
        with (
            replacing(Path(path)) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["first", "second", *columns])
            for ends, row in zip(table.ends, numbers.tolist(), strict=True):
                writer.writerow([*ends, *map(repr, row)])
        return Path(path)

    return solution.system.processes.on_first(write)


@dataclass(frozen=True, eq=False)
class _Segments:
    """The segments of the network mesh; arrays have shape (num_segments, 2) for both ends.

    The residual of each equation is split into what its segments contribute; at the end of an
    edge that is the axial flux that enters the edge there.
    """

    length: NDArray[np.float64]
    u_1d: NDArray[np.float64]
    source: NDArray[np.float64]
    residual: NDArray[np.float64]


def _segments(solution: Solution) -> _Segments:
    system = solution.system
    side, coupling, u = system.side_1d, system.coupling, solution.u_1d.x.array
    num_cells = len(system.network.edge_of_cell)
    dofs = side.V.dofmap.list[:num_cells]
    geometry = system.network.mesh.geometry
    ends = geometry.x[geometry.dofmaps[0][:num_cells]]
    length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)

    _, residual = system.unconstrained_residual(solution.u_3d.x.array, u)
    error = float(abs(residual[side.is_free]).max(initial=0.0))
    size = float((abs(side.K) @ abs(u)).max())
    if not error <= 1e-6 * size:
        raise ValueError(
            f"got fields that solve the network's equations up to {error:.1e}, where diffusion "
            f"has terms of {size:.1e}; wanted a stationary solution. Of one by an iterative "
            "method lower rtol; a state of transport has axial fluxes of its own."
        )
    around = np.bincount(dofs.ravel(), np.repeat(length, 2))
    source = side.f[dofs] * (length[:, None] / around[dofs])
    # Two nodes have at most one segment between them, so that its stiffness stands alone in K.
    conductance = -np.asarray(side.K[dofs[:, 0], dofs[:, 1]])
    axial = conductance * (u[dofs[:, 0]] - u[dofs[:, 1]])
    flow = coupling.weights * solution.wall_flux
    points = np.arange(len(flow))
    exchange = [
        np.bincount(coupling.cells, flow * coupling.N[points, at_point], minlength=num_cells)
        for at_point in dofs[coupling.cells].T
    ]
    residual = np.stack([axial, -axial], axis=1) + np.stack(exchange, axis=1) - source
    return _Segments(length, u[dofs], source, residual)

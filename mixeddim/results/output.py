"""Solutions as PyVista data sets, and as files for ParaView.

The files are in VTK's XML formats, which both ParaView and PyVista read. On several processes each
gets the whole data sets, so that what is drawn or written is the same as on one; every process
calls each function, and the first one writes.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

import os
from dataclasses import dataclass, replace
from pathlib import Path

import dolfinx
import numpy as np
import pyvista as pv
from numpy.typing import NDArray

from mixeddim.atomic import replacing
from mixeddim.fem.grid import Grid
from mixeddim.fem.meshes import Network, StructuredBox
from mixeddim.solvers.stationary import Solution

__all__ = ["OutputFiles", "grid_dataset", "network_dataset", "tissue_dataset", "write_outputs"]


def tissue_dataset(solution: Solution) -> pv.ImageData | pv.UnstructuredGrid:
    """Return the tissue with its field as point data `u_3d`.

    A structured box becomes an image, the values at its grid nodes: a hundredth of the size of its
    tetrahedra, and ready for slices and volume rendering. Any other mesh keeps its cells.

    Args:
        solution: A solution of the coupled problem.

    Raises:
        TypeError: If it is not a solution.
    """
    if not hasattr(solution, "u_3d"):
        raise TypeError(
            f"got a {type(solution).__name__}; wanted a solution. Solve a system with "
            "solve(system), draw a network alone with plot_network(network)."
        )
    tissue, V = solution.system.tissue, solution.u_3d.function_space
    join, dofs = solution.system.processes.join, V.dofmap.index_map
    field = join(solution.u_3d.x.array[: dofs.size_local])
    if isinstance(tissue, StructuredBox):
        grid = tissue.grid(V)
        whole = replace(grid, node_of_dof=join(grid.node_of_dof))
        return grid_dataset(whole, "u_3d", field)
    # Global numbers run through the owned dofs of one process after the other.
    cells = V.dofmap.list[: tissue.topology.index_map(3).size_local]
    cells = dofs.local_to_global(cells.ravel()).reshape(cells.shape)
    points = join(V.tabulate_dof_coordinates()[: dofs.size_local])
    mesh = pv.UnstructuredGrid({pv.CellType.TETRA: join(cells)}, points)
    mesh.point_data["u_3d"] = field
    return mesh


def grid_dataset(grid: Grid, name: str, field: NDArray[np.float64]) -> pv.ImageData:
    """Return a structured box with a field as point data.

    Args:
        grid: Its nodes, such as `box.grid(box.P1)`.
        name: Name of the field.
        field: In the order of the dofs, shape (num_dofs,).
    """
    image = pv.ImageData(dimensions=grid.shape, spacing=grid.cell_size, origin=grid.lower)
    image.point_data[name] = grid.to_grid(field).ravel(order="F")  # x runs fastest in VTK
    return image


def network_dataset(source: Solution | Network) -> pv.PolyData:
    """Return the network as line segments with its data.

    Each segment has two points of its own, so that the radius is exact as point data too, which
    VTK's tube filter needs; `network_dataset(...).clean()` joins the segments.

    Args:
        source: A network, or a solution on one.

    Returns:
        Lines with `radius` as point and cell data; from a solution also `u_1d` as point data and
        `wall_flux`, the mean flux into the tissue per length, as cell data.

    Raises:
        TypeError: If the source is neither.
    """
    if not isinstance(source, Network) and not hasattr(source, "system"):
        raise TypeError(
            f"got a {type(source).__name__}; wanted a network or a solution. Make a network of a "
            "graph with create_network(graph, max_segment_length)."
        )
    network = source if isinstance(source, Network) else source.system.network
    ends = network.mesh.geometry.dofmaps[0][: len(network.edge_of_cell)]
    num_cells = len(ends)
    lines = pv.PolyData(
        network.mesh.geometry.x[ends].reshape(-1, 3),
        lines=np.insert(np.arange(2 * num_cells).reshape(-1, 2), 0, 2, axis=1).ravel(),
    )
    radius = _cell_values(network.radius)
    lines.cell_data["radius"] = radius
    lines.point_data["radius"] = np.repeat(radius, 2)
    if isinstance(source, Solution):
        lines.cell_data["wall_flux"] = _cell_values(source.cell_wall_flux)
        dofs = source.u_1d.function_space.dofmap.list[:num_cells]
        lines.point_data["u_1d"] = source.u_1d.x.array[dofs].ravel()
    return lines


@dataclass(frozen=True)
class OutputFiles:
    """The files that `write_outputs` wrote.

    Attributes:
        tissue: `tissue.vti` on a structured box, `tissue.vtu` on any other mesh.
        network: `network.vtp`.
    """

    tissue: Path
    network: Path


def write_outputs(solution: Solution, folder: str | os.PathLike[str]) -> OutputFiles:
    """Write both fields in VTK's XML formats, for ParaView and `pyvista.read`.

    In ParaView the network shows as vessels under the filter Tube with "Vary Radius: By Absolute
    Scalar" and the point array `radius`.

    Args:
        solution: A solution of the coupled problem.
        folder: Where to write; created where missing. Files of an earlier run stay intact until
            the new ones are complete.

    Returns:
        The paths of the files.
    """
    tissue, network = tissue_dataset(solution), network_dataset(solution)
    suffix = ".vti" if isinstance(tissue, pv.ImageData) else ".vtu"
    files = OutputFiles(Path(folder) / f"tissue{suffix}", Path(folder) / "network.vtp")

    def write() -> OutputFiles:
        for dataset, path in ((tissue, files.tissue), (network, files.network)):
            with replacing(path) as part:
                dataset.save(part)
        return files

    return solution.system.processes.on_first(write)


def _cell_values(field: dolfinx.fem.Function) -> NDArray[np.float64]:
    """Return the values of a DG0 function in the order of the cells, shape (num_cells,)."""
    num_cells = field.function_space.mesh.topology.index_map(1).size_local
    return field.x.array[field.function_space.dofmap.list[:num_cells, 0]]

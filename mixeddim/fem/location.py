"""Find the cell that holds a point: by arithmetic on a box, by search elsewhere."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from dataclasses import dataclass

import dolfinx
import numpy as np
from numpy.typing import NDArray

from mixeddim.fem.meshes import StructuredBox
from mixeddim.processes import Processes

__all__ = ["Location", "extent_of", "locate"]

# How far outside a cell, in units of its size, a point still counts as inside.
_ROUNDING = 1e-10
# Kuhn's tetrahedron t of a cuboid holds the local points (x, y, z) of [0, 1]^3 whose coordinates
# come in one order. The index into this table is 4 (x >= y) + 2 (y >= z) + (x >= z), and two of
# the eight combinations cannot occur.
_KUHN_TETRAHEDRON = np.array([4, 2, 5, 3, -1, 1, -1, 0])
_KUHN_TETRAHEDRON[[4, 1]] = [2, 2]


@dataclass(frozen=True)
class Location:
    """Where points lie in a mesh.

    Attributes:
        cells: The cell of each point, or -1 where no cell of this process holds it, shape (n,).
        reference_points: Coordinates in the reference cell, zero without one, shape (n, 3).
    """

    cells: NDArray[np.int32]
    reference_points: NDArray[np.float64]


def locate(tissue: StructuredBox | dolfinx.mesh.Mesh, points: NDArray[np.float64]) -> Location:
    """Find the cell and the reference coordinates of each point.

    Args:
        tissue: A structured box of either cell type, or any mesh of straight-edged tetrahedra.
        points: Shape (n, 3). Points within rounding error of the boundary count as inside.

    Raises:
        ValueError: If a mesh that is no structured box is not made of straight-edged tetrahedra.
    """
    if isinstance(tissue, StructuredBox):
        mesh, cells = tissue.mesh, _cells_by_arithmetic(tissue, points)
    else:
        mesh, cells = tissue, _cells_by_search(tissue, points)
    found = cells >= 0
    reference_points = np.zeros_like(points)
    reference_points[found] = _pull_back(mesh, cells[found], points[found])
    return Location(cells, reference_points)


def extent_of(mesh: dolfinx.mesh.Mesh) -> float:
    """Return the longest side of the box around a mesh, on all processes."""
    processes, x = Processes.of(mesh), mesh.geometry.x.T
    lower = [processes.min(along.min(initial=np.inf)) for along in x]
    upper = [processes.max(along.max(initial=-np.inf)) for along in x]
    return max(high - low for low, high in zip(lower, upper, strict=True))


def _cells_by_arithmetic(box: StructuredBox, points: NDArray[np.float64]) -> NDArray[np.int32]:
    local = (points - box.lower) / box.cell_size
    num_cells = np.array(box.num_cells)
    inside = np.all((local >= -_ROUNDING) & (local <= num_cells + _ROUNDING), axis=1)
    local = np.where(inside[:, None], local, 0.0)
    cuboid = np.clip(np.floor(local).astype(np.int64), 0, num_cells - 1)
    nx, ny, _ = box.num_cells
    original = cuboid @ np.array([1, nx, nx * ny])
    if box.cell_type == "tetrahedron":
        x, y, z = (local - cuboid).T
        tetrahedron = _KUHN_TETRAHEDRON[4 * (x >= y) + 2 * (y >= z) + (x >= z)]
        original = 6 * original + tetrahedron
    return np.where(inside, box.cell_of_original[original], np.int32(-1))


def _cells_by_search(mesh: dolfinx.mesh.Mesh, points: NDArray[np.float64]) -> NDArray[np.int32]:
    if mesh.topology.cell_name() != "tetrahedron" or mesh.geometry.cmaps[0].degree != 1:
        raise ValueError(
            f"got a mesh of cells {mesh.topology.cell_name()!r} with geometry of degree "
            f"{mesh.geometry.cmaps[0].degree}; wanted straight-edged tetrahedra. "
            "Mesh the tissue with tetrahedra of degree 1, or with create_box, and pass the box "
            "itself."
        )
    num_owned = mesh.topology.index_map(3).size_local
    owned = np.arange(num_owned, dtype=np.int32)
    extent = extent_of(mesh)
    if num_owned == 0:  # on a process more than there are cells
        return np.full(len(points), -1, dtype=np.int32)
    tree = dolfinx.geometry.bb_tree(mesh, 3, padding=_ROUNDING * extent, entities=owned)
    candidates = dolfinx.geometry.compute_collisions_points(tree, np.ascontiguousarray(points))

    # DOLFINx decides on candidates by an absolute distance, which is wrong in small units.
    point = np.repeat(np.arange(len(points)), np.diff(candidates.offsets))
    local = _pull_back(mesh, candidates.array, points[point])
    depth = np.minimum(local.min(axis=1), 1.0 - local.sum(axis=1))
    deepest_first = np.lexsort((-depth, point))
    point, first = np.unique(point[deepest_first], return_index=True)
    best = deepest_first[first]
    is_inside = depth[best] >= -_ROUNDING
    cells = np.full(len(points), -1, dtype=np.int32)
    cells[point[is_inside]] = candidates.array[best[is_inside]]
    return cells


def _pull_back(
    mesh: dolfinx.mesh.Mesh, cells: NDArray[np.int32], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Invert the affine map of each point's cell, by Cramer's rule; a hexahedron is a cuboid."""
    vertices = mesh.geometry.x[mesh.geometry.dofmaps[0][cells]]
    along_axes = (1, 2, 3) if vertices.shape[1] == 4 else (1, 2, 4)
    a, b, c = (vertices[:, i] - vertices[:, 0] for i in along_axes)
    d = points - vertices[:, 0]
    faces = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=1)
    determinant = np.einsum("ij,ij->i", a, faces[:, 0])
    return np.einsum("ikj,ij->ik", faces, d) / determinant[:, None]

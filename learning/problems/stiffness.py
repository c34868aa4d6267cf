"""The stiffness matrix of varying and anisotropic diffusion on the structured box, from its field.

On Kuhn's six tetrahedra of a cell, the paths of three edges from its lowest to its highest corner
(Kuhn 1960, doi:10.1147/rd.45.0518), the gradient of a P1 function is made of differences along the
path's edges: all cells of a grid share one matrix of 8 by 8, up to their k. DOLFINx assembles the
same entries, to rounding.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.tensors import Grid

__all__ = ["cell_stiffness", "diffusion_tensor", "smooth_field", "stiffness"]

NUM_MODES = 30
MOST_WAVES = 4


def stiffness(grid: Grid, k: NDArray[np.float64], tensor: NDArray[np.float64]) -> sparse.csr_array:
    """Return the matrix of the form (k T grad u, grad v), without Dirichlet conditions.

    Args:
        grid: Of a box of tetrahedra.
        k: A positive number for each cell of the grid, shape (nx, ny, nz).
        tensor: T, symmetric positive definite, shape (3, 3).

    Returns:
        Shape (num_dofs, num_dofs), in DOLFINx dof order.

    Raises:
        ValueError: If the box is not made of tetrahedra.
    """
    if grid.cell_type != "tetrahedron":
        raise ValueError(
            f"got a box of {grid.cell_type} cells; wanted tetrahedra, whose matrix this is. "
            "Assemble hexahedra with mixeddim.assemble."
        )
    num_cells = tuple(n - 1 for n in grid.shape)
    cell_matrix = cell_stiffness(grid.cell_size, tensor)
    corners = list(product((0, 1), repeat=3))
    dof_of_node = np.argsort(grid.node_of_dof).reshape(grid.shape)
    # Entries between a node and each neighbour, gathered over the cells that hold both.
    entries: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for row, p in enumerate(corners):
        at_cells = tuple(slice(i, i + n) for i, n in zip(p, num_cells, strict=True))
        for column, q in enumerate(corners):
            if cell_matrix[row, column] != 0.0:
                offset = tuple(j - i for i, j in zip(p, q, strict=True))
                values = entries.setdefault(offset, np.zeros(grid.shape))
                values[at_cells] += cell_matrix[row, column] * k
    rows, columns, data = [], [], []
    for offset, values in entries.items():
        here, there = _neighbours(offset, grid.shape)
        rows.append(dof_of_node[here].ravel())
        columns.append(dof_of_node[there].ravel())
        data.append(values[here].ravel())
    coordinates = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array((np.concatenate(data), coordinates), shape=2 * (dof_of_node.size,))


def cell_stiffness(
    cell_size: NDArray[np.float64], tensor: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the stiffness matrix of one cell with k = 1, shape (8, 8), corners in C order."""
    matrix = np.zeros((8, 8))
    along = tensor / np.outer(cell_size, cell_size) * np.prod(cell_size) / 6.0
    number_of_step = np.array([4, 2, 1])  # how far a step along x, y or z leads in the corners
    for path in permutations(range(3)):
        corners = np.cumsum([0, *number_of_step[list(path)]])
        differences = np.zeros((3, 8))
        differences[path, corners[1:]] = 1.0
        differences[path, corners[:-1]] = -1.0
        matrix += differences.T @ along @ differences
    is_rounding = np.abs(matrix) < 1e-14 * matrix.diagonal().max()
    return np.where(is_rounding, 0.0, (matrix + matrix.T) / 2.0)


def diffusion_tensor(anisotropy: float, direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the tensor of fibres, of determinant 1, shape (3, 3).

    Args:
        anisotropy: Diffusion along the fibres over that across.
        direction: Along the fibres, of length 1, shape (3,).
    """
    across = anisotropy ** (-1.0 / 3.0)
    tensor: NDArray[np.float64] = across * (
        np.eye(3) + (anisotropy - 1.0) * np.outer(direction, direction)
    )
    return tensor


def smooth_field(num_cells: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a smooth random field at the midpoints of the cells of the cube, from -1/2 to 1/2.

    Cosine modes of normal amplitudes, which fall with the square of the wave number. What is drawn
    does not depend on the grid.
    """
    waves = rng.integers(0, MOST_WAVES, (NUM_MODES, 3), endpoint=True)
    amplitudes = rng.standard_normal(NUM_MODES) / (1.0 + (waves**2).sum(axis=1))
    phases = rng.uniform(0.0, 2.0 * np.pi, (3, NUM_MODES, 1))
    x = np.pi * (np.arange(num_cells) + 0.5) / num_cells
    angles = [np.multiply.outer(k, x) + phase for k, phase in zip(waves.T, phases, strict=True)]
    modes = [np.cos(angle) for angle in angles]
    field = np.einsum("m,mi,mj,mk->ijk", amplitudes, *modes, optimize=True)
    low, high = field.min(), field.max()
    scaled: NDArray[np.float64] = (field - low) / (high - low) - 0.5 if high > low else 0.0 * field
    return scaled


def _neighbours(
    offset: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the nodes that have a neighbour at an offset, and these neighbours."""
    here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, shape, strict=True))
    there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, shape, strict=True))
    return here, there

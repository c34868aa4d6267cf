"""Interpolation between the grids of a box, each with about every second node of the one before."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.tensors import ALONE, Grid, Processes

__all__ = [
    "Axes",
    "axes_of",
    "coarsened",
    "coupling_along_axes",
    "hat_functions",
    "interpolation",
]

type Axes = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Where the nodes are along x, y and z, in cells of the finest grid; a grid is their product."""

STRONG: Final = 0.26
"""Axes are coarsened that couple at least so strongly as the strongest: one halving makes 1/4."""


def axes_of(grid: Grid) -> Axes:
    """Return the axes of the finest grid."""
    x, y, z = (tuple(map(float, range(n))) for n in grid.shape)
    return x, y, z


def coupling_along_axes(K: sparse.csr_array, grid: Grid) -> NDArray[np.float64]:
    """Return how strongly a stiffness matrix couples along x, y and z, shape (3,).

    In the mean k / h² along each axis up to one factor: the energy of a linear function, from the
    entries between different nodes alone, so that eliminated dofs add nothing.

    Raises:
        ValueError: If K is not finite.
    """
    index = np.stack(np.unravel_index(grid.node_of_dof, grid.shape), axis=1).astype(float)
    x = index - (np.array(grid.shape) - 1) / 2.0
    # The sum of -K_ij (x_i - x_j)² over i and j, in products with K alone.
    energy = 2.0 * (np.sum(x * (K @ x), axis=0) - (K @ np.ones(len(x))) @ x**2)
    processes: Processes = getattr(K, "processes", ALONE)
    energy = np.array([processes.sum(value) for value in energy])
    if not np.isfinite(energy).all():
        raise ValueError("got NaN or infinity in K; wanted numbers. Correct the diffusion.")
    return np.maximum(energy, 0.0)


def coarsened(axes: Axes, coupling: NDArray[np.float64] | None) -> Axes:
    """Return every second node, and always the last: any number of cells becomes about half.

    Along axes of weaker coupling all nodes stay, until the others have caught up: a smoother that
    works point by point leaves behind what oscillates along them (Trottenberg, Oosterlee &
    Schüller 2001, Multigrid, section 5.1).

    Args:
        axes: The grid.
        coupling: Along the axes of the finest grid, one row for each system, shape (batch, 3); None
            for all axes.
    """
    if coupling is None:
        x, y, z = ((*x[:-1:2], x[-1]) for x in axes)
        return x, y, z
    num_cells = np.array([len(x) - 1 for x in axes])
    cell_size = np.array([x[-1] for x in axes]) / num_cells
    here = np.where(num_cells > 1, coupling / cell_size**2, 0.0)
    strongest = here.max(axis=1, keepdims=True)
    relative = (here / np.where(strongest > 0, strongest, 1.0)).min(axis=0)
    least = min(relative.max(), STRONG)
    x, y, z = (
        (*x[:-1:2], x[-1]) if strength >= least else x
        for x, strength in zip(axes, relative, strict=True)
    )
    return x, y, z


@lru_cache(maxsize=64)
def interpolation(coarse: Axes, fine: Axes) -> sparse.csr_array:
    """Return trilinear interpolation of nodal values, exact for trilinear functions.

    Against interpolation in the nested tetrahedra, which has fewer entries, it saves one V-cycle
    in nine.

    Args:
        coarse: Nodes where values are known, within each axis ascending.
        fine: Nodes where they are wanted.

    Returns:
        Shape (number of fine nodes, number of coarse nodes), both in grid (C) order; the same
        object for the same nodes, which is not to be written to.
    """
    x, y, z = (hat_functions(nodes, points) for nodes, points in zip(coarse, fine, strict=True))
    return sparse.csr_array(sparse.kron(sparse.kron(x, y, format="csr"), z, format="csr"))


def hat_functions(nodes: tuple[float, ...], points: tuple[float, ...]) -> sparse.csr_array:
    """Return the hat functions of nodes on an axis, at points of it, shape (points, nodes)."""
    rows = [np.interp(points, nodes, unit) for unit in np.eye(len(nodes))]
    return sparse.csr_array(np.stack(rows, axis=1))

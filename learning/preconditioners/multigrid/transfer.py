"""Interpolation between the grids of a box, each with every second or fourth node of the last."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning import kernels
from learning.systems.sparse import SparseMap, block_diagonal, rows_of, sparse_map
from learning.systems.stencils import OFFSETS, offset_of_step, positions_of
from mixeddim.tensors import ALONE, Grid, Processes

__all__ = [
    "Axes",
    "axes_of",
    "coarsened",
    "coarsened_by_four",
    "coupling_along_axes",
    "hat_functions",
    "interpolation",
    "interpolation_map",
    "lower_and_weights",
    "mean_diffusion",
    "nodes_along_axes",
]

type Axes = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Where the nodes are along x, y and z, in cells of the finest grid; a grid is their product."""

STRONG: Final = 0.26
"""Axes are coarsened that couple at least so strongly as the strongest: one halving makes 1/4."""

VERY_STRONG: Final = 0.5
"""Axes of so much of the strongest coupling may lose three of four nodes at once."""

FEW_NODES: Final = 10_000
"""On grids of fewer, coarsening by four saves little, and a coefficient may vary too fast."""


def axes_of(grid: Grid) -> Axes:
    """Return the axes of the finest grid."""
    x, y, z = (tuple(map(float, range(n))) for n in grid.shape)
    return x, y, z


def mean_diffusion(K: sparse.csr_array, grid: Grid) -> NDArray[np.float64]:
    """Return the diffusion tensor of a stiffness matrix, in the mean and up to a factor, (3, 3).

    In units of cells: the energies of linear functions, from the entries between different nodes
    alone, so that eliminated dofs add nothing.

    Raises:
        ValueError: If K is not finite.
    """
    processes: Processes = getattr(K, "processes", ALONE)
    if kernels.ARE_COMPILED and processes.size == 1:
        offset = offset_of_step(grid.shape)
        sums, positions = np.zeros(offset.shape), positions_of(grid.shape)[grid.node_of_dof]
        kernels.sum_steps(rows_of(K, torch.float64), positions, sums)
        steps = np.flatnonzero(offset < 14)
        towards = np.array(OFFSETS, dtype=float)[offset[steps]]
        tensor = -(towards.T * sums[steps]) @ towards
    else:
        index = np.stack(np.unravel_index(grid.node_of_dof, grid.shape), axis=1).astype(float)
        x = index - (np.array(grid.shape) - 1) / 2.0
        # Half the sum of -K_ij (x_i - x_j) (x_i - x_j)' over i and j, in products with K alone.
        tensor = x.T @ (K @ x) - (x.T * (K @ np.ones(len(x)))) @ x
        tensor = np.array([processes.sum(value) for value in tensor.ravel()]).reshape(3, 3)
    if not np.isfinite(tensor).all():
        raise ValueError("got NaN or infinity in K; wanted numbers. Correct the diffusion.")
    return tensor


def coupling_along_axes(K: sparse.csr_array, grid: Grid) -> NDArray[np.float64]:
    """Return how strongly a stiffness matrix couples along x, y and z, shape (3,).

    In the mean k / h² along each axis up to one factor (see `mean_diffusion`).

    Raises:
        ValueError: If K is not finite.
    """
    return np.maximum(2.0 * np.diagonal(mean_diffusion(K, grid)), 0.0)


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
    relative = _relative_coupling(axes, coupling)
    least = min(relative.max(), STRONG)
    x, y, z = (
        (*x[:-1:2], x[-1]) if strength >= least else x
        for x, strength in zip(axes, relative, strict=True)
    )
    return x, y, z


def coarsened_by_four(axes: Axes, coupling: NDArray[np.float64]) -> Axes:
    """Return every fourth node along the axes of strongest coupling, and always the last.

    Along weaker ones every second node, and along the weakest all of them: the smoother has to
    damp what the next grid leaves, down to about a sixteenth of the largest eigenvalue. Small grids
    lose every second node (see `coarsened`).

    Args:
        axes: The grid.
        coupling: As in `coarsened`.
    """
    if np.prod([len(x) for x in axes]) < FEW_NODES:
        return coarsened(axes, coupling)
    relative = _relative_coupling(axes, coupling)
    least = VERY_STRONG * relative.max()
    strides = np.select([relative >= least, relative >= least / 4], [4, 2], 1)
    x, y, z = ((*x[:-1:stride], x[-1]) for x, stride in zip(axes, strides, strict=True))
    return x, y, z


def _relative_coupling(axes: Axes, coupling: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return that along each axis of a grid beside the strongest one, the least of all systems."""
    num_cells = np.array([len(x) - 1 for x in axes])
    cell_size = np.array([x[-1] for x in axes]) / num_cells
    here = np.where(num_cells > 1, coupling / cell_size**2, 0.0)
    strongest = here.max(axis=1, keepdims=True)
    relative: NDArray[np.float64] = (here / np.where(strongest > 0, strongest, 1.0)).min(axis=0)
    return relative


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


def interpolation_map(coarse: Axes, fine: Axes, like: torch.Tensor) -> SparseMap:
    """Return trilinear interpolation as a map of batches of vectors in grid order.

    Args:
        coarse: Nodes where values are known.
        fine: Nodes where they are wanted.
        like: A tensor of the dtype, batch and device of the vectors.
    """
    if like.is_cuda or not kernels.ARE_COMPILED:
        return _sparse_interpolation(coarse, fine, len(like), like.dtype, like.device)
    along = nodes_along_axes(coarse, fine, like.dtype)
    few, many = ([len(x) for x in axes] for axes in (coarse, fine))

    def prolong(v: torch.Tensor) -> torch.Tensor:
        values = v.new_zeros(len(v), *many)
        kernels.add_interpolated(*along, v.reshape(-1, *few).numpy(), values.numpy())
        return values.flatten(1)

    def restrict(v: torch.Tensor) -> torch.Tensor:
        values = v.new_empty(len(v), *few)
        kernels.restrict(*along, v.reshape(-1, *many).numpy(), values.numpy())
        return values.flatten(1)

    return SparseMap(prolong, restrict)


@lru_cache(maxsize=12)
def _sparse_interpolation(
    coarse: Axes, fine: Axes, batch: int, dtype: torch.dtype, device: torch.device
) -> SparseMap:
    """Return the same as a sparse matrix, kept since the systems of a study share their grid."""
    P = interpolation(coarse, fine)
    blocks = block_diagonal([P] * batch, P.shape[0])
    return sparse_map(blocks, torch.empty(0, dtype=dtype, device=device))


@lru_cache(maxsize=64)
def nodes_along_axes(coarse: Axes, fine: Axes, dtype: torch.dtype) -> tuple[NDArray[Any], ...]:
    """Return P along x, y and z as compiled loops take it: nodes and weights (see `kernels`)."""
    parts = []
    for nodes, points in zip(coarse, fine, strict=True):
        index = np.searchsorted(points, nodes)
        hats = hat_functions(nodes, points).toarray()
        most = int(np.diff(index).max(initial=1)) - 1
        steps = np.arange(-most, most + 1)
        place = index[:, None] + steps
        is_inside = (place >= 0) & (place < len(points))
        number = np.arange(len(nodes))[:, None]
        weights = np.where(is_inside, hats[np.clip(place, 0, len(points) - 1), number], 0.0)
        parts += [index, torch.tensor(weights).to(dtype).numpy()]
    return tuple(parts)


@lru_cache(maxsize=64)
def lower_and_weights(
    nodes: tuple[float, ...], points: tuple[float, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return linear interpolation along an axis: the node before each point, and two weights.

    Args:
        nodes: Where values are known, ascending.
        points: Where they are wanted; beyond the ends these count, as in a patch of a grid.

    Returns:
        Indices (points,), and the weights of that node and the next, shape (points, 2); the second
        is zero where there is none.
    """
    x, known = np.clip(points, nodes[0], nodes[-1]), np.array(nodes)
    lower = np.searchsorted(known, x, side="right") - 1
    length = np.append(np.diff(known), np.inf)[lower]
    after = (x - known[lower]) / length
    return lower, np.stack([1.0 - after, after], axis=1)


def hat_functions(nodes: tuple[float, ...], points: tuple[float, ...]) -> sparse.csr_array:
    """Return the hat functions of nodes on an axis, at points of it, shape (points, nodes)."""
    rows = [np.interp(points, nodes, unit) for unit in np.eye(len(nodes))]
    return sparse.csr_array(np.stack(rows, axis=1))

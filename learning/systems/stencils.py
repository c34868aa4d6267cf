"""Symmetric matrices on the nodes of a grid, with entries between neighbours, as stencils.

A stencil array has shape (batch, 14, nx, ny, nz): entry [b, o, i, j, k] couples node (i, j, k) with
the one at `OFFSETS[o]` from it, itself or one of the half of its neighbours that comes later in
grid order, and is zero where there is none. The other half are the entries of those that come
before. P1 and Q1 elements on the box have this form, and so have Galerkin's operators of trilinear
interpolation on every coarser grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning import kernels
from learning.systems.sparse import rows_of
from mixeddim.tensors import Grid, SymmetricProduct, sparse_csr

__all__ = [
    "OFFSETS",
    "StencilMatrix",
    "fill_stencils",
    "occurring",
    "offset_of_step",
    "positions_of",
    "row_sums",
    "stencils_of",
    "steps_of",
]

OFFSETS: Final = tuple(product((-1, 0, 1), repeat=3))[13:]
"""To the node itself, and to half of its neighbours."""

type Shape = tuple[int, int, int]

_NUMPY: Final = {torch.float32: np.float32, torch.float64: np.float64}


def stencils_of(matrices: Sequence[sparse.csr_array], grids: Sequence[Grid]) -> StencilMatrix:
    """Return symmetric matrices in dof order as stencils.

    Args:
        matrices: With entries between neighbours alone, as P1 elements on the box have.
        grids: Of one shape.

    Raises:
        ValueError: If a matrix has others.
    """
    shape = grids[0].shape
    stencils = np.zeros((len(matrices), 14, int(np.prod(shape))))
    occurs = np.arange(14) == 0
    for stencil, A, grid in zip(stencils, matrices, grids, strict=True):
        positions = positions_of(shape)[grid.node_of_dof]
        occurs |= fill_stencils(A, grid.node_of_dof, positions, shape, stencil)
    array = torch.from_numpy(stencils.reshape(len(matrices), 14, *shape))
    return StencilMatrix(array, tuple(np.flatnonzero(occurs).tolist()))


def fill_stencils(
    A: sparse.csr_array,
    node_of_row: NDArray[np.int64],
    positions: NDArray[np.int32],
    shape: Shape,
    stencil: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Put the entries of a matrix into one stencil array, which is zero before.

    Args:
        A: Its rows are those of some nodes.
        node_of_row: The index in the stencil array of each row's node.
        positions: Of the nodes of its columns, of which those of the rows are the first (see
            `positions_of`).
        shape: Of the grid.
        stencil: Shape (14, n).

    Returns:
        Which of the 14 offsets occur.

    Raises:
        ValueError: If A has entries between nodes that are no neighbours.
    """
    offsets, occurs = offset_of_step(shape), np.zeros(14, dtype=np.bool_)
    if kernels.ARE_COMPILED:
        rows = rows_of(A, torch.float64)
        far = kernels.fill_stencils(rows, node_of_row, positions, offsets, stencil, occurs)
    else:
        lengths = np.diff(A.indptr)
        step = positions[A.indices] - np.repeat(positions[: len(lengths)], lengths)
        offset = offsets[np.minimum(np.abs(step), len(offsets) - 1)]
        offset[np.abs(step) >= len(offsets)] = 14
        far, is_forward = np.count_nonzero(offset == 14), (step >= 0) & (offset < 14)
        node = np.repeat(node_of_row, lengths)
        stencil[offset[is_forward], node[is_forward]] = A.data[is_forward]
        occurs[offset[is_forward & (A.data != 0)]] = True
    if far:
        raise ValueError(
            f"got a matrix with {far} entries between nodes that are no neighbours on the grid; "
            "wanted one of linear elements on the structured box. Assemble it on create_box."
        )
    return occurs


@lru_cache(maxsize=32)
def steps_of(shape: Shape) -> NDArray[np.int64]:
    """Return how much further on in grid order each neighbour is, shape (14,)."""
    _, ny, nz = shape
    return np.array([i * ny * nz + j * nz + k for i, j, k in OFFSETS])


# --- The matrix as a map ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StencilMatrix:
    """v -> A v for a batch of matrices, differentiable in v to any order.

    On a CPU by compiled loops over the stencils; elsewhere, and without these, in CSR.

    Attributes:
        stencils: Shape (batch, 14, nx, ny, nz).
        offsets: Which of the 14 occur, ascending; by default those that do.
    """

    stencils: torch.Tensor
    offsets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.offsets:
            object.__setattr__(self, "offsets", occurring(self.stencils))

    def __call__(self, v: torch.Tensor) -> torch.Tensor:
        """Return A v, for v of shape (batch, num_nodes) in grid order."""
        return SymmetricProduct.apply(v, self._multiply) if v.requires_grad else self._multiply(v)

    def to(self, like: torch.Tensor) -> StencilMatrix:
        """Return the same matrix in the dtype and on the device of a tensor."""
        if (self.stencils.dtype, self.stencils.device) == (like.dtype, like.device):
            return self
        # Rows of offsets that do not occur stay untouched, and take no memory.
        stencils = torch.from_numpy(np.zeros(self.stencils.shape, dtype=_NUMPY[like.dtype]))
        for o in self.offsets:
            stencils[:, o] = self.stencils[:, o]
        return StencilMatrix(stencils.to(like.device), self.offsets)

    def to_scipy(self) -> sparse.csr_array:
        """Return the block-diagonal matrix of a batch, without zeros."""
        batch, _, *shape = self.stencils.shape
        source, starts, columns = _pattern((*shape,), self.offsets, batch)
        data = self.stencils.detach().cpu().numpy().ravel()[source]
        A = sparse.csr_array((data, columns.copy(), starts.copy()), shape=2 * (len(starts) - 1,))
        A.eliminate_zeros()
        return A

    def _multiply(self, v: torch.Tensor) -> torch.Tensor:
        if v.is_cuda or not kernels.ARE_COMPILED:
            return (self._csr @ v.detach().reshape(-1)).reshape(v.shape)
        x = v.detach().contiguous().numpy()
        y = np.empty_like(x)
        kernels.multiply_stencils(self.arrays, x, y)
        return torch.from_numpy(y)

    @cached_property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Entries of shape (batch, 14, n), offsets and steps, as compiled loops take them."""
        entries = self.stencils.detach().flatten(2).numpy()
        return entries, np.array(self.offsets), steps_of((*self.stencils.shape[2:],))

    @cached_property
    def _csr(self) -> torch.Tensor:
        batch, _, *shape = self.stencils.shape
        source, starts, columns = (
            torch.tensor(part, device=self.stencils.device)
            for part in _pattern((*shape,), self.offsets, batch)
        )
        # torch says once a process that CSR is in beta: here, where that is silenced.
        # It holds an entry, for torch 2.11 refuses the indices of none.
        sparse_csr(sparse.csr_array([[1.0]]), torch.float32, "cpu")
        return torch.sparse_csr_tensor(
            starts, columns, self.stencils.detach().flatten()[source],
            size=2 * (len(starts) - 1,), check_invariants=False,
        )  # fmt: skip


def occurring(stencils: torch.Tensor) -> tuple[int, ...]:
    """Return which of the 14 offsets occur in a batch of stencils; the node itself always does."""
    occurs = stencils.detach().flatten(2).any(dim=2).any(dim=0)  # NaN does
    occurs[0] = True
    steps = steps_of((*stencils.shape[2:],))
    return tuple(o for o in occurs.nonzero().flatten().tolist() if o == 0 or steps[o] > 0)


def row_sums(matrix: StencilMatrix) -> NDArray[Any]:
    """Return the sums of |A| along its rows, shape (batch n,)."""
    entries, offsets, steps = matrix.arrays
    sums = np.empty((len(entries), entries.shape[2]), dtype=entries.dtype)
    if kernels.ARE_COMPILED:
        kernels.sum_rows(matrix.arrays, sums)
        return sums.ravel()
    np.abs(entries[:, 0], out=sums)
    for o in offsets[1:]:
        size = np.abs(entries[:, o, : sums.shape[1] - steps[o]])
        sums[:, : -steps[o]] += size
        sums[:, steps[o] :] += size
    return sums.ravel()


# --- What depends on the grid alone -------------------------------------------------------------
# Kept, for the systems of a study share their grid, but not of many grids and sizes of batches: on
# 128 cells per side a pattern of 27 entries takes a gigabyte.


@lru_cache(maxsize=32)
def positions_of(shape: Shape) -> NDArray[np.int32]:
    """Return a position for each node, so that the difference of two tells the offset between them.

    They are those of the nodes in a grid of at least three nodes along each axis, where no two
    offsets make the same step: along two nodes, one back and the next row is one forth.
    """
    _, ny, nz = (max(n, 3) for n in shape)
    positions = np.array([ny * nz, nz, 1]) @ np.indices(shape).reshape(3, -1)
    return positions.astype(np.int32 if positions[-1] < 2**31 else np.int64)


@lru_cache(maxsize=32)
def offset_of_step(shape: Shape) -> NDArray[np.int64]:
    """Return the offset for each difference of positions that is not negative, 14 for none."""
    steps = steps_of((3, max(shape[1], 3), max(shape[2], 3)))
    offsets = np.full(steps[-1] + 1, 14)
    offsets[steps] = np.arange(14)
    return offsets


@lru_cache(maxsize=24)
def _pattern(
    shape: Shape, offsets: tuple[int, ...], batch: int
) -> tuple[NDArray[np.int64], NDArray[np.integer], NDArray[np.integer]]:
    """Return the index of each entry in the flattened stencils, and the CSR of their matrix."""
    nodes, num_nodes = np.indices(shape).reshape(3, -1), int(np.prod(shape))
    node, other, source = [], [], []
    for o in offsets:
        there = nodes + np.array(OFFSETS[o])[:, None]
        here = np.flatnonzero(np.all((there >= 0) & (there < np.array(shape)[:, None]), axis=0))
        neighbour = here + steps_of(shape)[o]
        node += [here] if o == 0 else [here, neighbour]
        other += [neighbour] if o == 0 else [neighbour, here]
        source += (1 if o == 0 else 2) * [o * num_nodes + here]
    row, column, entry = (np.concatenate(parts) for parts in (node, other, source))
    order = np.lexsort((column, row))
    starts = np.concatenate([[0], np.cumsum(np.tile(np.bincount(row, minlength=num_nodes), batch))])
    systems = np.arange(batch)[:, None]
    small = np.int32 if starts[-1] < 2**31 else np.int64
    return (
        (entry[order] + 14 * num_nodes * systems).ravel(),
        starts.astype(small),
        (column[order] + num_nodes * systems).ravel().astype(small),
    )

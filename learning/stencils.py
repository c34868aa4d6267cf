"""Matrices on the nodes of a grid as stencils: the entries between a node and its neighbours.

A stencil array has shape (batch, 27, nx, ny, nz): entry [b, o, i, j, k] couples node (i, j, k) with
the one at `OFFSETS[o]` from it, and is zero where there is none. Galerkin's operators of trilinear
interpolation keep this form on every grid, and so coarsening is a matter of small dense tables, the
same for all systems on a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.transfer import Axes, hat_functions
from mixeddim.tensors import Grid, SymmetricProduct, sparse_csr

__all__ = [
    "CENTRE",
    "FORWARD",
    "OFFSETS",
    "StencilMatrix",
    "coarse_stencils",
    "neighbours",
    "stencils_of",
]

OFFSETS: Final = tuple(product((-1, 0, 1), repeat=3))
"""To the neighbours, in the order of their indices."""
CENTRE: Final = 13
FORWARD: Final = tuple(range(14, 27))
"""The offsets to half of the neighbours; -OFFSETS[o] is OFFSETS[26 - o]."""

type Shape = tuple[int, int, int]


def stencils_of(matrices: Sequence[sparse.csr_array], grids: Sequence[Grid]) -> NDArray[np.float64]:
    """Return the stencils of matrices in dof order, shape (batch, 27, nx, ny, nz).

    Args:
        matrices: With entries between neighbours alone, as P1 elements on the box have.
        grids: Of one shape.
    """
    shape = grids[0].shape
    num_nodes = int(np.prod(shape))
    stencils = np.zeros((len(matrices), 27, num_nodes))
    position_of_node, offset_of_step, farthest = _steps(shape)
    for stencil, A, grid in zip(stencils, matrices, grids, strict=True):
        position, lengths = position_of_node[grid.node_of_dof], np.diff(A.indptr)
        step = position[A.indices] - np.repeat(position, lengths)
        stencil[offset_of_step[step + farthest], np.repeat(grid.node_of_dof, lengths)] = A.data
    return stencils.reshape(len(matrices), 27, *shape)


def coarse_stencils(stencils: NDArray[np.float64], coarse: Axes, fine: Axes) -> NDArray[np.float64]:
    """Return the stencils of P' A P with P the trilinear interpolation, one axis after the other.

    Args:
        stencils: Of A, shape (batch, 27, nx, ny, nz).
        coarse: Nodes of the next grid.
        fine: Nodes of this one.
    """
    batch, shape = len(stencils), [len(x) for x in fine]
    for axis in range(3):
        if len(coarse[axis]) == len(fine[axis]):
            continue
        A = stencils.reshape(batch, 3, 3, 3, *shape)
        leading = np.moveaxis(A, (1 + axis, 4 + axis), (0, 1))
        table = _coarsening(coarse[axis], fine[axis])
        product_ = table @ leading.reshape(3 * shape[axis], -1)
        shape[axis] = len(coarse[axis])
        A = product_.reshape(3, shape[axis], *leading.shape[2:])
        stencils = np.ascontiguousarray(np.moveaxis(A, (0, 1), (1 + axis, 4 + axis)))
    return stencils.reshape(batch, 27, *shape)


def neighbours(values: torch.Tensor) -> Callable[[Sequence[int]], torch.Tensor]:
    """Return a map from an offset to the values of all nodes' neighbours there.

    Args:
        values: Shape (..., nx, ny, nz).

    Returns:
        A map of three numbers, each -1, 0 or 1, to a view of that shape; zero where a node has no
        such neighbour.
    """
    nx, ny, nz = values.shape[-3:]
    padded = torch.nn.functional.pad(values, (1, 1, 1, 1, 1, 1))

    def at(offset: Sequence[int]) -> torch.Tensor:
        i, j, k = offset
        return padded[..., 1 + i : 1 + i + nx, 1 + j : 1 + j + ny, 1 + k : 1 + k + nz]

    return at


@dataclass(frozen=True, eq=False)
class StencilMatrix:
    """v -> A v for symmetric stencils, differentiable in v and in their values to any order.

    Attributes:
        values: The entries of A by rows, those of all systems one after the other.
        pattern: Where they are.
    """

    values: torch.Tensor
    pattern: _Pattern

    @staticmethod
    def of(stencils: torch.Tensor) -> StencilMatrix:
        """Take the entries of stencils, shape (batch, 27, nx, ny, nz), of offsets that occur."""
        batch, _, *shape = stencils.shape
        occurs = stencils.detach().abs().amax(dim=(0, 2, 3, 4)) > 0
        pattern = _pattern((*shape,), tuple(occurs.tolist()), batch, stencils.device)
        return StencilMatrix(stencils.flatten()[pattern.source], pattern)

    def __call__(self, v: torch.Tensor) -> torch.Tensor:
        """Return A v, for v of shape (batch, num_nodes) in grid order."""
        if self.values.requires_grad:
            result: torch.Tensor = _Product.apply(v, self.values, self.pattern)
            return result
        return SymmetricProduct.apply(v, self._multiply) if v.requires_grad else self._multiply(v)

    def _multiply(self, v: torch.Tensor) -> torch.Tensor:
        return (self._matrix @ v.reshape(-1, 1)).reshape(v.shape)

    def to_scipy(self) -> sparse.csr_array:
        """Return the block-diagonal matrix of a batch."""
        pattern, n = self.pattern, len(self.pattern.lengths)
        parts = (self.values.detach(), pattern.columns, pattern.starts)
        return sparse.csr_array(tuple(part.cpu().numpy() for part in parts), shape=(n, n))

    @cached_property
    def _matrix(self) -> torch.Tensor:
        return self.pattern.matrix(self.values)


class _Product(torch.autograd.Function):
    """A symmetric product whose backward is another one, and entry by entry for the values."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor, values: torch.Tensor, pattern: _Pattern) -> torch.Tensor:
        ctx.save_for_backward(v, values)
        ctx.pattern = pattern
        return (pattern.matrix(values) @ v.reshape(-1, 1)).reshape(v.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        [gradient], pattern = grad_outputs, ctx.pattern
        v, values = ctx.saved_tensors
        to_v: torch.Tensor = _Product.apply(gradient, values, pattern)
        rows = gradient.reshape(-1).repeat_interleave(pattern.lengths, output_size=len(values))
        return to_v, rows * v.reshape(-1)[pattern.columns], None


@dataclass(frozen=True, eq=False)
class _Pattern:
    """The sparsity of a batch of stencils, on the device.

    Attributes:
        source: Index of each entry in the flattened stencils.
        starts, columns: Of the block-diagonal matrix in CSR.
        lengths: Entries in each row.
    """

    source: torch.Tensor
    starts: torch.Tensor
    columns: torch.Tensor
    lengths: torch.Tensor

    def matrix(self, values: torch.Tensor) -> torch.Tensor:
        """Return the matrix of these entries."""
        n = len(self.lengths)
        return torch.sparse_csr_tensor(
            self.starts, self.columns, values.detach(), size=(n, n), check_invariants=False
        )


# --- What depends on the grid alone -------------------------------------------------------------
# Kept, for the systems of a study share their grid, but not of many grids and sizes of batches: on
# 128 cells a side a pattern of 27 entries takes a gigabyte.


@lru_cache(maxsize=32)
def _steps(shape: Shape) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return positions, the offset for each difference of two, and what to add to differences.

    The positions are those of the nodes in a grid of at least three nodes along each axis, where no
    two offsets make the same step: along two nodes, one back and the next row is one forth.
    """
    ny, nz = (max(n, 3) for n in shape[1:])
    strides = np.array([ny * nz, nz, 1])
    positions = strides @ np.indices(shape).reshape(3, -1)
    steps = np.array(OFFSETS) @ strides
    offset_of_step = np.zeros(2 * steps[-1] + 1, dtype=np.int64)
    offset_of_step[steps + steps[-1]] = np.arange(27)
    return positions, offset_of_step, int(steps[-1])


@lru_cache(maxsize=64)
def _coarsening(coarse: tuple[float, ...], fine: tuple[float, ...]) -> sparse.csr_array:
    """Return the map from the stencils (3, fine nodes) of an axis to those of P' A P."""
    P = hat_functions(coarse, fine).toarray()
    n, m = P.shape
    table = np.zeros((3, m, 3, n))
    for o in (-1, 0, 1):
        here = np.arange(max(0, -o), n - max(0, o))
        for step in (-1, 0, 1):
            row = np.arange(max(0, -step), m - max(0, step))
            pairs = P[np.ix_(here, row)] * P[np.ix_(here + o, row + step)]
            table[1 + step, row[:, None], 1 + o, here] = pairs.T
    return sparse.csr_array(table.reshape(3 * m, 3 * n))


@lru_cache(maxsize=24)
def _pattern(shape: Shape, occurs: tuple[bool, ...], batch: int, device: torch.device) -> _Pattern:
    # torch says once a process that CSR is in beta: here, where that is silenced.
    sparse_csr(sparse.csr_array((1, 1)), torch.float32, "cpu")
    index = np.indices(shape).reshape(3, -1)
    offsets = np.flatnonzero(occurs)
    there = index[:, :, None] + np.array(OFFSETS)[offsets].T[:, None]
    inside = np.all((there >= 0) & (there < np.array(shape)[:, None, None]), axis=0)
    columns = np.ravel_multi_index(tuple(there[:, inside]), shape)
    node, number = np.nonzero(inside)
    num_nodes, systems = index.shape[1], np.arange(batch)[:, None]
    source = (offsets[number] * num_nodes + node + 27 * num_nodes * systems).ravel()
    lengths = np.tile(inside.sum(axis=1), batch)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    columns = (columns + num_nodes * systems).ravel()
    small = np.int32 if starts[-1] < 2**31 else np.int64
    on_device = [
        torch.tensor(x, device=device)
        for x in (source, starts.astype(small), columns.astype(small), lengths)
    ]
    return _Pattern(*on_device)

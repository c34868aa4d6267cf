"""Matrices on the nodes of a grid as stencils: the entries between a node and its neighbours.

A stencil array has shape (batch, 27, nx, ny, nz): entry [b, o, i, j, k] couples node (i, j, k) with
the one at `OFFSETS[o]` from it, and is zero where there is none. Galerkin's operators of trilinear
interpolation keep this form on every grid, and so coarsening is a matter of small dense tables, the
same for all systems on a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from math import isfinite
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.preconditioners.multigrid.transfer import Axes, hat_functions
from learning.systems.sparse import LinearMap
from mixeddim.tensors import Grid, SymmetricProduct, sparse_csr

__all__ = [
    "CENTRE",
    "FORWARD",
    "OFFSETS",
    "StencilMatrix",
    "coarse_stencils",
    "inside",
    "neighbours",
    "offsets_of_steps",
    "opposite",
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
    position_of_node, offset_of_step, farthest = _positions(shape)
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


def neighbours(values: torch.Tensor, shape: Sequence[int]) -> list[torch.Tensor]:
    """Return views of the values of all nodes' neighbours, one view for each of `OFFSETS`.

    Args:
        values: Shape (..., num_nodes), in grid order.
        shape: Of the grid.

    Returns:
        Views of the same shape. A node that has no such neighbour finds the value of another node
        there, or zero: multiply by `inside`, or by a stencil.
    """
    steps = _steps(shape)
    padded = torch.nn.functional.pad(values, (steps[-1], steps[-1]))
    return [padded.narrow(-1, steps[-1] + step, values.shape[-1]) for step in steps]


def opposite(entries: torch.Tensor, o: int, shape: Sequence[int]) -> torch.Tensor:
    """Return a symmetric matrix's entries towards the neighbours at -OFFSETS[o].

    Args:
        entries: Those at OFFSETS[o], zero where there is none, shape (..., num_nodes).
        o: One of `FORWARD`.
        shape: Of the grid.
    """
    # Where a node has no neighbour at -OFFSETS[o], whatever is found has none at OFFSETS[o].
    steps = _steps(shape)
    padded = torch.nn.functional.pad(entries, (steps[-1], steps[-1]))
    return padded.narrow(-1, steps[-1] + steps[26 - o], entries.shape[-1])


@lru_cache(maxsize=24)
def inside(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return 1 where a node has a neighbour at an offset and else 0, shape (27, num_nodes)."""
    there = np.indices(shape).reshape(3, -1)[:, None] + np.array(OFFSETS).T[:, :, None]
    is_inside = np.all((there >= 0) & (there < np.array(shape)[:, None, None]), axis=0)
    return torch.tensor(is_inside, dtype=dtype, device=device)


def _steps(shape: Sequence[int]) -> list[int]:
    """Return from how far each neighbour comes in grid order."""
    _, ny, nz = shape
    return [i * ny * nz + j * nz + k for i, j, k in OFFSETS]


@dataclass(frozen=True, eq=False)
class StencilMatrix:
    """v -> A v for symmetric stencils, differentiable in v and in their values to any order.

    On a CPU the stencils themselves are the diagonals of the matrix of the batch, whose products
    take a fraction of those of CSR; an accelerator takes CSR of the offsets that occur.

    Attributes:
        stencils: Shape (batch, 27, nx, ny, nz).
    """

    stencils: torch.Tensor

    def __call__(self, v: torch.Tensor) -> torch.Tensor:
        """Return A v, for v of shape (batch, num_nodes) in grid order."""
        if self.stencils.requires_grad:
            result: torch.Tensor = _Product.apply(v, self.stencils, self._multiply)
            return result
        return SymmetricProduct.apply(v, self._multiply) if v.requires_grad else self._multiply(v)

    def to_scipy(self) -> sparse.dia_array:
        """Return the block-diagonal matrix of a batch."""
        shape = self.stencils.shape[2:]
        diagonals = self.stencils.detach().cpu().transpose(0, 1).reshape(27, -1)
        steps, which = np.unique(_steps(shape), return_inverse=True)
        if len(steps) < 27:  # some offsets make the same step, but never from the same node
            diagonals = diagonals.new_zeros(len(steps), diagonals.shape[1]).index_add(
                0, torch.tensor(which), diagonals
            )
        # Where A is symmetric, its entries in a column are those in the row of that node.
        return sparse.dia_array((diagonals.numpy(), -steps), shape=2 * diagonals.shape[1:])

    def _multiply(self, v: torch.Tensor) -> torch.Tensor:
        if not v.is_cuda:
            product_ = torch.from_numpy(self._diagonal_form @ v.detach().reshape(-1).numpy())
            if len(v) == 1 or isfinite(product_.sum().item()):
                return product_.reshape(v.shape)
            # Diagonals lead from system to system, with zeros, and 0 * NaN is NaN; CSR does not.
        return (self._csr @ v.detach().reshape(-1)).reshape(v.shape)

    @cached_property
    def _diagonal_form(self) -> sparse.dia_array:
        return self.to_scipy()

    @cached_property
    def _csr(self) -> torch.Tensor:
        batch, _, *shape = self.stencils.shape
        stencils = self.stencils.detach()
        occurs = (stencils != 0).any(dim=(0, 2, 3, 4))  # NaN does
        source, starts, columns = _pattern((*shape,), (*occurs.tolist(),), batch, stencils.device)
        n = len(starts) - 1
        return torch.sparse_csr_tensor(
            starts, columns, stencils.flatten()[source], size=(n, n), check_invariants=False
        )


class _Product(torch.autograd.Function):
    """A symmetric product whose backward is another one, and entry by entry for the stencils."""

    @staticmethod
    def forward(
        ctx: Any, v: torch.Tensor, stencils: torch.Tensor, multiply: LinearMap
    ) -> torch.Tensor:
        ctx.save_for_backward(v, stencils)
        ctx.multiply = multiply
        return multiply(v)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        [gradient] = grad_outputs
        v, stencils = ctx.saved_tensors
        to_v: torch.Tensor = _Product.apply(gradient, stencils, ctx.multiply)
        there = torch.stack(neighbours(v, stencils.shape[2:]), dim=1)
        return to_v, (gradient[:, None] * there).reshape(stencils.shape), None


# --- What depends on the grid alone -------------------------------------------------------------
# Kept, for the systems of a study share their grid, but not of many grids and sizes of batches: on
# 128 cells per side a pattern of 27 entries takes a gigabyte.


@lru_cache(maxsize=32)
def _positions(shape: Shape) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return positions, the offset for each difference of two, and what to add to differences."""
    strides, offset_of_step, farthest = offsets_of_steps(shape)
    return strides @ np.indices(shape).reshape(3, -1), offset_of_step, farthest


def offsets_of_steps(shape: Shape) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return strides of positions, the offset for each difference of two, and what to add to these.

    The positions are those of the nodes in a grid of at least three nodes along each axis, where no
    two offsets make the same step: along two nodes, one back and the next row is one forth.
    """
    ny, nz = (max(n, 3) for n in shape[1:])
    strides = np.array([ny * nz, nz, 1])
    steps = np.array(OFFSETS) @ strides
    offset_of_step = np.zeros(2 * steps[-1] + 1, dtype=np.int64)
    offset_of_step[steps + steps[-1]] = np.arange(27)
    return strides, offset_of_step, int(steps[-1])


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
def _pattern(
    shape: Shape, occurs: tuple[bool, ...], batch: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the index of each entry in the flattened stencils, and the CSR of their matrix."""
    # torch says once a process that CSR is in beta: here, where that is silenced.
    # It holds an entry, for torch 2.11 refuses the indices of none.
    sparse_csr(sparse.csr_array([[1.0]]), torch.float32, "cpu")
    offsets = np.flatnonzero(occurs)
    is_entry = inside(shape, torch.bool, torch.device("cpu")).numpy()[offsets].T
    node, number = np.nonzero(is_entry)
    num_nodes, systems = len(is_entry), np.arange(batch)[:, None]
    source = (offsets[number] * num_nodes + node + 27 * num_nodes * systems).ravel()
    starts = np.concatenate([[0], np.cumsum(np.tile(is_entry.sum(axis=1), batch))])
    columns = (node + np.array(_steps(shape))[offsets[number]] + num_nodes * systems).ravel()
    small = np.int32 if starts[-1] < 2**31 else np.int64
    return (
        torch.tensor(source, device=device),
        torch.tensor(starts.astype(small), device=device),
        torch.tensor(columns.astype(small), device=device),
    )

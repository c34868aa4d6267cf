"""A_0 on a grid, whole on this process or in boxes on several, and the way to coarser ones.

A process that has the nodes of a box fetches those of a patch around it from its neighbours: one
layer for a product, two for Galerkin's coarser stencils.
Within the patch all is as on a whole grid. Coarse nodes stay with the process that had them on the
finer grid, until there are so few that every process takes the whole grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.preconditioners.multigrid.stencils import coarse_stencils, thinned, whole
from learning.preconditioners.multigrid.transfer import (
    Axes,
    axes_of,
    interpolation,
    interpolation_map,
)
from learning.systems.boxes import Boxes, boxes_of
from learning.systems.operators import SystemBatch
from learning.systems.sparse import LinearMap, SparseMap, block_diagonal, distributed_map
from learning.systems.stencils import (
    OFFSETS,
    StencilMatrix,
    fill_stencils,
    positions_of,
    row_sums,
    stencils_of,
)
from mixeddim.tensors import Grid, Interpolation, ReducedSystem, ToTissue

__all__ = ["GridInBoxes", "GridOperator", "Prolongation", "WholeGrid", "between_boxes", "finest"]

MOST_WHOLE: Final = 30_000
"""A coarse grid of no more nodes lies whole on every process."""

THINNEST: Final = 2
"""So many nodes each box has to have along an axis, so that one of them is coarse."""

type Prolongation = sparse.csr_array | Interpolation | ToTissue
"""From the next grid; of several processes that lies in boxes too, or whole on each."""


class GridOperator(Protocol):
    """A_0 for a batch of systems on one grid."""

    @property
    def whole_stencils(self) -> NDArray[np.float64]:
        """Of the nodes here, towards all neighbours, shape (batch, 27, nx, ny, nz)."""
        ...

    @property
    def axes(self) -> Axes:
        """The grid."""
        ...

    @property
    def index(self) -> NDArray[np.int64]:
        """The index in the whole grid of each node here, shape (n,)."""
        ...

    @property
    def row_sums(self) -> NDArray[np.float64]:
        """Of |A_0|, shape (batch n,)."""
        ...

    def matrix(self, like: torch.Tensor) -> LinearMap:
        """Return A_0 in the dtype and on the device of a tensor."""
        ...

    def thinned(self) -> GridOperator:
        """Return A_0 with weak entries on the diagonal."""
        ...

    def coarse(
        self, axes: Axes, like: torch.Tensor
    ) -> tuple[Prolongation, SparseMap, GridOperator]:
        """Return the interpolation P from a coarser grid, as matrix and as map, and P' A_0 P."""
        ...


def finest(
    systems: Sequence[ReducedSystem], grids: Sequence[Grid], batch: SystemBatch
) -> WholeGrid | GridInBoxes:
    """Return A_0 on the finest grid.

    Args:
        systems: On grids of one shape; on several processes one system, in the order of boxes.
        grids: Theirs.
        batch: The same systems.

    Raises:
        ValueError: If that one is in another order.
    """
    matrices, axes = [system.A_0 for system in systems], axes_of(grids[0])
    processes = systems[0].processes
    if processes.size == 1:
        stencils = batch.stencils
        return WholeGrid(axes, stencils_of(matrices, grids) if stencils is None else stencils)
    boxes = boxes_of(systems[0])
    A, halo = matrices[0].local
    count = boxes.ownership.count
    stencil = np.zeros((14, count))
    positions = positions_of(boxes.shape)[
        np.ravel_multi_index(tuple(boxes.nodes(halo.numbers)), boxes.shape)
    ]
    fill_stencils(A, np.arange(count), positions, boxes.shape, stencil)
    return GridInBoxes(axes, stencil.reshape(14, *boxes.patch_shape()), boxes)


@dataclass(frozen=True, eq=False)
class WholeGrid:
    """A_0 on a grid that lies whole on this process.

    Attributes:
        axes: The grid.
        A: In float64 on the CPU.
    """

    axes: Axes
    A: StencilMatrix

    @property
    def whole_stencils(self) -> NDArray[np.float64]:
        """Towards all neighbours, shape (batch, 27, nx, ny, nz)."""
        return whole(self.A.stencils).numpy()

    @property
    def index(self) -> NDArray[np.int64]:
        """The index of each node."""
        return np.arange(np.prod([len(x) for x in self.axes]))

    @cached_property
    def row_sums(self) -> NDArray[np.float64]:
        """Of |A_0|, shape (batch n,)."""
        return row_sums(self.A)

    def thinned(self) -> WholeGrid:
        """Return the same with weak entries on the diagonal (see `stencils.thinned`)."""
        return WholeGrid(self.axes, thinned(self.A))

    @cached_property
    def _matrices(self) -> dict[tuple[torch.dtype, torch.device], StencilMatrix]:
        return {}

    def matrix(self, like: torch.Tensor) -> StencilMatrix:
        """Return A_0 as a map."""
        kind = like.dtype, like.device
        if kind not in self._matrices:
            self._matrices[kind] = self.A.to(like)
        return self._matrices[kind]

    def coarse(
        self, axes: Axes, like: torch.Tensor
    ) -> tuple[sparse.csr_array, SparseMap, WholeGrid]:
        """Return P, block-diagonal, and P' A_0 P."""
        batch = len(self.A.stencils)
        coarser = coarse_stencils(self.A, axes, self.axes)
        P = interpolation(axes, self.axes)
        return (
            P if batch == 1 else block_diagonal([P] * batch, P.shape[0]),
            interpolation_map(axes, self.axes, like),
            WholeGrid(axes, coarser),
        )


@dataclass(frozen=True, eq=False)
class GridInBoxes:
    """A_0 of one system on a grid in boxes.

    Attributes:
        axes: The whole grid.
        stencils: Of the nodes here, shape (14, nx, ny, nz).
        boxes: Who has which nodes.
    """

    axes: Axes
    stencils: NDArray[np.float64]
    boxes: Boxes

    @property
    def whole_stencils(self) -> NDArray[np.float64]:
        """Of the nodes here, towards all neighbours."""
        near = whole(torch.from_numpy(self._padded(1))[None])
        return near[(..., *self.boxes.crop(1))].numpy()

    @property
    def index(self) -> NDArray[np.int64]:
        """The index in the whole grid of each node here."""
        return self.boxes.index

    @cached_property
    def row_sums(self) -> NDArray[np.float64]:
        """Of |A_0| at the nodes here."""
        shape, here = self.boxes.patch_shape(1), self.boxes.crop(1)
        near = StencilMatrix(torch.from_numpy(self._padded(1))[None])
        return row_sums(near).reshape(shape)[here].ravel()

    @property
    def is_to_gather(self) -> bool:
        """Whether every process should take the whole grid."""
        boxes = self.boxes
        return bool(np.prod(boxes.shape) <= MOST_WHOLE or boxes.thinnest < THINNEST)

    def thinned(self) -> GridInBoxes:
        """Return the same with weak entries on the diagonal (see `stencils.thinned`)."""
        near = StencilMatrix(torch.from_numpy(self._padded(1))[None])
        found = thinned(near, self.boxes.processes).stencils[0].numpy()
        here = np.ascontiguousarray(found[(slice(None), *self.boxes.crop(1))])
        return GridInBoxes(self.axes, here, self.boxes)

    def matrix(self, like: torch.Tensor) -> LinearMap:
        """Return A_0 as a map of the values at the nodes here."""
        return self._on_patch(torch.from_numpy(self._padded(1)).to(like)[None])

    def coarse(
        self, axes: Axes, like: torch.Tensor
    ) -> tuple[Interpolation | ToTissue, SparseMap, GridOperator]:
        """Return P and P' A_0 P, in boxes or gathered."""
        boxes, fine = self.boxes, self.axes
        coarser = _coarser(boxes, axes, fine)
        near = _part(fine, boxes.patch(2))
        known = _within(axes, near)
        padded = StencilMatrix(torch.from_numpy(self._padded(2))[None])
        stencils = coarse_stencils(padded, known, near).stencils[0].numpy()
        x, y, z = (
            slice(nodes.index(mine[0]), nodes.index(mine[-1]) + 1) if mine else slice(0, 0)
            for nodes, mine in zip(known, _part(axes, coarser.patch()), strict=True)
        )
        result = GridInBoxes(axes, np.ascontiguousarray(stencils[:, x, y, z]), coarser)
        if result.is_to_gather:
            rows = interpolation(axes, _part(fine, boxes.patch()))
            to_boxes = ToTissue(rows, boxes.ownership)
            return to_boxes, distributed_map(to_boxes, like), result.gathered()
        P, _ = between_boxes(boxes, axes, fine)
        return P, distributed_map(P, like), result

    def gathered(self) -> WholeGrid:
        """Return the whole grid, on every process."""
        boxes, num_nodes = self.boxes, int(np.prod(self.boxes.shape))
        entries = boxes.processes.join(np.ascontiguousarray(self.stencils.reshape(14, -1).T))
        place = np.ravel_multi_index(tuple(boxes.nodes(np.arange(num_nodes))), boxes.shape)
        stencils = np.empty((14, num_nodes))
        stencils[:, place] = entries.T
        whole_grid = torch.from_numpy(stencils.reshape(1, 14, *boxes.shape))
        return WholeGrid(self.axes, StencilMatrix(whole_grid))

    def to_whole(self) -> ToTissue:
        """Return the matrix that takes the values at the nodes here from those of the grid."""
        boxes, count = self.boxes, self.boxes.ownership.count
        entries = (np.ones(count), boxes.index, np.arange(count + 1))
        shape = (count, int(np.prod(boxes.shape)))
        return ToTissue(sparse.csr_array(entries, shape=shape), boxes.ownership)

    def _padded(self, width: int) -> NDArray[np.float64]:
        """Return the stencils on a patch, without entries that lead out of it."""
        padded = torch.from_numpy(self.boxes.pad(self.stencils.reshape(14, -1), width))
        return _closed(padded.reshape(1, 14, *self.boxes.patch_shape(width)))[0].numpy()

    def _on_patch(self, stencils: torch.Tensor) -> LinearMap:
        """Return the matrix of stencils on a patch of one layer."""
        boxes, shape = self.boxes, self.boxes.patch_shape(1)
        matrix, here = StencilMatrix(_closed(stencils.contiguous())), (..., *boxes.crop(1))

        def multiply(v: torch.Tensor) -> torch.Tensor:
            near = torch.from_numpy(boxes.pad(v.detach().numpy(), 1))
            return matrix(near).reshape(1, *shape)[here].reshape(1, -1)

        return multiply


def _closed(stencils: torch.Tensor) -> torch.Tensor:
    """Set the entries to zero, in place, that lead out of a patch, (1, 14, nx, ny, nz)."""
    for axis, steps in enumerate(np.array(OFFSETS).T):
        for step, layer in ((-1, 0), (1, -1)):
            face = stencils.select(2 + axis, layer)
            face[:, np.flatnonzero(steps == step)] = 0.0
    return stencils


def between_boxes(boxes: Boxes, coarse: Axes, fine: Axes) -> tuple[Interpolation, Boxes]:
    """Return the interpolation from a coarser grid in boxes, and how it is shared out.

    Args:
        boxes: Of the fine grid.
        coarse: Nodes of the coarser grid.
        fine: Those of the fine one.
    """
    coarser = _coarser(boxes, coarse, fine)
    known = _within(coarse, _part(fine, boxes.patch(2)))
    P = interpolation(known, _part(fine, boxes.patch()))
    sides = (np.searchsorted(nodes, part) for nodes, part in zip(coarse, known, strict=True))
    numbers = coarser.numbers(np.stack(np.meshgrid(*sides, indexing="ij")).reshape(3, -1))
    shape = (P.shape[0], coarser.ownership.total)
    # A copy, since the interpolation is kept for others.
    rows = sparse.csr_array((P.data.copy(), numbers[P.indices], P.indptr.copy()), shape=shape)
    return Interpolation(rows, boxes.ownership, coarser.ownership), coarser


def _coarser(boxes: Boxes, coarse: Axes, fine: Axes) -> Boxes:
    """Return the boxes of a coarser grid, whose nodes stay where they are."""
    x, y, z = (
        np.searchsorted(nodes, [*(here[s] for s in starts[:-1]), np.inf])
        for nodes, here, starts in zip(coarse, fine, boxes.starts, strict=True)
    )
    return Boxes(boxes.processes, (x, y, z))


def _part(axes: Axes, index: tuple[slice, slice, slice]) -> Axes:
    x, y, z = (nodes[part] for nodes, part in zip(axes, index, strict=True))
    return x, y, z


def _within(axes: Axes, others: Axes) -> Axes:
    """Return the nodes of a grid that lie between the first and the last of another."""
    x, y, z = (
        tuple(i for i in nodes if other[0] <= i <= other[-1])
        for nodes, other in zip(axes, others, strict=True)
    )
    return x, y, z

"""A system on several processes in the order of boxes: each process has the nodes of one.

DOLFINx shares the tissue out in parts of any shape. Multigrid wants boxes, whose nodes are numbered
in grid order, the box of the first process first: a stencil then finds its neighbours by
arithmetic, and each coarser grid is shared out alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mixeddim.tensors import Halo, Ownership, Processes, ReducedSystem

__all__ = ["Boxes", "InBoxes", "boxes_of", "in_boxes"]

type Index = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Boxes:
    """How the nodes of a grid are shared out over processes.

    Attributes:
        processes: The processes, each with one box.
        starts: Along x, y and z the first node of each box, and the number of all nodes.
    """

    processes: Processes
    starts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

    @classmethod
    def of(cls, shape: tuple[int, int, int], processes: Processes) -> Boxes:
        """Return nearly equal boxes, as many along each axis as gives them the least surface."""
        num_boxes = _arrangement(shape, processes.size)
        x, y, z = (
            n * np.arange(boxes + 1) // boxes for n, boxes in zip(shape, num_boxes, strict=True)
        )
        return cls(processes, (x, y, z))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the grid."""
        x, y, z = (int(starts[-1]) for starts in self.starts)
        return x, y, z

    @property
    def thinnest(self) -> int:
        """The least number of nodes that a box has along an axis that several share."""
        return int(min(np.diff(starts).min() for starts in self.starts if len(starts) > 2))

    @cached_property
    def _corners(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first node of each process's box, and how many it has along the axes, (3, size)."""
        lower = np.stack(np.meshgrid(*(s[:-1] for s in self.starts), indexing="ij"))
        sizes = np.stack(np.meshgrid(*(np.diff(s) for s in self.starts), indexing="ij"))
        return lower.reshape(3, -1), sizes.reshape(3, -1)

    @cached_property
    def ownership(self) -> Ownership:
        """Who owns which number."""
        return Ownership.of(int(self._corners[1][:, self.processes.rank].prod()), self.processes)

    def numbers(self, nodes: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the numbers of nodes.

        Args:
            nodes: Their indices along x, y and z, shape (3, n).
        """
        box = [
            np.searchsorted(s, i, side="right") - 1 for s, i in zip(self.starts, nodes, strict=True)
        ]
        process = np.ravel_multi_index(box, [len(s) - 1 for s in self.starts])
        lower, sizes = (part[:, process] for part in self._corners)
        x, y, z = nodes - lower
        return self.ownership.starts[process] + (x * sizes[1] + y) * sizes[2] + z

    def nodes(self, numbers: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the indices of nodes along x, y and z, shape (3, n)."""
        process = self.ownership.owners(numbers)
        lower, sizes = (part[:, process] for part in self._corners)
        rest, z = np.divmod(numbers - self.ownership.starts[process], sizes[2])
        x, y = np.divmod(rest, sizes[1])
        return lower + np.stack([x, y, z])

    @property
    def index(self) -> NDArray[np.int64]:
        """The index in the grid (C order) of each node here, shape (n,)."""
        here = self.ownership.first + np.arange(self.ownership.count)
        index: NDArray[np.int64] = np.ravel_multi_index(tuple(self.nodes(here)), self.shape)
        return index

    def patch(self, width: int = 0) -> Index:
        """Return the nodes of the box here and as many layers around it as the grid has."""
        lower, sizes = (part[:, self.processes.rank] for part in self._corners)
        x, y, z = (
            slice(max(int(first) - width, 0), min(int(first + size) + width, n))
            for first, size, n in zip(lower, sizes, self.shape, strict=True)
        )
        return x, y, z

    def patch_shape(self, width: int = 0) -> tuple[int, int, int]:
        """Return how many nodes a patch has along the axes."""
        x, y, z = (part.stop - part.start for part in self.patch(width))
        return x, y, z

    def pad(self, values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
        """Return the values on a patch, those of other processes fetched from them.

        Args:
            values: Of the nodes here, shape (..., n).
            width: Of the patch.
        """
        (halo, place), shape = self._halo(width), self.patch_shape(width)
        rows = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
        padded = np.empty((len(rows), *shape), dtype=values.dtype)
        padded[(slice(None), *self.crop(width))] = rows.reshape(len(rows), *self.patch_shape())
        padded.reshape(len(rows), -1)[:, place] = halo.fetch(rows.T).T
        return padded.reshape(*values.shape[:-1], -1)

    def crop(self, width: int, within: int = 0) -> Index:
        """Return where in a patch the nodes of a narrower one are."""
        x, y, z = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(self.patch(within), self.patch(width), strict=True)
        )
        return x, y, z

    def _halo(self, width: int) -> tuple[Halo, NDArray[np.int64]]:
        """Return the halo of a patch, and where in the patch its nodes are."""
        if width not in self._halos:
            sides = (np.arange(part.start, part.stop) for part in self.patch(width))
            numbers = self.numbers(np.stack(np.meshgrid(*sides, indexing="ij")).reshape(3, -1))
            first, count = self.ownership.first, self.ownership.count
            [place] = np.nonzero((numbers < first) | (numbers >= first + count))
            place = place[np.argsort(numbers[place])]
            self._halos[width] = Halo(numbers[place], self.ownership), place
        return self._halos[width]

    @cached_property
    def _halos(self) -> dict[int, tuple[Halo, NDArray[np.int64]]]:
        return {}


@lru_cache(maxsize=24)
def _arrangement(shape: tuple[int, int, int], num_boxes: int) -> tuple[int, int, int]:
    """Return how many boxes along each axis: those with the least surface between them."""
    divisors = [n for n in range(1, num_boxes + 1) if num_boxes % n == 0]
    choices = [
        (nx, ny, nz)
        for nx, ny, nz in product(divisors, divisors, divisors)
        if nx * ny * nz == num_boxes
    ]
    x, y, z = shape
    return min(choices, key=lambda c: (c[0] * y * z + c[1] * x * z + c[2] * x * y, c))


def boxes_of(system: ReducedSystem) -> Boxes:
    """Return the boxes of a distributed system in their order.

    Raises:
        ValueError: If it is in the order of DOLFINx.
    """
    grid = system.grid
    assert grid is not None  # `grids_of` has checked
    boxes = Boxes.of(grid.shape, system.processes)
    if not system.processes.all(np.array_equal(boxes.index, grid.node_of_dof)):
        raise ValueError(
            "got a distributed system in the order of DOLFINx; wanted that of boxes. Use "
            "learning.solve or learning.petsc.as_pc, which see to it, or set the preconditioner up "
            "for in_boxes(reduced).system of learning.systems.boxes."
        )
    return boxes


@dataclass(frozen=True, eq=False)
class InBoxes:
    """A system in the order of boxes, and the ways there and back.

    Attributes:
        system: The system.
    """

    system: ReducedSystem
    _to: tuple[Halo, NDArray[np.int64]]
    _back: tuple[Halo, NDArray[np.int64]]

    def to_boxes(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of the nodes here, given those of the dofs that DOLFINx puts here."""
        halo, place = self._to
        values: NDArray[np.float64] = halo.fetch(v)[place]
        return values

    def to_dofs(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of the dofs that DOLFINx puts here, given those of the nodes here."""
        halo, place = self._back
        values: NDArray[np.float64] = halo.fetch(v)[place]
        return values


def in_boxes(reduced: ReducedSystem) -> InBoxes:
    """Rearrange a distributed system; all processes call it together.

    Args:
        reduced: In the order of DOLFINx, on several processes.

    Raises:
        ValueError: If it lives on a mesh without a grid.
    """
    grid, processes = reduced.grid, reduced.processes
    if grid is None:
        raise ValueError(
            "got a system on a mesh without a grid; wanted one on a structured box. Use "
            "create_box, or PETSc's preconditioners on this mesh."
        )
    boxes = Boxes.of(grid.shape, processes)
    old, new = reduced.K.ownership, boxes.ownership
    numbers = boxes.numbers(np.stack(np.unravel_index(grid.node_of_dof, grid.shape)))
    dofs, arrived = processes.deliver(
        new.owners(numbers), old.first + np.arange(old.count), numbers
    )
    dof_of_node = np.empty_like(dofs)
    dof_of_node[arrived - new.first] = dofs
    to, back = _fetching(dof_of_node, old), _fetching(numbers, new)
    system = replace(
        reduced,
        K=reduced.K.renumbered(numbers, new),
        M=reduced.M.renumbered(numbers, new),
        Pi=reduced.Pi.renumbered(numbers, new),
        b_3=to[0].fetch(reduced.b_3)[to[1]],
        grid=replace(grid, node_of_dof=boxes.index),
    )
    if "solve_11" in vars(reduced):  # the network is the same, and need not be factored again
        vars(system)["solve_11"] = reduced.solve_11
    return InBoxes(system, to, back)


def _fetching(numbers: NDArray[np.int64], ownership: Ownership) -> tuple[Halo, NDArray[np.int64]]:
    """Return how to fetch the values of some numbers, each once."""
    wanted, place = np.unique(numbers, return_inverse=True)
    return Halo(wanted, ownership), place

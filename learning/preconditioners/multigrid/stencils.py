"""Stencils on the grids of multigrid: Galerkin's coarser ones, and all neighbours of a node.

Galerkin's operators of trilinear interpolation keep entries between neighbours alone on every grid,
and so coarsening is a matter of small tables, the same for all systems on a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning import kernels
from learning.preconditioners.multigrid.transfer import Axes, hat_functions, lower_and_weights
from learning.systems.stencils import OFFSETS as FORWARD_OFFSETS
from learning.systems.stencils import StencilMatrix
from mixeddim.tensors import ALONE, Processes

__all__ = [
    "CENTRE",
    "FORWARD",
    "OFFSETS",
    "coarse_stencils",
    "opposite",
    "thinned",
    "whole",
]

OFFSETS: Final = tuple(product((-1, 0, 1), repeat=3))
"""To all neighbours, in the order of their indices."""
CENTRE: Final = 13
FORWARD: Final = tuple(range(14, 27))
"""The offsets to half of the neighbours; -OFFSETS[o] is OFFSETS[26 - o]."""

FORWARD_AXES: Final = (1, 3, 9)
"""Those of half of the neighbours that lie along the axes."""

WEAK: Final = 0.01
"""Entries of so much of the weakest one along the axes, at most, hardly count in a cycle."""

ROUNDING: Final = 1e-14
"""Entries of so much of that one are rounding, also where they are negative."""


def thinned(A: StencilMatrix, processes: Processes = ALONE) -> StencilMatrix:
    """Return B >= A, near it, without the entries that are weak beside all those along the axes.

    Across the faces and the body of cells, P1 elements have no stiffness but what fibres make, and
    so nothing but mass there. Where that is weak, it counts as if it were on the diagonal: a > 0
    between nodes i and j becomes a at both, which adds a (v_i - v_j)^2 to v'A v. By a path along
    the axes that is at most three times a over their entries of what these add. A product costs
    half as much then. Without reaction a is rounding of either sign, which B >= A then holds up to.

    Args:
        A: In float64, on the CPU.
        processes: That have other nodes of the grid.
    """
    entries, offsets, steps = A.arrays
    axes = [o for o in FORWARD_AXES if processes.max(o in offsets)]
    highest = {o: processes.max(entries[:, o].max(initial=0.0)) for o in range(1, 14)}
    if not axes or max(highest[o] for o in axes) > 0.0:
        return A
    least = -max(processes.max(_weakest(entries[:, o])) for o in axes)
    weak = [
        o
        for o in range(1, 14)
        if o not in axes and processes.max(o in offsets)
        if highest[o] <= WEAK * least
        and processes.max(-entries[:, o].min(initial=0.0)) <= ROUNDING * least
    ]
    if not weak:
        return A
    kept = [int(o) for o in offsets if o not in weak]
    stencils = np.zeros_like(entries)  # the rows of others stay untouched, and take no memory
    for o in kept:
        stencils[:, o] = entries[:, o]
    for o in weak:
        there = entries[:, o, : entries.shape[2] - steps[o]]
        stencils[:, 0, : -steps[o]] += there
        stencils[:, 0, steps[o] :] += there
    return StencilMatrix(torch.from_numpy(stencils).reshape(A.stencils.shape), tuple(kept))


def _weakest(entries: NDArray[np.float64]) -> float:
    """Return the largest negative entry."""
    return float(np.max(entries, where=entries < 0.0, initial=-np.inf))


def coarse_stencils(A: StencilMatrix, coarse: Axes, fine: Axes) -> StencilMatrix:
    """Return P' A P with P the trilinear interpolation, one axis after the other.

    Args:
        A: In float64, on the CPU.
        coarse: Nodes of the next grid.
        fine: Nodes of this one.
    """
    if not kernels.ARE_COMPILED:
        return StencilMatrix(_by_tables(A.stencils, coarse, fine))
    stencils, offsets = A.stencils.detach().numpy(), np.array(A.offsets)
    for axis in range(3):
        if len(coarse[axis]) < len(fine[axis]):
            stencils = _coarse_along(axis, stencils, offsets, coarse[axis], fine[axis])
            _, target, _ = _turns_of_offsets(axis)
            offsets = np.unique(target[offsets])
    return StencilMatrix(torch.from_numpy(stencils), tuple(offsets.tolist()))


def _coarse_along(
    axis: int,
    stencils: NDArray[np.float64],
    offsets: NDArray[np.int64],
    coarse: tuple[float, ...],
    fine: tuple[float, ...],
) -> NDArray[np.float64]:
    """Return the stencils of P' A P with P along one axis."""
    lower, weights = lower_and_weights(coarse, fine)
    shape = list(stencils.shape)
    shape[2 + axis] = len(coarse)
    result, turns = np.zeros(shape), _turns(axis, stencils.shape[3], stencils.shape[4])
    for A, A_coarse in zip(stencils, result, strict=True):
        kernels.coarse_along_axis(
            _along(A, axis), offsets, lower, weights, *turns, _along(A_coarse, axis)
        )
    return result


def _along(stencils: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return a view of shape (14, u, i, v), i along an axis, with long rows where it can be."""
    nx, ny, nz = stencils.shape[1:]
    if axis == 2:
        return stencils.reshape(14, nx * ny, nz).transpose(0, 2, 1)[:, None]
    return stencils.reshape(14, 1, nx, ny * nz) if axis == 0 else stencils


@lru_cache(maxsize=64)
def _turns(axis: int, ny: int, nz: int) -> tuple[NDArray[Any], ...]:
    """Return how offsets change along an axis (see `kernels.coarse_along_axis`)."""
    x, y, z = np.array(FORWARD_OFFSETS).T
    across = [(0 * x, y * nz + z), (x, z), (0 * x, x * ny + y)][axis]
    moves, target, mirrored = _turns_of_offsets(axis)
    return moves, np.stack(across, axis=1), target, mirrored


@lru_cache(maxsize=3)
def _turns_of_offsets(axis: int) -> tuple[NDArray[Any], ...]:
    """Return the steps of offsets along an axis, and what they turn into (see there)."""
    number = {offset: o for o, offset in enumerate(FORWARD_OFFSETS)}
    target, mirrored = np.zeros((14, 3), dtype=np.int64), np.zeros((14, 3), dtype=np.bool_)
    for o, offset in enumerate(FORWARD_OFFSETS):
        for turn in (-1, 0, 1):
            turned = (*offset[:axis], turn, *offset[axis + 1 :])
            back = (-turned[0], -turned[1], -turned[2])
            mirrored[o, turn + 1] = turned not in number
            target[o, turn + 1] = number[turned if turned in number else back]
    return np.array(FORWARD_OFFSETS)[:, axis].copy(), target, mirrored


def _by_tables(forward: torch.Tensor, coarse: Axes, fine: Axes) -> torch.Tensor:
    """Return the same without compiled loops."""
    batch, shape = len(forward), [len(x) for x in fine]
    stencils = whole(forward).numpy()
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
    return torch.from_numpy(stencils.reshape(batch, 27, *shape)[:, CENTRE:].copy())


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


# --- All neighbours ---------------------------------------------------------------------------


def whole(stencils: torch.Tensor) -> torch.Tensor:
    """Return the entries towards all neighbours, (batch, 27, nx, ny, nz), from those of half."""
    batch, _, *shape = stencils.shape
    forward = stencils.flatten(2)
    backward = [opposite(forward[:, o], CENTRE + o, shape) for o in range(13, 0, -1)]
    return torch.cat([torch.stack(backward, dim=1), forward], dim=1).reshape(batch, 27, *shape)


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


def _steps(shape: Sequence[int]) -> list[int]:
    """Return from how far each neighbour comes in grid order."""
    _, ny, nz = shape
    return [i * ny * nz + j * nz + k for i, j, k in OFFSETS]

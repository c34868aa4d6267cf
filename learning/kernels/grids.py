"""Loops between grids: interpolation, restriction, and Galerkin's products.

Each coarse node is a fine node too. So along each axis P is the fine index of each coarse node, of
shape (m,), and its weights on that and on the h fine nodes before and after it, of shape
(m, 2 h + 1), zero where there are none.
"""

from __future__ import annotations

import numpy as np

from learning.kernels.compiler import Array, compiled

__all__ = ["add_interpolated", "coarse_along_axis", "restrict"]


@compiled
def add_interpolated(
    x: Array, weights_x: Array, y: Array, weights_y: Array, z: Array, weights_z: Array,
    coarse: Array, fine: Array,
) -> None:  # fmt: skip
    """Add P v of shape (batch, nx, ny, nz) to the fine values, v the coarse ones."""
    batch, mx, my, mz = coarse.shape
    line = np.empty(fine.shape[3], dtype=coarse.dtype)
    h_x, h_y, h_z = weights_x.shape[1] // 2, weights_y.shape[1] // 2, weights_z.shape[1] // 2
    for b in range(batch):
        for i in range(mx):
            for j in range(my):
                there = coarse[b, i, j]
                line[:] = 0
                for k in range(mz):
                    for q in range(-h_z, h_z + 1):
                        if weights_z[k, h_z + q] != 0:
                            line[z[k] + q] += weights_z[k, h_z + q] * there[k]
                for p in range(-h_x, h_x + 1):
                    for q in range(-h_y, h_y + 1):
                        weight = weights_x[i, h_x + p] * weights_y[j, h_y + q]
                        if weight != 0:
                            _add_scaled(fine[b, x[i] + p, y[j] + q], weight, line)


@compiled
def restrict(
    x: Array, weights_x: Array, y: Array, weights_y: Array, z: Array, weights_z: Array,
    fine: Array, coarse: Array,
) -> None:  # fmt: skip
    """Set coarse values of shape (batch, mx, my, mz) to P' v, v the fine ones."""
    batch, mx, my, mz = coarse.shape
    line = np.empty(fine.shape[3], dtype=coarse.dtype)
    h_x, h_y, h_z = weights_x.shape[1] // 2, weights_y.shape[1] // 2, weights_z.shape[1] // 2
    for b in range(batch):
        for i in range(mx):
            for j in range(my):
                line[:] = 0
                for p in range(-h_x, h_x + 1):
                    for q in range(-h_y, h_y + 1):
                        weight = weights_x[i, h_x + p] * weights_y[j, h_y + q]
                        if weight != 0:
                            _add_scaled(line, weight, fine[b, x[i] + p, y[j] + q])
                there = coarse[b, i, j]
                for k in range(mz):
                    there[k] = 0
                    for q in range(-h_z, h_z + 1):
                        if weights_z[k, h_z + q] != 0:
                            there[k] += weights_z[k, h_z + q] * line[z[k] + q]


@compiled
def coarse_along_axis(
    fine: Array, offsets: Array, lower: Array, weights: Array, moves: Array, shifts: Array,
    target: Array, mirrored: Array, coarse: Array,
) -> None:  # fmt: skip
    """Add P' A P to stencils that are zero before, with P along one axis.

    Nodes are numbered (u, i, v): i along the axis, u along those before it, v along those after it.
    An entry from a fine node to one `moves` further along the axis adds to those from all coarse
    nodes around the one to all around the other. What makes a backward entry is stored as the
    forward one of the other node.

    Args:
        fine: Entries of A, shape (14, u, i, v).
        offsets: Which of the 14 occur.
        lower: Of P, one for each fine i.
        weights: The same.
        moves: Along the axis, by offset: -1, 0 or 1.
        shifts: To the neighbour's u and v, by offset, shape (14, 2).
        target: The offset, of 14, with the same u and v and -1, 0 or 1 along the axis, or with all
            three reversed where it is backward, shape (14, 3).
        mirrored: Whether it is reversed, shape (14, 3).
        coarse: Stencils to add to, shape (14, u, I, v).
    """
    num_u, num_v = fine.shape[1], fine.shape[3]
    for o in offsets:
        move = moves[o]
        for i in range(max(0, -move), fine.shape[2] - max(0, move)):
            for p in range(2):
                for q in range(2):
                    weight = weights[i, p] * weights[i + move, q]
                    row, column = lower[i] + p, lower[i + move] + q
                    turn = column - row + 1
                    if weight == 0 or (o == 0 and turn == 0):
                        continue  # of a diagonal entry (row, column) and its transpose are one
                    aim = target[o, turn]
                    if aim == 0 and o != 0:
                        weight *= 2  # the entry and its transpose
                    if not mirrored[o, turn]:
                        for u in range(num_u):
                            _add_scaled(coarse[aim, u, row], weight, fine[o, u, i])
                        continue
                    shift_u, shift_v = shifts[o]
                    low, high = max(0, -shift_v), num_v - max(0, shift_v)
                    for u in range(max(0, -shift_u), num_u - max(0, shift_u)):
                        _add_scaled(
                            coarse[aim, u + shift_u, column, low + shift_v : high + shift_v],
                            weight,
                            fine[o, u, i, low:high],
                        )


@compiled
def _add_scaled(y: Array, weight: float, x: Array) -> None:
    for k in range(len(y)):
        y[k] += weight * x[k]

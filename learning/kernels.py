"""Compiled loops over the nodes of a grid and the rows of sparse matrices, for one processor.

Each is a few lines, makes no array of its own but a line, and works in the dtype that it is given.
Matrices come as tuples of arrays:

- stencils: entries of shape (batch, 14, n), which of the 14 offsets occur, and how much further on
  in grid order each leads (see `learning.systems.stencils`). These are the entries of each node
  towards itself and half of its neighbours. The other half are entries of those neighbours, as the
  matrices are symmetric, so that a product reads each number from memory once.
- rows: a matrix in CSR, as starts, columns and values.
- factors: L, U and their permutations (see `mixeddim.algebra.triangular`).

Compiled at the first call and kept on disk. Where numba is missing there are none, and torch and
scipy do the same work in several times the time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixeddim.tensors import substitute

__all__ = [
    "ARE_COMPILED",
    "add_exchange",
    "add_interpolated",
    "add_transposed_rows",
    "coarse_along_axis",
    "fill_stencils",
    "invert_exchange",
    "multiply_rows",
    "multiply_stencils",
    "multiply_system",
    "permute",
    "restrict",
    "smooth",
    "sum_rows",
    "sum_steps",
]

try:
    from numba import njit

    ARE_COMPILED = True
    _compiled: Callable[..., Any] = njit(cache=True, nogil=True, fastmath={"contract"})
except ImportError:
    ARE_COMPILED = False
    warnings.warn(
        "got no package numba; wanted it for compiled kernels, without which multigrid takes "
        "several times the time. Install it with `pip install numba`.",
        stacklevel=2,
    )

    def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return function


type Array = NDArray[Any]
type Arrays = tuple[Array, ...]

BLOCK = 2048
"""So many nodes at a time, whose values stay in the nearest cache for all offsets."""


# --- Products of stencils ---------------------------------------------------------------------


@_compiled
def _add_product(y: Array, a: Array, x: Array) -> None:
    for k in range(len(y)):
        y[k] += a[k] * x[k]


@_compiled
def _add_products(
    y: Array, a: Array, x: Array, b: Array, v: Array, c: Array, u: Array, d: Array, w: Array
) -> None:
    for k in range(len(y)):
        y[k] += a[k] * x[k] + b[k] * v[k] + c[k] * u[k] + d[k] * w[k]


@_compiled
def multiply_stencils(A: Arrays, x: Array, y: Array) -> None:
    """Set y to A x, both of shape (batch, n).

    Args:
        A: Stencils.
        x: Values.
        y: To overwrite.
    """
    stencils, offsets, steps = A
    n, last = x.shape[1], len(offsets) - 1
    farthest = steps[offsets[last]]
    for b in range(len(x)):
        for start in range(0, n, BLOCK):
            stop = min(start + BLOCK, n)
            here = y[b, start:stop]
            here[:] = 0
            _add_product(here, stencils[b, 0, start:stop], x[b, start:stop])
            i = 1
            while i < last and start >= farthest and stop <= n - farthest:
                # Two offsets and their opposites at a time load and store y half as often.
                o, p = offsets[i], offsets[i + 1]
                s, t = steps[o], steps[p]
                _add_products(
                    here,
                    stencils[b, o, start:stop], x[b, start + s : stop + s],
                    stencils[b, o, start - s : stop - s], x[b, start - s : stop - s],
                    stencils[b, p, start:stop], x[b, start + t : stop + t],
                    stencils[b, p, start - t : stop - t], x[b, start - t : stop - t],
                )  # fmt: skip
                i += 2
            for o in offsets[i:]:
                s, a = steps[o], stencils[b, o]
                end, first = min(stop, n - s), max(start, s)
                if end > start:
                    _add_product(y[b, start:end], a[start:end], x[b, start + s : end + s])
                if first < stop:
                    _add_product(
                        y[b, first:stop], a[first - s : stop - s], x[b, first - s : stop - s]
                    )


@_compiled
def sum_rows(A: Arrays, sums: Array) -> None:
    """Set (batch, n) to the sums of |A| along its rows, for stencils A."""
    stencils, offsets, steps = A
    n = sums.shape[1]
    for b in range(len(sums)):
        sums[b] = np.abs(stencils[b, offsets[0]])
        for o in offsets[1:]:
            s, a = steps[o], stencils[b, o]
            for k in range(n - s):
                sums[b, k] += abs(a[k])
            there = sums[b, s:]
            for k in range(n - s):
                there[k] += abs(a[k])


# --- From rows of sparse matrices, and their products -----------------------------------------


@_compiled
def fill_stencils(
    A: Arrays, node_of_row: Array, positions: Array, offset_of_step: Array, stencils: Array,
    occurs: Array,
) -> int:  # fmt: skip
    """Put the entries of a matrix between neighbours into stencils (14, n), which are zero before.

    Args:
        A: Rows.
        node_of_row: Index of each row's node among the n, shape (num_rows,).
        positions: Of the nodes of all columns, those of the rows first, so that the difference of
            two tells the offset between them.
        offset_of_step: That offset for each difference that is not negative, 14 for none.
        stencils: To fill.
        occurs: To set for the offsets of entries that are not zero, shape (14,).

    Returns:
        How many entries lead farther than to a neighbour.
    """
    far, (starts, columns, values) = 0, A
    for row in range(len(starts) - 1):
        node, position = node_of_row[row], positions[row]
        for entry in range(starts[row], starts[row + 1]):
            step = positions[columns[entry]] - position
            if abs(step) >= len(offset_of_step) or offset_of_step[abs(step)] == 14:
                far += 1
            elif step >= 0:
                o = offset_of_step[step]
                stencils[o, node] = values[entry]
                if values[entry] != 0:
                    occurs[o] = True
    return far


@_compiled
def sum_steps(A: Arrays, positions: Array, sums: Array) -> None:
    """Add the entries of a symmetric matrix between neighbours to the sum for their step.

    Args:
        A: Rows.
        positions: Of the nodes of rows and columns.
        sums: One for each difference of positions that is not negative, to add to.
    """
    starts, columns, values = A
    for row in range(len(starts) - 1):
        for entry in range(starts[row], starts[row + 1]):
            step = positions[columns[entry]] - positions[row]
            if 0 <= step < len(sums):
                sums[step] += values[entry]


@_compiled
def multiply_rows(A: Arrays, x: Array, y: Array) -> None:
    """Set y to A x for rows A."""
    starts, columns, values = A
    for row in range(len(y)):
        y[row] = 0
        a = b = c = d = y[row]  # sums that do not wait for each other
        entry, stop = starts[row], starts[row + 1]
        while entry + 3 < stop:
            a += values[entry] * x[columns[entry]]
            b += values[entry + 1] * x[columns[entry + 1]]
            c += values[entry + 2] * x[columns[entry + 2]]
            d += values[entry + 3] * x[columns[entry + 3]]
            entry += 4
        while entry < stop:
            a += values[entry] * x[columns[entry]]
            entry += 1
        y[row] = (a + b) + (c + d)


@_compiled
def add_transposed_rows(A: Arrays, x: Array, y: Array) -> None:
    """Add A' x to y for rows A; of few rows, that costs less than a transposed matrix."""
    starts, columns, values = A
    for row in range(len(x)):
        for entry in range(starts[row], starts[row + 1]):
            y[columns[entry]] += values[entry] * x[row]


@_compiled
def permute(order: Array, factors: Array, x: Array, y: Array) -> None:
    """Set y[b, i] to factors[b] x[b, order[b, i]]."""
    for b in range(len(x)):
        for i in range(x.shape[1]):
            y[b, i] = factors[b] * x[b, order[b, i]]


# --- Exchange with a network ------------------------------------------------------------------


@_compiled
def add_exchange(
    Pi: Arrays, N: Arrays, A_11: Arrays, x: Array, means: Array, network: Array, y: Array
) -> None:
    """Add Pi' (1 - N A_11^-1 N') Pi x to y.

    Args:
        Pi: Rows, (num_points, n).
        N: Rows, (num_points, n_1).
        A_11: Factors.
        x: Shape (n,).
        means: For what is between, shape (num_points,).
        network: The same in float64, shape (2, n_1).
        y: To add to, shape (n,).
    """
    multiply_rows(Pi, x, means)
    network[:] = 0
    add_transposed_rows(N, means, network[0])
    substitute(A_11, network[0], network[1], network[0])
    starts, columns, values = N
    for row in range(len(means)):
        for entry in range(starts[row], starts[row + 1]):
            means[row] -= values[entry] * network[0, columns[entry]]
    add_transposed_rows(Pi, means, y)


@_compiled
def multiply_system(
    A: Arrays, Pi: Arrays, N: Arrays, A_11: Arrays, x: Array, means: Array, network: Array, y: Array
) -> None:
    """Set y to S x = A x + Pi' (1 - N A_11^-1 N') Pi x, both of shape (batch, n)."""
    multiply_stencils(A, x, y)
    add_exchange(Pi, N, A_11, x.ravel(), means, network, y.ravel())


@_compiled
def invert_exchange(Pi: Arrays, inverse: Array, K: Arrays, r: Array, x: Array) -> None:
    """Set x to (D + Pi' C Pi)^-1 r by Woodbury's formula.

    Args:
        Pi: Rows, (num_points, n).
        inverse: D^-1, a diagonal, shape (n,).
        K: Factors of C^-1 + Pi D^-1 Pi', or of a larger matrix whose inverse begins with that.
        r: Shape (n,).
        x: To overwrite.
    """
    means, work = np.empty(len(Pi[0]) - 1, dtype=r.dtype), np.zeros((2, len(K[0])))
    for k in range(len(r)):
        x[k] = inverse[k] * r[k]
    multiply_rows(Pi, x, means)
    for i in range(len(means)):
        work[0, i] = means[i]
    substitute(K, work[0], work[1], work[0])
    for i in range(len(means)):
        means[i] = -work[0, i]
    for k in range(len(r)):
        x[k] = r[k]
    add_transposed_rows(Pi, means, x)
    for k in range(len(r)):
        x[k] *= inverse[k]


@_compiled
def smooth(
    A: Arrays, Pi: Arrays, N: Arrays, A_11: Arrays, means: Array, network: Array,
    diagonal: Array, lumped: Array, near: Array, Pi_near: Arrays, inverse: Array, K: Arrays,
    steps: Array, r: Array, step: Array, residual: Array, x: Array,
) -> None:  # fmt: skip
    """Set x to p(S_0 S) S_0 r: S_0 a diagonal but at the nodes near the network, p a polynomial.

    Args:
        A: Stencils of A_0.
        Pi: Of S, as in `multiply_system`.
        N: The same.
        A_11: The same.
        means: The same.
        network: The same.
        diagonal: S_0 where nodes exchange nothing, shape (batch n,).
        lumped: A diagonal in place of the exchange in S, of that shape, or of none to keep it.
        near: The nodes that exchange, shape (m,).
        Pi_near: Of S_0 there, as in `invert_exchange`.
        inverse: The same.
        K: The same.
        steps: p by its iteration, shape (degree, 2): each step is the last one times the first
            factor plus S_0 (r - S x) times the second, and is added to x.
        r: Shape (batch, n).
        step: For what is between, of that shape.
        residual: The same.
        x: To overwrite.
    """
    here, there = np.empty(len(near), dtype=r.dtype), np.empty(len(near), dtype=r.dtype)
    flat_r, flat_x, flat_step = r.ravel(), x.ravel(), step.ravel()
    flat_residual = residual.ravel()
    for k in range(len(flat_r)):
        flat_residual[k] = flat_r[k]
    for degree in range(len(steps)):
        kept, added = steps[degree, 0], steps[degree, 1]
        if degree > 0:
            if len(lumped) > 0:
                multiply_stencils(A, x, residual)
                for k in range(len(flat_r)):
                    flat_residual[k] = flat_r[k] - (flat_residual[k] + lumped[k] * flat_x[k])
            else:
                multiply_system(A, Pi, N, A_11, x, means, network, residual)
                for k in range(len(flat_r)):
                    flat_residual[k] = flat_r[k] - flat_residual[k]
        for i in range(len(near)):
            here[i] = flat_residual[near[i]]
        if len(near) > 0:
            invert_exchange(Pi_near, inverse, K, here, there)
        for k in range(len(near)):
            flat_residual[near[k]] = there[k] / diagonal[near[k]]
        if degree == 0:
            for k in range(len(flat_r)):
                flat_step[k] = added * diagonal[k] * flat_residual[k]
                flat_x[k] = flat_step[k]
        else:
            for k in range(len(flat_r)):
                flat_step[k] = kept * flat_step[k] + added * diagonal[k] * flat_residual[k]
                flat_x[k] += flat_step[k]


# --- Between grids ----------------------------------------------------------------------------
# Each coarse node is a fine node too, and at most one lies between two of them. So along each axis
# P is the fine index of each coarse node, of shape (m,), and its weights on the fine nodes before
# and after that, of shape (m, 2), zero where these are coarse ones or none.


@_compiled
def add_interpolated(
    x: Array, weights_x: Array, y: Array, weights_y: Array, z: Array, weights_z: Array,
    coarse: Array, fine: Array,
) -> None:  # fmt: skip
    """Add P v of shape (batch, nx, ny, nz) to the fine values, v the coarse ones."""
    batch, mx, my, mz = coarse.shape
    line = np.empty(fine.shape[3], dtype=coarse.dtype)
    for b in range(batch):
        for i in range(mx):
            for j in range(my):
                there = coarse[b, i, j]
                line[:] = 0
                for k in range(mz):
                    line[z[k]] += there[k]
                for k in range(1, mz):
                    line[z[k] - 1] += weights_z[k, 0] * there[k]
                for k in range(mz - 1):
                    line[z[k] + 1] += weights_z[k, 1] * there[k]
                for p in range(-1, 2):
                    weight_x = 1.0 if p == 0 else weights_x[i, (p + 1) // 2]
                    for q in range(-1, 2):
                        weight_y = 1.0 if q == 0 else weights_y[j, (q + 1) // 2]
                        weight = line.dtype.type(weight_x * weight_y)
                        if weight != 0:
                            _add_scaled(fine[b, x[i] + p, y[j] + q], weight, line)


@_compiled
def restrict(
    x: Array, weights_x: Array, y: Array, weights_y: Array, z: Array, weights_z: Array,
    fine: Array, coarse: Array,
) -> None:  # fmt: skip
    """Set coarse values of shape (batch, mx, my, mz) to P' v, v the fine ones."""
    batch, mx, my, mz = coarse.shape
    line = np.empty(fine.shape[3], dtype=coarse.dtype)
    for b in range(batch):
        for i in range(mx):
            for j in range(my):
                line[:] = 0
                for p in range(-1, 2):
                    weight_x = 1.0 if p == 0 else weights_x[i, (p + 1) // 2]
                    for q in range(-1, 2):
                        weight_y = 1.0 if q == 0 else weights_y[j, (q + 1) // 2]
                        weight = line.dtype.type(weight_x * weight_y)
                        if weight != 0:
                            _add_scaled(line, weight, fine[b, x[i] + p, y[j] + q])
                there = coarse[b, i, j]
                for k in range(mz):
                    there[k] = line[z[k]]
                for k in range(1, mz):
                    there[k] += weights_z[k, 0] * line[z[k] - 1]
                for k in range(mz - 1):
                    there[k] += weights_z[k, 1] * line[z[k] + 1]


@_compiled
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


@_compiled
def _add_scaled(y: Array, weight: float, x: Array) -> None:
    for k in range(len(y)):
        y[k] += weight * x[k]

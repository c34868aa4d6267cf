"""Loops over matrices on a grid in stencils: products, row sums, and from CSR."""

from __future__ import annotations

import numpy as np

from learning.kernels.compiler import Array, Arrays, compiled

__all__ = [
    "BLOCK",
    "fill_stencils",
    "multiply_block",
    "multiply_stencils",
    "sum_rows",
    "sum_steps",
]

BLOCK = 2048
"""So many nodes at a time, whose values stay in the nearest cache for all offsets."""


@compiled
def _add_product(y: Array, a: Array, x: Array) -> None:
    for k in range(len(y)):
        y[k] += a[k] * x[k]


@compiled
def _add_products(
    y: Array, a: Array, x: Array, b: Array, v: Array, c: Array, u: Array, d: Array, w: Array
) -> None:
    for k in range(len(y)):
        y[k] += a[k] * x[k] + b[k] * v[k] + c[k] * u[k] + d[k] * w[k]


@compiled
def multiply_block(
    stencils: Array, offsets: Array, steps: Array, x: Array, start: int, stop: int, here: Array
) -> None:
    """Set `here` to A x at the nodes from start to stop, for stencils (14, n) and values (n,)."""
    n, last = len(x), len(offsets) - 1
    farthest = steps[offsets[last]]
    here[:] = 0
    _add_product(here, stencils[0, start:stop], x[start:stop])
    i = 1
    while i < last and start >= farthest and stop <= n - farthest:
        # Two offsets and their opposites at a time load and store y half as often.
        o, p = offsets[i], offsets[i + 1]
        s, t = steps[o], steps[p]
        _add_products(
            here,
            stencils[o, start:stop], x[start + s : stop + s],
            stencils[o, start - s : stop - s], x[start - s : stop - s],
            stencils[p, start:stop], x[start + t : stop + t],
            stencils[p, start - t : stop - t], x[start - t : stop - t],
        )  # fmt: skip
        i += 2
    for o in offsets[i:]:
        s, a = steps[o], stencils[o]
        end, first = min(stop, n - s), max(start, s)
        if end > start:
            _add_product(here[: end - start], a[start:end], x[start + s : end + s])
        if first < stop:
            _add_product(here[first - start :], a[first - s : stop - s], x[first - s : stop - s])


@compiled
def multiply_stencils(A: Arrays, x: Array, y: Array) -> None:
    """Set y to A x, both of shape (batch, n).

    Args:
        A: Stencils.
        x: Values.
        y: To overwrite.
    """
    stencils, offsets, steps = A
    n = x.shape[1]
    for b in range(len(x)):
        for start in range(0, n, BLOCK):
            stop = min(start + BLOCK, n)
            here = y[b, start:stop]
            multiply_block(stencils[b], offsets, steps, x[b], start, stop, here)


@compiled
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


@compiled
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


@compiled
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

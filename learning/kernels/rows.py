"""Loops over the rows of sparse matrices, and over the nodes in another order."""

from __future__ import annotations

import numpy as np

from learning.kernels.compiler import Array, Arrays, compiled

__all__ = [
    "add_transposed_rows",
    "mix_bits",
    "multiply_rows",
    "one_plus_squared_rows",
    "permute",
    "subtract_squared_rows",
]

PRIME = np.uint64(1099511628211)
HALF = np.uint64(32)


@compiled
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


@compiled
def add_transposed_rows(A: Arrays, x: Array, y: Array) -> None:
    """Add A' x to y for rows A; of few rows, that costs less than a transposed matrix."""
    starts, columns, values = A
    for row in range(len(x)):
        for entry in range(starts[row], starts[row + 1]):
            y[columns[entry]] += values[entry] * x[row]


@compiled
def one_plus_squared_rows(A: Arrays, weights: Array) -> tuple[Array, Array, Array]:
    """Return 1 + A W A' in rows, W the weights of the columns on a diagonal."""
    starts, columns, values = A
    num_rows = len(starts) - 1
    by_column = np.zeros(len(weights) + 1, dtype=np.int64)
    for entry in range(len(columns)):
        by_column[columns[entry] + 1] += 1
    for column in range(len(weights)):
        by_column[column + 1] += by_column[column]
    end = by_column[:-1].copy()
    row_of, weighed = np.empty(len(columns), dtype=np.int32), np.empty(len(columns))
    for row in range(num_rows):
        for entry in range(starts[row], starts[row + 1]):
            column = columns[entry]
            row_of[end[column]], weighed[end[column]] = row, weights[column] * values[entry]
            end[column] += 1
    # Once to count the entries of each row, and once to sum them.
    place = np.full(num_rows, -1, dtype=np.int64)
    new_starts = np.zeros(num_rows + 1, dtype=np.int32)
    for row in range(num_rows):
        place[row], count = row, 1
        for entry in range(starts[row], starts[row + 1]):
            for other in range(by_column[columns[entry]], by_column[columns[entry] + 1]):
                if place[row_of[other]] != row:
                    place[row_of[other]] = row
                    count += 1
        new_starts[row + 1] = new_starts[row] + count
    new_columns = np.empty(new_starts[num_rows], dtype=np.int32)
    sums = np.empty(len(new_columns))
    place[:] = -1
    for row in range(num_rows):
        first = stop = new_starts[row]
        place[row], new_columns[stop], sums[stop] = stop, row, 1.0
        stop += 1
        for entry in range(starts[row], starts[row + 1]):
            for other in range(by_column[columns[entry]], by_column[columns[entry] + 1]):
                column = row_of[other]
                if place[column] < first:
                    place[column], new_columns[stop], sums[stop] = stop, column, 0.0
                    stop += 1
                sums[place[column]] += values[entry] * weighed[other]
    return new_starts, new_columns, sums


@compiled
def subtract_squared_rows(A: Arrays, first: int, stop: int, x: Array, y: Array) -> None:
    """Subtract A' A x from y, with some rows of A alone, each of which is read once."""
    starts, columns, values = A
    for row in range(first, stop):
        # As in `multiply_rows`: shared by a function, both take two thirds longer.
        a = b = c = d = y.dtype.type(0)
        entry, end = starts[row], starts[row + 1]
        while entry + 3 < end:
            a += values[entry] * x[columns[entry]]
            b += values[entry + 1] * x[columns[entry + 1]]
            c += values[entry + 2] * x[columns[entry + 2]]
            d += values[entry + 3] * x[columns[entry + 3]]
            entry += 4
        while entry < end:
            a += values[entry] * x[columns[entry]]
            entry += 1
        product = (a + b) + (c + d)
        for entry in range(starts[row], end):
            y[columns[entry]] -= values[entry] * product


@compiled
def permute(order: Array, factors: Array, x: Array, y: Array) -> None:
    """Set y[b, i] to factors[b] x[b, order[b, i]]."""
    for b in range(len(x)):
        for i in range(x.shape[1]):
            y[b, i] = factors[b] * x[b, order[b, i]]


@compiled
def mix_bits(bits: Array) -> np.uint64:
    """Return a hash of unsigned integers, of four lanes (after Fowler, Noll & Vo, and a shift).

    Another value of any one of them makes another hash, as each step has an inverse.
    """
    lanes = np.full(4, 14695981039346656037, dtype=np.uint64)
    a, b, c, d = lanes
    k = 0
    while k + 3 < len(bits):
        a = (a ^ np.uint64(bits[k])) * PRIME
        b = (b ^ np.uint64(bits[k + 1])) * PRIME
        c = (c ^ np.uint64(bits[k + 2])) * PRIME
        d = (d ^ np.uint64(bits[k + 3])) * PRIME
        # Or the highest bits, as of signs, would never reach the others.
        a, b, c, d = a ^ (a >> HALF), b ^ (b >> HALF), c ^ (c >> HALF), d ^ (d >> HALF)
        k += 4
    while k < len(bits):
        a = (a ^ np.uint64(bits[k])) * PRIME
        a ^= a >> HALF
        k += 1
    return (((a * PRIME) ^ b) * PRIME ^ c) * PRIME ^ d

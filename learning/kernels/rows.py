"""Loops over the rows of sparse matrices, and over the nodes in another order."""

from __future__ import annotations

import numpy as np

from learning.kernels.compiler import Array, Arrays, compiled

__all__ = ["add_transposed_rows", "mix_bits", "multiply_rows", "permute"]

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

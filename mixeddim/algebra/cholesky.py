"""Compiled factors L D L' of small sparse matrices, as those of networks.

The tube of tissue around a tree of vessels is a tree as well, if a thick one: eliminated from its
ends on it fills in little. So a minimum degree makes the order (George & Liu 1989,
doi:10.1137/1031001), on a graph of bits, and rows of L follow one by one (Davis 2006, Direct
Methods for Sparse Linear Systems, chapter 4). For a few thousand rows that takes a third of the
time of a library's analysis, conversions and supernodes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import sparse

from mixeddim.algebra.compiler import compiled
from mixeddim.algebra.network_block import superlu_factors
from mixeddim.algebra.triangular import Array, Factors

__all__ = ["cholesky_factors"]

ONE: Final = np.uint64(1)
PAIRS: Final = np.uint64(0x5555555555555555)
FOURS: Final = np.uint64(0x3333333333333333)
EIGHTS: Final = np.uint64(0x0F0F0F0F0F0F0F0F)
BYTES: Final = np.uint64(0x0101010101010101)
TAKEN: Final = 2**31 - 1

MOST_ROWS = 5000
"""Of a block: bits and the search for the least degree grow with their square, 3 MiB here."""


def cholesky_factors(A: sparse.csr_array, num_blocks: int = 1) -> Factors:
    """Return the factors of a matrix as arrays for compiled loops.

    Args:
        A: Symmetric positive definite, block-diagonal, its pattern as well, each entry once.
        num_blocks: Of equal size; those of more than `MOST_ROWS` rows are left to SuperLU.

    Raises:
        ValueError: If A has another pattern, which the loops would follow out of their arrays.
        RuntimeError: If A is not positive definite.
    """
    size = A.shape[0] // num_blocks
    if A.shape != 2 * (num_blocks * size,):
        raise ValueError(
            f"got a matrix of shape {A.shape} and {num_blocks} blocks; wanted square blocks of "
            "equal size. Pad the smaller ones with ones on the diagonal."
        )
    if size > MOST_ROWS:
        return superlu_factors(A)
    blocks = []
    for block in range(num_blocks):
        graph, is_sound = _graph(A.indptr, A.indices, block * size, size)
        if not is_sound:
            raise ValueError(
                f"got a matrix whose block {block} has an entry outside, twice, or without the one "
                "opposite; wanted a symmetric pattern and each entry once. Call sum_duplicates() "
                "and keep zeros on both sides, or on neither."
            )
        blocks.append(_factorise(A.indptr, A.indices, A.data, block * size, size, graph))
    if not all((pivots > 0.0).all() for *_, pivots in blocks):
        raise RuntimeError("a matrix with a pivot that is not positive")
    if num_blocks == 1:
        positions, *triangles, _ = blocks[0]
        return np.ones(size), positions, positions, *triangles
    firsts = size * np.arange(num_blocks, dtype=np.int32)

    def numbers(k: int) -> Array:
        """Return rows of all blocks, counted from the first row of the matrix."""
        return np.concatenate(
            [block[k] + first for block, first in zip(blocks, firsts, strict=True)]
        )

    triangles = []
    for k in (1, 4):
        ends = np.cumsum([0, *(block[k][-1] for block in blocks)], dtype=np.int32)
        starts = [block[k][:-1] + end for block, end in zip(blocks, ends[:-1], strict=True)]
        triangles += [np.concatenate([*starts, ends[-1:]]), numbers(k + 1)]
        triangles += [np.concatenate([block[k + 2] for block in blocks])]
    positions = numbers(0)
    return np.ones(len(positions)), positions, positions, *triangles


@compiled
def _count(bits: np.uint64) -> np.uint64:
    """Return how many bits are set."""
    bits = bits - ((bits >> np.uint64(1)) & PAIRS)
    bits = (bits & FOURS) + ((bits >> np.uint64(2)) & FOURS)
    bits = (bits + (bits >> np.uint64(4))) & EIGHTS
    return (bits * BYTES) >> np.uint64(56)


@compiled
def _members(words: Array, found: Array) -> int:
    """Write which bits are set to the beginning of an array, ascending, and return how many."""
    count = 0
    for w in range(len(words)):
        bits = words[w]
        while bits != 0:
            rest = bits & (bits - ONE)
            found[count] = 64 * w + np.int64(_count((bits ^ rest) - ONE))
            bits, count = rest, count + 1
    return count


@compiled
def _graph(starts: Array, columns: Array, first: int, n: int) -> tuple[Array, bool]:
    """Return the bits of the couplings between n rows from a first one on.

    Returns:
        Those of each row, shape (n, n / 64), and whether no entry leads out of the block, none
        occurs twice, and each has one opposite.
    """
    graph, found = np.zeros((n, (n + 63) // 64), dtype=np.uint64), np.empty(n, dtype=np.int64)
    for i in range(n):
        for entry in range(starts[first + i], starts[first + i + 1]):
            j = columns[entry] - first
            if j < 0 or j >= n or (graph[i, j >> 6] >> np.uint64(j & 63)) & ONE:
                return graph, False
            graph[i, j >> 6] |= ONE << np.uint64(j & 63)
    for i in range(n):
        for q in range(_members(graph[i], found)):
            if not (graph[found[q], i >> 6] >> np.uint64(i & 63)) & ONE:
                return graph, False
    for i in range(n):
        graph[i, i >> 6] &= ~(ONE << np.uint64(i & 63))
    return graph, True


@compiled
def _eliminate(graph: Array) -> Array:
    """Return the rows of a block in an order of least degree, shape (n,).

    Args:
        graph: Bits of the couplings, replaced by those of the later rows in each row's column of L.
    """
    n = len(graph)
    degrees, order = np.zeros(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    found = np.empty(n, dtype=np.int64)
    for i in range(n):
        degrees[i] = _members(graph[i], found)
    for k in range(n):
        least = 0
        for i in range(n):
            if degrees[i] < degrees[least]:
                least = i
        order[k], degrees[least] = least, TAKEN
        row = graph[least]
        for q in range(_members(row, found)):
            i = found[q]
            near, degree = graph[i], np.uint64(0)
            for w in range(len(row)):
                near[w] |= row[w]
            near[least >> 6] &= ~(ONE << np.uint64(least & 63))
            near[i >> 6] &= ~(ONE << np.uint64(i & 63))
            for w in range(len(row)):
                degree += _count(near[w])
            degrees[i] = degree
    return order


@compiled
def _factorise(
    starts: Array, columns: Array, values: Array, first: int, n: int, graph: Array
) -> tuple[Array, Array, Array, Array, Array, Array, Array, Array]:
    """Return the factors of a block of n rows from a first one on.

    Args:
        starts: Of the rows of the matrix.
        columns: Of its entries.
        values: The same.
        first: The first row of the block.
        n: How many it has.
        graph: From `_graph`, to overwrite.

    Returns:
        The position of each row in the order; starts, rows and values of L and of U = D L' by
        columns, the diagonals of L first and of U last; D.
    """
    order = _eliminate(graph)
    positions, found = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int64)
    L_starts, U_starts = np.zeros(n + 1, dtype=np.int32), np.zeros(n + 1, dtype=np.int32)
    for k in range(n):
        positions[order[k]] = k
    for k in range(n):
        count = _members(graph[order[k]], found)
        L_starts[k + 1] = L_starts[k] + count + 1
        U_starts[k + 1] += 1
        for q in range(count):
            U_starts[positions[found[q]] + 1] += 1
    for k in range(n):
        U_starts[k + 1] += U_starts[k]
    size = L_starts[n]
    L_rows, U_rows = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
    end = U_starts[:-1].copy()
    for k in range(n):
        for q in range(_members(graph[order[k]], found)):
            i = positions[found[q]]
            U_rows[end[i]] = k
            end[i] += 1
    L, U, pivots, work = np.empty(size), np.empty(size), np.empty(n), np.zeros(n)
    end[:] = L_starts[:-1] + 1
    for i in range(n):
        row, pivot = first + order[i], 0.0
        for entry in range(starts[row], starts[row + 1]):
            k = positions[columns[entry] - first]
            if k < i:
                work[k] = values[entry]
            elif k == i:
                pivot = values[entry]
        last = U_starts[i + 1] - 1
        for q in range(U_starts[i], last):
            k = U_rows[q]
            value = work[k]
            work[k] = 0.0
            for entry in range(L_starts[k] + 1, end[k]):
                work[L_rows[entry]] -= L[entry] * value
            factor = value / pivots[k]
            pivot -= factor * value
            U[q], L[end[k]], L_rows[end[k]] = value, factor, i
            end[k] += 1
        U_rows[last], U[last], pivots[i] = i, pivot, pivot
        L_rows[L_starts[i]], L[L_starts[i]] = i, 1.0
    return positions, L_starts, L_rows, L, U_starts, U_rows, U, pivots

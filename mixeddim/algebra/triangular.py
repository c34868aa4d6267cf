"""Compiled solves with triangular factors, of SuperLU or of `cholesky`.

Those of a network have few entries, so that most of the time of SuperLU's own solves goes into
calls. Where numba is missing its own solves do the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU

from mixeddim.algebra.compiler import ARE_COMPILED, compiled

__all__ = ["NO_FACTORS", "Array", "Factors", "factors_of", "factors_solver", "substitute"]

MOST_ENTRIES = 10_000_000
"""Larger factors stay where they are, in SuperLU's blocks."""

type Array = NDArray[Any]
type Factors = tuple[Array, ...]
"""Scales of rows and columns, permutations, then starts, rows and values of L and of U by columns.

With E the scales on a diagonal, P and Q the permutations, A^-1 = E Q U^-1 L^-1 P E.
"""


def _none() -> Factors:
    values, starts = np.empty(0), np.zeros(1, dtype=np.int32)
    index = starts[:0]
    return values, index, index, starts, index, values, starts, index, values


NO_FACTORS: Final = _none()
"""Those of a matrix without rows."""


def factors_of(factors: SuperLU, scale: Array | None = None) -> Factors:
    """Return the factors of E A E as arrays.

    Args:
        factors: From `scipy.sparse.linalg.splu`.
        scale: The diagonal of E; 1 by default.
    """
    L, U = factors.L, factors.U
    L.sort_indices()
    U.sort_indices()
    E = np.ones(L.shape[0]) if scale is None else scale
    permutations = (factors.perm_r, factors.perm_c)
    return (E, *permutations, L.indptr, L.indices, L.data, U.indptr, U.indices, U.data)


def factors_solver(factors: SuperLU) -> Callable[[Array], Array]:
    """Return b -> A^-1 b, for shapes (n,) and (n, k)."""
    if not ARE_COMPILED or factors.nnz > MOST_ENTRIES:
        solve_by_superlu: Callable[[Array], Array] = factors.solve
        return solve_by_superlu
    parts = factors_of(factors)

    def solve(b: Array) -> Array:
        if b.ndim == 2:
            columns = np.empty(b.shape)
            substitute_in_columns(parts, np.ascontiguousarray(b), np.empty(b.shape), columns)
            return columns
        y, x = np.empty(len(b)), np.empty(len(b))
        substitute(parts, b, y, x)
        return x

    return solve


@compiled
def substitute(factors: Factors, b: Array, y: Array, x: Array) -> None:
    """Set x to A^-1 b; y holds what is between, x may be b."""
    E, perm_r, perm_c, L_starts, L_rows, L, U_starts, U_rows, U = factors
    n = len(b)
    for i in range(n):
        y[perm_r[i]] = E[i] * b[i]
    for j in range(n):
        value = y[j]
        if value != 0.0:
            for entry in range(L_starts[j] + 1, L_starts[j + 1]):
                y[L_rows[entry]] -= L[entry] * value
    for j in range(n - 1, -1, -1):
        last = U_starts[j + 1] - 1
        y[j] /= U[last]
        value = y[j]
        for entry in range(U_starts[j], last):
            y[U_rows[entry]] -= U[entry] * value
    for i in range(n):
        x[i] = E[i] * y[perm_c[i]]


@compiled
def substitute_in_columns(factors: Factors, b: Array, y: Array, x: Array) -> None:
    """Do the same for all columns of (n, k) together."""
    E, perm_r, perm_c, L_starts, L_rows, L, U_starts, U_rows, U = factors
    n, num_columns = b.shape
    for i in range(n):
        for k in range(num_columns):
            y[perm_r[i], k] = E[i] * b[i, k]
    for j in range(n):
        for entry in range(L_starts[j] + 1, L_starts[j + 1]):
            row, value = L_rows[entry], L[entry]
            for k in range(num_columns):
                y[row, k] -= value * y[j, k]
    for j in range(n - 1, -1, -1):
        last = U_starts[j + 1] - 1
        for k in range(num_columns):
            y[j, k] /= U[last]
        for entry in range(U_starts[j], last):
            row, value = U_rows[entry], U[entry]
            for k in range(num_columns):
                y[row, k] -= value * y[j, k]
    for i in range(n):
        for k in range(num_columns):
            x[i, k] = E[i] * y[perm_c[i], k]

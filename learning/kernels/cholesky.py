"""Loops of incomplete Cholesky factors on a grid (see `preconditioners.multigrid.cholesky`).

A grid of shape (nx, ny, nz) here is one in the order of its nodes, from the slowest axis to the
fastest.
"""

from __future__ import annotations

from itertools import product
from typing import Final

import numpy as np

from learning.kernels.compiler import Array, compiled

__all__ = ["factorise_incompletely", "gather_entries", "pack_factors", "solve_incomplete"]

OFFSETS: Final = np.array(list(product((-1, 0, 1), repeat=3)))
"""To a node and all its neighbours."""
CENTRE: Final = 13

LEAST_PIVOT: Final = 0.05
"""Of a diagonal entry: where less remains, `factorise_incompletely` returns False."""

type Shape = tuple[int, int, int]


@compiled
def gather_entries(
    stencil: Array, added: Array, offsets: Array, shape: Shape, first: int, strides: Shape
) -> tuple[Array, Array]:
    """Return the entries towards later nodes (n, 13) and the diagonal (n,), in order.

    Args:
        stencil: Shape (27, n), in grid order.
        added: To the diagonal, shape (n,), in grid order.
        offsets: The number of each offset in grid order.
        shape: Of the grid in this order.
        first: The first node.
        strides: From node to node along the axes.
    """
    nx, ny, nz = shape
    entries, pivots = np.zeros((nx * ny * nz, 13)), np.empty(nx * ny * nz)
    node = 0
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                at = first + i * strides[0] + j * strides[1] + k * strides[2]
                diagonal = stencil[CENTRE, at] + added[at]
                for o in range(27):
                    if o == CENTRE:
                        continue
                    x, y, z = i + OFFSETS[o, 0], j + OFFSETS[o, 1], k + OFFSETS[o, 2]
                    if 0 <= x < nx and 0 <= y < ny and 0 <= z < nz:
                        if o > CENTRE:
                            entries[node, o - 14] = stencil[offsets[o], at]
                    else:
                        diagonal += abs(stencil[offsets[o], at])
                pivots[node] = diagonal
                node += 1
    return entries, pivots


@compiled
def factorise_incompletely(
    entries: Array, pivots: Array, pairs: Array, shape: Shape, expected: float, opposite: float
) -> bool:
    """Factor in place, one node after the other, and return whether no pivot was too small.

    Args:
        entries: See `gather_entries`.
        pivots: The diagonal.
        pairs: Which forward offset leads from one forward neighbour to another, or -1, (13, 13).
        shape: Of the grid.
        expected: Share of the fill left out that goes to the diagonal, where of diffusion's sign.
        opposite: The same of the other sign.
    """
    steps = np.empty(13, dtype=np.int64)
    for a in range(13):
        o = 14 + a
        steps[a] = (OFFSETS[o, 0] * shape[1] + OFFSETS[o, 1]) * shape[2] + OFFSETS[o, 2]
    diagonal = pivots.copy()
    for i in range(len(pivots)):
        if not pivots[i] > LEAST_PIVOT * diagonal[i]:
            if expected < 1.0:
                return False
            pivots[i] = diagonal[i]  # rounding of a matrix that is nearly singular
        for a in range(13):
            u = entries[i, a]
            if u == 0.0:
                continue
            j = i + steps[a]
            factor = u / pivots[i]
            pivots[j] -= u * factor
            for b in range(a + 1, 13):
                w = entries[i, b]
                if w == 0.0:
                    continue
                fill = w * factor
                if pairs[a, b] >= 0:
                    entries[j, pairs[a, b]] -= fill
                else:
                    share = expected * fill if fill > 0.0 else -opposite * fill
                    pivots[j] += share
                    pivots[i + steps[b]] += share
    return True


@compiled
def pack_factors(entries: Array, pivots: Array, shape: Shape, zero: Array) -> tuple[Array, Array]:
    """Return L' and D^-1 in the layout and the dtype in which they are applied."""
    nx, ny, nz = shape
    size = (ny + 2) * (nz + 2)
    upper, inverse = np.zeros((nx, 13, size), zero.dtype), np.zeros((nx, size), zero.dtype)
    node = 0
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                at, pivot = (j + 1) * (nz + 2) + k + 1, 1.0 / pivots[node]
                inverse[i, at] = pivot
                for a in range(13):
                    upper[i, a, at] = entries[node, a] * pivot
                node += 1
    return upper, inverse


@compiled
def _subtract(t: Array, a: Array, b: Array, c: Array, x: Array, y: Array, z: Array) -> None:
    """Subtract three products from t; whole slices from 0 on, or it is not vectorised."""
    for q in range(len(t)):
        t[q] -= a[q] * x[q] + b[q] * y[q] + c[q] * z[q]


@compiled
def solve_incomplete(
    upper: Array, inverse: Array, r: Array, x: Array, ny: int, nz: int, first: int, strides: Shape
) -> None:
    """Solve L D L' x = r, plane by plane, and row by row within each.

    Args:
        upper: L' without its diagonal (see `Factor` of the smoother).
        inverse: D^-1.
        r: In grid order, shape (n,).
        x: To overwrite.
        ny: Nodes along the second axis.
        nz: Along the third.
        first: The first node.
        strides: From node to node along the axes.
    """
    nx, width = len(upper), nz + 2
    step_x, step_y, step_z = strides
    low, high = width + 1, (ny + 1) * width - 1
    y = np.zeros(inverse.shape, x.dtype)
    for i in range(nx):
        t = y[i]
        for j in range(ny):
            at, q = first + i * step_x + j * step_y, (j + 1) * width + 1
            for k in range(nz):
                t[q + k] = r[at + k * step_z]
        # The forward offsets are (0, 0, 1), then three each of (0, 1, .), (1, -1, .),
        # (1, 0, .) and (1, 1, .).
        for row in range(3 if i > 0 else 0):
            u, z, o, s = upper[i - 1], y[i - 1], 4 + 3 * row, (row - 1) * width
            b, e = low - s, high - s
            _subtract(
                t[low:high], u[o, b + 1 : e + 1], u[o + 1, b:e], u[o + 2, b - 1 : e - 1],
                z[b + 1 : e + 1], z[b:e], z[b - 1 : e - 1],
            )  # fmt: skip
        u = upper[i]
        for j in range(ny):
            q = (j + 1) * width + 1
            e = q + nz
            here, along = t[q:e], u[0, q:e]
            if j > 0:
                b, e = q - width, e - width
                _subtract(
                    here, u[1, b + 1 : e + 1], u[2, b:e], u[3, b - 1 : e - 1],
                    t[b + 1 : e + 1], t[b:e], t[b - 1 : e - 1],
                )  # fmt: skip
            last = here[0]
            for k in range(nz - 1):
                last = here[k + 1] - along[k] * last
                here[k + 1] = last
    for i in range(nx - 1, -1, -1):
        t, u, d = y[i], upper[i], inverse[i]
        for q in range(len(t)):
            t[q] *= d[q]
        for row in range(3 if i + 1 < nx else 0):
            z, o, s = y[i + 1], 4 + 3 * row, (row - 1) * width
            b, e = low + s, high + s
            _subtract(
                t[low:high], u[o, low:high], u[o + 1, low:high], u[o + 2, low:high],
                z[b - 1 : e - 1], z[b:e], z[b + 1 : e + 1],
            )  # fmt: skip
        for j in range(ny - 1, -1, -1):
            q = (j + 1) * width + 1
            e = q + nz
            here, along = t[q:e], u[0, q:e]
            if j + 1 < ny:
                b, f = q + width, e + width
                _subtract(
                    here, u[1, q:e], u[2, q:e], u[3, q:e],
                    t[b - 1 : f - 1], t[b:f], t[b + 1 : f + 1],
                )  # fmt: skip
            at, last = first + i * step_x + j * step_y, here[nz - 1]
            x[at + (nz - 1) * step_z] = last
            for k in range(nz - 2, -1, -1):
                last = here[k] - along[k] * last
                here[k] = last
                x[at + k * step_z] = last

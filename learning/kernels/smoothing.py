"""Loops over S = A_0 + Pi' C Pi: its products, and the smoother."""

from __future__ import annotations

import numpy as np

from learning.kernels.compiler import Array, Arrays, compiled
from learning.kernels.rows import add_transposed_rows, multiply_rows, subtract_squared_rows
from learning.kernels.stencils import multiply_stencils
from mixeddim.tensors import substitute

__all__ = ["add_exchange", "invert_exchange", "multiply_system", "smooth"]


@compiled
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


@compiled
def multiply_system(
    A: Arrays, Pi: Arrays, N: Arrays, A_11: Arrays, x: Array, means: Array, network: Array, y: Array
) -> None:
    """Set y to S x = A x + Pi' (1 - N A_11^-1 N') Pi x, both of shape (batch, n)."""
    multiply_stencils(A, x, y)
    add_exchange(Pi, N, A_11, x.ravel(), means, network, y.ravel())


@compiled
def invert_exchange(
    Pi: Arrays, inverse: Array, K: Arrays, bounds: Arrays, r: Array, x: Array
) -> None:
    """Set x to (D + Pi' C Pi)^-1 r, or for some systems of a batch to what is near and below.

    Args:
        Pi: Rows, (batch num_points, n), n the nodes of all systems.
        inverse: D^-1, a diagonal, shape (n,).
        K: Factors, as in `_by_factors`, or those of no rows where all systems do without.
        bounds: As in `_by_polynomials`.
        r: Shape (n,).
        x: To overwrite.
    """
    if len(K[0]) > 0:
        _by_factors(Pi, inverse, K, r, x)
    _by_polynomials(Pi, bounds, r, x)


@compiled
def _by_polynomials(Pi: Arrays, bounds: Arrays, r: Array, x: Array) -> None:
    """Set x to polynomials near (D + Pi' Pi)^-1 r, each system by its own.

    Args:
        Pi: Rows, (batch num_points, n).
        bounds: D and a diagonal below that inverse, shape (n,); the first node of each system and
            the end of the last, shape (batch + 1,); each polynomial by its iteration, as in
            `smooth`, and zeros, shape (batch, degree, 2); and the factor of its result, shape
            (batch,). Systems of no steps are left out.
        r: Shape (n,).
        x: To overwrite.
    """
    D, base, starts, steps, scales = bounds
    num_points = (len(Pi[0]) - 1) // len(steps)
    step, residual = np.empty_like(r), np.empty_like(r)
    for b in range(len(steps)):
        nodes = range(starts[b], starts[b + 1])
        for degree in range(steps.shape[1]):
            kept, added = steps[b, degree, 0], steps[b, degree, 1]
            if added == 0:
                break
            if degree == 0:
                for k in nodes:
                    residual[k] = scales[b] * r[k]
                    step[k] = added * base[k] * residual[k]
                    x[k] = step[k]
            else:
                for k in nodes:
                    residual[k] -= D[k] * step[k]
                subtract_squared_rows(Pi, b * num_points, (b + 1) * num_points, step, residual)
                for k in nodes:
                    step[k] = kept * step[k] + added * base[k] * residual[k]
                    x[k] += step[k]


@compiled
def _by_factors(Pi: Arrays, inverse: Array, K: Arrays, r: Array, x: Array) -> None:
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


@compiled
def smooth(
    A: Arrays, Pi: Arrays, N: Arrays, A_11: Arrays, means: Array, network: Array,
    diagonal: Array, lumped: Array, near: Array, Pi_near: Arrays, inverse: Array, K: Arrays,
    bounds: Arrays, steps: Array, r: Array, step: Array, residual: Array, x: Array,
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
        bounds: The same.
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
            invert_exchange(Pi_near, inverse, K, bounds, here, there)
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

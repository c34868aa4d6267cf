"""Chebyshev polynomials of a smoother, and inverses by them, for vectors of numpy and of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

__all__ = ["chebyshev", "fourth_kind", "nearly_inverse"]

LEFT: Final = 0.25
"""What `nearly_inverse` may leave of an error."""
MOST_DEGREE: Final = 100
"""The highest degree that it takes for that."""
WELL_CONDITIONED: Final = 1.3
"""Up to this condition the smoother itself is near enough."""

type _Map = Callable[[Any], Any]


def chebyshev(smooth: _Map, apply: _Map, degree: int, low: float, high: float) -> _Map:
    """Return the Chebyshev polynomial of a smoother, or the smoother itself where degree is 1.

    It damps the eigenvalues of M A between two bounds, and those below less, but all of them, so
    that it is symmetric positive definite and convergent as its base is (Adams, Brezina, Hu &
    Tuminaro 2003, doi:10.1016/S0021-9991(03)00194-3).

    Args:
        smooth: M, symmetric positive definite.
        apply: A, symmetric positive definite.
        degree: Number of times M is applied, at least 1; A one time fewer.
        low: From where eigenvalues are damped.
        high: The largest.
    """
    if degree == 1:
        return smooth
    centre, radius = (high + low) / 2.0, (high - low) / 2.0

    def polynomial(r: Any) -> Any:
        step = smooth(r) / centre
        x, ratio = step, radius / centre
        for _ in range(degree - 1):
            next_ratio = 1.0 / (2.0 * centre / radius - ratio)
            residual = smooth(r - apply(x))
            step = next_ratio * ratio * step + 2.0 * next_ratio / radius * residual
            x, ratio = x + step, next_ratio
        return x

    return polynomial


def fourth_kind(smooth: _Map, apply: _Map, degree: int, high: float) -> _Map:
    """Return the polynomial of the fourth kind of a smoother, for the cycle of a multigrid.

    It is the best for a bound on cycles that holds whatever the grids, and needs no lower bound on
    eigenvalues (Lottes 2023, doi:10.1002/nla.2518). Symmetric positive definite and convergent as
    its base is.

    Args:
        smooth: M, symmetric positive definite.
        apply: A, symmetric positive definite.
        degree: Number of times M is applied, at least 1; A one time fewer.
        high: The largest eigenvalue of M A.
    """

    def polynomial(r: Any) -> Any:
        step = smooth(r) * (4.0 / (3.0 * high))
        x = step
        for k in range(2, degree + 1):
            residual = smooth(r - apply(x))
            step = (2 * k - 3) / (2 * k + 1) * step + (8 * k - 4) / ((2 * k + 1) * high) * residual
            x = x + step
        return x

    return polynomial


def nearly_inverse(smooth: _Map, apply: _Map, condition: float) -> _Map:
    """Return a polynomial near A^-1, symmetric positive definite and never above it.

    Its degree is of the order of the square root of the condition.

    Args:
        smooth: M, symmetric positive definite, with M <= A^-1.
        apply: A.
        condition: A number with M >= A^-1 / condition.
    """
    if condition <= WELL_CONDITIONED:
        return smooth
    low = 1.0 / condition
    degree = np.arccosh(1.0 / LEFT) / np.arccosh((1.0 + low) / (1.0 - low))
    degree = int(max(2, min(np.ceil(degree), MOST_DEGREE)))
    # Where the degree is cut, eigenvalues below this one are damped less.
    ratio = np.cosh(np.arccosh(1.0 / LEFT) / degree)
    low = max(low, float((ratio - 1.0) / (ratio + 1.0)))
    left = float(1.0 / np.cosh(degree * np.arccosh((1.0 + low) / (1.0 - low))))
    polynomial = chebyshev(smooth, apply, degree, low, 1.0)
    return lambda r: polynomial(r) / (1.0 + left)

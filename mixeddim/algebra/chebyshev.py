"""Chebyshev polynomials of a smoother, and inverses by them, for vectors of numpy and of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

__all__ = [
    "chebyshev",
    "chebyshev_steps",
    "fourth_kind_steps",
    "iteration",
    "nearly_inverse",
    "nearly_inverse_steps",
]

LEFT: Final = 0.25
"""What `nearly_inverse` may leave of an error, unless told."""
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
    return iteration(smooth, apply, *chebyshev_steps(degree, low, high))


def iteration(
    smooth: _Map, apply: _Map, first: float, steps: Sequence[tuple[float, float]]
) -> _Map:
    """Return a polynomial of a smoother by its iteration (see `chebyshev_steps`)."""

    def polynomial(r: Any) -> Any:
        step = first * smooth(r)
        x = step
        for kept, added in steps:
            step = kept * step + added * smooth(r - apply(x))
            x = x + step
        return x

    return polynomial


def chebyshev_steps(
    degree: int, low: float, high: float
) -> tuple[float, list[tuple[float, float]]]:
    """Return the factors of Chebyshev's iteration for eigenvalues of M A between two bounds.

    It starts with x = step = first M r; each of the others makes a new step, that many times the
    last one and that many times M (r - A x), and adds it to x.
    """
    centre, radius = (high + low) / 2.0, (high - low) / 2.0
    ratio, steps = radius / centre, []
    for _ in range(degree - 1):
        next_ratio = 1.0 / (2.0 * centre / radius - ratio)
        steps.append((next_ratio * ratio, 2.0 * next_ratio / radius))
        ratio = next_ratio
    return 1.0 / centre, steps


def fourth_kind_steps(degree: int, high: float) -> tuple[float, list[tuple[float, float]]]:
    """Return the factors of the iteration of the fourth kind, as `chebyshev_steps` has them.

    Its polynomial is the best for a bound on the cycles of a multigrid that holds whatever the
    grids, and needs no lower bound on eigenvalues (Lottes 2023, doi:10.1002/nla.2518).

    Args:
        degree: Number of times M is applied, at least 1; A one time fewer.
        high: The largest eigenvalue of M A.
    """
    steps = [
        ((2 * k - 3) / (2 * k + 1), (8 * k - 4) / ((2 * k + 1) * high))
        for k in range(2, degree + 1)
    ]
    return 4.0 / (3.0 * high), steps


def nearly_inverse(smooth: _Map, apply: _Map, condition: float, left: float = LEFT) -> _Map:
    """Return a polynomial near A^-1, symmetric positive definite and never above it.

    Its degree is of the order of the square root of the condition.

    Args:
        smooth: M, symmetric positive definite, with M <= A^-1.
        apply: A.
        condition: A number with M >= A^-1 / condition.
        left: The share of an error that it may leave.
    """
    first, steps, scale = nearly_inverse_steps(condition, left)
    polynomial = iteration(smooth, apply, first, steps)
    return polynomial if scale == 1.0 else lambda r: scale * polynomial(r)


def nearly_inverse_steps(
    condition: float, left: float = LEFT
) -> tuple[float, list[tuple[float, float]], float]:
    """Return the factors of the iteration of `nearly_inverse`, and the one of its result.

    The eigenvalues of that iteration times A lie between 1 - e and 1 + e, e being what it leaves of
    an error, and a last factor of 1 / (1 + e) brings them to 1 and below.

    Args:
        condition: See `nearly_inverse`.
        left: The same.
    """
    if condition <= WELL_CONDITIONED:
        return 1.0, [], 1.0
    low = 1.0 / condition
    degree = np.arccosh(1.0 / left) / np.arccosh((1.0 + low) / (1.0 - low))
    degree = int(max(2, min(np.ceil(degree), MOST_DEGREE)))
    # Where the degree is cut, eigenvalues below this one are damped less.
    ratio = np.cosh(np.arccosh(1.0 / left) / degree)
    low = max(low, float((ratio - 1.0) / (ratio + 1.0)))
    rest = float(1.0 / np.cosh(degree * np.arccosh((1.0 + low) / (1.0 - low))))
    first, steps = chebyshev_steps(degree, low, 1.0)
    return first, steps, 1.0 / (1.0 + rest)

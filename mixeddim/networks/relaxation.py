"""Fixed points x = F(x) as steady states, by pseudo-transient continuation.

The iteration x <- F(x) need not converge, and Newton's method gets caught where |F(x) - x| is small
but not zero: near a fold, where two fixed points have met and vanished. Relaxation

    dx/dt = F(x) - x

passes by such places. Steps of implicit Euler, linearised once, go far where it is slow:

    ((1 + 1/dt) I - F'(x)) s = F(x) - x        x <- x + s

(Kelley & Keyes 1998, doi:10.1137/S0036142996304796). For dt -> infinity this is Newton's method.
The linear model predicts that s / dt is left of F(x) - x. Where that is far off, dt is cut, and it
grows where it is right. GMRES solves for s, from products with F' alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, gmres

__all__ = ["State", "relax"]

type Array = NDArray[np.float64]

GROWTH: Final = 4.0
"""What dt is multiplied by at most, and divided by where a step fails."""

MOST_OFF: Final = 0.7
"""Part of the change that a step may miss."""

SMALLEST_STEP: Final = 0.25
"""Shortest dt: a step there is close to one of damped iteration, and is taken anyway."""

LEAST_WEIGHT: Final = 1e-4
"""Components of less weight take F(x)."""


@dataclass(frozen=True, eq=False)
class State:
    """F at some x.

    Attributes:
        change: F(x) - x.
        weight: What each component counts, at most 1.
        derivative: v -> F'(x) v.
    """

    change: Array
    weight: Array
    derivative: Callable[[Array], Array]


def relax[S: State](
    evaluate: Callable[[Array], S],
    x: Array,
    limits: tuple[float, float],
    atol: float,
    max_iterations: int,
) -> tuple[Array, S, list[float]]:
    """Relax to a fixed point.

    Args:
        evaluate: From x to F there.
        x: Where to start.
        limits: Between which x lies.
        atol: Where to stop: no component would change by more.
        max_iterations: How often to evaluate at most.

    Returns:
        The best x, F there, and the largest change at each x evaluated; the last one is at most
        atol if the iteration has converged, and then belongs to that x.
    """
    state, dt = evaluate(x), 1.0
    changes = [_largest(state.change)]
    best = (changes[0], x, state)
    while not changes[-1] <= atol and len(changes) < max_iterations:  # NaN is no end
        step = _implicit_step(state, dt)
        new_x = np.clip(x + step, *limits)
        new = evaluate(new_x)
        changes.append(_largest(new.change))
        if changes[-1] < best[0]:
            best = changes[-1], new_x, new
        off = np.linalg.norm(state.weight * (new.change - step / dt))
        off /= max(float(np.linalg.norm(state.weight * state.change)), np.finfo(float).tiny)
        if off < MOST_OFF or dt <= SMALLEST_STEP:
            x, state = new_x, new
            dt *= min(GROWTH, max(1 / GROWTH, 0.5 * MOST_OFF / max(float(off), 1e-300)))
        else:
            dt /= GROWTH
        dt = max(dt, SMALLEST_STEP)
    return best[1], best[2], changes


def _implicit_step(state: State, dt: float) -> Array:
    counts = state.weight > LEAST_WEIGHT
    root = state.weight[counts]

    def apply(y: Array) -> Array:
        v = np.zeros_like(state.change)
        v[counts] = y / root
        product: Array = (1 + 1 / dt) * y - root * state.derivative(v)[counts]
        return product

    step = state.change.copy()
    operator = LinearOperator((root.size, root.size), matvec=apply, dtype=float)
    y, _ = gmres(operator, root * step[counts], rtol=0.05, restart=40, maxiter=1)
    step[counts] = y / root
    return step


def _largest(change: Array) -> float:
    return float(abs(change).max(initial=0.0))

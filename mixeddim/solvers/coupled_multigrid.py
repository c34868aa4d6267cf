"""Algebraic multigrid for S u_3d = g that knows of the network on every level.

With the averaging matrix Pi and the network basis N scaled by the square roots of weights and wall
conductances, and K_1 the network without exchange,

    S = A_0 + Pi' C Pi      A_0 = K + M      C = 1 - N A_11^-1 N'      A_11 = K_1 + N' N

keeps this form on every level: with P the interpolation from the next level, P' S P has P' A_0 P in
place of A_0, Pi P in place of Pi, and the same C. P comes from smoothed aggregation of A_0 (see
`coarsening`).

The smoother is the inverse of D / omega + Pi' C Pi, with D the sums of |A_0| along its rows, or
what bounds it in large networks (see `exchange`). As D >= A_0 in the sense of quadratic forms, no
eigenvalue of smoother times S exceeds omega < 2, and the V-cycle is symmetric positive definite for
coefficients of any size (Baker, Falgout, Kolev & Yang 2011, doi:10.1137/100798806, for the bound).
Nothing is dense. On several processes the matrices of large levels are those of `distributed`, and
their products read the same.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.fem.assembly import CoupledSystem
from mixeddim.solvers.coarsening import interpolations, rows_to_coarsen
from mixeddim.solvers.exchange import Exchange, exchange_of

__all__ = ["CoupledMultigrid"]

RELAXATION: Final = 1.6
"""omega."""

type _Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class _Level:
    """S = A_0 + Pi' C Pi on one level.

    Attributes:
        A_0: Tissue without exchange.
        exchange: Pi' C Pi.
        smooth: The smoother.
        P: Interpolation from the next level.
    """

    A_0: Any
    exchange: Exchange
    smooth: _Map
    P: Any

    def apply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return S v."""
        product: NDArray[np.float64] = self.A_0 @ v + self.exchange.apply(v)
        return product


class CoupledMultigrid:
    """One symmetric V(1,1)-cycle for S, a symmetric positive definite map r -> M r.

    Args:
        system: The coupled system.

    Raises:
        RuntimeError: If the system is singular on its coarsest level.
    """

    def __init__(self, system: CoupledSystem) -> None:
        A_0 = system.A_0
        roots = sparse.diags_array(np.sqrt(system.coupling.weights * system.coupling.beta))
        Pi, N = (roots @ system.Pi).tocsr(), (roots @ system.N).tocsr()
        exchange = exchange_of(Pi, N, system.A_11, system.K_1d)
        self._levels: list[_Level] = []
        for P in interpolations(rows_to_coarsen(system), system.processes):
            smooth = exchange.smoother(abs(A_0).sum(axis=1) / RELAXATION)
            self._levels.append(_Level(A_0, exchange, smooth, P))
            A_0, exchange = (P.T @ (A_0 @ P)).tocsr(), exchange.coarse(P)
        self._coarsest = exchange.inverse(A_0)

    def __repr__(self) -> str:
        return f"CoupledMultigrid({len(self._levels) + 1} levels)"

    def __call__(self, r: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return M r.

        Args:
            r: Residual of S u_3d = g, shape (num_dofs_3d,); on several processes the owned part.
        """
        return self._cycle(r, 0)

    def _cycle(self, r: NDArray[np.float64], depth: int) -> NDArray[np.float64]:
        if depth == len(self._levels):
            return self._coarsest(r)
        level = self._levels[depth]
        x = level.smooth(r)
        x = x + level.P @ self._cycle(level.P.T @ (r - level.apply(x)), depth + 1)
        return x + level.smooth(r - level.apply(x))

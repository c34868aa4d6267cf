"""Multigrid for the pressures of a large network, whose factors would fill the memory.

The matrix of Kirchhoff's law is a graph's Laplacian: symmetric, with no positive entry beside the
diagonal, each row with a sum of zero or more. Nodes are merged in pairs, and the pairs in pairs,
each with the neighbour whose link is strongest beside what else holds the two; the merged nodes
have one pressure. On each level Chebyshev's polynomial of degree 2 smooths, and two steps of
conjugate gradients solve the next coarser one (K-cycle). All work grows as the number of nodes.

Sources: Y. Notay, Electron. Trans. Numer. Anal. 37 (2010) 123, on aggregation by pairs; Y. Notay,
P. S. Vassilevski, Numer. Linear Algebra Appl. 15 (2008) 473, on the K-cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

__all__ = ["Multigrid"]

type Floats = NDArray[np.float64]

COARSEST = 2000  # unknowns that are solved for by factors
ROUNDS = 3  # of finding pairs, after which few nodes are single
# The eigenvalues of D⁻¹ A lie between 0 and 2. Smoothing damps those above the lesser bound.
SMOOTHED = (0.5, 2.0)


@dataclass(frozen=True, eq=False)
class _Level:
    """A matrix, its diagonal, and P from the next coarser level to this one."""

    A: sparse.csr_array
    diagonal: Floats
    P: sparse.csr_array
    R: sparse.csr_array


class Multigrid:
    """Solve A x = b by conjugate gradients with a multigrid cycle.

    Args:
        A: Laplacian of a graph, each component of which is held somewhere, shape `(n, n)`.
    """

    def __init__(self, A: sparse.csr_array) -> None:
        rng = np.random.default_rng(0)
        self._levels: list[_Level] = []
        while A.shape[0] > COARSEST:
            P = _pairs(A, rng)
            P = P @ _pairs((P.T @ A @ P).tocsr(), rng)
            if P.shape[1] > 0.8 * P.shape[0]:  # of nodes without links the factors are sparse
                break
            R = P.T.tocsr()
            self._levels.append(_Level(A, A.diagonal(), P, R))
            A = (R @ A @ P).tocsr()
        self._coarsest = A
        self._solve_coarsest: Callable[[Floats], Floats] = splu(
            A.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}
        ).solve

    def solve(self, b: Floats, rtol: float = 1e-8, max_iterations: int = 500) -> Floats | None:
        """Return x with a residual below rtol in the norm of D⁻¹, or None if it is not found.

        Args:
            b: Shape `(n,)`.
            rtol: Bound of the residual, relative to b.
            max_iterations: After which to give up.
        """
        A = self._levels[0].A if self._levels else self._coarsest
        inverse_diagonal = 1.0 / A.diagonal()
        x, r = np.zeros_like(b), b.copy()
        p = Ap = np.zeros_like(b)
        pAp = 1.0
        bound = rtol**2 * (b @ (inverse_diagonal * b))
        for _ in range(max_iterations):
            if r @ (inverse_diagonal * r) <= bound:
                return x
            # The cycle is not quite linear, so that p is made A-orthogonal to the last one anew.
            z = self._cycle(r, 0)
            p = z - (z @ Ap / pAp) * p
            Ap = A @ p
            pAp = p @ Ap
            step = (p @ r) / pAp
            x += step * p
            r -= step * Ap
        return None

    def _cycle(self, b: Floats, number: int) -> Floats:
        """Return an approximate solution on a level."""
        if number == len(self._levels):
            return self._solve_coarsest(b)
        level = self._levels[number]
        x = _smooth(level, b)
        x += level.P @ self._coarse(level.R @ (b - level.A @ x), number + 1)
        return x + _smooth(level, b - level.A @ x)

    def _coarse(self, b: Floats, number: int) -> Floats:
        """Return the best combination of two cycles on a level, of which the second may be saved.

        Notay & Vassilevski, Algorithm 3.1, for conjugate gradients.
        """
        c = self._cycle(b, number)
        if number == len(self._levels):
            return c
        A = self._levels[number].A
        v = A @ c
        cAc, cb = c @ v, c @ b
        r = b - (cb / cAc) * v if cAc > 0.0 else b
        if cAc <= 0.0 or r @ r <= 0.0625 * (b @ b):
            return (cb / cAc) * c if cAc > 0.0 else c
        d = self._cycle(r, number)
        w = A @ d
        dAc, dAd, dr = d @ v, d @ w, d @ r
        rest = dAd - dAc**2 / cAc
        if rest <= 0.0:
            return (cb / cAc) * c
        return (cb / cAc - dAc * dr / (cAc * rest)) * c + (dr / rest) * d


def _smooth(level: _Level, b: Floats) -> Floats:
    """Return two steps of Chebyshev's iteration for A x = b, from zero."""
    low, high = SMOOTHED
    middle, half = 0.5 * (high + low), 0.5 * (high - low)
    x = b / (middle * level.diagonal)
    factor = 1.0 / (2.0 * middle / half - half / middle)
    residual = (b - level.A @ x) / level.diagonal
    return x + factor * (half / middle * x + 2.0 / half * residual)


def _pairs(A: sparse.csr_array, rng: np.random.Generator) -> sparse.csr_array:
    """Return the matrix from pairs to nodes that gives both nodes the value of their pair.

    The pairs are those that are each other's strongest link; a node that finds none joins the pair
    of its strongest neighbour.
    """
    size, links = A.shape[0], sparse.triu(A, 1).tocoo()
    diagonal = A.diagonal()
    strength = -links.data * (1.0 / diagonal[links.row] + 1.0 / diagonal[links.col])
    strength *= rng.uniform(0.999, 1.0, len(strength))  # tells equal links apart
    node, other = np.r_[links.row, links.col], np.r_[links.col, links.row]
    strength = np.r_[strength, strength]
    group, num_groups = np.full(size, -1), 0
    for _ in range(ROUNDS):
        free = (group[node] < 0) & (group[other] < 0)
        one, partner = _strongest(node[free], other[free], strength[free], size)
        is_mutual = (partner[partner[one]] == one) & (one < partner[one])
        first = one[is_mutual]
        group[first] = group[partner[first]] = num_groups + np.arange(len(first))
        num_groups += len(first)
    joins = (group[node] < 0) & (group[other] >= 0)
    one, partner = _strongest(node[joins], other[joins], strength[joins], size)
    group[one] = group[partner[one]]
    single = np.flatnonzero(group < 0)
    group[single] = num_groups + np.arange(len(single))
    shape = (size, num_groups + len(single))
    return sparse.csr_array((np.ones(size), group, np.arange(size + 1)), shape=shape)


def _strongest(
    node: NDArray[np.int64], other: NDArray[np.int64], strength: Floats, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the nodes that have links, and of each node the other end of its strongest, or -1."""
    best = np.zeros(size)
    np.maximum.at(best, node, strength)
    chosen = strength >= best[node]
    partner = np.full(size, -1, dtype=np.int64)
    partner[node[chosen]] = other[chosen]
    return np.flatnonzero(partner >= 0), partner

"""Exchange with the network on the levels of a multigrid, Pi' C Pi with C = 1 - N A_11^-1 N'.

Of a network of few points sparse factors of their number invert it exactly. One of many points
keeps them on the finest level alone, coarser ones hold T = Pi' Pi and E = Pi' N and the coarsest a
coarser network; there a polynomial bounds the exchange, and nothing costs more than sparse
products. On distributed levels matrices are those of `distributed`; what is of the size of the
points or the network is whole on each process, and factored there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from mixeddim.algebra.chebyshev import nearly_inverse
from mixeddim.algebra.distributed import processes_of
from mixeddim.algebra.network_block import (
    MOST_FACTORED,
    coarse_basis,
    definite_factors,
    is_worth_coarsening,
)
from mixeddim.processes import Processes

__all__ = ["Exchange", "exchange_of"]

type Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Exchange(Protocol):
    """Pi' C Pi on one level."""

    def apply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return Pi' C Pi v."""
        ...

    def smoother(self, D: NDArray[np.float64]) -> Map:
        """Return M <= (D + Pi' C Pi)^-1, symmetric positive definite, and near it."""
        ...

    def coarse(self, P: sparse.csr_array) -> Exchange:
        """Return the exchange on the next level."""
        ...

    def inverse(self, A_0: sparse.csr_array) -> Map:
        """Return b -> (A_0 + Pi' C Pi)^-1 b."""
        ...


def exchange_of(
    Pi: sparse.csr_array, N: sparse.csr_array, A_11: sparse.csr_array, K_1: sparse.csr_array
) -> Exchange:
    """Return the exchange on the finest level.

    Args:
        Pi: Averaging matrix, its rows scaled by the roots of weight times conductance.
        N: Network basis, scaled alike.
        A_11: Network block, K_1 + N' N.
        K_1: The network without exchange.
    """
    solve = definite_factors(A_11)
    if Pi.shape[0] <= MOST_FACTORED:
        return _FewPoints(Pi, N, A_11, solve, K_1)
    return _ManyPoints(Pi, N, A_11, solve)


@dataclass(frozen=True, eq=False)
class _AtPoints:
    Pi: sparse.csr_array
    N: sparse.csr_array
    A_11: sparse.csr_array
    solve_11: Map

    def apply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._product(v, self.solve_11)

    def _product(self, v: NDArray[np.float64], network: Map) -> NDArray[np.float64]:
        """Return Pi' (1 - N B N') Pi v, with B = A_11^-1 or a map below it."""
        means = self.Pi @ v
        product: NDArray[np.float64] = self.Pi.T @ (means - self.N @ network(self.N.T @ means))
        return product


@dataclass(frozen=True, eq=False)
class _FewPoints(_AtPoints):
    K_1: sparse.csr_array

    def smoother(self, D: NDArray[np.float64]) -> Map:
        """Return the inverse itself, by factors of the size of points and network, or of nodes.

        With q the scaled exchange at the points and u_1 the network's answer, it is for r

            x = D^-1 (r - Pi' q)      (1 + G) q + N u_1 = Pi D^-1 r      N' q - K_1 u_1 = 0

        with G = Pi D^-1 Pi': a quasi-definite system, in which no strength of exchange and no
        conductance of the network cancels anything.
        """
        num_points, num_nodes = self.Pi.shape
        if sparse.issparse(self.Pi) and num_points >= num_nodes:  # all nodes are here
            return self.inverse(sparse.diags_array(D).tocsr())
        root = (self.Pi @ sparse.diags_array(np.sqrt(1.0 / D))).tocsr()
        G = root @ root.T + sparse.eye_array(num_points)
        solve = _quasi_definite_factors(sparse.block_array([[G, self.N], [self.N.T, -self.K_1]]))

        def smooth(r: NDArray[np.float64]) -> NDArray[np.float64]:
            x = r / D
            q = solve(np.pad(self.Pi @ x, (0, self.N.shape[1])))[:num_points]
            corrected: NDArray[np.float64] = x - (self.Pi.T @ q) / D
            return corrected

        return smooth

    def coarse(self, P: sparse.csr_array) -> Exchange:
        return replace(self, Pi=(self.Pi @ P).tocsr())

    def inverse(self, A_0: sparse.csr_array) -> Map:
        return _block_inverse(A_0 + self.Pi.T @ self.Pi, self.Pi.T @ self.N, self.A_11)


class _ManyPoints(_AtPoints):
    def smoother(self, D: NDArray[np.float64]) -> Map:
        size, ties = abs(self.Pi), abs(self.A_11).sum(axis=1)
        bound = partial(self._product, network=lambda b: b / ties)
        return _bounded(D, size.T @ size.sum(axis=1), bound, processes_of(size))

    def coarse(self, P: sparse.csr_array) -> Exchange:
        Pi = (self.Pi @ P).tocsr()
        T, E = (Pi.T @ Pi).tocsr(), (Pi.T @ self.N).tocsr()
        return _at_nodes(T, E, self.A_11, self.solve_11)

    def inverse(self, A_0: sparse.csr_array) -> Map:
        return self.coarse(sparse.eye_array(self.Pi.shape[1], format="csr")).inverse(A_0)


@dataclass(frozen=True, eq=False)
class _AtNodes:
    T: sparse.csr_array
    E: sparse.csr_array
    A_11: sparse.csr_array
    solve_11: Map

    def apply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        product: NDArray[np.float64] = self.T @ v - self.E @ self.solve_11(self.E.T @ v)
        return product

    def smoother(self, D: NDArray[np.float64]) -> Map:
        ties = abs(self.A_11).sum(axis=1)
        T, E = self.T, self.E

        def bound(v: NDArray[np.float64]) -> NDArray[np.float64]:
            product: NDArray[np.float64] = T @ v - E @ ((E.T @ v) / ties)
            return product

        return _bounded(D, abs(T).sum(axis=1), bound, processes_of(T))

    def coarse(self, P: sparse.csr_array) -> Exchange:
        T, E = (P.T @ (self.T @ P)).tocsr(), (P.T @ self.E).tocsr()
        return _at_nodes(T, E, self.A_11, self.solve_11)

    def inverse(self, A_0: sparse.csr_array) -> Map:
        return _block_inverse(A_0 + self.T, self.E, self.A_11)


def _at_nodes(
    T: sparse.csr_array, E: sparse.csr_array, A_11: sparse.csr_array, solve_11: Map
) -> _AtNodes:
    """Return T - E A_11^-1 E', of a coarser network where a whole level is far smaller than it."""
    if not sparse.issparse(E) or not is_worth_coarsening(A_11, E):
        return _AtNodes(T, E, A_11, solve_11)
    Q = coarse_basis(A_11, E)
    A_11 = (Q.T @ A_11 @ Q).tocsr()
    return _AtNodes(T, (E @ Q).tocsr(), A_11, definite_factors(A_11))


def _bounded(
    D: NDArray[np.float64], coupling: NDArray[np.float64], bound: Map, processes: Processes
) -> Map:
    """Return M <= (D + Pi' C Pi)^-1 by a polynomial.

    Args:
        D: Diagonal.
        coupling: Row sums that bound Pi' C Pi.
        bound: v -> Pi' C Pi v, or of a larger C.
        processes: Over which the dofs are distributed.
    """
    inverse = 1.0 / (D + coupling)
    condition = 1.0 + processes.max((coupling / D).max(initial=0.0))
    return nearly_inverse(lambda r: inverse * r, lambda v: D * v + bound(v), condition)


def _block_inverse(A_33: sparse.sparray, E: sparse.sparray, A_11: sparse.csr_array) -> Map:
    """Return the inverse of A_33 - E A_11^-1 E', by factors of the block system."""
    solve = definite_factors(sparse.block_array([[A_33, -E], [-E.T, A_11]]))
    return lambda r: solve(np.pad(r, (0, E.shape[1])))[: len(r)]


def _quasi_definite_factors(A: sparse.sparray) -> Map:
    """Return b -> A^-1 b by sparse factors, scaled by powers of two after the largest entries."""
    largest = abs(A).tocsr().max(axis=1).toarray().ravel()
    scale = np.exp2(-np.rint(np.log2(np.where(largest > 0, largest, 1.0)) / 2))
    scaling = sparse.diags_array(scale)
    solve = splu(
        (scaling @ A @ scaling).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.1,  # how much smaller than others in its column a pivot may be
        options={"SymmetricMode": True},
    ).solve

    def apply(b: NDArray[np.float64]) -> NDArray[np.float64]:
        x: NDArray[np.float64] = scale * solve(scale * b)
        return x

    return apply

"""Matrices on a graph, such as the network block A_11: solvers that suit it, and coarser bases.

Most dofs of a network lie inside vessels or at dead ends, and have at most two neighbours.
Eliminating these chains first fills in nothing and leaves the junctions alone, a far smaller graph,
whose factors take a minimum degree order. Ordering all dofs at once would take most of the time.
Needs numpy and scipy alone, but for the junctions of a large network PyAMG.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, cg, splu

from mixeddim.algebra.triangular import Factors, factors_of, factors_solver

__all__ = [
    "MOST_FACTORED",
    "coarse_basis",
    "definite_factors",
    "is_worth_coarsening",
    "laplacian_solver",
    "superlu_factors",
]

type _Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]

SMALL: Final = 1000
"""Matrices of fewer rows are factored at once."""

MOST_FACTORED: Final = 3000
"""Quadrature points of a network whose exchange multigrids invert by factors of their number."""

MOST_JUNCTIONS: Final = 50_000
"""The factors of more junctions may take minutes and gigabytes: there multigrid takes less."""

MOST_ITERATIONS: Final = 1000
"""Of conjugate gradients with multigrid, before factors take over."""

FEW_NODES: Final = 2500
"""A network with twice the dofs of a grid of at most so many nodes is made coarser on it."""


def definite_factors(A: sparse.sparray) -> _Map:
    """Return b -> A^-1 b, for shapes (n,) and (n, k), by sparse factors in float64.

    The rows and columns are scaled by powers of two after their largest entries, which rounds
    nothing.

    Args:
        A: Symmetric positive definite, shape (n, n).

    Raises:
        RuntimeError: If A is not positive definite.
    """
    return _chains_scaled(A, _by_factors)


def superlu_factors(A: sparse.sparray) -> Factors:
    """Return the factors of a matrix, scaled alike, as arrays for compiled loops.

    Args:
        A: Symmetric positive definite, shape (n, n).

    Raises:
        RuntimeError: If A is not positive definite.
    """
    A, scale = _scaled(A)
    return factors_of(_factors(A, "MMD_AT_PLUS_A"), scale)


def _scaled(A: sparse.sparray) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Return E A E, and the diagonal of E: powers of two, after the largest entries of rows."""
    A = A.tocsr()
    largest = abs(A).max(axis=1).toarray().ravel()
    scale = np.exp2(-np.rint(np.log2(np.where(largest > 0, largest, 1.0)) / 2))
    scaling = sparse.diags_array(scale)
    return (scaling @ A @ scaling).tocsr(), scale


def laplacian_solver(A: sparse.sparray) -> _Map:
    """Return b -> A^-1 b, for shape (n,), by factors, or with many junctions by multigrid.

    Chains are eliminated either way. Conjugate gradients with PyAMG's multigrid of Ruge and Stüben
    (1987, doi:10.1137/1.9781611971057.ch4) solve for the junctions, so that A^-1 b has an error of
    about 1e-8: refine it. Without PyAMG, or where they do not converge, it is factors all the same.

    Args:
        A: Symmetric positive definite with no positive entry beside the diagonal, shape (n, n).

    Raises:
        RuntimeError: If A is not positive definite.
    """
    return _chains_scaled(A, _by_multigrid)


def _chains_scaled(A: sparse.sparray, solver: Callable[[sparse.csr_array], _Map]) -> _Map:
    """Return b -> A^-1 b: scale A, eliminate its chains, and solve for junctions as given."""
    A, scale = _scaled(A)
    entries = A.tocoo()
    is_tie = (entries.row != entries.col) & (entries.data != 0)
    is_chain = np.bincount(entries.row[is_tie], minlength=len(scale)) <= 2
    if len(scale) < SMALL or is_chain.all():
        solve: _Map = _by_factors(A)
    else:
        solve = _chains_first(A, np.flatnonzero(is_chain), np.flatnonzero(~is_chain), solver)

    def apply(b: NDArray[np.float64]) -> NDArray[np.float64]:
        factor = scale if b.ndim == 1 else scale[:, None]
        x: NDArray[np.float64] = factor * solve(factor * b)
        return x

    return apply


def _chains_first(
    A: sparse.csr_array,
    chains: NDArray[np.intp],
    junctions: NDArray[np.intp],
    solver: Callable[[sparse.csr_array], _Map],
) -> _Map:
    """Return b -> A^-1 b by eliminating the chains, and then the junctions.

    Args:
        A: The matrix.
        chains: Dofs with at most two neighbours.
        junctions: All others.
        solver: What solves with the matrix of the junctions that is left.
    """
    A_cj, A_jj = A[chains][:, junctions], A[junctions][:, junctions]
    A_cc = A[chains][:, chains]
    # Any order of elimination leaves a chain a chain: there is hardly any fill-in.
    inner = _factors(A_cc, "NATURAL")
    solve_junctions = solver((A_jj - _through_chains(A_cc, A_cj, inner)).tocsr())
    A_jc, solve_chains = A_cj.T.tocsr(), factors_solver(inner)

    def solve(b: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.empty_like(b)
        x[junctions] = solve_junctions(b[junctions] - A_jc @ solve_chains(b[chains]))
        x[chains] = solve_chains(b[chains] - A_cj @ x[junctions])
        return x

    return solve


def _through_chains(
    A_cc: sparse.csr_array, A_cj: sparse.csr_array, inner: SuperLU
) -> sparse.csr_array:
    """Return A_jc A_cc^-1 A_cj: what chains do between the one or two junctions at their ends."""
    ends = A_cj.tocoo()
    chain = sparse.csgraph.connected_components(A_cc, directed=False)[1][ends.row]
    order = np.argsort(chain, kind="stable")
    row, junction, value, chain = ends.row[order], ends.col[order], ends.data[order], chain[order]
    # All chains at once: the first end of each in one column, the second in another.
    is_second = np.concatenate([[False], chain[1:] == chain[:-1]])
    columns = np.zeros((A_cc.shape[0], 2))
    np.add.at(columns, (row, is_second.astype(int)), value)
    response = inner.solve(columns)
    parts = [(junction, junction, value * response[row, is_second.astype(int)])]
    second = np.flatnonzero(is_second)
    first = second - 1
    parts += [(junction[first], junction[second], value[first] * response[row[first], 1])]
    parts += [(junction[second], junction[first], value[second] * response[row[second], 0])]
    rows, cols, data = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sparse.coo_array((data, (rows, cols)), shape=2 * A_cj.shape[1:]).tocsr()


def _by_factors(S: sparse.csr_array) -> _Map:
    return factors_solver(_factors(S, "MMD_AT_PLUS_A"))


def _by_multigrid(S: sparse.csr_array) -> _Map:
    if S.shape[0] <= MOST_JUNCTIONS or find_spec("pyamg") is None:
        return _by_factors(S)
    from pyamg import ruge_stuben_solver

    indices, indptr = (part.astype(np.int32) for part in (S.indices, S.indptr))  # PyAMG has no more
    matrix = sparse.csr_matrix((S.data, indices, indptr), shape=S.shape)
    # One sweep there and one back: symmetric, at half the cost of PyAMG's two symmetric ones.
    forward, backward = (("gauss_seidel", {"sweep": way}) for way in ("forward", "backward"))
    multigrid = ruge_stuben_solver(matrix, presmoother=forward, postsmoother=backward)
    cycle = multigrid.aspreconditioner()
    factors = cache(lambda: _by_factors(S))

    def solve(b: NDArray[np.float64]) -> NDArray[np.float64]:
        x, status = cg(matrix, b, rtol=1e-8, maxiter=MOST_ITERATIONS, M=cycle)
        return factors()(b) if status else x

    return solve


def _factors(A: sparse.csr_array, order: str) -> SuperLU:
    factors = splu(
        A.tocsc(),
        permc_spec=order,
        diag_pivot_thresh=0.0,  # only pivots on the diagonal, as in Cholesky factorisation
        options={"SymmetricMode": True},
    )
    if not factors.U.diagonal().min(initial=np.inf) > 0.0:
        raise RuntimeError("a matrix that is not positive definite")
    return factors


def is_worth_coarsening(A_11: sparse.csr_array, E: sparse.csr_array, num_networks: int = 1) -> bool:
    """Return whether a network is far larger than a coarse grid; arguments as in `coarse_basis`."""
    is_coarse: bool = E.shape[0] <= FEW_NODES * num_networks
    return is_coarse and A_11.shape[0] > 2 * E.shape[0]


def coarse_basis(
    A_11: sparse.csr_array, E: sparse.csr_array, num_networks: int = 1
) -> sparse.csr_array:
    """Return a basis Q for a coarser network: what is near one node of the tissue becomes one.

    Connected parts of the network that exchange most with the same node are its aggregates; one
    step of damped Jacobi smooths their indicator functions (Vaněk, Mandel & Brezina 1996, Computing
    56:179). Then Q (Q' A_11 Q)^-1 Q' <= A_11^-1 in the sense of quadratic forms, so that a network
    so coarsened never answers more than the true one.

    Args:
        A_11: The network block, or several of one size on a diagonal.
        E: Exchange of a coarse grid's nodes (rows) with the dofs of the network (columns).
        num_networks: How many blocks there are.

    Returns:
        One column for each aggregate, each network padded with zero columns to the largest.
    """
    size = A_11.shape[0] // num_networks
    exchange = abs(E).tocsc()
    has_exchange = np.diff(exchange.indptr) > 0
    node = np.full(A_11.shape[0], -1, dtype=np.int64)
    node[has_exchange] = _row_of_largest(exchange)
    ties = A_11.tocoo()
    is_tie = (node[ties.row] == node[ties.col]) & (ties.data != 0)
    graph = sparse.coo_array(
        (np.ones(is_tie.sum()), (ties.row[is_tie], ties.col[is_tie])), shape=A_11.shape
    )
    part = sparse.csgraph.connected_components(graph, directed=False)[1]
    # Dofs with given values exchange nothing: they have no part in it.
    wanted, part = np.unique(part[has_exchange], return_inverse=True)
    network = np.zeros(len(wanted), dtype=np.int64)
    network[part] = np.flatnonzero(has_exchange) // size
    order = np.argsort(network, kind="stable")
    counts = np.bincount(network, minlength=num_networks)
    column = np.empty_like(order)
    column[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    most = max(int(counts.max()), 1)
    indicators = sparse.coo_array(
        (np.ones(len(part)), (np.flatnonzero(has_exchange), (column + network * most)[part])),
        shape=(A_11.shape[0], num_networks * most),
    ).tocsr()
    damping = sparse.diags_array(2.0 / 3.0 / A_11.diagonal())
    return (indicators - damping @ (A_11 @ indicators)).tocsr()


def _row_of_largest(A: sparse.csc_array) -> NDArray[np.int64]:
    """Return the row of the largest entry in each column that is not empty."""
    counts = np.diff(A.indptr)
    counts = counts[counts > 0]
    starts = np.cumsum(counts) - counts
    column = np.repeat(np.arange(len(counts)), counts)
    [largest] = np.nonzero(A.data == np.maximum.reduceat(A.data, starts)[column])
    rows = np.empty(len(counts), dtype=np.int64)
    rows[column[largest]] = A.indices[largest]  # of equal ones the last
    return rows

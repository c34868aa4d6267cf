"""Smoothers for S = A_0 + Pi' C Pi, with A_0 sparse and 0 <= C <= 1 of low rank.

Each is a symmetric positive definite M whose M S has no eigenvalue above a bound known in advance:
with D >= A_0 in the sense of quadratic forms, as the sums of absolute values along the rows of A_0
are, D / omega + Pi' C Pi >= S / omega for any omega >= 1. Below 2 the iteration converges in the
energy norm whatever the coefficients, and a V-cycle around it is positive definite.

So M need not be the inverse of D / omega + Pi' C Pi; any M > 0 below it keeps the bound omega, and
smooths the better the nearer it is. There are three kinds, the row sums of Pi' C Pi being c:

- 1 / (D / omega + c), a diagonal, where the coupling is weak.
- The inverse itself by factors, with the C of a network that follows the tissue, and else with 1
  in its place, which is not smaller.
- A polynomial in that diagonal and in D / omega + Pi' Pi. The eigenvalues of their product lie
  between 1 over the condition and 1; the polynomial maps all of them to between 1/3 and 1.

`are_by_factors` chooses between the last two, whatever computes them, each system by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning import kernels
from learning.preconditioners.multigrid.network import NetworkResponse
from learning.systems.sparse import LinearMap, SparseMap, rows_of, spd_solver
from mixeddim.tensors import (
    ALONE,
    NO_FACTORS,
    FromTissue,
    Processes,
    SymmetricProduct,
    iteration,
    nearly_inverse_steps,
)

__all__ = [
    "LUMPED",
    "RELAXATION",
    "Base",
    "Polynomial",
    "are_by_factors",
    "bounded",
    "conditions",
    "l1_jacobi",
    "low_rank",
    "rows_kept",
]

LUMPED: Final = 0.3
"""Coupling of so many times D / omega, at most, is nearly as good as its row sums to a smoother."""

LEFT: Final = 0.5
"""What the bounded smoother may leave of an error: less costs more than the iterations it saves."""

MOST_WORK: Final = 18.0
"""Up to so many nodes a point, times the root of the condition, polynomials cost less than factors.

Their degree grows with that root, and each product with the nodes. Factors cost less where many
nodes surround each point: there few points share nodes. Measured with the set-up of both.
"""

RELAXATION: Final = 1.6
"""The bound omega. On constant coefficients D / omega is the diagonal of damped Jacobi, 0.8."""


def l1_jacobi(
    row_sums: NDArray[np.float64],
    coupling: NDArray[np.float64],
    like: torch.Tensor,
    relaxation: float = RELAXATION,
) -> LinearMap:
    """Return the division by the row sums of |A_0| over omega and of Pi' Pi.

    Blind to what the coupling ties together: iterations grow with its strength (Baker, Falgout,
    Kolev & Yang 2011, doi:10.1137/100798806).

    Args:
        row_sums: Of |A_0|, shape (batch n,).
        coupling: Those of |Pi|' |Pi|, of the same shape.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
        relaxation: omega.
    """
    inverse = torch.tensor(1.0 / (row_sums / relaxation + coupling)).to(like).reshape(like.shape)
    return lambda r: inverse * r


def low_rank(
    row_sums: NDArray[np.float64],
    Pi: sparse.csr_array | FromTissue,
    average: SparseMap,
    network: NetworkResponse | None,
    like: torch.Tensor,
    relaxation: float = RELAXATION,
) -> LinearMap:
    """Return the inverse of D / omega + Pi' C Pi, with D the row sums of |A_0|.

    By the formula of Woodbury with a matrix of the size of the points and the network, or directly
    where the grid has fewer nodes than there are points.

    Args:
        row_sums: D, shape (batch n,).
        Pi: Block-diagonal, one block of shape (num_points, n) for each system.
        average: The same as a map.
        network: C, or None for 1.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
        relaxation: omega.
    """
    num_points, num_nodes = (size // len(like) for size in Pi.shape)
    inverse_D = relaxation / row_sums
    if num_nodes <= num_points and not isinstance(Pi, FromTissue):
        D = sparse.diags_array(1.0 / inverse_D)
        if network is not None:
            return network.inverse(D, Pi, like.device)
        return spd_solver((Pi.T @ Pi + D).tocsr(), like)
    root = Pi @ sparse.diags_array(np.sqrt(inverse_D))
    G, at_points = (root @ root.T).tocsr(), like.new_empty(len(like), num_points)
    if network is not None:
        solve = network.capacitance(G, at_points)
    else:
        solve = spd_solver((G + sparse.eye_array(Pi.shape[0])).tocsr(), at_points)
    scale = torch.tensor(inverse_D).to(like).reshape(like.shape)

    def apply(r: torch.Tensor) -> torch.Tensor:
        x = scale * r
        return x - scale * average.T(solve(average(x)))

    return apply


def conditions(
    D: NDArray[np.float64],
    coupling: NDArray[np.float64],
    batch: int,
    processes: Processes = ALONE,
) -> NDArray[np.float64]:
    """Return numbers c with D + coupling <= c D, one for each system, shape (batch,).

    As D <= D + Pi' C Pi <= D + coupling, they bound the condition of the matrix between these,
    preconditioned by the diagonal on the right.

    Args:
        D: Positive, shape (batch n,).
        coupling: Row sums that bound Pi' C Pi, of the same shape.
        batch: Number of systems.
        processes: Over which the vectors are distributed.
    """
    strongest = (coupling / D).reshape(batch, -1).max(axis=1, initial=0.0)
    return np.array([1.0 + processes.max(ratio) for ratio in strongest])


def are_by_factors(
    conditions: NDArray[np.float64],
    coupling: NDArray[np.float64],
    num_points: int,
    network: NetworkResponse,
    processes: Processes = ALONE,
) -> NDArray[np.bool_]:
    """Return for which systems S_0 is the inverse of D + Pi' C Pi by factors, shape (batch,).

    With C that of the network where it follows the tissue; else with C = 1. Where it does not, and
    where that costs less, S_0 is a polynomial near that inverse and below it (see `bounded`).

    Args:
        conditions: See `conditions`.
        coupling: The same, zero where nodes do not exchange.
        num_points: Of each system.
        network: C.
        processes: Over which the vectors are distributed.
    """
    nodes = np.count_nonzero(coupling.reshape(len(conditions), -1), axis=1)
    num_nodes = np.array([processes.sum(float(here)) for here in nodes])
    return network.follows | (np.sqrt(conditions) * num_nodes > MOST_WORK * num_points)


def bounded(
    D: NDArray[np.float64],
    coupling: NDArray[np.float64],
    product: LinearMap,
    conditions: NDArray[np.float64],
    like: torch.Tensor,
) -> LinearMap:
    """Return M <= (D + Pi' C Pi)^-1 without factors, for networks of any size.

    Where the coupling is weak beside D at each node, it is bounded by its row sums: one diagonal.
    Where it is not, M is a polynomial of Chebyshev in that diagonal and the coupling: its
    eigenvalues lie between 1 over the condition and 1, and a degree of the order of the square root
    of the condition leaves at most half of each. Each system has its own polynomial. Nodes that do
    not exchange are divided by D.

    Args:
        D: Positive, shape (batch n,).
        coupling: Row sums that bound Pi' C Pi, of the same shape.
        product: v -> Pi' C Pi v, or of a larger C.
        conditions: See `conditions`.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
    """
    inverse = torch.tensor(1.0 / (D + coupling)).to(like).reshape(like.shape)
    diagonal = torch.tensor(D).to(like).reshape(like.shape)
    steps, scales = (torch.tensor(array).to(like)[..., None] for array in _steps(conditions))
    (_, first), *others = steps.permute(1, 2, 0, 3)
    polynomial = iteration(
        lambda r: inverse * r, lambda v: diagonal * v + product(v), first, others
    )
    exchanges = torch.tensor(coupling > 0.0, device=like.device).reshape(like.shape)
    return lambda r: torch.where(exchanges, scales * polynomial(r), inverse * r)


def rows_kept(A: sparse.csr_array, is_kept: NDArray[np.bool_]) -> sparse.csr_array:
    """Return a block-diagonal matrix without the entries of some blocks."""
    if is_kept.all():
        return A
    kept = sparse.diags_array(np.repeat(is_kept, A.shape[0] // len(is_kept)).astype(float)) @ A
    kept.eliminate_zeros()
    return kept.tocsr()


def _steps(conditions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the polynomials of `bounded` by their iterations, and the factors of their results.

    Shapes (batch, degree, 2) and (batch,). Where degrees differ zeros follow, which add nothing.
    """
    found = [nearly_inverse_steps(condition, LEFT) for condition in conditions]
    steps = np.zeros((len(found), 1 + max(len(others) for _, others, _ in found), 2))
    for rows, (first, others, _) in zip(steps, found, strict=True):
        rows[: 1 + len(others)] = [(0.0, first), *others]
    return steps, np.array([scale for *_, scale in found])


@dataclass(frozen=True)
class Polynomial:
    """The smoother p(S_0 S) S_0, by an iteration as that of Chebyshev (see `chebyshev_steps`).

    Attributes:
        relaxation: The bound on the eigenvalues of S_0 S.
        first: Factor of S_0 r.
        steps: Factors of the last step and of the next one, one pair for each further degree.
        inverts_coupling: Whether S_0 does, or is a diagonal.
    """

    relaxation: float
    first: float = 1.0
    steps: tuple[tuple[float, float], ...] = ()
    inverts_coupling: bool = True

    def of(self, S_0: LinearMap, S: LinearMap) -> LinearMap:
        """Return the smoother as a map of tensors."""
        return iteration(S_0, S, self.first, self.steps)


@dataclass(frozen=True, eq=False)
class Base:
    """S_0 near (D + Pi' C Pi)^-1 for compiled loops: a diagonal but at the nodes that exchange.

    Where the coupling is weak, its row sums stand for it in S_0 and in the S of the smoother's
    polynomial. These are larger, as a bound on the eigenvalues needs, and as good to smooth with.

    Attributes:
        arrays: What `kernels.smooth` takes.
    """

    arrays: tuple[Any, ...]

    @classmethod
    def of(
        cls,
        D: NDArray[np.float64],
        coupling: NDArray[np.float64],
        Pi: sparse.csr_array,
        network: NetworkResponse,
        dtype: torch.dtype,
        *,
        is_lumped: bool,
        inverts_coupling: bool,
    ) -> Base:
        """Return it.

        Args:
            D: Positive, shape (batch n,).
            coupling: Row sums that bound Pi' Pi, of the same shape.
            Pi: Averaging matrices, shape (batch num_points, batch n).
            network: C.
            dtype: Of the vectors.
            is_lumped: Whether row sums stand for the coupling in S_0 and in S.
            inverts_coupling: Whether they do not in S_0.
        """
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        if is_lumped or not inverts_coupling:
            lumped = (coupling if is_lumped else coupling[:0]).astype(kind)
            none = np.empty(0, kind)
            bounds = none, none, np.zeros(1, np.int64), np.empty((0, 0, 2), kind), none
            nothing = np.empty(0, np.uint32), rows_of(Pi, dtype), none, NO_FACTORS, bounds
            return cls(((1.0 / (D + coupling)).astype(kind), lumped, *nothing))
        nodes = np.flatnonzero(coupling)
        number = np.zeros(len(D), dtype=Pi.indices.dtype)
        number[nodes] = np.arange(len(nodes))
        shape = (Pi.shape[0], len(nodes))
        if not Pi.data.all():  # zeros of a wall that lets nothing through
            Pi = Pi.copy()
            Pi.eliminate_zeros()
        Pi = sparse.csr_array((Pi.data, number[Pi.indices], Pi.indptr), shape=shape)
        batch, inverse, K = len(network.systems), 1.0 / D[nodes], NO_FACTORS
        found = conditions(D, coupling, batch)
        by_factors = are_by_factors(found, coupling, Pi.shape[0] // batch, network)
        if by_factors.any():
            rows = rows_of(rows_kept(Pi, by_factors), torch.float64)
            starts, columns, values = kernels.one_plus_squared_rows(rows, inverse)
            one_and_G = sparse.csr_array((values, columns, starts), shape=2 * Pi.shape[:1])
            K = network.capacitance_factors(one_and_G)
        steps, scales = _steps(np.where(by_factors, 1.0, found))
        steps[by_factors] = 0.0
        starts = np.searchsorted(nodes, len(D) // batch * np.arange(batch + 1))
        diagonals = D[nodes].astype(kind), (1.0 / (D + coupling)[nodes]).astype(kind)
        bounds = *diagonals, starts, steps.astype(kind), scales.astype(kind)
        near = nodes.astype(np.uint32), rows_of(Pi, dtype), inverse.astype(kind), K, bounds
        return cls(((1.0 / D).astype(kind), np.empty(0, kind), *near))

    def map(self) -> LinearMap:
        """Return r -> S_0 r for tensors in float32 or float64."""
        diagonal, _, near, *exchange = self.arrays
        elsewhere, nodes = torch.from_numpy(diagonal), torch.tensor(near.astype(np.int64))

        def multiply(r: torch.Tensor) -> torch.Tensor:
            x = elsewhere * r.flatten()
            if len(nodes):
                here = r.detach().flatten()[nodes].numpy()
                there = np.empty_like(here)
                kernels.invert_exchange(*exchange, here, there)
                x = x.index_copy(0, nodes, torch.from_numpy(there))
            return x.reshape(r.shape)

        return lambda r: SymmetricProduct.apply(r, multiply) if r.requires_grad else multiply(r)

"""Smoothers for S = A_0 + Pi' C Pi, with A_0 sparse and 0 <= C <= 1 of low rank.

Each is a symmetric positive definite M whose M S has no eigenvalue above a bound known in advance:
with D >= A_0 in the sense of quadratic forms, as the sums of absolute values along the rows of A_0
are, D / omega + Pi' C Pi >= S / omega for any omega >= 1. Below 2 the iteration converges in the
energy norm whatever the coefficients, and a V-cycle around it is positive definite.
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
    nearly_inverse,
)

__all__ = ["LUMPED", "RELAXATION", "Base", "Polynomial", "bounded", "l1_jacobi", "low_rank"]

LUMPED: Final = 0.3
"""Coupling of so many times D / omega, at most, is nearly as good as its row sums to a smoother."""

LEFT: Final = 0.5
"""What the bounded smoother may leave of an error: less costs more than the iterations it saves."""

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


def bounded(
    row_sums: NDArray[np.float64],
    coupling: NDArray[np.float64],
    product: LinearMap,
    like: torch.Tensor,
    relaxation: float = RELAXATION,
    processes: Processes = ALONE,
) -> LinearMap:
    """Return M <= (D / omega + Pi' C Pi)^-1 without factors, for networks of any size.

    Where the coupling is weak beside D at each node, it is bounded by its row sums: one diagonal.
    Where it is not, M is a polynomial of Chebyshev in that diagonal and the coupling: with rho the
    largest ratio of coupling to D / omega, eigenvalues lie between 1 / (1 + rho) and 1, and a
    degree of the order of the square root of rho leaves at most half of each.

    Args:
        row_sums: D, shape (batch n,).
        coupling: Row sums that bound Pi' C Pi, of the same shape.
        product: v -> Pi' C Pi v, or of a larger C.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
        relaxation: omega.
        processes: Over which the vectors are distributed.
    """
    D = row_sums / relaxation
    strongest = processes.max((coupling / D).max(initial=0.0))
    inverse = torch.tensor(1.0 / (D + coupling)).to(like).reshape(like.shape)
    diagonal = torch.tensor(D).to(like).reshape(like.shape)
    return nearly_inverse(
        lambda r: inverse * r, lambda v: diagonal * v + product(v), 1.0 + strongest, LEFT
    )


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
    """S_0 = (D + Pi' C Pi)^-1 for compiled loops: a diagonal but at the nodes that exchange.

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
            nothing = (np.empty(0, np.uint32), rows_of(Pi, dtype), np.empty(0, kind), NO_FACTORS)
            return cls(((1.0 / (D + coupling)).astype(kind), lumped, *nothing))
        nodes = np.flatnonzero(coupling)
        number = np.zeros(len(D), dtype=Pi.indices.dtype)
        number[nodes] = np.arange(len(nodes))
        shape = (Pi.shape[0], len(nodes))
        Pi = sparse.csr_array((Pi.data, number[Pi.indices], Pi.indptr), shape=shape)
        inverse = 1.0 / D[nodes]
        starts, columns, values = kernels.one_plus_squared_rows(rows_of(Pi, torch.float64), inverse)
        one_and_G = sparse.csr_array((values, columns, starts), shape=2 * Pi.shape[:1])
        K = network.capacitance_factors(one_and_G)
        near = (nodes.astype(np.uint32), rows_of(Pi, dtype), inverse.astype(kind), K)
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

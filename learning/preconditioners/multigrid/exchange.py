"""Exchange with the network on one grid, Pi' C Pi, in the form that its size asks for.

A network of few points keeps them on all grids, so that sparse factors of their number can invert
the exchange exactly, where a bound by products does not cost less (see `smoothers`). One of many
points keeps them on the finest grid alone: coarser ones hold products over their own nodes,

    Pi' C Pi = T - E A_11^-1 E'      T = Pi' Pi      E = Pi' N

and on the coarsest the network itself is coarser. Nothing then costs more than sparse products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning import kernels
from learning.preconditioners.multigrid import compiled
from learning.preconditioners.multigrid.grids import Prolongation
from learning.preconditioners.multigrid.network import NetworkResponse, block_inverse
from learning.preconditioners.multigrid.smoothers import (
    Base,
    are_by_factors,
    bounded,
    conditions,
    low_rank,
    rows_kept,
)
from learning.systems.sparse import (
    LinearMap,
    SparseMap,
    dense_blocks,
    dense_inverses,
    distributed_map,
    rows_of,
    sparse_map,
    spd_solver,
    symmetric_map,
)
from mixeddim.tensors import (
    ALONE,
    MOST_FACTORED,
    Factors,
    FromTissue,
    Processes,
    coarse_basis,
    is_worth_coarsening,
)

__all__ = ["AtFewPoints", "Exchange", "exchange_of"]


class Exchange(Protocol):
    """Pi' C Pi for a batch of systems on one grid, 0 <= C <= 1."""

    @property
    def like(self) -> torch.Tensor:
        """A tensor of dtype, device and shape (batch, n) of the vectors."""
        ...

    @property
    def diagonal(self) -> NDArray[np.float64]:
        """That of Pi' Pi, shape (batch n,)."""
        ...

    @property
    def row_sums(self) -> NDArray[np.float64]:
        """Those of |Pi|' |Pi|, or of |Pi' Pi|, which both bound the exchange, shape (batch n,)."""
        ...

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        """Return Pi' C Pi v, shape (batch, n)."""
        ...

    is_inverted: ClassVar[bool]
    """Whether `smoother` is the inverse itself where that costs less, and not always a bound."""

    @property
    def bound(self) -> LinearMap:
        """V -> G v with Pi' C Pi <= G, near it where it is strong: what `smoother` inverts."""
        ...

    def smoother(self, D: NDArray[np.float64], relaxation: float) -> LinearMap:
        """Return M <= (D / relaxation + Pi' C Pi)^-1, symmetric positive definite, and near it.

        Args:
            D: Positive, shape (batch n,).
            relaxation: omega.
        """
        ...

    def coarse(self, P: Prolongation) -> Exchange:
        """Return the exchange on the next grid, P' Pi' C Pi P or, of a coarser network, more."""
        ...

    def inverse(self, A_0: sparse.sparray) -> LinearMap:
        """Return b -> (A_0 + Pi' C Pi)^-1 b by factors of the block system."""
        ...


def exchange_of(Pi: sparse.csr_array, network: NetworkResponse, like: torch.Tensor) -> Exchange:
    """Return the exchange on the finest grid.

    Args:
        Pi: Scaled averaging matrices in grid order, block-diagonal, (num_points, n) each.
        network: C.
        like: A tensor of the dtype and device of the vectors, shape (batch, n).
    """
    few = Pi.shape[0] <= MOST_FACTORED * len(like)
    kind: type[AtFewPoints | _AtManyPoints] = AtFewPoints if few else _AtManyPoints
    return kind(Pi, network, network.coupling(like), like)


@dataclass(frozen=True, eq=False)
class _AtPoints:
    """Pi' C Pi by the points of the network.

    Attributes:
        Pi: Scaled averaging matrices, block-diagonal, (num_points, n) each.
        network: C.
        coupling: C as a map of (batch, num_points).
        like: As in `exchange_of`.
    """

    Pi: sparse.csr_array | FromTissue
    network: NetworkResponse
    coupling: LinearMap
    like: torch.Tensor

    @cached_property
    def diagonal(self) -> NDArray[np.float64]:
        columns = self.Pi.columns if isinstance(self.Pi, FromTissue) else self.Pi
        return np.bincount(columns.indices, columns.data**2, columns.shape[1])

    @cached_property
    def row_sums(self) -> NDArray[np.float64]:
        if self.is_compiled:
            starts, columns, values = rows_of(self.Pi, torch.float64)
            rows, means = (starts, columns, np.abs(values)), np.empty(self.Pi.shape[0])
            found = np.zeros(self.Pi.shape[1])
            kernels.multiply_rows(rows, np.ones(len(found)), means)
            kernels.add_transposed_rows(rows, means, found)
            return found
        size = abs(self.Pi)
        sums: NDArray[np.float64] = size.T @ (size @ np.ones(size.shape[1]))
        return sums

    @property
    def processes(self) -> Processes:
        """Over which the vectors are distributed."""
        return self.Pi.ownership.processes if isinstance(self.Pi, FromTissue) else ALONE

    @property
    def is_compiled(self) -> bool:
        """Whether compiled loops do the work."""
        is_here = not self.like.is_cuda and not isinstance(self.Pi, FromTissue)
        return kernels.ARE_COMPILED and is_here

    @cached_property
    def average(self) -> SparseMap:
        if isinstance(self.Pi, FromTissue):
            return distributed_map(self.Pi, self.like)
        return sparse_map(self.Pi, self.like)

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        return self.average.T(self.coupling(self.average(v)))


class AtFewPoints(_AtPoints):
    """The exchange of a small network, whose points all grids keep."""

    is_inverted: ClassVar[bool] = True

    @property
    def bound(self) -> LinearMap:
        """The exchange itself."""
        return self.apply

    def smoother(self, D: NDArray[np.float64], relaxation: float) -> LinearMap:
        """Return the inverse itself, or for some systems a bound (see `are_by_factors`)."""
        if self.is_compiled:
            return self.base(D, relaxation).map()
        like, average, following = self.like, self.average, self.network.following
        found = conditions(D / relaxation, self.row_sums, len(like), self.processes)
        by_factors = are_by_factors(
            found, self.row_sums, self.Pi.shape[0] // len(like), self.network, self.processes
        )
        if by_factors.all():
            return low_rank(D, self.Pi, average, following, like, relaxation)
        bound = bounded(
            D / relaxation, self.row_sums, lambda v: average.T(average(v)),
            np.where(by_factors, 1.0, found), like,
        )  # fmt: skip
        if not by_factors.any():
            return bound
        Pi = rows_kept(self.Pi, by_factors)  # never on several processes, with their one system
        exact = low_rank(D, Pi, sparse_map(Pi, like), following, like, relaxation)
        is_exact = torch.tensor(by_factors, device=like.device)[:, None]
        return lambda r: torch.where(is_exact, exact(r), bound(r))

    def in_rows(self, factors_11: Factors) -> compiled.Exchange:
        """Return the exchange for compiled loops; factors of A_11 are those of the batch."""
        assert not isinstance(self.Pi, FromTissue)
        dtype = self.like.dtype
        return compiled.Exchange(
            rows_of(self.Pi, dtype), rows_of(self.network.N, dtype), factors_11
        )

    def base(
        self,
        D: NDArray[np.float64],
        relaxation: float,
        *,
        is_lumped: bool = False,
        inverts_coupling: bool = True,
    ) -> Base:
        """Return S_0 for compiled loops (see `Base.of`)."""
        assert not isinstance(self.Pi, FromTissue)
        return Base.of(
            D / relaxation, self.row_sums, self.Pi, self.network, self.like.dtype,
            is_lumped=is_lumped, inverts_coupling=inverts_coupling,
        )  # fmt: skip

    def coarse(self, P: Prolongation) -> Exchange:
        """Return P' Pi' C Pi P."""
        Pi = (self.Pi @ P).tocsr()
        if isinstance(Pi, sparse.csr_array):
            Pi.sort_indices()  # once, for all that wants it
        return replace(self, Pi=Pi, like=_on_next_grid(self.like, Pi))

    def inverse(self, A_0: sparse.sparray) -> LinearMap:
        """Return b -> (A_0 + Pi' C Pi)^-1 b."""
        return self.network.inverse(A_0, self.Pi, self.like.device)


class _AtManyPoints(_AtPoints):
    """The exchange of a large network on the finest grid."""

    is_inverted: ClassVar[bool] = False

    @cached_property
    def bound(self) -> LinearMap:
        average, response = self.average, self.network.response_at_dofs(self.like)
        return lambda v: average.T(response(average(v)))

    def smoother(self, D: NDArray[np.float64], relaxation: float) -> LinearMap:
        return _bounded(self, D / relaxation, self.processes)

    def coarse(self, P: Prolongation) -> Exchange:
        """Return P' Pi' C Pi P."""
        Pi = (self.Pi @ P).tocsr()
        if isinstance(Pi, FromTissue):  # products of the points stay where their columns are
            return replace(self, Pi=Pi, like=_on_next_grid(self.like, Pi))
        T, E = (Pi.T @ Pi).tocsr(), (Pi.T @ self.network.N).tocsr()
        return _AtNodes(
            T, E, self.network.A_11, self.network.solve, self.network.following is not None,
            _on_next_grid(self.like, Pi),
        )._with_coarse_network()  # fmt: skip

    def inverse(self, A_0: sparse.sparray) -> LinearMap:
        one = sparse.eye_array(self.Pi.shape[1], format="csr")
        return self.coarse(one).inverse(A_0)


@dataclass(frozen=True, eq=False)
class _AtNodes:
    """The exchange of a large network on a coarser grid, T - E A_11^-1 E'.

    Attributes:
        T: Block-diagonal, (n, n) each.
        E: Block-diagonal, (n, n_1) each.
        A_11: Network blocks, block-diagonal.
        solve_11: Their inverse, of (batch, n_1) in float64.
        follows: Whether the network follows the tissue (see `NetworkResponse.following`).
        like: As in `exchange_of`.
    """

    is_inverted: ClassVar[bool] = False

    T: sparse.csr_array
    E: sparse.csr_array
    A_11: sparse.csr_array
    solve_11: LinearMap
    follows: bool
    like: torch.Tensor

    @cached_property
    def diagonal(self) -> NDArray[np.float64]:
        diagonal: NDArray[np.float64] = self.T.diagonal()
        return diagonal

    @cached_property
    def row_sums(self) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = abs(self.T).sum(axis=1)
        return sums

    @cached_property
    def _maps(self) -> tuple[SparseMap, SparseMap]:
        return symmetric_map(self.T, self.like), sparse_map(self.E, self.like)

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        T, E = self._maps
        network = self.solve_11(E.T(v).to(torch.float64)).to(v.dtype)
        return T(v) - E(network)

    @cached_property
    def bound(self) -> LinearMap:
        T, E = self._maps
        if not self.follows:
            return T
        ties = _row_sums(self.A_11, self.like)
        return lambda v: T(v) - E(E.T(v) / ties)

    def smoother(self, D: NDArray[np.float64], relaxation: float) -> LinearMap:
        return _bounded(self, D / relaxation)

    def coarse(self, P: sparse.csr_array) -> Exchange:
        T, E = (P.T @ self.T @ P).tocsr(), (P.T @ self.E).tocsr()
        return replace(self, T=T, E=E, like=_on_next_grid(self.like, P))._with_coarse_network()

    def _with_coarse_network(self) -> _AtNodes:
        batch = len(self.like)
        if not is_worth_coarsening(self.A_11, self.E, batch):
            return self
        Q = coarse_basis(self.A_11, self.E, batch)
        A_11 = (Q.T @ self.A_11 @ Q).tocsr()
        A_11 = (A_11 + sparse.diags_array((A_11.diagonal() == 0).astype(float))).tocsr()
        like = torch.empty(batch, A_11.shape[0] // batch, dtype=torch.float64)
        solve_11 = spd_solver(A_11, like.to(self.like.device))
        return replace(self, E=(self.E @ Q).tocsr(), A_11=A_11, solve_11=solve_11)

    def inverse(self, A_0: sparse.sparray) -> LinearMap:
        if self.like.is_cuda:
            return _dense_inverse((A_0 + self.T).tocsr(), self.E, self.A_11, self.like)
        return block_inverse((A_0 + self.T).tocsr(), self.E, self.A_11)


def _bounded(
    exchange: _AtManyPoints | _AtNodes, D: NDArray[np.float64], processes: Processes = ALONE
) -> LinearMap:
    """Return M <= (D + Pi' C Pi)^-1 by polynomials in the exchange's bound."""
    found = conditions(D, exchange.row_sums, len(exchange.like), processes)
    return bounded(D, exchange.row_sums, exchange.bound, found, exchange.like)


def _dense_inverse(
    A_33: sparse.csr_array, E: sparse.csr_array, A_11: sparse.csr_array, like: torch.Tensor
) -> LinearMap:
    """Return b -> (A_33 - E A_11^-1 E')^-1 b by the inverse of each system's matrix."""
    S, E_blocks, networks = (dense_blocks(A.tocsr(), len(like)) for A in (A_33, E, A_11))
    S -= E_blocks @ np.linalg.solve(networks, E_blocks.transpose(0, 2, 1))
    return dense_inverses(torch.tensor(S, device=like.device), torch.float64)


def _row_sums(A_11: sparse.csr_array, like: torch.Tensor) -> torch.Tensor:
    """Return the sums of |A_11| along its rows, which bound it, shape (batch, n_1)."""
    return torch.tensor(abs(A_11).sum(axis=1)).to(like).reshape(len(like), -1)


def _on_next_grid(like: torch.Tensor, A: sparse.csr_array | FromTissue) -> torch.Tensor:
    """Return an empty tensor for the columns of a matrix there."""
    return like.new_empty(len(like), A.shape[1] // len(like))

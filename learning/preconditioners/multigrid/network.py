"""The network's part of S, for a batch of systems and on every grid.

With the averaging matrix Pi and the network basis N scaled by the square roots of weights and wall
conductances, S = A_0 + Pi' C Pi with C = 1 - N A_11^-1 N'. Multigrid has to invert B + Pi' C Pi for
B = A_0, on its coarsest grid, and for a diagonal B, in its smoothers. Where exchange is strong and
the network conducts badly, C is far from 1: the network follows the tissue, and a smoother that
takes the network as fixed does not reduce errors of the tissue along the vessels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.systems.operators import SystemBatch, network_bases, network_blocks
from learning.systems.sparse import (
    LinearMap,
    dense_blocks,
    dense_inverses,
    quasi_definite_factors,
    quasi_definite_solver,
    sparse_map,
    spd_solver,
)
from mixeddim.tensors import Factors, ReducedSystem, cholesky_factors

__all__ = ["NetworkResponse", "block_inverse"]

MOST_DENSE_NODES: Final = 300
"""So many nodes a grid has, at most, on which S is inverted as a dense matrix: see `geometric`."""

FOLLOWS: Final = 0.1
"""The network follows the tissue where its exchange makes up this share of a diagonal entry."""


@dataclass(frozen=True, eq=False)
class NetworkResponse:
    """C = 1 - N A_11^-1 N' for a batch of systems.

    Attributes:
        systems: The systems.
        N: Their scaled network bases, block-diagonal, one block of (num_points, n_1) each.
        A_11: Their network blocks, block-diagonal, padded to the largest.
        solve: The inverse of these, of (batch, n_1).
        dtype: In which that is accurate.
    """

    systems: Sequence[ReducedSystem]
    N: sparse.csr_array
    A_11: sparse.csr_array
    solve: LinearMap
    dtype: torch.dtype

    @classmethod
    def of(cls, systems: Sequence[ReducedSystem], batch: SystemBatch) -> NetworkResponse:
        """Gather the networks of a batch."""
        return cls(
            systems, network_bases(systems), network_blocks(systems), batch.solve_11, batch.g.dtype
        )

    @cached_property
    def follows(self) -> NDArray[np.bool_]:
        """Whether the network of a system follows the tissue somewhere, shape (batch,)."""
        exchange, diagonal = (self.N**2).sum(axis=0), self.A_11.diagonal()
        shares = (exchange / diagonal).reshape(len(self.systems), -1).max(axis=1)
        follows: NDArray[np.bool_] = shares > FOLLOWS
        return follows

    @cached_property
    def following(self) -> NetworkResponse | None:
        """C for the smoothers: 1 for systems whose network stands fast, None where all do.

        Where the network conducts well, C is close to 1 except on functions that are smooth along
        it. The coarsest grid takes care of those, and 1 is cheaper to factor than C.
        """
        if not self.follows.any():
            return None
        is_kept = np.repeat(self.follows.astype(float), self.N.shape[0] // len(self.follows))
        return replace(self, N=(sparse.diags_array(is_kept) @ self.N).tocsr())

    def coupling(self, like: torch.Tensor) -> LinearMap:
        """Return C, from (batch, num_points) to the same, in the dtype of a tensor."""
        N = sparse_map(self.N, like)

        def apply(values: torch.Tensor) -> torch.Tensor:
            # In the dtype of the batch, which accuracy needs where the network conducts well.
            network = self.solve(N.T(values).to(self.dtype))
            return values - N(network.to(values.dtype))

        return apply

    def response_at_dofs(self, like: torch.Tensor) -> LinearMap:
        """Return a C from (batch, num_points) to the same that needs no factors, and is larger.

        In it the network follows at each of its dofs by itself, which is less than it does.
        """
        N, ties = self.following_at_dofs()
        if N.nnz == 0:
            return lambda values: values
        N_map, inverse = sparse_map(N, like), torch.tensor(1.0 / ties).to(like)
        inverse = inverse.reshape(len(like), -1)
        return lambda values: values - N_map(inverse * N_map.T(values))

    def following_at_dofs(self) -> tuple[sparse.csr_array, NDArray[np.float64]]:
        """Return the N and the diagonal of that C, 1 - N ties^-1 N'."""
        ties: NDArray[np.float64] = abs(self.A_11).sum(axis=1)
        following = self.following
        return sparse.csr_array(self.N.shape) if following is None else following.N, ties

    def inverse(self, B: sparse.sparray, Pi: sparse.csr_array, device: torch.device) -> LinearMap:
        """Return b -> (B + Pi' C Pi)^-1 b, in float64 throughout: it may be nearly singular.

        On a coarsest grid, and on an accelerator, by dense inverses of S; else by sparse factors of
        the block system of tissue and network, whose solution for (b, 0) has that product for its
        first part.

        Args:
            B: Block-diagonal, symmetric.
            Pi: Scaled averaging matrices, block-diagonal.
            device: Where the vectors live.

        Raises:
            ValueError: If it is not positive definite.
        """
        A_33, A_31 = (B + Pi.T @ Pi).tocsr(), (Pi.T @ self.N).tocsr()
        if device.type == "cuda" or B.shape[0] <= MOST_DENSE_NODES * len(self.systems):
            return self._dense_inverse(A_33, A_31, device)
        return block_inverse(A_33, A_31, self.A_11)

    def _dense_inverse(
        self, A_33: sparse.csr_array, A_31: sparse.csr_array, device: torch.device
    ) -> LinearMap:
        """Return b -> S^-1 b by the inverse of each system's S."""
        S = dense_blocks(A_33, len(self.systems))
        A_13 = dense_blocks(A_31.T.tocsr(), len(self.systems))
        for block, coupling, system in zip(S, A_13, self.systems, strict=True):
            coupling = coupling[: len(system.b_1)]
            if coupling.any():
                block -= coupling.T @ system.solve_11(coupling)
        return dense_inverses(torch.tensor(S, device=device), torch.float64)

    def capacitance(self, G: sparse.csr_array, like: torch.Tensor) -> LinearMap:
        """Return y -> q with (1 + G) q + N u = y and N' q = K_1 u, K_1 the network by itself.

        With G = Pi B^-1 Pi' this is the heart of Woodbury's formula for B + Pi' C Pi, as C^-1 is
        1 + N K_1^-1 N', in a form that a network without given values does not make singular.

        Args:
            G: Block-diagonal, symmetric positive semidefinite, (num_points, num_points) each.
            like: A tensor of dtype, device and shape (batch, num_points) of the vectors.
        """
        K_1 = self.A_11 - self.N.T @ self.N
        return quasi_definite_solver(G + sparse.eye_array(G.shape[0]), self.N, K_1, like)

    def capacitance_factors(self, one_and_G: sparse.csr_array) -> Factors:
        """Return factors of that matrix, or of 1 + G where the network stands fast."""
        following = self.following
        if following is None:
            return cholesky_factors(one_and_G, len(self.systems))
        K_1 = following.A_11 - following.N.T @ following.N
        return quasi_definite_factors(one_and_G, following.N, K_1)


def block_inverse(
    A_33: sparse.csr_array, A_31: sparse.csr_array, A_11: sparse.csr_array
) -> LinearMap:
    """Return b -> x with A_33 x + A_31 u = b and A_31' x + A_11 u = 0, by sparse factors.

    Raises:
        ValueError: If the block matrix is not positive definite.
    """
    A = sparse.block_array([[A_33, A_31], [A_31.T, A_11]], format="csc")
    solve_block = spd_solver(A, torch.empty(1, A.shape[0]))

    def solve(b: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(b.reshape(1, -1), (0, A_31.shape[1]))
        return solve_block(padded)[:, : b.numel()].reshape(b.shape)

    return solve

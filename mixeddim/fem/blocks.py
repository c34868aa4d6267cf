"""The blocks of the coupled system, products of its parts.

With K and M of the tissue, Pi the averaging matrix at quadrature points of the network, N the
network's own basis there, W the quadrature weights and B the wall conductances:

    A_33 = K + M + Pi' W B Pi      A_31 = -Pi' W B N      A_13 = A_31'

A_11 = K_1d + N' W B N is a part of its own, since the reduction needs no more of the network. Wide
circles on fine grids give A_33 many times the entries of its parts: what needs products alone, as
the reduction does, forms none of these blocks. On several processes the matrices with tissue rows
or columns are those of `distributed`, of which `A @ v`, `A + B`, `A.T` and `abs(A)` mean the same.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.processes import ALONE, Processes

__all__ = ["Blocks"]


class Blocks:
    """Shared by the coupled and the reduced system, with the names of the module's formulas."""

    K: sparse.csr_array
    M: sparse.csr_array
    Pi: sparse.csr_array
    N: sparse.csr_array
    W: sparse.dia_array
    B: sparse.dia_array
    A_11: sparse.csr_array

    @property
    def processes(self) -> Processes:
        """The processes over which the tissue is distributed."""
        processes: Processes = getattr(self.K, "processes", ALONE)
        return processes

    @property
    def B_1(self) -> sparse.dia_array:
        """The conductances that multiply u_1d: those of B, unless fluid drags through the wall."""
        return self.B

    @cached_property
    def A_0(self) -> sparse.csr_array:
        """Tissue block without exchange, K + M."""
        return (self.K + self.M).tocsr()

    @cached_property
    def A_33(self) -> sparse.csr_array:
        """Tissue block."""
        return (self.A_0 + self.Pi.T @ self.W @ self.B @ self.Pi).tocsr()

    @property
    def diagonal_33(self) -> NDArray[np.float64]:
        """The diagonal of A_33, which is not formed for it."""
        diagonal: NDArray[np.float64] = self.A_0.diagonal() + self.Pi.power(2).T @ (
            self.W @ self.B.diagonal()
        )
        return diagonal

    @cached_property
    def A_31(self) -> sparse.csr_array:
        """Coupling block, tissue rows and network columns."""
        return -(self.Pi.T @ self.W @ self.B_1 @ self.N).tocsr()

    def exchange_3(self, u_1d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return -A_31 u_1d, what network dofs give to the tissue; no block is formed."""
        exchange: NDArray[np.float64] = self.Pi.T @ (self.W @ (self.B_1 @ (self.N @ u_1d)))
        return exchange

    def exchange_1(self, u_3d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return -A_13 u_3d, what tissue dofs give to the network; no block is formed."""
        exchange: NDArray[np.float64] = self.N.T @ (self.W @ (self.B @ (self.Pi @ u_3d)))
        return exchange

    @cached_property
    def A_13(self) -> sparse.csr_array:
        """Coupling block, network rows and tissue columns."""
        return self.A_31.T.tocsr()

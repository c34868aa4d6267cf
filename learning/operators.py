"""S for a batch of reduced systems on torch: a sparse product for all, a dense solve for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from mixeddim.tensors import Grid, ReducedSystem, SymmetricProduct, sparse_csr

__all__ = ["SystemBatch", "batch_systems"]


@dataclass(frozen=True, eq=False)
class SystemBatch:
    """S u = g for a batch of systems of the same number of tissue dofs, on one device.

    The sparse parts of the systems are the diagonal blocks of one matrix. Networks differ in
    size: their dofs are padded to the largest, with ones on the diagonal of the factor.

    Attributes:
        A_33: Tissue blocks, sparse CSR, shape (batch n_3, batch n_3).
        A_31: Coupling blocks, sparse CSR, shape (batch n_3, batch n_1).
        A_13: Their transposes, sparse CSR, shape (batch n_1, batch n_3).
        L_11: Lower Cholesky factors of the network blocks, shape (batch, n_1, n_1).
        g: Right-hand sides, shape (batch, n_3).
        grid: Nodes of the structured box that all share, or None.
    """

    A_33: torch.Tensor
    A_31: torch.Tensor
    A_13: torch.Tensor
    L_11: torch.Tensor
    g: torch.Tensor
    grid: Grid | None

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        """Return S v, differentiable in v to any order.

        Args:
            v: Shape (batch, n_3), of this batch's dtype and device.

        Raises:
            ValueError: If shape, dtype or device of v do not fit.
        """
        wanted = (self.g.shape, self.g.dtype, self.g.device)
        if (v.shape, v.dtype, v.device) != wanted:
            raise ValueError(
                f"got v of shape {tuple(v.shape)}, {v.dtype} on {v.device}; wanted "
                f"{tuple(wanted[0])}, {wanted[1]} on {wanted[2]}. Convert v, or batch the systems "
                "in its dtype and on its device."
            )
        product: torch.Tensor = SymmetricProduct.apply(v, self._multiply)
        return product

    def _multiply(self, v: torch.Tensor) -> torch.Tensor:
        column = v.reshape(-1, 1)
        network = (self.A_13 @ column).reshape(*self.L_11.shape[:2], 1)
        network = torch.cholesky_solve(network, self.L_11)
        product = self.A_33 @ column - self.A_31 @ network.reshape(-1, 1)
        return product.reshape(v.shape)


def batch_systems(
    systems: Sequence[ReducedSystem],
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> SystemBatch:
    """Put reduced systems into one batch.

    Args:
        systems: At least one, all with the same number of tissue dofs in the same order.
        dtype: torch.float32 or torch.float64; factors are computed in float64.
        device: Where the tensors live.

    Raises:
        ValueError: If there is none, or their numbers of tissue dofs differ.
    """
    sizes = sorted({len(system.b_3) for system in systems})
    if len(sizes) != 1:
        raise ValueError(
            f"got {len(systems)} systems with {sizes} tissue dofs; wanted at least one system, all "
            "on the same grid. Batch each grid on its own."
        )
    most = max(len(system.b_1) for system in systems)
    L_11 = np.tile(np.eye(most), (len(systems), 1, 1))
    A_31 = []
    for system, L in zip(systems, L_11, strict=True):
        n_1 = len(system.b_1)
        L[:n_1, :n_1] = np.linalg.cholesky(system.A_11.toarray())
        padded = system.A_31.copy()
        padded.resize(sizes[0], most)
        A_31.append(padded)
    coupling = _block_diagonal(A_31)
    return SystemBatch(
        A_33=sparse_csr(_block_diagonal([system.A_33 for system in systems]), dtype, device),
        A_31=sparse_csr(coupling, dtype, device),
        A_13=sparse_csr(coupling.T.tocsr(), dtype, device),
        L_11=torch.tensor(L_11, dtype=dtype, device=device),
        g=torch.tensor(np.stack([system.g for system in systems]), dtype=dtype, device=device),
        grid=systems[0].grid,
    )


def _block_diagonal(blocks: Sequence[sparse.csr_array]) -> sparse.csr_array:
    """Put CSR matrices of one shape on a diagonal; several times faster than through COO."""
    rows, columns = blocks[0].shape
    ends = np.cumsum([0, *(block.nnz for block in blocks)])
    indptr = [block.indptr[:-1] + end for block, end in zip(blocks, ends[:-1], strict=True)]
    indices = [block.indices + i * columns for i, block in enumerate(blocks)]
    return sparse.csr_array(
        (
            np.concatenate([block.data for block in blocks]),
            np.concatenate(indices),
            np.concatenate([*indptr, ends[-1:]]),
        ),
        shape=(len(blocks) * rows, len(blocks) * columns),
    )

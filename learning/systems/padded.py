"""Sparse matrices of a batch with equally many entries in each row, for accelerators.

Gathers and scatters of fixed shapes need no look at a value: a CUDA graph can record them, and the
matrices of a batch are chosen on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse

__all__ = ["PaddedMap", "padded_map"]


@dataclass(frozen=True, eq=False)
class PaddedMap:
    """v -> A v for matrices A of one shape (m, n) with k entries in each row, some of them zero.

    Attributes:
        values: Shape (num_matrices, m, k).
        columns: Where they are, of the same shape, int64.
        num_columns: n.
        is_transposed: Whether this is v -> A' v.
    """

    values: torch.Tensor
    columns: torch.Tensor
    num_columns: int
    is_transposed: bool = False

    @property
    def T(self) -> PaddedMap:
        """The map v -> A' v."""
        return replace(self, is_transposed=not self.is_transposed)

    def __getitem__(self, index: torch.Tensor) -> PaddedMap:
        """Return the matrices of these numbers, shape (batch,)."""
        return replace(self, values=self.values[index], columns=self.columns[index])

    def __call__(self, v: torch.Tensor) -> torch.Tensor:
        """Return A v, shape (batch, m), for v of shape (batch, n); one matrix serves all."""
        columns = self.columns.flatten(1).expand(len(v), -1)
        if self.is_transposed:
            entries = (self.values * v[:, :, None]).flatten(1)
            return v.new_zeros(len(v), self.num_columns).scatter_add(1, columns, entries)
        entries = v.gather(1, columns).reshape(len(v), *self.columns.shape[1:])
        return (self.values * entries).sum(dim=2)


def padded_map(A: sparse.csr_array, num_matrices: int, like: torch.Tensor) -> PaddedMap:
    """Return the map of matrices that are the diagonal blocks of one.

    Args:
        A: Block-diagonal, one block of shape (m, n) for each matrix.
        num_matrices: Number of blocks.
        like: A tensor with the dtype and device of the vectors.
    """
    m, n = (size // num_matrices for size in A.shape)
    lengths = np.diff(A.indptr)
    k = max(int(lengths.max(initial=0)), 1)
    place = np.arange(k)
    is_entry = place < lengths[:, None]
    values = np.zeros((num_matrices * m, k))
    values[is_entry] = A.data
    # What is added to a row's first column, zeros, then meets few others there at the same time.
    first = np.minimum(A.indptr[:-1], max(A.nnz - 1, 0))
    columns = np.repeat(A.indices[first, None] if A.nnz else np.zeros((len(first), 1)), k, axis=1)
    columns = np.where((lengths > 0)[:, None], columns, 0).astype(np.int64)
    columns[is_entry] = A.indices
    shape = (num_matrices, m, k)
    return PaddedMap(
        torch.tensor(values.reshape(shape)).to(like),
        torch.tensor(columns.reshape(shape) % n, device=like.device),
        n,
    )

"""Sparse matrices of a batch of systems, and their inverses, as differentiable maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from learning import kernels
from mixeddim.tensors import (
    MOST_DENSE,
    Factors,
    FromTissue,
    Interpolation,
    Processes,
    SymmetricProduct,
    ToTissue,
    definite_factors,
    factors_of,
    factors_solver,
    sparse_csr,
)

__all__ = [
    "LinearMap",
    "SparseMap",
    "block_diagonal",
    "dense_blocks",
    "dense_inverses",
    "distributed_map",
    "multiply",
    "norm",
    "quasi_definite_factors",
    "quasi_definite_solver",
    "rows_of",
    "sparse_map",
    "spd_solver",
    "symmetric_map",
    "symmetric_on_host",
    "total",
]

type LinearMap = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class SparseMap:
    """v -> A v for a batch of matrices A of one shape (m, n), differentiable in v to any order.

    Attributes:
        forward: That map.
        backward: v -> A' v.
    """

    forward: LinearMap
    backward: LinearMap

    @property
    def T(self) -> SparseMap:
        """The map v -> A' v."""
        return SparseMap(self.backward, self.forward)

    def __call__(self, v: torch.Tensor) -> torch.Tensor:
        """Return A v, shape (batch, m), for v of shape (batch, n); of one matrix for any number."""
        if not v.requires_grad:
            return self.forward(v)
        product: torch.Tensor = _Product.apply(v, self.forward, self.backward)
        return product


class _Product(torch.autograd.Function):
    """A linear map whose backward is its transpose."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor, forward: LinearMap, backward: LinearMap) -> torch.Tensor:
        ctx.maps = backward, forward
        return forward(v.detach())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Product.apply(grad_outputs[0], *ctx.maps), None, None


def distributed_map(A: FromTissue | ToTissue | Interpolation, like: torch.Tensor) -> SparseMap:
    """Return the map of a matrix on several processes, in the dtype of a tensor."""
    if isinstance(A, ToTissue):
        return distributed_map(A.T, like).T
    if isinstance(A, FromTissue):
        columns, processes = sparse_map(A.columns.tocsr(), like), A.ownership.processes
        add = processes.add
        return SparseMap(lambda v: torch.from_numpy(add(columns(v).numpy())), columns.T)
    matrix, halo = A.local
    rows = sparse_map(matrix, like)
    return SparseMap(
        lambda v: rows(torch.from_numpy(halo.extend(v[0].numpy()))[None]),
        lambda v: torch.from_numpy(halo.add_back(rows.T(v)[0].numpy()))[None],
    )


def total(values: torch.Tensor, processes: Processes) -> torch.Tensor:
    """Return the sums over the processes of numbers that each has of its part, shape (n,)."""
    if processes.size == 1:
        return values
    return values.new_tensor([processes.sum(value) for value in values.tolist()])


def norm(v: torch.Tensor, processes: Processes) -> torch.Tensor:
    """Return the Euclidean norms of vectors over all processes, shape (batch,)."""
    here = torch.linalg.vector_norm(v, dim=1)
    if processes.size == 1:
        return here
    return here.new_tensor([processes.norm(np.array([value])) for value in here.tolist()])


def sparse_map(A: sparse.csr_array, like: torch.Tensor) -> SparseMap:
    """Return the map of a block-diagonal matrix, in the dtype and on the device of a tensor."""
    if kernels.ARE_COMPILED and not like.is_cuda:
        return _compiled_map(A, like.dtype)
    # To transpose sorts the indices, as torch needs; products leave them unsorted.
    transpose = A.T.tocsr()
    return SparseMap(
        _csr_map(A if A.has_sorted_indices else transpose.T.tocsr(), like),
        _csr_map(transpose, like),
    )


def symmetric_map(A: sparse.csr_array, like: torch.Tensor) -> SparseMap:
    """Return the map of a symmetric block-diagonal matrix, which is stored once."""
    if kernels.ARE_COMPILED and not like.is_cuda:
        product = _compiled_map(A, like.dtype).forward
    else:
        product = _csr_map(A if A.has_sorted_indices else A.T.tocsr(), like)
    return SparseMap(product, product)


def _csr_map(A: sparse.csr_array, like: torch.Tensor) -> LinearMap:
    return partial(multiply, sparse_csr(A, like.dtype, like.device))


def multiply(matrix: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return the product with each row of v, of a block-diagonal matrix with its own part.

    Args:
        matrix: Sparse CSR.
        v: Shape (batch, n); of one matrix (m, n) any number of vectors.
    """
    if v.numel() != matrix.shape[1]:  # many vectors of one matrix, which is read once
        return (matrix @ v.T).T
    # Products with a vector are twice as fast as with a one-column matrix.
    return (matrix @ v.reshape(-1)).reshape(len(v), -1)


def _compiled_map(A: sparse.csr_array, dtype: torch.dtype) -> SparseMap:
    """Return the map of a matrix on a CPU by compiled loops over its rows."""
    rows = rows_of(A, dtype)
    num_rows, num_columns = A.shape

    def vectors(v: torch.Tensor, length: int) -> NDArray[Any]:
        # A process without nodes of the tissue has vectors without entries.
        return v.contiguous().numpy().reshape(v.numel() // length if length else len(v), length)

    def forward(v: torch.Tensor) -> torch.Tensor:
        x = vectors(v, num_columns)
        y = np.empty((len(x), num_rows), dtype=x.dtype)
        for source, product in zip(x, y, strict=True):
            kernels.multiply_rows(rows, source, product)
        return torch.from_numpy(y).reshape(len(v), -1)

    def backward(v: torch.Tensor) -> torch.Tensor:
        x = vectors(v, num_rows)
        y = np.zeros((len(x), num_columns), dtype=x.dtype)
        for source, product in zip(x, y, strict=True):
            kernels.add_transposed_rows(rows, source, product)
        return torch.from_numpy(y).reshape(len(v), -1)

    return SparseMap(forward, backward)


def rows_of(A: sparse.csr_array, dtype: torch.dtype) -> tuple[NDArray[Any], ...]:
    """Return starts, columns and values of a matrix, as compiled loops take them."""
    # Some functions of scipy sort indices in place, and so move what is shared here.
    A = A if A.has_sorted_indices else A.sorted_indices()
    # Of indices without sign none counts from the end, which loops would have to check.
    columns = A.indices.astype(np.uint32 if A.shape[1] < 2**32 else np.uint64, copy=False)
    return A.indptr, columns, torch.from_numpy(A.data).to(dtype).numpy()


def block_diagonal(blocks: Sequence[sparse.csr_array], num_rows: int) -> sparse.csr_array:
    """Put CSR matrices with equally many columns on a diagonal, padded with zeros to `num_rows`.

    This is several times faster than scipy's function, which goes through COO.
    """
    num_columns = blocks[0].shape[1]
    ends = np.cumsum([0, *(block.nnz for block in blocks)])
    row_ends = [
        np.pad(block.indptr[1:] + start, (0, num_rows - block.shape[0]), constant_values=end)
        for block, (start, end) in zip(blocks, pairwise(ends), strict=True)
    ]
    return sparse.csr_array(
        (
            np.concatenate([block.data for block in blocks]),
            np.concatenate([block.indices + i * num_columns for i, block in enumerate(blocks)]),
            np.concatenate([[0], *row_ends]),
        ),
        shape=(len(blocks) * num_rows, len(blocks) * num_columns),
    )


def dense_blocks(A: sparse.csr_array, num_blocks: int) -> NDArray[np.float64]:
    """Return the diagonal blocks of a matrix without duplicate entries, (num_blocks, m, n)."""
    m, n = (size // num_blocks for size in A.shape)
    blocks = np.zeros((num_blocks, m, n))
    entries = A.tocoo()
    block, row = np.divmod(entries.row, m)
    blocks[block, row, entries.col - n * block] = entries.data
    return blocks


def spd_solver(A: sparse.csr_array, like: torch.Tensor) -> LinearMap:
    """Return b -> A^-1 b for symmetric positive definite matrices, differentiable in b.

    A CPU uses sparse factors in float64, whatever the dtype of b: the matrices of networks and of
    the tissue near them have hardly any fill-in. An accelerator uses dense inverses of up to
    `MOST_DENSE` rows, whose products are several times faster there than triangular solves; larger
    ones it leaves to the CPU.

    Args:
        A: Block-diagonal, one block of shape (n, n) for each system.
        like: A tensor with the dtype, device and shape (batch, n) of the vectors.

    Raises:
        ValueError: If A is not positive definite.
    """
    if like.is_cuda and like.shape[1] <= MOST_DENSE:
        blocks = torch.tensor(dense_blocks(A, len(like)), device=like.device)
        return dense_inverses(blocks, like.dtype)
    try:
        solve = definite_factors(A)
    except RuntimeError as error:
        raise ValueError(f"got {error}; wanted a positive definite matrix.") from error
    return symmetric_on_host(solve, A.shape[0])


def quasi_definite_solver(
    A: sparse.sparray,
    B: sparse.sparray,
    C: sparse.sparray,
    like: torch.Tensor,
    dense: bool | None = None,
) -> LinearMap:
    """Return y -> x with A x + B z = y and B' x - C z = 0, symmetric, differentiable in y.

    A CPU uses sparse factors, an accelerator dense inverses, both in float64. The rows and columns
    are scaled by powers of 2, after their largest entries.

    Args:
        A: Symmetric positive definite, block-diagonal, one block of shape (n, n) for each system.
        B: Block-diagonal, (n, m) each.
        C: Symmetric positive semidefinite, block-diagonal, (m, m) each.
        like: A tensor with the dtype, device and shape (batch, n) of the vectors.
        dense: Whether to use dense inverses; the default is True on an accelerator only.
    """
    n = A.shape[0]
    K, scale = _quasi_definite(A, B, C)
    if like.is_cuda if dense is None else dense:
        parts = [[K[:n, :n], K[:n, n:]], [K[n:, :n], K[n:, n:]]]
        blocks = np.block([[dense_blocks(part, len(like)) for part in row] for row in parts])
        corner = torch.linalg.inv(torch.tensor(blocks, device=like.device))
        corner = corner[:, : n // len(like), : n // len(like)]
        roots = torch.tensor(scale[:n], device=like.device).reshape(like.shape)
        return _dense_map((roots[:, :, None] * corner * roots[:, None]).to(like.dtype))
    solve_scaled = factors_solver(_pivoted_factors(K))

    def solve(y: NDArray[np.float64]) -> NDArray[np.float64]:
        right = np.zeros(len(scale))
        right[:n] = scale[:n] * y
        x: NDArray[np.float64] = scale[:n] * solve_scaled(right)[:n]
        return x

    return symmetric_on_host(solve)


def quasi_definite_factors(A: sparse.sparray, B: sparse.sparray, C: sparse.sparray) -> Factors:
    """Return factors of [[A, B], [B', -C]] for compiled loops (see `quasi_definite_solver`)."""
    K, scale = _quasi_definite(A, B, C)
    return factors_of(_pivoted_factors(K), scale)


def _quasi_definite(
    A: sparse.sparray, B: sparse.sparray, C: sparse.sparray
) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Return [[A, B], [B', -C]] with rows and columns scaled, and the scales."""
    K = sparse.block_array([[A, B], [B.T, -C]], format="csr")
    largest = abs(K).max(axis=1).toarray().ravel()
    scale = np.exp2(-np.rint(np.log2(np.where(largest > 0, largest, 1.0)) / 2))
    scaling = sparse.diags_array(scale)
    return (scaling @ K @ scaling).tocsr(), scale


def _pivoted_factors(K: sparse.csr_array) -> SuperLU:
    return splu(
        K.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.1,
        options={"SymmetricMode": True},
    )


def dense_inverses(A: torch.Tensor, dtype: torch.dtype) -> LinearMap:
    """Return b -> A^-1 b for dense matrices and b of any dtype.

    Args:
        A: Symmetric positive definite, shape (batch, n, n).
        dtype: The dtype of the products; the inverses are computed in the dtype of A.

    Raises:
        ValueError: If a matrix is not positive definite.
    """
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(A)).to(dtype)
    except torch.linalg.LinAlgError as error:
        raise ValueError(
            f"got a matrix that is not positive definite ({error}); wanted one that is."
        ) from error
    return _dense_map(inverse)


def _dense_map(A: torch.Tensor) -> LinearMap:
    """Return v -> A v for dense matrices (batch, n, n) and v of any dtype."""
    return lambda v: (A @ v.to(A.dtype)[:, :, None])[:, :, 0].to(v.dtype)


def symmetric_on_host(
    multiply: Callable[[NDArray[np.float64]], NDArray[np.float64]], size: int | None = None
) -> LinearMap:
    """Return a symmetric map of numpy vectors as a differentiable one of tensors (batch, n).

    Args:
        multiply: Of the vectors of a batch one after the other.
        size: Where it also takes several such vectors as columns, their length.
    """

    def apply(v: torch.Tensor) -> torch.Tensor:
        rows = v.detach().to("cpu", torch.float64).numpy()
        if size is None or rows.size == size:
            product = multiply(rows.ravel())
        else:
            product = multiply(rows.T).T
        return torch.from_numpy(product).to(v).reshape(v.shape)

    return lambda v: SymmetricProduct.apply(v, apply) if v.requires_grad else apply(v)

"""The reduced system as torch tensors, for neural preconditioners; needs no DOLFINx."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import sparse

from mixeddim.accuracy import ErrorBound, bound_error, relative_change, uncertainty
from mixeddim.atomic import replacing
from mixeddim.fem.grid import Grid
from mixeddim.memory import MemoryClaimError, check_claim, free_memory
from mixeddim.reduction import ReducedSystem

__all__ = [
    "ErrorBound",
    "Grid",
    "MemoryClaimError",
    "ReducedSystem",
    "ReducedTensors",
    "SymmetricProduct",
    "bound_error",
    "check_claim",
    "free_memory",
    "relative_change",
    "replacing",
    "sparse_csr",
    "to_torch",
    "uncertainty",
]


@dataclass(frozen=True, eq=False)
class ReducedTensors:
    """S u_3d = g with S = A_33 - A_31 (L L')^-1 A_13 on one device, in one dtype.

    Attributes:
        A_33: Tissue block, sparse CSR, shape (n_3, n_3).
        A_31: Coupling block, sparse CSR, shape (n_3, n_1).
        A_13: Its transpose, sparse CSR, shape (n_1, n_3).
        L_11: Lower Cholesky factor of the network block, dense, shape (n_1, n_1).
        g: Right-hand side, shape (n_3,).
        grid: Nodes of the structured box, to convert dofs to grid arrays and back, or None.
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
            v: Shape (..., n_3), of this system's dtype and device.

        Returns:
            The same shape as v.

        Raises:
            ValueError: If shape, dtype or device of v do not fit.
        """
        n, expected = self.g.shape[0], (self.g.dtype, self.g.device)
        if v.ndim == 0 or v.shape[-1] != n or (v.dtype, v.device) != expected:
            raise ValueError(
                f"got v of shape {tuple(v.shape)}, {v.dtype} on {v.device}; wanted (..., {n}), "
                f"{expected[0]} on {expected[1]}. Convert v, or call to_torch with its dtype and "
                "device."
            )
        product: torch.Tensor = SymmetricProduct.apply(v, self._multiply)
        return product

    def _multiply(self, v: torch.Tensor) -> torch.Tensor:
        columns = v.reshape(-1, v.shape[-1]).T.contiguous()
        network = torch.cholesky_solve(self.A_13 @ columns, self.L_11)
        product = self.A_33 @ columns - self.A_31 @ network
        return product.T.reshape(v.shape)


class SymmetricProduct(torch.autograd.Function):
    """A symmetric linear map; it is its own Jacobian, so backward is one more product."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        v: torch.Tensor,
        multiply: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return multiply(v)."""
        ctx.multiply = multiply
        return multiply(v)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *grad_outputs: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        """Return multiply(gradient), differentiable again."""
        return SymmetricProduct.apply(grad_outputs[0], ctx.multiply), None


def to_torch(
    reduced: ReducedSystem,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ReducedTensors:
    """Export a reduced system to torch; factors and right-hand side are computed in float64.

    The factor of the network block is dense, 8 n_1^2 bytes in float64: 70 MB at 3,000 network
    dofs. For larger networks use `reduced.S`, whose factors are sparse.

    Args:
        reduced: The system, assembled here or read by `mixeddim.load_reduced`.
        dtype: torch.float32 or torch.float64.
        device: Device of the tensors.

    Raises:
        ValueError: If the dtype is another one.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"got dtype={dtype}; wanted torch.float32 or torch.float64.")
    # Column-major order, so that cholesky_solve need not copy it.
    L_11 = torch.tensor(reduced.L_11.T).mT
    return ReducedTensors(
        A_33=sparse_csr(reduced.A_33, dtype, device),
        A_31=sparse_csr(reduced.A_31, dtype, device),
        A_13=sparse_csr(reduced.A_13, dtype, device),
        L_11=L_11.to(dtype=dtype, device=device),
        g=torch.tensor(reduced.g, dtype=dtype, device=device),
        grid=reduced.grid,
    )


def sparse_csr(A: sparse.csr_array, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """Return a scipy matrix as a torch CSR tensor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.tensor(A.indptr), torch.tensor(A.indices), torch.tensor(A.data),
            size=A.shape, dtype=dtype, device=device, check_invariants=True,
        )  # fmt: skip

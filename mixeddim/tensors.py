"""The reduced system as torch tensors, for neural preconditioners; needs no DOLFINx."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from scipy import sparse

from mixeddim.accuracy import ErrorBound, bound_error, relative_change, uncertainty
from mixeddim.algebra.chebyshev import (
    chebyshev,
    chebyshev_steps,
    fourth_kind_steps,
    iteration,
    nearly_inverse,
    nearly_inverse_steps,
)
from mixeddim.algebra.cholesky import cholesky_factors
from mixeddim.algebra.distributed import (
    FromTissue,
    Halo,
    Ownership,
    TissueMatrix,
    ToTissue,
)
from mixeddim.algebra.interpolation import Interpolation
from mixeddim.algebra.network_block import (
    MOST_FACTORED,
    coarse_basis,
    definite_factors,
    is_worth_coarsening,
)
from mixeddim.algebra.triangular import NO_FACTORS, Factors, factors_of, factors_solver, substitute
from mixeddim.atomic import replacing
from mixeddim.fem.grid import Grid
from mixeddim.memory import MemoryClaimError, check_claim, free_memory
from mixeddim.parametrisation import ParametrisedSystem, Term
from mixeddim.processes import ALONE, Processes
from mixeddim.reduction import ReducedSystem

__all__ = [
    "ALONE",
    "MOST_DENSE",
    "MOST_FACTORED",
    "NO_FACTORS",
    "ErrorBound",
    "Factors",
    "FromTissue",
    "Grid",
    "Halo",
    "Interpolation",
    "MemoryClaimError",
    "Ownership",
    "ParametrisedSystem",
    "Processes",
    "ReducedSystem",
    "ReducedTensors",
    "SymmetricProduct",
    "Term",
    "TissueMatrix",
    "ToTissue",
    "bound_error",
    "chebyshev",
    "chebyshev_steps",
    "check_claim",
    "cholesky_factors",
    "coarse_basis",
    "definite_factors",
    "factors_of",
    "factors_solver",
    "fourth_kind_steps",
    "free_memory",
    "is_worth_coarsening",
    "iteration",
    "nearly_inverse",
    "nearly_inverse_steps",
    "relative_change",
    "replacing",
    "sparse_csr",
    "substitute",
    "to_torch",
    "uncertainty",
]


MOST_DENSE: Final = 4000
"""Network dofs of which an accelerator holds a dense factor, 8 n_1^2 bytes in float64."""


@dataclass(frozen=True, eq=False)
class ReducedTensors:
    """S u_3d = g with S = A_33 - A_31 A_11^-1 A_13 on one device, in one dtype.

    Attributes:
        A_33: Tissue block, sparse CSR, shape (n_3, n_3).
        A_31: Coupling block, sparse CSR, shape (n_3, n_1).
        A_13: Its transpose, sparse CSR, shape (n_1, n_3).
        solve_11: The map b -> A_11^-1 b of the network block, shapes (n_1, k).
        g: Right-hand side, shape (n_3,).
        grid: Nodes of the structured box, to convert dofs to grid arrays and back, or None.
    """

    A_33: torch.Tensor
    A_31: torch.Tensor
    A_13: torch.Tensor
    solve_11: Callable[[torch.Tensor], torch.Tensor]
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
        network = self.solve_11(self.A_13 @ columns)
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

    The factors of the network block are sparse and stay on the CPU. An accelerator holds a dense
    one of up to `MOST_DENSE` network dofs, and asks the CPU for larger ones.

    Args:
        reduced: The system, assembled here or read by `mixeddim.load_reduced`.
        dtype: torch.float32 or torch.float64.
        device: Device of the tensors.

    Raises:
        ValueError: If the dtype is another one.
        NotImplementedError: If the system is distributed over several processes.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"got dtype={dtype}; wanted torch.float32 or torch.float64.")
    reduced.processes.refuse("to_torch")
    return ReducedTensors(
        A_33=sparse_csr(reduced.A_33, dtype, device),
        A_31=sparse_csr(reduced.A_31, dtype, device),
        A_13=sparse_csr(reduced.A_13, dtype, device),
        solve_11=_network_solver(reduced, dtype, torch.device(device)),
        g=torch.tensor(reduced.g, dtype=dtype, device=device),
        grid=reduced.grid,
    )


def _network_solver(
    reduced: ReducedSystem, dtype: torch.dtype, device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    if device.type != "cpu" and len(reduced.b_1) <= MOST_DENSE:
        # Column-major order, so that cholesky_solve need not copy it.
        L_11 = torch.tensor(reduced.L_11.T).mT.to(dtype=dtype, device=device)
        return lambda b: torch.cholesky_solve(b, L_11)
    solve_11 = reduced.solve_11
    return lambda b: torch.from_numpy(solve_11(b.to("cpu", torch.float64).numpy())).to(b)


def sparse_csr(A: sparse.csr_array, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """Return a scipy matrix as a torch CSR tensor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.tensor(A.indptr), torch.tensor(A.indices), torch.tensor(A.data),
            size=A.shape, dtype=dtype, device=device, check_invariants=True,
        )  # fmt: skip

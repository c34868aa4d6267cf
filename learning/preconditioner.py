"""What a preconditioner is: set up once for a batch of systems, applied once an iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from learning.operators import SystemBatch
from mixeddim.tensors import ReducedSystem

__all__ = ["Identity", "Jacobi", "Preconditioner"]


class Preconditioner(Protocol):
    """Anything that turns a batch of systems into an approximate inverse, M ≈ S⁻¹."""

    def setup(
        self, systems: Sequence[ReducedSystem], batch: SystemBatch
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Do what depends on the systems alone, and return the map r -> M r.

        Args:
            systems: The systems, for what a preconditioner needs to know of them.
            batch: The same systems on the device, in the dtype of the vectors.

        Returns:
            A map of residuals to corrections, both of shape (batch, n_3) in dof order.
        """
        ...


class Identity:
    """No preconditioner."""

    def setup(
        self,
        systems: Sequence[ReducedSystem],  # noqa: ARG002
        batch: SystemBatch,  # noqa: ARG002
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the identity (see `Preconditioner`)."""
        return lambda r: r


class Jacobi:
    """Division by the diagonal of A_33."""

    def setup(
        self, systems: Sequence[ReducedSystem], batch: SystemBatch
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the division by the diagonal (see `Preconditioner`)."""
        diagonals = torch.stack([torch.tensor(system.A_33.diagonal()) for system in systems])
        inverse = (1.0 / diagonals).to(batch.g)
        return lambda r: inverse * r

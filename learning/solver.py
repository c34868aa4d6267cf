"""Solve one reduced system with a learned or classical preconditioner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learning.krylov import Status, fgmres
from learning.operators import batch_systems
from learning.preconditioner import Preconditioner
from mixeddim.tensors import ReducedSystem

__all__ = ["SolveResult", "solve"]


@dataclass(frozen=True, eq=False)
class SolveResult:
    """The solution of a reduced system.

    Attributes:
        x: Tissue dofs in DOLFINx order, shape (n_3,).
        iterations: Krylov iterations.
        residual_norms: Norms of the residual, the initial one first, shape (iterations + 1,).
        status: How the solve ended, and what to try next where it failed.
    """

    x: NDArray[np.float64]
    iterations: int
    residual_norms: NDArray[np.float64]
    status: Status

    @property
    def converged(self) -> bool:
        """Whether the true residual reached the tolerance."""
        return self.status is Status.CONVERGED


def solve(
    reduced: ReducedSystem,
    preconditioner: Preconditioner,
    *,
    rtol: float = 1e-6,
    max_iterations: int = 200,
    device: torch.device | str = "cpu",
) -> SolveResult:
    """Solve S u_3d = g by flexible GMRES; vectors are in float64, M in the dtype of its own.

    Args:
        reduced: The system.
        preconditioner: How to precondition it.
        rtol: Wanted norm of the true residual, in units of the norm of g.
        max_iterations: Where to give up.
        device: Where to solve; the preconditioner has to live there.
    """
    batch = batch_systems([reduced], torch.float64, device)
    with torch.no_grad():
        precondition = preconditioner.setup([reduced], batch)
        result = fgmres(
            batch.apply, batch.g, precondition, rtol=rtol, max_iterations=max_iterations
        )
    return SolveResult(
        x=result.x[0].cpu().numpy(),
        iterations=int(result.iterations[0]),
        residual_norms=result.residual_norms[:, 0].cpu().numpy(),
        status=result.status[0],
    )

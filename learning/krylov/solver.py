"""Solve one reduced system with a learned or classical preconditioner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from learning.devices import usable_device
from learning.krylov.conjugate_gradients import cg, flexible_cg
from learning.krylov.fgmres import Status, fgmres
from learning.krylov.operators import batch_systems
from learning.krylov.preconditioner import Preconditioner, check_preconditioner
from mixeddim.tensors import ReducedSystem

__all__ = ["Method", "SolveResult", "solve"]

Method = Literal["auto", "fgmres", "cg", "flexible_cg"]
_METHODS = {"fgmres": fgmres, "cg": cg, "flexible_cg": flexible_cg}


@dataclass(frozen=True, eq=False)
class SolveResult:
    """The solution of a reduced system.

    Attributes:
        x: Tissue dofs in DOLFINx order, shape (n_3,).
        iterations: Krylov iterations.
        residual_norms: Norms of the residual, not divided by that of g, which is the first of
            them, shape (iterations + 1,).
        status: How the solve ended, and what to try next where it failed.
        method: The Krylov method that ran: "fgmres", "cg" or "flexible_cg".
    """

    x: NDArray[np.float64]
    iterations: int
    residual_norms: NDArray[np.float64]
    status: Status
    method: Method

    @property
    def converged(self) -> bool:
        """Whether the true residual reached the tolerance."""
        return self.status is Status.CONVERGED


def solve(
    reduced: ReducedSystem,
    preconditioner: Preconditioner,
    method: Method = "auto",
    *,
    rtol: float = 1e-6,
    max_iterations: int = 200,
    device: torch.device | str = "cpu",
) -> SolveResult:
    """Solve S u_3d = g by a Krylov method; vectors are in float64, M in the dtype of its own.

    Args:
        reduced: The system.
        preconditioner: How to precondition it.
        method: "auto": "cg" where the preconditioner declares itself linear and symmetric, "fgmres"
            otherwise. "fgmres": for any preconditioner. "cg": conjugate gradients, of constant
            memory, for one that is linear, symmetric and positive definite. "flexible_cg": the same
            with thirty directions kept, for one that is not quite.
        rtol: Wanted norm of the true residual, in units of the norm of g.
        max_iterations: Where to give up.
        device: Where to solve; the preconditioner has to live there.

    Raises:
        ValueError: If the method is unknown, or the preconditioner is none or does not fit.
    """
    if method not in get_args(Method):
        raise ValueError(f"got method={method!r}; wanted one of {get_args(Method)}. Choose one.")
    check_preconditioner(preconditioner)
    if method == "auto":
        method = suited_method(preconditioner)
    batch = batch_systems([reduced], torch.float64, usable_device(device))
    with torch.no_grad():
        result = _METHODS[method](
            batch.apply,
            batch.g,
            preconditioner.setup([reduced], batch),
            rtol=rtol,
            max_iterations=max_iterations,
        )
    iterations = int(result.iterations[0])
    return SolveResult(
        x=result.x[0].cpu().numpy(),
        iterations=iterations,
        residual_norms=result.residual_norms[: iterations + 1, 0].cpu().numpy(),
        status=result.status[0],
        method=method,
    )


def suited_method(preconditioner: Preconditioner) -> Literal["cg", "fgmres"]:
    """Return "cg" for a preconditioner declared linear and symmetric, "fgmres" for any other.

    One that declares nothing is taken to be neither.
    """
    is_definite = getattr(preconditioner, "is_linear", False) and getattr(
        preconditioner, "is_symmetric", False
    )
    return "cg" if is_definite else "fgmres"

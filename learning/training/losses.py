"""The losses of both training stages, and how to mix them.

Each takes a batch of systems, right-hand sides f (batch, n) and a preconditioner M that has been
set up for them, and returns the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from learning.krylov.conjugate_gradients import energy_reduction
from learning.krylov.cycles import precondition_in
from learning.krylov.fgmres import krylov_sines
from learning.krylov.operators import SystemBatch

__all__ = [
    "KRYLOV_LOSSES",
    "energy_loss",
    "hybrid_loss",
    "log_sine_loss",
    "residual_loss",
    "sine_loss",
]

type Map = Callable[[torch.Tensor], torch.Tensor]


def residual_loss(batch: SystemBatch, f: torch.Tensor, precondition: Map) -> torch.Tensor:
    """Return the static loss: the mean of |f - S M(f)| / |f|, over unit vectors as in the paper.

    The paper divides A by the root mean square of its diagonal, and so does M here: the products
    S M(f) are the same.
    """
    residual = f - batch.apply(precondition_in(precondition, f))
    norm = torch.linalg.vector_norm
    return (norm(residual, dim=1) / norm(f, dim=1)).mean()


def sine_loss(
    batch: SystemBatch,
    f: torch.Tensor,
    precondition: Map,
    num_steps: int = 10,
    *,
    checkpoint: bool = False,
) -> torch.Tensor:
    """Return the dynamic loss: the mean sine over the first steps of FGMRES.

    Activations are recomputed in the backward pass with `checkpoint` (see `krylov_sines`).
    """
    sines = krylov_sines(batch.apply, f, precondition, num_steps, checkpoint=checkpoint)
    return sines.abs().mean()


def log_sine_loss(
    batch: SystemBatch,
    f: torch.Tensor,
    precondition: Map,
    num_steps: int = 10,
    *,
    checkpoint: bool = False,
) -> torch.Tensor:
    """Return the mean logarithm of the sines, log(|r_m| / |r_0|) / m: it does not saturate.

    Activations are recomputed in the backward pass with `checkpoint` (see `krylov_sines`).
    """
    sines = krylov_sines(batch.apply, f, precondition, num_steps, checkpoint=checkpoint).abs()
    return sines.clamp_min(torch.finfo(sines.dtype).tiny).log().mean()


def hybrid_loss(
    batch: SystemBatch,
    f: torch.Tensor,
    precondition: Map,
    num_steps: int = 10,
    weight: float = 0.5,
    *,
    checkpoint: bool = False,
) -> torch.Tensor:
    """Return weight times the static loss plus (1 - weight) times the dynamic one.

    Raises:
        ValueError: If the weight is not between 0 and 1.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(
            f"got weight={weight}; wanted 0 for the sine loss to 1 for the residual loss."
        )
    static = residual_loss(batch, f, precondition)
    dynamic = sine_loss(batch, f, precondition, num_steps, checkpoint=checkpoint)
    return weight * static + (1.0 - weight) * dynamic


def energy_loss(
    batch: SystemBatch,
    f: torch.Tensor,
    precondition: Map,
    num_steps: int = 10,
    *,
    checkpoint: bool = False,
) -> torch.Tensor:
    """Return the mean of log(|e_m| / |e_0|) / m, energy norms of the error of conjugate gradients.

    What `log_sine_loss` is to FGMRES, for an M that is linear and symmetric positive definite; NaN
    where it is not definite (see `energy_reduction`). Activations are recomputed in the backward
    pass with `checkpoint`.
    """
    squares = energy_reduction(batch.apply, f, precondition, num_steps, checkpoint=checkpoint)
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).log().mean() / (2 * num_steps)


KRYLOV_LOSSES: Mapping[str, Callable[..., torch.Tensor]] = MappingProxyType(
    {
        "sine": sine_loss,
        "log_sine": log_sine_loss,
        "hybrid": hybrid_loss,
        "energy": energy_loss,
    }
)
"""Losses that run a Krylov method, by name."""

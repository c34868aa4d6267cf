"""The losses of the static and the dynamic training stage.

Each takes a batch of systems, right-hand sides f (batch, n) and a preconditioner M that has been
set up for them, and returns the mean over the batch. The dynamic ones run `num_steps` steps of a
Krylov method; with `checkpoint` they compute activations again in the backward pass, to save
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from learning.krylov.conjugate_gradients import energy_reduction
from learning.krylov.cycles import precondition_in
from learning.krylov.fgmres import krylov_sines
from learning.systems.operators import SystemBatch

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
    """Return the static loss: the mean of |f - S M(f)| / |f|.

    It equals the loss of the paper (arXiv:2507.15452), which takes unit vectors f and divides A by
    the root mean square of its diagonal: M does that division here, so that S M(f) is the same.
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
    """Return the dynamic loss: the mean sine over the first steps of FGMRES."""
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
    """Return the mean logarithm of the sines, log(|r_m| / |r_0|) / m, which does not saturate."""
    sines = krylov_sines(batch.apply, f, precondition, num_steps, checkpoint=checkpoint)
    return _mean_log(sines.abs())


def hybrid_loss(
    batch: SystemBatch,
    f: torch.Tensor,
    precondition: Map,
    num_steps: int = 10,
    weight: float = 0.5,
    *,
    checkpoint: bool = False,
) -> torch.Tensor:
    """Return weight times `residual_loss` plus (1 - weight) times `sine_loss`.

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
    """Return the mean of log(|e_m| / |e_0|) / m, with the error e of conjugate gradients.

    The norm is the energy norm. This is the counterpart of `log_sine_loss` for an M that is linear
    and symmetric positive definite; it is NaN where M is not definite (see `energy_reduction`).
    """
    squares = energy_reduction(batch.apply, f, precondition, num_steps, checkpoint=checkpoint)
    return _mean_log(squares) / (2 * num_steps)


def _mean_log(values: torch.Tensor) -> torch.Tensor:
    """Return the mean logarithm, finite for zeros."""
    return values.clamp_min(torch.finfo(values.dtype).tiny).log().mean()


KRYLOV_LOSSES: Mapping[str, Callable[..., torch.Tensor]] = MappingProxyType(
    {
        "sine": sine_loss,
        "log_sine": log_sine_loss,
        "hybrid": hybrid_loss,
        "energy": energy_loss,
    }
)
"""Losses that run a Krylov method, by name."""

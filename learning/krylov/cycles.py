"""Shared by FGMRES and CG: the restart loop, the check of the true residual, the result object.

A method is a cycle: a number of steps from a residual to a correction. The residual of a
recurrence drifts from the true one, so the loop computes b - A x after each cycle. Where that is
still too large but falling, the next cycle starts from it. Training differentiates a single cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Protocol

import torch
from torch.utils.checkpoint import checkpoint

from learning.devices import is_capturing
from learning.systems.sparse import LinearMap, norm
from mixeddim.tensors import ALONE, Processes

__all__ = [
    "Cycle",
    "KrylovResult",
    "RunCycle",
    "Status",
    "check",
    "first_cycle",
    "or_one",
    "precondition_in",
    "recomputed",
    "solve_by_cycles",
]


class Status(Enum):
    """How the solve of a system ended, and what to try next."""

    CONVERGED = "converged"
    INACCURATE = (
        "the residual reached rtol, but a field may be off by more than 1e-5 of its size (see "
        "error_bound): use a stronger preconditioner, or mixeddim.solve"
    )
    MAX_ITERATIONS = "stopped at max_iterations: raise it, or use a stronger preconditioner"
    STAGNATED = (
        "the true residual stopped falling above the tolerance: raise rtol, use float64 vectors, "
        "or a preconditioner that is not singular"
    )
    NOT_FINITE = "the operator or the preconditioner returned NaN or infinity: check its input"
    NOT_DEFINITE = (
        "the operator or the preconditioner is not positive definite, which conjugate gradients "
        "need: use fgmres"
    )


@dataclass(frozen=True, eq=False)
class KrylovResult:
    """The outcome of a batched Krylov solve.

    Attributes:
        x: Solutions, shape (batch, n); the last finite iterate of a system that failed.
        iterations: Number of steps of each system, shape (batch,).
        residual_norms: Norms by the recurrence, that of the initial guess first and one after each
            step, shape (steps + 1, batch); constant after a system has stopped.
        sines: Ratio of the residual norms after and before each step, shape (steps, batch); 1
            after a system has stopped. In FGMRES they are the sines of the Givens rotations, at
            most 1; in conjugate gradients the residual may grow.
        true_residual_norms: Norms of b - A x, shape (batch,).
        status: How each system ended.
    """

    x: torch.Tensor
    iterations: torch.Tensor
    residual_norms: torch.Tensor
    sines: torch.Tensor
    true_residual_norms: torch.Tensor
    status: tuple[Status, ...]


@dataclass(frozen=True, eq=False)
class Cycle:
    """The result of a cycle: lists have one entry per step, tensors one per system."""

    correction: torch.Tensor
    residual_norms: list[torch.Tensor]
    sines: list[torch.Tensor]
    iterations: torch.Tensor
    not_finite: torch.Tensor
    not_definite: torch.Tensor


class RunCycle(Protocol):
    """Run between one and `num_steps` steps of a method, for the active systems."""

    def __call__(
        self,
        residual: torch.Tensor,
        num_steps: int,
        active: torch.Tensor,
        tolerance: torch.Tensor,
        /,
    ) -> Cycle:
        """Start from a residual (batch, n); stop each system at its tolerance (batch,)."""
        ...


def solve_by_cycles(
    run_cycle: RunCycle,
    apply: LinearMap,
    b: torch.Tensor,
    *,
    rtol: float,
    max_iterations: int,
    restart: int | None = None,
    initial_guess: torch.Tensor | None = None,
    processes: Processes = ALONE,
) -> KrylovResult:
    """Solve a batch of systems A x = b by cycles of a method.

    Args:
        run_cycle: The method.
        apply: A, from (batch, n) to (batch, n).
        b: Right-hand sides, shape (batch, n).
        rtol: Wanted norm of b - A x, in units of the norm of b.
        max_iterations: Largest number of steps.
        restart: Largest number of steps in a cycle; unlimited by default.
        initial_guess: Where to start, of the shape of b; zero by default.
        processes: Over which vectors are distributed; n is what this process has of them.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, the guess does not fit b or is
            not finite, or a number is out of range.
    """
    with processes.together():
        check(b, rtol, max_iterations, restart)
        _check_guess(initial_guess, b)
    x, residual = torch.zeros_like(b), b
    true_norms = norm(b, processes)
    tolerance = rtol * true_norms
    if initial_guess is not None:
        # Where b is zero, so is the solution: no other start reaches a tolerance of zero.
        x = torch.where(true_norms[:, None] > 0, initial_guess, 0.0)
        residual = b - apply(x)
        true_norms = norm(residual, processes)
    residual_norms = [true_norms]
    sines: list[torch.Tensor] = []
    iterations = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    stagnated = torch.zeros_like(iterations, dtype=torch.bool)
    not_finite, not_definite = ~torch.isfinite(true_norms), torch.zeros_like(stagnated)

    while len(sines) < max_iterations:
        active = (true_norms > tolerance) & ~(stagnated | not_finite | not_definite)
        if not active.any():
            break
        steps = min(restart or max_iterations, max_iterations - len(sines))
        cycle = run_cycle(residual, steps, active, tolerance)
        x = x + cycle.correction
        residual = b - apply(x)
        norms_before, true_norms = true_norms, norm(residual, processes)
        # A cycle may end early: its recurrence converged, or it broke down. If the true residual
        # has not fallen by then, another cycle will not lower it either.
        ended = (cycle.iterations < steps) | (cycle.residual_norms[-1] <= tolerance)
        stagnated = stagnated | (
            active & ended & (true_norms > tolerance) & (true_norms > norms_before / 2)
        )
        not_finite = not_finite | cycle.not_finite
        not_definite = not_definite | cycle.not_definite
        iterations = iterations + cycle.iterations
        residual_norms += cycle.residual_norms
        sines += cycle.sines

    ends = zip(true_norms <= tolerance, not_finite, not_definite, stagnated, strict=True)
    return KrylovResult(
        x,
        iterations,
        torch.stack(residual_norms),
        torch.stack(sines) if sines else b.new_empty(0, len(b)),
        true_norms,
        tuple(_status(*(bool(flag) for flag in flags)) for flags in ends),
    )


def first_cycle(run_cycle: RunCycle, b: torch.Tensor, num_steps: int) -> Cycle:
    """Run one cycle from zero in which no system converges, for the losses of training.

    Args:
        run_cycle: The method.
        b: Right-hand sides, shape (batch, n).
        num_steps: Number of steps; a cycle that breaks down takes fewer.
    """
    active = torch.ones(len(b), dtype=torch.bool, device=b.device)
    return run_cycle(b, num_steps, active, b.new_full((len(b),), -1.0))


def recomputed(precondition: LinearMap) -> LinearMap:
    """Return the same map, computed again in the backward pass to save memory."""
    return partial(checkpoint, precondition, use_reentrant=False)


def precondition_in(precondition: LinearMap, v: torch.Tensor) -> torch.Tensor:
    """Return M v in the dtype of v.

    Raises:
        ValueError: If M is no function, or returns no tensor, or one of another shape or device.
    """
    wanted = f"{tuple(v.shape)} on {v.device}, as it was given"
    if not callable(precondition):
        raise ValueError(
            f"got {_kind(precondition)} as the map r -> M r; wanted a function of tensors of shape "
            f"{wanted}. End setup with `return` and that function."
        )
    z = precondition(v)
    if not isinstance(z, torch.Tensor):
        raise ValueError(
            f"got {_kind(z)} from the preconditioner; wanted a tensor of shape {wanted}. End its "
            "function, or the `forward` of its model, with `return` and that tensor."
        )
    if z.shape != v.shape or z.device != v.device:
        raise ValueError(
            f"got shape {tuple(z.shape)} on {z.device} from the preconditioner; wanted {wanted}. "
            "Correct its last reshape or `to`."
        )
    return z.to(v.dtype)


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def or_one(values: torch.Tensor) -> torch.Tensor:
    """Replace zeros by ones, to divide by them: the numerators are zero there."""
    return torch.where(values > 0, values, 1.0)


def check(b: torch.Tensor, rtol: float, max_iterations: int, restart: int | None) -> None:
    """Check the arguments of a method (see `solve_by_cycles`)."""
    if b.ndim != 2 or not b.is_floating_point():
        raise ValueError(
            f"got b of shape {tuple(b.shape)} and {b.dtype}; wanted (batch, n) in float32 or "
            "float64. Use b[None] for a single system."
        )
    if not is_capturing(b) and not _are_finite(b):
        bad = torch.isfinite(b).all(dim=1).logical_not().nonzero().ravel().tolist()
        raise ValueError(f"got NaN or infinity in the right-hand sides {bad}; wanted numbers.")
    if not 0.0 <= rtol < 1.0:
        raise ValueError(f"got rtol={rtol}; wanted at least 0 and less than 1.")
    if max_iterations < 1:
        raise ValueError(f"got {max_iterations} steps; wanted at least one.")
    if restart is not None and restart < 1:
        raise ValueError(f"got restart={restart}; wanted a positive number, or None for never.")


def _are_finite(v: torch.Tensor) -> bool:
    """Return whether all entries are, which mostly their norms tell, in a tenth of the time."""
    norms = torch.linalg.vector_norm(v.detach(), dim=1)
    return bool(torch.isfinite(norms).all() or torch.isfinite(v).all())


def _check_guess(guess: torch.Tensor | None, b: torch.Tensor) -> None:
    if guess is None:
        return
    if (guess.shape, guess.dtype, guess.device) != (b.shape, b.dtype, b.device):
        raise ValueError(
            f"got an initial guess of shape {tuple(guess.shape)}, {guess.dtype} on {guess.device}; "
            f"wanted {tuple(b.shape)}, {b.dtype} on {b.device}, as b. Convert it."
        )
    if not _are_finite(guess):
        raise ValueError("got NaN or infinity in the initial guess; wanted numbers. Leave it out.")


def _status(is_solved: bool, not_finite: bool, not_definite: bool, stagnated: bool) -> Status:
    if is_solved:
        return Status.CONVERGED
    if not_finite:
        return Status.NOT_FINITE
    if not_definite:
        return Status.NOT_DEFINITE
    return Status.STAGNATED if stagnated else Status.MAX_ITERATIONS

"""Flexible GMRES for batches of systems, differentiable through all of its steps.

One cycle serves both uses: to solve, with systems that drop out as they converge, and to train,
where the sines of its Givens rotations are the loss. With V the orthonormal basis, z_j = M(v_j)
and the Arnoldi relation A Z = V H, each rotation of the QR factors of H has a sine s_k with
||r_k|| = |s_k| ||r_{k-1}||: the sine of the angle between the residual r_{k-1} and the space A Z_k
that the step adds to (Saad 1993, doi:10.1137/0914028; Eiermann & Ernst 2001,
doi:10.1017/S0962492901000046).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch

__all__ = ["KrylovResult", "Status", "fgmres", "krylov_sines"]

type LinearMap = Callable[[torch.Tensor], torch.Tensor]


class Status(Enum):
    """How the solve of a system ended, and what to try next."""

    CONVERGED = "converged"
    MAX_ITERATIONS = "stopped at max_iterations: raise it, or use a stronger preconditioner"
    STAGNATED = (
        "the true residual stopped falling above the tolerance: raise rtol, or use float64 vectors"
    )
    NOT_FINITE = "the operator or the preconditioner returned NaN or infinity: check its input"


@dataclass(frozen=True, eq=False)
class KrylovResult:
    """The outcome of a batched Krylov solve.

    Attributes:
        x: Solutions, shape (batch, n); the last finite iterate of a system that failed.
        iterations: Steps that each system took, shape (batch,).
        residual_norms: Norms after each step by the recurrence, the initial one first, shape
            (steps + 1, batch); constant once a system has stopped.
        sines: Sines of the Givens rotations, shape (steps, batch); 1 once a system has stopped.
        true_residual_norms: Norms of b - A x, shape (batch,).
        status: How each system ended.
    """

    x: torch.Tensor
    iterations: torch.Tensor
    residual_norms: torch.Tensor
    sines: torch.Tensor
    true_residual_norms: torch.Tensor
    status: tuple[Status, ...]


def fgmres(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    *,
    rtol: float = 1e-6,
    max_iterations: int = 200,
    restart: int | None = None,
) -> KrylovResult:
    """Solve a batch of systems A x = b by flexible GMRES, from zero.

    Args:
        apply: A, from (batch, n) to (batch, n).
        b: Right-hand sides, shape (batch, n); float64 to reach small tolerances.
        precondition: M, an approximate inverse of A, nonlinear if need be, of the same shapes;
            its result is converted to the dtype of b.
        rtol: Wanted norm of b - A x, in units of the norm of b.
        max_iterations: Where to give up.
        restart: Steps after which to restart, to save memory; never by default.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, or a number is out of range.
    """
    _check(b, rtol, max_iterations, restart)
    tolerance = rtol * torch.linalg.vector_norm(b, dim=1)
    x, residual = torch.zeros_like(b), b
    true_norms = torch.linalg.vector_norm(b, dim=1)
    residual_norms = [true_norms]
    sines: list[torch.Tensor] = []
    iterations = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    stagnated = torch.zeros_like(iterations, dtype=torch.bool)
    not_finite = torch.zeros_like(stagnated)

    while len(sines) < max_iterations:
        active = (true_norms > tolerance) & ~stagnated & ~not_finite
        if not active.any():
            break
        steps = min(restart or max_iterations, max_iterations - len(sines))
        cycle = _arnoldi_cycle(apply, precondition, residual, steps, active, tolerance)
        x = x + cycle.correction
        residual = b - apply(x)
        norms_before, true_norms = true_norms, torch.linalg.vector_norm(residual, dim=1)
        # A cycle that ended of itself, converged by its recurrence or broken down, has to have
        # lowered the true residual; where it has not, another one will not either.
        ended = (cycle.iterations < steps) | (cycle.residual_norms[-1] <= tolerance)
        stagnated = stagnated | (
            active & ended & (true_norms > tolerance) & (true_norms > norms_before / 2)
        )
        not_finite = not_finite | cycle.not_finite
        iterations = iterations + cycle.iterations
        residual_norms += cycle.residual_norms
        sines += cycle.sines

    ends = zip(true_norms <= tolerance, not_finite, stagnated, strict=True)
    return KrylovResult(
        x,
        iterations,
        torch.stack(residual_norms),
        torch.stack(sines) if sines else b.new_empty(0, len(b)),
        true_norms,
        tuple(_status(*(bool(flag) for flag in flags)) for flags in ends),
    )


def krylov_sines(
    apply: LinearMap, b: torch.Tensor, precondition: LinearMap, num_steps: int
) -> torch.Tensor:
    """Return the sines of the first steps of FGMRES, differentiable in whatever M depends on.

    Args:
        apply: A, from (batch, n) to (batch, n), differentiable.
        b: Right-hand sides, shape (batch, n).
        precondition: M, of the same shapes, differentiable.
        num_steps: Number of steps m.

    Returns:
        Shape (num_steps, batch).
    """
    _check(b, rtol=0.0, max_iterations=num_steps, restart=None)
    everything = torch.ones(len(b), dtype=torch.bool, device=b.device)
    never = b.new_full((len(b),), -1.0)
    return torch.stack(_arnoldi_cycle(apply, precondition, b, num_steps, everything, never).sines)


@dataclass(frozen=True, eq=False)
class _Cycle:
    """What a cycle yields: lists have an entry a step, tensors one for each system."""

    correction: torch.Tensor
    residual_norms: list[torch.Tensor]
    sines: list[torch.Tensor]
    iterations: torch.Tensor
    not_finite: torch.Tensor


def _arnoldi_cycle(
    apply: LinearMap,
    precondition: LinearMap,
    residual: torch.Tensor,
    num_steps: int,
    active: torch.Tensor,
    tolerance: torch.Tensor,
) -> _Cycle:
    """Run up to `num_steps` steps from a residual, for the systems that are active.

    Nothing is written in place, so that autograd sees every step. A system that stops carries
    zeros from then on: a zero direction with a one on the diagonal of R, which adds nothing.
    """
    norm = torch.linalg.vector_norm(residual, dim=1)
    basis = [residual / _or_one(norm)[:, None]]
    directions: list[torch.Tensor] = []
    columns: list[list[torch.Tensor]] = []
    rotations: list[tuple[torch.Tensor, torch.Tensor]] = []
    right_hand_side: list[torch.Tensor] = []
    remaining = norm  # the last entry of the rotated right-hand side, up to its sign
    residual_norms: list[torch.Tensor] = []
    sines: list[torch.Tensor] = []
    iterations = torch.zeros_like(active, dtype=torch.int64)
    not_finite = torch.zeros_like(active)

    for _ in range(num_steps):
        if not active.any():
            break
        z = precondition(basis[-1]).to(residual.dtype)
        w = apply(z)
        finite = torch.isfinite(w).all(dim=1) & torch.isfinite(z).all(dim=1)
        not_finite = not_finite | (active & ~finite)
        active = active & finite
        z, w = (torch.where(active[:, None], vector, 0.0) for vector in (z, w))

        h, w, below = _orthogonalise(torch.stack(basis, dim=1), w)
        column = list(h.unbind(dim=1))
        for i, (c, s) in enumerate(rotations):
            column[i], column[i + 1] = (
                c * column[i] + s * column[i + 1],
                c * column[i + 1] - s * column[i],
            )
        length = torch.linalg.vector_norm(torch.stack([column[-1], below]), dim=0)
        used = active & (length > 0)
        cosine = torch.where(used, column[-1] / _or_one(length), 0.0)
        sine = torch.where(used, below / _or_one(length), 1.0)
        column[-1] = torch.where(used, length, 1.0)
        rotations.append((cosine, sine))
        right_hand_side.append(cosine * remaining)
        remaining = -sine * remaining

        columns.append(column)
        directions.append(z)
        basis.append(w / _or_one(below)[:, None])
        residual_norms.append(remaining.abs())
        sines.append(sine)
        iterations = iterations + active
        active = used & (below > 0) & (remaining.abs() > tolerance)

    correction = torch.zeros_like(residual)
    if columns:
        y = _back_substitute(columns, right_hand_side)
        correction = torch.einsum("bk,bkn->bn", y, torch.stack(directions, dim=1))
    return _Cycle(correction, residual_norms, sines, iterations, not_finite)


def _orthogonalise(
    V: torch.Tensor, w: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split w into V h and a rest orthogonal to V, by Gram-Schmidt done twice.

    Returns h (batch, k), the rest (batch, n) and its norm (batch,), zero where the rest is no more
    than rounding: the happy breakdown.
    """
    size = torch.linalg.vector_norm(w, dim=1)
    h = torch.zeros_like(V[:, :, 0])
    for _ in range(2):
        projection = torch.einsum("bkn,bn->bk", V, w)
        w = w - torch.einsum("bkn,bk->bn", V, projection)
        h = h + projection
    is_rounding = torch.linalg.vector_norm(w.detach(), dim=1) <= (
        10 * torch.finfo(w.dtype).eps * size.detach()
    )
    w = torch.where(is_rounding[:, None], 0.0, w)
    return h, w, torch.where(is_rounding, 0.0, torch.linalg.vector_norm(w, dim=1))


def _back_substitute(
    columns: list[list[torch.Tensor]], right_hand_side: list[torch.Tensor]
) -> torch.Tensor:
    """Solve R y = g with R given by its columns; returns y, shape (batch, k)."""
    zero = torch.zeros_like(right_hand_side[0])
    k = len(columns)
    padded = [torch.stack(column + [zero] * (k - len(column)), dim=1) for column in columns]
    R = torch.stack(padded, dim=2)
    g = torch.stack(right_hand_side, dim=1)
    return torch.linalg.solve_triangular(R, g[:, :, None], upper=True)[:, :, 0]


def _or_one(values: torch.Tensor) -> torch.Tensor:
    """Replace zeros by ones: what is divided by them is zero itself."""
    return torch.where(values > 0, values, 1.0)


def _status(is_solved: bool, not_finite: bool, stagnated: bool) -> Status:
    if is_solved:
        return Status.CONVERGED
    if not_finite:
        return Status.NOT_FINITE
    return Status.STAGNATED if stagnated else Status.MAX_ITERATIONS


def _check(b: torch.Tensor, rtol: float, max_iterations: int, restart: int | None) -> None:
    if b.ndim != 2 or not b.is_floating_point():
        raise ValueError(
            f"got b of shape {tuple(b.shape)} and {b.dtype}; wanted (batch, n) in float32 or "
            "float64. Use b[None] for a single system."
        )
    if not torch.isfinite(b).all():
        bad = torch.isfinite(b).all(dim=1).logical_not().nonzero().ravel().tolist()
        raise ValueError(f"got NaN or infinity in the right-hand sides {bad}; wanted numbers.")
    if not 0.0 <= rtol < 1.0:
        raise ValueError(f"got rtol={rtol}; wanted at least 0 and less than 1.")
    if max_iterations < 1:
        raise ValueError(f"got {max_iterations} steps; wanted at least one.")
    if restart is not None and restart < 1:
        raise ValueError(f"got restart={restart}; wanted a positive number, or None for never.")

"""Conjugate gradients for batches of symmetric positive definite systems, plain and flexible.

The same cycle solves systems and, in training, shows how the error falls.

A has to be symmetric positive definite. The plain method needs the same of M (Hestenes & Stiefel
1952, doi:10.6028/jres.049.044), and stores a fixed number of vectors; FGMRES stores two per step.
"""

from __future__ import annotations

from functools import partial

import torch

from learning.krylov.cycles import (
    Cycle,
    KrylovResult,
    Status,
    check,
    first_cycle,
    or_one,
    precondition_in,
    recomputed,
    solve_by_cycles,
)
from learning.systems.sparse import LinearMap, norm, total
from mixeddim.tensors import ALONE, Processes

__all__ = ["cg", "energy_reduction", "flexible_cg"]

MOST_STEPS = 1000  # of the second solve in `energy_reduction`, for the remaining error


def cg(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    *,
    rtol: float = 1e-6,
    max_iterations: int = 200,
    initial_guess: torch.Tensor | None = None,
    processes: Processes = ALONE,
) -> KrylovResult:
    """Solve a batch of systems A x = b by conjugate gradients.

    Args:
        apply: A, symmetric positive definite, from (batch, n) to (batch, n).
        b: Right-hand sides, shape (batch, n); float64 to reach small tolerances.
        precondition: M, an approximate inverse of A, linear and symmetric positive definite, of
            the same shapes; its result is converted to the dtype of b.
        rtol: Wanted norm of b - A x, in units of the norm of b.
        max_iterations: Largest number of steps.
        initial_guess: Where to start, of the shape of b; zero by default.
        processes: Over which vectors are distributed; n is what this process has of them.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, the guess does not fit b or is
            not finite, or a number is out of range.
    """
    cycle = partial(_conjugate_cycle, apply, precondition, 1, True, processes)
    return solve_by_cycles(
        cycle,
        apply,
        b,
        rtol=rtol,
        max_iterations=max_iterations,
        initial_guess=initial_guess,
        processes=processes,
    )


def flexible_cg(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    *,
    rtol: float = 1e-6,
    max_iterations: int = 200,
    num_directions: int = 30,
    initial_guess: torch.Tensor | None = None,
    processes: Processes = ALONE,
) -> KrylovResult:
    """Solve a batch of systems A x = b by flexible conjugate gradients.

    Unlike `cg`, it allows an M that changes between steps, is nonlinear or negative definite. Each
    new direction is made A-orthogonal to several previous ones, not only to the last (Notay 2000,
    doi:10.1137/S1064827599362314).

    Args:
        apply: A, symmetric positive definite, from (batch, n) to (batch, n).
        b: Right-hand sides, shape (batch, n); float64 to reach small tolerances.
        precondition: M, an approximate inverse of A, of the same shapes; its result is converted
            to the dtype of b.
        rtol: Wanted norm of b - A x, in units of the norm of b.
        max_iterations: Largest number of steps.
        num_directions: How many directions to store, with their images under A. The less linear M
            is, the more are needed. With one direction the U-Net stalls after a few steps; with
            all of them it needs about as many steps as FGMRES.
        initial_guess: Where to start, of the shape of b; zero by default.
        processes: Over which vectors are distributed; n is what this process has of them.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, the guess does not fit b or is
            not finite, or a number is out of range.
    """
    if num_directions < 1:
        raise ValueError(f"got num_directions={num_directions}; wanted at least one.")
    cycle = partial(_conjugate_cycle, apply, precondition, num_directions, False, processes)
    return solve_by_cycles(
        cycle,
        apply,
        b,
        rtol=rtol,
        max_iterations=max_iterations,
        initial_guess=initial_guess,
        processes=processes,
    )


def energy_reduction(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    num_steps: int,
    *,
    checkpoint: bool = False,
) -> torch.Tensor:
    """Return |e_m|² / |e_0|² in the energy norm, after m steps of `cg` from zero.

    Let r be the residual of x_m. Then |e_m|² = r'A^-1 r is the maximum of 2 e'r - e'A e over e. An
    error in e changes this value only to second order, and its derivative in r holds e constant.
    So a second solve, for r and without gradients, gives e without cancellation. Since e_m and x_m
    are orthogonal in A, |e_0|² = |e_m|² + b'x_m.

    Args:
        apply: A, symmetric positive definite, from (batch, n) to (batch, n), differentiable.
        b: Right-hand sides, shape (batch, n).
        precondition: M, linear and symmetric positive definite, of the same shapes,
            differentiable in whatever it depends on.
        num_steps: Number of steps m; a system stops early when its residual is rounding error.
        checkpoint: Whether to compute each M r again in the backward pass, to save memory.

    Returns:
        Shape (batch,). NaN where A or M is not finite or not positive definite, and where the
        second solve does not converge because M is too weak.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, or there is no step.
    """
    check(b, rtol=0.0, max_iterations=num_steps, restart=None)
    b = b / or_one(torch.linalg.vector_norm(b, dim=1))[:, None]  # so that no square overflows
    M = recomputed(precondition) if checkpoint else precondition
    cycle = first_cycle(partial(_conjugate_cycle, apply, M, 1, True, ALONE), b, num_steps)
    x = cycle.correction
    r = b - apply(x)
    with torch.no_grad():
        rest = cg(apply, r.detach(), precondition, max_iterations=MOST_STEPS)
        found = [status is Status.CONVERGED for status in rest.status]
        failed = cycle.not_finite | cycle.not_definite | ~torch.tensor(found, device=b.device)
    squared = _dot(rest.x, 2.0 * r - apply(rest.x)).clamp_min(0.0)
    return torch.where(failed, torch.nan, squared / or_one(squared + _dot(b, x)))


def _conjugate_cycle(
    apply: LinearMap,
    precondition: LinearMap,
    num_directions: int,
    is_definite: bool,
    processes: Processes,
    residual: torch.Tensor,
    num_steps: int,
    active: torch.Tensor,
    tolerance: torch.Tensor,
) -> Cycle:
    """Run up to `num_steps` steps from a residual, for the systems that are active.

    Everything is in units of the first residual norm, so that no square under- or overflows. The
    dtype's precision limits how far the residual can truly fall, and there the cycle ends. A
    system that stops keeps its residual, and adds zeros to the directions.
    """
    size = norm(residual, processes)
    tolerance = (tolerance / or_one(size)).clamp_min(torch.finfo(residual.dtype).eps)
    x, r = torch.zeros_like(residual), residual / or_one(size)[:, None]
    length = size / or_one(size)
    # The last directions p, their images A p and their energies p'A p.
    directions: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    energies: list[torch.Tensor] = []
    residual_norms: list[torch.Tensor] = []
    sines: list[torch.Tensor] = []
    iterations = torch.zeros_like(active, dtype=torch.int64)
    not_finite, not_definite = torch.zeros_like(active), torch.zeros_like(active)

    for _ in range(num_steps):
        if not active.any():
            break
        z = precondition_in(precondition, r)
        p = _conjugate(z, directions, images, energies, processes)
        image = apply(p)
        rz, energy = _dot(r, z, processes), _dot(p, image, processes)
        # Where a vector is not finite, its products are not either: checking these is enough.
        finite = torch.isfinite(rz) & torch.isfinite(energy)
        definite = (energy > 0) & (rz > 0) if is_definite else energy > 0
        not_finite = not_finite | (active & ~finite)
        not_definite = not_definite | (active & finite & ~definite)
        active = active & finite & definite
        if not active.all():
            p, image = (torch.where(active[:, None], vector, 0.0) for vector in (p, image))
        energy = torch.where(active, energy, 1.0)

        step = (_dot(p, r, processes) / energy)[:, None]
        x, r = torch.addcmul(x, step, p), torch.addcmul(r, -step, image)
        directions = [*directions, p][-num_directions:]
        images = [*images, image][-num_directions:]
        energies = [*energies, energy][-num_directions:]
        length_before, length = length, norm(r, processes)
        residual_norms.append(size * length)
        sines.append(torch.where(active, length / or_one(length_before), 1.0))
        iterations = iterations + active
        active = active & (length > tolerance)

    correction = size[:, None] * x
    return Cycle(correction, residual_norms, sines, iterations, not_finite, not_definite)


def _conjugate(
    z: torch.Tensor,
    directions: list[torch.Tensor],
    images: list[torch.Tensor],
    energies: list[torch.Tensor],
    processes: Processes,
) -> torch.Tensor:
    """Make z orthogonal in A to directions p, given their images A p and energies p'A p.

    For one direction the coefficient is the one of Polak and Ribière. For a linear symmetric M it
    equals the one of Fletcher and Reeves, and is less sensitive to rounding in M (Golub & Ye 1999,
    doi:10.1137/S1064827597323415).
    """
    if not directions:
        return z
    if len(directions) == 1:  # without copies
        coefficient = _dot(z, images[0], processes) / energies[0]
        return torch.addcmul(z, -coefficient[:, None], directions[0])
    coefficients = z[:, None] @ torch.stack(images, dim=1).mT
    coefficients = total(coefficients.flatten(), processes).reshape(coefficients.shape)
    coefficients = coefficients / torch.stack(energies, dim=1)[:, None]
    return z - (coefficients @ torch.stack(directions, dim=1))[:, 0]


def _dot(u: torch.Tensor, v: torch.Tensor, processes: Processes = ALONE) -> torch.Tensor:
    return total(torch.einsum("bn,bn->b", u, v), processes)

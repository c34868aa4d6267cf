"""Conjugate gradients for batches of symmetric positive definite systems, plain and flexible.

As with FGMRES one cycle serves both uses: to solve, and to train on how the error falls.

A has to be symmetric positive definite, and for the plain method M too (Hestenes & Stiefel 1952,
doi:10.6028/jres.049.044), which then keeps a handful of vectors where FGMRES keeps two a step.
"""

from __future__ import annotations

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint as recomputed

from learning.krylov.cycles import (
    Cycle,
    KrylovResult,
    LinearMap,
    Status,
    check,
    or_one,
    precondition_in,
    solve_by_cycles,
)

__all__ = ["cg", "energy_reduction", "flexible_cg"]

MOST_STEPS = 1000  # to find the error that is left after the steps of `energy_reduction`


def cg(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    *,
    rtol: float = 1e-6,
    max_iterations: int = 200,
) -> KrylovResult:
    """Solve a batch of systems A x = b by conjugate gradients, from zero.

    Args:
        apply: A, symmetric positive definite, from (batch, n) to (batch, n).
        b: Right-hand sides, shape (batch, n); float64 to reach small tolerances.
        precondition: M, an approximate inverse of A, linear and symmetric positive definite, of
            the same shapes; its result is converted to the dtype of b.
        rtol: Wanted norm of b - A x, in units of the norm of b.
        max_iterations: Where to give up.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, or a number is out of range.
    """
    cycle = partial(_conjugate_cycle, apply, precondition, 1, True)
    return solve_by_cycles(cycle, apply, b, rtol=rtol, max_iterations=max_iterations)


def flexible_cg(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    *,
    rtol: float = 1e-6,
    max_iterations: int = 200,
    num_directions: int = 30,
) -> KrylovResult:
    """Solve a batch of systems A x = b by flexible conjugate gradients, from zero.

    As `cg`, for an M that changes from step to step, is nonlinear or has the other sign: each new
    direction is made orthogonal in A to several before it, not to the last alone (Notay 2000,
    doi:10.1137/S1064827599362314).

    Args:
        apply: A, symmetric positive definite, from (batch, n) to (batch, n).
        b: Right-hand sides, shape (batch, n); float64 to reach small tolerances.
        precondition: M, an approximate inverse of A, of the same shapes; its result is converted
            to the dtype of b.
        rtol: Wanted norm of b - A x, in units of the norm of b.
        max_iterations: Where to give up.
        num_directions: How many directions to keep, with their images under A: the less linear M,
            the more. With one the U-Net stalls after a few steps; with all that there are it takes
            about the steps of FGMRES.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, or a number is out of range.
    """
    if num_directions < 1:
        raise ValueError(f"got num_directions={num_directions}; wanted at least one.")
    cycle = partial(_conjugate_cycle, apply, precondition, num_directions, False)
    return solve_by_cycles(cycle, apply, b, rtol=rtol, max_iterations=max_iterations)


def energy_reduction(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    num_steps: int,
    *,
    checkpoint: bool = False,
) -> torch.Tensor:
    """Return |e_m|² / |e_0|² in the energy norm, after m steps of `cg` from zero.

    With the residual r of x_m, |e_m|² = r'A^-1 r is the maximum of 2 e'r - e'A e over e, to which
    an error of e counts squared, and whose derivative in r takes e as constant: a second solve,
    from r and without gradients, finds it without cancellation. |e_0|² = |e_m|² + b'x_m, as
    e_m and x_m are orthogonal in A.

    Args:
        apply: A, symmetric positive definite, from (batch, n) to (batch, n), differentiable.
        b: Right-hand sides, shape (batch, n).
        precondition: M, linear and symmetric positive definite, of the same shapes,
            differentiable in whatever it depends on.
        num_steps: Number of steps m; a system stops where its residual is down to rounding.
        checkpoint: Whether to compute each M r again in the backward pass, to save memory.

    Returns:
        Shape (batch,): NaN where A or M is not finite or not positive definite, or M so weak that
        the error was not found.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, or there is no step.
    """
    check(b, rtol=0.0, max_iterations=num_steps, restart=None)
    b = b / or_one(torch.linalg.vector_norm(b, dim=1))[:, None]  # or squares may overflow
    everything = torch.ones(len(b), dtype=torch.bool, device=b.device)
    kept = partial(recomputed, precondition, use_reentrant=False) if checkpoint else precondition
    never = b.new_full((len(b),), -1.0)
    cycle = _conjugate_cycle(apply, kept, 1, True, b, num_steps, everything, never)
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
    residual: torch.Tensor,
    num_steps: int,
    active: torch.Tensor,
    tolerance: torch.Tensor,
) -> Cycle:
    """Run up to `num_steps` steps from a residual, for the systems that are active.

    Everything is in units of the first residual norm, so that no square under- or overflows. Its
    fall by more than the precision of the dtype is fiction: there the cycle ends. A system that
    stops keeps its residual, and adds zeros to the directions.
    """
    size = torch.linalg.vector_norm(residual, dim=1)
    tolerance = (tolerance / or_one(size)).clamp_min(torch.finfo(residual.dtype).eps)
    x, r = torch.zeros_like(residual), residual / or_one(size)[:, None]
    norm = size / or_one(size)
    # The last directions p and their images A p, scaled to p'A p = 1.
    directions: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    residual_norms: list[torch.Tensor] = []
    sines: list[torch.Tensor] = []
    iterations = torch.zeros_like(active, dtype=torch.int64)
    not_finite, not_definite = torch.zeros_like(active), torch.zeros_like(active)

    for _ in range(num_steps):
        if not active.any():
            break
        z = precondition_in(precondition, r)
        p = _conjugate(z, directions, images)
        image = apply(p)
        rz, energy = _dot(r, z), _dot(p, image)
        # A product with a vector that is not finite is not finite: no need to look into vectors.
        finite = torch.isfinite(rz) & torch.isfinite(energy)
        definite = (energy > 0) & (rz > 0) if is_definite else energy > 0
        not_finite = not_finite | (active & ~finite)
        not_definite = not_definite | (active & finite & ~definite)
        active = active & finite & definite

        length = torch.where(active, energy, 1.0).sqrt()[:, None]
        p, image = (torch.where(active[:, None], vector / length, 0.0) for vector in (p, image))
        step = _dot(p, r)[:, None]
        x, r = x + step * p, r - step * image
        directions = [*directions, p][-num_directions:]
        images = [*images, image][-num_directions:]
        norm_before, norm = norm, torch.linalg.vector_norm(r, dim=1)
        residual_norms.append(size * norm)
        sines.append(torch.where(active, norm / or_one(norm_before), 1.0))
        iterations = iterations + active
        active = active & (norm > tolerance)

    correction = size[:, None] * x
    return Cycle(correction, residual_norms, sines, iterations, not_finite, not_definite)


def _conjugate(
    z: torch.Tensor, directions: list[torch.Tensor], images: list[torch.Tensor]
) -> torch.Tensor:
    """Make z orthogonal in A to directions p with p'A p = 1, given their images A p.

    For one direction the coefficient is Polak and Ribière's, for a linear symmetric M the same as
    Fletcher and Reeves' and less sensitive to rounding in M (Golub & Ye 1999,
    doi:10.1137/S1064827597323415).
    """
    if not directions:
        return z
    coefficients = z[:, None] @ torch.stack(images, dim=1).mT
    return z - (coefficients @ torch.stack(directions, dim=1))[:, 0]


def _dot(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bn,bn->b", u, v)

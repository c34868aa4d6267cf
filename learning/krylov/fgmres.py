"""Flexible GMRES for batches of systems, differentiable through all of its steps.

The same cycle solves systems, where each stops once it converges, and trains models, where the
loss is made of the sines of its Givens rotations. With V the orthonormal basis, z_j = M(v_j) and
the Arnoldi relation A Z = V H, the QR factorisation of H has one rotation per step. Its sine s_k
satisfies ||r_k|| = |s_k| ||r_{k-1}||, and is the sine of the angle between the residual r_{k-1} and
the space A Z_k (Saad 1993, doi:10.1137/0914028; Eiermann & Ernst 2001,
doi:10.1017/S0962492901000046).
"""

from __future__ import annotations

from functools import partial

import torch

from learning.devices import is_capturing
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
from learning.systems.sparse import LinearMap

__all__ = ["KrylovResult", "Status", "fgmres", "krylov_sines"]


def fgmres(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    *,
    rtol: float = 1e-6,
    max_iterations: int = 200,
    restart: int | None = None,
    initial_guess: torch.Tensor | None = None,
) -> KrylovResult:
    """Solve a batch of systems A x = b by flexible GMRES.

    Args:
        apply: A, from (batch, n) to (batch, n).
        b: Right-hand sides, shape (batch, n); float64 to reach small tolerances.
        precondition: M, an approximate inverse of A, of the same shapes, which may be nonlinear;
            its result is converted to the dtype of b.
        rtol: Wanted norm of b - A x, in units of the norm of b.
        max_iterations: Largest number of steps.
        restart: Number of steps between restarts, to save memory; no restarts by default.
        initial_guess: Where to start, of the shape of b; zero by default.

    Raises:
        ValueError: If b is not of shape (batch, n) or not finite, the guess does not fit b or is
            not finite, or a number is out of range.
    """
    cycle = partial(_arnoldi_cycle, apply, precondition)
    return solve_by_cycles(
        cycle,
        apply,
        b,
        rtol=rtol,
        max_iterations=max_iterations,
        restart=restart,
        initial_guess=initial_guess,
    )


def krylov_sines(
    apply: LinearMap,
    b: torch.Tensor,
    precondition: LinearMap,
    num_steps: int,
    *,
    checkpoint: bool = False,
) -> torch.Tensor:
    """Return the sines of the first steps of FGMRES, differentiable in whatever M depends on.

    Args:
        apply: A, from (batch, n) to (batch, n), differentiable.
        b: Right-hand sides, shape (batch, n).
        precondition: M, of the same shapes, differentiable.
        num_steps: Number of steps m.
        checkpoint: Whether to compute each M v again in the backward pass, instead of storing its
            activations. This costs one more forward pass per step; memory then holds about m² / 2
            vectors.

    Returns:
        Shape (num_steps, batch). 1 after a system is solved to rounding; NaN for a system for which
        A or M returned NaN or infinity.
    """
    check(b, rtol=0.0, max_iterations=num_steps, restart=None)
    M = recomputed(precondition) if checkpoint else precondition
    cycle = first_cycle(partial(_arnoldi_cycle, apply, M), b, num_steps)
    after_the_last = [b.new_ones(len(b))] * (num_steps - len(cycle.sines))
    sines = torch.stack([*cycle.sines, *after_the_last])
    return torch.where(cycle.not_finite, torch.nan, sines)


def _arnoldi_cycle(
    apply: LinearMap,
    precondition: LinearMap,
    residual: torch.Tensor,
    num_steps: int,
    active: torch.Tensor,
    tolerance: torch.Tensor,
) -> Cycle:
    """Run up to `num_steps` steps from a residual, for the systems that are active.

    Nothing is written in place, so that autograd sees every step. A system that has stopped gets
    zero directions, with ones on the diagonal of R, which add nothing.
    """
    norm = torch.linalg.vector_norm(residual, dim=1)
    basis = _Basis(residual / or_one(norm)[:, None])
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
        # What a graph records takes all steps: those of systems that have stopped add nothing.
        if not is_capturing(residual) and not active.any():
            break
        z = precondition_in(precondition, basis.last)
        w = apply(z)
        finite = torch.isfinite(w).all(dim=1) & torch.isfinite(z).all(dim=1)
        not_finite = not_finite | (active & ~finite)
        active = active & finite
        z, w = (torch.where(active[:, None], vector, 0.0) for vector in (z, w))

        h, w, below = _orthogonalise(basis.vectors, w)
        column = list(h.unbind(dim=1))
        for i, (c, s) in enumerate(rotations):
            column[i], column[i + 1] = (
                c * column[i] + s * column[i + 1],
                c * column[i + 1] - s * column[i],
            )
        length = torch.linalg.vector_norm(torch.stack([column[-1], below]), dim=0)
        used = active & (length > 0)
        cosine = torch.where(used, column[-1] / or_one(length), 0.0)
        sine = torch.where(used, below / or_one(length), 1.0)
        column[-1] = torch.where(used, length, 1.0)
        rotations.append((cosine, sine))
        right_hand_side.append(cosine * remaining)
        remaining = -sine * remaining

        columns.append(column)
        directions.append(z)
        basis.append(w / or_one(below)[:, None])
        residual_norms.append(remaining.abs())
        sines.append(sine)
        iterations = iterations + active
        active = used & (below > 0) & (remaining.abs() > tolerance)

    correction = torch.zeros_like(residual)
    if columns and not is_capturing(residual):  # training wants the sines alone
        y = _back_substitute(columns, right_hand_side)
        correction = (y[:, None] @ torch.stack(directions, dim=1))[:, 0]
    not_definite = torch.zeros_like(active)  # FGMRES does not need A or M to be
    return Cycle(correction, residual_norms, sines, iterations, not_finite, not_definite)


class _Basis:
    """Orthonormal vectors, shape (batch, k, n), written in place where autograd does not record.

    Autograd needs a new stack of the list in every step. In a solve with hundreds of steps that
    would take longer than everything else.
    """

    def __init__(self, first: torch.Tensor) -> None:
        self.last = first
        self._recorded = [first] if torch.is_grad_enabled() else []
        self._store, self._count = first[:, None], 1

    @property
    def vectors(self) -> torch.Tensor:
        """All vectors, the latest last."""
        if self._recorded:
            return torch.stack(self._recorded, dim=1)
        return self._store[:, : self._count]

    def append(self, v: torch.Tensor) -> None:
        """Add a vector, shape (batch, n)."""
        self.last = v
        if self._recorded:
            self._recorded.append(v)
            return
        capacity = self._store.shape[1]
        if self._count == capacity:  # doubling it keeps the cost of all copies that of one or two
            grown = v.new_empty(len(v), 2 * capacity, v.shape[1])
            grown[:, :capacity] = self._store
            self._store = grown
        self._store[:, self._count] = v
        self._count += 1


def _orthogonalise(
    V: torch.Tensor, w: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split w into V h and a rest orthogonal to V, by Gram-Schmidt done twice.

    Returns h (batch, k), the rest (batch, n) and its norm (batch,). The rest is set to zero where
    it is rounding error: the happy breakdown.
    """
    size = torch.linalg.vector_norm(w, dim=1)
    h = torch.zeros_like(V[:, :, 0])
    for _ in range(2):
        projection = (w[:, None] @ V.mT)[:, 0]
        w = w - (projection[:, None] @ V)[:, 0]  # einsum would copy V
        h = h + projection
    is_rounding = torch.linalg.vector_norm(w.detach(), dim=1) <= (
        10 * torch.finfo(w.dtype).eps * size.detach()
    )
    w = torch.where(is_rounding[:, None], 0.0, w)
    return h, w, torch.where(is_rounding, 0.0, torch.linalg.vector_norm(w, dim=1))


def _back_substitute(
    columns: list[list[torch.Tensor]], right_hand_side: list[torch.Tensor]
) -> torch.Tensor:
    """Solve R y = g for y, shape (batch, k), with R given by its columns."""
    zero = torch.zeros_like(right_hand_side[0])
    k = len(columns)
    padded = [torch.stack(column + [zero] * (k - len(column)), dim=1) for column in columns]
    R = torch.stack(padded, dim=2)
    g = torch.stack(right_hand_side, dim=1)
    return torch.linalg.solve_triangular(R, g[:, :, None], upper=True)[:, :, 0]

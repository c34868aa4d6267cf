"""Estimate the error of a solution of S u_3d = g, by a few steps of CG with multigrid.

A small residual does not imply a small error of the fields: strong exchange makes g large, and S v
has rounding errors of its own. So this file computes the error S^-1 r, to a tenth in the energy
norm, and a bound on the effect of rounding (see `mixeddim.accuracy`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal

from learning.krylov.preconditioner import Jacobi, Preconditioner
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.preconditioners.multigrid.learned import LearnedMultigrid
from learning.systems.operators import SystemBatch
from learning.systems.sparse import LinearMap
from mixeddim.tensors import ErrorBound, Processes, ReducedSystem, bound_error, uncertainty

__all__ = ["ErrorEstimator"]

_MOST_STEPS: Final = 300
_UNKNOWN: Final = ErrorBound(np.inf, np.inf)


class ErrorEstimator:
    """Estimates errors of one system, set up once.

    On a structured box by geometric multigrid, or by the user's preconditioner where that is a
    multigrid already. On other meshes by the user's preconditioner if it is symmetric, or Jacobi's.

    Args:
        reduced: The system.
        batch: The same system, in float64.
        preconditioner: The user's.
        M: What its set-up returned.
    """

    def __init__(
        self,
        reduced: ReducedSystem,
        batch: SystemBatch,
        preconditioner: Preconditioner,
        M: LinearMap,
    ) -> None:
        self.reduced, self.batch = reduced, batch
        self._M: LinearMap | None = M
        if not isinstance(preconditioner, GeometricMultigrid | LearnedMultigrid):
            other: Preconditioner | None = None
            if reduced.grid is not None:
                other = GeometricMultigrid()
            elif not getattr(preconditioner, "is_symmetric", False):
                other = Jacobi()
            if other is not None:
                self._M = _set_up(other, reduced, batch)

    def error(self, x: torch.Tensor) -> ErrorBound:
        """Return how far x is off on each side, by its residual.

        Args:
            x: Shape (1, n_3).
        """
        residual = self.batch.g - self.batch.apply(x)
        error_3 = self._solve(residual)
        if error_3 is None:
            return _UNKNOWN
        error_1 = self.reduced.solve_11(-self.reduced.exchange_1(error_3))
        return bound_error(self._fields(x), (error_3, error_1), self.batch.processes)

    def rounding(self, x: torch.Tensor) -> ErrorBound:
        """Return how far rounding may put any x off on each side.

        Args:
            x: Close to the solution, shape (1, n_3).
        """
        reduced, fields = self.reduced, self._fields(x)
        # The rest of the residual is rounding, too.
        w_3, w_1 = uncertainty(reduced, (reduced.b_3, reduced.b_1), fields, with_residual=False)
        right = w_3 + reduced.exchange_3(reduced.solve_11(w_1))
        error_3 = self._solve(torch.tensor(right[None]).to(self.batch.g))
        if error_3 is None:
            return _UNKNOWN
        error_1 = reduced.solve_11(w_1 + reduced.exchange_1(error_3))
        return bound_error(fields, (error_3, error_1), self.batch.processes)

    def _fields(self, x: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        u_3d = x[0].cpu().numpy()
        return u_3d, self.reduced.back_substitute(u_3d)

    def _solve(self, b: torch.Tensor) -> NDArray[np.float64] | None:
        """Return S^-1 b to a tenth, or None where that was not found."""
        if self._M is None:
            return None
        processes = self.batch.processes
        size = processes.max(float(torch.linalg.vector_norm(b, torch.inf)) if b.numel() else 0.0)
        if not size > 0:
            return np.zeros(b.shape[1])
        x = _conjugate_gradients(self.batch.apply, b / size, self._M, processes)
        return None if x is None else (size * x)[0].cpu().numpy()


def _set_up(
    preconditioner: Preconditioner, reduced: ReducedSystem, batch: SystemBatch
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    try:
        return preconditioner.setup([reduced], batch)
    except ValueError:  # singular on its coarsest grid
        return None


def _conjugate_gradients(
    apply: LinearMap, b: torch.Tensor, M: LinearMap, processes: Processes
) -> torch.Tensor | None:
    """Return A^-1 b with a hundredth of its energy off, for one system; None if not found.

    With theta the smallest eigenvalue of M A, found as Lanczos finds it (Golub & Van Loan 2013,
    Matrix Computations, section 11.3), the error of a residual r has at most the energy
    r'M r / theta.
    """

    def dot(u: torch.Tensor, v: torch.Tensor) -> float:
        return processes.sum(float((u * v).sum()))

    x, r = torch.zeros_like(b), b
    p = z = M(r)
    rz, energy = dot(r, z), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    before = 0.0
    for _ in range(_MOST_STEPS):
        image = apply(p)
        curvature = dot(p, image)
        if not (curvature > 0.0 and rz > 0.0):
            return None
        step = rz / curvature
        x, r = x + step * p, r - step * image
        energy += step * rz
        diagonal.append(1.0 / step + before)
        theta = eigvalsh_tridiagonal(
            np.array(diagonal), np.array(beside), select="i", select_range=(0, 0)
        )[0]
        z = M(r)
        rz_next = dot(r, z)
        if rz_next <= 1e-2 * theta * energy:
            return x
        ratio = rz_next / rz
        if not ratio >= 0.0:
            return None
        beside.append(np.sqrt(ratio) / step)
        before = ratio / step
        p, rz = z + ratio * p, rz_next
    return None

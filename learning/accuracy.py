"""Estimate the error of a solution of S u_3d = g, by a few steps of CG with multigrid.

A small residual does not imply a small error of the fields: strong exchange makes g large, and S v
has rounding errors of its own. So this file computes the error S^-1 r, to a tenth in the energy
norm, and a bound on the effect of rounding (see `mixeddim.accuracy`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal

from learning.krylov.cycles import or_one
from learning.krylov.preconditioner import Jacobi, Preconditioner, map_of
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.preconditioners.multigrid.learned import LearnedMultigrid
from learning.systems.operators import SystemBatch
from learning.systems.sparse import LinearMap, total
from mixeddim.tensors import Processes, ReducedSystem, bound_error, uncertainty

__all__ = ["ErrorEstimator"]

_MOST_STEPS: Final = 300


type Loads = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Right-hand sides b_3 (k, n_3) and b_1 (k, n_1) of tissue and network."""


class ErrorEstimator:
    """Estimates errors of solutions of one system, set up once for any number of them.

    On a structured box by geometric multigrid, or by the user's preconditioner where that is a
    multigrid already. On other meshes by the user's preconditioner if it is symmetric, or Jacobi's.

    Args:
        reduced: The system.
        batch: The same system, in float64.
        preconditioner: The user's.
        M: What its set-up returned, for any number of vectors.
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

    def error(self, x: torch.Tensor, loads: Loads) -> NDArray[np.float64]:
        """Return how far each solution is off on its worse side, by its residual, shape (k,).

        Args:
            x: Shape (k, n_3).
            loads: Their right-hand sides.
        """
        b_3, b_1 = loads
        g = torch.from_numpy(self.reduced.condense(b_3, b_1)).to(x)
        errors_3, is_found = self._solve(g - self.batch.apply(x))
        reduced = self.reduced
        errors_1 = [reduced.solve_11(-reduced.exchange_1(error)) for error in errors_3]
        return self._bounds(self._fields(x, b_1), zip(errors_3, errors_1, strict=True), is_found)

    def rounding(self, x: torch.Tensor, loads: Loads) -> NDArray[np.float64]:
        """Return how far rounding may put any solution off on its worse side, shape (k,).

        Args:
            x: Close to the solutions, shape (k, n_3).
            loads: Their right-hand sides.
        """
        reduced, fields = self.reduced, self._fields(x, loads[1])
        # The rest of the residual is rounding, too.
        roundings = [
            uncertainty(reduced, b, pair, with_residual=False)
            for b, pair in zip(zip(*loads, strict=True), fields, strict=True)
        ]
        right = [w_3 + reduced.exchange_3(reduced.solve_11(w_1)) for w_3, w_1 in roundings]
        errors_3, is_found = self._solve(torch.from_numpy(np.stack(right)).to(x))
        errors = [
            (error, reduced.solve_11(w_1 + reduced.exchange_1(error)))
            for error, (_, w_1) in zip(errors_3, roundings, strict=True)
        ]
        return self._bounds(fields, errors, is_found)

    def _fields(self, x: torch.Tensor, b_1: NDArray[np.float64]) -> list[_Pair]:
        u_3d = x.cpu().numpy()
        return list(zip(u_3d, self.reduced.back_substitute(u_3d, b_1), strict=True))

    def _bounds(
        self, fields: list[_Pair], errors: Iterable[_Pair], is_found: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        processes = self.batch.processes
        bounds = [
            bound_error(pair, error, processes).largest
            for pair, error in zip(fields, errors, strict=True)
        ]
        return np.where(is_found, bounds, np.inf)

    def _solve(self, b: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return S^-1 b to a tenth, and for which rows that was found."""
        if self._M is None:
            return np.zeros(b.shape), np.zeros(len(b), dtype=bool)
        processes = self.batch.processes
        here = b.abs().amax(dim=1).tolist() if b.numel() else [0.0] * len(b)
        size = b.new_tensor([processes.max(value) for value in here])[:, None]
        x, is_found = _conjugate_gradients(
            self.batch.apply, b / or_one(size), self._M, self.batch.processes
        )
        return (size * x).cpu().numpy(), is_found.cpu().numpy()


type _Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def _set_up(
    preconditioner: Preconditioner, reduced: ReducedSystem, batch: SystemBatch
) -> LinearMap | None:
    try:
        return map_of(preconditioner, reduced, batch)
    except ValueError:  # singular on its coarsest grid
        return None


def _conjugate_gradients(
    apply: LinearMap, b: torch.Tensor, M: LinearMap, processes: Processes
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A^-1 b with a hundredth of its energy off, and for which rows that was found.

    With theta the smallest eigenvalue of M A, found as Lanczos finds it (Golub & Van Loan 2013,
    Matrix Computations, section 11.3), the error of a residual r has at most the energy
    r'M r / theta. A row that has ended keeps its solution.
    """

    def dot(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return total((u * v).sum(dim=1), processes)

    x, r = torch.zeros_like(b), b
    p = z = M(r)
    rz, energy, before = dot(r, z), b.new_zeros(len(b)), b.new_zeros(len(b))
    is_found = total(r.abs().sum(dim=1), processes) == 0.0
    active = ~is_found
    diagonal: list[torch.Tensor] = []
    beside: list[torch.Tensor] = []
    for _ in range(_MOST_STEPS):
        image = apply(p)
        curvature = dot(p, image)
        active = active & (curvature > 0.0) & (rz > 0.0)
        if not active.any():
            break
        step = torch.where(active, rz / curvature, 0.0)
        x, r = x + step[:, None] * p, r - step[:, None] * image
        energy = energy + step * rz
        diagonal.append(torch.where(active, 1.0 / step, 1.0) + before)
        theta = _smallest_eigenvalues(diagonal, beside, active)
        z = M(r)
        rz_next = dot(r, z)
        is_done = active & (rz_next <= 1e-2 * theta * energy)
        is_found, active = is_found | is_done, active & ~is_done & (rz_next >= 0.0)
        ratio = torch.where(active, rz_next / rz, 0.0)
        beside.append(torch.where(active, ratio.sqrt() / step, 0.0))
        before = torch.where(active, ratio / step, 0.0)
        p, rz = z + ratio[:, None] * p, rz_next
    return x, is_found


def _smallest_eigenvalues(
    diagonal: list[torch.Tensor], beside: list[torch.Tensor], active: torch.Tensor
) -> torch.Tensor:
    """Return those of Lanczos's matrices, given entry by entry for all rows; 1 where inactive."""
    smallest = torch.ones_like(diagonal[0])
    for row in active.nonzero().ravel().tolist():
        middle, side = (np.array([float(t[row]) for t in ts]) for ts in (diagonal, beside))
        smallest[row] = eigvalsh_tridiagonal(middle, side, select="i", select_range=(0, 0))[0]
    return smallest

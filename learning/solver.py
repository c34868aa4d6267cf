"""Solve one reduced system, once or for many right-hand sides, with any preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from learning.accuracy import ErrorEstimator, Loads
from learning.devices import usable_device
from learning.krylov.conjugate_gradients import cg, flexible_cg
from learning.krylov.cycles import KrylovResult
from learning.krylov.fgmres import Status, fgmres
from learning.krylov.preconditioner import Preconditioner, check_preconditioner, map_of
from learning.systems.boxes import InBoxes, in_boxes
from learning.systems.operators import batch_systems, distributed_batch
from learning.systems.sparse import norm
from learning.systems.units import in_units_of_its_own, unit_of
from mixeddim.tensors import ALONE, ReducedSystem

__all__ = ["Method", "SolveResult", "Solver", "solve"]

Method = Literal["auto", "fgmres", "cg", "flexible_cg"]
_METHODS: dict[str, Callable[..., KrylovResult]] = {
    "fgmres": fgmres,
    "cg": cg,
    "flexible_cg": flexible_cg,
}


ACCURACY: Final = 3e-6
"""Largest estimated error of a field that is right to 1e-5."""


@dataclass(frozen=True, eq=False)
class SolveResult:
    """The solution of a reduced system, or with k right-hand sides at once their k solutions.

    Attributes:
        x: Tissue dofs in DOLFINx order, shape (n_3,) or (k, n_3); on several processes those owned
            here.
        iterations: Krylov iterations until the residual reached rtol, an integer or shape (k,).
        residual_norms: Norms of the residual, that of the initial guess first, which is zero unless
            given, shape (iterations + 1,); or (most iterations + 1, k), constant after a solve has
            ended.
        status: How the solve ended, and what to try next where it failed; or a tuple of k.
        method: The Krylov method that ran: "fgmres", "cg" or "flexible_cg".
        extra_iterations: Krylov iterations after that, until the fields were right as well.
        error_bound: How far x, or the network's field that belongs to it, may be off, each in units
            of its own size, the worse of both. NaN where it was not asked for, or the residual did
            not reach rtol.
    """

    x: NDArray[np.float64]
    iterations: int | NDArray[np.int64]
    residual_norms: NDArray[np.float64]
    status: Status | tuple[Status, ...]
    method: Method
    extra_iterations: int | NDArray[np.int64] = 0
    error_bound: float | NDArray[np.float64] = np.nan

    @property
    def converged(self) -> bool:
        """Whether each true residual reached the tolerance, and the fields are right."""
        ends = [self.status] if isinstance(self.status, Status) else self.status
        return all(status is Status.CONVERGED for status in ends)


def solve(
    reduced: ReducedSystem,
    preconditioner: Preconditioner,
    method: Method = "auto",
    *,
    b_3: ArrayLike | None = None,
    b_1: ArrayLike | None = None,
    initial_guess: ArrayLike | None = None,
    rtol: float = 1e-6,
    max_iterations: int = 200,
    device: torch.device | str = "cpu",
    check: bool = True,
) -> SolveResult:
    """Solve S u_3d = g by a Krylov method; vectors are in float64, M in the dtype of its own.

    A residual of 1e-6 of g does not make fields right to 1e-6: by how much it misses depends on the
    condition of S. So each solution is checked, by a few steps of CG with multigrid, and the method
    goes on where u_3d, or the u_1d that belongs to it, is off by more than 1e-5 of its size (or by
    ten times rtol, where that is more). What then converged is right on each side; what cannot be
    made right has the status INACCURATE.

    The set-up often takes longer than the solve. `Solver` keeps it for many right-hand sides that
    come one after the other; those known at once are rows of b_3 or b_1.

    On several processes all call it together, and each gets its part of the solution. That takes
    conjugate gradients on the CPU, and a preconditioner that works there: multigrid, learned or
    not, PETSc's PCMG and GAMG, Jacobi's.

    Args:
        reduced: The system.
        preconditioner: How to precondition it.
        method: "auto": "cg" where the preconditioner declares itself linear and symmetric, "fgmres"
            otherwise. "fgmres": for any preconditioner. "cg": conjugate gradients, of constant
            memory, for one that is linear, symmetric and positive definite. "flexible_cg": the same
            with thirty directions kept, for one that is not quite.
        b_3: Right-hand side of the tissue, shape (n_3,), or (k, n_3) to solve for k of them
            together; by default that of the system.
        b_1: The same of the network, shape (n_1,) or (k, n_1). Its field is
            `reduced.back_substitute(result.x, b_1)`.
        initial_guess: Where to start, such as the solution of the last time step: tissue dofs in
            DOLFINx order, shape (n_3,) or (k, n_3); zero by default.
        rtol: Wanted norm of the true residual, in units of the norm of g, whatever the guess: a
            good one saves iterations.
        max_iterations: Where to give up; and again as many to make the fields right.
        device: Where to solve; the preconditioner has to live there.
        check: Whether to check the fields. Without it only the residual is known to be small.

    Raises:
        ValueError: If the method is unknown, the preconditioner is none or does not fit, or a
            right-hand side or the guess is of a wrong shape or not finite.
        NotImplementedError: If method or preconditioner need the whole system on one process.
    """
    return Solver(reduced, preconditioner, method, device=device).solve(
        b_3,
        b_1,
        initial_guess=initial_guess,
        rtol=rtol,
        max_iterations=max_iterations,
        check=check,
    )


class Solver:
    """Solves one system for many right-hand sides; what depends on the matrices is set up once.

    As PETSc's KSP after `setOperators` and `setUp`. Arguments as in `learning.solve`.

    Args:
        reduced: The system.
        preconditioner: How to precondition it.
        method: The Krylov method.
        device: Where to solve.

    Raises:
        ValueError: If the method is unknown, or the preconditioner is none or does not fit.
        NotImplementedError: If method or preconditioner need the whole system on one process.

    Example:
        Time steps, each from the solution of the last one::

            solver, u = learning.Solver(reduced, preconditioner), None
            for load in loads:
                u = solver.solve(load, initial_guess=u).x
    """

    def __init__(
        self,
        reduced: ReducedSystem,
        preconditioner: Preconditioner,
        method: Method = "auto",
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        if method not in get_args(Method):
            raise ValueError(
                f"got method={method!r}; wanted one of {get_args(Method)}. Choose one."
            )
        processes = getattr(reduced, "processes", ALONE)
        check_preconditioner(preconditioner, processes)
        self.method: Method = suited_method(preconditioner) if method == "auto" else method
        self._krylov = _METHODS[self.method]
        self._boxes: InBoxes | None = None
        self.reduced = self._system = reduced
        if processes.size > 1:
            if self.method == "fgmres":
                processes.refuse("fgmres")
            if reduced.grid is not None:
                self._boxes = in_boxes(reduced)
                self._system = self._boxes.system
            self._krylov = partial(self._krylov, processes=processes)
        self._scaled, self._matrix_unit = in_units_of_its_own(self._system)
        if processes.size > 1:
            self._batch = distributed_batch(self._scaled, usable_device(device))
        else:
            self._batch = batch_systems([self._scaled], torch.float64, usable_device(device))
        self._preconditioner = preconditioner
        with torch.no_grad():
            self._M = map_of(preconditioner, self._scaled, self._batch)

    def __repr__(self) -> str:
        return f"Solver({self.reduced!r}, {self._preconditioner!r}, {self.method!r})"

    def solve(
        self,
        b_3: ArrayLike | None = None,
        b_1: ArrayLike | None = None,
        *,
        initial_guess: ArrayLike | None = None,
        rtol: float = 1e-6,
        max_iterations: int = 200,
        check: bool = True,
    ) -> SolveResult:
        """Solve for one right-hand side, or for several together (see `learning.solve`).

        Raises:
            ValueError: If a right-hand side or the guess is of a wrong shape or not finite.
        """
        is_single = all(b is None or np.ndim(b) == 1 for b in (b_3, b_1))
        rows = self._rows(b_3, b_1, initial_guess)
        with torch.no_grad():
            run = partial(self._krylov, self._batch.apply, precondition=self._M)
            result = run(rows.g, initial_guess=rows.guess, rtol=rtol, max_iterations=max_iterations)
            x, status = result.x, np.array(result.status)
            extra, error = np.zeros(len(x), dtype=np.int64), np.full(len(x), np.nan)
            is_driven = norm(rows.g, self.reduced.processes).cpu().numpy() > 0.0
            [to_check] = np.nonzero(check & is_driven & (status == Status.CONVERGED))
            if len(to_check) > 0:
                accuracy = max(ACCURACY, 3.0 * rtol)
                x[to_check], extra[to_check], error[to_check] = self._make_right(
                    run, rows.part(to_check), x[to_check], accuracy, max_iterations
                )
                status[to_check[~(error[to_check] <= accuracy)]] = Status.INACCURATE
        iterations = result.iterations.cpu().numpy()
        norms = result.residual_norms[: iterations.max() + 1].cpu().numpy() * rows.units.ravel()
        fields = rows.units / self._matrix_unit * self._in_order("to_dofs", x.cpu().numpy())
        if is_single:
            return SolveResult(
                x=fields[0],
                iterations=int(iterations[0]),
                residual_norms=norms[:, 0],
                status=status[0],
                method=self.method,
                extra_iterations=int(extra[0]),
                error_bound=float(error[0]),
            )
        return SolveResult(fields, iterations, norms, tuple(status), self.method, extra, error)

    def _rows(self, b_3: ArrayLike | None, b_1: ArrayLike | None, guess: ArrayLike | None) -> _Rows:
        """Check and convert the arguments of `solve`."""
        reduced, processes = self.reduced, self.reduced.processes
        n_3, n_1 = len(reduced.b_3), len(reduced.b_1)
        with processes.together():
            rows_3 = _as_rows("b_3", reduced.b_3 if b_3 is None else b_3, n_3)
            rows_1 = _as_rows("b_1", reduced.b_1 if b_1 is None else b_1, n_1)
            start = _as_rows("initial_guess", np.zeros(n_3) if guess is None else guess, n_3)
            k = _number_of_right_hand_sides(rows_3, rows_1, start)
        rows_3, start = (self._in_order("to_boxes", v) for v in (rows_3, start))
        if b_3 is None and b_1 is None:
            g = self._system.g[None]
        else:
            g = self._system.condense(rows_3, rows_1)
        rows_3, rows_1, g, start = (
            np.broadcast_to(v, (k, v.shape[1])) for v in (rows_3, rows_1, g, start)
        )
        sizes = np.abs(g).max(axis=1, initial=0.0) / self._matrix_unit
        field_units = np.array([[unit_of(processes.max(size))] for size in sizes])
        units = self._matrix_unit * field_units
        like = self._batch.g
        return _Rows(
            g=torch.tensor(g / units).to(like),
            b_3=rows_3 / units,
            b_1=rows_1 / units,
            guess=None if guess is None else torch.tensor(start / field_units).to(like),
            units=units,
        )

    def _in_order(
        self, direction: Literal["to_boxes", "to_dofs"], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Rearrange tissue vectors (k, n_3) where the system lies in boxes."""
        if self._boxes is None:
            return rows
        rearranged: NDArray[np.float64] = getattr(self._boxes, direction)(rows.T).T
        return rearranged

    @cached_property
    def _estimator(self) -> ErrorEstimator:
        return ErrorEstimator(self._scaled, self._batch, self._preconditioner, self._M)

    def _make_right(
        self,
        run: Callable[..., KrylovResult],
        rows: _Rows,
        x: torch.Tensor,
        accuracy: float,
        max_iterations: int,
    ) -> tuple[torch.Tensor, NDArray[np.int64], NDArray[np.float64]]:
        """Go on from the true residual while a field is off by more; return x, steps and bounds."""
        rounding = self._estimator.rounding(x, rows.loads)
        error = self._estimator.error(x, rows.loads)
        extra, has_ended = np.zeros(len(x), dtype=np.int64), np.zeros(len(x), dtype=bool)
        while True:
            bounds = np.maximum(error, rounding)
            is_wrong = ~has_ended & (error > accuracy) & (bounds < 1e3)
            [wrong] = np.nonzero(is_wrong & (extra < max_iterations))
            if len(wrong) == 0:
                return x, extra, bounds
            # Three times better than need be, for what is left need not be like what was there.
            rtol = min(0.1, accuracy / (3.0 * error[wrong].max()))
            left = max_iterations - int(extra[wrong].max())
            part = rows.part(wrong)
            residual = part.g - self._batch.apply(x[wrong])
            result = run(residual, rtol=rtol, max_iterations=left)
            x[wrong] += result.x
            steps = result.iterations.cpu().numpy()
            extra[wrong] += steps
            is_solved = np.array([status is Status.CONVERGED for status in result.status])
            has_ended[wrong] = ~is_solved | (steps == 0)
            error[wrong] = self._estimator.error(x[wrong], part.loads)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Right-hand sides of a block, each in units of its own, in the order of the solver's system.

    Attributes:
        g: Of the reduced system, shape (k, n_3).
        b_3: Of the tissue, shape (k, n_3).
        b_1: Of the network, shape (k, n_1).
        guess: Initial guess, shape (k, n_3), or None.
        units: The unit of each, shape (k, 1).
    """

    g: torch.Tensor
    b_3: NDArray[np.float64]
    b_1: NDArray[np.float64]
    guess: torch.Tensor | None
    units: NDArray[np.float64]

    @property
    def loads(self) -> Loads:
        return self.b_3, self.b_1

    def part(self, rows: NDArray[np.intp]) -> _Rows:
        return _Rows(self.g[rows], self.b_3[rows], self.b_1[rows], None, self.units[rows])


def _as_rows(name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
    """Return an argument of `Solver.solve` as rows, (k, size)."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2) or array.shape[-1] != size or len(array) == 0 < size:
        raise ValueError(
            f"got {name} of shape {array.shape}; wanted ({size},), or (k, {size}) for k right-hand "
            "sides. On several processes pass the values of the dofs that each owns."
        )
    if not np.all(np.isfinite(array)):
        raise ValueError(f"got NaN or infinity in {name}; wanted numbers.")
    return np.atleast_2d(array)


def _number_of_right_hand_sides(
    b_3: NDArray[np.float64], b_1: NDArray[np.float64], guess: NDArray[np.float64]
) -> int:
    k = max(len(b_3), len(b_1))
    if not {len(b_3), len(b_1), len(guess)} <= {1, k}:
        raise ValueError(
            f"got {len(b_3)} right-hand sides b_3, {len(b_1)} b_1 and {len(guess)} initial "
            "guesses; wanted one of each, or as many as there are right-hand sides."
        )
    return k


def suited_method(preconditioner: Preconditioner) -> Literal["cg", "fgmres"]:
    """Return "cg" for a preconditioner declared linear and symmetric, "fgmres" for any other.

    One that declares nothing is taken to be neither.
    """
    is_definite = getattr(preconditioner, "is_linear", False) and getattr(
        preconditioner, "is_symmetric", False
    )
    return "cg" if is_definite else "fgmres"

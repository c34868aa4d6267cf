"""Solve one reduced system with a learned or classical preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from learning.accuracy import ErrorEstimator
from learning.devices import usable_device
from learning.krylov.conjugate_gradients import cg, flexible_cg
from learning.krylov.cycles import KrylovResult
from learning.krylov.fgmres import Status, fgmres
from learning.krylov.preconditioner import Preconditioner, check_preconditioner
from learning.systems.boxes import in_boxes
from learning.systems.operators import SystemBatch, batch_systems, distributed_batch
from mixeddim.tensors import ALONE, ReducedSystem

__all__ = ["Method", "SolveResult", "solve"]

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
    """The solution of a reduced system.

    Attributes:
        x: Tissue dofs in DOLFINx order, shape (n_3,); on several processes those owned here.
        iterations: Krylov iterations until the residual reached rtol.
        residual_norms: Norms of the residual, not divided by that of g, which is the first of
            them, shape (iterations + 1,).
        status: How the solve ended, and what to try next where it failed.
        method: The Krylov method that ran: "fgmres", "cg" or "flexible_cg".
        extra_iterations: Krylov iterations after that, until the fields were right as well.
        error_bound: How far x, or the network's field that belongs to it, may be off, each in units
            of its own size, the worse of both. NaN where it was not asked for, or the residual did
            not reach rtol.
    """

    x: NDArray[np.float64]
    iterations: int
    residual_norms: NDArray[np.float64]
    status: Status
    method: Method
    extra_iterations: int = 0
    error_bound: float = np.nan

    @property
    def converged(self) -> bool:
        """Whether the true residual reached the tolerance, and the fields are right."""
        return self.status is Status.CONVERGED


def solve(
    reduced: ReducedSystem,
    preconditioner: Preconditioner,
    method: Method = "auto",
    *,
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
        rtol: Wanted norm of the true residual, in units of the norm of g.
        max_iterations: Where to give up; and again as many to make the fields right.
        device: Where to solve; the preconditioner has to live there.
        check: Whether to check the fields. Without it only the residual is known to be small.

    Raises:
        ValueError: If the method is unknown, or the preconditioner is none or does not fit.
        NotImplementedError: If method or preconditioner need the whole system on one process.
    """
    if method not in get_args(Method):
        raise ValueError(f"got method={method!r}; wanted one of {get_args(Method)}. Choose one.")
    processes = getattr(reduced, "processes", ALONE)
    check_preconditioner(preconditioner, processes)
    if method == "auto":
        method = suited_method(preconditioner)
    to_dofs, krylov = _same, _METHODS[method]
    if processes.size > 1:
        if method == "fgmres":
            processes.refuse("fgmres")
        if reduced.grid is not None:
            boxes = in_boxes(reduced)
            reduced, to_dofs = boxes.system, boxes.to_dofs
        krylov = partial(krylov, processes=processes)
    scaled, matrix_unit, field_unit = _in_units_of_its_own(reduced)
    if processes.size > 1:
        batch = distributed_batch(scaled, usable_device(device))
    else:
        batch = batch_systems([scaled], torch.float64, usable_device(device))
    with torch.no_grad():
        M = preconditioner.setup([scaled], batch)
        run = partial(krylov, batch.apply, precondition=M)
        result = run(batch.g, rtol=rtol, max_iterations=max_iterations)
        x, status, extra, error = result.x, result.status[0], 0, np.nan
        if check and status is Status.CONVERGED and processes.any(bool(batch.g.any())):
            estimator = ErrorEstimator(scaled, batch, preconditioner, M)
            accuracy = max(ACCURACY, 3.0 * rtol)
            x, extra, error = _make_right(run, batch, estimator, x, accuracy, max_iterations)
            status = Status.CONVERGED if error <= accuracy else Status.INACCURATE
    iterations = int(result.iterations[0])
    norms = result.residual_norms[: iterations + 1, 0].cpu().numpy()
    return SolveResult(
        x=field_unit * to_dofs(x[0].cpu().numpy()),
        iterations=iterations,
        residual_norms=matrix_unit * field_unit * norms,
        status=status,
        method=method,
        extra_iterations=extra,
        error_bound=error,
    )


def _same(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return v


def _make_right(
    run: Callable[..., KrylovResult],
    batch: SystemBatch,
    estimator: ErrorEstimator,
    x: torch.Tensor,
    accuracy: float,
    max_iterations: int,
) -> tuple[torch.Tensor, int, float]:
    """Go on from the true residual while a field is off by more; return x, steps and the bound."""
    rounding, extra = estimator.rounding(x).largest, 0
    while True:
        error = estimator.error(x).largest
        if error <= accuracy or not max(error, rounding) < 1e3 or extra >= max_iterations:
            return x, extra, max(error, rounding)
        # Three times better than need be, for what is left need not be like what was there.
        rtol = min(0.1, accuracy / (3.0 * error))
        left = max_iterations - extra
        result = run(batch.g - batch.apply(x), rtol=rtol, max_iterations=left)
        x, steps = x + result.x, int(result.iterations[0])
        extra += steps
        if result.status[0] is not Status.CONVERGED or steps == 0:
            return x, extra, max(estimator.error(x).largest, rounding)


def _in_units_of_its_own(reduced: ReducedSystem) -> tuple[ReducedSystem, float, float]:
    """Return a system with entries near one where they are far from it, and both units.

    Preconditioners in float32 over- and underflow in extreme units. Powers of two round nothing.
    """
    if not isinstance(reduced, ReducedSystem):
        return reduced, 1.0, 1.0  # `batch_systems` says what is wrong
    processes = reduced.processes
    diagonal = processes.sum(reduced.diagonal_33.sum()) / processes.sum(len(reduced.b_3))
    load = processes.max(np.abs(reduced.g).max(initial=0.0))
    matrix_unit = field_unit = 1.0
    if 0.0 < diagonal < np.inf and abs(np.log2(diagonal)) > _FAR:
        matrix_unit = float(np.exp2(np.rint(np.log2(diagonal))))
    if 0.0 < load < np.inf and abs(np.log2(load / matrix_unit)) > _FAR:
        field_unit = float(np.exp2(np.rint(np.log2(load / matrix_unit))))
    if matrix_unit == field_unit == 1.0:
        return reduced, 1.0, 1.0
    scaled = replace(
        reduced,
        K=reduced.K / matrix_unit,
        M=reduced.M / matrix_unit,
        beta=reduced.beta / matrix_unit,
        A_11=reduced.A_11 / matrix_unit,
        b_3=reduced.b_3 / matrix_unit / field_unit,
        b_1=reduced.b_1 / matrix_unit / field_unit,
    )
    return scaled, matrix_unit, field_unit


_FAR: Final = 30.0
"""Powers of two from one that float32 can do with, squares and products with others included."""


def suited_method(preconditioner: Preconditioner) -> Literal["cg", "fgmres"]:
    """Return "cg" for a preconditioner declared linear and symmetric, "fgmres" for any other.

    One that declares nothing is taken to be neither.
    """
    is_definite = getattr(preconditioner, "is_linear", False) and getattr(
        preconditioner, "is_symmetric", False
    )
    return "cg" if is_definite else "fgmres"

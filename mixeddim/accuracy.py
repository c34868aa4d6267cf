"""How far a computed solution may be off: one more solve bounds the error on each side.

A small residual says little where the matrix is ill-conditioned. With x computed, r = b - A x and
eps the precision, no computation in float64 can tell A and b from others whose entries differ by
eps, and the error obeys (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 7.2)

    |x - x*| <= |A^-1| (|r| + eps (|A| |x| + |b|))

Entries of A^-1 are those of a Green's function and hardly ever negative: diffusion, uptake and
exchange keep the maximum principle but for what P1 elements violate of it. So A^-1 itself stands
for |A^-1|, and the bound takes one solve, with the factors or the preconditioner that are there.
Needs numpy and scipy alone. On several processes the matrices are distributed and the norms taken
over all of them, so that each process judges alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mixeddim.fem.blocks import Blocks
from mixeddim.processes import ALONE, Processes

__all__ = [
    "ACCURACY",
    "ErrorBound",
    "Pair",
    "bound_error",
    "relative_change",
    "relative_residual",
    "uncertainty",
]

type Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Tissue and network part of a vector."""

PRECISION: Final = 2.0**-52

ACCURACY: Final = 1e-6
"""The largest admissible bound on the error.

The fields then are right to 1e-5, as tests of random problems hold: the bound may be some times too
low where P1 elements violate the maximum principle."""


@dataclass(frozen=True)
class ErrorBound:
    """Largest error of each side, in units of that side's own field."""

    tissue: float
    network: float

    @property
    def largest(self) -> float:
        """That of the worse side; infinite where one is not a number."""
        largest = max(self.tissue, self.network)
        return largest if np.isfinite(self.tissue + self.network) else np.inf

    def __str__(self) -> str:
        return f"{self.tissue:.0e} of u_3d and {self.network:.0e} of u_1d"


def relative_residual(blocks: Blocks, b: Pair, x: Pair) -> float:
    """Return the larger of both sides' residuals, each in units of what drives that side.

    That is its own right-hand side and the other side's exchange: b_3 - A_31 u_1d for the tissue,
    b_1 - A_13 u_3d for the network.
    """
    (b_3, b_1), (x_3, x_1) = b, x
    drive_3, drive_1 = b_3 + blocks.exchange_3(x_1), b_1 + blocks.exchange_1(x_3)
    taken_3 = blocks.A_0 @ x_3 + blocks.Pi.T @ (blocks.W @ (blocks.B @ (blocks.Pi @ x_3)))
    return float(
        np.maximum(
            _ratio(drive_3 - taken_3, drive_3, blocks.processes),
            _ratio(drive_1 - blocks.A_11 @ x_1, drive_1, ALONE),
        )
    )


def uncertainty(blocks: Blocks, b: Pair, x: Pair, *, with_residual: bool = True) -> Pair:
    """Return |r| + eps (|A| |x| + |b|) of both sides.

    Args:
        blocks: The matrix.
        b: Right-hand side.
        x: Solution.
        with_residual: Whether |r| counts.
    """
    (b_3, b_1), (x_3, x_1) = b, x
    A_0, A_11, Pi, N, W, B, B_1 = (
        getattr(blocks, name) for name in ("A_0", "A_11", "Pi", "N", "W", "B", "B_1")
    )
    size_3, size_1 = abs(x_3), abs(x_1)
    averaging, basis = abs(Pi), abs(N)
    at_points = W @ (B @ (averaging @ size_3) + B_1 @ (basis @ size_1))
    rounding_3 = PRECISION * (abs(A_0) @ size_3 + averaging.T @ at_points + abs(b_3))
    rounding_1 = PRECISION * (
        abs(A_11) @ size_1 + basis.T @ (W @ (B @ (averaging @ size_3))) + abs(b_1)
    )
    if not with_residual:
        return rounding_3, rounding_1
    residual_3 = b_3 - A_0 @ x_3 - Pi.T @ (W @ (B @ (Pi @ x_3) - B_1 @ (N @ x_1)))
    residual_1 = b_1 - A_11 @ x_1 + blocks.exchange_1(x_3)
    return abs(residual_3) + rounding_3, abs(residual_1) + rounding_1


def bound_error(x: Pair, error: Pair, processes: Processes = ALONE) -> ErrorBound:
    """Return the bound from A^-1 times the uncertainty.

    Args:
        x: The solution.
        error: That product.
        processes: Over which tissue vectors are distributed.
    """
    (x_3, x_1), (error_3, error_1) = x, error
    return ErrorBound(relative_change(error_3, x_3, processes), relative_change(error_1, x_1))


def relative_change(
    change: NDArray[np.float64], field: NDArray[np.float64], processes: Processes = ALONE
) -> float:
    """Return the larger of the relative changes in the largest value and in the mean square.

    Args:
        change: The change.
        field: What it changes.
        processes: Over which both are distributed.
    """
    largest = _divide(_largest(change, processes), _largest(field, processes))
    return float(np.maximum(largest, _ratio(change, field, processes)))  # NaN wins


def _ratio(vector: NDArray[np.float64], unit: NDArray[np.float64], processes: Processes) -> float:
    scale = max(_largest(unit, processes), _largest(vector, processes))
    if scale == 0.0:
        return 0.0
    # Squares of fields in extreme units under- or overflow.
    return _divide(processes.norm(vector / scale), processes.norm(unit / scale))


def _largest(vector: NDArray[np.float64], processes: Processes) -> float:
    return processes.max(np.max(abs(vector), initial=0.0))


def _divide(value: float | np.floating, unit: float | np.floating) -> float:
    """Return the quotient: 0 for 0 / 0, and NaN for what is none."""
    if unit == 0.0:
        return 0.0 if value == 0.0 else np.inf
    return float(value / unit)

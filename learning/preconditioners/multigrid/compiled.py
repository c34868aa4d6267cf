"""The V-cycle in compiled loops, for a batch of systems with small networks on a CPU.

It does what `cycle.v_cycle` does, in the arrays of each level and without new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learning import kernels
from learning.preconditioners.multigrid.smoothers import Base, Polynomial
from learning.systems.sparse import LinearMap
from learning.systems.stencils import StencilMatrix
from mixeddim.tensors import Factors

__all__ = ["CompiledLevel", "Exchange", "compiled_cycle"]

type Array = NDArray[np.floating]
type Rows = tuple[NDArray[np.generic], ...]


@dataclass(frozen=True, eq=False)
class Exchange:
    """Pi' (1 - N A_11^-1 N') Pi of a batch on one grid.

    Attributes:
        Pi: Rows, (batch num_points, batch n).
        N: Rows, (batch num_points, batch n_1).
        A_11: Factors.
    """

    Pi: Rows
    N: Rows
    A_11: Factors


class CompiledLevel:
    """S on one grid, the smoother there and the way to the next grid, for values (batch, n).

    Args:
        A_0: In the dtype of the cycle.
        exchange: Of S.
        S_0: The base of the smoother.
        polynomial: The smoother p(S_0 S) S_0.
        interpolation: See `transfer.nodes_along_axes`.
        shapes: Of this grid and the next.
        visits_next_twice: Whether a cycle visits the next grid twice.
    """

    def __init__(
        self,
        A_0: StencilMatrix,
        exchange: Exchange,
        S_0: Base,
        polynomial: Polynomial,
        interpolation: Sequence[NDArray[np.generic]],
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        *,
        visits_next_twice: bool,
    ) -> None:
        self.visits_next_twice = visits_next_twice
        entries = A_0.arrays[0]
        batch, _, n = entries.shape
        dtype = entries.dtype
        self._shape, self._coarse_shape = ((batch, *shape) for shape in shapes)
        means = np.empty(len(exchange.Pi[0]) - 1, dtype=dtype)
        network = np.empty((2, len(exchange.A_11[0])))
        self._system = (A_0.arrays, exchange.Pi, exchange.N, exchange.A_11)
        self._between = (means, network)
        steps = np.array([(0.0, polynomial.first), *polynomial.steps], dtype=dtype)
        self._steps, (self._diagonal, self._lumped, *self._near) = steps, S_0.arrays
        self._interpolation = tuple(interpolation)
        self._step, self._residual, self._work = (np.empty((batch, n), dtype) for _ in range(3))
        self.x, self.correction = (np.empty((batch, n), dtype) for _ in range(2))
        self._coarse = np.empty((batch, int(np.prod(shapes[1]))), dtype)

    def smooth(self, r: Array, x: Array) -> None:
        """Set x to X r."""
        work = self._step, self._residual
        if len(self._lumped):
            tissue = self._system[0]
            kernels.smooth_by_diagonal(
                tissue, self._diagonal, self._lumped, self._steps, r, *work, x
            )
        else:
            kernels.smooth(
                *self._system, *self._between, self._diagonal, *self._near, self._steps, r, *work, x
            )

    def subtract_product(self, r: Array, x: Array) -> Array:
        """Return r - S x, in an array that the next call overwrites."""
        kernels.subtract_system(*self._system, r, x, *self._between, self._work)
        return self._work

    def restrict(self, r: Array) -> Array:
        """Return P' r, in an array that the next call overwrites."""
        coarse = self._coarse.reshape(self._coarse_shape)
        kernels.restrict(*self._interpolation, r.reshape(self._shape), coarse)
        return self._coarse

    def add_interpolated(self, coarse: Array, x: Array) -> None:
        """Add P v to x, v the coarse values."""
        kernels.add_interpolated(
            *self._interpolation, coarse.reshape(self._coarse_shape), x.reshape(self._shape)
        )


def compiled_cycle(
    levels: Sequence[CompiledLevel], solve_coarsest: LinearMap, r: Array, depth: int = 0
) -> Array:
    """Return M r: smooth, correct from the next grid, smooth again (see `cycle.v_cycle`).

    The result is an array of the level, which the next call overwrites.
    """
    if depth == len(levels):
        return solve_coarsest(torch.from_numpy(r)).numpy()
    level = levels[depth]
    x = level.x
    level.smooth(r, x)
    coarse = level.restrict(level.subtract_product(r, x))
    correction = compiled_cycle(levels, solve_coarsest, coarse, depth + 1)
    if level.visits_next_twice:
        correction = correction.copy()
        left = levels[depth + 1].subtract_product(coarse, correction).copy()
        correction += compiled_cycle(levels, solve_coarsest, left, depth + 1)
    level.add_interpolated(correction, x)
    level.smooth(level.subtract_product(r, x), level.correction)
    x += level.correction
    return x

"""The learned multigrid: a symmetric cycle whose smoothers are polynomials of trained numbers.

On every grid S = A_0 + Pi' C Pi, and S_0 inverts diagonal, coupling and network together (see
`smoothers`), with the eigenvalues of S_0 S in (0, omega]. The smoother is Chebyshev's polynomial

    X = p(S_0 S) S_0

that damps those between low omega and omega. It is of high degree, for on large grids the next one
has a fourth of the nodes along each axis of strong coupling: fewer grids save set-up, which takes
as long as the solve, and so more than what the degree costs. Which eigenvalues the next grid takes
over depends on how many axes it is coarser along. So low is trained: one number for the finest grid
and one for all coarser ones, each for one, two and three axes.

Any number between 0 and 1 makes X symmetric positive definite and X S without eigenvalues above
2. So the cycle is symmetric positive definite by construction, whatever was trained, and conjugate
gradients apply. It costs less set-up than the unlearned cycle, and works on any grid and in any
unit.

Where fibres run obliquely to the axes and conduct much better than what is across, no polynomial
works well, and incomplete factors smooth in its place (see `cholesky`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learning import kernels
from learning.preconditioners.multigrid.cholesky import obliqueness_of
from learning.preconditioners.multigrid.geometric import Level, cholesky, create_hierarchy
from learning.preconditioners.multigrid.smoothers import RELAXATION, Polynomial
from learning.preconditioners.multigrid.tissue import mean_diffusions
from learning.systems.operators import SystemBatch
from learning.systems.sparse import LinearMap
from mixeddim.tensors import ReducedSystem, chebyshev_steps

__all__ = ["LearnedMultigrid", "MultigridBounds"]

DEGREES: Final = (7, 6)
"""Of the polynomials on the finest grid and on coarser ones."""

DEGREES_IN_EXCHANGE: Final = (4, 1)
"""The same under strong exchange with a large network, where S_0 is itself a polynomial."""

UNTRAINED: Final = 0.0625
"""low before training: coarsening by four leaves a sixteenth to the next grid."""

LEAST: Final = 1e-3
"""Bounds stay so far from 0 and 1, where polynomials divide by zero."""

MOST_OBLIQUE: Final = 10.0
"""Obliqueness of the mean diffusion from which factors are better smoothers than polynomials."""


class MultigridBounds(nn.Module):
    """From where the smoothers damp eigenvalues, in units of the largest: six trained numbers.

    Attributes:
        logits: The bounds are their sigmoids; of the finest grid and of coarser ones, where one,
            two or three axes are coarsened, shape (2, 3).
    """

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.full((2, 3), UNTRAINED).logit())

    def forward(self, depth: int, num_coarsened: int) -> torch.Tensor:
        """Return low of a level, between 0 and 1.

        Args:
            depth: Of the level; 0 is the finest grid.
            num_coarsened: Along how many axes the next grid is coarser, 1 to 3.
        """
        low: torch.Tensor = torch.sigmoid(self.logits[min(depth, 1), num_coarsened - 1])
        return low.clamp(LEAST, 1.0 - LEAST)


class LearnedMultigrid:
    """One symmetric cycle of multigrid with trained smoothers; linear, symmetric positive definite.

    Works on the box with any number of cells and any diffusion, reaction and network.

    Attributes:
        model: The trained numbers; the cycle runs in their dtype, whatever that of the residuals.
    """

    is_linear = is_symmetric = is_parallel = True

    def __init__(self, model: MultigridBounds) -> None:
        self.model = model

    def setup(self, systems: Sequence[ReducedSystem], batch: SystemBatch) -> LinearMap:
        """Build grids and smoothers, and return the map r -> M r (see `Preconditioner`).

        Differentiable in the parameters of the model, on one process.

        Raises:
            ValueError: If the systems do not live on structured boxes of one shape or not on the
                device of the model, or S is singular.
            NotImplementedError: If several processes want derivatives.
        """
        parameter = next(self.model.parameters())
        if parameter.device != batch.g.device:
            raise ValueError(
                f"got a model on {parameter.device} and systems on {batch.g.device}; wanted one "
                "device. Move the model, or name its device where you solve."
            )
        if torch.is_grad_enabled() and parameter.requires_grad:
            batch.processes.refuse("training")
        is_on_host = batch.g.device.type == "cpu" and not self.model.training
        is_compiled = is_on_host and kernels.ARE_COMPILED
        if is_compiled and _are_oblique(mean_diffusions(systems, batch), batch):
            hierarchy = create_hierarchy(systems, batch, parameter.dtype, is_uniform=True)
            return hierarchy.preconditioner([cholesky(level) for level in hierarchy.levels])
        hierarchy = create_hierarchy(systems, batch, parameter.dtype, by_four=True)
        return hierarchy.preconditioner(
            [self._smoother(level, depth) for depth, level in enumerate(hierarchy.levels)]
        )

    def _smoother(self, level: Level, depth: int) -> Polynomial | LinearMap:
        """Return X of a level."""
        low = self.model(depth, sum(level.is_coarsened))
        is_nested = not (level.exchange.is_inverted or level.is_weak(RELAXATION))
        degree = (DEGREES_IN_EXCHANGE if is_nested else DEGREES)[min(depth, 1)]
        is_trained = low.requires_grad
        bound = low * RELAXATION if is_trained else low.item() * RELAXATION
        first, steps = chebyshev_steps(degree, bound, RELAXATION)
        polynomial = Polynomial(RELAXATION, first, tuple(steps))
        return level.smoother(polynomial) if is_trained else polynomial


def _are_oblique(diffusion: NDArray[np.float64], batch: SystemBatch) -> bool:
    """Return whether a system has fibres that need factors; never on several processes."""
    return batch.processes.size == 1 and bool((obliqueness_of(diffusion) > MOST_OBLIQUE).any())

"""The cycle in tensors; `compiled` has it in compiled loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from learning.systems.sparse import LinearMap

if TYPE_CHECKING:
    from learning.preconditioners.multigrid.geometric import Hierarchy

__all__ = ["v_cycle"]


def v_cycle(
    hierarchy: Hierarchy, smoothers: Sequence[LinearMap], r: torch.Tensor, depth: int = 0
) -> torch.Tensor:
    """Return M r: smooth, correct from the next grid, smooth again.

    A small next grid is visited twice, which costs hardly anything (a W-cycle there). Symmetric
    positive definite where each smoother converges by itself and is symmetric, or has its transpose
    as attribute T.

    Args:
        hierarchy: The levels.
        smoothers: One for each level.
        r: Residuals, shape (batch, n) of the level.
        depth: The level to start from.
    """
    if depth == len(hierarchy.levels):
        return hierarchy.solve_coarsest(r)
    level, smooth = hierarchy.levels[depth], smoothers[depth]
    x = smooth(r)
    coarse_residual = level.prolong.T(r - level.apply(x))
    correction = v_cycle(hierarchy, smoothers, coarse_residual, depth + 1)
    if level.visits_next_twice:
        left = coarse_residual - hierarchy.levels[depth + 1].apply(correction)
        correction = correction + v_cycle(hierarchy, smoothers, left, depth + 1)
    x = x + level.prolong(correction)
    return x + getattr(smooth, "T", smooth)(r - level.apply(x))

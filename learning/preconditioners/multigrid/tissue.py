"""The tissue's part of multigrid: A_0 on all grids, and the interpolation between them.

It knows nothing of the network, so that it is made once for all networks in one tissue, and for
solves that follow each other (see `learning.systems.tissue`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.preconditioners.multigrid.grids import (
    GridInBoxes,
    GridOperator,
    Prolongation,
    WholeGrid,
    finest,
)
from learning.preconditioners.multigrid.transfer import (
    Axes,
    coarsened,
    coarsened_by_four,
    mean_diffusion,
)
from learning.systems.operators import SystemBatch, grids_of
from learning.systems.sparse import SparseMap
from learning.systems.tissue import kept
from mixeddim.tensors import ReducedSystem

__all__ = ["TissueGrids", "TissueLevel", "mean_diffusions", "tissue_grids"]


@dataclass(frozen=True, eq=False)
class TissueLevel:
    """A_0 on one grid, and the way to the next coarser one.

    Attributes:
        operator: A_0.
        next_axes: The next grid.
        P: Interpolation from there, as a matrix.
        prolong: The same as a map.
    """

    operator: GridOperator
    next_axes: Axes
    P: Prolongation
    prolong: SparseMap


@dataclass(frozen=True, eq=False)
class TissueGrids:
    """A_0 on all grids.

    Attributes:
        finest: As it is distributed over the processes.
        levels: From fine to coarse.
        coarsest: The grid after the last level.
    """

    finest: WholeGrid | GridInBoxes
    levels: tuple[TissueLevel, ...]
    coarsest: WholeGrid

    @cached_property
    def A_0(self) -> sparse.csr_array:
        """That of the coarsest grid, block-diagonal, in float64."""
        return self.coarsest.matrix(torch.empty(0, dtype=torch.float64)).to_scipy()


def mean_diffusions(systems: Sequence[ReducedSystem], batch: SystemBatch) -> NDArray[np.float64]:
    """Return `mean_diffusion` of each system, shape (batch, 3, 3), made once for one tissue."""

    def make() -> NDArray[np.float64]:
        pairs = zip(systems, grids_of(systems), strict=True)
        return np.stack([mean_diffusion(system.K, grid) for system, grid in pairs])

    return kept(batch.kept, "mean diffusion", make)


def tissue_grids(
    systems: Sequence[ReducedSystem],
    batch: SystemBatch,
    dtype: torch.dtype,
    most_coarse: int,
    *,
    is_uniform: bool,
    by_four: bool = False,
) -> TissueGrids:
    """Return A_0 on all grids, made once for one tissue.

    Args:
        systems: On structured boxes of one shape.
        batch: The same systems.
        dtype: Of the vectors in the cycle.
        most_coarse: Nodes of the coarsest grid.
        is_uniform: Whether to coarsen along all axes (see `create_hierarchy`).
        by_four: Whether to coarsen by more than two (see there).

    Raises:
        ValueError: If the systems do not live on structured boxes of one shape.
    """

    def make() -> TissueGrids:
        given = finest(systems, grids_of(systems), batch)
        operator: GridOperator = given
        if isinstance(given, GridInBoxes) and given.is_to_gather:
            operator = given.gathered()
        coupling = None
        if not is_uniform:
            diagonals = np.diagonal(mean_diffusions(systems, batch), axis1=1, axis2=2)
            coupling = np.maximum(diagonals, 0.0)
        like = torch.empty(len(systems), 0, dtype=dtype, device=batch.g.device)
        operator = operator.thinned()
        levels = []
        while np.prod([len(x) for x in operator.axes]) > most_coarse:
            if by_four and coupling is not None and isinstance(operator, WholeGrid):
                axes = coarsened_by_four(operator.axes, coupling)
            else:
                axes = coarsened(operator.axes, coupling)
            P, prolong, coarser = operator.coarse(axes, like)
            levels.append(TissueLevel(operator, axes, P, prolong))
            operator = coarser
        assert isinstance(operator, WholeGrid)  # few nodes always are
        return TissueGrids(given, tuple(levels), operator)

    name = "grids", dtype, batch.g.device, most_coarse, is_uniform, by_four
    return kept(batch.kept, name, make)

"""S on one grid of the multigrid, the tissue and its exchange with the network, and smoothers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from learning.preconditioners.multigrid.exchange import Exchange
from learning.preconditioners.multigrid.grids import GridOperator
from learning.preconditioners.multigrid.smoothers import LUMPED, Polynomial, l1_jacobi
from learning.preconditioners.multigrid.transfer import Axes
from learning.systems.sparse import LinearMap, SparseMap
from mixeddim.tensors import Processes

__all__ = ["Level"]


@dataclass(frozen=True, eq=False)
class Level:
    """S = A_0 + Pi' C Pi for a batch of systems on one grid, and the way to the next coarser one.

    Vectors are in grid order.

    Attributes:
        operator: A_0.
        next_axes: The next grid.
        visits_next_twice: Whether that is small, much smaller than this one, not the coarsest, and
            not from coarsening by four.
        tissue: A_0 as a map.
        exchange: Pi' C Pi.
        prolong: Interpolation P from the next grid; its transpose is the restriction.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
        processes: Over which these are distributed.
    """

    operator: GridOperator
    next_axes: Axes
    visits_next_twice: bool
    tissue: LinearMap
    exchange: Exchange
    prolong: SparseMap
    like: torch.Tensor
    processes: Processes

    @property
    def row_sums(self) -> NDArray[np.float64]:
        """Those of |A_0|, shape (batch n,)."""
        return self.operator.row_sums

    @property
    def is_coarsened(self) -> tuple[bool, bool, bool]:
        """Whether the next grid is coarser along x, y and z."""
        axes = zip(self.next_axes, self.operator.axes, strict=True)
        x, y, z = (len(coarse) < len(fine) for coarse, fine in axes)
        return x, y, z

    def is_weak(self, relaxation: float) -> bool:
        """Return whether the coupling is weak enough for the smoother to take its row sums."""
        strongest = (relaxation * self.exchange.row_sums / self.row_sums).max(initial=0.0)
        return self.processes.max(strongest) <= LUMPED

    def smoother(self, polynomial: Polynomial) -> LinearMap:
        """Return p(S_0 S) S_0, in both with what bounds the coupling in its place.

        Row sums where it is weak, and else what S_0 inverts, which for a large network is cheaper.
        """
        relaxation, row_sums = polynomial.relaxation, self.exchange.row_sums
        is_weak = self.is_weak(relaxation)
        if polynomial.inverts_coupling and not is_weak:
            S_0, bound = self.exchange.smoother(self.row_sums, relaxation), self.exchange.bound
            return polynomial.of(S_0, lambda v: self.tissue(v) + bound(v))
        S_0 = l1_jacobi(self.row_sums, row_sums, self.like, relaxation)
        if not is_weak:
            return polynomial.of(S_0, self.apply)
        lumped = torch.tensor(row_sums).to(self.like).reshape(self.like.shape)
        return polynomial.of(S_0, lambda v: self.tissue(v) + lumped * v)

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        """Return S v, shape (batch, n)."""
        return self.tissue(v) + self.exchange.apply(v)

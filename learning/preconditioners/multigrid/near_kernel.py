"""Deflation of constants, on which S may be so small that a cycle in float32 loses them.

Without given values, and with little reaction and exchange, 1'S1 is far below the rounding of S v
in float32, and the coarsest grid turns this rounding into constants of any size. So constants are
corrected in the dtype of the vectors,

    M = Q + (1 - Q S) V (1 - S Q)      Q = 1 (1'S1)^-1 1'

with V the cycle: M is symmetric where V is, and exact on constants (Nicolaides 1987, SIAM J. Numer.
Anal. 24:355; Tang, Nabben, Vuik & Erlangga 2009, J. Sci. Comput. 39:340, the form "BNN").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from learning.systems.operators import SystemBatch
from learning.systems.sparse import LinearMap, total
from learning.systems.stencils import StencilMatrix
from learning.systems.tissue import kept
from mixeddim.tensors import Processes

__all__ = ["NearKernel"]

NEARLY_SINGULAR: Final = 1e-5
"""Part of 1'|A_0|1 below which 1'S1 is corrected; the rounding of float32 is a hundredth of it."""


@dataclass(frozen=True, eq=False)
class NearKernel:
    """The constants of a batch of systems.

    Attributes:
        image: S 1, shape (batch, n).
        inverse: 1 / 1'S1, shape (batch, 1); 0 for systems that the cycle can do by itself.
        processes: Over which the vectors are distributed.
    """

    image: torch.Tensor
    inverse: torch.Tensor
    processes: Processes

    @classmethod
    def of(cls, batch: SystemBatch, row_sums: NDArray[np.float64]) -> NearKernel | None:
        """Return the constants of a batch, or None where no system needs it.

        Args:
            batch: The systems.
            row_sums: Those of |A_0|, shape (batch n,).
        """
        if batch.stencils is not None:
            # What 1'A_0 1 is alone, without the exchange, may be enough.
            share = partial(_share_of_constants, batch.stencils, row_sums)
            if kept(batch.kept, "share of constants", share) >= NEARLY_SINGULAR:
                return None
        image, processes = batch.apply(torch.ones_like(batch.g)), batch.processes
        energy = total(image.sum(dim=1), processes)[:, None]
        size = torch.tensor(row_sums).to(image).reshape(len(image), -1).sum(dim=1)
        size = total(size, processes)[:, None]
        is_small = (energy > 0) & (energy < NEARLY_SINGULAR * size)
        if not is_small.any():
            return None
        return cls(image, torch.where(is_small, 1.0 / energy, 0.0), processes)

    def deflated(self, cycle: LinearMap) -> LinearMap:
        """Return M for a cycle V."""

        def apply(r: torch.Tensor) -> torch.Tensor:
            constant = self.inverse * total(r.sum(dim=1), self.processes)[:, None]
            x = cycle(r - constant * self.image)
            left = total((self.image * x).sum(dim=1), self.processes)[:, None]
            return x + constant - self.inverse * left

        return apply


def _share_of_constants(A_0: StencilMatrix, row_sums: NDArray[np.float64]) -> float:
    """Return the least 1'A_0 1 of a batch, in units of 1'|A_0|1."""
    entries = A_0.stencils.flatten(2)
    tissue = sum((1.0 if o == 0 else 2.0) * entries[:, o].sum(dim=1) for o in A_0.offsets)
    size = torch.from_numpy(row_sums).reshape(len(entries), -1).sum(dim=1)
    return float((tissue / size).min())

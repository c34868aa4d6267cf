"""Algebraic multigrid of PyAMG on the tissue block, to measure learned preconditioners against.

PyAMG is an optional dependency (Bell, Olson, Schroder & Southworth 2023, doi:10.21105/joss.05495).
An assembled Schur term would be dense. So the hierarchies are built from A_33 alone, and the Krylov
method accounts for the Schur term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.krylov.preconditioner import on_host
from learning.systems.operators import SystemBatch
from mixeddim.tensors import ReducedSystem

__all__ = ["RugeStuben", "SmoothedAggregation"]

# A sweep forth and back, on both sides of the coarse grid: with half of it a cycle costs less, and
# a solve to 1e-6 at n = 20 as much or more.
_SWEEP = ("gauss_seidel", {"sweep": "symmetric"})
_SMOOTHERS = {"presmoother": _SWEEP, "postsmoother": _SWEEP}


class _AlgebraicMultigrid:
    """A V(1,1) cycle of PyAMG on A_33, set up by the function of PyAMG that `_build` names."""

    is_linear = is_symmetric = True
    _build: ClassVar[str]

    def setup(
        self,
        systems: Sequence[ReducedSystem],
        batch: SystemBatch,  # noqa: ARG002
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Coarsen each A_33, and return the map r -> M r (see `Preconditioner`).

        Raises:
            ImportError: If PyAMG is not installed.
        """
        build = getattr(_pyamg(), self._build)
        maps = []
        for system in systems:
            with _seeded():  # some estimate eigenvalues from random vectors
                maps.append(_cycle(build(_csr_matrix(system.A_33), **_SMOOTHERS)))
        return on_host(maps)


@dataclass(frozen=True)
class RugeStuben(_AlgebraicMultigrid):
    """A V(1,1) cycle of classical algebraic multigrid on A_33, symmetric Gauss-Seidel.

    Ruge & Stüben 1987, doi:10.1137/1.9781611971057.ch4, with PyAMG's defaults.
    """

    _build = "ruge_stuben_solver"


@dataclass(frozen=True)
class SmoothedAggregation(_AlgebraicMultigrid):
    """A V(1,1) cycle of smoothed aggregation on A_33, symmetric Gauss-Seidel.

    Vaněk, Mandel & Brezina 1996, doi:10.1007/BF02238511, with PyAMG's defaults.
    """

    _build = "smoothed_aggregation_solver"


@contextmanager
def _seeded() -> Iterator[None]:
    """Start numpy's global generator, the one PyAMG draws from, at a seed, and put it back."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _pyamg() -> ModuleType:
    try:
        import pyamg
    except ImportError as error:
        raise ImportError(
            "learning found no PyAMG, which RugeStuben and SmoothedAggregation need. Run "
            "`pip install pyamg`, or use learning.petsc.PetscPreconditioner('gamg')."
        ) from error
    return pyamg


def _csr_matrix(A: sparse.csr_array) -> sparse.csr_matrix:
    """Return A as PyAMG wants it: with 32-bit indices, as a matrix and not as an array."""
    return sparse.csr_matrix(
        (A.data, A.indices.astype(np.int32), A.indptr.astype(np.int32)), shape=A.shape
    )


def _cycle(hierarchy: object) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    cycle: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    cycle = hierarchy.aspreconditioner(cycle="V").matvec  # type: ignore[attr-defined]
    return cycle

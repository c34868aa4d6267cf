"""Algebraic multigrid for S u_3d = g that knows of the network on every level.

With the averaging matrix Pi and the network basis N scaled by the square roots of weights and wall
conductances, and K_1 the network without exchange,

    S = A_0 + Pi' C Pi      A_0 = K + M      C = 1 - N A_11^-1 N'      A_11 = K_1 + N' N

keeps this form on every level: with P the interpolation from the next level, P' S P has P' A_0 P in
place of A_0, Pi P in place of Pi, and the same C. P comes from PETSc's smoothed aggregation (GAMG)
on A_0. PETSc itself cannot coarsen A_33, where strong exchange connects distant nodes. On boxes of
hexahedra GAMG coarsens A_0 with its oblique entries lumped onto the axes: in long cells these are
large between nodes that diffusion hardly connects, and iterations were four times as many.

The smoother is the inverse of D / omega + Pi' C Pi, with D the sums of |A_0| along its rows, or
what bounds it in large networks (see `exchange`). As D >= A_0 in the sense of quadratic forms, no
eigenvalue of smoother times S exceeds omega < 2, and the V-cycle is symmetric positive definite for
coefficients of any size (Baker, Falgout, Kolev & Yang 2011, doi:10.1137/100798806, for the bound).
Nothing is dense.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc
from scipy import sparse

from mixeddim.fem.assembly import CoupledSystem
from mixeddim.fem.grid import Grid
from mixeddim.solvers.exchange import Exchange, exchange_of

__all__ = ["CoupledMultigrid", "petsc_matrix"]

RELAXATION: Final = 1.6
"""omega."""

_PREFIX: Final = "mixeddim_coupled_"
_COARSENING: Final = {
    # Below this strength nodes are not tied together: boxes with long cells need that.
    "pc_gamg_threshold": "0.02",
    # Solved directly, with the network.
    "pc_gamg_coarse_eq_limit": "1000",
    # PETSc's own smoothers go unused, and so needs no estimate of eigenvalues.
    "mg_levels_ksp_type": "richardson",
    "mg_levels_pc_type": "none",
}

type _Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class _Level:
    """S = A_0 + Pi' C Pi on one level.

    Attributes:
        A_0: Tissue without exchange.
        exchange: Pi' C Pi.
        smooth: The smoother.
        P: Interpolation from the next level.
    """

    A_0: sparse.csr_array
    exchange: Exchange
    smooth: _Map
    P: sparse.csr_array

    def apply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return S v."""
        product: NDArray[np.float64] = self.A_0 @ v + self.exchange.apply(v)
        return product


class CoupledMultigrid:
    """One symmetric V(1,1)-cycle for S, a symmetric positive definite map r -> M r.

    Args:
        system: The coupled system.

    Raises:
        RuntimeError: If the system is singular on its coarsest level.
    """

    def __init__(self, system: CoupledSystem) -> None:
        A_0 = (system.K + system.M).tocsr()
        roots = sparse.diags_array(np.sqrt(system.coupling.weights * system.coupling.beta))
        Pi, N = (roots @ system.Pi).tocsr(), (roots @ system.N).tocsr()
        exchange = exchange_of(Pi, N, system.A_11, system.K_1d)
        self._levels: list[_Level] = []
        for P in _interpolations(_to_coarsen(system, A_0)):
            smooth = exchange.smoother(abs(A_0).sum(axis=1) / RELAXATION)
            self._levels.append(_Level(A_0, exchange, smooth, P))
            A_0, exchange = (P.T @ A_0 @ P).tocsr(), exchange.coarse(P)
        self._coarsest = exchange.inverse(A_0)

    def __repr__(self) -> str:
        return f"CoupledMultigrid({len(self._levels) + 1} levels)"

    def __call__(self, r: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return M r.

        Args:
            r: Residual of S u_3d = g, shape (num_dofs_3d,).
        """
        return self._cycle(r, 0)

    def _cycle(self, r: NDArray[np.float64], depth: int) -> NDArray[np.float64]:
        if depth == len(self._levels):
            return self._coarsest(r)
        level = self._levels[depth]
        x = level.smooth(r)
        x = x + level.P @ self._cycle(level.P.T @ (r - level.apply(x)), depth + 1)
        return x + level.smooth(r - level.apply(x))


def _to_coarsen(system: CoupledSystem, A_0: sparse.csr_array) -> sparse.csr_array:
    """Return A_0, or on hexahedra a matrix of 7 entries in each row that acts alike on smooth u.

    The sums of entries across an axis are those of 1D stiffness times 1D lumped mass matrices.
    Diffusion and reaction do not cancel, so that nodes are tied together whatever their ratio.
    """
    grid = system.grid
    if grid is None or grid.cell_type == "tetrahedron":
        return A_0
    ties = abs(_along_axes(system.K, grid)) + abs(_along_axes(system.M, grid))
    diagonal = ties.sum(axis=1) + np.maximum(A_0.sum(axis=1), 0.0)
    return (sparse.diags_array(diagonal) - ties).tocsr()


def _along_axes(A: sparse.csr_array, grid: Grid) -> sparse.csr_array:
    """Return the entries between neighbours along each axis, the oblique ones added to them."""
    A = A.tocoo()
    dof_of_node = np.argsort(grid.node_of_dof)
    ties = sparse.csr_array(A.shape)
    for axis, along in enumerate(np.unravel_index(grid.node_of_dof, grid.shape)):
        step = along[A.col] - along[A.row]
        row, data = A.row[step != 0], A.data[step != 0]
        stride = int(np.prod(grid.shape[axis + 1 :]))
        there = dof_of_node[grid.node_of_dof[row] + stride * step[step != 0]]
        ties += sparse.coo_array((data, (row, there)), shape=A.shape).tocsr()
    return ((ties + ties.T) / 2.0).tocsr()


def _interpolations(A_0: sparse.csr_array) -> list[sparse.csr_array]:
    """Return the interpolations of smoothed aggregation between levels, the finest first."""
    scale = np.exp2(-np.rint(np.log2(A_0.diagonal().max())))  # PETSc takes 1e-20 for zero
    pc = PETSc.PC().create(PETSc.COMM_SELF)
    pc.setOptionsPrefix(_PREFIX)
    pc.setOperators(petsc_matrix(scale * A_0, PETSc.COMM_SELF))
    pc.setType("gamg")
    with _options(_COARSENING):
        pc.setFromOptions()
        pc.setUp()
    interpolations = []
    for level in range(pc.getMGLevels() - 1, 0, -1):
        P = pc.getMGInterpolation(level)
        indptr, indices, data = P.getValuesCSR()
        interpolations.append(sparse.csr_array((data, indices, indptr), shape=P.getSize()))
    return interpolations


@contextmanager
def _options(options: Mapping[str, str]) -> Iterator[None]:
    """Put options, under our prefix, into the one database that PETSc has, and take them out."""
    database = PETSc.Options(_PREFIX)
    try:
        for name, value in options.items():
            database.setValue(name, value)
        yield
    finally:
        for name in options:
            database.delValue(name)


def petsc_matrix(A: sparse.sparray, comm: Any) -> PETSc.Mat:
    """Return a scipy matrix as one of PETSc."""
    csr = A.tocsr()
    csr.sort_indices()
    index = PETSc.IntType
    return PETSc.Mat().createAIJ(
        csr.shape, csr=(csr.indptr.astype(index), csr.indices.astype(index), csr.data), comm=comm
    )

"""Algebraic multigrid for S u_3d = g that knows of the network on every level.

With the averaging matrix Pi and the network basis N scaled by the square roots of weights and wall
conductances, and K_1 the network without exchange,

    S = A_0 + Pi' C Pi      A_0 = K + M      C = 1 - N A_11^-1 N'      A_11 = K_1 + N' N

keeps this form on every level: with P the interpolation from the next level, P' S P has P' A_0 P in
place of A_0, Pi P in place of Pi, and the same C. P comes from PETSc's smoothed aggregation (GAMG)
on A_0. PETSc itself cannot coarsen A_33, where strong exchange connects distant nodes. On boxes of
hexahedra GAMG coarsens A_0 with its oblique entries lumped onto the axes: in long cells these are
large between nodes that diffusion hardly connects, and iterations were four times as many.

The smoother is the inverse of D / omega + Pi' C Pi, with D the sums of |A_0| along its rows. As
D >= A_0 in the sense of quadratic forms, no eigenvalue of smoother times S exceeds omega < 2, and
the V-cycle is symmetric positive definite for coefficients of any size (Baker, Falgout, Kolev &
Yang 2011, doi:10.1137/100798806, for the bound). It takes a sparse factor of the size of the
network's points and dofs on each level, by Woodbury's formula; nothing dense.
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
from scipy.sparse.linalg import splu

from mixeddim.fem.assembly import CoupledSystem
from mixeddim.fem.grid import Grid

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
        Pi: Scaled averaging matrix.
        coupling: C.
        smooth: The smoother.
        P: Interpolation from the next level.
    """

    A_0: sparse.csr_array
    Pi: sparse.csr_array
    coupling: _Map
    smooth: _Map
    P: sparse.csr_array

    def apply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return S v."""
        product: NDArray[np.float64] = self.A_0 @ v + self.Pi.T @ self.coupling(self.Pi @ v)
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
        solve_11 = factorise(system.A_11)

        def coupling(values: NDArray[np.float64]) -> NDArray[np.float64]:
            rest: NDArray[np.float64] = values - N @ solve_11(N.T @ values)
            return rest

        self._levels: list[_Level] = []
        for P in _interpolations(_to_coarsen(system, A_0)):
            if len(roots.diagonal()) < A_0.shape[0]:
                smooth = _smoother(A_0, Pi, N, system.K_1d)
            else:
                D = sparse.diags_array(abs(A_0).sum(axis=1) / RELAXATION)
                smooth = _block_inverse(D, Pi, N, system.A_11)
            self._levels.append(_Level(A_0, Pi, coupling, smooth, P))
            A_0, Pi = (P.T @ A_0 @ P).tocsr(), (Pi @ P).tocsr()
        self._coarsest = _block_inverse(A_0, Pi, N, system.A_11)

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


def factorise(A: sparse.sparray, pivot_threshold: float = 0.0) -> _Map:
    """Return the product with A^-1 by sparse factors, A symmetric, scaled by its largest entries.

    Args:
        A: Positive definite; or quasi-definite, with a threshold.
        pivot_threshold: How much smaller than others in its column a pivot may be.

    Raises:
        RuntimeError: If A is singular.
    """
    largest = abs(A).tocsr().max(axis=1).toarray().ravel()
    # Powers of two, so that scaling rounds nothing.
    scale = np.exp2(-np.rint(np.log2(np.where(largest > 0, largest, 1.0)) / 2))
    scaling = sparse.diags_array(scale)
    solve = splu(
        (scaling @ A @ scaling).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=pivot_threshold,
        options={"SymmetricMode": True},
    ).solve

    def apply(b: NDArray[np.float64]) -> NDArray[np.float64]:
        x: NDArray[np.float64] = scale * solve(scale * b)
        return x

    return apply


def _block_inverse(
    D: sparse.sparray, Pi: sparse.csr_array, N: sparse.csr_array, A_11: sparse.csr_array
) -> _Map:
    """Return the inverse of D + Pi' C Pi, by factors of the block system that the network is in."""
    A_31 = -Pi.T @ N
    solve = factorise(sparse.block_array([[D + Pi.T @ Pi, A_31], [A_31.T, A_11]]))
    return lambda r: solve(np.pad(r, (0, N.shape[1])))[: len(r)]


def _smoother(
    A_0: sparse.csr_array, Pi: sparse.csr_array, N: sparse.csr_array, K_1: sparse.csr_array
) -> _Map:
    """Return the inverse of D / omega + Pi' C Pi, by factors of the size of points and network.

    With q the scaled exchange at the points and u_1 the network's answer, the solution for r is

        x = omega D^-1 (r - Pi' q)      (1 + G) q + N u_1 = Pi omega D^-1 r      N' q - K_1 u_1 = 0

    with G = Pi omega D^-1 Pi': a quasi-definite system, in which no strength of exchange and no
    conductance of the network cancels anything.
    """
    inverse = RELAXATION / abs(A_0).sum(axis=1)
    root = (Pi @ sparse.diags_array(np.sqrt(inverse))).tocsr()
    num_points = Pi.shape[0]
    G = root @ root.T + sparse.eye_array(num_points)
    solve = factorise(sparse.block_array([[G, N], [N.T, -K_1]]), pivot_threshold=0.1)

    def smooth(r: NDArray[np.float64]) -> NDArray[np.float64]:
        x = inverse * r
        q = solve(np.pad(Pi @ x, (0, N.shape[1])))[:num_points]
        corrected: NDArray[np.float64] = x - inverse * (Pi.T @ q)
        return corrected

    return smooth


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

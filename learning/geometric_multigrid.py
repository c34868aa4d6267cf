"""Geometric multigrid for S u = g on the structured box, batched: a symmetric V(1,1)-cycle.

With the averaging matrix Pi and the network basis N scaled by the square roots of weights and wall
conductances,

    S = A_0 + Pi' C Pi      A_0 = K + M      C = 1 - N A_11^-1 N'

keeps this form on every grid: with P the interpolation from the next, P' S P has P' A_0 P for A_0,
Pi P for Pi and the same C. So the coarse operators are Galerkin's, of S itself, and the largest
dense matrix has the size of the number of points on the network (Trottenberg, Oosterlee & Schüller
2001, Multigrid, section 2.4, for the cycle).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from scipy import sparse

from learning.cycles import LinearMap
from learning.operators import SystemBatch, grids_of
from learning.smoothers import chebyshev, l1_jacobi, low_rank
from learning.sparse import (
    SparseMap,
    block_diagonal,
    cholesky_solver,
    dense_blocks,
    sparse_map,
    symmetric_map,
)
from learning.transfer import axes_of, coarsened, coupling_along_axes, interpolation
from mixeddim.tensors import ReducedSystem

__all__ = ["GeometricMultigrid", "Hierarchy", "Level", "Smoother", "create_hierarchy", "v_cycle"]

Smoother = Literal["low_rank", "l1_jacobi"]

MOST_COARSE_NODES: Final = 300
"""A grid of no more nodes is solved directly: 6³ from 20 cells, 5³ from 32, 64 or 128."""


@dataclass(frozen=True)
class GeometricMultigrid:
    """One symmetric V(1,1)-cycle of geometric multigrid, symmetric positive definite.

    Works on the box with any number of cells; powers of two make the best grids.

    Attributes:
        smoother: "low_rank" inverts the diagonal and the coupling together, for coupling of every
            strength; "l1_jacobi" divides by a diagonal, cheaper to set up.
        degree: Of the smoother's Chebyshev polynomial. 2 saves a third of the iterations, each of
            which costs about twice as much.
        dtype: What the cycle runs in; by default that of the vectors. In torch.float32 it works on
            the normalised residual.
    """

    smoother: Smoother = "low_rank"
    degree: int = 1
    dtype: torch.dtype | None = None

    is_linear = True
    is_symmetric = True

    def __post_init__(self) -> None:
        if self.smoother not in get_args(Smoother):
            raise ValueError(
                f"got smoother={self.smoother!r}; wanted one of {get_args(Smoother)}. Choose one."
            )
        if not isinstance(self.degree, int) or self.degree < 1:
            raise ValueError(f"got degree={self.degree!r}; wanted a positive integer. Use 1 or 2.")
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(
                f"got dtype={self.dtype}; wanted torch.float32, torch.float64, or None for that "
                "of the vectors."
            )

    def setup(self, systems: Sequence[ReducedSystem], batch: SystemBatch) -> LinearMap:
        """Build grids and smoothers, and return the map r -> M r (see `Preconditioner`).

        Raises:
            ValueError: If the systems do not live on structured boxes of one shape, or S is
                singular.
        """
        like = batch.g.to(self.dtype or batch.g.dtype)
        hierarchy = create_hierarchy(systems, batch, like)
        smoothers = [
            chebyshev(self._base(level), level.apply, self.degree) for level in hierarchy.levels
        ]

        def apply(r: torch.Tensor) -> torch.Tensor:
            if r.dtype == like.dtype:
                return v_cycle(hierarchy, smoothers, r)
            size = torch.linalg.vector_norm(r.detach(), dim=1, keepdim=True)
            size = torch.where(size > 0, size, 1.0)
            return size * v_cycle(hierarchy, smoothers, (r / size).to(like.dtype)).to(r.dtype)

        return apply

    def _base(self, level: Level) -> LinearMap:
        if self.smoother == "l1_jacobi":
            return l1_jacobi(level.A_0, level.Pi, level.like)
        return low_rank(level.A_0, level.Pi, level.average, level.like)


# --- The cycle --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Level:
    """S = A_0 + Pi' C Pi for a batch of systems on one grid, and the way to the next coarser one.

    Attributes:
        A_0: Block-diagonal, one block of shape (n, n) for each system.
        Pi: Scaled averaging matrices, block-diagonal, one block of (num_points, n) each.
        tissue, average: The same as maps.
        coupling: C, what the network leaves of the coupling, from (batch, num_points) to the same.
        prolong: Interpolation P from the next grid; its transpose is the restriction.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
    """

    A_0: sparse.csr_array
    Pi: sparse.csr_array
    tissue: SparseMap
    average: SparseMap
    coupling: LinearMap
    prolong: SparseMap
    like: torch.Tensor

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        """Return S v, shape (batch, n)."""
        return self.tissue(v) + self.average.T(self.coupling(self.average(v)))


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """All levels from fine to coarse, and the direct solver of the coarsest grid.

    Vectors of the finest level are in dof order, of all others in grid order.
    """

    levels: tuple[Level, ...]
    solve_coarsest: LinearMap


def v_cycle(
    hierarchy: Hierarchy, smoothers: Sequence[LinearMap], r: torch.Tensor, depth: int = 0
) -> torch.Tensor:
    """Return M r: smooth, correct from the next grid, smooth again.

    Symmetric positive definite where each smoother is symmetric and converges by itself.

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
    x = x + level.prolong(v_cycle(hierarchy, smoothers, coarse_residual, depth + 1))
    return x + smooth(r - level.apply(x))


# --- The set-up -------------------------------------------------------------------------------


def create_hierarchy(
    systems: Sequence[ReducedSystem], batch: SystemBatch, like: torch.Tensor
) -> Hierarchy:
    """Build the Galerkin operators of all grids.

    Args:
        systems: On structured boxes of one shape.
        batch: The same systems.
        like: A tensor of dtype, device and shape (batch, n_3) of the vectors.

    Raises:
        ValueError: If the systems do not live on structured boxes of one shape, or S is singular.
    """
    grids = grids_of(systems)
    num_points = max(len(system.weights) for system in systems)
    n_1 = batch.L_11.shape[1]
    A_0 = block_diagonal([system.K + system.M for system in systems], grids[0].node_of_dof.size)
    Pi = block_diagonal([_scaled(system, system.Pi) for system in systems], num_points)
    N = [_scaled(system, system.N) for system in systems]
    for block in N:
        block.resize(block.shape[0], n_1)
    basis = block_diagonal(N, num_points)
    # Not by the factor, which costs accuracy in float32 where the network conducts well.
    inverse_11 = torch.cholesky_inverse(batch.L_11.double())
    apply_C = _coupling(sparse_map(basis, like), inverse_11.to(like))

    levels: list[Level] = []
    axes = axes_of(grids[0])
    coupling = np.stack([coupling_along_axes(s.K, g) for s, g in zip(systems, grids, strict=True)])
    while np.prod([len(x) for x in axes]) > MOST_COARSE_NODES:
        fine, axes = axes, coarsened(axes, coupling)
        to_nodes = interpolation(axes, fine)
        to_dofs = [to_nodes if levels else to_nodes[grid.node_of_dof] for grid in grids]
        P = block_diagonal(to_dofs, to_nodes.shape[0])
        levels.append(
            Level(
                A_0=A_0,
                Pi=Pi,
                tissue=symmetric_map(A_0, like),
                average=sparse_map(Pi, like),
                coupling=apply_C,
                prolong=sparse_map(P, like),
                like=like.new_empty(len(like), A_0.shape[0] // len(like)),
            )
        )
        A_0, Pi = (P.T @ A_0 @ P).tocsr(), (Pi @ P).tocsr()
    return Hierarchy(tuple(levels), _coarsest_solver(A_0, Pi, basis, inverse_11))


def _coarsest_solver(
    A_0: sparse.csr_array, Pi: sparse.csr_array, N: sparse.csr_array, inverse_11: torch.Tensor
) -> LinearMap:
    """Return b -> S^-1 b by dense factors, in float64 throughout: S may be nearly singular."""
    A_33 = torch.tensor(dense_blocks(A_0 + Pi.T @ Pi, len(inverse_11))).to(inverse_11)
    A_13 = torch.tensor(dense_blocks(N.T @ Pi, len(inverse_11))).to(inverse_11)
    try:
        solve = cholesky_solver(A_33 - A_13.mT @ inverse_11 @ A_13, A_33[:, 0])
    except torch.linalg.LinAlgError as error:
        raise ValueError(
            f"got a system that is singular on its coarsest grid ({error}); wanted a positive "
            "definite one. Give the tissue a reaction or a Dirichlet condition."
        ) from error
    return lambda b: solve(b.to(A_33)).to(b)


def _coupling(N: SparseMap, inverse_11: torch.Tensor) -> LinearMap:
    """Return C = 1 - N A_11^-1 N'."""

    def apply(values: torch.Tensor) -> torch.Tensor:
        return values - N((inverse_11 @ N.T(values)[:, :, None])[:, :, 0])

    return apply


def _scaled(system: ReducedSystem, A: sparse.csr_array) -> sparse.csr_array:
    """Scale the rows of a matrix, one for each point, by the roots of weight times conductance."""
    return (sparse.diags_array(np.sqrt(system.weights * system.beta)) @ A).tocsr()

"""Geometric multigrid for S u = g on the structured box, batched: a symmetric V(1,1)-cycle.

With the averaging matrix Pi and the network basis N scaled by the square roots of weights and wall
conductances,

    S = A_0 + Pi' C Pi      A_0 = K + M      C = 1 - N A_11^-1 N'

keeps this form on every grid: with P the interpolation from the next grid, P' S P has P' A_0 P in
place of A_0, Pi P in place of Pi, and the same C. So the coarse operators are the Galerkin products
of S itself, and the largest dense matrix has the size of the number of points on the network
(Trottenberg, Oosterlee & Schüller 2001, Multigrid, section 2.4, for the cycle).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.preconditioners.multigrid.exchange import Exchange, exchange_of
from learning.preconditioners.multigrid.grids import GridInBoxes, GridOperator, WholeGrid, finest
from learning.preconditioners.multigrid.near_kernel import NearKernel
from learning.preconditioners.multigrid.network import NetworkResponse
from learning.preconditioners.multigrid.smoothers import RELAXATION, l1_jacobi
from learning.preconditioners.multigrid.transfer import coarsened, coupling_along_axes
from learning.systems.operators import SystemBatch, averaging_matrices, grids_of
from learning.systems.sparse import DistributedMap, LinearMap, SparseMap, distributed_map, norm
from mixeddim.tensors import ALONE, Grid, Processes, ReducedSystem, chebyshev, fourth_kind

__all__ = ["GeometricMultigrid", "Hierarchy", "Level", "Smoother", "create_hierarchy", "v_cycle"]

Smoother = Literal["low_rank", "l1_jacobi"]
PolynomialKind = Literal["chebyshev", "fourth_kind"]

MOST_COARSE_NODES: Final = 300
"""A grid of no more nodes is solved directly: 6³ from 20 or 40 cells, 5³ from 32, 64 or 128."""

VISITED_TWICE: Final = 1400
"""A grid of no more nodes is visited twice, which costs little there: 11³, or 9³."""

FEWER: Final = 3
"""But only where it has so many times fewer nodes, lest visits outgrow what they cost."""


@dataclass(frozen=True)
class GeometricMultigrid:
    """One symmetric V(1,1)-cycle of geometric multigrid, symmetric positive definite.

    Works on the box with any number of cells; powers of two make the best grids.

    Attributes:
        smoother: "low_rank" inverts the diagonal and the coupling together, and the network where
            that follows the tissue, for coupling of every strength; "l1_jacobi" divides by a
            diagonal, cheaper to set up.
        degree: Of the smoother's polynomial. 2 saves up to half of the iterations, each of which
            costs half as much again.
        polynomial: "chebyshev" damps the eigenvalues above a quarter of the largest; "fourth_kind"
            is the best for a bound that holds whatever the grids.
        dtype: What the cycle runs in; by default that of the vectors. In torch.float32 it works on
            the normalised residual.
    """

    smoother: Smoother = "low_rank"
    degree: int = 1
    dtype: torch.dtype | None = None
    polynomial: PolynomialKind = "chebyshev"

    is_linear = True
    is_symmetric = True
    is_parallel = True

    def __post_init__(self) -> None:
        if self.smoother not in get_args(Smoother):
            raise ValueError(
                f"got smoother={self.smoother!r}; wanted one of {get_args(Smoother)}. Choose one."
            )
        if self.polynomial not in get_args(PolynomialKind):
            raise ValueError(
                f"got polynomial={self.polynomial!r}; wanted one of {get_args(PolynomialKind)}. "
                "Choose one."
            )
        if not isinstance(self.degree, int) or self.degree < 1:
            raise ValueError(f"got degree={self.degree!r}; wanted a positive integer. Use 1 to 4.")
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
        hierarchy = create_hierarchy(systems, batch, self.dtype or batch.g.dtype)
        return hierarchy.preconditioner([self._smoother(level) for level in hierarchy.levels])

    def _smoother(self, level: Level) -> LinearMap:
        base = self._base(level)
        if self.polynomial == "fourth_kind":
            return fourth_kind(base, level.apply, self.degree, RELAXATION)
        return chebyshev(base, level.apply, self.degree, RELAXATION / 4.0, RELAXATION)

    def _base(self, level: Level) -> LinearMap:
        if self.smoother == "l1_jacobi":
            return l1_jacobi(level.row_sums, level.exchange.row_sums, level.like)
        return level.exchange.smoother(level.row_sums, RELAXATION)


# --- The cycle --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Level:
    """S = A_0 + Pi' C Pi for a batch of systems on one grid, and the way to the next coarser one.

    Vectors are in grid order.

    Attributes:
        operator: A_0.
        is_coarsened: Whether the next grid is coarser along x, y and z.
        tissue: A_0 as a map.
        exchange: Pi' C Pi.
        prolong: Interpolation P from the next grid; its transpose is the restriction.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
        processes: Over which these are distributed.
    """

    operator: GridOperator
    is_coarsened: tuple[bool, bool, bool]
    tissue: LinearMap
    exchange: Exchange
    prolong: SparseMap | DistributedMap
    like: torch.Tensor
    processes: Processes

    @property
    def row_sums(self) -> NDArray[np.float64]:
        """Those of |A_0|, shape (batch n,)."""
        return self.operator.row_sums

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        """Return S v, shape (batch, n)."""
        return self.tissue(v) + self.exchange.apply(v)


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """All levels from fine to coarse, and the direct solver of the coarsest grid.

    Attributes:
        levels: None where the finest grid is solved directly.
        solve_coarsest: Of vectors in grid order.
        to_grid: From vectors in dof order to the finest grid.
        to_dofs: And back.
        dtype: What the cycle runs in.
        constants: What the vectors' dtype has to do for a cycle in a coarser one, or None.
        processes: Over which the vectors are distributed.
    """

    levels: tuple[Level, ...]
    solve_coarsest: LinearMap
    to_grid: LinearMap
    to_dofs: LinearMap
    dtype: torch.dtype
    constants: NearKernel | None
    processes: Processes

    def preconditioner(self, smoothers: Sequence[LinearMap]) -> LinearMap:
        """Return the V-cycle with a smoother for each level, as a map of vectors in dof order.

        In another dtype than that of the vectors it works on the normalised residual.
        """

        def apply(r: torch.Tensor) -> torch.Tensor:
            if r.dtype == self.dtype:
                return self.to_dofs(v_cycle(self, smoothers, self.to_grid(r)))
            size = norm(r.detach(), self.processes)[:, None]
            size = torch.where(size > 0, size, 1.0)
            x = v_cycle(self, smoothers, self.to_grid(r / size).to(self.dtype))
            return size * self.to_dofs(x).to(r.dtype)

        return apply if self.constants is None else self.constants.deflated(apply)


def v_cycle(
    hierarchy: Hierarchy, smoothers: Sequence[LinearMap], r: torch.Tensor, depth: int = 0
) -> torch.Tensor:
    """Return M r: smooth, correct from the next grid, smooth again.

    From a small next grid it corrects twice, which makes up for a coarsest grid still smaller.
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
    residual = level.prolong.T(r - level.apply(x))
    correction = v_cycle(hierarchy, smoothers, residual, depth + 1)
    size, is_level = residual.shape[1], depth + 1 < len(hierarchy.levels)
    if is_level and size <= VISITED_TWICE and FEWER * size <= r.shape[1]:
        residual = residual - hierarchy.levels[depth + 1].apply(correction)
        correction = correction + v_cycle(hierarchy, smoothers, residual, depth + 1)
    x = x + level.prolong(correction)
    return x + smooth(r - level.apply(x))


# --- The set-up -------------------------------------------------------------------------------


def create_hierarchy(
    systems: Sequence[ReducedSystem],
    batch: SystemBatch,
    dtype: torch.dtype,
) -> Hierarchy:
    """Build the Galerkin operators of all grids.

    Args:
        systems: On structured boxes of one shape.
        batch: The same systems.
        dtype: Of the vectors in the cycle.

    Raises:
        ValueError: If the systems do not live on structured boxes of one shape, or S is singular.
    """
    grids = grids_of(systems)
    like = batch.g.to(dtype)
    operator: GridOperator = finest(systems, grids)
    Pi, row_sums = averaging_matrices(systems), operator.row_sums
    to_grid: LinearMap = _identity
    to_dofs: LinearMap = _identity
    if not isinstance(operator, GridInBoxes):
        Pi = _on_grids(Pi, grids)
        to_grid, to_dofs = _orders(grids, like.device)
    elif operator.is_to_gather:
        to_whole = operator.to_whole()
        operator, Pi = operator.gathered(), Pi @ to_whole
        to_dofs = distributed_map(to_whole, like)
        to_grid = distributed_map(to_whole, batch.g).T
        like = like.new_empty(1, to_whole.shape[1])
    exchange = exchange_of(Pi, NetworkResponse.of(systems, batch), like)

    levels: list[Level] = []
    coupling = np.stack([coupling_along_axes(s.K, g) for s, g in zip(systems, grids, strict=True)])
    while np.prod([len(x) for x in operator.axes]) > MOST_COARSE_NODES:
        fine, axes = operator.axes, coarsened(operator.axes, coupling)
        along_x, along_y, along_z = (len(a) < len(b) for a, b in zip(axes, fine, strict=True))
        P, prolong, coarser = operator.coarse(axes, like)
        levels.append(
            Level(
                operator=operator,
                is_coarsened=(along_x, along_y, along_z),
                tissue=operator.matrix(like),
                exchange=exchange,
                prolong=prolong,
                like=like,
                processes=batch.processes if isinstance(operator, GridInBoxes) else ALONE,
            )
        )
        exchange = exchange.coarse(P)
        operator, like = coarser, exchange.like
    constants = None
    if dtype != batch.g.dtype:
        constants = NearKernel.of(batch, row_sums)
    assert isinstance(operator, WholeGrid)  # few nodes always are
    A_0 = operator.matrix(torch.empty(0, dtype=torch.float64)).to_scipy()
    try:
        with batch.processes.together():
            solve_coarsest = exchange.inverse(A_0)
    except ValueError as error:
        raise ValueError(
            f"got a system that is singular on its coarsest grid ({error}); wanted a positive "
            "definite one. Give the tissue a reaction or a Dirichlet condition."
        ) from error
    return Hierarchy(
        levels=tuple(levels),
        solve_coarsest=solve_coarsest,
        to_grid=to_grid,
        to_dofs=to_dofs,
        dtype=dtype,
        constants=constants,
        processes=batch.processes,
    )


def _identity(v: torch.Tensor) -> torch.Tensor:
    return v


def _orders(grids: Sequence[Grid], device: torch.device) -> tuple[LinearMap, LinearMap]:
    """Return the maps from dof order to grid order and back, of (batch, n)."""
    node_of_dof = np.stack([grid.node_of_dof for grid in grids])
    dof_of_node = np.empty_like(node_of_dof)
    np.put_along_axis(dof_of_node, node_of_dof, np.arange(node_of_dof.shape[1])[None], axis=1)
    node, dof = (torch.tensor(order, device=device) for order in (node_of_dof, dof_of_node))
    return lambda v: v.gather(1, dof), lambda v: v.gather(1, node)


def _on_grids(Pi: sparse.csr_array, grids: Sequence[Grid]) -> sparse.csr_array:
    """Return a block-diagonal matrix with its columns, one for each dof, in grid order."""
    num_nodes = Pi.shape[1] // len(grids)
    columns = np.concatenate([grid.node_of_dof + i * num_nodes for i, grid in enumerate(grids)])
    return sparse.csr_array((Pi.data, columns[Pi.indices], Pi.indptr), shape=Pi.shape)

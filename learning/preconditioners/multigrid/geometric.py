"""Geometric multigrid for S u = g on the structured box, batched: a symmetric V(1,1)-cycle.

With the averaging matrix Pi and the network basis N scaled by the square roots of weights and wall
conductances,

    S = A_0 + Pi' C Pi      A_0 = K + M      C = 1 - N A_11^-1 N'

keeps this form on every grid: with P the interpolation from the next grid, P' S P has P' A_0 P in
place of A_0, Pi P in place of Pi, and the same C. So the coarse operators are the Galerkin products
of S itself, and the largest dense matrix has the size of the number of points on the network
(Trottenberg, Oosterlee & Schüller 2001, Multigrid, section 2.4, for the cycle).

The next grid has every second node along the axes of strong coupling, or every fourth for the
smoothers of high degree of `learned` (see `transfer`). On the finest grid weak entries count on the
diagonal of A_0 (see `stencils.thinned`), which enlarges it by hardly anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning import kernels
from learning.preconditioners.multigrid.cholesky import InTurn, incomplete_cholesky
from learning.preconditioners.multigrid.compiled import CompiledLevel, compiled_cycle
from learning.preconditioners.multigrid.cycle import v_cycle
from learning.preconditioners.multigrid.exchange import AtFewPoints, exchange_of
from learning.preconditioners.multigrid.grids import GridInBoxes, WholeGrid
from learning.preconditioners.multigrid.level import Level
from learning.preconditioners.multigrid.near_kernel import NearKernel
from learning.preconditioners.multigrid.network import NetworkResponse
from learning.preconditioners.multigrid.smoothers import RELAXATION, Polynomial
from learning.preconditioners.multigrid.tissue import tissue_grids
from learning.preconditioners.multigrid.transfer import nodes_along_axes
from learning.systems.operators import (
    SystemBatch,
    averaging_matrices,
    grids_of,
    orders,
    permutations,
)
from learning.systems.sparse import LinearMap, distributed_map, norm
from learning.systems.tissue import kept
from mixeddim.tensors import (
    ALONE,
    Grid,
    Processes,
    ReducedSystem,
    SymmetricProduct,
    chebyshev_steps,
    fourth_kind_steps,
)

__all__ = [
    "GeometricMultigrid",
    "Hierarchy",
    "Level",
    "Smoother",
    "cholesky",
    "create_hierarchy",
]

Smoother = Literal["low_rank", "l1_jacobi", "cholesky"]
PolynomialKind = Literal["chebyshev", "fourth_kind"]

WEAK_EXCHANGE: Final = 0.25
"""Where exchange is below this share of the tissue's row sums, it may be lumped into a diagonal."""

MOST_COARSE_NODES: Final = 300
"""A grid of no more nodes is solved directly: 6³ from 20 or 40 cells, 5³ from 32, 64 or 128."""

MOST_TWICE_NODES: Final = 1400
"""A grid of no more nodes is visited twice: 11³ from 20 or 40 cells, 9³ from 32, 64 or 128.

None is where grids are coarsened by four.
"""

FEWER: Final = 3
"""But only where it has so many times fewer nodes, lest visits outgrow what they cost."""


@dataclass(frozen=True)
class GeometricMultigrid:
    """One symmetric V(1,1)-cycle of geometric multigrid, symmetric positive definite.

    Works on the box with any number of cells; powers of two make the best grids.

    Attributes:
        smoother: "low_rank" inverts the diagonal and the coupling together, and the network where
            that follows the tissue, for coupling of every strength; "l1_jacobi" divides by a
            diagonal, cheaper to set up; "cholesky" solves with incomplete factors of the tissue,
            for fibres in any direction, on CPUs.
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
        if self.smoother == "cholesky" and self.degree > 1:
            raise ValueError(
                f"got degree={self.degree} for smoother='cholesky', which is no polynomial; wanted "
                "1. Leave the degree out."
            )
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
        hierarchy = create_hierarchy(
            systems, batch, self.dtype or batch.g.dtype, is_uniform=self.smoother == "cholesky"
        )
        if self.smoother == "cholesky":
            return hierarchy.preconditioner([cholesky(level) for level in hierarchy.levels])
        return hierarchy.preconditioner([self._polynomial] * len(hierarchy.levels))

    @property
    def _polynomial(self) -> Polynomial:
        if self.polynomial == "fourth_kind":
            first, steps = fourth_kind_steps(self.degree, RELAXATION)
        elif self.degree > 1:
            first, steps = chebyshev_steps(self.degree, RELAXATION / 4.0, RELAXATION)
        else:
            first, steps = 1.0, []
        return Polynomial(RELAXATION, first, tuple(steps), self.smoother == "low_rank")


def cholesky(level: Level) -> LinearMap:
    """Return a smoother by incomplete factors of A_0 + diag(Pi' C Pi), with a transpose T.

    Where exchange is strong, one that inverts diagonal and exchange together goes before.

    Raises:
        NotImplementedError: On an accelerator.
        ModuleNotFoundError: Without numba.
    """
    exchange, like = level.exchange, level.like
    M = incomplete_cholesky(level.operator.whole_stencils, exchange.row_sums, like)
    strongest = (exchange.row_sums / level.row_sums).max(initial=0.0)
    if level.processes.max(strongest) <= WEAK_EXCHANGE:
        return M
    return InTurn(exchange.smoother(level.row_sums, RELAXATION), M, level.apply)


# --- The cycle --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """All levels from fine to coarse, and the direct solver of the coarsest grid.

    Attributes:
        levels: None where the finest grid is solved directly.
        solve_coarsest: Of vectors in grid order.
        to_grid: From vectors in dof order to the finest grid.
        to_dofs: And back.
        batch: The systems.
        grids: Theirs.
        dtype: What the cycle runs in.
        constants: What the vectors' dtype has to do for a cycle in a coarser one, or None.
    """

    levels: tuple[Level, ...]
    solve_coarsest: LinearMap
    to_grid: LinearMap
    to_dofs: LinearMap
    batch: SystemBatch
    grids: Sequence[Grid]
    dtype: torch.dtype
    constants: NearKernel | None

    @property
    def processes(self) -> Processes:
        """Over which the vectors are distributed."""
        return self.batch.processes

    def preconditioner(self, smoothers: Sequence[Polynomial | LinearMap]) -> LinearMap:
        """Return the V-cycle with a smoother for each level, as a map of vectors in dof order.

        In another dtype than that of the vectors it works on the normalised residual.
        """
        compiled = self._compiled(smoothers)
        if compiled is not None:
            apply = self._in_arrays(compiled)
        else:
            apply = self._in_tensors(
                [
                    level.smoother(smooth) if isinstance(smooth, Polynomial) else smooth
                    for level, smooth in zip(self.levels, smoothers, strict=True)
                ]
            )
        return apply if self.constants is None else self.constants.deflated(apply)

    def _compiled(self, smoothers: Sequence[Polynomial | LinearMap]) -> list[CompiledLevel] | None:
        """Return the levels for compiled loops, or None where these do not do."""
        if self.batch.factors_11 is None:
            return None
        levels = []
        for level, polynomial in zip(self.levels, smoothers, strict=True):
            exchange, operator = level.exchange, level.operator
            if not (isinstance(polynomial, Polynomial) and isinstance(operator, WholeGrid)):
                return None
            if not isinstance(exchange, AtFewPoints):
                return None
            shapes = [tuple(len(x) for x in axes) for axes in (operator.axes, level.next_axes)]
            levels.append(
                CompiledLevel(
                    operator.matrix(level.like),
                    exchange.in_rows(self.batch.factors_11),
                    exchange.base(
                        level.row_sums,
                        polynomial.relaxation,
                        is_lumped=level.is_weak(polynomial.relaxation),
                        inverts_coupling=polynomial.inverts_coupling,
                    ),
                    polynomial,
                    nodes_along_axes(level.next_axes, operator.axes, self.dtype),
                    (shapes[0], shapes[1]),
                    visits_next_twice=level.visits_next_twice,
                )
            )
        return levels

    def _in_arrays(self, levels: Sequence[CompiledLevel]) -> LinearMap:
        node_of_dof, dof_of_node = _permutations(self.batch, self.grids)
        on_grid = np.empty(node_of_dof.shape, torch.empty(0, dtype=self.dtype).numpy().dtype)

        def multiply(r: torch.Tensor) -> torch.Tensor:
            size = np.ones(len(r))
            if r.dtype != self.dtype:
                size = torch.linalg.vector_norm(r, dim=1).numpy()
                size = np.where(size > 0, size, 1.0)
            kernels.permute(dof_of_node, 1.0 / size, r.contiguous().numpy(), on_grid)
            x, result = compiled_cycle(levels, self.solve_coarsest, on_grid), torch.empty_like(r)
            kernels.permute(node_of_dof, size, x, result.numpy())
            return result

        return lambda r: SymmetricProduct.apply(r, multiply) if r.requires_grad else multiply(r)

    def _in_tensors(self, smoothers: Sequence[LinearMap]) -> LinearMap:
        def apply(r: torch.Tensor) -> torch.Tensor:
            if r.dtype == self.dtype:
                return self.to_dofs(v_cycle(self, smoothers, self.to_grid(r)))
            size = norm(r.detach(), self.processes)[:, None]
            size = torch.where(size > 0, size, 1.0)
            x = v_cycle(self, smoothers, self.to_grid(r / size).to(self.dtype))
            return size * self.to_dofs(x).to(r.dtype)

        return apply


# --- The set-up -------------------------------------------------------------------------------


def create_hierarchy(
    systems: Sequence[ReducedSystem],
    batch: SystemBatch,
    dtype: torch.dtype,
    *,
    is_uniform: bool = False,
    by_four: bool = False,
) -> Hierarchy:
    """Build the Galerkin operators of all grids, with those of the tissue that are known already.

    Args:
        systems: On structured boxes of one shape.
        batch: The same systems.
        dtype: Of the vectors in the cycle.
        is_uniform: Whether to coarsen along all axes, however weakly some couple: for smoothers
            that work along fibres.
        by_four: Whether to leave out three of four nodes along the axes that couple strongest, for
            smoothers of high degree. Grids that are distributed lose one of two. No grid is visited
            twice then: such smoothers gain nothing by it.

    Raises:
        ValueError: If the systems do not live on structured boxes of one shape, or S is singular.
    """
    tissue = tissue_grids(
        systems, batch, dtype, MOST_COARSE_NODES, is_uniform=is_uniform, by_four=by_four
    )
    grids, like, operator = grids_of(systems), batch.g.to(dtype), tissue.finest
    Pi = averaging_matrices(systems)
    to_grid: LinearMap = _identity
    to_dofs: LinearMap = _identity
    if not isinstance(operator, GridInBoxes):
        Pi = _on_grids(Pi, grids)
        to_grid, to_dofs = orders(_permutations(batch, grids), like.device)
    elif operator.is_to_gather:
        to_whole = operator.to_whole()
        Pi = Pi @ to_whole
        to_dofs = distributed_map(to_whole, like)
        to_grid = distributed_map(to_whole, batch.g).T
        like = like.new_empty(1, to_whole.shape[1])
    exchange = exchange_of(Pi, NetworkResponse.of(systems, batch), like)

    levels: list[Level] = []
    for level in tissue.levels:
        num_fine, num_coarse = (
            np.prod([len(x) for x in axes]) for axes in (level.operator.axes, level.next_axes)
        )
        is_small = not by_four and MOST_COARSE_NODES < num_coarse <= MOST_TWICE_NODES
        levels.append(
            Level(
                operator=level.operator,
                next_axes=level.next_axes,
                visits_next_twice=bool(is_small and FEWER * num_coarse <= num_fine),
                tissue=level.operator.matrix(like),
                exchange=exchange,
                prolong=level.prolong,
                like=exchange.like,
                processes=batch.processes if isinstance(level.operator, GridInBoxes) else ALONE,
            )
        )
        exchange = exchange.coarse(level.P)
    constants = None
    if dtype != batch.g.dtype:
        constants = NearKernel.of(batch, operator.row_sums)
    try:
        with batch.processes.together():
            solve_coarsest = exchange.inverse(tissue.A_0)
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
        batch=batch,
        grids=grids,
        dtype=dtype,
        constants=constants,
    )


def _permutations(batch: SystemBatch, grids: Sequence[Grid]) -> tuple[NDArray[np.uint32], ...]:
    return kept(batch.kept, "orders", lambda: permutations(grids))


def _identity(v: torch.Tensor) -> torch.Tensor:
    return v


def _on_grids(Pi: sparse.csr_array, grids: Sequence[Grid]) -> sparse.csr_array:
    """Return a block-diagonal matrix with its columns, one for each dof, in grid order."""
    num_nodes = Pi.shape[1] // len(grids)
    columns = np.concatenate([grid.node_of_dof + i * num_nodes for i, grid in enumerate(grids)])
    on_grids = sparse.csr_array((Pi.data, columns[Pi.indices], Pi.indptr), shape=Pi.shape)
    on_grids.sort_indices()  # once, for all that wants it
    return on_grids

"""S for a batch of reduced systems in torch: sparse products and solves with the network blocks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning import kernels
from learning.systems.padded import PaddedMap
from learning.systems.sparse import (
    LinearMap,
    SparseMap,
    block_diagonal,
    distributed_map,
    multiply,
    rows_of,
    sparse_map,
    spd_solver,
    symmetric_on_host,
)
from learning.systems.stencils import StencilMatrix, stencils_of
from learning.systems.tissue import kept, parts_of_tissue
from mixeddim.tensors import (
    ALONE,
    MOST_FACTORED,
    Factors,
    FromTissue,
    Grid,
    Processes,
    ReducedSystem,
    SymmetricProduct,
    cholesky_factors,
    sparse_csr,
)

__all__ = [
    "SystemBatch",
    "averaging_matrices",
    "batch_systems",
    "distributed_batch",
    "grids_of",
    "network_bases",
    "network_blocks",
    "orders",
    "permutations",
]

type Rows = tuple[NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class SystemBatch:
    """S u = g for a batch of systems of the same number of tissue dofs, on one device.

    The sparse parts of the systems are the diagonal blocks of one matrix. Networks differ in
    size: their dofs are padded to the largest, with ones on the diagonal.

    Attributes:
        tissue: Tissue blocks without exchange as a map of (batch, n_3).
        stencils: The same as matrices in grid order, in float64, on a CPU where systems live on
            boxes; else None.
        factors_11: A_11 as factors for compiled loops, where these serve; else None.
        multiply: v -> S v in compiled loops, where they serve; else None.
        average: Averaging matrices, their rows scaled by the roots of weight times conductance.
        basis: Network bases at the points of these, scaled alike.
        solve_11: The map b -> A_11^-1 b, shapes (batch, n_1).
        g: Right-hand sides, shape (batch, n_3).
        grid: Nodes of the structured box of the first system, or None.
        processes: Over which the tissue of the only system is distributed.
        kept: What preconditioners made of the tissue (see `learning.systems.tissue`).
    """

    tissue: LinearMap
    average: SparseMap | PaddedMap
    basis: SparseMap | PaddedMap
    solve_11: LinearMap
    g: torch.Tensor
    grid: Grid | None
    processes: Processes = ALONE
    stencils: StencilMatrix | None = None
    factors_11: Factors | None = None
    multiply: LinearMap | None = None
    kept: dict[Hashable, Any] = field(default_factory=dict)

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        """Return S v, differentiable in v to any order.

        Args:
            v: Shape (batch, n_3), with the dtype and device of the batch; for one system any
                number of vectors.

        Raises:
            ValueError: If the shape, dtype or device of v does not fit.
        """
        batch, n_3 = self.g.shape
        fits = v.ndim == 2 and v.shape[1] == n_3 and (len(v) == batch or batch == 1)
        if not fits or (v.dtype, v.device) != (self.g.dtype, self.g.device):
            raise ValueError(
                f"got v of shape {tuple(v.shape)}, {v.dtype} on {v.device}; wanted "
                f"{tuple(self.g.shape)}, {self.g.dtype} on {self.g.device}. Convert v, or batch "
                "the systems in its dtype and on its device."
            )
        product: torch.Tensor = SymmetricProduct.apply(v, self._multiply)
        return product

    def _multiply(self, v: torch.Tensor) -> torch.Tensor:
        if len(v) == len(self.g):
            return self._product(v)
        at_once = _AT_ONCE if self.stencils is None and self.processes.size == 1 else 1
        return torch.cat([self._product(rows) for rows in v.split(at_once)])

    def _product(self, v: torch.Tensor) -> torch.Tensor:
        if self.multiply is not None:
            return self.multiply(v.detach())
        means = self.average(v)
        network = self.solve_11(self.basis.T(means))
        return self.tissue(v) + self.average.T(means - self.basis(network))


_AT_ONCE: Final = 8
"""Vectors for which the matrices of one system are read once: more would not fit into a cache."""


def batch_systems(
    systems: Sequence[ReducedSystem],
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> SystemBatch:
    """Put reduced systems into one batch.

    Args:
        systems: At least one, all with the same number of tissue dofs in the same order.
        dtype: torch.float32 or torch.float64; factors are computed in float64.
        device: Where the tensors live.

    Raises:
        ValueError: If there is no system, one is not reduced, or the numbers of tissue dofs differ.
        NotImplementedError: If one is distributed over several processes.
    """
    for system in systems:
        if not isinstance(system, ReducedSystem):
            raise ValueError(
                f"got a {type(system).__name__}; wanted a ReducedSystem. Reduce it with "
                "mixeddim.reduce(system)."
            )
        system.processes.refuse("batch_systems")
    sizes = sorted({len(system.b_3) for system in systems})
    if len(sizes) != 1:
        raise ValueError(
            f"got {len(systems)} systems with {sizes} tissue dofs; wanted at least one system, all "
            "on the same grid. Batch each grid on its own."
        )
    most = max(len(system.b_1) for system in systems)
    like = torch.empty(len(systems), most, dtype=dtype, device=device)
    Pi, N = averaging_matrices(systems), network_bases(systems)
    solve_11, g = _network_solver(systems, like), np.stack([system.g for system in systems])
    parts = parts_of_tissue(systems)
    stencils = factors = multiply = None
    if kernels.ARE_COMPILED and not like.is_cuda:
        stencils = _stencils(systems, parts)
    if stencils is None:
        tissue = _tissue(systems, like)
    else:
        grids = [system.grid for system in systems if system.grid is not None]
        permuted = kept(parts, "orders", lambda: permutations(grids))
        tissue = _on_grids(stencils, permuted, dtype)
        if Pi.shape[0] <= MOST_FACTORED * len(systems):
            factors = _network_factors(systems)
            network = _AddExchange(rows_of(Pi, dtype), rows_of(N, dtype), factors)
            multiply = lambda v: network(v, tissue(v))  # noqa: E731
    return SystemBatch(
        tissue=tissue,
        average=sparse_map(Pi, like),
        basis=sparse_map(N, like),
        solve_11=solve_11,
        g=torch.tensor(g, dtype=dtype, device=device),
        grid=systems[0].grid,
        stencils=stencils,
        factors_11=factors,
        multiply=multiply,
        kept=parts,
    )


def distributed_batch(system: ReducedSystem, device: torch.device | str = "cpu") -> SystemBatch:
    """Return the batch of one system on several processes, in float64.

    Its products hold the values of the dofs here. Krylov methods have to be told the processes.

    Raises:
        NotImplementedError: If the device is an accelerator.
    """
    if torch.device(device).type != "cpu":
        system.processes.refuse("an accelerator")
    like = torch.empty(1, len(system.b_1), dtype=torch.float64)
    return SystemBatch(
        tissue=symmetric_on_host(system.A_0.__matmul__),
        average=distributed_map(averaging_matrices([system]), like),
        basis=sparse_map(network_bases([system]), like),
        solve_11=_network_solver([system], like),
        g=torch.tensor(system.g)[None],
        grid=system.grid,
        processes=system.processes,
    )


def _tissue(systems: Sequence[ReducedSystem], like: torch.Tensor) -> LinearMap:
    """Return A_0 as a map."""
    blocks = block_diagonal([system.A_0 for system in systems], len(systems[0].b_3))
    return partial(multiply, sparse_csr(blocks, like.dtype, like.device))


def _stencils(systems: Sequence[ReducedSystem], parts: dict[Hashable, Any]) -> StencilMatrix | None:
    """Return A_0 as stencils, or None where systems do not live on boxes of one shape."""
    grids = [system.grid for system in systems if system.grid is not None]
    if len(grids) < len(systems) or len({grid.shape for grid in grids}) > 1:
        return None
    make = lambda: stencils_of([system.A_0 for system in systems], grids)  # noqa: E731
    return kept(parts, "stencils", make)


def _on_grids(
    stencils: StencilMatrix, orders: tuple[NDArray[np.uint32], ...], dtype: torch.dtype
) -> LinearMap:
    """Return A_0 as a map of vectors in dof order, by stencils."""
    matrix = stencils.to(torch.empty(0, dtype=dtype)).arrays
    node_of_dof, dof_of_node = orders
    x, y = (np.empty(node_of_dof.shape, dtype=matrix[0].dtype) for _ in range(2))
    ones = np.ones(len(node_of_dof))

    def multiply(v: torch.Tensor) -> torch.Tensor:
        product = torch.empty_like(v)
        kernels.permute(dof_of_node, ones, v.detach().numpy(), x)
        kernels.multiply_stencils(matrix, x, y)
        kernels.permute(node_of_dof, ones, y, product.numpy())
        return product

    return multiply


class _AddExchange:
    """(v, y) -> y + Pi' (1 - N A_11^-1 N') Pi v, in place, in compiled loops."""

    def __init__(self, Pi: Rows, N: Rows, A_11: Factors) -> None:
        self._matrices = (Pi, N, A_11)
        self._means = np.empty(len(Pi[0]) - 1, dtype=Pi[2].dtype)
        self._network = np.empty((2, len(A_11[0])))

    def __call__(self, v: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, result = (vector.view(-1).numpy() for vector in (v.contiguous(), y))
        kernels.add_exchange(*self._matrices, 1.0, x, self._means, self._network, result)
        return y


def permutations(grids: Sequence[Grid]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the node of each dof and the dof of each node, shape (batch, n)."""
    node_of_dof = np.stack([grid.node_of_dof for grid in grids]).astype(np.uint32)
    dof_of_node = np.empty_like(node_of_dof)
    np.put_along_axis(dof_of_node, node_of_dof, np.arange(node_of_dof.shape[1])[None], axis=1)
    return node_of_dof, dof_of_node


def orders(
    permutations: tuple[NDArray[np.uint32], ...], device: torch.device
) -> tuple[LinearMap, LinearMap]:
    """Return the maps from dof order to grid order and back, of (batch, n)."""
    node, dof = (torch.tensor(order.astype(np.int64), device=device) for order in permutations)
    return lambda v: v.gather(1, dof), lambda v: v.gather(1, node)


def averaging_matrices(systems: Sequence[ReducedSystem]) -> Any:
    """Return the matrices Pi on one diagonal, scaled, one block of (num_points, n_3) each.

    On several processes that of the only system, a `FromTissue`.
    """
    if systems[0].processes.size > 1:
        Pi = systems[0].Pi
        return FromTissue(_scaled(systems[0], Pi.columns.tocsr()), Pi.ownership)
    num_points = max(len(system.weights) for system in systems)
    return block_diagonal([_scaled(system, system.Pi) for system in systems], num_points)


def network_bases(systems: Sequence[ReducedSystem]) -> sparse.csr_array:
    """Return the matrices N on one diagonal, scaled, one block of (num_points, n_1) each."""
    num_points = max(len(system.weights) for system in systems)
    most = max(len(system.b_1) for system in systems)
    bases = [_scaled(system, system.N) for system in systems]
    for basis in bases:
        basis.resize(basis.shape[0], most)
    return block_diagonal(bases, num_points)


def _scaled(system: ReducedSystem, A: sparse.csr_array) -> sparse.csr_array:
    """Scale the rows of a matrix, one for each point, by the roots of weight times conductance."""
    roots = np.repeat(np.sqrt(system.weights * system.beta), np.diff(A.indptr))
    return sparse.csr_array((roots * A.data, A.indices, A.indptr), shape=A.shape)


def _network_solver(systems: Sequence[ReducedSystem], like: torch.Tensor) -> LinearMap:
    """Return b -> A_11^-1 b; a system by itself on a CPU has its factors already."""
    if len(systems) > 1 or like.is_cuda:
        return spd_solver(network_blocks(systems), like)
    try:
        return symmetric_on_host(systems[0].solve_11, len(systems[0].b_1))
    except RuntimeError as error:
        raise _not_definite(error) from error


def _network_factors(systems: Sequence[ReducedSystem]) -> Factors:
    """Return the factors of their A_11 for compiled loops."""
    try:
        return cholesky_factors(network_blocks(systems), len(systems))
    except RuntimeError as error:
        raise _not_definite(error) from error


def _not_definite(error: RuntimeError) -> ValueError:
    return ValueError(
        f"got {error} for A_11; wanted a positive definite one. Hold each component of the network "
        "by a Dirichlet condition, or by exchange that rounding beside k_1d does not hide."
    )


def network_blocks(systems: Sequence[ReducedSystem]) -> sparse.csr_array:
    """Return the blocks A_11 on one diagonal, padded to the largest with ones on the diagonal."""
    most = max(len(system.b_1) for system in systems)
    blocks = []
    for system in systems:
        if len(system.b_1) == most:
            blocks.append(system.A_11)
            continue
        padding = np.arange(most) >= len(system.b_1)
        block = system.A_11.copy()
        block.resize(most, most)
        blocks.append((block + sparse.diags_array(padding.astype(float))).tocsr())
    return block_diagonal(blocks, most)


def grids_of(systems: Sequence[ReducedSystem]) -> list[Grid]:
    """Return the grids of systems on structured boxes of one shape.

    Raises:
        ValueError: If a system has no grid, or the numbers of nodes along the axes or the cell
            types differ.
    """
    grids = [system.grid for system in systems if system.grid is not None]
    if len(grids) < len(systems):
        raise ValueError(
            "got a system on a mesh without a grid; wanted one on a structured box. Use "
            "create_box, or RugeStuben() on this mesh."
        )
    shapes = sorted({grid.shape for grid in grids})
    if len(shapes) != 1:
        raise ValueError(
            f"got systems on grids of {shapes} nodes; wanted one shape in a batch. Batch each on "
            "its own."
        )
    cell_types = sorted({grid.cell_type for grid in grids})
    if len(cell_types) != 1:
        raise ValueError(
            f"got systems on boxes of {' and '.join(cell_types)} cells; wanted one cell type in a "
            "batch. Batch each on its own."
        )
    return grids

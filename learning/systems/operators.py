"""S for a batch of reduced systems in torch: sparse products and solves with the network blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from learning.systems.padded import PaddedMap
from learning.systems.sparse import (
    DistributedMap,
    LinearMap,
    SparseMap,
    block_diagonal,
    distributed_map,
    sparse_map,
    spd_solver,
    symmetric_on_host,
)
from mixeddim.tensors import (
    ALONE,
    FromTissue,
    Grid,
    Processes,
    ReducedSystem,
    SymmetricProduct,
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
]


@dataclass(frozen=True, eq=False)
class SystemBatch:
    """S u = g for a batch of systems of the same number of tissue dofs, on one device.

    The sparse parts of the systems are the diagonal blocks of one matrix. Networks differ in
    size: their dofs are padded to the largest, with ones on the diagonal.

    Attributes:
        tissue: Tissue blocks without exchange as a map of (batch, n_3).
        average: Averaging matrices, their rows scaled by the roots of weight times conductance.
        basis: Network bases at the points of these, scaled alike.
        solve_11: The map b -> A_11^-1 b, shapes (batch, n_1).
        g: Right-hand sides, shape (batch, n_3).
        grid: Nodes of the structured box of the first system, or None.
        processes: Over which the tissue of the only system is distributed.
    """

    tissue: LinearMap
    average: SparseMap | DistributedMap | PaddedMap
    basis: SparseMap | PaddedMap
    solve_11: LinearMap
    g: torch.Tensor
    grid: Grid | None
    processes: Processes = ALONE

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        """Return S v, differentiable in v to any order.

        Args:
            v: Shape (batch, n_3), with the dtype and device of the batch.

        Raises:
            ValueError: If the shape, dtype or device of v does not fit.
        """
        wanted = (self.g.shape, self.g.dtype, self.g.device)
        if (v.shape, v.dtype, v.device) != wanted:
            raise ValueError(
                f"got v of shape {tuple(v.shape)}, {v.dtype} on {v.device}; wanted "
                f"{tuple(wanted[0])}, {wanted[1]} on {wanted[2]}. Convert v, or batch the systems "
                "in its dtype and on its device."
            )
        product: torch.Tensor = SymmetricProduct.apply(v, self._multiply)
        return product

    def _multiply(self, v: torch.Tensor) -> torch.Tensor:
        means = self.average(v)
        network = self.solve_11(self.basis.T(means))
        return self.tissue(v) + self.average.T(means - self.basis(network))


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
    return SystemBatch(
        tissue=_tissue(systems, like),
        average=sparse_map(averaging_matrices(systems), like),
        basis=sparse_map(network_bases(systems), like),
        solve_11=_network_solver(systems, like),
        g=torch.tensor(np.stack([system.g for system in systems]), dtype=dtype, device=device),
        grid=systems[0].grid,
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
    A_0 = sparse_csr(blocks, like.dtype, like.device)
    # Products with a vector are twice as fast as with a one-column matrix.
    return lambda v: (A_0 @ v.reshape(-1)).reshape(v.shape)


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
        return symmetric_on_host(systems[0].solve_11)
    except RuntimeError as error:
        raise ValueError(f"got {error} for A_11; wanted a positive definite one.") from error


def network_blocks(systems: Sequence[ReducedSystem]) -> sparse.csr_array:
    """Return the blocks A_11 on one diagonal, padded to the largest with ones on the diagonal."""
    most = max(len(system.b_1) for system in systems)
    blocks = []
    for system in systems:
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

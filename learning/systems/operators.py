"""S for a batch of reduced systems in torch: sparse products and solves with the network blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from learning.systems.sparse import LinearMap, block_diagonal, spd_solver
from mixeddim.tensors import Grid, ReducedSystem, SymmetricProduct, sparse_csr

__all__ = ["SystemBatch", "batch_systems", "grids_of", "network_blocks"]


@dataclass(frozen=True, eq=False)
class SystemBatch:
    """S u = g for a batch of systems of the same number of tissue dofs, on one device.

    The sparse parts of the systems are the diagonal blocks of one matrix. Networks differ in
    size: their dofs are padded to the largest, with ones on the diagonal.

    Attributes:
        A_33: Tissue blocks, sparse CSR, shape (batch n_3, batch n_3).
        A_31: Coupling blocks, sparse CSR, shape (batch n_3, batch n_1).
        A_13: Their transposes, sparse CSR, shape (batch n_1, batch n_3).
        solve_11: The map b -> A_11^-1 b, shapes (batch, n_1).
        g: Right-hand sides, shape (batch, n_3).
        grid: Nodes of the structured box of the first system, or None.
    """

    A_33: torch.Tensor
    A_31: torch.Tensor
    A_13: torch.Tensor
    solve_11: LinearMap
    g: torch.Tensor
    grid: Grid | None

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
        # Products with a vector are twice as fast as with a one-column matrix.
        column = v.reshape(-1)
        network = self.solve_11((self.A_13 @ column).reshape(len(v), -1))
        product = self.A_33 @ column - self.A_31 @ network.reshape(-1)
        return product.reshape(v.shape)


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
        system.processes.refuse("learning")
    sizes = sorted({len(system.b_3) for system in systems})
    if len(sizes) != 1:
        raise ValueError(
            f"got {len(systems)} systems with {sizes} tissue dofs; wanted at least one system, all "
            "on the same grid. Batch each grid on its own."
        )
    most = max(len(system.b_1) for system in systems)
    A_31 = []
    for system in systems:
        padded = system.A_31.copy()
        padded.resize(sizes[0], most)
        A_31.append(padded)
    coupling = block_diagonal(A_31, sizes[0])
    like = torch.empty(len(systems), most, dtype=dtype, device=device)
    return SystemBatch(
        A_33=sparse_csr(
            block_diagonal([system.A_33 for system in systems], sizes[0]), dtype, device
        ),
        A_31=sparse_csr(coupling, dtype, device),
        A_13=sparse_csr(coupling.T.tocsr(), dtype, device),
        solve_11=spd_solver(network_blocks(systems), like),
        g=torch.tensor(np.stack([system.g for system in systems]), dtype=dtype, device=device),
        grid=systems[0].grid,
    )


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

"""Systems of one tissue that stay on a device, where batches of them are chosen without the host.

Training visits the same systems in every epoch, in other batches. Here each is put together once,
with its vectors in grid order, and the tissue that they share is held once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse

from learning.systems.operators import (
    SystemBatch,
    averaging_matrices,
    network_bases,
    network_blocks,
)
from learning.systems.padded import PaddedMap, padded_map
from learning.systems.sparse import dense_blocks
from learning.systems.tissue import share_tissue
from mixeddim.tensors import Grid, ReducedSystem

__all__ = ["ResidentSystems"]


@dataclass(frozen=True, eq=False)
class ResidentSystems:
    """S u = g for systems that share K, M and the grid; dofs are in grid order.

    Attributes:
        tissue: K + M, one matrix.
        average: Averaging matrices, their rows scaled by the roots of weight times conductance.
        basis: Network bases at the points of these, scaled alike.
        inverse_11: Inverses of the network blocks, dense, shape (num_systems, n_1, n_1).
        g: Right-hand sides, shape (num_systems, n_3).
        grid: The grid, its dofs in grid order.
    """

    tissue: PaddedMap
    average: PaddedMap
    basis: PaddedMap
    inverse_11: torch.Tensor
    g: torch.Tensor
    grid: Grid

    @classmethod
    def of(
        cls, systems: Sequence[ReducedSystem], device: torch.device | str = "cpu"
    ) -> ResidentSystems:
        """Put systems on a device, in float64.

        Args:
            systems: At least one; of all of them `share_tissue` holds.
            device: Where.

        Raises:
            ValueError: If the systems do not share their tissue.
        """
        if not share_tissue(systems):
            raise ValueError(
                "got systems of several tissues, or without a grid; wanted one K, M and grid for "
                "all. Batch them with batch_systems."
            )
        like = torch.empty(0, dtype=torch.float64, device=device)
        grid = systems[0].grid
        assert grid is not None
        num_systems, n_3 = len(systems), len(grid.node_of_dof)
        average = averaging_matrices(systems)
        node = grid.node_of_dof[average.indices % n_3] + average.indices // n_3 * n_3
        average = sparse.csr_array((average.data, node, average.indptr), shape=average.shape)
        dof_of_node = np.argsort(grid.node_of_dof)
        tissue = systems[0].A_0[dof_of_node][:, dof_of_node]
        blocks = torch.tensor(dense_blocks(network_blocks(systems), num_systems), device=device)
        return cls(
            tissue=padded_map(sparse.csr_array(tissue), 1, like),
            average=padded_map(average, num_systems, like),
            basis=padded_map(network_bases(systems), num_systems, like),
            inverse_11=torch.cholesky_inverse(torch.linalg.cholesky(blocks)),
            g=torch.tensor(np.stack([grid.to_grid(s.g).ravel() for s in systems]), device=device),
            grid=replace(grid, node_of_dof=np.arange(n_3)),
        )

    def batch(self, index: torch.Tensor) -> SystemBatch:
        """Return a batch of these systems, chosen on their device.

        Args:
            index: Their numbers, shape (batch,), int64.
        """
        inverse_11 = self.inverse_11[index]
        return SystemBatch(
            tissue=self.tissue,
            average=self.average[index],
            basis=self.basis[index],
            solve_11=lambda b: (inverse_11 @ b[:, :, None])[:, :, 0],
            g=self.g[index],
            grid=self.grid,
        )


def resident_bytes(systems: Sequence[ReducedSystem]) -> float:
    """Return about how much memory `ResidentSystems.of` takes while it is built."""
    most = max(len(system.b_1) for system in systems)
    points = max(len(system.weights) for system in systems)
    longest = max(int(np.diff(system.Pi.indptr).max(initial=0)) for system in systems)
    per_system = 3 * 8.0 * most**2 + 2 * 16.0 * points * (longest + 2)
    return len(systems) * per_system

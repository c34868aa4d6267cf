"""The regular grid of nodes of a structured box, and the maps between grid and dof order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["CellType", "Grid"]

CellType = Literal["tetrahedron", "hexahedron"]
"""The cells of a cuboid: six tetrahedra (linear), or one hexahedron (trilinear)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Nodes of a structured box in grid order, and the dofs that sit on them.

    Grid arrays are indexed `[i, j, k]` along x, y and z. Nothing here needs DOLFINx, so that a
    network trained elsewhere can go back and forth between dof vectors and grid arrays.

    Attributes:
        shape: Number of nodes along x, y, z.
        lower: Corner of the box with the smallest coordinates, shape (3,).
        cell_size: Distance of neighbouring nodes along x, y, z, shape (3,).
        node_of_dof: Flat (C order) grid index of each dof, shape (num_dofs,); on several processes
            of those that this one owns.
        cell_type: The cells between the nodes, which decide what the stencil of a matrix is.
    """

    shape: tuple[int, int, int]
    lower: NDArray[np.float64]
    cell_size: NDArray[np.float64]
    node_of_dof: NDArray[np.int64]
    cell_type: CellType = "tetrahedron"

    def to_grid(self, dof_values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reorder dof values into a grid array.

        Args:
            dof_values: Shape (..., num_dofs).

        Returns:
            Shape `(..., *self.shape)`.

        Raises:
            ValueError: If there is not one value for each node, as on one process of several.
        """
        num_nodes = np.prod(self.shape)
        if not dof_values.shape[-1] == len(self.node_of_dof) == num_nodes:
            raise ValueError(
                f"got {dof_values.shape[-1]} values for {len(self.node_of_dof)} of {num_nodes} "
                "nodes; wanted one for each. On several processes each has a part of the nodes: "
                "mixeddim.tissue_dataset(solution) has them all."
            )
        values = np.empty_like(dof_values)
        values[..., self.node_of_dof] = dof_values
        return values.reshape(*dof_values.shape[:-1], *self.shape)

    def to_dofs(self, grid_values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reorder a grid array into dof values, the inverse of `to_grid`.

        Args:
            grid_values: Shape `(..., *self.shape)`.

        Returns:
            Shape (..., num_dofs).
        """
        flat = grid_values.reshape(*grid_values.shape[:-3], -1)
        return flat[..., self.node_of_dof]

"""The paper's preconditioner: a 3D U-Net that maps residual and geometry to a correction.

N. Dimola, A. Coclite, P. Zunino, arXiv:2507.15452 (2025), Table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from learning.devices import exact_convolutions, fast_convolutions
from learning.systems.operators import SystemBatch, grids_of
from mixeddim.tensors import ReducedSystem

__all__ = ["Geometry", "UNet", "UNetPreconditioner"]


def _conv(channels_in: int, channels_out: int, *, bias: bool = False) -> nn.Conv3d:
    return nn.Conv3d(channels_in, channels_out, kernel_size=3, padding=1, bias=bias)


def _up(channels_in: int, channels_out: int) -> nn.ConvTranspose3d:
    return nn.ConvTranspose3d(channels_in, channels_out, kernel_size=2, stride=2)


class UNet(nn.Module):
    """U-Net from two channels on a grid to one, with two poolings and skip connections.

    Rows of the paper's Table 1, with their numbers of parameters:

    - 1: 13,840: 3³ convolutions 2 -> 16 with bias and 16 -> 30 without, whose 30 channels and the
      2 inputs make 32. The split is our reading of the count.
    - 2 to 4: 55,296, 221,184, 442,368: 3³ convolutions 32 -> 64, 64 -> 128, 128 -> 128 without
      bias, the first two followed by max-pooling.
    - 5: 286,784: transposed convolution 128 -> 64, the skip of row 2, 3³ convolution 128 -> 64.
    - 6: 71,912: transposed convolution 64 -> 32, the skip of row 1, 3³ convolution 64 -> 32, and a
      head to one channel: 1³ with bias here, 33 parameters, where the paper has room for 200.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(2, 16, bias=True)
        self.second = _conv(16, 30)
        self.down_half = _conv(32, 64)
        self.down_quarter = _conv(64, 128)
        self.bottom = _conv(128, 128)
        self.up_half = _up(128, 64)
        self.merge_half = _conv(128, 64)
        self.up_full = _up(64, 32)
        self.merge_full = _conv(64, 32)
        self.head = nn.Conv3d(32, 1, kernel_size=1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map residual and geometry to a correction.

        Args:
            inputs: Shape (batch, 2, nx, ny, nz), of any grid; padded internally with zeros to
                multiples of four.

        Returns:
            Shape (batch, 1, nx, ny, nz).
        """
        relu, pool = nn.functional.relu, nn.functional.max_pool3d
        nx, ny, nz = inputs.shape[2:]
        x = nn.functional.pad(inputs, (0, -nz % 4, 0, -ny % 4, 0, -nx % 4))
        full = torch.cat([x, relu(self.second(relu(self.first(x))))], dim=1)
        half = pool(relu(self.down_half(full)), 2)
        quarter = pool(relu(self.down_quarter(half)), 2)
        quarter = relu(self.bottom(quarter))
        half = relu(self.merge_half(torch.cat([self.up_half(quarter), half], dim=1)))
        merged = torch.cat([self.up_full(half), full], dim=1)
        # Full precision even under autocast, since S amplifies rough errors in the result.
        with torch.autocast(inputs.device.type, enabled=False):
            full = relu(self.merge_full(merged.to(self.merge_full.weight.dtype)))
            return self.head(full)[:, :, :nx, :ny, :nz]


@dataclass(frozen=True, eq=False)
class Geometry:
    """What the U-Net's M depends on besides the residual, for a batch of systems.

    Attributes:
        distance: Distance to the network over the longest side of the box, in the dtype of the
            model, shape (batch, 1, nx, ny, nz).
        scale: Root mean square of the diagonal of A_33, float64, shape (batch, 1).
        node_of_dof: Grid index of each dof, shape (n_3,), or None where dofs are in grid order.
    """

    distance: torch.Tensor
    scale: torch.Tensor
    node_of_dof: torch.Tensor | None

    def in_grid_order(self) -> Geometry:
        """Return the same for vectors in grid order."""
        return replace(self, node_of_dof=None)

    def __getitem__(self, index: torch.Tensor) -> Geometry:
        """Return the systems of these numbers, shape (batch,)."""
        return replace(self, distance=self.distance[index], scale=self.scale[index])


class UNetPreconditioner:
    """The U-Net as a preconditioner: M(r) = (|r| / a) U(r / |r|, d / L).

    |r| is the root mean square of r, and a that of the diagonal of A_33: M scales with r and with
    1 / A. d is the distance to the network and L the longest side of the box, so that M does not
    depend on the unit of length. M is not linear, which requires a flexible Krylov method.

    Attributes:
        model: The neural network; it runs in its own dtype for residuals of any dtype.
        mixed_precision: Whether all its convolutions except the last two run in bfloat16, and on an
            accelerator these two in TF32.
    """

    is_linear = is_symmetric = False

    def __init__(self, model: UNet, *, mixed_precision: bool = False) -> None:
        self.model = model
        self.mixed_precision = mixed_precision

    def setup(
        self, systems: Sequence[ReducedSystem], batch: SystemBatch
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Compute geometry and scale, and return the map r -> M r (see `Preconditioner`).

        Raises:
            ValueError: If the systems are not on structured boxes of one shape, or not on the
                device of the model.
        """
        device = next(self.model.parameters()).device
        if device != batch.g.device:
            raise ValueError(
                f"got a model on {device} and systems on {batch.g.device}; wanted one device. "
                "Move the model, or name its device where you solve."
            )
        return self.on(self.geometry(systems))

    def geometry(self, systems: Sequence[ReducedSystem]) -> Geometry:
        """Return what M depends on besides the residual, on the device of the model.

        Raises:
            ValueError: If the systems are not on structured boxes of one shape.
        """
        grids = grids_of(systems)
        parameter = next(self.model.parameters())
        distances = [
            system.distance_to_network / np.max(grid.cell_size * (np.array(grid.shape) - 1))
            for system, grid in zip(systems, grids, strict=True)
        ]
        diagonals = np.stack([system.diagonal_33 for system in systems])
        scale = torch.tensor(np.sqrt(np.mean(diagonals**2, axis=1)), device=parameter.device)
        node_of_dof = torch.tensor(grids[0].node_of_dof, device=parameter.device)
        distance = torch.tensor(np.stack(distances)).to(parameter)
        return Geometry(distance[:, None], scale[:, None], node_of_dof)

    def on(self, geometry: Geometry) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the map r -> M r for the systems of a geometry, (batch, n_3) to the same shape."""
        distance, node_of_dof = geometry.distance, geometry.node_of_dof
        dof_of_node = None if node_of_dof is None else torch.argsort(node_of_dof)
        device, dtype = distance.device, distance.dtype

        def apply(r: torch.Tensor) -> torch.Tensor:
            size = r.square().mean(dim=1, keepdim=True).sqrt()
            unit = r / torch.where(size > 0, size, 1.0)
            in_grid_order = unit if dof_of_node is None else unit[:, dof_of_node]
            channel = in_grid_order.to(dtype).reshape(distance.shape)
            inputs = torch.cat([channel, distance], dim=1)
            precision = torch.autocast(device.type, torch.bfloat16, enabled=self.mixed_precision)
            with fast_convolutions() if self.mixed_precision else exact_convolutions(), precision:
                output = self.model(inputs).reshape(len(r), -1)
            in_dof_order = output if node_of_dof is None else output[:, node_of_dof]
            return size / geometry.scale.to(r) * in_dof_order.to(r.dtype)

        return apply

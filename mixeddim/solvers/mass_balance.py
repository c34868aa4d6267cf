"""Mass balance: the flows into and out of tissue and network, and their defect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixeddim.fem.assembly import CoupledSystem
from mixeddim.fem.sides import Side

__all__ = ["MassBalance", "balance_mass"]


@dataclass(frozen=True)
class MassBalance:
    """The flows into and out of each side; amounts per time, in the units of the coefficients.

    Attributes:
        source_3d: Sources in the tissue, integral of f_3d.
        boundary_3d: Inflow through the boundary of the tissue.
        reaction_3d: What the tissue takes up, integral of sigma_3d u_3d.
        exchange: Flow over the vessel wall into the tissue, integral of
            beta (u_1d - T u_3d / s).
        source_1d: Sources in the network, integral of f_1d.
        boundary_1d: Inflow through the inlets and ends of the network.
        traded_3d: Sum of the magnitudes of what the tissue trades, place by place; where
            that cancels, as at equal values on both sides of a wall, 1e-4 of what goes back and
            forth. The scale of `error_3d`.
        traded_1d: The same for the network.
    """

    source_3d: float
    boundary_3d: float
    reaction_3d: float
    exchange: float
    source_1d: float
    boundary_1d: float
    traded_3d: float
    traded_1d: float

    @property
    def error_3d(self) -> float:
        """Amount missing in the tissue, relative to what it trades."""
        missing = self.source_3d + self.boundary_3d + self.exchange - self.reaction_3d
        return abs(missing) / self.traded_3d if self.traded_3d > 0 else 0.0

    @property
    def error_1d(self) -> float:
        """Amount missing in the network, relative to what it trades."""
        missing = self.source_1d + self.boundary_1d - self.exchange
        return abs(missing) / self.traded_1d if self.traded_1d > 0 else 0.0

    @property
    def error(self) -> float:
        """The larger of the two relative errors."""
        return max(self.error_3d, self.error_1d)

    def __str__(self) -> str:
        """Return a table, one amount a line."""
        return "\n".join(
            [
                "                     tissue       network",
                f"sources       {self.source_3d:13.4e} {self.source_1d:13.4e}",
                f"boundary      {self.boundary_3d:13.4e} {self.boundary_1d:13.4e}",
                f"uptake        {-self.reaction_3d:13.4e}",
                f"through wall  {self.exchange:13.4e} {-self.exchange:13.4e}",
                f"error         {self.error_3d:13.1e} {self.error_1d:13.1e}",
            ]
        )


def balance_mass(
    system: CoupledSystem, u_3d: NDArray[np.float64], u_1d: NDArray[np.float64]
) -> MassBalance:
    """Compute the mass balance of a solution.

    Args:
        system: The system it solves.
        u_3d: Tissue dofs.
        u_1d: Network dofs.
    """
    side_3d, side_1d, coupling = system.side_3d, system.side_1d, system.coupling
    residual_3d, residual_1d = system.unconstrained_residual(u_3d, u_1d)
    processes = system.processes
    exchange = coupling.weights * coupling.flux(u_3d, u_1d)
    outside, inside = coupling.conductances
    through_wall = inside * abs(coupling.N @ u_1d)
    through_wall += outside * abs(coupling.Pi @ u_3d) / coupling.partition
    through_wall *= coupling.weights
    boundary_3d = _boundary_inflow(side_3d, u_3d, residual_3d)
    boundary_1d = _boundary_inflow(side_1d, u_1d, residual_1d)
    reaction_3d = side_3d.M @ u_3d
    return MassBalance(
        source_3d=processes.sum(side_3d.f.sum()),
        boundary_3d=processes.sum(boundary_3d.sum()),
        reaction_3d=processes.sum(reaction_3d.sum()),
        exchange=float(exchange.sum()),
        source_1d=float(side_1d.f.sum()),
        boundary_1d=float(boundary_1d.sum()),
        traded_3d=_traded(
            processes.sum(_size(side_3d.f, boundary_3d, reaction_3d)) + _size(exchange),
            processes.sum(_size(*_both_ways(side_3d, u_3d))) + _size(through_wall),
        ),
        traded_1d=_traded(
            _size(side_1d.f, boundary_1d, exchange),
            _size(through_wall, *_both_ways(side_1d, u_1d)),
        ),
    )


def _boundary_inflow(
    side: Side, u: NDArray[np.float64], residual: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what Neumann, Robin and Dirichlet conditions let in at each dof."""
    inflow = side.h - side.R @ u
    inflow[side.dirichlet_dofs] += residual[side.dirichlet_dofs]
    return inflow


def _both_ways(side: Side, u: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return what would be traded at each dof if nothing came back."""
    size = abs(u)
    return [side.M @ size, abs(side.R) @ size, (abs(side.K) @ size)[side.dirichlet_dofs]]


def _size(*parts: NDArray[np.float64]) -> float:
    return sum(float(abs(part).sum()) for part in parts)


def _traded(net: float, both_ways: float) -> float:
    """Return the sum of net magnitudes; where all cancels, that of gross ones times 1e-4."""
    return max(net, 1e-4 * both_ways)

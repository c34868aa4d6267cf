"""Mass balance of a tracer over a time step: inflow, outflow, storage, and their defect."""

from __future__ import annotations

from dataclasses import dataclass

from mixeddim.solvers.mass_balance import MassBalance

__all__ = ["TransportBalance"]


@dataclass(frozen=True)
class TransportBalance(MassBalance):
    """Inflow, outflow and storage in a time step; amounts per time, as mean over the step.

    Attributes:
        inflow: What the flow brings in at the inlets, part of `boundary_1d`.
        outflow: What it takes out at the outlets, taken off `boundary_1d`.
        storage_3d: By how much the tracer in the tissue grows.
        storage_1d: By how much the tracer in the network grows.
        amount_3d: Tracer in the tissue at the end of the step, integral of phi_3d u_3d.
        amount_1d: Tracer in the network at the end of the step, integral of phi_1d a u_1d.
    """

    inflow: float
    outflow: float
    storage_3d: float
    storage_1d: float
    amount_3d: float
    amount_1d: float

    @property
    def error_3d(self) -> float:
        """Amount missing in the tissue, relative to what it holds over a step and trades."""
        net = self.source_3d + self.boundary_3d + self.exchange - self.reaction_3d
        return abs(net - self.storage_3d) / self.traded_3d if self.traded_3d > 0 else 0.0

    @property
    def error_1d(self) -> float:
        """Amount missing in the network, relative to what it holds over a step and trades."""
        net = self.source_1d + self.boundary_1d - self.exchange
        return abs(net - self.storage_1d) / self.traded_1d if self.traded_1d > 0 else 0.0

    def __str__(self) -> str:
        """Return a table, one amount a line."""
        stored = f"stored        {-self.storage_3d:13.4e} {-self.storage_1d:13.4e}"
        *rows, error = super().__str__().splitlines()
        return "\n".join([*rows, stored, error])

"""Where the oxygen goes that blood brings in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OxygenBudget"]


@dataclass(frozen=True)
class OxygenBudget:
    """Volumes of oxygen per time [m³/s].

    Attributes:
        inflow: Brought in by blood.
        outflow: Carried away by blood.
        consumption: Consumed by the tissue.
        boundary: Inflow through the boundary of tissue and network other than with blood, and
            their sources less their linear uptake.
        exchange: From vessels into tissue.
    """

    inflow: float
    outflow: float
    consumption: float
    boundary: float
    exchange: float

    @property
    def error(self) -> float:
        """Amount missing, relative to what comes in."""
        missing = self.inflow + self.boundary - self.outflow - self.consumption
        coming = max(self.inflow, abs(self.boundary))
        return abs(missing) / coming if coming > 0 else 0.0

    def __str__(self) -> str:
        """Return a table, one amount a line."""
        return "\n".join(
            [
                f"flowed in      {self.inflow:12.4e} m³/s",
                f"flowed out     {self.outflow:12.4e}",
                f"consumed       {self.consumption:12.4e}",
                f"over boundary  {self.boundary:12.4e}",
                f"error          {self.error:12.1e}",
            ]
        )

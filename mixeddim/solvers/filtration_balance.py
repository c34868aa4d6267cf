"""Where the fluid goes that flows through leaky vessels."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FiltrationBalance"]


@dataclass(frozen=True)
class FiltrationBalance:
    """Volumes per time of fluid, in the units of the flow.

    Attributes:
        inflow: What enters the network at its ends.
        outflow: What leaves it there.
        filtered: What passes the walls into the tissue, where it does.
        reabsorbed: What passes them into the vessels.
        boundary_3d: What enters the tissue through its faces.
        drained: What the lymph takes.
        error_1d: What is missing in the network, relative to what it trades.
        error_3d: What is missing in the tissue, relative to what it trades.
    """

    inflow: float
    outflow: float
    filtered: float
    reabsorbed: float
    boundary_3d: float
    drained: float
    error_1d: float
    error_3d: float

    @property
    def net_filtration(self) -> float:
        """What the vessels lose to the tissue."""
        return self.filtered - self.reabsorbed

    @property
    def error(self) -> float:
        """The larger of the two relative errors."""
        return max(self.error_1d, self.error_3d)

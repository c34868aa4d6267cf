"""The regimes and grids of the benchmark, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from learning.problems.distributions import ProblemDistribution

__all__ = ["GRIDS", "REGIMES", "regime"]

GRIDS: Final = (20, 32, 40, 64, 128)
"""Cells along each side of the cube that the benchmark is meant for."""

THIN: Final = 0.25  # radius in cells

REGIMES: Final[Mapping[str, ProblemDistribution]] = MappingProxyType(
    {
        # The regime of the paper; from here on it with one thing changed.
        "paper": ProblemDistribution(),
        # Hardly any reaction: the smooth modes are worse conditioned.
        "weak": ProblemDistribution(sigma_3d=(0.01, 0.01)),
        # Networks that carry the inlet values everywhere.
        "conductive": ProblemDistribution(k_1d=(100.0, 100.0)),
        # Smooth random diffusion.
        "heterogeneous_1e2": ProblemDistribution(contrast=(1e2, 1e2)),
        "heterogeneous_1e4": ProblemDistribution(contrast=(1e4, 1e4)),
        # Fibres along an axis, which conduct so many times better than what is across.
        "anisotropic": ProblemDistribution(anisotropy=(100.0, 100.0)),
        # Exchange with the network over diffusion up to 3,000.
        "strong_1e-2": ProblemDistribution(k_3d=(1e-2, 1e-2)),
        "strong_1e-3": ProblemDistribution(k_3d=(1e-3, 1e-3)),
        "strong_1e-4": ProblemDistribution(k_3d=(1e-4, 1e-4)),
        # Network nodes.
        "dense_300": ProblemDistribution(num_nodes=(300, 300)),
        "dense_1000": ProblemDistribution(num_nodes=(1000, 1000)),
        # A radius of a quarter of a cell, on whichever grid: see `regime`.
        "thin": ProblemDistribution(radius=(THIN / 20, THIN / 20)),
    }
)
"""The distributions of the benchmark, by name, on 20 cells per side."""


def regime(name: str, num_cells: int) -> ProblemDistribution:
    """Return a regime on a grid.

    Args:
        name: One of `REGIMES`.
        num_cells: Cells along each side of the cube.

    Raises:
        ValueError: If there is no such regime, or not at least one cell.
    """
    if name not in REGIMES:
        raise ValueError(f"got regime {name!r}; wanted one of {', '.join(REGIMES)}. Choose one.")
    distribution = replace(REGIMES[name], num_cells=num_cells)
    if name != "thin":
        return distribution
    radius = THIN / max(num_cells, 1)
    return replace(distribution, radius=(radius, radius))

"""Features of a reduced system on which the speed of a method depends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learning.preconditioners.multigrid.transfer import coupling_along_axes
from mixeddim.tensors import ReducedSystem

__all__ = ["Features", "features_of", "mean_features"]

LEAST: Final = 1e-9


@dataclass(frozen=True)
class Features:
    """Positive numbers, whose ratios tell how far apart two systems are.

    Attributes:
        unknowns: Tissue dofs.
        points: Quadrature points on the network, the rank of the coupling.
        coupling: Exchange over diffusion: the ratio of their diagonals where there are points.
        reaction: Reaction over diffusion in the tissue, the same.
        conduction: Conduction along the network over exchange, the same.
        contrast: Largest over smallest diffusion in the tissue; 1 on a mesh without a grid, where
            it cannot be told from the mesh.
        anisotropy: Largest over smallest mean diffusion along the axes; 1 without a grid too.
    """

    unknowns: float
    points: float
    coupling: float
    reaction: float
    conduction: float
    contrast: float
    anisotropy: float

    @property
    def values(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


def features_of(system: ReducedSystem) -> Features:
    """Compute the features of a system from its matrices alone."""
    diffusion = system.K.diagonal()
    rates = system.weights * system.beta
    exchange = system.Pi.power(2).T @ rates
    touched = exchange > 0
    contrast = anisotropy = 1.0
    if system.grid is not None:
        along = coupling_along_axes(system.K, system.grid) * system.grid.cell_size**2
        anisotropy = _ratio(along)
        inside = system.grid.to_grid(diffusion)[1:-1, 1:-1, 1:-1]
        contrast = _ratio(inside.ravel())
    at_network = system.N.power(2).T @ rates
    along_network = system.A_11.diagonal() - at_network
    return Features(
        unknowns=float(len(diffusion)),
        points=float(len(rates)),
        coupling=_positive(exchange.sum() / diffusion[touched].sum()),
        reaction=_positive(system.M.diagonal().sum() / diffusion.sum()),
        conduction=_positive(along_network[at_network > 0].sum() / at_network.sum()),
        contrast=contrast,
        anisotropy=anisotropy,
    )


def mean_features(systems: Iterable[ReducedSystem]) -> Features:
    """Return the geometric means of the features of systems, at least one."""
    rows = [list(asdict(features_of(system)).values()) for system in systems]
    return Features(*(float(f"{value:.4g}") for value in np.exp(np.log(rows).mean(axis=0))))


def _positive(value: float) -> float:
    """Return a ratio, or the smallest that is told from zero."""
    return max(float(value), LEAST)


def _ratio(values: NDArray[np.float64]) -> float:
    """Return the largest over the smallest positive value, to rounding; 1 where there is none."""
    positive = values[values > 0]
    return round(float(positive.max() / positive.min()), 9) if len(positive) else 1.0

"""Distribution of the tissue field over the volume: mean, quantiles, hypoxic fraction."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import dolfinx
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from mixeddim.solvers.stationary import Solution

__all__ = ["TissueStatistics", "tissue_statistics"]


@dataclass(frozen=True)
class TissueStatistics:
    """How the tissue field is distributed over the volume; exact for linear elements.

    Of trilinear elements on hexahedra the mean is exact. Quantiles and the hypoxic fraction are
    those of the linear interpolant in six tetrahedra of each, which differs by the order of h².

    Attributes:
        volume: Volume of the tissue.
        mean: Integral of u_3d, divided by the volume.
        minimum: Least value.
        maximum: Largest value.
        quantiles: Part of the volume -> the value that u_3d is below in that part.
        hypoxic_fraction: Part of the volume where u_3d is below the threshold; None without one.
    """

    volume: float
    mean: float
    minimum: float
    maximum: float
    quantiles: dict[float, float]
    hypoxic_fraction: float | None

    def __str__(self) -> str:
        """Return a table, one quantity a line."""
        rows = {"volume": self.volume, "mean": self.mean, "minimum": self.minimum}
        rows |= {f"{part:.4g} quantile": value for part, value in self.quantiles.items()}
        rows["maximum"] = self.maximum
        if self.hypoxic_fraction is not None:
            rows["hypoxic part"] = self.hypoxic_fraction
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value:.4g}" for name, value in rows.items())


def tissue_statistics(
    solution: Solution,
    *,
    hypoxic_below: float | None = None,
    quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
) -> TissueStatistics:
    """Compute how the tissue field is distributed over the volume.

    Args:
        solution: A solution of the coupled problem.
        hypoxic_below: Threshold of the hypoxic fraction, in the unit of u_3d.
        quantiles: Which quantiles to take, each a part of the volume in [0, 1].

    Raises:
        ValueError: If a quantile is not in [0, 1], or the threshold is not a number.
    """
    outside = [q for q in quantiles if not 0 <= q <= 1]
    if outside:
        raise ValueError(f"got the quantile {outside[0]}; wanted parts of the volume in [0, 1].")
    if hypoxic_below is not None and not np.isfinite(hypoxic_below):
        raise ValueError(f"got hypoxic_below={hypoxic_below}; wanted a finite threshold.")
    processes = solution.system.processes
    volumes, values = _cells(solution.u_3d)
    volume = processes.sum(volumes.sum())
    mean = processes.sum(float(volumes @ values.mean(axis=1))) / volume
    volumes, values = _tetrahedra(volumes, values)
    low = processes.min(values.min(initial=np.inf))
    high = processes.max(values.max(initial=-np.inf))

    def part_below(threshold: float) -> float:
        return processes.sum(float(volumes @ _fraction_below(values, threshold))) / volume

    def quantile(part: float) -> float:
        if part_below(high) <= part:  # on a part as large as rounding, or nothing, it is largest
            return high
        return float(brentq(lambda u: part_below(u) - part, low, high, xtol=1e-14 * (high - low)))

    return TissueStatistics(
        volume=volume,
        mean=mean,
        minimum=low,
        maximum=high,
        quantiles={part: quantile(part) for part in quantiles},
        hypoxic_fraction=None if hypoxic_below is None else part_below(hypoxic_below),
    )


# The vertices of Kuhn's tetrahedra: the corners x + 2 y + 4 z of a hexahedron, along the six paths
# of three edges from the lowest to the highest.
_PATHS = np.array([[0, a, a + b, 7] for a, b, _ in permutations((1, 2, 4))])


def _cells(field: dolfinx.fem.Function) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the volumes (n,) of the cells and the values (n, 4 or 8) at their corners."""
    mesh, V = field.function_space.mesh, field.function_space
    num_cells = mesh.topology.index_map(3).size_local
    corners = mesh.geometry.x[mesh.geometry.dofmaps[0][:num_cells]]
    along, parts = ([1, 2, 3], 6) if corners.shape[1] == 4 else ([1, 2, 4], 1)
    volumes = abs(np.linalg.det(corners[:, along] - corners[:, :1])) / parts
    return volumes, field.x.array[V.dofmap.list[:num_cells]]


def _tetrahedra(
    volumes: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return those of tetrahedra, of which a hexahedron has six, with sorted values (m, 4)."""
    if values.shape[1] == 8:
        volumes, values = np.repeat(volumes / 6, 6), values[:, _PATHS].reshape(-1, 4)
    return volumes, np.sort(values, axis=1)


def _fraction_below(values: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Return in which part of each tetrahedron a linear function is below a threshold.

    The volumes are those of the linear tetrahedron method (Blöchl, Jepsen, Andersen 1994,
    doi:10.1103/PhysRevB.49.16223).

    Args:
        values: At the vertices, each row sorted, shape (n, 4).
        threshold: The threshold c.
    """
    fraction = (values[:, 3] < threshold).astype(np.float64)
    u, (a, b, c, d) = threshold, values.T
    first = (a < u) & (u <= b)
    second = (b < u) & (u <= c)
    third = (c < u) & (u <= d)
    a1, b1, c1, d1 = values[first].T
    fraction[first] = (u - a1) ** 3 / ((b1 - a1) * (c1 - a1) * (d1 - a1))
    a2, b2, c2, d2 = values[second].T
    cubic = (u - b2) ** 3 * ((c2 - a2) + (d2 - b2)) / ((c2 - b2) * (d2 - b2))
    quadratic = (b2 - a2) ** 2 + 3 * (b2 - a2) * (u - b2) + 3 * (u - b2) ** 2
    fraction[second] = (quadratic - cubic) / ((c2 - a2) * (d2 - a2))
    a3, b3, c3, d3 = values[third].T
    fraction[third] = 1 - (d3 - u) ** 3 / ((d3 - a3) * (d3 - b3) * (d3 - c3))
    return fraction

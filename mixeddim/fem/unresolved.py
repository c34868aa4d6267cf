"""Resistance of the tissue next to a vessel that is too thin for the mesh.

Near a vessel that gives off q per length, the tissue's field falls as -q / (2 pi k) ln r. Linear
elements do not follow it up to the wall: the mean over the circle of radius R comes out as that at
a larger radius r_e, and the discrete tissue exchanges too easily. The part in between resists by

    ln(r_e / R) / (2 pi k)

per length, and acts in series with the wall. For finite differences Peaceman (Soc. Pet. Eng. J. 18
(1978) 183, doi:10.2118/6893-PA) gave such a radius, of wells. Here test and trial function are both
averaged over the circle, and r_e / h depends on R / h. The table holds its mean over random places
of the vessel in the grid, from discrete against exact Green's functions of a periodic square.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixeddim.fem.grid import CellType
from mixeddim.fem.meshes import StructuredBox

__all__ = ["unresolved_resistance"]

RADIUS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
EFFECTIVE: Final[dict[CellType, tuple[float, ...]]] = {
    "tetrahedron": (0.485, 0.497, 0.532, 0.587, 0.658, 0.740, 0.919, 1.204, 1.694, 2.188, 3.182),
    "hexahedron": (0.386, 0.398, 0.433, 0.489, 0.565, 0.655, 0.851, 1.146, 1.642, 2.139, 3.136),
}
"""R / h, and r_e / h in each kind of cell: `python tests/benchmarks/unresolved_resistance.py`."""


def unresolved_resistance(
    box: StructuredBox, radius: ArrayLike, k_3d: float
) -> NDArray[np.float64]:
    """Return the resistance per length of the tissue between a vessel and what the grid resolves.

    In series with the resistance K of a wall of permeability kappa = 1 / (2 pi R K), it makes the
    exchange, and the tissue away from the vessel, nearly independent of the grid. Means over the
    vessel, T u_3d, are then those at the radius r_e.

    Args:
        box: The tissue; its h is the geometric mean of the edges of a cuboid.
        radius: Radius R of the vessels.
        k_3d: Conductivity of the tissue.

    Returns:
        ln(r_e / R) / (2 pi k_3d), of the shape of radius.

    Raises:
        ValueError: If k_3d or a radius is not positive.
    """
    R = np.asarray(radius, dtype=float)
    if not (0 < k_3d < np.inf and np.all(R > 0)):
        raise ValueError(
            f"got k_3d={k_3d!r} and radii from {R.min():.3g}; wanted a finite positive number and "
            "positive radii."
        )
    h = float(np.prod(box.cell_size) ** (1 / 3))
    table = EFFECTIVE[box.cell_type]
    effective = h * np.where(
        R / h > RADIUS[-1],
        R / h + (table[-1] - RADIUS[-1]),
        np.interp(R / h, RADIUS, table),
    )
    return np.asarray(np.log(effective / R) / (2 * np.pi * k_3d))

"""Apparent viscosity of blood in narrow vessels, relative to plasma.

Red cells gather in the middle of a vessel, so that blood flows more easily in narrow ones, down to
the width of a cell (Fåhræus, Lindqvist 1931). With D the diameter in µm and H the discharge
hematocrit, two empirical laws are in use:

    in vitro:  1 + (m - 1) h            m = 220 exp(-1.3 D) + 3.2 - 2.44 exp(-0.06 D^0.645)
    in vivo:   (1 + (m - 1) h w) w      m = 6 exp(-0.085 D) + 3.2 - 2.44 exp(-0.06 D^0.645)

    h = ((1 - H)^C - 1) / ((1 - 0.45)^C - 1)      w = (D / (D - 1.1))^2
    C = (0.8 + exp(-0.075 D)) (1 / (1 + 1e-11 D^12) - 1) + 1 / (1 + 1e-11 D^12)

In glass tubes: Pries, Neuhaus, Gaehtgens, Am. J. Physiol. 263 (1992) H1770. In living vessels,
whose lining narrows them: Pries, Secomb, Gessner, Sperandio, Gross, Gaehtgens, Circ. Res. 75
(1994) 904.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import exprel

__all__ = ["ViscosityLaw", "relative_viscosity"]

ViscosityLaw = Literal["in vivo", "in vitro"]

# Diameter [µm] at which the law in vivo has its pole.
POLE = 1.1


def relative_viscosity(
    diameter: ArrayLike, hematocrit: ArrayLike = 0.45, law: ViscosityLaw = "in vivo"
) -> NDArray[np.float64]:
    """Return the apparent viscosity of blood over that of plasma, which is about 1.2e-3 Pa s.

    Args:
        diameter: Inner diameter of the vessels [µm]; above 1.1 for the law in vivo, which has a
            pole there.
        hematocrit: Discharge hematocrit, the share of red cells in the blood that flows through;
            from 0, which is plasma, to below 1.
        law: "in vivo" (Pries et al. 1994) or "in vitro" (Pries et al. 1992).

    Returns:
        At least 1, of the shape that diameter and hematocrit broadcast to.

    Raises:
        ValueError: If an argument is out of range.
    """
    D, H = np.asarray(diameter, dtype=float), np.asarray(hematocrit, dtype=float)
    if law not in get_args(ViscosityLaw):
        raise ValueError(f"got law={law!r}; wanted one of {get_args(ViscosityLaw)}.")
    least = POLE if law == "in vivo" else 0.0
    if not np.all((least < D) & np.isfinite(D)):
        raise ValueError(
            f"got diameters from {np.min(D):.3g} to {np.max(D):.3g}; wanted finite ones above "
            f"{least} µm for the law {law}. Give them in µm: 2e6 times a radius in m."
        )
    if not np.all((H >= 0) & (H < 1)):
        raise ValueError(
            f"got hematocrits from {np.min(H):.3g} to {np.max(H):.3g}; wanted them from 0 to below "
            "1. Give shares, not per cent."
        )
    common = 3.2 - 2.44 * np.exp(-0.06 * D**0.645)
    if law == "in vitro":
        return np.asarray(1 + (220 * np.exp(-1.3 * D) + common - 1) * _share_of_cells(D, H))
    w = (D / (D - POLE)) ** 2
    return np.asarray((1 + (6 * np.exp(-0.085 * D) + common - 1) * _share_of_cells(D, H) * w) * w)


def _share_of_cells(D: NDArray[np.float64], H: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return h, how the effect of red cells grows with the hematocrit: 0 at 0, and 1 at 0.45."""
    narrow = 1 / (1 + 1e-11 * D**12)
    C = (0.8 + np.exp(-0.075 * D)) * (narrow - 1) + narrow
    at, at_045 = np.log1p(-H), np.log1p(-0.45)
    # (exp(C log(1 - H)) - 1) over the same at 0.45, also where C passes through zero.
    return np.asarray(at / at_045 * exprel(C * at) / exprel(C * at_045))

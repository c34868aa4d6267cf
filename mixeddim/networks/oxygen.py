"""Oxygen in blood: how much blood carries, and what resists its way to the vessel wall.

With the partial pressure p, the hematocrit H and red cells that bind at most C0, blood holds
the volume C of oxygen per volume (Hill 1910):

    C(p) = alpha p + H C0 S(p)        S(p) = p^n / (p^n + P50^n)

Where blood gives off q per length, p falls by K(D) q between the blood's mean and the wall. K is
measured or computed as a table over diameters (Hellums et al. 1996, Secomb et al. 2004,
doi:10.1114/B:ABME.0000049036.08817.44). Partial pressures are in mmHg, as in all tables of
physiology, or in Pa where `BloodOxygen.unit` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BloodOxygen", "IntravascularResistance"]

PressureUnit = Literal["mmHg", "Pa"]

MMHG: Final = 133.322387415  # Pa
MOST: Final[dict[PressureUnit, float]] = {"mmHg": 760.0, "Pa": 101_325.0}
"""Partial pressures above this one are in another unit."""
REMEDY: Final[dict[PressureUnit, str]] = {
    "mmHg": "Divide Pa by 133.322, or give all in Pa with BloodOxygen(...).in_pascal().",
    "Pa": "Multiply kPa by 1000.",
}


@dataclass(frozen=True)
class BloodOxygen:
    """What blood carries at each partial pressure; the defaults are those of rats.

    Attributes:
        p50: Partial pressure of half saturation [unit].
        hill: Hill's exponent, from 1.
        capacity: C0, the oxygen that red cells bind at most [m³/m³].
        solubility: alpha of blood [m³/m³/unit].
        unit: That of all partial pressures, "mmHg" or "Pa".
    """

    p50: float = 38.0
    hill: float = 3.0
    capacity: float = 0.5
    solubility: float = 3.1e-5
    unit: PressureUnit = "mmHg"

    def __post_init__(self) -> None:
        if self.unit not in get_args(PressureUnit):
            raise ValueError(
                f"got unit={self.unit!r}; wanted 'mmHg' or 'Pa'. Convert other pressures."
            )
        for name in ("p50", "hill", "capacity", "solubility"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 < float(value) < np.inf:
                raise ValueError(
                    f"got {name}={value!r}; wanted a finite positive number, such as the default, "
                    f"{type(self).__dataclass_fields__[name].default}."
                )
        if self.hill < 1:
            raise ValueError(f"got hill={self.hill!r}; wanted at least 1, such as 2.7.")
        if self.capacity > 1:
            raise ValueError(
                f"got capacity={self.capacity!r}; wanted m³ of oxygen per m³ of red cells, where "
                "it is near 0.5. Divide ml/dl by 100."
            )
        if self.unit == "mmHg" and self.p50 > MOST["mmHg"]:
            raise ValueError(
                f"got p50={self.p50!r}; wanted mmHg, where it is near 30. {REMEDY['mmHg']}"
            )
        if self.unit == "Pa" and self.p50 < MMHG:
            raise ValueError(
                f"got p50={self.p50!r}; wanted Pa, where it is near 4000. Multiply mmHg by "
                "133.322, and divide solubilities by it."
            )

    def in_pascal(self) -> BloodOxygen:
        """Return the same blood with pressures in Pa."""
        if self.unit == "Pa":
            return self
        return replace(self, p50=MMHG * self.p50, solubility=self.solubility / MMHG, unit="Pa")

    @property
    def range(self) -> str:
        """What partial pressures can be, as messages say it."""
        return f"{self.unit}, from 0 to {MOST[self.unit]:.0f}. {REMEDY[self.unit]}"

    def saturation(self, po2: ArrayLike) -> NDArray[np.float64]:
        """Return S, the saturation of red cells, from 0 to 1; 0 at negative pressures."""
        x = np.maximum(np.asarray(po2, dtype=float) / self.p50, 0.0) ** self.hill
        return np.asarray(x / (1 + x))

    def saturation_slope(self, po2: ArrayLike) -> NDArray[np.float64]:
        """Return dS/dp [1/unit]."""
        x = np.maximum(np.asarray(po2, dtype=float) / self.p50, 0.0)
        slope = x ** (self.hill - 1) / (1 + x**self.hill) ** 2
        return np.asarray(self.hill / self.p50 * slope)

    def content(self, po2: ArrayLike, hematocrit: ArrayLike) -> NDArray[np.float64]:
        """Return C, the volume of oxygen per volume of blood."""
        bound = np.asarray(hematocrit, dtype=float) * self.capacity * self.saturation(po2)
        return np.asarray(self.solubility * np.asarray(po2, dtype=float) + bound)


@dataclass(frozen=True, eq=False)
class IntravascularResistance:
    """K(D), interpolated linearly in a table, and constant beyond it.

    A wall that opposes nothing more has the permeability 1 / (2 pi R K) in `Coefficients`, so that
    the exchange per length is 2 pi R kappa (p - T p_3d) = (p - T p_3d) / K.

    Attributes:
        diameter: Diameters [m], rising, shape (num_rows,).
        resistance: K at each [mmHg s/m², or Pa s/m²], shape (num_rows,); all zero for none.
    """

    diameter: NDArray[np.float64]
    resistance: NDArray[np.float64]

    def __post_init__(self) -> None:
        D, K = (np.asarray(v, dtype=float) for v in (self.diameter, self.resistance))
        if D.ndim != 1 or D.shape != K.shape or len(D) == 0:
            raise ValueError(
                f"got diameters of shape {D.shape} and resistances of shape {K.shape}; wanted a "
                "table, with one resistance for each diameter."
            )
        positive = np.all(D > 0) and (np.all(K > 0) or np.all(K == 0))
        if not (np.all(np.diff(D) > 0) and positive):
            raise ValueError(
                "got a table whose diameters do not rise, or with values that are not positive; "
                "wanted positive ones by rising diameter, or no resistance at all. Sort the table."
            )
        if D[-1] > 0.1 or 0 < K.max() < 1e3:
            raise ValueError(
                f"got diameters up to {D[-1]:.3g} and resistances up to {K.max():.3g}; wanted m "
                "and mmHg s/m². Multiply µm by 1e-6, and resistances in mmHg s/µm² by 1e12."
            )
        object.__setattr__(self, "diameter", D)
        object.__setattr__(self, "resistance", K)

    def __call__(self, radius: ArrayLike) -> NDArray[np.float64]:
        """Return K of vessels of a radius [m]."""
        return np.asarray(np.interp(2 * np.asarray(radius), self.diameter, self.resistance))

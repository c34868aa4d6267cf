"""Blood's apparent viscosity: values evaluated by other means, limits, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from mixeddim import relative_viscosity

# Diameter [µm], hematocrit, in vitro, in vivo: the published formulas in decimal arithmetic of 40
# digits, without this package.
VALUES = [
    (5, 0.2, 1.209144940312117, 6.517247021045113),
    (5, 0.6, 1.628507201378342, 16.28941918548849),
    (10, 0.2, 1.098946026334874, 2.651410273657742),
    (10, 0.6, 1.610047797228922, 9.825942334847876),
    (30, 0.2, 1.241732951791262, 1.527846463005671),
    (30, 0.6, 2.395424015934220, 3.676813391430570),
]


@pytest.mark.parametrize(("diameter", "hematocrit", "in_vitro", "in_vivo"), VALUES)
def test_published_formulas(
    diameter: float, hematocrit: float, in_vitro: float, in_vivo: float
) -> None:
    assert relative_viscosity(diameter, hematocrit, "in vitro") == pytest.approx(
        in_vitro, rel=1e-12
    )
    assert relative_viscosity(diameter, hematocrit, "in vivo") == pytest.approx(in_vivo, rel=1e-12)


def test_fahraeus_lindqvist_effect() -> None:
    """In glass blood is thinnest at about 7 µm, some 25 % above plasma; living vessels resist more.

    As the figures of Pries et al. 1992 and 1994 show it at a hematocrit of 0.45.
    """
    in_glass = minimize_scalar(
        lambda D: float(relative_viscosity(D, 0.45, "in vitro")), bounds=(4, 30), method="bounded"
    )
    assert 6 < in_glass.x < 8
    assert in_glass.fun == pytest.approx(1.25, abs=0.01)
    in_life = minimize_scalar(
        lambda D: float(relative_viscosity(D, 0.45)), bounds=(10, 200), method="bounded"
    )
    assert 30 < in_life.x < 60
    narrow = np.linspace(4, 50, 47)
    assert np.all(relative_viscosity(narrow) > relative_viscosity(narrow, law="in vitro"))


@pytest.mark.parametrize("law", ["in vivo", "in vitro"])
def test_wide_tubes_hold_bulk_blood(law: str) -> None:
    assert relative_viscosity(1e6, 0.45, law) == pytest.approx(3.2, rel=1e-4)


@given(diameter=st.floats(2.0, 1000.0), low=st.floats(0.0, 0.9), high=st.floats(0.0, 0.9))
def test_more_cells_make_blood_thicker(diameter: float, low: float, high: float) -> None:
    low, high = sorted((low, high))
    for law in ("in vivo", "in vitro"):
        thin, thick = relative_viscosity(diameter, [low, high], law)
        assert 1 <= thin <= thick * (1 + 1e-12)


def test_plasma_alone() -> None:
    assert relative_viscosity(8.0, 0.0, "in vitro") == 1.0
    assert relative_viscosity(8.0, 0.0) == pytest.approx((8.0 / 6.9) ** 2)


def test_exponent_passes_through_zero_smoothly() -> None:
    def exponent(D: float) -> float:
        narrow = 1 / (1 + 1e-11 * D**12)
        return (0.8 + np.exp(-0.075 * D)) * (narrow - 1) + narrow

    root = brentq(exponent, 5, 15, xtol=1e-15)
    around = relative_viscosity(root + np.array([-1e-6, 0.0, 1e-6]), 0.3, "in vitro")
    assert np.all(np.isfinite(around))
    assert np.ptp(around) < 1e-6


def test_broadcasts() -> None:
    assert relative_viscosity([[4.0], [8.0]], [0.2, 0.3, 0.4]).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0,), "above 1.1 µm for the law in vivo. Give them in µm"),
        ((0.0, 0.45, "in vitro"), "got diameters from 0 to 0; wanted finite ones above 0.0 µm"),
        (([3.0, np.nan],), "wanted finite ones"),
        ((8.0, 45.0), "got hematocrits from 45 to 45.*not per cent"),
        ((8.0, -0.1), "wanted them from 0 to below 1"),
        ((8.0, 0.45, "in silico"), "got law='in silico'; wanted one of"),
    ],
)
def test_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relative_viscosity(*arguments)

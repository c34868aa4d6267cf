"""Hill's curve and its slope, the table of resistances, and what is refused."""

import numpy as np
import pytest

import mixeddim as md


def test_hills_curve():
    blood = md.BloodOxygen(p50=30.0, hill=2.5, capacity=0.5, solubility=3e-5)
    assert blood.saturation(30.0) == pytest.approx(0.5, rel=1e-14)
    p = np.array([0.0, 10.0, 60.0, 1e6])
    np.testing.assert_allclose(blood.saturation(p), p**2.5 / (p**2.5 + 30**2.5), rtol=1e-13)
    assert blood.content(60.0, 0.4) == pytest.approx(3e-5 * 60 + 0.2 * blood.saturation(60.0))
    assert blood.saturation(-5.0) == blood.saturation_slope(-5.0) == 0.0


def test_blood_in_pascal_carries_the_same():
    blood, p = md.BloodOxygen(), np.array([0.0, 20.0, 100.0])
    pascal = blood.in_pascal()
    assert pascal.p50 == pytest.approx(38 * 101_325 / 760, rel=1e-6)
    P = p * 101_325 / 760
    np.testing.assert_allclose(pascal.content(P, 0.4), blood.content(p, 0.4), rtol=1e-6)
    assert pascal.in_pascal() is pascal


def test_slope_is_the_derivative():
    blood, p, step = md.BloodOxygen(), np.linspace(1, 120, 30), 1e-4
    difference = (blood.saturation(p + step) - blood.saturation(p - step)) / (2 * step)
    np.testing.assert_allclose(blood.saturation_slope(p), difference, rtol=1e-6)


def test_resistance_is_interpolated():
    table = md.IntravascularResistance(np.array([4e-6, 8e-6]), np.array([2e12, 1e12]))
    np.testing.assert_allclose(table([1e-6, 3e-6, 9e-6]), [2e12, 1.5e12, 1e12])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p50": 0.0}, "p50=0.0; wanted a finite positive number"),
        ({"p50": 4000.0}, "p50=4000.0; wanted mmHg, where it is near 30. Divide Pa by 133.322"),
        ({"unit": "kPa"}, "unit='kPa'; wanted 'mmHg' or 'Pa'"),
        ({"unit": "Pa"}, "p50=38.0; wanted Pa, where it is near 4000. Multiply mmHg by 133.322"),
        ({"p50": "low"}, "p50='low'; wanted a finite positive number, such as the default, 38.0"),
        ({"capacity": 20.0}, "capacity=20.0; wanted m³ of oxygen per m³.*Divide ml/dl by 100"),
        ({"hill": 0.5}, "hill=0.5; wanted at least 1"),
        ({"solubility": np.nan}, "solubility=nan; wanted a finite positive number"),
    ],
)
def test_blood_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        md.BloodOxygen(**arguments)


@pytest.mark.parametrize(
    ("diameter", "resistance", "message"),
    [
        ([], [], "wanted a table, with one resistance for each diameter"),
        ([4e-6], [1.0, 2.0], "wanted a table, with one resistance for each diameter"),
        ([8e-6, 4e-6], [1.0, 2.0], "diameters do not rise"),
        ([4e-6, 8e-6], [1.0, 0.0], "values that are not positive"),
        ([4.0, 8.0], [2e12, 1e12], "diameters up to 8 .*; wanted m and .* Multiply µm by 1e-6"),
        ([4e-6, 8e-6], [2.4, 1.4], "resistances up to 2.4; wanted m .* mmHg s/µm² by 1e12"),
    ],
)
def test_table_refuses(diameter, resistance, message):
    with pytest.raises(ValueError, match=message):
        md.IntravascularResistance(diameter, resistance)

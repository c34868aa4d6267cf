"""The bound on the error: how it is formed, and what it makes of what is no number."""

import numpy as np
import pytest

import mixeddim as md
from mixeddim.accuracy import (
    ErrorBound,
    bound_error,
    relative_change,
    relative_residual,
    uncertainty,
)


@pytest.fixture(scope="module")
def solved(system):
    solution = md.solve(system)
    return md.reduce(system), (solution.u_3d.x.array, solution.u_1d.x.array)


def test_a_perturbation_of_all_entries_stays_within_the_bound(solved):
    blocks, x = solved
    b = blocks.b_3, blocks.b_1
    A = np.block([[M.toarray() for M in row] for row in (
        (blocks.A_33, blocks.A_31), (blocks.A_13, blocks.A_11)
    )])  # fmt: skip
    rng, n = np.random.default_rng(0), len(b[0])
    error = np.linalg.solve(A, np.concatenate(uncertainty(blocks, b, x)))
    bound = bound_error(x, (error[:n], error[n:]))
    exact = np.concatenate(x)
    for _ in range(20):
        size = 2.0**-52 * 1e6  # a million times larger, to stand out of the rounding of this test
        other = A * (1 + size * rng.choice([-1, 1], A.shape))
        right = np.concatenate(b) * (1 + size * rng.choice([-1, 1], len(A)))
        change = np.linalg.solve(other, right) - exact
        assert relative_change(change[:n], x[0]) < 1e6 * bound.tissue
        assert relative_change(change[n:], x[1]) < 1e6 * bound.network


def test_each_side_is_judged_by_itself(solved):
    blocks, (x_3, x_1) = solved
    b = blocks.b_3, blocks.b_1
    assert relative_residual(blocks, b, (x_3, x_1)) < 1e-12
    assert relative_residual(blocks, b, (1.01 * x_3, x_1)) > 1e-3
    assert relative_residual(blocks, b, (x_3, 1.01 * x_1)) > 1e-3


def test_uncertainty_is_residual_and_rounding(solved):
    blocks, (x_3, x_1) = solved
    x = 1.01 * x_3, x_1  # off, so that the residual stands out of rounding
    b = blocks.b_3, blocks.b_1
    both, rounding = (uncertainty(blocks, b, x, with_residual=r) for r in (True, False))
    residual = blocks.b_3 - blocks.A_33 @ x[0] - blocks.A_31 @ x[1]
    np.testing.assert_allclose(both[0] - rounding[0], abs(residual), rtol=1e-12, atol=1e-14)
    assert np.all(rounding[1] > 0)


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_units_cancel(unit):
    change, field = unit * np.array([1.0, 0.0]), unit * np.array([3.0, 4.0])
    assert relative_change(change, field) == pytest.approx(0.25)


def test_nothing_of_nothing_is_nothing():
    assert relative_change(np.zeros(2), np.zeros(2)) == 0.0
    assert relative_change(np.ones(2), np.zeros(2)) == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_not_accurate(value):
    good, broken = np.ones(2), np.array([1.0, value])
    with np.errstate(invalid="ignore"):
        for x, error in ((broken, good), (good, broken), (broken, broken)):
            assert bound_error((x, good), (error, good)).largest == np.inf
            assert bound_error((good, x), (good, error)).largest == np.inf


def test_a_bound_prints_both_sides():
    assert str(ErrorBound(1e-3, 2e-9)) == "1e-03 of u_3d and 2e-09 of u_1d"

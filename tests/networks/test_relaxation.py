"""Fixed points by relaxation: past a fold, where iteration and Newton's method fail."""

import numpy as np
import pytest

from mixeddim.networks.relaxation import State, relax


def states(F, derivative):
    def evaluate(x):
        return State(F(x) - x, np.ones_like(x), lambda v: derivative(x) * v)

    return evaluate


def test_finds_a_fixed_point_that_repels_the_iteration():
    evaluate = states(lambda x: 1 - 3 * x, lambda x: np.full_like(x, -3.0))
    x, _, changes = relax(evaluate, np.array([0.9, 0.1]), (0.0, 1.0), 1e-12, 30)
    np.testing.assert_allclose(x, 0.25, rtol=1e-11)
    assert changes[-1] <= 1e-12


def test_passes_by_a_fold():
    """F(x) - x = 1e-4 + (x - 1/2)² (0.9 - x): a minimum of it at 1/2, its only root above 0.9."""
    evaluate = states(
        lambda x: x + 1e-4 + (x - 0.5) ** 2 * (0.9 - x),
        lambda x: 1 + 2 * (x - 0.5) * (0.9 - x) - (x - 0.5) ** 2,
    )
    x, _, changes = relax(evaluate, np.array([0.1]), (0.0, 1.0), 1e-10, 200)
    assert changes[-1] <= 1e-10
    assert 0.9 < x[0] < 0.901


def test_reports_the_smallest_change_where_there_is_no_fixed_point():
    evaluate = states(lambda x: np.where(x < 0.5, 0.9, 0.1), np.zeros_like)
    x, state, changes = relax(evaluate, np.array([0.3]), (0.0, 1.0), 1e-8, 50)
    assert len(changes) == 50
    assert abs(state.change[0]) == min(changes) > 0.3
    assert evaluate(x).change == pytest.approx(state.change)


def test_a_number_that_is_none_ends_no_iteration():
    evaluate = states(lambda x: np.where(x < 0.3, x + 0.2, np.nan), np.zeros_like)
    x, state, changes = relax(evaluate, np.array([0.2]), (0.0, 1.0), 1e-8, 20)
    assert len(changes) == 20
    assert np.isnan(changes[-1])
    assert np.isfinite(x).all()
    assert np.isfinite(state.change).all()

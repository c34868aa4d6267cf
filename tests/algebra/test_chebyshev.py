"""Polynomials near an inverse: definite and never above it, whatever the condition."""

import numpy as np
import pytest
import torch

from mixeddim.algebra.chebyshev import (
    LEFT,
    MOST_DEGREE,
    fourth_kind_steps,
    iteration,
    nearly_inverse,
)


@pytest.mark.parametrize("condition", [1.0, 1.2, 1.5, 4.0, 50.0, 1e3, 1e5, 1e8])
def test_never_above_the_inverse_and_near_it(condition):
    eigenvalues = np.concatenate([[1.0 / condition], np.geomspace(1.0 / condition, 1.0, 400)])
    applied = nearly_inverse(lambda r: r, lambda v: eigenvalues * v, condition)(eigenvalues)
    assert applied.min() > 0
    assert applied.max() <= 1 + 1e-9
    if condition <= 1e3:  # the degree suffices
        assert applied.min() >= (1 - LEFT) / (1 + LEFT) - 1e-9


def test_the_degree_is_of_the_order_of_the_root_of_the_condition():
    counts = []
    for condition in (10.0, 1e3, 1e5, 1e7):
        calls = []
        M = nearly_inverse(lambda r: r, lambda v, calls=calls: calls.append(v) or v, condition)
        M(np.ones(1))
        counts.append(len(calls) + 1)
    assert counts[1] / counts[0] < 15
    assert counts[2:] == [MOST_DEGREE, MOST_DEGREE]


def test_tensors_and_arrays_give_the_same():
    scale = np.linspace(0.1, 1.0, 7)
    found = nearly_inverse(lambda r: r, lambda v: scale * v, 10.0)(np.ones(7))
    tensor = nearly_inverse(lambda r: r, lambda v: torch.tensor(scale) * v, 10.0)(
        torch.ones(7, dtype=torch.float64)
    )
    np.testing.assert_allclose(tensor.numpy(), found, rtol=1e-14)


@pytest.mark.parametrize("high", [1.0, 1.6])
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_the_fourth_kind_leaves_least_of_an_error_weighed_by_the_root(degree, high):
    """The largest of sqrt(t) e(t), e what is left, is 1 / (2 degree + 1), reached degree times."""
    eigenvalues = high * np.sin(np.linspace(0, np.pi / 2, 2001)[1:]) ** 2
    applied = iteration(lambda r: r, lambda v: eigenvalues * v, *fourth_kind_steps(degree, high))(
        np.ones(2000)
    )
    assert applied.min() > 0
    left = 1 - eigenvalues * applied
    assert np.abs(left).max() < 1
    weighed = np.sqrt(eigenvalues / high) * left * (2 * degree + 1)
    assert np.abs(weighed).max() == pytest.approx(1, abs=1e-4)
    peaks = np.abs(weighed) > 1 - 1e-4
    assert np.sum(peaks[1:] & ~peaks[:-1]) + peaks[0] == degree + 1

"""The trained numbers of the learned multigrid: bounds, free of units, best for Laplacians."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import learning
from learning.preconditioners.multigrid.learned import DEGREES, LEAST


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_bounds_lie_between_zero_and_one_whatever_the_numbers(network, scale):
    model = network(scale)
    for depth, num_coarsened in product(range(4), (1, 2, 3)):
        assert LEAST <= model(depth, num_coarsened) <= 1 - LEAST


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_a_change_of_units_changes_corrections_by_its_factor(
    problem, network, setup, factor, dtype
):
    system = problem(contrast=100.0)
    scaled = replace(
        system, K=factor * system.K, M=factor * system.M, beta=factor * system.beta,
        A_11=factor * system.A_11,
    )  # fmt: skip
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        wanted, found = (setup(network(0.3, 0, dtype), [s])(r) for s in (system, scaled))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert (factor * found - wanted).norm() <= tolerance * wanted.norm()


# --- Fourier analysis -------------------------------------------------------------------------

ANGLES = (np.arange(10) + 0.5) * np.pi / 20
LOW = np.stack(np.meshgrid(ANGLES, ANGLES, ANGLES), axis=-1).reshape(-1, 1, 3)
X, Y, Z = np.moveaxis(np.cos(LOW + np.pi * np.array([*product((0, 1), repeat=3)])), -1, 0)
LAPLACIAN = (3 - X - Y - Z) / 6
INTERPOLATION = (1 + X) * (1 + Y) * (1 + Z) / 8


def condition_number(smoother):
    """Return that of M A for the Laplacian, M of two grids, by Fourier analysis (8 modes at once).

    A has the 7-point stencil, of row sums 1 in absolute value (Trottenberg, Oosterlee & Schüller
    2001, Multigrid, chapter 4).
    """
    A, P = LAPLACIAN, INTERPOLATION
    left = 1 - smoother * A
    coarse = P[:, :, None] * (P * A)[:, None] / (P**2 * A).sum(axis=1)[:, None, None]
    error = left[:, :, None] * (np.eye(8) - coarse) * left[:, None]
    eigenvalues = 1 - np.linalg.eigvalsh(np.sqrt(A)[:, :, None] * error / np.sqrt(A)[:, None])
    return eigenvalues.max() / eigenvalues.min()


def chebyshev(low):
    roots = (1 + low) / 2 - (1 - low) / 2 * np.cos(
        np.pi * (np.arange(DEGREES[0]) + 0.5) / DEGREES[0]
    )
    return (1 - np.prod([1 - LAPLACIAN / root for root in roots], axis=0)) / LAPLACIAN


def test_the_trained_bound_is_that_of_fourier_analysis():
    """And no polynomial of its degree does much better: 1.072 is the least found for any three."""
    trained = learning.load_pretrained("multigrid").model(0, 3).item()
    of_trained = condition_number(chebyshev(trained))
    best = min(condition_number(chebyshev(low)) for low in np.linspace(0.1, 0.3, 41))
    assert of_trained <= best + 0.006
    assert best <= 1.0724 + 0.01
    assert condition_number(chebyshev(0.25)) > of_trained
    assert condition_number(7.454 - 15.923 * LAPLACIAN + 9.734 * LAPLACIAN**2) >= 1.072

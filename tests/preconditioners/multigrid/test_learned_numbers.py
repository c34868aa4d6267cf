"""The trained numbers of the learned multigrid: bounds, free of units."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from learning.preconditioners.multigrid.learned import LEAST


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

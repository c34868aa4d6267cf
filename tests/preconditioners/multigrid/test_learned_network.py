"""The network of the learned multigrid: blind to axes and units, local, best for the Laplacian."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.preconditioners.multigrid.learned import AT_NODE, RELAXATION, TOWARDS
from learning.preconditioners.multigrid.stencils import CENTRE, OFFSETS, whole
from learning.problems.stiffness import stiffness
from learning.systems.stencils import StencilMatrix, stencils_of


def exponents(low, high):
    return st.floats(low, high).map(lambda x: 10.0**x)


@pytest.fixture(scope="module")
def fields(problem):
    def make(num_cells=(5, 4, 6), **options):
        """Return what the network sees of a system: stencils, and the diagonal of Pi' Pi."""
        system = problem(num_cells, **{"contrast": 1e3, "anisotropy": 5.0, **options})
        stencils = whole(stencils_of([system.K + system.M], [system.grid]).stencils)
        squares = system.Pi.multiply(system.Pi).T @ (system.weights * system.beta)
        coupling = torch.tensor(system.grid.to_grid(squares))[None]
        return stencils, coupling

    return make


def permuted(stencils, axes):
    on_axes = stencils.unflatten(1, (3, 3, 3))
    return on_axes.permute(0, *(1 + a for a in axes), *(4 + a for a in axes)).flatten(1, 3)


def reflected(stencils, axes):
    on_axes = stencils.unflatten(1, (3, 3, 3))
    return on_axes.flip([1 + a for a in axes] + [4 + a for a in axes]).flatten(1, 3)


@pytest.mark.parametrize("scale", [0.0, 0.5])
@pytest.mark.parametrize("axes", [*permutations(range(3))][1:], ids=str)
def test_the_network_does_not_care_which_axis_is_which(network, fields, axes, scale):
    model, (stencils, coupling) = network(scale), fields(direction=(1.0, -2.0, 0.5))
    is_coarsened = (True, False, True)
    with torch.no_grad():
        wanted = permuted(model(stencils, coupling, is_coarsened), axes)
        found = model(
            permuted(stencils, axes),
            coupling.permute(0, *(1 + a for a in axes)),
            tuple(is_coarsened[a] for a in axes),
        )
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.5])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)], ids=str)
def test_the_network_does_not_care_where_axes_point_to(network, fields, axes, scale):
    model, (stencils, coupling) = network(scale), fields(direction=(1.0, -2.0, 0.5))
    is_coarsened = (True, True, False)
    with torch.no_grad():
        wanted = reflected(model(stencils, coupling, is_coarsened), axes)
        flipped = coupling.flip([1 + a for a in axes])
        found = model(reflected(stencils, axes), flipped, is_coarsened)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(factor=exponents(-12, 12), weights=st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 9)))
def test_the_network_does_not_care_about_units(network, fields, factor, weights):
    model, (stencils, coupling) = network(*weights), fields()
    with torch.no_grad():
        found = model(factor * stencils, factor * coupling, (True, True, True))
        wanted = model(stencils, coupling, (True, True, True))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-12)


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


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_the_network_sees_and_ties_neighbours_alone(network, dense_stencils, fields, scale):
    """A change of the coefficients in a cell changes F no farther away than three nodes."""
    model, (stencils, coupling) = network(scale), fields((9, 3, 3))
    changed = stencils.clone()
    changed[:, CENTRE, 0] *= 2.0
    with torch.no_grad():
        before, after = (model(s, coupling, (True, True, True)) for s in (stencils, changed))
    is_changed = (before != after).any(dim=1).flatten(2).any(dim=2)[0]
    assert is_changed[0]
    assert not is_changed[3:].any()
    inside = dense_stencils(before[0].numpy())
    wanted = StencilMatrix(before[:, CENTRE:]).to_scipy().toarray()
    np.testing.assert_array_equal(inside, wanted)
    np.testing.assert_array_equal(inside, inside.T)


def test_before_training_the_network_is_the_smoother_of_the_laplacian(problem, network):
    n = 6
    grid = problem((n, n, n)).grid
    K = stiffness(grid, np.ones((n, n, n)), np.eye(3))
    with torch.no_grad():
        zeros = torch.zeros(1, n + 1, n + 1, n + 1, dtype=torch.float64)
        F = network()(whole(stencils_of([K], [grid]).stencils), zeros, (True, True, True))
    wanted = {0: 1.2256, 1: 3.37 / 12, 2: 6.6 / 12**2, 3: 25 / 12**3}
    for o, offset in enumerate(OFFSETS):
        centre = F[0, o, 3, 3, 3].item()
        assert centre == pytest.approx(wanted[sum(map(abs, offset))], rel=1e-12), offset


# --- Fourier analysis -------------------------------------------------------------------------


def condition_number(F):
    """Return that of M A for the Laplacian, M of two grids, by Fourier analysis (8 modes at once).

    F holds its entries at a node and towards neighbours along one, two and three axes; A has the
    7-point stencil, of row sums 1 in absolute value, and the interpolation is trilinear.
    """
    angles = (np.arange(10) + 0.5) * np.pi / 20
    low = np.stack(np.meshgrid(angles, angles, angles), axis=-1).reshape(-1, 1, 3)
    x, y, z = np.moveaxis(np.cos(low + np.pi * np.array(list(product((0, 1), repeat=3)))), -1, 0)
    A = (6 - 2 * (x + y + z)) / 12
    P = (1 + x) * (1 + y) * (1 + z) / 8
    symbol = (
        F[0] + 2 * F[1] * (x + y + z) + 4 * F[2] * (x * y + y * z + z * x) + 8 * F[3] * x * y * z
    )
    smooth = 1 - (RELAXATION + RELAXATION**2 * symbol**2) * A
    coarse = np.eye(8) - P[:, :, None] * (P * A)[:, None] / (P**2 * A).sum(axis=1)[:, None, None]
    error = smooth[:, :, None] * coarse * smooth[:, None]
    in_energy = np.sqrt(A)[:, :, None] * error / np.sqrt(A)[:, None]
    eigenvalues = 1 - np.linalg.eigvalsh(in_energy)
    return eigenvalues.max() / eigenvalues.min()


def test_f_before_training_is_the_best_for_the_laplacian_by_fourier_analysis():
    entries = np.array([AT_NODE, *np.array(TOWARDS) / 12.0 ** np.arange(1, 4)])
    best = condition_number(entries)
    assert best < 1.05
    for change in np.vstack([np.eye(4), -np.eye(4)]):
        assert condition_number(entries * (1 + 0.1 * change)) > best - 2e-3
    jacobi = condition_number(np.zeros(4))
    assert jacobi > 2

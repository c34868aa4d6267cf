"""The learned cycle: definite whatever its weights, equal to its dense definition."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import learning
import mixeddim as md
from learning.preconditioners.multigrid.geometric import create_hierarchy
from learning.preconditioners.multigrid.learned import (
    LARGEST,
    RELAXATION,
    LearnedMultigrid,
)
from learning.preconditioners.multigrid.stencils import whole
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    coupling_along_axes,
    interpolation,
)
from learning.problems.stiffness import stiffness
from learning.systems.stencils import stencils_of

KINDS = ["spanning_tree", "murray_tree", "capillary_mesh"]


def dense(system):
    """Return S, exactly symmetric."""
    S = system.S @ np.eye(len(system.b_3))
    return (S + S.T) / 2


@torch.no_grad()
def matrix_of(M, n):
    return torch.stack([M(e[None])[0] for e in torch.eye(n, dtype=torch.float64)], dim=1).numpy()


def eigenvalues(M, S):
    """Return those of M S, where M is symmetric positive definite; the Cholesky factor tells."""
    L = np.linalg.cholesky((M + M.T) / 2)
    return np.linalg.eigvalsh(L.T @ S @ L)


def exponents(low, high):
    return st.floats(low, high).map(lambda x: 10.0**x)


coefficients = st.fixed_dictionaries(
    {
        "num_cells": st.sampled_from([(4, 5, 4), (3, 6, 5), (2, 2, 12), (7, 4, 1)]),
        "kind": st.sampled_from(KINDS),
        "seed": st.integers(0, 1),
        "k": exponents(-6, 1),
        "sigma": exponents(-6, 2),
        "k_1d": exponents(-2, 4),
        "permeability": exponents(-2, 3),
        "contrast": exponents(0, 6),
        "anisotropy": exponents(0, 4),
        "direction": st.sampled_from([(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, -2.0, 0.5)]),
    }
)
weights = st.tuples(st.sampled_from([0.0, 0.3, 1.0, 10.0, 100.0]), st.integers(0, 2**31))


# --- What conjugate gradients need ------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(options=coefficients, weights=weights, probe=st.integers(0, 2**32 - 1))
def test_the_cycle_is_linear_symmetric_and_positive(
    problem, network, setup, options, weights, probe
):
    preconditioner = LearnedMultigrid(network(*weights))
    assert preconditioner.is_linear
    assert preconditioner.is_symmetric
    system = problem(**options)
    with torch.no_grad():
        M = setup(preconditioner.model, [system])
        rng = np.random.default_rng(probe)
        u, v = (torch.tensor(rng.standard_normal((1, len(system.g)))) for _ in range(2))
        Mu, Mv = M(u), M(v)
        energy = ((u * Mu).sum() * (v * Mv).sum()).sqrt()
        assert (u * Mu).sum() > 0
        assert (v * Mv).sum() > 0
        assert (v * Mu).sum() == pytest.approx((u * Mv).sum().item(), abs=1e-9 * energy.item())
        combined = M(2.0 * u - 3.0 * v)
        error = combined - 2.0 * Mu + 3.0 * Mv
        assert error.norm() <= 1e-9 * (Mu.norm() + Mv.norm())
        assert torch.all(M(torch.zeros_like(u)) == 0)


@settings(max_examples=12, deadline=None)
@given(options=coefficients, weights=weights)
def test_the_cycle_converges_whatever_its_weights_and_the_coefficients(
    problem, network, setup, options, weights
):
    """The eigenvalues of M S lie in (0, 1], for those of X S stay below 2."""
    system = problem(**options)
    S = dense(system)
    values = eigenvalues(matrix_of(setup(network(*weights), [system]), len(S)), S)
    assert values[0] > 0
    assert values[-1] <= 1 + 1e-6


def raise_on_one_cell(model, amplitude):
    """Let F be raised by factors up to exp(2) at the corners of a cell that conducts.

    There the weakest strength, 1/12 elsewhere inside, is nearly an eighth.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.hidden[0].weight[0, 2], model.hidden[0].bias[0] = 8.0, -8.0 * 0.51
        model.hidden[1].weight[0, 0] = 1.0
        model.output.weight[:4, 0] = amplitude
    return model


@pytest.mark.parametrize("amplitude", [0.7, 1.0, 1.4])
def test_the_cycle_converges_where_weights_pick_out_few_nodes(problem, network, setup, amplitude):
    """A single eigenvalue of X S that stands out is the hardest to notice."""
    k = np.ones((12, 12, 12))
    k[6, 6, 6] = 1e3
    system = problem((12, 12, 12))
    system = replace(system, K=stiffness(system.grid, k, np.eye(3)))
    batch = learning.batch_systems([system])
    M = setup(raise_on_one_cell(network(), amplitude), [system])
    error = torch.tensor(np.random.default_rng(0).standard_normal(batch.g.shape))
    energy = (error * batch.apply(error)).sum()
    with torch.no_grad():
        for _ in range(25):
            error = error - M(batch.apply(error))
            before, energy = energy, (error * batch.apply(error)).sum()
            assert energy <= before


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
def test_single_precision_is_symmetric_and_close(problem, network, setup, scale, seed):
    system = problem((6, 5, 4), KINDS[seed], k=0.01**seed, contrast=100.0)
    exact = setup(network(scale, seed), [system])
    M = setup(network(scale, seed, torch.float32), [system])
    generator = torch.Generator().manual_seed(seed)
    for size in (1.0, 1e-60):
        u, v = torch.randn(2, 1, len(system.g), generator=generator, dtype=torch.float64)
        with torch.no_grad():
            Mu, Mv, wanted = M(size * u), M(v), exact(size * u)
        assert Mu.dtype == torch.float64
        assert (Mu - wanted).norm() <= 1e-4 * wanted.norm()
        energy = ((size * u * Mu).sum() * (v * Mv).sum()).sqrt()
        assert ((v * Mu).sum() - (size * u * Mv).sum()).abs() <= 1e-5 * energy


# --- The definition ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense_smoother(dense_stencils):
    def make(model, A_0, Pi, shape, is_coarsened):
        """Return X by its definition, before it is scaled."""
        grid = md.Grid(shape, np.zeros(3), np.ones(3), np.arange(len(A_0)))
        stencils = whole(stencils_of([sparse.csr_array(A_0)], [grid]).stencils)
        coupling = torch.tensor(np.diag(Pi.T @ Pi).reshape(1, *shape).copy())
        with torch.no_grad():
            F = dense_stencils(model(stencils, coupling, is_coarsened)[0].numpy())
        np.testing.assert_allclose(F, F.T, atol=1e-14)
        D = np.abs(A_0).sum(axis=1)
        S_0 = np.linalg.inv(np.diag(D) / RELAXATION + Pi.T @ Pi)
        root = np.diag(np.sqrt(D))
        return S_0 + S_0 @ root @ F @ F @ root @ S_0

    return make


@pytest.mark.parametrize("scale", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("options", [
    {}, {"k": 1e-4, "kind": "murray_tree"}, {"contrast": 100.0, "kind": "capillary_mesh"},
    {"anisotropy": 10.0, "direction": (0.0, 1.0, 0.0)},
], ids=str)  # fmt: skip
def test_the_cycle_equals_its_dense_definition(
    small_grids, problem, network, setup, dense_smoother, options, scale
):
    """X = S_0 + S_0 D^(1/2) F² D^(1/2) S_0, scaled where X S has an eigenvalue near 2."""
    model, system = network(scale), problem((5, 6, 5), **options)
    axes, coupling = axes_of(system.grid), coupling_along_axes(system.K, system.grid)[None]
    order = np.argsort(system.grid.node_of_dof)
    A_0 = (system.K + system.M).toarray()[np.ix_(order, order)]
    S = dense(system)[np.ix_(order, order)]
    Pi = (np.sqrt(system.weights * system.beta)[:, None] * system.Pi.toarray())[:, order]
    with small_grids():
        hierarchy = create_hierarchy([system], learning.batch_systems([system]), torch.float64)
    parts = []
    for level in hierarchy.levels:
        fine, axes = axes, coarsened(axes, coupling)
        shape = tuple(len(x) for x in fine)
        is_coarsened = tuple(len(a) < len(b) for a, b in zip(axes, fine, strict=True))
        X = dense_smoother(model, A_0, Pi, shape, is_coarsened)
        scaled = matrix_of(LearnedMultigrid(model)._smoother(level), len(S))
        factor = np.trace(scaled) / np.trace(X)
        np.testing.assert_allclose(scaled, factor * X, rtol=0, atol=1e-12 * X.max())
        largest = eigenvalues(X, S)[-1]
        assert factor <= 1 + 1e-12
        assert factor * largest < 2
        assert factor == pytest.approx(1) or largest > LARGEST
        P = interpolation(axes, fine).toarray()
        parts.append((S, P, scaled))
        A_0, S, Pi = P.T @ A_0 @ P, P.T @ S @ P, Pi @ P
    assert len(parts) >= 2
    M = np.linalg.inv(S)
    for S, P, X in reversed(parts):
        one = np.eye(len(S))
        error = (one - X @ S) @ (one - P @ M @ P.T @ S) @ (one - X @ S)
        M = (one - error) @ np.linalg.inv(S)
    found = matrix_of(setup(model, [system]), len(M))[np.ix_(order, order)]
    np.testing.assert_allclose(found, M, rtol=0, atol=1e-9 * np.abs(M).max())


# --- Gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_reach_every_parameter(problem, network, setup, dtype):
    systems = [problem(contrast=100.0), problem(k=1e-4, seed=1)]
    for model, trained in ((network(0.3, 0, dtype), True), (network(dtype=dtype), False)):
        M = setup(model, systems)
        r = torch.randn(2, len(systems[0].g), generator=torch.Generator().manual_seed(0)).double()
        (r * M(r)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.all(torch.isfinite(parameter.grad)), name
            # Before training the last layer is zero, and hides the others.
            assert parameter.grad.any() == (trained or name.startswith("output")), name


def test_the_derivative_in_a_weight_is_that_of_finite_differences(problem, network, setup):
    system, model = problem((4, 3, 3), contrast=10.0), network(0.05)
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    parameter = model.output.bias

    def energy():
        return (r * setup(model, [system])(r)).sum()

    energy().backward()
    for i, step in product(range(len(parameter)), [1e-5]):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[i] += sign * step
                values.append(energy().item())
                parameter[i] -= sign * step
        difference = (values[0] - values[1]) / (2 * step)
        assert parameter.grad[i].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_the_cycle_is_differentiable_in_the_residual(problem, network, setup):
    system = problem((3, 3, 3))
    M = setup(network(0.3), [system])
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    r.requires_grad_()
    w = torch.randn_like(r)
    [gradient] = torch.autograd.grad(M(r), r, w)
    with torch.no_grad():
        torch.testing.assert_close(gradient, M(w))

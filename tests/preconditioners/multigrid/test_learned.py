"""The learned cycle: definite whatever its weights, equal to its dense definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import learning
from learning import kernels
from learning.preconditioners.multigrid import transfer
from learning.preconditioners.multigrid.geometric import create_hierarchy
from learning.preconditioners.multigrid.learned import (
    DEGREES,
    LearnedMultigrid,
)
from learning.preconditioners.multigrid.smoothers import LUMPED, RELAXATION
from learning.preconditioners.multigrid.stencils import thinned
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened_by_four,
    coupling_along_axes,
    interpolation,
)

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


def dense_smoother(dense_base, model, A_0, Pi, S, depth, num_coarsened):
    """Return X by its definition, a polynomial of S_0 S by its eigenvalues, times S^-1."""
    D, coupling = np.abs(A_0).sum(axis=1) / RELAXATION, Pi.T @ Pi
    row_sums = np.abs(coupling).sum(axis=1)
    if (row_sums / D).max() <= LUMPED:
        S, S_0 = A_0 + np.diag(row_sums), np.diag(1.0 / (D + row_sums))
    else:
        S_0 = dense_base(D, coupling, len(Pi))
    eigenvalues, V = np.linalg.eig(S_0 @ S)
    low, high = RELAXATION * model(depth, num_coarsened).item(), RELAXATION
    T = np.polynomial.Chebyshev.basis(DEGREES[min(depth, 1)])
    left = T((high + low - 2 * eigenvalues.real) / (high - low)) / T((high + low) / (high - low))
    return (np.eye(len(S)) - (V * left) @ np.linalg.inv(V)).real @ np.linalg.inv(S)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("options", [
    {}, {"k": 1e-4, "kind": "murray_tree"}, {"contrast": 100.0, "kind": "capillary_mesh"},
    {"anisotropy": 10.0, "direction": (0.0, 1.0, 0.0)},
], ids=str)  # fmt: skip
def test_the_cycle_equals_its_dense_definition(
    small_grids, problem, network, setup, dense_base, options, scale
):
    model, system = network(scale), problem((5, 6, 5), **options)
    axes, coupling = axes_of(system.grid), coupling_along_axes(system.K, system.grid)[None]
    order = np.argsort(system.grid.node_of_dof)
    A_0 = (system.K + system.M).toarray()[np.ix_(order, order)]
    # Weak entries count on the diagonal.
    thin = thinned(learning.batch_systems([system]).stencils).to_scipy().toarray()
    S, A_0 = dense(system)[np.ix_(order, order)] + thin - A_0, thin
    Pi = (np.sqrt(system.weights * system.beta)[:, None] * system.Pi.toarray())[:, order]
    with small_grids():
        batch = learning.batch_systems([system])
        hierarchy = create_hierarchy([system], batch, torch.float64, by_four=True)
    parts = []
    for depth in range(len(hierarchy.levels)):
        fine, axes = axes, coarsened_by_four(axes, coupling)
        num_coarsened = sum(len(a) < len(b) for a, b in zip(axes, fine, strict=True))
        X = dense_smoother(dense_base, model, A_0, Pi, S, depth, num_coarsened)
        P = interpolation(axes, fine).toarray()
        parts.append((S, P, X))
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
@pytest.mark.parametrize(("anisotropy", "used"), [(1.0, 2), (100.0, 0)])
def test_gradients_reach_the_numbers_of_the_grids(problem, network, setup, dtype, anisotropy, used):
    """Those of three axes, or of the one that fibres run along."""
    systems = [problem((5, 6, 5), anisotropy=anisotropy, seed=seed) for seed in range(2)]
    model = network(0.3, 0, dtype)
    M = setup(model, systems)
    r = torch.randn(2, len(systems[0].g), generator=torch.Generator().manual_seed(0)).double()
    (r * M(r)).sum().backward()
    assert torch.all(torch.isfinite(model.logits.grad))
    assert torch.all(model.logits.grad[:, used] != 0)


def test_the_derivative_in_a_number_is_that_of_finite_differences(problem, network, setup):
    system, model = problem((5, 6, 5), contrast=10.0), network(0.3)
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    numbers = model.logits

    def energy():
        return (r * setup(model, [system])(r)).sum()

    energy().backward()
    for i in np.ndindex(2, 3):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                numbers[i] += step
                values.append(energy().item())
                numbers[i] -= step
        difference = (values[0] - values[1]) / 2e-5
        assert numbers.grad[i].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_the_cycle_is_differentiable_in_the_residual(problem, network, setup):
    system = problem((3, 3, 3))
    M = setup(network(0.3), [system])
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    r.requires_grad_()
    w = torch.randn_like(r)
    [gradient] = torch.autograd.grad(M(r), r, w)
    with torch.no_grad():
        torch.testing.assert_close(gradient, M(w))


@pytest.mark.skipif(not kernels.ARE_COMPILED, reason="needs numba")
@pytest.mark.parametrize("num_cells", [(9, 8, 11), (4, 17, 1), (10, 2, 9)])
def test_loops_and_tensors_do_the_same_where_grids_lose_three_of_four_nodes(
    problem, network, setup, small_grids, num_cells, monkeypatch
):
    monkeypatch.setattr(transfer, "FEW_NODES", 0)
    system = problem(num_cells, contrast=10.0)
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    with small_grids(), torch.no_grad():
        by_loops = setup(network(0.3), [system])(r)
        monkeypatch.setattr(kernels, "ARE_COMPILED", False)
        system = replace(system)  # without what is kept for others
        by_tensors = setup(network(0.3), [system])(r)
    torch.testing.assert_close(by_loops, by_tensors, rtol=1e-9, atol=1e-12)

"""S for batches of systems equals each system's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import mixeddim as md
from learning.krylov.fgmres import Status, fgmres
from learning.systems.operators import _network_factors, batch_systems


@pytest.fixture(scope="module")
def systems():
    """Systems on one grid with networks of different sizes, one of them with Dirichlet faces."""
    box = md.create_box((4, 3, 5))
    problems = []
    for seed, method in enumerate(["spanning_tree", "murray_tree", "capillary_mesh"]):
        graph = md.random_vascular_graph(6 + 3 * seed, 0.05, seed, method)
        network = md.create_network(graph, 0.2)
        faces = [md.Dirichlet("x_min", 0.3)] if seed == 2 else []
        coefficients = md.Coefficients(sigma_3d=1.0, permeability=10.0**seed)
        problems.append(md.reduce(md.assemble(box, network, coefficients, bcs_3d=faces)))
    return problems


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_batched_product_equals_each_systems_own(systems, dtype, tolerance):
    batch = batch_systems(systems, dtype)
    v = np.random.default_rng(0).standard_normal(batch.g.shape)
    product = batch.apply(torch.tensor(v, dtype=dtype)).numpy()
    for system, v_i, product_i, g_i in zip(systems, v, product, batch.g.numpy(), strict=True):
        expected = system.S @ v_i
        assert np.abs(product_i - expected).max() <= tolerance * np.abs(expected).max()
        np.testing.assert_allclose(g_i, system.g, rtol=tolerance, atol=tolerance)
    assert batch.grid.shape == (5, 4, 6)


def test_batched_product_is_symmetric_and_differentiable(systems):
    batch = batch_systems(systems)
    u, v = torch.randn(2, *batch.g.shape, dtype=torch.float64)
    torch.testing.assert_close((u * batch.apply(v)).sum(1), (v * batch.apply(u)).sum(1))
    v.requires_grad_()
    assert torch.autograd.gradcheck(batch.apply, (v,))
    assert torch.autograd.gradgradcheck(batch.apply, (v,))


def test_fgmres_solves_the_batch(systems):
    batch = batch_systems(systems)
    result = fgmres(batch.apply, batch.g, lambda v: v, rtol=1e-11)
    assert {*result.status} == {Status.CONVERGED}
    for system, x in zip(systems, result.x.numpy(), strict=True):
        exact = np.linalg.solve(system.S @ np.eye(len(x)), system.g)
        np.testing.assert_allclose(x, exact, rtol=0, atol=1e-9)


def test_systems_of_different_grids_do_not_batch(systems):
    graph = md.random_vascular_graph(4, 0.05, 0)
    box = md.create_box(3)
    other = md.reduce(md.assemble(box, md.create_network(graph, 0.3), md.Coefficients()))
    with pytest.raises(ValueError, match=r"got 2 systems with \[64, 120\] tissue dofs; wanted"):
        batch_systems([systems[0], other])
    with pytest.raises(ValueError, match="got 0 systems"):
        batch_systems([])


def test_shape_and_dtype_are_checked(systems):
    batch = batch_systems(systems)
    with pytest.raises(ValueError, match=r"got v of shape \(2, 120\).*wanted \(3, 120\)"):
        batch.apply(torch.ones(2, 120, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"torch.float32 on cpu; wanted .*torch.float64"):
        batch.apply(torch.ones(3, 120))


@pytest.mark.parametrize("number", [1, 2])
def test_a_network_that_nothing_holds_is_refused_with_what_to_do(systems, number):
    """Its last pivot is rounding, or exactly zero as here."""
    loose = []
    for system in systems[:number]:
        ones = np.ones(len(system.b_1))
        ends = np.arange(len(ones)) % (len(ones) - 1) == 0
        path = sparse.diags_array([2 * ones - ends, -ones[1:], -ones[1:]], offsets=[0, 1, -1])
        loose.append(replace(system, A_11=path.tocsr()))
    with pytest.raises(ValueError, match=r"for A_11; wanted .* by a Dirichlet condition, or by"):
        _network_factors(loose)

"""Matrices between neighbours as stencils: products and sums equal those of scipy, either way."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.linalg import block_diag

from learning.systems.stencils import OFFSETS, StencilMatrix, row_sums, stencils_of

SHAPES = [(4, 3, 5), (2, 6, 3), (5, 4, 2), (3, 2, 4), (2, 2, 2), (1, 4, 3), (3, 1, 1)]
shapes = st.tuples(*3 * [st.integers(1, 6)])
seeds = st.integers(0, 2**32 - 1)


pytestmark = pytest.mark.usefixtures("way")


# --- From matrices and back -------------------------------------------------------------------


def test_offsets_lead_to_half_of_the_neighbours():
    assert OFFSETS[0] == (0, 0, 0)
    opposites = {tuple(-step for step in offset) for offset in OFFSETS}
    assert len(opposites | set(OFFSETS)) == 27


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stencils_hold_the_entries_of_each_node(shape, random_stencils):
    A, matrices = random_stencils(shape, [1, 2])
    assert A.stencils.shape == (2, 14, *shape)
    for stencil, wanted in zip(A.stencils.numpy(), matrices, strict=True):
        for node in np.ndindex(shape):
            for o, offset in enumerate(OFFSETS):
                there = np.add(node, offset)
                is_inside = np.all((there >= 0) & (there < shape))
                row = np.ravel_multi_index(node, shape)
                entry = wanted[row, np.ravel_multi_index(there, shape)] if is_inside else 0.0
                assert stencil[o, *node] == entry


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shape=shapes, seed=seeds, density=st.floats(0.0, 1.0))
def test_a_matrix_comes_back_in_grid_order(shape, seed, density, random_stencils):
    A, matrices = random_stencils(shape, [seed, seed + 1], density)
    np.testing.assert_array_equal(A.to_scipy().toarray(), block_diag(*matrices))
    wanted = np.abs(block_diag(*matrices)).sum(axis=1)
    np.testing.assert_allclose(row_sums(A), wanted, rtol=1e-14, atol=1e-14)


def test_offsets_that_do_not_occur_are_dropped(grid_of):
    shape = (3, 4, 5)
    matrices = [sparse.diags_array(np.ones(60)).tolil() for _ in range(2)]
    grids = [grid_of(shape, seed) for seed in (0, 1)]
    assert stencils_of([A.tocsr() for A in matrices], grids).offsets == (0,)
    # One entry in one system is enough for all to keep an offset.
    i, j = np.argsort(grids[1].node_of_dof)[:2]
    matrices[1][i, j] = matrices[1][j, i] = 0.5
    A = stencils_of([A.tocsr() for A in matrices], grids)
    assert [OFFSETS[o] for o in A.offsets] == [(0, 0, 0), (0, 0, 1)]
    assert StencilMatrix(A.stencils).offsets == A.offsets


@pytest.mark.parametrize("far", [(0, 2), (0, 10), (0, 59)])
def test_matrices_with_entries_between_other_nodes_are_refused(far, grid_of):
    grid = grid_of((3, 4, 5))
    i, j = np.argsort(grid.node_of_dof)[list(far)]
    A = sparse.eye_array(60).tolil()
    A[i, j] = A[j, i] = 1.0
    with pytest.raises(ValueError, match="got a matrix with 2 entries between nodes that are no"):
        stencils_of([A.tocsr()], [grid])


# --- Products ---------------------------------------------------------------------------------


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shape=shapes, seed=seeds, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_products_are_those_of_the_matrix(shape, seed, dtype, random_stencils):
    A, matrices = random_stencils(shape, [seed, seed + 1], density=0.7)
    A = A.to(torch.empty(0, dtype=dtype))
    v = torch.tensor(np.random.default_rng(seed).standard_normal((2, np.prod(shape))), dtype=dtype)
    wanted = np.stack([B @ row for B, row in zip(matrices, v.double().numpy(), strict=True)])
    found = A(v)
    assert found.dtype == dtype
    tolerance = 1e2 * torch.finfo(dtype).eps * max(np.abs(B).max() for B in matrices)
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("broken", ["stencils", "v"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_system(broken, value, random_stencils):
    A, _ = random_stencils((3, 4, 5), [1, 2, 3])
    stencils, v = A.stencils.clone(), torch.ones(3, 60).double()
    wanted = StencilMatrix(stencils.clone())(v)
    (stencils if broken == "stencils" else v)[1] = value
    found = StencilMatrix(stencils)(v)
    assert not found[1].isfinite().any()
    torch.testing.assert_close(found[[0, 2]], wanted[[0, 2]])


@pytest.fixture
def matrix_and_v(random_stencils):
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(2, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    return random_stencils((2, 2, 3), [0, 1])[0], v


def test_products_are_differentiable_in_the_vector_to_any_order(matrix_and_v):
    A, v = matrix_and_v
    assert torch.autograd.gradcheck(A, (v,))
    assert torch.autograd.gradgradcheck(A, (v,))
    w = torch.randn_like(v)
    [gradient] = torch.autograd.grad(A(v), v, w)
    torch.testing.assert_close(gradient, A(w))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_an_accelerator_gives_the_same(matrix_and_v):
    A, v = matrix_and_v
    found = A.to(torch.empty(0, dtype=torch.float64, device="cuda"))(v.detach().cuda())
    torch.testing.assert_close(found.cpu(), A(v.detach()))

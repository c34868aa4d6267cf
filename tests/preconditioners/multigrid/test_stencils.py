"""Stencils hold matrices between neighbours; products and coarsening equal those of scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.linalg import block_diag

from learning.preconditioners.multigrid.stencils import (
    CENTRE,
    FORWARD,
    OFFSETS,
    StencilMatrix,
    coarse_stencils,
    inside,
    neighbours,
    opposite,
    stencils_of,
)
from learning.preconditioners.multigrid.transfer import axes_of, coarsened, interpolation
from mixeddim.tensors import Grid

SHAPES = [(4, 3, 5), (2, 6, 3), (5, 4, 2), (3, 2, 4), (2, 2, 2), (1, 4, 3), (3, 1, 1)]
shapes = st.tuples(*3 * [st.integers(1, 6)])
seeds = st.integers(0, 2**32 - 1)


def grid_of(shape, seed=0):
    n = int(np.prod(shape))
    return Grid(shape, np.zeros(3), np.ones(3), np.random.default_rng(seed).permutation(n))


def random_matrix(shape, seed, density=1.0):
    """Return a symmetric matrix with entries between neighbours, dense, in grid order."""
    rng = np.random.default_rng(seed)
    index = np.indices(shape).reshape(3, -1)
    adjacent = np.abs(index[:, :, None] - index[:, None]).max(axis=0) <= 1
    A = rng.standard_normal(adjacent.shape) * (rng.random(adjacent.shape) < density)
    return (A + A.T) * adjacent


def random_stencils(shape, seeds, density=1.0):
    """Return stencils of random matrices, and these, dense, in grid order."""
    matrices = [random_matrix(shape, seed, density) for seed in seeds]
    grids = [grid_of(shape, seed) for seed in seeds]
    in_dofs = [
        sparse.csr_array(A[np.ix_(grid.node_of_dof, grid.node_of_dof)])
        for A, grid in zip(matrices, grids, strict=True)
    ]
    return stencils_of(in_dofs, grids), matrices


# --- From matrices and back -------------------------------------------------------------------


def test_offsets_come_in_opposite_pairs():
    assert OFFSETS[CENTRE] == (0, 0, 0)
    assert len(FORWARD) == 13
    for o in FORWARD:
        assert OFFSETS[26 - o] == tuple(-step for step in OFFSETS[o])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stencils_hold_the_entries_of_each_node(shape):
    stencils, matrices = random_stencils(shape, [1, 2])
    assert stencils.shape == (2, 27, *shape)
    for stencil, A in zip(stencils, matrices, strict=True):
        for node in np.ndindex(shape):
            for o, offset in enumerate(OFFSETS):
                there = np.add(node, offset)
                is_inside = np.all((there >= 0) & (there < shape))
                row = np.ravel_multi_index(node, shape)
                wanted = A[row, np.ravel_multi_index(there, shape)] if is_inside else 0.0
                assert stencil[o, *node] == wanted


@settings(max_examples=30, deadline=None)
@given(shape=shapes, seed=seeds, density=st.floats(0.0, 1.0))
def test_a_matrix_comes_back_in_grid_order(shape, seed, density):
    stencils, matrices = random_stencils(shape, [seed, seed + 1], density)
    found = StencilMatrix(torch.tensor(stencils)).to_scipy()
    np.testing.assert_array_equal(found.toarray(), block_diag(*matrices))


def test_offsets_that_do_not_occur_are_dropped():
    shape, n = (3, 4, 5), 60
    stencils = np.zeros((2, 27, *shape))
    diagonal = StencilMatrix(
        torch.tensor(stencils + (np.arange(27) == CENTRE)[:, None, None, None])
    )
    assert diagonal.to_scipy().tocsr().nnz == len(diagonal._csr.values()) == 2 * n
    # One entry in one system is enough for all to keep an offset, where nodes have a neighbour.
    stencils[1, FORWARD[0], 0, 0, 0] = stencils[1, 26 - FORWARD[0], 0, 0, 1] = 1.0
    pair = StencilMatrix(torch.tensor(stencils))
    assert OFFSETS[FORWARD[0]] == (0, 0, 1)
    assert len(pair._csr.values()) == 2 * 2 * (3 * 4 * 4)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 2, 3)], ids=str)
def test_neighbours_are_values_shifted(shape):
    values = torch.arange(1.0, 1.0 + 2 * np.prod(shape)).reshape(2, *shape)
    is_there = inside(shape, torch.float32, values.device)
    views = neighbours(values.flatten(1), shape)
    for offset, found, mask in zip(OFFSETS, views, is_there, strict=True):
        found = (found * mask).reshape(values.shape)
        for node in np.ndindex(shape):
            there = tuple(int(i) for i in np.add(node, offset))
            is_inside = all(0 <= i < n for i, n in zip(there, shape, strict=True))
            wanted = values[:, *there] if is_inside else torch.zeros(2)
            assert torch.equal(found[:, *node], wanted)


# --- Coarsening -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*3 * [st.integers(2, 7)]),
    coupling=st.tuples(*3 * [st.sampled_from([1.0, 1e-1, 1e-3])]),
    num_coarsenings=st.integers(1, 3),
    seed=seeds,
)
def test_coarse_stencils_are_galerkin_products(shape, coupling, num_coarsenings, seed):
    """Of grids of odd and even numbers of nodes, coarsened along all axes or the strong ones."""
    stencils, matrices = random_stencils(shape, [seed, seed + 1])
    axes = axes_of(grid_of(shape))
    for _ in range(num_coarsenings):
        fine, axes = axes, coarsened(axes, np.array([coupling]))
        P = interpolation(axes, fine)
        stencils = coarse_stencils(stencils, axes, fine)
        matrices = [P.T @ A @ P for A in matrices]
    found = StencilMatrix(torch.tensor(stencils)).to_scipy().toarray()
    wanted = block_diag(*matrices)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
    assert stencils.shape == (2, 27, *(len(x) for x in axes))


def test_coarse_stencils_on_the_same_grid_are_the_same():
    stencils, _ = random_stencils((3, 4, 2), [0])
    axes = axes_of(grid_of((3, 4, 2)))
    np.testing.assert_array_equal(coarse_stencils(stencils, axes, axes), stencils)


@pytest.mark.parametrize("shape", [(5, 5, 5), (6, 3, 4)], ids=str)
def test_coarse_stencils_leave_nothing_beyond_the_box(shape):
    stencils, _ = random_stencils(shape, [0])
    fine = axes_of(grid_of(shape))
    coarse = coarsened(fine, np.ones((1, 3)))
    stencils = torch.tensor(coarse_stencils(stencils, coarse, fine))
    is_there = inside(stencils.shape[2:], torch.bool, stencils.device)
    assert torch.all(stencils.flatten(2)[:, ~is_there] == 0.0)


# --- Products ---------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(shape=shapes, seed=seeds, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_products_are_those_of_the_matrix(shape, seed, dtype):
    stencils, matrices = random_stencils(shape, [seed, seed + 1], density=0.7)
    A = StencilMatrix(torch.tensor(stencils, dtype=dtype))
    v = torch.tensor(np.random.default_rng(seed).standard_normal((2, np.prod(shape))), dtype=dtype)
    wanted = np.stack([B @ row for B, row in zip(matrices, v.double().numpy(), strict=True)])
    found = A(v)
    assert found.dtype == dtype
    tolerance = 1e2 * torch.finfo(dtype).eps * max(np.abs(B).max() for B in matrices)
    np.testing.assert_allclose(found.double().numpy(), wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("broken", ["stencils", "v"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_system(broken, value):
    stencils, v = torch.tensor(random_stencils((3, 4, 5), [1, 2, 3])[0]), torch.ones(3, 60).double()
    wanted = StencilMatrix(stencils)(v)
    (stencils if broken == "stencils" else v)[1] = value
    found = StencilMatrix(stencils)(v)
    assert not found[1].isfinite().any()
    torch.testing.assert_close(found[[0, 2]], wanted[[0, 2]])


def symmetric(values, shape):
    """Return the stencils of which half and the diagonal are given, (batch, 14, *shape)."""
    stencils = [None] * 27
    is_there = inside(shape, values.dtype, values.device)
    for entries, o in zip(values.flatten(2).unbind(dim=1), (CENTRE, *FORWARD), strict=True):
        stencils[o] = entries * is_there[o]
        stencils[26 - o] = opposite(stencils[o], o, shape)
    return torch.stack(stencils, dim=1).reshape(len(values), 27, *shape)


SHAPE = (2, 1, 3)


@pytest.fixture
def values_and_v():
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64, "requires_grad": True}
    return torch.randn(2, 14, *SHAPE, **options), torch.randn(2, 6, **options)


def test_products_are_differentiable_in_the_vector_to_any_order(values_and_v):
    values, v = values_and_v
    A = StencilMatrix(symmetric(values.detach(), SHAPE))
    assert torch.autograd.gradcheck(A, (v,))
    assert torch.autograd.gradgradcheck(A, (v,))
    w = torch.randn_like(v)
    [gradient] = torch.autograd.grad(A(v), v, w)
    torch.testing.assert_close(gradient, A(w))


def test_products_are_differentiable_in_the_stencils_too(values_and_v):
    def product(values, v):
        return StencilMatrix(symmetric(values, SHAPE))(v)

    values, v = values_and_v
    assert torch.autograd.gradcheck(product, (values, v))
    assert torch.autograd.gradgradcheck(product, (values, v), fast_mode=True)


def test_squares_of_a_matrix_are_differentiable(values_and_v):
    """As the smoother of the learned multigrid has them."""

    def energy(values, v):
        F = StencilMatrix(symmetric(values, SHAPE))
        return (v * F(F(v))).sum(dim=1)

    values, v = values_and_v
    assert torch.autograd.gradcheck(energy, (values, v.detach()), fast_mode=True)
    assert torch.all(energy(values, v) >= 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_an_accelerator_gives_the_same(values_and_v):
    values, v = (x.detach() for x in values_and_v)
    stencils = symmetric(values, SHAPE)
    expected = StencilMatrix(stencils)(v)
    found = StencilMatrix(stencils.cuda())(v.cuda())
    torch.testing.assert_close(found.cpu(), expected)

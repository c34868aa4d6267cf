"""Stencils of all neighbours, and of coarser grids, either way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag

from learning.preconditioners.multigrid.stencils import (
    CENTRE,
    FORWARD,
    OFFSETS,
    coarse_stencils,
    thinned,
    whole,
)
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    interpolation,
    interpolation_map,
)
from learning.systems.stencils import OFFSETS as FORWARD_OFFSETS
from learning.systems.stencils import StencilMatrix, stencils_of

SHAPES = [(4, 3, 5), (2, 6, 3), (2, 2, 2), (1, 4, 3), (3, 1, 1)]
seeds = st.integers(0, 2**32 - 1)


pytestmark = pytest.mark.usefixtures("way")


def test_offsets_come_in_opposite_pairs():
    assert OFFSETS[CENTRE] == (0, 0, 0)
    assert len(FORWARD) == 13
    for o in FORWARD:
        assert OFFSETS[26 - o] == tuple(-step for step in OFFSETS[o])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_other_half_of_a_stencil_is_that_of_the_neighbours(shape, random_stencils):
    A, [matrix] = random_stencils(shape, [1])
    stencils = whole(A.stencils)[0].flatten(1)
    nodes = np.indices(shape).reshape(3, -1).T
    for o, offset in enumerate(OFFSETS):
        for row, node in enumerate(nodes):
            there = node + offset
            is_inside = np.all((there >= 0) & (there < shape))
            wanted = matrix[row, np.ravel_multi_index(there, shape)] if is_inside else 0.0
            assert stencils[o, row] == wanted


# --- Weak entries -----------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("size", "offsets"), [(1e-3, 4), (1.0, 14)])
def test_weak_positive_entries_move_to_the_diagonal(random_stencils, size, offsets, sign):
    """And enlarge the matrix by hardly anything; no others do, as they would make it smaller."""
    A, _ = random_stencils((4, 3, 5), [1])
    stencils = -A.stencils.abs() - (A.stencils != 0).double()
    for o in range(14):
        if o == 0 or np.count_nonzero(FORWARD_OFFSETS[o]) > 1:
            stencils[:, o] *= -1.0 if o == 0 else -size * sign
    A = StencilMatrix(stencils)
    B = thinned(A)
    assert len(B.offsets) == (offsets if sign > 0 else 14)
    difference = B.to_scipy().toarray() - A.to_scipy().toarray()
    np.testing.assert_allclose(difference.sum(axis=1), 0.0, atol=1e-12)
    values = np.linalg.eigvalsh(difference)
    assert values[0] >= -1e-12
    assert values[-1] <= 50 * size * abs(A.stencils).max()


def test_tissue_with_given_values_is_thinned_in_a_batch_and_only_enlarged(reduced):
    """Their rows hold zeros; without reaction the weak entries of a system are rounding."""
    systems = [reduced((10, 12, 14)), reduced((10, 12, 14), faces=("x_min", "z_max"), k_3d=7.0)]
    systems[1] = replace(systems[1], M=0 * systems[1].M)
    A = stencils_of([system.A_0 for system in systems], [system.grid for system in systems])
    assert A.stencils[1, 4].min() < 0 < A.stencils[0, 4].max()
    B = thinned(A)
    assert B.offsets == (0, 1, 3, 9)
    difference, v = B.to_scipy() - A.to_scipy(), np.random.default_rng(0)
    v = v.standard_normal((A.stencils[:, 0].numel(), 20))
    added, energy = (np.einsum("ij,ij->j", v, M @ v) for M in (difference, A.to_scipy()))
    assert (added > 0).all()
    assert (added < 0.01 * energy).all()
    np.testing.assert_allclose(difference.sum(axis=1), 0.0, atol=1e-15)


def test_entries_that_count_in_one_system_stay_in_all(random_stencils):
    A, _ = random_stencils((4, 3, 5), [1, 2])
    stencils = -A.stencils.abs() - (A.stencils != 0).double()
    stencils[:, 0] = 30.0
    for o in range(1, 14):
        if np.count_nonzero(FORWARD_OFFSETS[o]) > 1:
            stencils[0, o] *= -1e-3
            stencils[1, o] *= -1e-15
    assert thinned(StencilMatrix(stencils)).offsets == (0, 1, 3, 9)
    stencils[1, 4] *= -1e12
    assert thinned(StencilMatrix(stencils)).offsets == (0, 1, 3, 4, 9)


# --- Coarsening -------------------------------------------------------------------------------


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(*3 * [st.integers(2, 7)]),
    coupling=st.tuples(*3 * [st.sampled_from([1.0, 1e-1, 1e-3])]),
    num_coarsenings=st.integers(1, 3),
    seed=seeds,
)
def test_coarse_stencils_are_galerkin_products(
    shape, coupling, num_coarsenings, seed, grid_of, random_stencils
):
    """Of grids of odd and even numbers of nodes, coarsened along all axes or the strong ones."""
    A, matrices = random_stencils(shape, [seed, seed + 1])
    axes = axes_of(grid_of(shape))
    for _ in range(num_coarsenings):
        fine, axes = axes, coarsened(axes, np.array([coupling]))
        P = interpolation(axes, fine)
        A = coarse_stencils(A, axes, fine)
        matrices = [P.T @ B @ P for B in matrices]
    found, wanted = A.to_scipy().toarray(), block_diag(*matrices)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
    assert A.stencils.shape == (2, 14, *(len(x) for x in axes))


def test_coarse_stencils_on_the_same_grid_are_the_same(grid_of, random_stencils):
    A, _ = random_stencils((3, 4, 2), [0])
    axes = axes_of(grid_of((3, 4, 2)))
    assert torch.equal(coarse_stencils(A, axes, axes).stencils, A.stencils)


@pytest.mark.parametrize("shape", [(5, 5, 5), (6, 3, 4)], ids=str)
def test_coarse_stencils_leave_nothing_beyond_the_box(shape, grid_of, random_stencils):
    A, _ = random_stencils(shape, [0])
    fine = axes_of(grid_of(shape))
    coarse = coarsened(fine, np.ones((1, 3)))
    stencils = whole(coarse_stencils(A, coarse, fine).stencils)[0]
    shape = stencils.shape[1:]
    there = np.indices(shape)[None] + np.array(OFFSETS)[:, :, None, None, None]
    limit = np.array(shape)[:, None, None, None]
    is_there = torch.tensor(np.all((there >= 0) & (there < limit), axis=1))
    assert torch.all(stencils[~is_there] == 0.0)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(*3 * [st.integers(2, 9)]),
    coupling=st.tuples(*3 * [st.sampled_from([1.0, 1e-1, 1e-3])]),
    num_coarsenings=st.integers(0, 2),
    seed=seeds,
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_interpolation_and_its_transpose_are_those_of_the_matrix(
    shape, coupling, num_coarsenings, seed, dtype, grid_of
):
    fine = axes_of(grid_of(shape))
    for _ in range(num_coarsenings):
        fine = coarsened(fine, np.array([coupling]))
    coarse = coarsened(fine, np.array([coupling]))
    P, rng = interpolation(coarse, fine).toarray(), np.random.default_rng(seed)
    found = interpolation_map(coarse, fine, torch.empty(2, 0, dtype=dtype))
    r, v = (torch.tensor(rng.standard_normal((2, n)), dtype=dtype) for n in P.shape)
    tolerance = 1e2 * torch.finfo(dtype).eps
    np.testing.assert_allclose(found(v), v.numpy() @ P.T, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.T(r), r.numpy() @ P, rtol=0, atol=tolerance)

"""Compiled factors of small matrices: exact, block by block, with as little fill as a library's."""

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import splu

from mixeddim.algebra import cholesky
from mixeddim.algebra.cholesky import cholesky_factors
from mixeddim.algebra.triangular import substitute


def thick_tree(size, seed, width=3):
    """Return the matrix of a tree of chains whose points couple with some before them."""
    rng = np.random.default_rng(seed)
    parents = np.arange(-1, size - 1)
    branches = np.arange(10, size, 10)
    parents[branches] = [rng.integers(branch) for branch in branches]
    A = sparse.lil_array((size, size))
    for i in range(size):
        j = i
        for _ in range(width):
            j = parents[j]
            if j < 0:
                break
            A[i, j] = A[j, i] = rng.standard_normal()
    order = rng.permutation(size)
    A = A.tocsr()[order][:, order]
    return (A + sparse.diags_array(abs(A).sum(axis=1) + 0.1)).tocsr()


def solve(factors, b):
    x = np.empty_like(b)
    substitute(factors, b, np.empty_like(b), x)
    return x


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 300])
def test_solves_equal_dense_ones(size):
    A = thick_tree(size, size)
    b = np.random.default_rng(0).standard_normal(size)
    np.testing.assert_allclose(
        solve(cholesky_factors(A), b), np.linalg.solve(A.toarray(), b), rtol=1e-10, atol=1e-12
    )


def test_any_scale_of_any_row_is_as_good():
    A, scale = thick_tree(200, 0), np.exp2(np.random.default_rng(0).integers(-30, 30, 200))
    scaled = (sparse.diags_array(scale) @ A @ sparse.diags_array(scale)).tocsr()
    b = np.ones(200)
    found = scale * solve(cholesky_factors(scaled), scale * b)
    np.testing.assert_array_equal(found, solve(cholesky_factors(A), b))  # by powers of two


def test_each_block_is_solved_as_if_alone():
    blocks = [thick_tree(70, seed) for seed in range(3)]
    b = np.random.default_rng(0).standard_normal((3, 70))
    together = solve(cholesky_factors(sparse.block_diag(blocks, format="csr"), 3), b.ravel())
    for block, right, found in zip(blocks, b, together.reshape(3, 70), strict=True):
        np.testing.assert_array_equal(found, solve(cholesky_factors(block), right))


def test_a_tree_fills_in_no_more_than_by_a_librarys_order():
    A = thick_tree(1500, 0)
    library = splu(
        A.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )  # fmt: skip
    assert len(cholesky_factors(A)[5]) <= 1.05 * library.L.nnz


def test_rows_without_couplings_fill_nothing_in():
    assert len(cholesky_factors(sparse.eye_array(100, format="csr"))[5]) == 100


@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan])
def test_a_matrix_that_is_not_definite_is_refused(value):
    A = thick_tree(50, 0).tolil()
    A[20, 20] = value
    with pytest.raises(RuntimeError, match="a matrix with a pivot that is not positive"):
        cholesky_factors(A.tocsr())


def outside(A):
    A[10, 30] = A[30, 10] = 1.0


def one_sided(A):
    A[30, 35] = 1.0
    A[35, 30] = 0.0


@pytest.mark.parametrize("spoil", [outside, one_sided])
def test_another_pattern_is_refused(spoil):
    A = sparse.block_diag([thick_tree(20, 0), thick_tree(20, 1)]).tolil()
    spoil(A)
    block = 0 if spoil is outside else 1
    with pytest.raises(ValueError, match=f"block {block} has an entry outside, twice, or without"):
        cholesky_factors(A.tocsr(), 2)


def test_entries_that_occur_twice_are_refused():
    A = thick_tree(20, 0).tocoo()
    rows, columns = np.append(A.row, 3), np.append(A.col, 3)
    order = np.argsort(rows, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    twice = sparse.csr_array((np.append(A.data, 1.0)[order], columns[order], starts), A.shape)
    with pytest.raises(ValueError, match=r"Call sum_duplicates\(\)"):
        cholesky_factors(twice)


@pytest.mark.parametrize(("size", "num_blocks"), [(20, 3), (0, 1)])
def test_blocks_of_different_size_are_refused(size, num_blocks):
    A = thick_tree(20, 0)[: size or 10]
    with pytest.raises(ValueError, match="wanted square blocks of equal size"):
        cholesky_factors(A, num_blocks)


def test_large_blocks_are_left_to_a_library(monkeypatch):
    A = sparse.block_diag([thick_tree(70, seed) for seed in range(2)], format="csr")
    b = np.random.default_rng(0).standard_normal(140)
    wanted = solve(cholesky_factors(A, 2), b)
    monkeypatch.setattr(cholesky, "MOST_ROWS", 69)
    monkeypatch.setattr(cholesky, "_factorise", None)
    np.testing.assert_allclose(solve(cholesky_factors(A, 2), b), wanted, rtol=1e-9, atol=1e-12)

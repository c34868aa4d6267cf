"""Solvers of batches of sparse matrices: equal to dense ones, differentiable, definite."""

import numpy as np
import pytest
import torch
from scipy import sparse

from learning import kernels
from learning.systems.sparse import rows_of, spd_solver

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def test_the_square_of_rows_is_that_of_scipy():
    dense = np.random.default_rng(0).standard_normal((30, 50))
    dense[abs(dense) < 1.5] = dense[5] = 0.0
    A = sparse.csr_array(dense)
    weights = np.random.default_rng(1).uniform(1, 2, 50)
    starts, columns, values = kernels.one_plus_squared_rows(rows_of(A, torch.float64), weights)
    found = sparse.csr_array((values, columns, starts), shape=(30, 30))
    assert found.nnz == len(set(zip(*found.nonzero(), strict=True)))  # each entry once
    wanted = np.eye(30) + A.toarray() @ np.diag(weights) @ A.toarray().T
    np.testing.assert_allclose(found.toarray(), wanted, rtol=1e-14)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_solver_of_sparse_blocks_is_their_inverse(device):
    A = sparse.block_diag([sparse.diags_array([4.0, 3.0, k]) for k in (2.0, 5.0)], format="csr")
    A = A + sparse.diags_array(0.5 * np.ones(5) * [1, 1, 0, 1, 1], offsets=1)
    A = (A + A.T).tocsr()
    b = torch.randn(2, 3, dtype=torch.float64, device=device, requires_grad=True)
    solve = spd_solver(A, b)
    expected = np.linalg.solve(A.toarray(), b.detach().cpu().numpy().ravel())
    np.testing.assert_allclose(solve(b).detach().cpu().numpy().ravel(), expected, atol=1e-14)
    assert torch.autograd.gradcheck(solve, (b,))
    assert solve(b.float()).dtype == torch.float32
    singular = sparse.csr_array((6, 6))
    with pytest.raises(
        ValueError, match=r"got (a matrix that is not positive definite|.*singular)"
    ):
        spd_solver(singular, b)

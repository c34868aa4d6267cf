"""Solvers of batches of sparse matrices: equal to dense ones, differentiable, definite."""

import numpy as np
import pytest
import torch
from scipy import sparse

from learning.systems.sparse import spd_solver

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


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

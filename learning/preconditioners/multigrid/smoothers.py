"""Smoothers for S = A_0 + Pi' C Pi, with A_0 sparse and 0 <= C <= 1 of low rank.

Each is a symmetric positive definite M whose M S has no eigenvalue above a bound known in advance:
with D >= A_0 in the sense of quadratic forms, as the sums of absolute values along the rows of A_0
are, D / omega + Pi' C Pi >= S / omega for any omega >= 1. Below 2 the iteration converges in the
energy norm whatever the coefficients, and a V-cycle around it is positive definite.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.preconditioners.multigrid.network import NetworkResponse
from learning.systems.sparse import LinearMap, SparseMap, spd_solver

__all__ = ["RELAXATION", "chebyshev", "l1_jacobi", "low_rank"]

RELAXATION: Final = 1.6
"""The bound omega. On constant coefficients D / omega is the diagonal of damped Jacobi, 0.8."""


def l1_jacobi(row_sums: NDArray[np.float64], Pi: sparse.csr_array, like: torch.Tensor) -> LinearMap:
    """Return the division by the row sums of |A_0| and Pi' Pi over omega.

    Blind to what the coupling ties together: iterations grow with its strength (Baker, Falgout,
    Kolev & Yang 2011, doi:10.1137/100798806).

    Args:
        row_sums: Of |A_0|, shape (batch n,).
        Pi: Block-diagonal, one block of shape (num_points, n) for each system.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
    """
    coupling = abs(Pi).T @ abs(Pi).sum(axis=1)
    inverse = torch.tensor(RELAXATION / (row_sums + coupling)).to(like).reshape(like.shape)
    return lambda r: inverse * r


def low_rank(
    row_sums: NDArray[np.float64],
    Pi: sparse.csr_array,
    average: SparseMap,
    network: NetworkResponse | None,
    like: torch.Tensor,
    relaxation: float = RELAXATION,
) -> LinearMap:
    """Return the inverse of D / omega + Pi' C Pi, with D the row sums of |A_0|.

    By the formula of Woodbury with a matrix of the size of the points and the network, or directly
    where the grid has fewer nodes than there are points.

    Args:
        row_sums: D, shape (batch n,).
        Pi: Block-diagonal, one block of shape (num_points, n) for each system.
        average: The same as a map.
        network: C, or None for 1.
        like: A tensor of dtype, device and shape (batch, n) of the vectors.
        relaxation: omega.
    """
    num_points, num_nodes = (size // len(like) for size in Pi.shape)
    inverse_D = relaxation / row_sums
    if num_nodes <= num_points:
        D = sparse.diags_array(1.0 / inverse_D)
        if network is not None:
            return network.inverse(D, Pi, like.device)
        return spd_solver((Pi.T @ Pi + D).tocsr(), like)
    root = sparse.csr_array((Pi.data * np.sqrt(inverse_D)[Pi.indices], Pi.indices, Pi.indptr))
    root.resize(Pi.shape)
    G, at_points = (root @ root.T).tocsr(), like.new_empty(len(like), num_points)
    if network is not None:
        solve = network.capacitance(G, at_points)
    else:
        solve = spd_solver((G + sparse.eye_array(Pi.shape[0])).tocsr(), at_points)
    scale = torch.tensor(inverse_D).to(like).reshape(like.shape)

    def apply(r: torch.Tensor) -> torch.Tensor:
        x = scale * r
        return x - scale * average.T(solve(average(x)))

    return apply


def chebyshev(smooth: LinearMap, apply: LinearMap, degree: int) -> LinearMap:
    """Return the Chebyshev polynomial of a smoother, or the smoother itself where degree is 1.

    It damps the eigenvalues of M S from a quarter of the bound omega upward, and those below less,
    but all of them, so that it is symmetric positive definite and convergent as its base is (Adams,
    Brezina, Hu & Tuminaro 2003, doi:10.1016/S0021-9991(03)00194-3).

    Args:
        smooth: M, one of the smoothers above.
        apply: S.
        degree: Number of times M is applied, at least 1; S one time fewer.
    """
    if degree == 1:
        return smooth
    centre, radius = 0.625 * RELAXATION, 0.375 * RELAXATION

    def polynomial(r: torch.Tensor) -> torch.Tensor:
        step = smooth(r) / centre
        x, ratio = step, radius / centre
        for _ in range(degree - 1):
            next_ratio = 1.0 / (2.0 * centre / radius - ratio)
            residual = smooth(r - apply(x))
            step = next_ratio * ratio * step + 2.0 * next_ratio / radius * residual
            x, ratio = x + step, next_ratio
        return x

    return polynomial

"""Woodbury's formula: fast diagonalisation with the exchange inverted exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from learning.systems.operators import SystemBatch
from mixeddim.tensors import ReducedSystem, sparse_csr

if TYPE_CHECKING:
    from learning.preconditioners.fast_diagonalisation import BoxInverse

__all__ = ["woodbury"]

# Values to invert at once: what fits into a cache, or keeps an accelerator busy in little memory.
_CHUNK_CPU, _CHUNK_OTHER = 2**16, 2**25


def woodbury(
    inverse: BoxInverse, systems: Sequence[ReducedSystem], batch: SystemBatch
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return y -> Π' T Π y, with which F⁻¹ - F⁻¹ Π' T Π F⁻¹ is the inverse of F + Π' C Π.

    C = W B - W B N A_11⁻¹ N' W B = E X E with E = (W B)^(1/2) and X = I - E N A_11⁻¹ N' E, and with
    the factors X = L L' and G = Π F⁻¹ Π', T = E L (I + L' E G E L)⁻¹ L' E.
    """
    most = max(len(system.weights) for system in systems)
    T = batch.g.new_zeros(len(systems), most, most)
    padded = []
    for i, system in enumerate(systems):
        size = len(system.weights)
        T[i, :size, :size] = _capacitance(inverse.of_system(i), system).to(batch.g)
        Pi = system.Pi.sorted_indices()
        Pi.resize(most, Pi.shape[1])
        padded.append(Pi)
    averaging = sparse.block_diag(padded, format="csr")
    Pi = sparse_csr(averaging, batch.g.dtype, batch.g.device)
    Pi_T = sparse_csr(averaging.T.tocsr(), batch.g.dtype, batch.g.device)

    def apply(y: torch.Tensor) -> torch.Tensor:
        means = (Pi @ y.reshape(-1, 1)).reshape(len(T), -1, 1)
        return (Pi_T @ (T @ means).reshape(-1, 1)).reshape(y.shape)

    return apply


def _capacitance(inverse: BoxInverse, system: ReducedSystem) -> torch.Tensor:
    """Return T of one system, shape (num_points, num_points); see `woodbury`."""
    like = inverse.scaling
    E = torch.tensor(np.sqrt(system.weights * system.beta)).to(like)
    rows = torch.tensor(system.Pi.toarray()).to(like)
    Pi = sparse_csr(system.Pi.sorted_indices(), like.dtype, like.device)
    chunk = _CHUNK_CPU if like.device.type == "cpu" else _CHUNK_OTHER
    chunks = rows.split(max(1, chunk // rows.shape[1]))
    images = [Pi @ inverse.apply(rows).mT for rows in chunks]
    G = E[:, None] * torch.cat(images, dim=1) * E
    N, L_11 = (torch.tensor(A).to(like) for A in (system.N.toarray(), system.L_11))
    network = torch.linalg.solve_triangular(L_11, (E[:, None] * N).mT, upper=False)
    one = torch.eye(len(E), dtype=like.dtype, device=like.device)
    # Singular where the network carries no Dirichlet value: kept definite by some rounding errors.
    rounding = 100 * torch.finfo(like.dtype).eps
    L = torch.linalg.cholesky((1.0 + rounding) * one - network.mT @ network)
    inner = torch.linalg.cholesky(one + L.mT @ ((G + G.mT) / 2) @ L)
    half = torch.linalg.solve_triangular(inner, (E[:, None] * L).mT, upper=False)
    return half.mT @ half

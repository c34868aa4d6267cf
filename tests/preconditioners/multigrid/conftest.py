"""Shared by the tests of multigrid: sizes of grids, problems, untrained networks, cycles."""

from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import learning
import mixeddim as md
from learning.preconditioners.multigrid import geometric
from learning.preconditioners.multigrid.learned import LearnedMultigrid, MultigridBounds
from learning.preconditioners.multigrid.smoothers import LEFT, MOST_WORK
from learning.preconditioners.multigrid.stencils import OFFSETS
from learning.problems.stiffness import diffusion_tensor, smooth_field, stiffness
from mixeddim.tensors import nearly_inverse

# --- Of the learned multigrid -----------------------------------------------------------------


@cache
def _geometry(num_cells, kind, seed):
    """Return a system of unit coefficients; meshes are few, for each costs MPI communicators."""
    network = md.create_network(md.random_vascular_graph(12, 0.05, seed, method=kind), 0.15)
    box = md.create_box(num_cells)
    return md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0)))


def _problem(
    num_cells=(4, 5, 4), kind="spanning_tree", seed=0, *, k=1.0, sigma=1.0, k_1d=1.0,
    permeability=1.0, contrast=1.0, anisotropy=1.0, direction=(1.0, 0.0, 0.0),
):  # fmt: skip
    """Return a system of a small grid, its coefficients put in without DOLFINx."""
    system = _geometry(num_cells, kind, seed)
    n = max(num_cells)
    field = smooth_field(n, np.random.default_rng(seed))[tuple(map(slice, num_cells))]
    fibres = np.array(direction) / np.linalg.norm(direction)
    K = stiffness(system.grid, k * contrast**field, diffusion_tensor(anisotropy, fibres))
    exchange = (system.N.T @ system.W @ system.B @ system.N).tocsr()
    A_11 = (k_1d * (system.A_11 - exchange) + permeability * exchange).tocsr()
    return replace(system, K=K, M=sigma * system.M, beta=permeability * system.beta, A_11=A_11)


@pytest.fixture(scope="session")
def problem():
    """Return the function that makes systems."""
    return _problem


@pytest.fixture(scope="session")
def network():
    """Return the function that makes models of the learned multigrid."""

    def make(scale=0.0, seed=0, dtype=torch.float64):
        """Return an untrained model, or one of normal weights of a scale."""
        model = MultigridBounds()
        if scale > 0:
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        return model.to(dtype)

    return make


@contextmanager
def _small_grids():
    """Coarsen down to 30 nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometric, "MOST_COARSE_NODES", 30)
        yield


@pytest.fixture(scope="session")
def small_grids():
    """Return the context in which grids are coarsened down to 30 nodes."""
    return _small_grids


@pytest.fixture(scope="session")
def dense_base():
    """Return the function that makes S_0, of one system whose network stands fast."""

    def make(D, coupling, num_points):
        """Return (D + Pi' Pi)^-1, or a polynomial near it where that costs less than factors."""
        B, row_sums = np.diag(D) + coupling, np.abs(coupling).sum(axis=1)
        condition, exchanges = 1.0 + (row_sums / D).max(), row_sums > 0.0
        if np.sqrt(condition) * np.count_nonzero(exchanges) > MOST_WORK * num_points:
            return np.linalg.inv(B)
        scale = (1.0 / (D + row_sums))[:, None]
        M = nearly_inverse(lambda r: scale * r, lambda v: B @ v, condition, LEFT)(np.eye(len(B)))
        return np.where(exchanges[:, None], M, scale * np.eye(len(B)))

    return make


@pytest.fixture(scope="session")
def setup():
    """Return the function that sets a learned cycle up."""

    def make(model, systems):
        """Set a cycle of several grids up, small as these are."""
        with _small_grids():
            return LearnedMultigrid(model).setup(systems, learning.batch_systems(systems))

    return make


@pytest.fixture(scope="session")
def dense_stencils():
    """Return the function from stencils to a dense matrix."""

    def make(stencils):
        """Return the matrix of stencils (27, nx, ny, nz), entry by entry."""
        shape = stencils.shape[1:]
        A = np.zeros(2 * (int(np.prod(shape)),))
        for node in np.ndindex(shape):
            for o, offset in enumerate(OFFSETS):
                there = np.add(node, offset)
                if np.all((there >= 0) & (there < shape)):
                    row, column = (np.ravel_multi_index(tuple(x), shape) for x in (node, there))
                    A[row, column] = stencils[o, *node]
        return A

    return make

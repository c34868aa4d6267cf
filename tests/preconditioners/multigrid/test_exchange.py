"""Exchange with large networks: products and bounds in place of factors, and no more iterations."""

import numpy as np
import pytest
import torch

import learning
import mixeddim as md
from learning.preconditioners.multigrid import exchange, geometric
from learning.preconditioners.multigrid.geometric import create_hierarchy
from learning.preconditioners.multigrid.learned import RELAXATION
from learning.systems.operators import averaging_matrices, network_bases
from mixeddim.algebra import network_block

CASES = {
    "plain": {},
    "strong": {"permeability": 1e4},
    "vessels that follow": {"permeability": 1e4, "k_1d": 1e-4},
    "well conducting": {"permeability": 1e2, "k_1d": 1e5},
}


@pytest.fixture(autouse=True)
def large(monkeypatch):
    """Take every network for a large one, on several grids."""
    monkeypatch.setattr(exchange, "MOST_FACTORED", 0)
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", 40)


def reduced(num_cells=(6, 5, 6), num_nodes=40, seed=0, **coefficients):
    box = md.create_box(num_cells)
    network = md.create_network(md.random_vascular_graph(num_nodes, 0.05, seed), box.spacing)
    return md.reduce(md.assemble(box, network, md.Coefficients(**{"sigma_3d": 1.0} | coefficients)))


def dense(map_, n):
    return torch.stack([map_(e[None])[0] for e in torch.eye(n, dtype=torch.float64)], 1).numpy()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("few_nodes", [0, 10**6], ids=["whole network", "coarser network"])
def test_each_grid_has_the_exchange_or_more(case, few_nodes, monkeypatch):
    monkeypatch.setattr(network_block, "FEW_NODES", few_nodes)
    system = reduced(num_nodes=150, **CASES[case])
    batch = learning.batch_systems([system])
    hierarchy = create_hierarchy([system], batch, torch.float64)
    order = np.argsort(system.grid.node_of_dof)
    Pi = averaging_matrices([system]).toarray()[:, order]
    N = network_bases([system]).toarray()
    C = np.eye(len(N)) - N @ np.linalg.solve(system.A_11.toarray(), N.T)
    wanted = Pi.T @ C @ Pi
    for depth, level in enumerate(hierarchy.levels):
        n = level.like.shape[1]
        found = dense(level.exchange.apply, n)
        size = abs(wanted).max()
        if few_nodes == 0 or depth == 0:
            np.testing.assert_allclose(found, wanted, atol=1e-9 * size)
        else:
            assert np.linalg.eigvalsh(found - wanted).min() > -1e-9 * size
        np.testing.assert_allclose(level.exchange.diagonal, np.diag(Pi.T @ Pi), atol=1e-12 * size)
        # The smoother is definite and below the inverse of D / omega + Pi' C Pi.
        M = dense(level.exchange.smoother(level.row_sums, RELAXATION), n)
        np.testing.assert_allclose(M, M.T, atol=1e-10 * abs(M).max())
        assert np.linalg.eigvalsh(M).min() > 0
        B = np.diag(level.row_sums / RELAXATION) + wanted
        assert np.linalg.eigvals(M @ B).real.max() <= 1 + 1e-8
        P = dense(level.prolong, int(np.prod([len(x) for x in level.next_axes])))
        wanted, Pi = P.T @ wanted @ P, Pi @ P


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["learned", "geometric"])
def test_iterations_are_those_with_factors(case, name, monkeypatch):
    system = reduced((12, 12, 12), num_nodes=100, seed=1, **CASES[case])
    M = (
        learning.load_pretrained("multigrid")
        if name == "learned"
        else learning.GeometricMultigrid(dtype=torch.float32)
    )
    found = learning.solve(system, M)
    monkeypatch.setattr(exchange, "MOST_FACTORED", 10**9)
    factored = learning.solve(system, M)
    assert found.converged
    # Where exchange is ten thousand times diffusion the bound costs some iterations, and more where
    # the network conducts nothing besides: factors alone know how it follows.
    more = {"strong": 6, "vessels that follow": 18}.get(case, 2)
    assert found.iterations <= factored.iterations + more


def test_a_batch_equals_its_systems_one_by_one(monkeypatch):
    # Else the strongest coupling of a batch says whether all systems take row sums.
    monkeypatch.setattr("learning.preconditioners.multigrid.level.LUMPED", -1.0)
    systems = [reduced(), reduced(num_nodes=60, seed=1, **CASES["vessels that follow"])]
    r = torch.randn(2, len(systems[0].g), generator=torch.Generator().manual_seed(0)).double()
    M = learning.GeometricMultigrid()
    together = M.setup(systems, learning.batch_systems(systems))(r)
    for i, system in enumerate(systems):
        alone = M.setup([system], learning.batch_systems([system]))(r[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-9, atol=1e-12)


def test_no_factor_has_the_size_of_the_points(monkeypatch):
    """On a lattice of vessels the factors are those of the network and of the coarsest grid."""
    from learning.preconditioners.multigrid import network as response

    def fail(*_):
        raise AssertionError("a factor of the size of the points")

    monkeypatch.setattr(response.NetworkResponse, "capacitance", fail)
    monkeypatch.setattr(response.NetworkResponse, "inverse", fail)
    result = learning.solve(reduced(), learning.load_pretrained("multigrid"))
    assert result.converged

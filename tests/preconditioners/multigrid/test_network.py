"""The network's answer in multigrid: equal to dense formulas, and taken where it matters."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import learning
import mixeddim as md
from learning.preconditioners.multigrid import geometric, level
from learning.preconditioners.multigrid.network import NetworkResponse
from learning.preconditioners.multigrid.smoothers import low_rank
from learning.systems.operators import averaging_matrices, network_bases
from learning.systems.sparse import dense_blocks, quasi_definite_solver, sparse_map

FOLLOWING = {"k_1d": 1e-4, "permeability": 10.0}


def reduced(seed=0, num_nodes=6, bcs_1d=None, **coefficients):
    box = md.create_box((5, 4, 6))
    network = md.create_network(md.random_vascular_graph(num_nodes, 0.06, seed), 0.4)
    conditions = {} if bcs_1d is None else {"bcs_1d": bcs_1d}
    parameters = md.Coefficients(**{"sigma_3d": 1.0, **coefficients})
    return md.reduce(md.assemble(box, network, parameters, **conditions))


def response_of(systems):
    return NetworkResponse.of(systems, learning.batch_systems(systems))


def coupling_of(system):
    """C, dense."""
    N = network_bases([system]).toarray()
    return np.eye(len(N)) - N @ np.linalg.solve(system.A_11.toarray(), N.T)


def test_the_network_follows_where_exchange_outweighs_its_conduction():
    plain, following = reduced(), reduced(seed=1, **FOLLOWING)
    assert response_of([plain]).following is None
    both = response_of([plain, following])
    is_zero = (abs(both.following.N).sum(axis=1) == 0).reshape(2, -1)
    assert is_zero[0].all()
    assert not is_zero[1].all()


@pytest.mark.parametrize("bcs_1d", [None, []], ids=["held", "free"])
@pytest.mark.parametrize("num_nodes", [6, 40], ids=["few points", "more points than nodes"])
def test_the_smoother_equals_its_dense_definition(num_nodes, bcs_1d):
    systems = [reduced(num_nodes=num_nodes), reduced(1, num_nodes, bcs_1d, **FOLLOWING)]
    Pi, n = averaging_matrices(systems), len(systems[0].g)
    D = np.random.default_rng(0).uniform(1, 2, 2 * n)
    like = torch.empty(2, n, dtype=torch.float64)
    network = response_of(systems).following
    smooth = low_rank(D, Pi, sparse_map(Pi, like), network, like)
    r = torch.randn(2, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = smooth(r).numpy()
    # The network of the first stands fast.
    for i, C in enumerate((np.eye(len(systems[0].weights)), coupling_of(systems[1]))):
        P = averaging_matrices([systems[i]]).toarray()
        dense = np.diag(D[i * n : (i + 1) * n] / 1.6) + P.T @ C @ P
        np.testing.assert_allclose(found[i], np.linalg.solve(dense, r[i].numpy()), rtol=1e-8)


def test_a_batch_equals_its_systems_one_by_one(monkeypatch):
    # Else the strongest coupling of a batch says whether all systems take row sums.
    monkeypatch.setattr(level, "LUMPED", -1.0)
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", 40)
    systems = [reduced(), reduced(1, **FOLLOWING)]
    r = torch.randn(2, len(systems[0].g), generator=torch.Generator().manual_seed(0)).double()
    M = learning.GeometricMultigrid()
    together = M.setup(systems, learning.batch_systems(systems))(r)
    for i, system in enumerate(systems):
        alone = M.setup([system], learning.batch_systems([system]))(r[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-9, atol=1e-12)


def test_dense_and_sparse_factors_agree():
    """Accelerators take dense ones."""
    response = response_of([reduced(**FOLLOWING), reduced(1, **FOLLOWING)])
    N, A_11 = response.N, response.A_11
    num_points = N.shape[0] // 2
    G = sparse.diags_array(np.random.default_rng(0).uniform(1, 1e6, N.shape[0]))
    like = torch.empty(2, num_points, dtype=torch.float64)
    y = torch.randn(2, num_points, generator=torch.Generator().manual_seed(0)).double()
    found = [quasi_definite_solver(G, N, A_11 - N.T @ N, like, dense)(y) for dense in (False, True)]
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-12)
    [N_0, _], [A_0, _] = dense_blocks(N, 2), dense_blocks(A_11, 2)
    G_0 = np.diag(G.diagonal()[:num_points])
    K = np.block([[G_0, N_0], [N_0.T, N_0.T @ N_0 - A_0]])
    right = np.concatenate([y[0].numpy(), np.zeros(len(A_0))])
    np.testing.assert_allclose(found[0][0], np.linalg.solve(K, right)[:num_points], rtol=1e-6)


def test_iterations_stay_few_where_the_network_follows(monkeypatch):
    """With the network taken for fixed it took more than 40."""
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", 40)
    system = reduced(num_nodes=12, k_1d=1e-5, permeability=1e5, sigma_3d=10.0)
    result = learning.solve(system, learning.GeometricMultigrid())
    assert result.converged
    assert result.iterations <= 12
    fixed = replace(system, N=system.N)
    monkeypatch.setattr(NetworkResponse, "following", None)
    worse = learning.solve(fixed, learning.GeometricMultigrid(), check=False)
    assert worse.iterations > result.iterations

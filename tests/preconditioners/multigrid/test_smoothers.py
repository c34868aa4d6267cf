"""The bases of smoothers: below the inverse, near it, and each system's own in any batch."""

import numpy as np
import pytest
import torch

import learning
import mixeddim as md
from learning import kernels
from learning.preconditioners.multigrid import exchange
from learning.preconditioners.multigrid.exchange import exchange_of
from learning.preconditioners.multigrid.network import NetworkResponse
from learning.preconditioners.multigrid.smoothers import LEFT, are_by_factors, conditions
from learning.systems.operators import averaging_matrices, network_bases

OMEGA = 1.6
EXCHANGE = {
    "weak": {"permeability": 0.02},
    "stronger": {"permeability": 0.1},
    "strong": {"permeability": 1.0},
    "overwhelming": {"permeability": 1e6, "k_1d": 1e8},
    "followed": {"permeability": 10.0, "k_1d": 1e-4},
}
BY_FACTORS = [False, False, False, True, True]


@pytest.fixture(scope="module")
def systems():
    box = md.create_box((5, 4, 6))
    network = md.create_network(md.random_vascular_graph(20, 0.06, 0), 0.4)
    return [
        md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0, **values)))
        for values in EXCHANGE.values()
    ]


def diagonal_of(systems):
    return np.random.default_rng(0).uniform(0.01, 0.02, len(systems) * len(systems[0].g))


def smoother(systems, D, dtype=torch.float64):
    batch = learning.batch_systems(systems)
    like = batch.g.to(dtype)
    return exchange_of(
        averaging_matrices(systems), NetworkResponse.of(systems, batch), like
    ).smoother(D, OMEGA)


def parts_of(systems):
    """Return what the rule sees: conditions, row sums and the number of points."""
    Pi, D = abs(averaging_matrices(systems)), diagonal_of(systems)
    coupling = Pi.T @ Pi.sum(axis=1)
    return conditions(D / OMEGA, coupling, len(systems)), coupling, Pi.shape[0] // len(systems)


@pytest.mark.usefixtures("way")
def test_factors_where_the_network_follows_or_they_cost_less(systems):
    found, coupling, num_points = parts_of(systems)
    network = NetworkResponse.of(systems, learning.batch_systems(systems))
    assert are_by_factors(found, coupling, num_points, network).tolist() == BY_FACTORS
    assert found[0] < found[1] < found[2]  # each has another degree


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("i", range(len(EXCHANGE)), ids=EXCHANGE)
def test_below_the_inverse_and_near_it(systems, i):
    system, n = systems[i], len(systems[0].g)
    D = diagonal_of(systems)[i * n : (i + 1) * n]
    one = torch.eye(n, dtype=torch.float64)
    M = smoother([system], D)
    matrix = torch.cat([M(column[None]) for column in one]).numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * abs(matrix).max())
    Pi, N = averaging_matrices([system]).toarray(), network_bases([system]).toarray()
    C = np.eye(len(N))
    if list(EXCHANGE)[i] == "followed":
        C -= N @ np.linalg.solve(system.A_11.toarray(), N.T)
    eigenvalues = np.linalg.eigvals(matrix @ (np.diag(D / OMEGA) + Pi.T @ C @ Pi)).real
    if BY_FACTORS[i]:
        np.testing.assert_allclose(eigenvalues, 1.0, rtol=1e-6)
    else:
        assert eigenvalues.max() <= 1 + 1e-12
        assert eigenvalues.min() >= (1 - LEFT) / (1 + LEFT)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("most_factored", [3000, 0], ids=["small", "large"])
def test_each_system_is_smoothed_as_if_alone(systems, most_factored, monkeypatch):
    monkeypatch.setattr(exchange, "MOST_FACTORED", most_factored)
    D, n = diagonal_of(systems), len(systems[0].g)
    r = torch.randn(len(systems), n, generator=torch.Generator().manual_seed(0)).double()
    together = smoother(systems, D)(r)
    for i, system in enumerate(systems):
        alone = smoother([system], D[i * n : (i + 1) * n])(r[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(not kernels.ARE_COMPILED, reason="needs numba")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str
)
def test_compiled_and_plain_give_the_same(systems, dtype, tolerance, monkeypatch):
    D = diagonal_of(systems)
    r = torch.randn(len(systems), len(systems[0].g), generator=torch.Generator().manual_seed(0))
    r = r.to(dtype)
    compiled = smoother(systems, D, dtype)(r)
    monkeypatch.setattr(kernels, "ARE_COMPILED", False)
    plain = smoother(systems, D, dtype)(r)
    difference = (compiled - plain).norm(dim=1)
    assert (difference <= tolerance * plain.norm(dim=1)).all()

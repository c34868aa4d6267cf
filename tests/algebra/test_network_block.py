"""Factors of the network block, and coarser bases that never answer more than the network."""

import networkx as nx
import numpy as np
import pytest
from scipy import sparse

from mixeddim.algebra import network_block
from mixeddim.algebra.network_block import coarse_basis, definite_factors, laplacian_solver


def laplacian(graph, mass=1e-3, seed=0):
    """A graph's Laplacian of random weights, with a little mass."""
    rng = np.random.default_rng(seed)
    graph = nx.convert_node_labels_to_integers(graph)
    for _, _, data in graph.edges(data=True):
        data["weight"] = rng.uniform(0.1, 10.0)
    A = sparse.csr_array(nx.laplacian_matrix(graph).astype(float))
    return (A + sparse.diags_array(mass * rng.uniform(1, 2, A.shape[0]))).tocsr()


def subdivided(graph, pieces=4):
    """Each edge cut into pieces, as segments cut vessels."""
    fine, new = nx.Graph(), iter(range(10**6, 2 * 10**6))
    for u, v in graph.edges:
        points = [u, *(next(new) for _ in range(pieces - 1)), v]
        nx.add_path(fine, points)
    return fine


GRAPHS = {
    "lattice": subdivided(nx.grid_graph((4, 4, 4))),
    "tree": nx.random_labeled_tree(200, seed=0),
    "path": nx.path_graph(50),
    "ring": nx.cycle_graph(50),
    "ring and lattice": nx.disjoint_union(
        nx.cycle_graph(20), subdivided(nx.grid_graph((3, 3, 3)), 3)
    ),
    "two chains between two junctions": nx.Graph(
        [(0, 1), (1, 2), (0, 3), (3, 2), (0, 2), (0, 4), (2, 5), (5, 6)]
    ),
    "complete": nx.complete_graph(12),
}


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("shape", [(), (3,)])
def test_factors_solve(kind, shape, monkeypatch):
    monkeypatch.setattr(network_block, "SMALL", 0)
    A = laplacian(GRAPHS[kind])
    x = np.random.default_rng(1).standard_normal((A.shape[0], *shape))
    np.testing.assert_allclose(definite_factors(A)(A @ x), x, rtol=1e-7, atol=1e-7)


def test_chains_leave_the_junctions_alone():
    """Two factorisations, of the chains with hardly any fill-in and of the junctions."""
    A = laplacian(subdivided(nx.grid_graph((12, 12, 12)), 4))
    sizes = []
    plain = network_block._factors

    def count(A, order):
        factors = plain(A, order)
        sizes.append((A.shape[0], factors.L.nnz))
        return factors

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_block, "_factors", count)
        definite_factors(A)
    [(num_chain, chain_entries), (num_junctions, _)] = sizes
    # Corners, edges of the cube and what lies inside vessels have at most two neighbours.
    assert num_chain + num_junctions == A.shape[0]
    assert num_junctions <= 12**3
    assert chain_entries <= 2.5 * num_chain


@pytest.mark.parametrize("small", [0, 1000])
def test_what_is_not_definite_is_refused(small, monkeypatch):
    monkeypatch.setattr(network_block, "SMALL", small)
    A = laplacian(GRAPHS["lattice"]) - sparse.diags_array(np.full(len(GRAPHS["lattice"]), 0.5))
    with pytest.raises(RuntimeError, match="not positive definite"):
        definite_factors(A.tocsr())


@pytest.mark.parametrize("kind", GRAPHS)
def test_multigrid_solves_for_junctions(kind, monkeypatch):
    monkeypatch.setattr(network_block, "SMALL", 0)
    monkeypatch.setattr(network_block, "MOST_JUNCTIONS", 0)
    A = laplacian(GRAPHS[kind])
    x = np.random.default_rng(1).standard_normal(A.shape[0])
    error = laplacian_solver(A)(A @ x) - x
    assert error @ A @ error <= 1e-14 * (x @ A @ x)


@pytest.mark.parametrize("missing", ["pyamg", "convergence"])
def test_factors_take_over_from_multigrid(missing, monkeypatch):
    monkeypatch.setattr(network_block, "MOST_JUNCTIONS", 0)
    if missing == "pyamg":
        monkeypatch.setattr(network_block, "find_spec", lambda _: None)
    monkeypatch.setattr(network_block, "MOST_ITERATIONS", 1)
    A = laplacian(nx.grid_graph((12, 12, 12)))
    x = np.random.default_rng(1).standard_normal(A.shape[0])
    np.testing.assert_allclose(laplacian_solver(A)(A @ x), x, rtol=1e-7, atol=1e-7)


def two_networks():
    """Blocks of the same size with their exchange with 8 nodes, some dofs without any."""
    rng = np.random.default_rng(3)
    n = len(GRAPHS["lattice"])
    blocks = [laplacian(GRAPHS["lattice"], 0.1, seed) for seed in range(2)]
    exchanges = []
    for _ in range(2):
        node = np.arange(n) * 8 // n  # vessel after vessel
        values = rng.uniform(0.1, 1.0, n) * (rng.uniform(size=n) > 0.1)
        E = sparse.coo_array((values, (node, np.arange(n))), shape=(8, n)).tocsr()
        E.eliminate_zeros()
        exchanges.append(E)
    return blocks, exchanges


def test_a_coarse_network_never_answers_more():
    [A, _], [E, _] = two_networks()
    Q = coarse_basis(A, E).toarray()
    assert Q.shape[1] < A.shape[0] / 2
    A = A.toarray()
    answer = Q @ np.linalg.solve(Q.T @ A @ Q, Q.T)
    L = np.linalg.cholesky(A)
    eigenvalues = np.linalg.eigvalsh(L.T @ answer @ L)
    assert eigenvalues.max() <= 1 + 1e-10
    assert (eigenvalues > 0.5).sum() == Q.shape[1]  # a projection


def test_aggregates_are_connected_and_near_one_node():
    [A, _], [E, _] = two_networks()
    indicators = coarse_basis(sparse.diags_array(A.diagonal()).tocsr(), E)
    assert indicators.shape[1] == np.count_nonzero(E.sum(axis=0))  # nothing is connected
    node = np.argmax(E.toarray(), axis=0)
    node[E.sum(axis=0) == 0] = -1
    graph = nx.from_scipy_sparse_array(A)
    graph.remove_edges_from([(u, v) for u, v in graph.edges if node[u] != node[v]])
    graph.remove_nodes_from(np.flatnonzero(node < 0))
    assert coarse_basis(A, E).shape[1] == nx.number_connected_components(graph)


def test_networks_in_a_batch_keep_to_themselves():
    blocks, exchanges = two_networks()
    together = coarse_basis(
        sparse.block_diag(blocks, format="csr"), sparse.block_diag(exchanges, format="csr"), 2
    )
    n, m = blocks[0].shape[0], together.shape[1] // 2
    for i, (A, E) in enumerate(zip(blocks, exchanges, strict=True)):
        alone = coarse_basis(A, E).toarray()
        block = together[i * n : (i + 1) * n].toarray()
        np.testing.assert_array_equal(block[:, i * m : i * m + alone.shape[1]], alone)
        assert np.count_nonzero(block) == np.count_nonzero(alone)

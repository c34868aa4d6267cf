"""Random networks: exact size, the same everywhere, inside the box, obeying their laws."""

import hashlib

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from mixeddim.networks.generators import METHODS, random_vascular_graph
from mixeddim.networks.graphs import (
    edge_indices,
    edge_radii,
    network_statistics,
    node_positions,
    validate_graph,
)

methods = pytest.mark.parametrize("method", sorted(METHODS))
networks = given(
    method=st.sampled_from(sorted(METHODS)),
    num_nodes=st.integers(2, 80),
    seed=st.integers(0, 2**32 - 1),
)


def checksum(graph: nx.Graph) -> str:
    parts = (
        np.round(node_positions(graph), 9) + 0.0,
        edge_indices(graph),
        np.round(edge_radii(graph), 9),
    )
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16]


@pytest.mark.parametrize(
    ("method", "num_nodes", "expected"),
    [
        ("capillary_mesh", 40, "ad9e9e9412c7b0ed"),
        ("murray_tree", 40, "acd67551aa8e18b2"),
        ("spanning_tree", 40, "0cdaad1ba2534403"),
        ("capillary_mesh", 500, "2964e09ead5db094"),
        ("murray_tree", 501, "855f079567e069d7"),
        ("spanning_tree", 500, "9b0489aae50496cf"),
    ],
)
def test_a_seed_gives_the_same_graph_on_every_machine(method, num_nodes, expected):
    assert checksum(random_vascular_graph(num_nodes, 0.05, seed=7, method=method)) == expected


@methods
def test_seeds_differ_and_repeat(method):
    first, again, other = (random_vascular_graph(40, 0.05, seed, method) for seed in (1, 1, 2))
    assert list(first.nodes(data=True)) == list(again.nodes(data=True))
    assert list(first.edges(data=True)) == list(again.edges(data=True))
    assert checksum(first) != checksum(other)


@networks
@settings(max_examples=60, deadline=None)
def test_graphs_are_connected_networks_of_exact_size_within_the_margin(method, num_nodes, seed):
    lower, upper, radius, margin = np.array([-1.0, 0.0, 2.0]), np.array([1.0, 1.0, 2.5]), 0.03, 0.1
    graph = random_vascular_graph(
        num_nodes, radius, seed, method, lower=lower, upper=upper, margin=margin
    )
    assert list(graph) == list(range(num_nodes))
    assert nx.is_connected(graph)
    validate_graph(graph, lower + margin, upper - margin)


@networks
@settings(max_examples=30, deadline=None)
def test_by_default_every_circle_stays_in_the_box(method, num_nodes, seed):
    graph = random_vascular_graph(num_nodes, 0.05, seed, method)
    positions, (u, v) = node_positions(graph), edge_indices(graph).T
    tangents = positions[v] - positions[u]
    tangents /= np.linalg.norm(tangents, axis=1)[:, None]
    reach = edge_radii(graph)[:, None] * np.sqrt(1.0 - np.minimum(tangents**2, 1.0))
    for end in (u, v):
        assert (positions[end] - reach >= 0.0).all()
        assert (positions[end] + reach <= 1.0).all()


@given(num_nodes=st.integers(2, 80), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_murray_tree_obeys_murrays_law_at_every_branching(num_nodes, seed):
    tree = random_vascular_graph(num_nodes, 0.05, seed, "murray_tree")
    assert nx.is_tree(tree)
    assert tree.edges[0, 1]["radius"] == 0.05
    for parent, node in nx.bfs_edges(tree, 0):
        inflow = tree.edges[parent, node]["radius"] ** 3
        outflow = sum(
            tree.edges[node, child]["radius"] ** 3 for child in set(tree[node]) - {parent}
        )
        assert tree.degree[node] <= 3
        assert tree.degree[node] == 1 or outflow == pytest.approx(inflow, rel=1e-13)


def test_murray_tree_is_fed_by_its_root_at_the_lower_face():
    tree = random_vascular_graph(41, 0.05, 3, "murray_tree")
    assert [node for node, inlet in tree.nodes(data="inlet") if inlet] == [0]
    assert tree.nodes[0]["pos"] == pytest.approx((0.5, 0.5, 0.06))
    assert network_statistics(tree).num_ends == 1 + 41 // 2


@pytest.mark.parametrize("num_nodes", [10, 40, 400])
def test_spanning_tree_closes_one_loop_in_ten_nodes(num_nodes):
    for seed in range(5):
        statistics = network_statistics(random_vascular_graph(num_nodes, 0.01, seed))
        assert statistics.num_loops == num_nodes // 10
        assert statistics.num_inlets == num_nodes // 10


@pytest.mark.parametrize("method", ["spanning_tree", "capillary_mesh"])
def test_point_clouds_are_joined_between_their_tree_and_their_relative_neighbours(method):
    graph = random_vascular_graph(60, 0.01, 0, method)
    distances = squareform(pdist(node_positions(graph)))
    farther = np.maximum(distances[:, None, :], distances[None, :, :]).min(axis=2)
    relative_neighbours = nx.from_numpy_array(np.where(farther < distances, 0.0, distances))
    tree = nx.minimum_spanning_tree(nx.from_numpy_array(distances))
    assert tree.edges <= graph.edges <= relative_neighbours.edges


@pytest.mark.parametrize("num_nodes", [40, 300, 2000])
def test_capillary_mesh_has_a_mean_degree_of_about_three(num_nodes):
    graphs = [random_vascular_graph(num_nodes, 0.01, seed, "capillary_mesh") for seed in range(3)]
    degrees = [degree for graph in graphs for _, degree in graph.degree]
    assert np.mean(degrees) == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("method", ["spanning_tree", "capillary_mesh"])
def test_vessels_are_longer_than_wide_in_the_training_distribution(method):
    for seed in range(20):
        graph = random_vascular_graph(40, 0.05, seed, method)
        assert network_statistics(graph).length.minimum > 3 * 0.05


@methods
def test_inlets_are_end_points_where_there_are_enough(method):
    graph = random_vascular_graph(40, 0.05, 7, method)
    inlets = [node for node, inlet in graph.nodes(data="inlet") if inlet]
    assert inlets
    assert all(graph.degree[node] == 1 for node in inlets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_nodes": 1}, "got num_nodes=1; wanted an integer of at least 2"),
        ({"num_nodes": 4.0}, "got num_nodes=4.0; wanted an integer"),
        ({"seed": -1}, "got seed=-1; wanted a non-negative integer"),
        ({"seed": None}, "got seed=None; wanted a non-negative integer"),
        ({"radius": 0.0}, "got radius=0.0; wanted a finite positive number"),
        ({"radius": np.nan}, "got radius=nan; wanted a finite positive number"),
        ({"method": "fractal"}, "'fractal'; wanted one of capillary_mesh, murray_tree, spanning_t"),
        ({"lower": (0.0, 0.0)}, "got a corner of the box at .* wanted three finite"),
        ({"upper": (1.0, np.inf, 1.0)}, "got a corner of the box at .* wanted three finite"),
        ({"margin": -0.1}, "got margin=-0.1; wanted a finite non-negative number"),
        ({"radius": 0.5}, r"sides \[1.0, 1.0, 1.0\]; wanted .* twice the margin of 0.6. Enlarge"),
        ({"upper": (1.0, 1.0, 0.1)}, r"wanted .* twice the margin of 0.06. Enlarge the box"),
    ],
)
def test_errors_say_what_was_got_and_wanted(arguments, message):
    with pytest.raises(ValueError, match=message):
        random_vascular_graph(**({"num_nodes": 10, "radius": 0.05, "seed": 0} | arguments))

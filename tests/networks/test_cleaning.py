"""Cleaning: what each step keeps, removes and reports."""

import math
import os
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixeddim.networks.cleaning import largest_component, merge_close_nodes, resolve_chains
from mixeddim.networks.generators import random_vascular_graph
from mixeddim.networks.graphs import (
    NetworkError,
    edge_lengths,
    mark_ends_as_inlets,
    network_statistics,
    node_positions,
    validate_graph,
)
from mixeddim.networks.io import read_dgf


def resistance(graph, start, end):
    """Return that of the network between two nodes to Poiseuille's flow, in units of 8 μ / π."""
    pairs = zip(graph.edges(data="radius"), edge_lengths(graph), strict=True)
    conducting = nx.Graph()
    for (u, v, radius), length in pairs:
        conducting.add_edge(u, v, resistance=length / radius**4)
    return nx.resistance_distance(conducting, start, end, weight="resistance")


# --- Largest component ------------------------------------------------------------------------


def test_the_longest_component_stays(network):
    graph = network(
        [(0, 0, 0), (1, 0, 0), (0, 5, 0), (0.1, 5, 0), (0.2, 5, 0), (9, 9, 9)],
        [(0, 1, 0.1), (2, 3, 0.1), (3, 4, 0.1)],
    )
    cleaning = largest_component(graph)
    assert list(cleaning.graph.edges(data="radius")) == [(0, 1, 0.1)]
    assert (cleaning.nodes_removed, cleaning.edges_removed) == (4, 2)
    assert cleaning.length_before == pytest.approx(1.2)
    assert cleaning.length_after == pytest.approx(1.0)
    assert str(cleaning) == (
        "largest component: 4 nodes and 2 edges removed, 2 and 1 left; length 1.2 -> 1 (-16.67%)"
    )
    assert graph.number_of_nodes() == 6, "the graph given stays as it is"


# --- Close nodes ------------------------------------------------------------------------------


def test_ends_at_one_point_are_joined(network):
    graph = network(
        [(0, 0, 0), (1, 0, 0), (1, 0, 0), (2, 0, 0), (1, 1e-9, 0), (1, 1, 0)],
        [(0, 1, 0.1), (2, 3, 0.2), (4, 5, 0.3)],
        inlets=[2, 5],
    )
    exact = merge_close_nodes(graph)
    assert list(exact.graph.edges(data="radius")) == [(0, 1, 0.1), (1, 3, 0.2), (4, 5, 0.3)]
    assert exact.graph.nodes[1]["inlet"], "since one of both was"
    close = merge_close_nodes(graph, tolerance=1e-8)
    assert sorted(close.graph) == [0, 1, 3, 5]
    assert (close.nodes_removed, close.edges_removed) == (2, 0)
    validate_graph(close.graph)


def test_short_edges_vanish_and_of_double_ones_the_widest_stays(network):
    graph = network(
        [(0, 0, 0), (1, 0, 0), (1, 0.01, 0), (0, 0.01, 0), (2, 0, 0)],
        [(0, 1, 0.1), (3, 2, 0.2), (1, 2, 0.1), (2, 4, 0.1)],
    )
    cleaning = merge_close_nodes(graph, tolerance=0.02)
    assert list(cleaning.graph.edges(data="radius")) == [(0, 1, 0.2), (1, 4, 0.1)]
    assert (cleaning.nodes_removed, cleaning.edges_removed) == (2, 2)
    assert cleaning.length_after == pytest.approx(2.0)


def test_flow_keeps_its_direction_where_the_order_of_the_ends_turns(network):
    graph = network([(2, 0, 0), (1, 0, 0), (0, 0, 0), (2, 0, 0)], [(0, 1, 0.1)])
    graph.edges[0, 1]["name"] = 7  # lost with the narrower of both
    graph.add_edge(1, 3, radius=0.2, flow=5.0)  # towards x = 2, which is also node 0
    merged = merge_close_nodes(graph).graph
    assert merged.edges[0, 1] == {"radius": 0.2, "flow": -5.0}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.3))
def test_merged_nodes_lie_farther_apart_than_the_tolerance(network, seed, tolerance):
    rng = np.random.default_rng(seed)
    graph = network(rng.random((20, 3)), [(i, i + 1, 0.1) for i in range(19)])
    merged = merge_close_nodes(graph, tolerance).graph
    kept = node_positions(merged)
    # Of each group the first stays, so that others of it may link two groups' first nodes only
    # if they are one group: no two first nodes are within the tolerance.
    distances = np.linalg.norm(kept[:, None] - kept, axis=2)
    assert (distances[np.triu_indices(len(kept), 1)] > tolerance).all()
    assert set(merged) <= set(graph)


# --- Chains -----------------------------------------------------------------------------------


def test_a_straight_chain_becomes_an_edge_of_its_resistance(network):
    graph = network(
        [(0, 0, 0), (1, 0, 0), (3, 0, 0), (4, 0, 0)], [(0, 1, 0.1), (1, 2, 0.2), (2, 3, 0.1)]
    )
    cleaning = resolve_chains(graph, tolerance=0.0)
    ((u, v, radius),) = cleaning.graph.edges(data="radius")
    assert (u, v) == (0, 3)
    assert 4 / radius**4 == pytest.approx(1 / 0.1**4 + 2 / 0.2**4 + 1 / 0.1**4)
    assert (cleaning.nodes_removed, cleaning.edges_removed) == (2, 2)
    assert cleaning.length_after == cleaning.length_before == 4.0


def test_only_bends_beyond_the_tolerance_stay(network):
    heights = [0.0, 0.02, 0.5, 0.24, 0.0]
    graph = network(
        [(x, height, 0) for x, height in enumerate(heights)], [(i, i + 1, 0.1) for i in range(4)]
    )
    assert list(resolve_chains(graph, 0.3).graph) == [0, 2, 4]
    assert list(resolve_chains(graph, 0.1).graph) == [0, 1, 2, 4]
    assert list(resolve_chains(graph, 0.6).graph) == list(resolve_chains(graph).graph) == [0, 4]


def test_inlets_junctions_and_ends_stay(network):
    graph = network(
        [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 1, 0), (4, -1, 0)],
        [(0, 1, 0.1), (1, 2, 0.1), (2, 3, 0.1), (3, 4, 0.1), (3, 5, 0.1)],
        inlets=[1],
    )
    assert sorted(resolve_chains(graph).graph.edges) == [(0, 1), (1, 3), (3, 4), (3, 5)]


@pytest.mark.parametrize("num_nodes", [3, 4, 7])
def test_a_ring_becomes_a_triangle(num_nodes, network):
    angles = np.linspace(0, 2 * np.pi, num_nodes, endpoint=False)
    positions = np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    ring = network(positions, [(i, (i + 1) % num_nodes, 0.1) for i in range(num_nodes)])
    straight = resolve_chains(ring).graph
    assert len(straight) == straight.number_of_edges() == 3
    assert all(degree == 2 for _, degree in straight.degree)


def test_loops_and_parallel_vessels_do_not_collapse(network):
    graph = network(
        [(0, 0, 0), (1, 0, 0), (0.5, 0.5, 0), (0.5, -0.5, 0), (2, 0, 0), (2, 1, 0), (3, 1, 0)],
        [(0, 1, 0.1), (0, 2, 0.1), (2, 1, 0.1), (0, 3, 0.1), (3, 1, 0.1),
         (1, 4, 0.1), (4, 5, 0.1), (5, 6, 0.1), (6, 4, 0.1)],
    )  # fmt: skip
    assert nx.utils.graphs_equal(resolve_chains(graph).graph, graph)


def test_attributes_that_a_chain_agrees_on_are_kept(network):
    graph = network([(0, 0, 0), (2, 0, 0), (1, 0, 0), (3, 0, 0)], [])
    graph.add_edge(0, 2, radius=0.1, flow=2.0, kind=1, name=4)
    graph.add_edge(1, 2, radius=0.1, flow=-2.0, kind=1, name=5)  # from 2 to 1
    graph.add_edge(1, 3, radius=0.1, flow=2.0, kind=1)
    straight = resolve_chains(graph).graph
    assert straight.edges[0, 3] == {"radius": pytest.approx(0.1), "flow": 2.0, "kind": 1}


def test_arrays_that_a_chain_agrees_on_are_kept(network):
    graph = network([(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(0, 1, 0.1), (1, 2, 0.1)])
    for number, edge in enumerate(graph.edges):
        graph.edges[edge].update(profile=np.array([1.0, 2.0]), other=np.array([number, 2.0]))
    attributes = resolve_chains(graph).graph.edges[0, 2]
    assert attributes.keys() == {"radius", "profile"}
    np.testing.assert_array_equal(attributes["profile"], [1.0, 2.0])


@pytest.mark.parametrize("end", [(0, 0, 0), (1, 0, 0)])
def test_a_chain_between_ends_at_one_point_is_explained(end, network):
    graph = network([(0, 0, 0), end, (0, 0, 0)], [(0, 1, 0.1), (1, 2, 0.1)])
    message = r"got a chain of 2 edges from node 0 to node 2, .* Call merge_close_nodes first"
    with pytest.raises(NetworkError, match=message):
        resolve_chains(graph)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["spanning_tree", "murray_tree", "capillary_mesh"]),
    st.floats(0, 0.2),
)
def test_chains_of_random_networks(seed, method, tolerance):
    """Topology and resistances stay; each point stays as near as asked for."""
    graph = random_vascular_graph(16, 0.02, seed=seed, method=method)
    rng = np.random.default_rng(seed)
    for edge in graph.edges:
        graph.edges[edge]["radius"] *= rng.uniform(0.5, 1)
    straight = resolve_chains(graph, tolerance).graph
    validate_graph(straight)
    before, after = network_statistics(graph), network_statistics(straight)
    for name in ("num_components", "num_loops", "num_inlets", "num_ends", "num_junctions"):
        assert getattr(after, name) == getattr(before, name)
    assert after.total_length <= before.total_length * (1 + 1e-12)
    stops = [node for node, degree in graph.degree if degree != 2]
    assert resistance(straight, stops[0], stops[-1]) == pytest.approx(
        resistance(graph, stops[0], stops[-1]), rel=1e-9
    )
    points = node_positions(straight)
    start, end = (
        points[[list(straight).index(edge[i]) for edge in straight.edges]] for i in (0, 1)
    )
    for node in set(graph) - set(straight):
        assert _distance(np.array(graph.nodes[node]["pos"]), start, end) <= tolerance + 1e-12


def _distance(point, start, end):
    along = end - start
    t = np.clip(((point - start) * along).sum(1) / (along**2).sum(1), 0, 1)
    return np.linalg.norm(point - start - t[:, None] * along, axis=1).min()


@pytest.mark.parametrize("step", [largest_component, merge_close_nodes, resolve_chains])
def test_a_graph_without_edges_is_explained(step, network):
    with pytest.raises(ValueError, match=r"got a graph without an edge; wanted a network"):
        step(network([(0, 0, 0)], []))


@pytest.mark.parametrize("step", [largest_component, merge_close_nodes, resolve_chains])
@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiGraph])
def test_other_kinds_of_graph_are_refused(step, kind, fork):
    with pytest.raises(ValueError, match=rf"got a {kind.__name__}; wanted an undirected networkx"):
        step(kind(fork))


@pytest.mark.parametrize("step", [merge_close_nodes, resolve_chains])
@pytest.mark.parametrize("tolerance", [-1.0, math.nan])
def test_senseless_tolerances_are_explained(step, tolerance, fork):
    with pytest.raises(ValueError, match=r"got tolerance=.*; wanted zero or more. Pass a length"):
        step(fork, tolerance)


def test_a_tolerance_that_leaves_no_edge_is_explained(fork):
    with pytest.raises(ValueError, match="got tolerance=9, which merges the whole network into 1"):
        merge_close_nodes(fork, 9)


def test_cleaning_the_mouse_cortex_leaves_a_network_to_solve_on():
    path = Path(os.environ.get("MIXEDDIM_DATA", "")) / "mouse_cortex" / "network.dgf"
    if not path.is_file():
        pytest.skip(f"no file {path}; set MIXEDDIM_DATA to the folder of published networks")
    merged = merge_close_nodes(read_dgf(path, edge_parameters={"radius": 0}), 1e-6)
    connected = largest_component(merged.graph)
    straight = resolve_chains(connected.graph, 0.5e-6)
    statistics = network_statistics(straight.graph)
    validate_graph(mark_ends_as_inlets(straight.graph))
    assert statistics.num_components == 1
    assert 1735 - statistics.num_edges == sum(
        step.edges_removed for step in (merged, connected, straight)
    )
    assert straight.length_after == pytest.approx(straight.length_before, rel=5e-3)

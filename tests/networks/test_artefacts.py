"""Artefacts of segmentation: which spurs go, what counts as a hub, edges without length."""

from functools import partial

import networkx as nx
import pytest

from mixeddim.networks.artefacts import find_hubs, prune_spurs, remove_empty_edges
from mixeddim.networks.graphs import NetworkError, validate_graph


@pytest.fixture
def rough_vessel(network):
    """A vessel along x of radius 0.2 and 0.4, with a spur of two edges, 0.3 long, at x = 1."""
    return partial(
        network,
        [(0, 0, 0), (1, 0, 0), (2, 0, 0), (1, 0.1, 0), (1, 0.3, 0)],
        [(0, 1, 0.2), (1, 2, 0.4), (1, 3, 0.5), (3, 4, 0.5)],
    )


# --- Spurs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("multiple", "left"), [(0.7, 5), (0.8, 3)])
def test_a_chain_shorter_than_the_widest_other_vessels_radius_goes(multiple, left, rough_vessel):
    graph = rough_vessel(inlets=[0])
    cleaning = prune_spurs(graph, multiple)  # 0.3 is 0.75 of 0.4; its own 0.5 does not count
    assert len(cleaning.graph) == left
    assert len(graph) == 5, "the graph given stays as it is"


def test_the_report_counts_what_went(rough_vessel):
    cleaning = prune_spurs(rough_vessel(inlets=[0]))
    assert str(cleaning) == (
        "spurs shorter than 1 radii pruned: 2 nodes and 2 edges removed, 3 and 2 left; "
        "length 2.3 -> 2 (-13.04%)"
    )
    validate_graph(cleaning.graph)


@pytest.mark.parametrize("node", [3, 4])
def test_inlets_and_nodes_to_keep_stay(node, rough_vessel):
    assert len(prune_spurs(rough_vessel(inlets=[node])).graph) == 5
    assert len(prune_spurs(rough_vessel(), keep=[node]).graph) == 5


def test_of_two_tips_the_longer_stays(network):
    graph = network(
        [(0, 0, 0), (1, 0, 0), (1.1, 0.1, 0), (1.2, -0.1, 0)],
        [(0, 1, 0.5), (1, 2, 0.5), (1, 3, 0.5)],
        inlets=[0],
    )
    assert list(prune_spurs(graph).graph) == [0, 1, 3]


def test_spurs_on_spurs_go_too(rough_vessel):
    """The twig at node 3 goes first; what is left of its spur is one chain of length 0.3."""
    graph = rough_vessel(inlets=[0])
    graph.add_node(5, pos=(1.05, 0.1, 0.0), inlet=False)
    graph.add_edge(3, 5, radius=0.1)
    assert list(prune_spurs(graph).graph) == [0, 1, 2]


def test_a_vessel_alone_and_rings_stay(network):
    line = network([(0, 0, 0), (0.1, 0, 0)], [(0, 1, 1.0)])
    assert len(prune_spurs(line).graph) == 2
    ring = network([(0, 0, 0), (0.1, 0, 0), (0, 0.1, 0)], [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0)])
    assert len(prune_spurs(ring).graph) == 3


@pytest.mark.parametrize("multiple", [0.0, -1.0, float("nan"), float("inf")])
def test_senseless_multiples_are_explained(multiple, fork):
    with pytest.raises(ValueError, match=r"got shorter_than=.*; wanted a finite positive number"):
        prune_spurs(fork, multiple)


def test_an_unknown_node_to_keep_is_explained(fork):
    with pytest.raises(ValueError, match="got keep with 'x', which is no node of the graph"):
        prune_spurs(fork, keep=["x"])


# --- Hubs -------------------------------------------------------------------------------------


def test_hubs_are_nodes_of_degree_above_four():
    assert find_hubs(nx.star_graph(4)).degrees == {}
    assert str(find_hubs(nx.star_graph(4))) == "nodes of degree above 4: 0"
    both = nx.disjoint_union(nx.star_graph(5), nx.star_graph(6))
    assert find_hubs(both).degrees == {6: 6, 0: 5}
    assert str(find_hubs(both)) == "nodes of degree above 4: 2: 6 (6), 0 (5)"
    assert find_hubs(nx.star_graph(3), more_than=2).degrees == {0: 3}


# --- Edges without length -----------------------------------------------------------------------


def test_self_loops_vanish_and_edges_without_length_are_contracted(network):
    graph = network(
        [(0, 0, 0), (1, 0, 0), (1, 0, 0), (2, 0, 0), (2, 0, 1e-14), (1, 1, 0), (5, 5, 5)],
        [(0, 1, 0.1), (1, 2, 0.9), (2, 3, 0.2), (3, 4, 0.9), (2, 5, 0.3), (1, 5, 0.1), (0, 0, 0.5),
         (6, 6, 0.5)],
        inlets=[4],
    )  # fmt: skip
    cleaning = remove_empty_edges(graph)
    assert sorted(cleaning.graph.edges(data="radius")) == [(0, 1, 0.1), (1, 3, 0.2), (1, 5, 0.3)]
    assert cleaning.graph.nodes[3]["inlet"], "as the node at its place was"
    assert cleaning.step == "4 edges without length removed"
    assert (cleaning.nodes_removed, cleaning.edges_removed) == (3, 5)
    validate_graph(cleaning.graph)


def test_points_that_no_edge_links_stay_apart(network):
    graph = network([(0, 0, 0), (1, 0, 0), (1, 0, 0), (2, 0, 0)], [(0, 1, 0.1), (2, 3, 0.1)])
    cleaning = remove_empty_edges(graph)
    assert (cleaning.nodes_removed, cleaning.edges_removed) == (0, 0)


def test_a_graph_of_empty_edges_is_explained(network):
    graph = network([(0, 0, 0), (0, 0, 0)], [(0, 1, 0.1)])
    with pytest.raises(ValueError, match="got a graph of 1 edges, none of which has a length"):
        remove_empty_edges(graph)


@pytest.mark.parametrize("step", [prune_spurs, remove_empty_edges])
def test_a_missing_radius_is_named(step, fork):
    graph = fork.copy()
    u, v = next(iter(graph.edges))
    del graph.edges[u, v]["radius"]
    with pytest.raises(NetworkError, match=r"has radius None; wanted a finite positive number"):
        step(graph)

"""The contract of networks: arrays, checks, statistics, measured on graphs built by hand."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixeddim.networks.graphs import (
    NetworkError,
    Spread,
    check_inlets,
    edge_indices,
    edge_lengths,
    edge_radii,
    inlet_mask,
    mark_ends_as_inlets,
    network_statistics,
    node_positions,
    validate_graph,
)


def fork() -> nx.Graph:
    """Return a Y of three vessels with labels of several types; "a" is its inlet."""
    graph = nx.Graph()
    graph.add_node("a", pos=(0.0, 0.0, 0.0), inlet=True)
    graph.add_node(1, pos=[0.0, 0.0, 1.0])
    graph.add_node((2, "b"), pos=np.array([0.0, 3.0, 5.0]), inlet=False)
    graph.add_node("c", pos=(0, 0, 3))
    graph.add_edge("a", 1, radius=0.2)
    graph.add_edge(1, (2, "b"), radius=0.1)
    graph.add_edge("c", 1, radius=0.1)
    return graph


# --- Attributes as arrays ---------------------------------------------------------------------


def test_arrays_come_in_the_order_of_nodes_and_edges():
    graph = fork()
    nodes = list(graph)
    assert nodes == ["a", 1, (2, "b"), "c"]
    np.testing.assert_array_equal(
        node_positions(graph), [[0, 0, 0], [0, 0, 1], [0, 3, 5], [0, 0, 3]]
    )
    np.testing.assert_array_equal(inlet_mask(graph), [True, False, False, False])
    assert [(nodes[u], nodes[v]) for u, v in edge_indices(graph)] == list(graph.edges)
    np.testing.assert_array_equal(edge_radii(graph), [0.2, 0.1, 0.1])
    np.testing.assert_array_equal(edge_lengths(graph), [1.0, 5.0, 2.0])


def test_arrays_have_fixed_types_even_when_empty():
    graph = nx.Graph()
    assert node_positions(graph).shape == (0, 3)
    assert edge_indices(graph).shape == (0, 2)
    assert edge_indices(graph).dtype == np.int64
    assert edge_radii(graph).shape == edge_lengths(graph).shape == (0,)
    assert inlet_mask(graph).dtype == np.bool_


# --- Validation -------------------------------------------------------------------------------


def test_valid_graphs_pass():
    validate_graph(fork())
    validate_graph(fork(), lower=(0, 0, 0), upper=(0, 3, 5))


def forget(graph, node, key):
    del graph.nodes[node][key]


def join(graph, u, v, radius=0.1):
    graph.add_edge(u, v, radius=radius)


def add_component(graph, node, position, other, other_position):
    graph.add_node(node, pos=position)
    graph.add_node(other, pos=other_position)
    join(graph, node, other)


BROKEN = {
    "no position": (
        lambda graph: forget(graph, 1, "pos"),
        r"node 1 has position None; wanted three numbers. Set graph.nodes\[1\]\['pos'\]",
    ),
    "two coordinates": (
        lambda graph: graph.nodes["c"].update(pos=(0.0, 1.0)),
        r"node 'c' has position \(0.0, 1.0\); wanted three numbers",
    ),
    "a word for a position": (
        lambda graph: graph.nodes["c"].update(pos="origin"),
        "node 'c' has position 'origin'; wanted three numbers",
    ),
    "non-finite position": (
        lambda graph: graph.nodes[1].update(pos=(0.0, np.nan, np.inf)),
        r"node 1 has position \(0, nan, inf\); wanted finite numbers",
    ),
    "inlet is no bool": (
        lambda graph: graph.nodes["a"].update(inlet="false"),
        r"node 'a' has inlet 'false'; wanted True or False. Set graph.nodes\['a'\]\['inlet'\]",
    ),
    "no radius": (
        lambda graph: graph.edges["a", 1].pop("radius"),
        r"edge \('a', 1\) has radius None; wanted a finite positive .* graph.edges\['a', 1\]",
    ),
    "a word for a radius": (
        lambda graph: join(graph, "a", 1, "thin"),
        r"edge \('a', 1\) has radius 'thin'; wanted a finite positive number",
    ),
    "negative radius": (
        lambda graph: join(graph, 1, "c", -0.1),
        r"edge \(1, 'c'\) has radius -0.1; wanted a finite positive number",
    ),
    "zero radius": (lambda graph: join(graph, 1, "c", 0.0), "has radius 0.0; wanted"),
    "infinite radius": (lambda graph: join(graph, 1, "c", np.inf), "has radius inf; wanted"),
    "undefined radius": (lambda graph: join(graph, 1, "c", np.nan), "has radius nan; wanted"),
    "self loop": (
        lambda graph: join(graph, "c", "c"),
        r"edge \('c', 'c'\) is a self loop; wanted two distinct ends. Call graph.remove_edge",
    ),
    "isolated node": (
        lambda graph: graph.add_node("lost", pos=(9.0, 9.0, 9.0)),
        r"node 'lost' is isolated; wanted an edge at every node. Call graph.remove_node\('lost'\)",
    ),
    "zero length": (
        lambda graph: graph.nodes["c"].update(pos=(0.0, 0.0, 1.0)),
        r"edge \(1, 'c'\) has length 0; wanted a positive length. Contract it",
    ),
    "duplicate points": (
        lambda graph: graph.nodes["c"].update(pos=(0.0, 0.0, 0.0)),
        r"nodes 'a' and 'c' are at the same position \(0, 0, 0\); wanted distinct points",
    ),
    "nearly duplicate points": (
        lambda graph: graph.nodes["c"].update(pos=(0.0, 0.0, 1e-13)),
        r"nodes 'a' and 'c' are at the same position \(0, 0, 0\)",
    ),
}


@pytest.mark.parametrize(("breaking", "message"), BROKEN.values(), ids=BROKEN)
def test_validation_says_what_is_wrong(breaking, message):
    graph = fork()
    breaking(graph)
    with pytest.raises(NetworkError, match=message):
        validate_graph(graph)


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (
            lambda graph: forget(graph, "a", "inlet"),
            r"component of node 'a' \(4 nodes\) has no inlet; wanted one in each component",
        ),
        (
            lambda graph: add_component(graph, 8, (1.0, 1.0, 1.0), 9, (2.0, 1.0, 1.0)),
            r"component of node 8 \(2 nodes\) has no inlet; .* use mark_ends_as_inlets\(graph\)",
        ),
    ],
    ids=["none", "none in one component"],
)
def test_missing_inlets_are_named_where_they_are_asked_for(breaking, message):
    graph = fork()
    check_inlets(graph)
    breaking(graph)
    validate_graph(graph)
    with pytest.raises(NetworkError, match=message):
        check_inlets(graph)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            nx.MultiGraph([(0, 1), (1, 2), (1, 2)]),
            r"keep one of the 2 edges between 1 and 2: put a node .* mixeddim\.from_skeleton",
        ),
        (
            nx.DiGraph([(0, 1), (1, 2), (2, 1)]),
            "keep one of the 2 edges between 1 and 2: .* whichever way they point",
        ),
        (nx.DiGraph([(0, 1)]), r"Convert it with networkx\.Graph\(graph\)"),
        (nx.MultiGraph([(3, 3), (3, 3)]), "keep one of the 2 edges between 3 and 3"),
    ],
)
def test_no_advice_loses_a_vessel(graph, message):
    with pytest.raises(NetworkError, match=message):
        validate_graph(graph)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.DiGraph(fork()), "got a DiGraph; wanted an undirected networkx.Graph"),
        (nx.MultiGraph(fork()), "got a MultiGraph; .* without parallel edges. Convert it"),
        (nx.MultiDiGraph(fork()), "got a MultiDiGraph; wanted"),
        ([(0, 1)], "got a list; wanted an undirected networkx.Graph"),
        (nx.Graph(), "the graph has 0 nodes and no edge; wanted at least one"),
        (nx.empty_graph(2), "the graph has 2 nodes and no edge; .* graph.add_edge"),
    ],
    ids=["directed", "multigraph", "directed multigraph", "list", "empty", "no edge"],
)
@pytest.mark.parametrize("check", [validate_graph, network_statistics])
def test_other_structures_are_refused(check, graph, message):
    with pytest.raises(NetworkError, match=message):
        check(graph)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ({"upper": (1, 1, 4)}, r"node \(2, 'b'\) at \(0, 3, 5\) .* upper corner is \(1, 1, 4\)"),
        ({"lower": (0, 0, 0.5)}, r"node 'a' at \(0, 0, 0\) .* lower corner is \(0, 0, 0.5\)"),
        ({"lower": (0.1, 0, 0), "upper": (1, 1, 1)}, "wanted it inside. Enlarge the box, or move"),
    ],
    ids=["above", "below", "both"],
)
def test_nodes_outside_the_box_are_named(box, message):
    with pytest.raises(NetworkError, match=message):
        validate_graph(fork(), **box)


@given(st.permutations(range(5)), st.sampled_from([0, 2]))
@settings(max_examples=30, deadline=None)
def test_validation_does_not_depend_on_the_order_of_nodes(order, inlet):
    graph = nx.Graph()
    graph.add_nodes_from(order)
    nx.add_path(graph, range(5), radius=0.1)
    for node in graph:
        graph.nodes[node].update(pos=(float(node), 0.0, 0.0), inlet=node == inlet)
    validate_graph(graph)
    graph.nodes[4]["pos"] = graph.nodes[0]["pos"]
    with pytest.raises(NetworkError, match="same position"):
        validate_graph(graph)


# --- Changed copies ---------------------------------------------------------------------------


def test_every_end_becomes_an_inlet_of_a_copy():
    graph = fork()
    graph.nodes[1]["inlet"] = True
    marked = mark_ends_as_inlets(graph)
    assert inlet_mask(marked).all()
    np.testing.assert_array_equal(inlet_mask(graph), [True, True, False, False])


# --- Statistics -------------------------------------------------------------------------------


def test_statistics_of_a_fork():
    statistics = network_statistics(fork())
    assert (statistics.num_nodes, statistics.num_edges) == (4, 3)
    assert (statistics.num_components, statistics.num_loops) == (1, 0)
    assert (statistics.num_inlets, statistics.num_ends, statistics.num_junctions) == (1, 3, 1)
    assert statistics.length == Spread(1.0, 2.0, 5.0)
    assert statistics.radius == Spread(0.1, 0.1, 0.2)
    assert statistics.total_length == 8.0
    assert statistics.wall_area == pytest.approx(2 * np.pi * (0.2 * 1 + 0.1 * 5 + 0.1 * 2))
    assert statistics.volume == pytest.approx(np.pi * (0.04 * 1 + 0.01 * 5 + 0.01 * 2))


def test_statistics_of_two_rings():
    graph = nx.disjoint_union(nx.cycle_graph(3), nx.complete_graph(4))
    for node in graph:
        graph.nodes[node]["pos"] = (np.cos(node), np.sin(node), float(node))
    nx.set_edge_attributes(graph, 0.1, "radius")
    statistics = network_statistics(graph)
    assert (statistics.num_components, statistics.num_loops) == (2, 1 + 3)
    assert (statistics.num_inlets, statistics.num_ends, statistics.num_junctions) == (0, 0, 4)


def test_statistics_print_as_a_table():
    assert str(network_statistics(fork())).splitlines() == [
        "nodes         4 (1 inlets, 3 ends, 1 junctions)",
        "edges         3 (1 components, 0 loops)",
        "edge length   1 / 2 / 5 (min / median / max)",
        "edge radius   0.1 / 0.1 / 0.2 (min / median / max)",
        "total length  8",
        "wall area     5.655",
        "volume        0.3456",
    ]

"""Skeletons of images: lengths, radii, parallel vessels, loops, orientation, messages."""

import networkx as nx
import numpy as np
import pytest

from mixeddim.networks.cleaning import resolve_chains
from mixeddim.networks.graphs import NetworkError, network_statistics, validate_graph
from mixeddim.networks.skeletons import from_skeleton

SIZE = (2.0, 1.0, 0.5)  # of a voxel along z, y, x


def skeleton():
    """Nodes at x = 0, 8, 12, with two vessels between the first two; pts as sknw writes them."""
    graph = nx.MultiGraph()
    for node, x in enumerate((0, 8, 12)):
        graph.add_node(node, o=np.array([1, 1, x]), pts=np.array([[1, 1, x]], dtype=np.int16))
    straight = np.array([[1, 1, x] for x in range(9)], dtype=np.int16)
    around = np.array([[1, 1, 8], [1, 4, 8], [1, 4, 0], [1, 1, 0]])  # runs from node 1 to node 0
    graph.add_edge(0, 1, pts=straight, weight=8.0, wide=0.2)
    graph.add_edge(0, 1, pts=around, weight=14.0, wide=np.array([0.1, 0.2, 0.3, 0.5]))
    graph.add_edge(1, 2, pts=np.empty((0, 3)), wide=0.3)
    return graph


def test_lengths_radii_and_both_parallel_vessels():
    graph = from_skeleton(skeleton(), radius="wide", axes="zyx", voxel_size=SIZE)
    graph.nodes[0]["inlet"] = True
    validate_graph(graph)
    assert graph.nodes[1]["pos"] == (4.0, 1.0, 2.0)
    assert graph.edges[1, 2] == {"radius": 0.3}
    statistics = network_statistics(graph)
    assert statistics.num_nodes == 3 + 7 + 2
    assert statistics.num_loops == 1
    assert statistics.total_length == pytest.approx(4 + (3 + 4 + 3) + 2)
    radii = [0.4, 0.25, 0.15]  # from node 0: the means of neighbours in `wide`, turned round
    around = 3 * radii[0] ** 2 + 4 * radii[1] ** 2 + 3 * radii[2] ** 2
    assert statistics.volume == pytest.approx(np.pi * (4 * 0.2**2 + around + 2 * 0.3**2))


def test_straight_parallel_vessels_stay_apart():
    graph = nx.MultiGraph()
    graph.add_node("a", pos=(0, 0, 0), inlet=True)
    graph.add_node("b", pos=(0, 0, 6))
    graph.add_edges_from([("a", "b")] * 4)
    network = from_skeleton(graph, radius=0.5, axes="zyx")
    validate_graph(network)
    statistics = network_statistics(network)
    assert statistics.num_loops == 3
    assert statistics.total_length == pytest.approx(24)
    assert network.nodes["a"]["inlet"]


def test_a_self_loop_becomes_a_ring():
    graph = skeleton()
    ring = np.array([[1, 1, 12], [1, 1, 16], [1, 5, 12], [1, 1, 12]])
    graph.add_edge(2, 2, pts=ring, wide=0.1)
    network = from_skeleton(graph, radius="wide", axes="zyx")
    statistics = network_statistics(network)
    assert statistics.num_loops == 2
    assert statistics.total_length == pytest.approx(8 + 14 + 4 + 8 + np.hypot(4, 4))


def test_other_axes_and_simple_graphs():
    graph = nx.Graph([(0, 1, {"pts": [[0, 3, 0], [0, 3, 4]]})])
    graph.nodes[0]["pts"] = [[0, 0, 5], [0, 0, 3]]  # their mean counts
    graph.nodes[1]["pos"] = [0, 0, 0]
    network = from_skeleton(graph, radius=1.0, axes="yxz", voxel_size=(5, 2, 1))
    assert [data["pos"] for _, data in network.nodes(data=True)] == [
        (0, 0, 4), (0, 0, 0), (6, 0, 4), (6, 0, 0)
    ]  # fmt: skip
    assert set(map(frozenset, network.edges)) == {*map(frozenset, [(0, 2), (2, 3), (3, 1)])}


def test_staircases_are_straightened_afterwards():
    steps = np.array([[0, (i + 1) // 2, i // 2] for i in range(41)])
    graph = nx.Graph([(0, 1, {"pts": steps})])
    graph.nodes[0]["o"], graph.nodes[1]["o"] = steps[0], steps[-1]
    network = from_skeleton(graph, radius=1.0, axes="zyx")
    assert network_statistics(network).total_length == pytest.approx(40)
    assert resolve_chains(network, 1.0).length_after == pytest.approx(20 * 2**0.5)


def changed(edge=(0, 1, 0), node=None, **attributes):
    graph = skeleton()
    (graph.nodes[node] if node is not None else graph.edges[edge]).update(attributes)
    return graph


def bare_node():
    graph = skeleton()
    graph.nodes[1].clear()
    return graph


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            changed(wide=None),
            r"edge \(0, 1, 0\) has radius None; .* each of its 9 pts. Pass radius=",
        ),
        (changed(wide=[1, 2, 3, 4]), r"has radius an array of shape \(4,\); wanted a finite pos"),
        (changed(wide=-1.0), r"has radius -1.0; wanted"),
        (changed(pts=np.zeros((4, 2))), r"edge \(0, 1, 0\) has pts of shape \(4, 2\); .* a plane"),
        (changed(node=1, o=[1, 2]), r"node 1 has o of shape \(2,\); wanted .* third axis"),
        (changed(node=1, o=[1, 2, np.nan]), "node 1 has o of shape .* three finite numbers"),
        (bare_node(), "node 1 has neither o, pts nor pos; wanted its point. Set"),
        (nx.DiGraph([(0, 1)]), "got a DiGraph; wanted an undirected networkx.Graph or MultiGraph"),
        (nx.empty_graph(3), "got a skeleton of 3 nodes and no edge"),
    ],
)
def test_messages_name_node_or_edge(graph, message):
    with pytest.raises(NetworkError, match=message):
        from_skeleton(graph, radius="wide", axes="zyx")


def test_a_loop_without_a_centre_line_is_explained():
    graph = skeleton()
    graph.add_edge(2, 2, pts=[[1, 1, 12], [1, 1, 13]], wide=0.1)
    message = r"edge \(2, 2, 0\) is a self loop with 1 points .* graph.remove_edge\(2, 2, 0\)"
    with pytest.raises(NetworkError, match=message):
        from_skeleton(graph, radius="wide", axes="zyx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": "yx"}, "got axes='yx'; wanted x, y and z in the order .* third axis"),
        ({"axes": "zyx", "voxel_size": 0.0}, "got voxel_size=0.0; wanted a finite positive length"),
        ({"axes": "zyx", "voxel_size": (1, 2)}, r"got voxel_size=\(1, 2\); .* three in the order"),
    ],
)
def test_senseless_scales_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        from_skeleton(skeleton(), radius=1.0, **options)

"""Flows that do not add up: the nearest ones that do, and what is refused."""

import networkx as nx
import numpy as np
import pytest

import mixeddim as md
from mixeddim.networks.blood_flow import node_differences


def loop() -> nx.Graph:
    """A vessel that splits in two, which meet again; the ends are open."""
    graph = nx.Graph([(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5)])
    places = [(0, 0, 0), (1, 0, 0), (2, 1, 0), (2, -1, 0), (3, 0, 0), (4, 0, 0)]
    for node, place in enumerate(places):
        graph.nodes[node].update(pos=tuple(map(float, place)), inlet=node == 0)
    nx.set_edge_attributes(graph, 0.1, "radius")
    return graph


def missing(graph: nx.Graph, flow: np.ndarray) -> np.ndarray:
    """Return what Kirchhoff's law misses at the inner nodes 1 to 4."""
    return (node_differences(graph).T @ flow)[1:5]


@pytest.mark.parametrize("unit", [1.0, 1e-13], ids=["1", "m³/s"])
def test_rounded_flows_add_up_afterwards(unit: float) -> None:
    graph, rounded = loop(), unit * np.array([3.0, 2.1, 1.0, 1.9, 1.1, 3.1])
    balanced = md.balance_flow(graph, rounded)
    assert abs(missing(graph, rounded)).max() > 0.05 * unit
    assert abs(missing(graph, balanced)).max() < 1e-14 * unit
    np.testing.assert_allclose(balanced, rounded, rtol=0.06)


def test_the_change_is_the_least_possible() -> None:
    """The minimiser of sum (change² / |flow|) under Kirchhoff's law, by its dense equations."""
    graph, given = loop(), np.array([3.0, -2.0, 1.5, -1.0, 0.7, 2.0])
    C = node_differences(graph).toarray().T[1:5]
    equations = np.block([[np.diag(1 / abs(given)), C.T], [C, np.zeros((4, 4))]])
    expected = np.linalg.solve(equations, np.concatenate([np.sign(given), np.zeros(4)]))[:6]
    np.testing.assert_allclose(md.balance_flow(graph, given), expected, rtol=1e-9)


def test_vessels_where_nothing_flows_stay_so() -> None:
    graph = loop()
    balanced = md.balance_flow(graph, np.array([3.0, 0.0, 2.5, 0.0, 2.8, 3.1]))
    np.testing.assert_array_equal(balanced[[1, 3]], 0.0)
    assert abs(missing(graph, balanced)).max() < 1e-14


def test_a_flow_that_adds_up_and_none_at_all_stay() -> None:
    graph = loop()
    flow = md.solve_flow(graph, 1.0, {0: 1.0, 5: 0.0}).flow
    np.testing.assert_allclose(md.balance_flow(graph, flow), flow, rtol=1e-13)
    np.testing.assert_array_equal(md.balance_flow(graph, np.zeros(6)), 0.0)


@pytest.mark.parametrize("flow", [1.0, [1.0, 2.0], [1.0, 2.0, np.nan, 1.0, 1.0, 1.0]])
def test_no_number_for_each_edge_is_refused(flow: object) -> None:
    with pytest.raises(ValueError, match=r"got a flow of shape .*; wanted a finite number for eac"):
        md.balance_flow(loop(), flow)

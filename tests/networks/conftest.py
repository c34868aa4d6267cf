"""Shared by the tests of networks: graphs from lists."""

import networkx as nx
import pytest


@pytest.fixture(scope="session")
def network():
    """Return the function from positions, edges (u, v, radius) and inlets to a graph."""

    def make(positions, edges, inlets=()):
        graph = nx.Graph()
        for node, pos in enumerate(positions):
            graph.add_node(node, pos=tuple(map(float, pos)), inlet=node in inlets)
        graph.add_weighted_edges_from(edges, weight="radius")
        return graph

    return make

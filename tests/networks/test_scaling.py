"""Units: a network survives the way to the problem's lengths and back."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixeddim.networks.generators import random_vascular_graph
from mixeddim.networks.graphs import edge_radii, network_statistics, node_positions
from mixeddim.networks.scaling import Scaling


@given(
    length=st.floats(1e-9, 1e6),
    offset=st.tuples(*[st.floats(-1.0, 1.0)] * 3),
    seed=st.integers(0, 100),
)
@settings(max_examples=50, deadline=None)
def test_round_trip_is_exact_to_rounding(length, offset, seed):
    scaling = Scaling(length, origin=tuple(length * x for x in offset))
    physical = scaling.invert(random_vascular_graph(12, 0.05, seed))
    again = scaling.invert(scaling.apply(physical))
    np.testing.assert_allclose(edge_radii(again), edge_radii(physical), rtol=1e-14)
    np.testing.assert_allclose(
        node_positions(again), node_positions(physical), rtol=0, atol=1e-14 * length
    )


def test_scaling_by_hand():
    physical = nx.Graph(unit="m")
    physical.add_node("in", pos=(1e-4, 2e-4, 3e-4), inlet=True, pressure=4e3)
    physical.add_node("out", pos=(2e-4, 2e-4, 3e-4))
    physical.add_edge("in", "out", radius=5e-6)
    scaled = Scaling(1e-4, origin=(1e-4, 1e-4, 1e-4)).apply(physical)
    np.testing.assert_allclose(node_positions(scaled), [[0, 1, 2], [1, 1, 2]], atol=1e-15)
    np.testing.assert_allclose(edge_radii(scaled), [0.05])
    assert scaled.nodes["in"]["inlet"]
    assert scaled.nodes["in"]["pressure"] == 4e3
    assert physical.nodes["in"]["pos"] == (1e-4, 2e-4, 3e-4)
    assert physical.edges["in", "out"]["radius"] == 5e-6


def test_measures_scale_with_their_dimension():
    graph = random_vascular_graph(30, 0.05, seed=1)
    before, after = network_statistics(graph), network_statistics(Scaling(0.1).apply(graph))
    assert after.total_length == pytest.approx(before.total_length * 10)
    assert after.wall_area == pytest.approx(before.wall_area * 100)
    assert after.volume == pytest.approx(before.volume * 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0,), "got length=0.0; wanted a finite positive number. Pass the physical length"),
        ((np.inf,), "got length=inf; wanted a finite positive number"),
        ((1.0, (0.0, 0.0)), r"got origin=\(0.0, 0.0\); wanted three finite numbers"),
        ((1.0, (0.0, 0.0, np.nan)), r"got origin=\(0.0, 0.0, nan\); wanted three finite numbers"),
    ],
)
def test_senseless_scalings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Scaling(*arguments)

"""Centre lines from the inlet to each outlet: each trunk comes out once."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import pyvista as pv
from hypothesis import given, settings
from hypothesis import strategies as st

from mixeddim.networks.centre_lines import merge_repeated_lines
from mixeddim.networks.generators import random_vascular_graph
from mixeddim.networks.graphs import mark_ends_as_inlets, network_statistics, validate_graph
from mixeddim.networks.io import NetworkFileError, read_vtk

RADIUS = 0.1
TRUNK, FORK = [(0, 0, 0), (1, 0, 0)], (2, 0.5, 0)
WAYS = [
    [*TRUNK, FORK, (3, 1.5, 0)],
    [*TRUNK, FORK, (3.5, 0.5, 0)],
    [*TRUNK, (2, -0.8, 0.3)],
]  # three outlets, of which two share a second trunk
LENGTH = 1 + np.hypot(1, 0.5) + np.hypot(1, 1) + 1.5 + np.linalg.norm([1, 0.8, 0.3])


def polyline(corners, step):
    """Points on straight pieces between corners, at most so far apart; the corners among them."""
    corners = np.array(corners, dtype=float)
    points = [corners[:1]]
    for start, end in pairwise(corners):
        number = int(np.ceil(np.linalg.norm(end - start) / step))
        points.append(start + (end - start) * np.arange(1, number + 1)[:, None] / number)
    return np.vstack(points)


def drawn(lines, radius=RADIUS):
    """A graph in which each line has points of its own, as `read_vtk` makes it of VMTK's file."""
    graph = nx.Graph()
    for points in lines:
        nodes = range(len(graph), len(graph) + len(points))
        for node, point in zip(nodes, points, strict=True):
            graph.add_node(node, pos=tuple(point), inlet=False)
        nx.add_path(graph, nodes, radius=radius)
    return graph


@pytest.mark.parametrize("within", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    "steps", [(0.05, 0.05, 0.05), (0.05, 0.033, 0.021), (9, 9, 9), (9, 0.05, 9)]
)
def test_copies_come_out_once_however_they_are_sampled(within, steps):
    lines = [polyline(way, step) for way, step in zip(WAYS, steps, strict=True)]
    cleaning = merge_repeated_lines(drawn(lines), within)
    statistics = network_statistics(cleaning.graph)
    assert statistics.total_length == pytest.approx(LENGTH, rel=1e-9 if within < 0.5 else 1e-2)
    assert statistics.volume == pytest.approx(np.pi * RADIUS**2 * statistics.total_length)
    assert (statistics.num_ends, statistics.num_junctions) == (4, 2)
    assert (statistics.num_components, statistics.num_loops) == (1, 0)
    validate_graph(mark_ends_as_inlets(cleaning.graph))
    assert cleaning.step.startswith("2 repeated pieces within ")


@pytest.mark.parametrize("seed", range(5))
def test_near_copies_come_out_once(seed):
    rng = np.random.default_rng(seed)
    lines = [
        (points := polyline(way, step)) + rng.normal(scale=0.01 * RADIUS, size=points.shape)
        for way, step in zip(WAYS, (0.1, 0.083, 0.09), strict=True)
    ]
    graph = drawn(lines)
    statistics = network_statistics(merge_repeated_lines(graph).graph)
    assert statistics.total_length == pytest.approx(LENGTH, rel=5e-3)
    assert (statistics.num_ends, statistics.num_junctions, statistics.num_loops) == (4, 2, 0)
    apart = network_statistics(merge_repeated_lines(graph, 0.0).graph)
    assert apart.total_length > 1.3 * LENGTH, "without tolerance they are others"


def test_parallel_vessels_beyond_the_tolerance_stay_two():
    lines = [polyline([(0, y, 0), (3, y, 0)], 0.05) for y in (0.0, 0.3 * RADIUS)]
    assert merge_repeated_lines(drawn(lines), 0.29).length_after == pytest.approx(6)
    assert merge_repeated_lines(drawn(lines), 0.31).length_after == pytest.approx(3)


def test_a_vessel_that_leaves_and_comes_back_is_a_loop():
    lines = [
        polyline([(0, 0, 0), (4, 0, 0)], 0.1),
        polyline([(0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 0, 0), (3.9, 0, 0)], 0.1),
    ]
    cleaning = merge_repeated_lines(drawn(lines))
    statistics = network_statistics(cleaning.graph)
    assert (statistics.num_loops, statistics.num_ends) == (1, 2)
    assert statistics.total_length == pytest.approx(4 + 2 * 2**0.5)
    assert str(cleaning).startswith("2 repeated pieces within 0.1 radii merged: ")


def test_radius_flow_and_inlet_of_what_is_kept():
    """A flow along +x stays so on both halves of an edge that a branch splits."""
    graph = nx.Graph()
    for node, pos in enumerate([(4, 0, 0), (0, 0, 0), (0, 0, 0), (2, 0, 0), (2, 1, 0)]):
        graph.add_node(node, pos=pos, inlet=node == 2)
    graph.add_edge(0, 1, radius=0.2, flow=-5.0)  # from x = 4 to x = 0
    graph.add_edge(2, 3, radius=0.2, flow=3.0)
    graph.add_edge(3, 4, radius=0.2, flow=3.0)
    kept = merge_repeated_lines(graph).graph
    assert list(kept.edges(data="flow")) == [(0, 5, -5.0), (1, 5, 5.0), (5, 4, 3.0)]
    assert kept.nodes[5]["pos"] == (2.0, 0.0, 0.0)
    assert kept.nodes[1]["inlet"], "since the copy of this node was one"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["spanning_tree", "murray_tree", "capillary_mesh"]))
def test_networks_drawn_once_stay(seed, method):
    graph = random_vascular_graph(16, 0.01, seed=seed, method=method)
    before = network_statistics(graph)
    after = network_statistics(merge_repeated_lines(graph, 0.0).graph)
    for name in ("num_components", "num_loops", "num_ends", "num_inlets"):
        assert getattr(after, name) == getattr(before, name)
    assert after.total_length == pytest.approx(before.total_length)
    assert after.volume == pytest.approx(before.volume)


@pytest.mark.parametrize("length", [0.05, 0.15, 1.0])
def test_short_links_are_not_lost(length):
    """Even one shorter than the tolerance, between vessels that nothing else connects."""
    graph = drawn([polyline([(0, y, 0), (2, y, 0)], 1.0) for y in (0.0, length * RADIUS)])
    graph.add_edge(1, 4, radius=RADIUS)
    kept = merge_repeated_lines(graph, 0.03).graph
    assert nx.number_connected_components(kept) == 1


@pytest.mark.parametrize("within", [-0.1, 1.0, float("nan")])
def test_senseless_tolerances_are_explained(within, fork):
    with pytest.raises(ValueError, match=r"got within=.*; wanted at least 0 and less than 1. Pass"):
        merge_repeated_lines(fork, within)


# --- Files ------------------------------------------------------------------------------------


def save(path, lines, points, **cell_data):
    cells = np.concatenate([[len(line), *line] for line in lines])
    mesh = pv.PolyData(np.array(points, dtype=float), lines=cells)
    for name, values in cell_data.items():
        mesh.cell_data[name] = values
    mesh.point_data["MaximumInscribedSphereRadius"] = np.full(len(points), RADIUS)
    mesh.save(path)
    return path


def test_a_file_of_vmtk(tmp_path):
    lines = [polyline(way, 0.05) for way in WAYS]
    starts = np.cumsum([0, *map(len, lines)])
    cells = [range(start, end) for start, end in pairwise(starts)]
    path = save(tmp_path / "centerlines.vtp", cells, np.vstack(lines))
    graph = read_vtk(path, radius="MaximumInscribedSphereRadius")
    cleaning = merge_repeated_lines(graph)
    assert network_statistics(graph).num_components == 3
    assert cleaning.length_after == pytest.approx(LENGTH, rel=1e-6)
    assert network_statistics(cleaning.graph).num_ends == 4


def test_polylines_that_share_points_take_each_step_once(tmp_path):
    points = [(0, 0, 0), (1, 0, 0), (2, 1, 0), (2, -1, 0)]
    path = save(tmp_path / "shared.vtp", [[0, 1, 2], [0, 1, 3]], points)
    graph = read_vtk(path, radius="MaximumInscribedSphereRadius")
    assert list(graph.edges) == [(0, 1), (1, 2), (1, 3)]
    path = save(tmp_path / "other.vtp", [[0, 1, 2], [0, 1, 3]], points, radius=[0.1, 0.2])
    with pytest.raises(NetworkFileError, match=r"line 1 of 2: got the edge \(0, 1\) again"):
        read_vtk(path)

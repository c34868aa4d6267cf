"""The lumen's radius carries the flow; the outer radius of the wall sets circle and perimeter."""

import networkx as nx
import numpy as np
import pytest

import mixeddim as md
from mixeddim.solvers.advection import discretise_advection

BOX = md.create_box(6)


def fork(radius: float, outer: float | None = None, unset: int = 0) -> nx.Graph:
    """Return three vessels that meet; the first `unset` of them carry no outer radius."""
    graph = nx.Graph([(0, 1), (1, 2), (1, 3)])
    positions = [(0.5, 0.5, 0.2), (0.5, 0.5, 0.5), (0.3, 0.5, 0.8), (0.7, 0.5, 0.8)]
    for node, position in enumerate(positions):
        graph.nodes[node].update(pos=position, inlet=node == 0)
    for ordinal, edge in enumerate(graph.edges):
        graph.edges[edge]["radius"] = radius
        if outer is not None and ordinal >= unset:
            graph.edges[edge]["outer_radius"] = outer
    return graph


def assemble(graph: nx.Graph) -> md.CoupledSystem:
    network = md.create_network(graph, BOX.spacing)
    return md.assemble(BOX, network, md.Coefficients(sigma_3d=1.0, permeability=2.0))


def test_the_exchange_is_that_of_the_outer_radius() -> None:
    system, wide = assemble(fork(0.05, 0.08)), assemble(fork(0.08))
    for name in ("A_33", "A_31", "A_11"):
        assert abs(getattr(system, name) - getattr(wide, name)).max() == 0.0


def test_flow_and_volume_are_those_of_the_lumen() -> None:
    graph, thin = fork(0.05, 0.08), fork(0.05)
    pressures = {0: 1.0, 2: 0.0, 3: 0.1}
    flows = [md.solve_flow(g, 1.0, pressures) for g in (graph, thin)]
    np.testing.assert_array_equal(flows[0].flow, flows[1].flow)
    volumes = [
        discretise_advection(md.create_network(g, 0.1), flows[0].flow).volume for g in (graph, thin)
    ]
    np.testing.assert_array_equal(volumes[0], volumes[1])
    statistics = md.network_statistics(graph)
    assert statistics.volume == md.network_statistics(thin).volume
    assert statistics.wall_area == pytest.approx(1.6 * md.network_statistics(thin).wall_area)


def test_edges_without_one_have_a_wall_without_thickness() -> None:
    graph = fork(0.05, 0.08, unset=1)
    np.testing.assert_array_equal(md.edge_outer_radii(graph), [0.05, 0.08, 0.08])
    np.testing.assert_array_equal(md.edge_outer_radii(fork(0.05)), 0.05)


def test_scaling_scales_both_radii_and_adds_none() -> None:
    scaling = md.Scaling(length=4.0)
    scaled = scaling.apply(fork(0.08, 0.2, unset=1))
    np.testing.assert_allclose(md.edge_radii(scaled), 0.02)
    np.testing.assert_allclose(md.edge_outer_radii(scaled), [0.02, 0.05, 0.05])
    assert "outer_radius" not in scaled.edges[0, 1]
    np.testing.assert_allclose(md.edge_outer_radii(scaling.invert(scaled)), [0.08, 0.2, 0.2])


def test_a_straightened_chain_keeps_the_mean_thickness() -> None:
    graph = nx.path_graph(3)
    for node, x in enumerate((0.0, 1.0, 4.0)):
        graph.nodes[node]["pos"] = (x, 0.0, 0.0)
    graph.edges[0, 1].update(radius=0.1, outer_radius=0.14)
    graph.edges[1, 2].update(radius=0.1)
    edge = md.resolve_chains(graph).graph.edges[0, 2]
    assert edge["radius"] == pytest.approx(0.1)
    assert edge["outer_radius"] == pytest.approx(0.11)


@pytest.mark.parametrize("outer", [0.04, -1.0, float("nan"), float("inf"), "wide"])
def test_what_is_no_outer_radius_is_refused(outer: object) -> None:
    graph = fork(0.05)
    graph.edges[1, 2]["outer_radius"] = outer
    with pytest.raises(md.NetworkError, match=(
        rf"edge \(1, 2\) has outer_radius {outer!r} and radius 0.05; wanted a finite number that "
        r"is not below the radius.*graph.edges\[1, 2\]\['outer_radius'\]"
    )):  # fmt: skip
        md.create_network(graph, 0.1)

"""Poiseuille flow: closed forms, Kirchhoff's law near rounding, units, and what is refused."""

import os
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mixeddim as md
from mixeddim.algebra import network_block
from mixeddim.networks.graphs import edge_lengths, edge_radii

MOUSE_CORTEX = Path(os.environ.get("MIXEDDIM_DATA", "")) / "mouse_cortex" / "network.dgf"


def chain(*radii: float, length: float = 1.0) -> nx.Graph:
    """A straight chain of vessels along x, nodes 0, 1, 2, ..."""
    graph = nx.Graph()
    for node in range(len(radii) + 1):
        graph.add_node(node, pos=(node * length, 0.0, 0.0))
    for node, radius in enumerate(radii):
        graph.add_edge(node, node + 1, radius=radius)
    return graph


def end_pressures(graph: nx.Graph, seed: int) -> dict:
    """Random pressures at the end points and the inlets."""
    rng = np.random.default_rng(seed)
    held = [node for node in graph if graph.degree[node] == 1 or graph.nodes[node]["inlet"]]
    return {node: rng.uniform(1000, 5000) for node in held}


def random_network(seed: int, method: str = "capillary_mesh") -> nx.Graph:
    graph = md.random_vascular_graph(40, 0.02, seed=seed, method=method)
    rng = np.random.default_rng(seed)
    for edge in graph.edges:
        graph.edges[edge]["radius"] *= rng.uniform(0.3, 3)
    return graph


def test_single_vessel_is_poiseuille() -> None:
    radius, length, mu, drop = 4e-6, 1e-4, 3e-3, 700.0
    flow = md.solve_flow(chain(radius, length=length), mu, {0: 5000.0, 1: 5000.0 - drop})
    expected = np.pi * radius**4 * drop / (8 * mu * length)
    assert flow.flow == pytest.approx([expected], rel=1e-13)
    assert flow.inflow == flow.outflow == pytest.approx(expected, rel=1e-13)
    assert flow.mean_velocity == pytest.approx([radius**2 * drop / (8 * mu * length)])
    assert flow.wall_shear_stress == pytest.approx([radius * drop / (2 * length)])
    assert f"{expected:.4g} in" in repr(flow)


def test_flow_is_signed_along_the_edge() -> None:
    graph = chain(0.1, 0.1)
    forth = md.solve_flow(graph, 1.0, {0: 1.0, 2: 0.0})
    back = md.solve_flow(graph, 1.0, {0: 0.0, 2: 1.0})
    assert np.all(forth.flow > 0)
    np.testing.assert_allclose(back.flow, -forth.flow, rtol=1e-13)
    np.testing.assert_allclose(back.wall_shear_stress, forth.wall_shear_stress, rtol=1e-13)


def test_vessels_in_series_add_their_resistances() -> None:
    radii, mu = np.array([0.1, 0.05, 0.2]), np.array([1.0, 2.0, 3.0])
    flow = md.solve_flow(chain(*radii), mu, {0: 1.0, 3: 0.0})
    resistances = 8 * mu / (np.pi * radii**4)
    np.testing.assert_allclose(flow.flow, 1 / resistances.sum(), rtol=1e-13)
    np.testing.assert_allclose(-np.diff(flow.pressure), resistances / resistances.sum(), rtol=1e-12)


def test_parallel_vessels_add_their_conductances() -> None:
    graph = nx.Graph([(0, 1), (0, 2), (1, 3), (2, 3)])
    for node, pos in enumerate([(0, 0, 0), (1, 1, 0), (1, -1, 0), (2, 0, 0)]):
        graph.nodes[node]["pos"] = pos
    nx.set_edge_attributes(graph, {(0, 1): 0.1, (1, 3): 0.1, (0, 2): 0.2, (2, 3): 0.2}, "radius")
    flow = md.solve_flow(graph, 1.0, {0: 1.0, 3: 0.0})
    half = np.pi / (8 * 2 * np.sqrt(2))  # both halves of a branch of radius 1
    assert flow.inflow == pytest.approx(half * (0.1**4 + 0.2**4), rel=1e-13)
    np.testing.assert_allclose(flow.pressure, [1, 0.5, 0.5, 0], atol=1e-14)


@settings(max_examples=25, deadline=None)
@example(seed=635, method="capillary_mesh")  # with a loop where blood stands still
@given(seed=st.integers(0, 10_000), method=st.sampled_from(["capillary_mesh", "murray_tree"]))
def test_kirchhoff_holds_near_rounding(seed: int, method: str) -> None:
    graph = random_network(seed, method)
    flow = md.solve_flow(graph, 3e-3, end_pressures(graph, seed))
    assert flow.inflow > 0
    assert abs(flow.inflow - flow.outflow) <= 1e-14 * flow.inflow
    assert flow.imbalance.max() < 1e-13
    given = flow.pressure[flow.is_given]
    assert given.min() <= flow.pressure.min() * (1 + 1e-14)
    assert given.max() >= flow.pressure.max() * (1 - 1e-14)


def test_short_vessels_do_not_spoil_kirchhoff() -> None:
    graph = chain(0.1, 0.1, 0.1)
    graph.nodes[1]["pos"] = (1e-9, 0.0, 0.0)  # along which pressure drops by less than a digit
    flow = md.solve_flow(graph, 1e-3, {0: 12345.678, 3: 12345.678 - 1e-3})
    assert np.ptp(flow.flow) <= 1e-13 * flow.flow.max()
    assert flow.flow[0] == pytest.approx(np.pi * 0.1**4 * 1e-3 / (8e-3 * 3), rel=1e-8)


def test_equals_dense_solution() -> None:
    graph = random_network(3)
    pressures, inflows = {0: 2.0, 5: 1.0}, {7: 1e-6, 9: -3e-6}
    flow = md.solve_flow(graph, 2.0, pressures, inflows)
    G = np.pi * edge_radii(graph) ** 4 / (16 * edge_lengths(graph))
    L = nx.laplacian_matrix(_weighted(graph, G), nodelist=list(graph)).toarray()
    b = np.zeros(len(graph))
    for node, value in (pressures | inflows).items():
        b[list(graph).index(node)] = value
    for node in pressures:
        row = list(graph).index(node)
        L[row] = np.eye(len(graph))[row]
    np.testing.assert_allclose(flow.pressure, np.linalg.solve(L, b), rtol=1e-9)
    assert flow.node_inflow[7] == 1e-6
    assert flow.inflow == pytest.approx(flow.outflow, rel=1e-12)


def _weighted(graph: nx.Graph, weights: np.ndarray) -> nx.Graph:
    copy = nx.Graph(graph)
    for edge, weight in zip(graph.edges, weights, strict=True):
        copy.edges[edge]["weight"] = weight
    return copy


def test_inflows_in_the_place_of_pressures_give_the_same_flow() -> None:
    graph = random_network(11)
    pressures = end_pressures(graph, 11)
    first = md.solve_flow(graph, 3e-3, pressures)
    kept, *others = pressures
    at = dict(zip(graph, first.node_inflow, strict=True))
    second = md.solve_flow(
        graph, 3e-3, {kept: pressures[kept]}, {node: at[node] for node in others}
    )
    scale = abs(first.flow).max()
    np.testing.assert_allclose(second.flow, first.flow, rtol=1e-9, atol=1e-12 * scale)
    np.testing.assert_allclose(second.pressure, first.pressure, rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), length=st.floats(1e-7, 1e7), mu=st.floats(1e-6, 1e6))
def test_units_scale_out(seed: int, length: float, mu: float) -> None:
    graph = random_network(seed)
    pressures = end_pressures(graph, seed)
    plain = md.solve_flow(graph, 1.0, pressures)
    scaled = md.solve_flow(md.Scaling(length).invert(graph), mu, pressures)
    expected = plain.flow * length**3 / mu
    np.testing.assert_allclose(scaled.flow, expected, rtol=1e-7, atol=1e-12 * abs(expected).max())
    np.testing.assert_allclose(scaled.pressure, plain.pressure, rtol=1e-10)


def lattice(spread: float) -> nx.Graph:
    """12³ nodes, two thirds of the edges in two pieces, radii that vary by `exp(spread)`."""
    rng = np.random.default_rng(4)
    graph = nx.convert_node_labels_to_integers(nx.grid_graph((12, 12, 12)), label_attribute="pos")
    for u, v in list(graph.edges)[:3000]:
        middle = len(graph)
        graph.add_node(middle, pos=0.5 * (np.array(graph.nodes[u]["pos"]) + graph.nodes[v]["pos"]))
        graph.remove_edge(u, v)
        graph.add_edges_from([(u, middle), (middle, v)])
    for *_, data in graph.edges(data=True):
        data["radius"] = 1e-2 * np.exp(spread * rng.standard_normal())
    return graph


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0])  # decades of conductance: 1.3, 6, 12
@pytest.mark.parametrize("num_held", [1, 2])
def test_multigrid_and_factors_give_the_same_flow(
    spread: float, num_held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = lattice(spread)
    pressures, inflows = {0: 1.0, 1727: 0.0}, {700: 1e-9}
    if num_held == 1:  # the level hangs on one node, through the vessels that meet there
        inflows[1727] = -pressures.popitem()[1] - 1e-8
    by_factors = md.solve_flow(graph, 1e-3, pressures, inflows)
    monkeypatch.setattr(network_block, "MOST_JUNCTIONS", 0)
    by_multigrid = md.solve_flow(graph, 1e-3, pressures, inflows)
    assert not np.array_equal(by_multigrid.flow, by_factors.flow)
    scale = abs(by_factors.flow).max()
    np.testing.assert_allclose(by_multigrid.flow, by_factors.flow, rtol=1e-8, atol=1e-12 * scale)
    np.testing.assert_allclose(by_multigrid.pressure, by_factors.pressure, rtol=1e-8, atol=1e-11)
    assert abs(by_multigrid.inflow - by_multigrid.outflow) <= 1e-13 * by_multigrid.inflow


def test_refuses_radii_between_which_rounding_hides_the_pressures() -> None:
    with pytest.raises(md.NetworkError, match=r"conduct from 3.93e-2\d to 0.393.*Check the radii"):
        md.solve_flow(chain(1e-6, 1.0, 1.0), 1.0, {0: 1.0})


def test_components_are_independent() -> None:
    one, other = chain(0.1), nx.relabel_nodes(chain(0.2), {0: "a", 1: "b"})
    other.nodes["a"]["pos"], other.nodes["b"]["pos"] = (0, 5, 0), (1, 5, 0)
    flow = md.solve_flow(nx.union(one, other), 1.0, {0: 1.0, 1: 0.0, "a": 7.0})
    assert flow.flow[1] == 0.0
    np.testing.assert_array_equal(flow.pressure[2:], 7.0)
    assert flow.imbalance.max() == 0.0


@pytest.mark.skipif(
    not MOUSE_CORTEX.is_file(),
    reason=f"no file {MOUSE_CORTEX}; set MIXEDDIM_DATA to the folder that holds mouse_cortex",
)
def test_mouse_cortex() -> None:
    graph = md.read_dgf(
        MOUSE_CORTEX, node_parameters={"pressure": 0}, edge_parameters={"radius": 0}
    )
    ends = {node: graph.nodes[node]["pressure"] for node, d in graph.degree if d == 1}
    assert len(ends) == 126
    mu = 1.2e-3 * md.relative_viscosity(2e6 * edge_radii(graph), hematocrit=0.45)
    flow = md.solve_flow(graph, mu, ends)
    assert abs(flow.inflow - flow.outflow) <= 1e-12 * flow.inflow
    assert flow.imbalance.max() < 1e-12
    assert (flow.node_inflow != 0).sum() <= 126
    assert f"{flow.inflow:.4g} in, {flow.outflow:.4g} out" in repr(flow)

    # The file holds the pressures of a simulation that followed red cells one by one. Ours, with
    # one hematocrit for all vessels, come within a hundredth of their range at most nodes.
    published = np.array([pressure for _, pressure in graph.nodes(data="pressure")])
    inner = ~flow.is_given
    difference = abs(flow.pressure - published)[inner] / np.ptp(published)
    assert np.median(difference) < 0.01
    assert np.corrcoef(flow.pressure[inner], published[inner])[0, 1] > 0.995


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"viscosity": 0.0}, ValueError, "got a viscosity from 0 to 0; wanted finite positive"),
        ({"viscosity": [1.0]}, ValueError, r"shape \(1,\); wanted a number, or one .* 2 edges"),
        ({"pressures": {}}, md.NetworkError, r"no pressure in 1 conn.*node 0 \(3 nodes\)"),
        ({"pressures": [1.0, 0.0]}, ValueError, r"got pressures of type list; .* \{0: 1.0\}"),
        ({"inflows": np.ones(3)}, ValueError, "got inflows of type ndarray; wanted a dictionary"),
        ({"pressures": {9: 1.0}}, ValueError, "pressure 1.0 at 9; wanted a node of the graph"),
        ({"pressures": {0: "high"}}, ValueError, "'high' at node 0; wanted a finite number"),
        ({"inflows": {1: np.inf}}, ValueError, "inflow inf at node 1; wanted a finite number"),
        ({"inflows": {0: 1.0}}, ValueError, "both a pressure and an inflow at node 0"),
        ({"graph": nx.DiGraph()}, md.NetworkError, "got a DiGraph; wanted an undirected"),
        ({"graph": nx.Graph()}, md.NetworkError, "0 nodes and no edge; wanted at least one"),
    ],
)
def test_refuses(changes: dict, error: type[Exception], message: str) -> None:
    arguments = {"graph": chain(0.1, 0.1), "viscosity": 1.0, "pressures": {0: 1.0}}
    with pytest.raises(error, match=message):
        md.solve_flow(**(arguments | changes))


def test_refuses_edges_without_length() -> None:
    graph = chain(0.1, 0.1)
    graph.nodes[1]["pos"] = (0.0, 0.0, 0.0)
    with pytest.raises(md.NetworkError, match=r"edge \(0, 1\) has length 0"):
        md.solve_flow(graph, 1.0, {0: 1.0})


def test_names_each_component_without_a_pressure() -> None:
    graph = nx.disjoint_union_all([chain(0.1) for _ in range(4)])
    with pytest.raises(md.NetworkError, match=r"in 3 .*node 2 \(2 nodes\).*node 4.*node 6"):
        md.solve_flow(graph, 1.0, {0: 1.0})

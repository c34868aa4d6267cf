"""Blood whose red cells split: the published law, conservation, symmetry, convergence, messages."""

import os
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mixeddim as md
from mixeddim.networks.graphs import edge_radii
from mixeddim.networks.hematocrit import Junctions

MOUSE_CORTEX = Path(os.environ.get("MIXEDDIM_DATA", "")) / "mouse_cortex" / "network.dgf"


def tree(*diameters: float, length: float = 1e-4) -> nx.Graph:
    """A feeding vessel from node 0 to node 1, and daughters to nodes 2, 3, ...; diameters in µm."""
    graph = nx.Graph()
    graph.add_node(0, pos=(-length, 0.0, 0.0))
    graph.add_node(1, pos=(0.0, 0.0, 0.0))
    graph.add_edge(0, 1, radius=0.5e-6 * diameters[0])
    for node, diameter in enumerate(diameters[1:], start=2):
        angle = 2 * node
        graph.add_node(node, pos=(0.0, length * np.cos(angle), length * np.sin(angle)))
        graph.add_edge(1, node, radius=0.5e-6 * diameter)
    return graph


def rhombus() -> nx.Graph:
    """Two equal ways from node 0 to node 3, joined by a bridge from 1 to 2."""
    graph = nx.Graph([(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4), (5, 0)])
    places = [(0, 0, 0), (1, 1, 0), (1, -1, 0), (2, 0, 0), (3, 0, 0), (-1, 0, 0)]
    for node, place in enumerate(places):
        graph.nodes[node]["pos"] = 1e-4 * np.array(place, dtype=float)
    nx.set_edge_attributes(graph, 4e-6, "radius")
    return graph


def random_network(seed: int, method: str) -> tuple[nx.Graph, dict]:
    """Capillaries of 5 to 22 µm, and random pressures at their ends."""
    graph = md.random_vascular_graph(40, 0.02, seed=seed, method=method)
    rng = np.random.default_rng(seed)
    for *_, data in graph.edges(data=True):
        data["radius"] = 2.5e-6 * np.exp(rng.uniform(0.0, 1.5))
    for _, data in graph.nodes(data=True):
        data["pos"] = 3e-4 * np.array(data["pos"])
    held = [node for node in graph if graph.degree[node] == 1 or graph.nodes[node]["inlet"]]
    return graph, {node: rng.uniform(1000, 5000) for node in held}


def test_phase_separation_equals_the_published_law():
    F, H, D_F, D_a, D_b = 0.3, 0.4, 8.0, 6.0, 10.0
    x0 = 0.964 * 0.6 / 8
    A = -13.29 * ((36 / 100 - 1) / (36 / 100 + 1)) * 0.6 / 8
    odds = np.exp(A) * ((0.3 - x0) / (1 - 0.3 - x0)) ** (1 + 6.98 * 0.6 / 8)
    share = md.phase_separation(F, H, D_F, D_a, D_b)
    assert share == pytest.approx(odds / (1 + odds), rel=1e-13)
    assert md.phase_separation(1 - F, H, D_F, D_b, D_a) == pytest.approx(1 - share, rel=1e-13)


def test_a_daughter_below_the_threshold_gets_plasma_alone():
    x0 = 0.964 * 0.55 / 6
    flows = np.array([0.0, 0.9 * x0, 0.99 * x0, 1 - 0.99 * x0, 1.0])
    shares = md.phase_separation(flows, 0.45, 6.0, 5.0, 7.0)
    np.testing.assert_array_equal(shares, [0, 0, 0, 1, 1])
    assert 0 < md.phase_separation(1.01 * x0, 0.45, 6.0, 5.0, 7.0) < 1.01 * x0


def test_red_cells_split_as_blood_in_wide_vessels():
    flows = np.linspace(0, 1, 11)
    np.testing.assert_allclose(md.phase_separation(flows, 0.45, 1e6, 5e5, 7e5), flows, atol=1e-5)
    np.testing.assert_allclose(md.phase_separation(flows, 0.45, np.inf, 5, 7), flows, atol=1e-15)


def test_a_symmetric_split_stays_symmetric():
    blood = md.solve_blood(tree(10, 7, 7), {0: 5000.0, 2: 1000.0, 3: 1000.0}, hematocrit=0.4)
    np.testing.assert_allclose(blood.hematocrit, 0.4, rtol=1e-12)
    np.testing.assert_allclose(blood.flow[1:], 0.5 * blood.flow[0], rtol=1e-12)
    mu = 1.2e-3 * md.relative_viscosity([10, 7, 7], 0.4)
    np.testing.assert_allclose(blood.viscosity, mu, rtol=1e-12)
    stress = 4 * mu * blood.flow / (np.pi * edge_radii(blood.graph) ** 3)
    np.testing.assert_allclose(blood.wall_shear_stress, stress, rtol=1e-13)


def test_a_bifurcation_splits_red_cells_by_the_law():
    blood = md.solve_blood(tree(8, 6, 7), {0: 5000.0, 2: 1200.0, 3: 1000.0})
    share = blood.flow[1] / blood.flow[0]
    cells = md.phase_separation(share, 0.45, 8, 6, 7)
    assert 0 < cells < share < 0.5  # the daughter with less flow gets fewer cells than its share
    expected = 0.45 * np.array([cells / share, (1 - cells) / (1 - share)])
    np.testing.assert_allclose(blood.hematocrit[1:], expected, rtol=1e-6)
    mu = 1.2e-3 * md.relative_viscosity(2e6 * edge_radii(blood.graph), blood.hematocrit)
    np.testing.assert_allclose(blood.viscosity, mu, rtol=1e-6)


def test_a_daughter_with_little_flow_gets_plasma():
    blood = md.solve_blood(tree(6, 5, 6), {0: 2000.0, 3: 1000.0}, {2: -1e-16})
    assert 0 < blood.flow[1] < 0.01 * blood.flow[0]
    assert blood.hematocrit[1] == 0.0
    assert blood.viscosity[1] == pytest.approx(1.2e-3 * md.relative_viscosity(5, 0.0), rel=1e-6)


def test_three_daughters_share_all_red_cells():
    pressures = {0: 5000.0, 2: 1000.0, 3: 2500.0, 4: 1000.0}
    blood = md.solve_blood(tree(12, 7, 7, 7), pressures)
    assert blood.hematocrit[2] < 0.45 < blood.hematocrit[1]
    assert blood.hematocrit[1] == pytest.approx(blood.hematocrit[3], rel=1e-12)
    assert blood.red_cell_flux[1:].sum() == pytest.approx(blood.red_cell_flux[0], rel=1e-12)


def test_vessels_that_meet_mix():
    pressures = {0: 1000.0, 2: 4000.0, 3: 5000.0}
    blood = md.solve_blood(tree(12, 7, 9), pressures, hematocrit={2: 0.2, 3: 0.5})
    assert blood.hematocrit[1:] == pytest.approx([0.2, 0.5], rel=1e-12)
    mixed = (0.2 * blood.flow[1] + 0.5 * blood.flow[2]) / (blood.flow[1] + blood.flow[2])
    assert blood.hematocrit[0] == pytest.approx(mixed, rel=1e-12)


def test_no_vessel_holds_more_than_packed_cells():
    pressures = {0: 5000.0, 2: 1000.0, 3: 3500.0}
    blood = md.solve_blood(tree(4, 4, 8), pressures, hematocrit=0.93)
    assert blood.hematocrit.max() <= 0.95 + 1e-7
    assert blood.red_cell_imbalance.max() < 1e-14


def test_blood_stands_still_in_a_bridge_and_dead_ends():
    graph = rhombus()
    graph.add_node(6, pos=(1e-4, 2e-4, 0.0))
    graph.add_edge(1, 6, radius=4e-6)
    blood = md.solve_blood(graph, {5: 3000.0, 4: 1000.0})
    flow = dict(zip(graph.edges, blood.flow, strict=True))
    assert abs(flow[1, 2]) < 1e-12 * blood.inflow > abs(flow[1, 6])
    assert flow[0, 1] == pytest.approx(flow[0, 2], rel=1e-9)
    assert np.all(np.isfinite(blood.hematocrit))
    assert blood.red_cell_inflow.sum() == pytest.approx(0.0, abs=1e-12 * blood.inflow)


@settings(max_examples=15, deadline=None)
@example(seed=3, method="capillary_mesh")
@given(seed=st.integers(0, 10_000), method=st.sampled_from(["capillary_mesh", "murray_tree"]))
def test_red_cells_are_conserved_and_the_state_is_steady(seed, method):
    graph, pressures = random_network(seed, method)
    blood = md.solve_blood(graph, pressures)
    entered = blood.red_cell_inflow.clip(min=0.0).sum()
    assert blood.red_cell_imbalance.max() < 1e-12
    assert abs(blood.red_cell_inflow.sum()) < 1e-12 * entered
    assert entered == pytest.approx(0.45 * blood.inflow, rel=1e-12)
    np.testing.assert_allclose(blood.hematocrit * blood.flow, blood.red_cell_flux, rtol=1e-12)
    assert blood.imbalance.max() < 1e-12
    mu = 1.2e-3 * md.relative_viscosity(2e6 * edge_radii(graph), blood.hematocrit.clip(max=0.95))
    again = md.solve_flow(graph, mu, pressures)
    np.testing.assert_allclose(blood.flow, again.flow, rtol=1e-4, atol=1e-7 * abs(again.flow).max())


def lattice(nodes: int, cell: float, seed: int) -> tuple[nx.Graph, dict]:
    """A jittered lattice [m] of nearly equal vessels, with a pressure on each of two faces."""
    rng = np.random.default_rng(seed)
    places = np.indices((nodes,) * 3).reshape(3, -1).T
    graph = nx.grid_graph((nodes,) * 3)
    graph = nx.convert_node_labels_to_integers(graph, ordering="sorted", label_attribute="index")
    jitter = rng.uniform(-0.3, 0.3, places.shape)
    for node, place in zip(graph, cell * (places + jitter), strict=True):
        graph.nodes[node]["pos"] = place
    for *_, data in graph.edges(data=True):
        data["radius"] = cell * rng.uniform(0.1, 0.15)
    size = nodes**2
    return graph, dict.fromkeys(range(size), 5000.0) | {
        nodes**3 - 1 - n: 1000.0 for n in range(size)
    }


def check_converged(blood):
    """Converged, with all red cells where they ought to be."""
    assert blood.changes[-1] <= 1e-8
    assert blood.iterations <= 100
    assert blood.red_cell_imbalance.max() < 1e-14
    entered = blood.red_cell_inflow.clip(min=0.0).sum()
    assert abs(blood.red_cell_inflow.sum()) < 1e-12 * entered


@pytest.mark.parametrize(("cell", "seed"), [(1e-4, 2), (5e-5, 2), (3e-5, 0), (2e-5, 1)])
def test_lattices_of_nearly_equal_vessels_converge(cell, seed):
    """Junctions of up to six vessels, many of which turn their flow on the way."""
    blood = md.solve_blood(*lattice(8, cell, seed))
    assert len(blood.flow) == 1344
    check_converged(blood)


@pytest.mark.parametrize("pressure", [1000.0, 2000.0])
def test_a_vessel_that_turns_its_flow_moves_no_red_cells_at_once(pressure):
    """A fourth vessel of a junction, whose flow is nearly zero, forth and back."""
    edges = np.array([[0, 1], [1, 2], [1, 3], [1, 4]])
    junctions = Junctions(edges, np.array([12.0, 7.0, 9.0, 30.0]), np.full(5, 0.45))
    found = []
    for small in (1e-7, -1e-7):
        flow = np.array([1.0, 0.3, 0.7 - small, small]) * pressure
        inflow = np.array([flow[0], 0.0, *-flow[1:]])
        found.append(junctions.distribute(flow, inflow, np.zeros(4)).flux / pressure)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    share = md.phase_separation(0.3, 0.45, 12.0, 7.0, 9.0)
    assert found[0][1] == pytest.approx(0.45 * share, rel=1e-5)


def test_many_daughters_below_the_threshold_split_red_cells_as_the_flow():
    edges = np.array([[5, 0], [0, 1], [0, 2], [0, 3], [0, 4]])
    junctions = Junctions(edges, np.array([3.0, 4.0, 4.0, 4.0, 4.0]), np.full(6, 0.1))
    flow = np.array([1.0, 0.26, 0.24, 0.25, 0.25])  # X0 = 0.29
    cells = junctions.distribute(flow, np.array([0.0, *-flow[1:], 1.0]), np.zeros(5))
    np.testing.assert_allclose(cells.hematocrit, 0.1, rtol=1e-12)


def test_red_cells_do_not_run_in_circles():
    """Rounding may close a circle where blood stands still: cells pass by."""
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 1], [1, 4]])
    flow = np.array([1.0, 1e-6, 1e-6, 1e-6, 1.0])
    junctions = Junctions(edges, np.full(5, 8.0), np.full(5, 0.4))
    cells = junctions.distribute(flow, np.array([1.0, 0, 0, 0, -1.0]), np.full(5, 0.3))
    np.testing.assert_allclose(cells.flux, [0.4, 0, 0, 0, 0.4], rtol=1e-12)
    np.testing.assert_array_equal(cells.hematocrit[1:4], 0.3)


def test_turning_the_network_round_turns_the_flow():
    graph, pressures = random_network(5, "capillary_mesh")
    turned = nx.Graph()
    turned.add_nodes_from(reversed(list(graph.nodes(data=True))))
    turned.add_edges_from((v, u, data) for u, v, data in reversed(list(graph.edges(data=True))))
    first, second = md.solve_blood(graph, pressures), md.solve_blood(turned, pressures)
    by_edge = {frozenset(e): h for e, h in zip(turned.edges, second.hematocrit, strict=True)}
    others = np.array([by_edge[frozenset(edge)] for edge in graph.edges])
    moving = abs(first.flow) > 1e-6 * abs(first.flow).max()
    np.testing.assert_allclose(first.hematocrit[moving], others[moving], atol=1e-5)


@pytest.mark.skipif(
    not MOUSE_CORTEX.is_file(),
    reason=f"no file {MOUSE_CORTEX}; set MIXEDDIM_DATA to the folder that holds mouse_cortex",
)
def test_mouse_cortex_converges():
    graph = md.read_dgf(
        MOUSE_CORTEX, node_parameters={"pressure": 0}, edge_parameters={"radius": 0}
    )
    ends = {node: graph.nodes[node]["pressure"] for node, d in graph.degree if d == 1}
    blood = md.solve_blood(graph, ends)
    assert len(blood.flow) == 1735
    check_converged(blood)
    assert np.median(blood.hematocrit) == pytest.approx(0.45, abs=0.02)
    assert f"{blood.iterations} iterations" in repr(blood)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hematocrit": 45.0}, ValueError, "from 45 to 45; wanted them from 0 to 0.95.*per cent"),
        ({"hematocrit": {0: -0.1}}, ValueError, "hematocrits from -0.1"),
        ({"hematocrit": "high"}, ValueError, "hematocrit='high'; wanted a number, or a dictionary"),
        ({"hematocrit": {}}, ValueError, "hematocrit={}; wanted a number, or a dictionary"),
        ({"hematocrit": {9: 0.4}}, ValueError, "hematocrit 0.4 at 9; wanted a node of the graph"),
        ({"hematocrit": {2: 0.4}}, ValueError, "at node 0, which has no hematocrit; wanted that"),
        ({"plasma_viscosity": 0.0}, ValueError, "plasma_viscosity=0.0; wanted a finite positive"),
        ({"plasma_viscosity": 1.2}, ValueError, "wanted Pa s, from 0.0001 to 0.1: .* centipoise"),
        ({"hematocrit": {0: None}}, ValueError, "hematocrit None at node 0; wanted a finite"),
        ({"atol": -1.0}, ValueError, "atol=-1.0; wanted a finite positive number"),
        ({"max_iterations": 0}, ValueError, "max_iterations=0; wanted a positive integer"),
        ({"law": "in silico"}, ValueError, "law='in silico'; wanted one of"),
        ({"pressures": {}}, md.NetworkError, "no pressure in 1 connected components"),
        ({"graph": tree(10e6, 7e6, 7e6)}, ValueError, "radii from 3.5 to 5; wanted diameters.*m:"),
        (
            {"max_iterations": 2},
            RuntimeError,
            r"changes by .* after 2 iterations, in edge \(1, .*in 2 of 3 edges.*Raise max_it",
        ),
    ],
)
def test_refuses(changes, error, message):
    arguments = {"graph": tree(10, 7, 9), "pressures": {0: 5000.0, 2: 900.0, 3: 1000.0}}
    with pytest.raises(error, match=message):
        md.solve_blood(**(arguments | changes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5, 0.4, 8, 6, 6), "share_of_flow from 1.5 to 1.5; wanted them from 0 to 1"),
        ((0.5, 40, 8, 6, 6), "hematocrit from 40 to 40; wanted them from 0 to 1. Give shares"),
        ((0.5, 0.4, 8, 0, 6), "diameter that is not positive; wanted positive ones in µm"),
    ],
)
def test_phase_separation_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        md.phase_separation(*arguments)

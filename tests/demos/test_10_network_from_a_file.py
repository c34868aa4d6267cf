"""A network from each shipped file and a published one: read, cleaned, solved, drawn."""

import os
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import mixeddim as md
from mixeddim.networks.graphs import node_positions

MESHES = Path(__file__).resolve().parents[2] / "meshes"
MOUSE_CORTEX = Path(os.environ.get("MIXEDDIM_DATA", "")) / "mouse_cortex" / "network.dgf"
MICROMETRES = ["--length-unit", "1e-6"]
FILES = {
    "capillaries.dgf": [],
    "y_nodes.csv": MICROMETRES,
    "tree.swc": [],
    "bent.vtp": MICROMETRES,
    "rhombus.pts": ["--length-unit", "2e-4", "--radii", str(MESHES / "rhombus_radii.pts")],
    "mesh.graphml": MICROMETRES,
}


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("10_network_from_a_file")


def _assert_solved(result, folder):
    """Check what holds for every network: flows add up, pressures are bounded, files are there."""
    assert result.solution.mass_balance.error < 1e-9
    assert result.inflow - result.outflow == pytest.approx(result.exchange, rel=1e-6)
    assert result.exchange > 0
    u_1d, u_3d = result.solution.u_1d.x.array, result.solution.u_3d.x.array
    assert 0 < u_3d.min() < u_3d.max() < u_1d.max()
    cleaned = md.read_network(folder / "cleaned.graphml")
    assert len(cleaned) == len(result.steps[-1].graph)
    assert {path.name for path in result.files} == {path.name for path in folder.iterdir()}
    assert all(path.stat().st_size > 1000 for path in result.files)


@pytest.mark.parametrize(("name", "options"), FILES.items(), ids=FILES)
def test_every_format(demo, name, options, tmp_path):
    arguments = ["--network", str(MESHES / name), *options, "--num-cells", "6"]
    result = demo.main([*arguments, "--output", str(tmp_path)])
    _assert_solved(result, tmp_path)
    merged, connected, straight = result.steps
    assert merged.nodes_removed == (26 if name == "bent.vtp" else 0)
    assert connected.nodes_removed == 0
    assert straight.length_after == pytest.approx(straight.length_before, rel=5e-3)


def test_vessel_across_the_x_axis(demo):
    """Of no extent along x, in which the pressure falls where the file gives none."""
    graph = nx.Graph([(0, 1, {"radius": 1e-5})])
    nx.set_node_attributes(graph, {0: (0.0, 0.0, 0.0), 1: (0.0, 0.0, 1e-4)}, "pos")
    solution = md.solve(demo.assemble(graph, 6).system)
    assert solution.u_1d.x.array.max() == pytest.approx(4000.0)


def test_default_network(demo, tmp_path, capsys):
    result = demo.main(["--num-cells", "8", "--output", str(tmp_path)])
    _assert_solved(result, tmp_path)
    *_, straight = result.steps
    assert straight.nodes_removed > 50
    statistics = md.network_statistics(result.read)
    assert (statistics.num_ends, statistics.num_inlets, statistics.num_loops) == (9, 8, 3)

    # At the ninth end blood leaves with the flow that the file states, by Poiseuille's law.
    cleaned, u_1d = result.steps[-1].graph, result.solution.u_1d
    ((end, inflow),) = [(n, q) for n, q in cleaned.nodes(data="inflow") if q is not None]
    ((*_, radius),) = cleaned.edges(end, data="radius")
    points, nodes = u_1d.function_space.tabulate_dof_coordinates(), node_positions(cleaned)
    metres = np.ptp(nodes, axis=0).max() / np.ptp(points, axis=0).max()
    here = (nodes[list(cleaned).index(end)] - nodes.min(axis=0)) / metres + points.min(axis=0)
    distances = np.linalg.norm(points - here, axis=1)
    last, before = np.argsort(distances)[:2]
    slope = (u_1d.x.array[last] - u_1d.x.array[before]) / (metres * distances[before])
    flow = np.pi * radius**4 / (8 * demo.BLOOD_VISCOSITY) * slope
    assert flow == pytest.approx(inflow, rel=2e-3), "but for what leaks over the wall"
    assert inflow == pytest.approx(-1e-12 / 60)

    printed = capsys.readouterr().out
    for step in result.steps:
        assert str(step) in printed
    assert f"{result.exchange:.4g} m³/s" in printed


def test_mouse_cortex(demo, tmp_path):
    if not MOUSE_CORTEX.is_file():
        pytest.skip(f"no file {MOUSE_CORTEX}; set MIXEDDIM_DATA to the published networks")
    arguments = ["--network", str(MOUSE_CORTEX), "--num-cells", "8"]
    result = demo.main([*arguments, "--output", str(tmp_path)])
    _assert_solved(result, tmp_path)
    merged, connected, _ = result.steps
    assert merged.nodes_removed == 0
    assert md.network_statistics(merged.graph).num_components == 24
    assert connected.length_after > 0.85 * connected.length_before

    # Nearly all blood leaves through the ends, with the flow of tight vessels.
    graph = connected.graph
    ends = {n: graph.nodes[n]["pressure"] for n, degree in graph.degree if degree == 1}
    u_1d = result.solution.u_1d.x.array
    assert (u_1d.min(), u_1d.max()) == pytest.approx((min(ends.values()), max(ends.values())))
    tight = md.solve_flow(graph, demo.BLOOD_VISCOSITY, ends)
    assert result.inflow == pytest.approx(tight.inflow, rel=0.01)
    assert 1e-3 < result.exchange / result.inflow < 5e-3


def test_help_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    for option in ("network", "length-unit", "radii", "num-cells", "output"):
        assert f"--{option}" in printed

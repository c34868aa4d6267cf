"""A random or a measured network in tissue: every generator, both solvers, physical units."""

import os
from pathlib import Path

import numpy as np
import pytest
import pyvista as pv

import mixeddim as md

ROOT = Path(__file__).resolve().parents[2]
MOUSE_CORTEX = Path(os.environ.get("MIXEDDIM_DATA", "")) / "mouse_cortex" / "network.dgf"


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("03_random_vascular_network")


def _assert_solved(result, folder):
    """Check what holds for every network: both ways agree, nothing is lost, files are there."""
    assert result.difference < 1e-8
    assert result.direct.relative_residual < 1e-10
    assert result.reduced.relative_residual < 1e-10
    assert result.direct.mass_balance.error < 1e-9
    assert result.reduced.mass_balance.error < 1e-9
    names = ["network.png", "network.vtp", "solution.png", "tissue.vti"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert {path.name for path in result.files} == set(names)


@pytest.mark.parametrize("method", ["spanning_tree", "murray_tree", "capillary_mesh"])
def test_random_network(demo, method, tmp_path, capsys):
    arguments = ["--num-cells", "6", "--num-nodes", "12", "--method", method]
    result = demo.main([*arguments, "--output", str(tmp_path)])
    _assert_solved(result, tmp_path)
    balance = result.direct.mass_balance
    assert result.outflow == 0.0, "all that comes in goes over the wall"
    assert result.inflow == pytest.approx(balance.exchange, rel=1e-9)
    assert balance.reaction_3d == pytest.approx(balance.exchange, rel=1e-9)
    u_3d, u_1d = result.direct.u_3d.x.array, result.direct.u_1d.x.array
    assert 0 < u_3d.min() < u_3d.max() < u_1d.min() < u_1d.max() == pytest.approx(1.0)
    assert pv.read(tmp_path / "tissue.vti").dimensions == (7, 7, 7)

    printed = capsys.readouterr().out
    assert "12 (1 inlets" in printed
    assert f"{result.difference:.1e}" in printed
    assert str(tmp_path / "solution.png") in printed


def test_shipped_network_is_what_its_readme_says():
    graph = md.read_dgf(
        ROOT / "meshes" / "capillaries.dgf",
        node_parameters={"pressure": 0},
        edge_parameters={"radius": 0},
    )
    made = md.random_vascular_graph(
        80, 4e-6, seed=3, method="capillary_mesh", upper=(200e-6,) * 3, margin=6e-6
    )
    assert {*graph.edges} == {*made.edges}
    positions = np.array([pos for _, pos in graph.nodes(data="pos")])
    np.testing.assert_allclose(positions, [pos for _, pos in made.nodes(data="pos")], rtol=1e-8)
    pressures = [pressure for _, pressure in graph.nodes(data="pressure")]
    np.testing.assert_allclose(pressures, 5000 - 2000 * positions[:, 0] / 200e-6, rtol=1e-8)
    assert {radius for _, _, radius in graph.edges(data="radius")} == {4e-6}


def test_network_in_physical_units(demo, tmp_path):
    file = ROOT / "meshes" / "capillaries.dgf"
    result = demo.main(["--num-cells", "8", "--network", str(file), "--output", str(tmp_path)])
    _assert_solved(result, tmp_path)
    statistics = md.network_statistics(result.direct.system.network.graph)
    assert (statistics.num_nodes, statistics.num_components) == (80, 1)
    length = 4e-6 / statistics.radius.median  # the unit of length [m], from the radius of 4 µm
    over_the_wall = 6e-15 * length * result.direct.mass_balance.exchange
    assert 0 < result.outflow < result.inflow
    assert result.inflow - result.outflow == pytest.approx(over_the_wall, rel=1e-6)


@pytest.mark.skipif(
    not MOUSE_CORTEX.is_file(),
    reason=f"no file {MOUSE_CORTEX}; set MIXEDDIM_DATA to the folder that holds mouse_cortex",
)
def test_mouse_cortex(demo, tmp_path, capsys):
    arguments = ["--num-cells", "8", "--network", str(MOUSE_CORTEX)]
    result = demo.main([*arguments, "--output", str(tmp_path)])
    _assert_solved(result, tmp_path)

    statistics = md.network_statistics(result.direct.system.network.graph)
    assert (statistics.num_nodes, statistics.num_edges) == (1746, 1735)
    assert (statistics.num_components, statistics.num_loops) == (24, 13)
    assert statistics.num_ends == statistics.num_inlets == 126
    assert 200e-6 * statistics.total_length == pytest.approx(8.146e-3, rel=1e-3)
    assert result.direct.system.coupling.num_leaving > 0

    # Pressures [Pa] are between those at the ends of the vessels, and zero in the lymph.
    graph = result.direct.system.network.graph
    at_ends = [graph.nodes[node]["pressure"] for node, degree in graph.degree if degree == 1]
    u_3d, u_1d = result.direct.u_3d.x.array, result.direct.u_1d.x.array
    assert (u_1d.min(), u_1d.max()) == pytest.approx((min(at_ends), max(at_ends)))
    assert 0 < u_3d.min() < u_3d.max() < u_1d.min()

    # Flows [m³/s]: nearly all blood leaves through the vessels, a thousandth over their walls.
    assert result.inflow == pytest.approx(5.15e-13, rel=0.01)
    over_the_wall = 6e-15 * 200e-6 * result.direct.mass_balance.exchange
    assert result.inflow - result.outflow == pytest.approx(over_the_wall, rel=1e-6)
    assert over_the_wall / result.inflow == pytest.approx(1.46e-3, rel=0.05)
    assert "m³/s" in capsys.readouterr().out
    assert np.ptp(pv.read(tmp_path / "network.vtp").cell_data["radius"]) > 0


def test_help_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    for option in ("num-cells", "num-nodes", "method", "seed", "network", "output"):
        assert f"--{option}" in printed

"""The networks of meshes/ are what their README says, and what their script makes."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import mixeddim as md
from mixeddim.networks.graphs import edge_radii, node_positions

MESHES = Path(__file__).resolve().parents[3] / "meshes"
OPTIONS = {
    "capillaries.dgf": {"node_parameters": {"pressure": 0}, "edge_parameters": {"radius": 0}},
    "capillaries.dat": {},
    "y_nodes.csv": {"length_unit": 1e-6},
    "tree.swc": {},
    "bent.vtp": {"length_unit": 1e-6},
    "rhombus.pts": {"length_unit": 2e-4, "radii": MESHES / "rhombus_radii.pts"},
    "mesh.graphml": {"length_unit": 1e-6},
}
MURRAY = 2 ** (-1 / 3)
RADII = {  # least and greatest, µm
    "capillaries.dgf": (4, 4),
    "capillaries.dat": (2.5, 4.5),
    "y_nodes.csv": (8 * MURRAY, 8),
    "tree.swc": (0.5, 4),
    "bent.vtp": (2.5, 4.5),
    "rhombus.pts": (4, 8),
    "mesh.graphml": (4, 4),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with the networks as their script makes them now."""
    folder = tmp_path_factory.mktemp("meshes")
    spec = importlib.util.spec_from_file_location("make_networks", MESHES / "make_networks.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main([str(folder)])
    return folder


def test_the_script_makes_what_is_shipped(made):
    shipped = {path.name for path in MESHES.iterdir() if path.suffix not in (".md", ".py", "")}
    assert {path.name for path in made.iterdir()} == shipped - {"capillaries.dgf"}
    for path in made.iterdir():
        if path.suffix != ".vtp":
            assert path.read_text("latin-1").splitlines() == (
                (MESHES / path.name).read_text("latin-1").splitlines()
            )


def test_the_script_makes_the_bent_vessels(made):
    one, other = (md.read_network(folder / "bent.vtp") for folder in (made, MESHES))
    np.testing.assert_allclose(node_positions(one), node_positions(other), rtol=1e-12)
    np.testing.assert_allclose(edge_radii(one), edge_radii(other), rtol=1e-12)
    assert list(one.edges) == list(other.edges)


@pytest.mark.parametrize("name", OPTIONS)
def test_networks_are_what_the_readme_says(name):
    row = next(r for r in (MESHES / "README.md").read_text().splitlines() if f"| `{name}`" in r)
    numbers = re.search(r"\| (\d+), (\d+) \|$", row)
    graph = md.read_network(MESHES / name, **OPTIONS[name])
    assert graph.number_of_nodes() == int(numbers[1])
    assert graph.number_of_edges() == int(numbers[2])
    radii = 1e6 * edge_radii(graph)
    least, greatest = RADII[name]
    assert least - 1e-9 <= radii.min() <= radii.max() <= greatest + 1e-9
    positions = 1e6 * node_positions(graph)
    assert 0 <= positions.min() < positions.max() <= 200

    merged = md.merge_close_nodes(graph, 1e-9).graph
    md.validate_graph(md.mark_ends_as_inlets(merged))
    assert md.network_statistics(merged).num_components == 1


def test_pressures_of_the_capillaries_fall_along_x():
    graph = md.read_network(MESHES / "capillaries.dat")
    given = {node: p for node, p in graph.nodes(data="pressure") if p is not None}
    assert len(given) == 8
    for node, pressure in given.items():
        x = graph.nodes[node]["pos"][0]
        assert pressure / 133.322387415 == pytest.approx(35 - 20 * x / 200e-6, abs=1e-3)
        assert graph.nodes[node]["inlet"]
    flows = [flow for _, flow in graph.nodes(data="inflow") if flow is not None]
    assert flows == [pytest.approx(-1e-12 / 60)]


def test_radii_of_the_bifurcation_follow_murray():
    graph = md.read_network(MESHES / "y_nodes.csv")
    parent, *daughters = (radius for *_, radius in graph.edges(data="radius"))
    assert parent**3 == pytest.approx(sum(radius**3 for radius in daughters))


def test_capillaries_in_metres_are_those_of_the_generator():
    graph = md.read_network(MESHES / "capillaries.dgf", **OPTIONS["capillaries.dgf"])
    made = md.random_vascular_graph(
        80, 4e-6, seed=3, method="capillary_mesh", upper=(200e-6,) * 3, margin=6e-6
    )
    assert {*graph.edges} == {*made.edges}
    np.testing.assert_allclose(node_positions(graph), node_positions(made), rtol=1e-8)
    pressures = [pressure for _, pressure in graph.nodes(data="pressure")]
    np.testing.assert_allclose(pressures, 5000 - 10e6 * node_positions(graph)[:, 0], rtol=1e-8)

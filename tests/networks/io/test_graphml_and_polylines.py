"""GraphML and VTK files of others: names of attributes, radii on points, polylines."""

import networkx as nx
import numpy as np
import pytest
import pyvista as pv

from mixeddim.networks.graphs import network_statistics, validate_graph
from mixeddim.networks.io import NetworkFileError, read_graphml, read_vtk, write_vtp

POINTS = np.array([(0, 0, 0), (1, 0, 0), (2, 0, 0), (2, 1, 0), (9, 9, 9)], float)
BENT = np.array([4, 0, 1, 2, 3])  # one polyline of three edges; the last point is in none


@pytest.fixture
def save(tmp_path):
    def save_mesh(mesh, name="network.vtp", binary=True):
        mesh.save(tmp_path / name, binary=binary)
        return tmp_path / name

    return save_mesh


@pytest.mark.parametrize("name", ["network.vtp", "network.vtk"])
@pytest.mark.parametrize("binary", [True, False])
def test_a_polyline_with_its_radius_on_the_cell(save, name, binary):
    mesh = pv.PolyData(POINTS, lines=BENT)
    mesh.cell_data["R"] = [0.25]
    mesh.cell_data["order"] = [3]
    mesh.point_data["pressure"] = [4.0, np.nan, 2.0, 1.0, 0.0]
    mesh.point_data["velocity"] = np.ones((5, 3))
    graph = read_vtk(save(mesh, name, binary), radius="R", length_unit=2.0)
    assert list(graph.edges) == [(0, 1), (1, 2), (2, 3)]
    assert list(graph.edges.values()) == [{"radius": 0.5, "order": 3}] * 3
    assert graph.nodes[0] == {"pos": (0.0, 0.0, 0.0), "inlet": False, "pressure": 4.0}
    assert graph.nodes[1] == {"pos": (2.0, 0.0, 0.0), "inlet": False}, "NaN stands for none"
    assert graph.degree[4] == 0


@pytest.mark.parametrize("names", [("R", "radius"), ("radius", "R")])
def test_radii_are_those_of_the_array_asked_for(save, names):
    mesh = pv.PolyData(POINTS, lines=BENT)
    for name in names:
        mesh.cell_data[name] = [0.25 if name == "R" else 7.0]
    assert [r for *_, r in read_vtk(save(mesh), radius="R").edges(data="radius")] == [0.25] * 3


@pytest.mark.parametrize("name", ["network.stl", "network.vtk", "network"])
def test_polylines_are_written_as_vtp(fork, name, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}'; wanted one that ends in \.vtp. Rename it"):
        write_vtp(fork, tmp_path / name)


def test_radii_on_points_are_averaged_over_edges(save):
    mesh = pv.PolyData(POINTS, lines=BENT)
    mesh.point_data["radius"] = np.array([4, 2, 1, 1, 0], np.float32)
    graph = read_vtk(save(mesh))
    assert [radius for *_, radius in graph.edges(data="radius")] == [3.0, 1.5, 1.0]
    assert graph.nodes[0]["radius"] == 4.0


def test_cells_that_are_vertices_do_not_shift_the_data_of_lines(save):
    mesh = pv.PolyData(POINTS, lines=np.array([2, 0, 1, 2, 1, 2]), verts=np.array([1, 4, 1, 3]))
    mesh.cell_data["radius"] = [7.0, 8.0, 0.1, 0.2]
    assert [r for *_, r in read_vtk(save(mesh)).edges(data="radius")] == [0.1, 0.2]


def test_a_vtk_file_without_radii(save):
    path = save(pv.PolyData(POINTS, lines=BENT))
    with pytest.raises(
        NetworkFileError, match=r"network\.vtp: got the arrays none; wanted 'radius' o"
    ):
        read_vtk(path)
    assert list(read_vtk(path, radius=None).edges.values()) == [{}, {}, {}]


MALFORMED = {
    "points only": (pv.PolyData(POINTS), "got no polyline; wanted one"),
    "a surface": (pv.Sphere(), "got no polyline; wanted one"),
    "dangling point": (
        pv.PolyData(POINTS[:3], lines=np.array([2, 0, 1])),
        "got polylines of fewer than 2 points, or of points beyond the 3 of the file",
    ),
    "self-loop": (
        pv.PolyData(POINTS, lines=np.array([3, 0, 1, 1])),
        "line 0 of 1: got an edge from the node 1 to itself",
    ),
    "edge twice": (
        pv.PolyData(POINTS, lines=np.array([3, 0, 1, 0])),
        r"line 0 of 1: got the edge \(1, 0\) again",
    ),
    "not a number": (
        pv.PolyData(np.where(POINTS == 9, np.nan, POINTS), lines=BENT),
        "point 4: got nan; wanted a finite number",
    ),
}


@pytest.mark.parametrize(("mesh", "message"), MALFORMED.values(), ids=MALFORMED)
def test_errors_name_the_point_or_line(save, mesh, message):
    path = save(mesh, binary=False)
    if "beyond" in message:
        path.write_text(path.read_text().replace("0 1\n", "0 3\n"))
    with pytest.raises(NetworkFileError, match=rf"network\.vtp(, |: ){message}"):
        read_vtk(path, radius=None)


def test_infinite_values_are_refused(save):
    mesh = pv.PolyData(POINTS, lines=BENT)
    mesh.cell_data["radius"] = [np.inf]
    with pytest.raises(
        NetworkFileError, match="got 1 values 'radius' for 1 cells, 1 of them infinite"
    ):
        read_vtk(save(mesh))


def test_a_grid_is_no_network(save):
    path = save(pv.PolyData(POINTS, lines=BENT).cast_to_unstructured_grid(), "grid.vtk")
    with pytest.raises(
        NetworkFileError, match=r"grid\.vtk: got a file that VTK does not read as pol"
    ):
        read_vtk(path)


# --- GraphML ----------------------------------------------------------------------------------


@pytest.fixture
def graph_file(tmp_path):
    def write(graph):
        nx.write_graphml(graph, tmp_path / "network.graphml")
        return tmp_path / "network.graphml"

    return write


def test_attributes_of_graphml_by_their_own_names(graph_file):
    source = nx.DiGraph()
    source.add_node("a", px=0, py=0.0, pz=0, inlet=True, label="artery")
    source.add_node("b", px=1.0, py=0.0, pz=0)
    source.add_edge("b", "a", width=0.5, flow=-2.0)
    names = {"position": ("px", "py", "pz"), "radius": "width"}
    graph = read_graphml(graph_file(source), **names, length_unit=1e-3)
    assert graph.nodes["a"] == {"pos": (0.0, 0.0, 0.0), "inlet": True, "label": "artery"}
    assert list(graph.edges.values()) == [{"radius": 5e-4, "flow": -2.0}]
    assert network_statistics(graph).total_length == 1e-3
    validate_graph(graph)


def two_vessels(**changes):
    graph = nx.MultiGraph([(1, 2, {"radius": 0.1}), (2, 3, {"radius": 0.1})])
    nx.set_node_attributes(graph, {n: {"x": float(n), "y": 0.0, "z": 0.0} for n in graph})
    for node, attributes in changes.items():
        graph.nodes[int(node[1:])].update(attributes)
    return graph


def without(graph, name):
    for *_, attributes in graph.edges(data=True):
        attributes.pop(name, None)
    return graph


MALFORMED_GRAPHML = {
    "missing coordinate": (
        nx.Graph([(1, 2, {"radius": 0.1})]),
        "node 1: got None; wanted a finite number. Set x, y, z on each node, or pass position=",
    ),
    "word": (two_vessels(n2={"y": "half"}), "node 2: got 'half'; wanted a finite number"),
    "not a number": (
        two_vessels(n2={"y": float("nan")}),
        "node 2: got nan; wanted a finite number",
    ),
    "no radius": (
        without(two_vessels(), "radius"),
        r"edge \(1, 2\): got None; wanted a finite number. Set its 'radius', or pass radius=",
    ),
    "inlet of a number": (
        two_vessels(n1={"inlet": 1}),
        "node 1: got the inlet 1; wanted a boolean",
    ),
    "no edge": (
        nx.subgraph_view(two_vessels(), filter_edge=lambda *_: False),
        "got no edge; wanted one",
    ),
}


@pytest.mark.parametrize(("graph", "message"), MALFORMED_GRAPHML.values(), ids=MALFORMED_GRAPHML)
def test_errors_name_the_node_or_edge(graph_file, graph, message):
    with pytest.raises(NetworkFileError, match=rf"network\.graphml(, |: ){message}"):
        read_graphml(graph_file(graph))


def test_double_edges_and_self_loops_of_graphml_are_refused(graph_file):
    graph = two_vessels()
    graph.add_edge(1, 2, radius=0.2)
    with pytest.raises(NetworkFileError, match=r"edge \(1, 2\): got the edge \(1, 2\) again"):
        read_graphml(graph_file(graph))
    graph = nx.Graph(two_vessels())
    graph.add_edge(3, 3, radius=0.2)
    with pytest.raises(
        NetworkFileError, match=r"edge \(3, 3\): got an edge from the node 3 to itself"
    ):
        read_graphml(graph_file(graph))


def test_labels_that_differ_as_text_stay_apart(graph_file):
    """Even where Python reads both as one integer; merged, they would join two vessels."""
    source = nx.relabel_nodes(two_vessels(), {1: "01", 3: "1"})
    assert [*read_graphml(graph_file(source)).edges] == [("01", "2"), ("2", "1")]


def test_positions_in_a_plane_are_refused(graph_file):
    with pytest.raises(ValueError, match=r"got position=\('x', 'y'\); wanted three names"):
        read_graphml(graph_file(two_vessels()), position=("x", "y"))


def test_diameters_of_graphml(graph_file):
    graph = two_vessels()
    for *_, attributes in graph.edges(data=True):
        attributes["d"] = 4.0 * attributes["radius"]
    plain, wide = (read_graphml(graph_file(graph), **o) for o in ({}, {"diameter": "d"}))
    for u, v, radius in plain.edges(data="radius"):
        assert wide.edges[u, v]["radius"] == 2.0 * radius
        assert "d" not in wide.edges[u, v]
    with pytest.raises(NetworkFileError, match="Set its 'e', or pass another name as diameter="):
        read_graphml(graph_file(graph), diameter="e")


@pytest.mark.parametrize("kind", ["point_data", "cell_data"])
def test_diameters_of_vtk(save, kind):
    mesh = pv.PolyData(POINTS, lines=BENT)
    data = getattr(mesh, kind)
    data["D"] = np.full(mesh.n_points if kind == "point_data" else mesh.n_cells, 0.5)
    graph = read_vtk(save(mesh), diameter="D", length_unit=2.0)
    assert {r for *_, r in graph.edges(data="radius")} == {0.5}
    with pytest.raises(NetworkFileError, match=r"wanted 'E' on the cells or points\. Pass"):
        read_vtk(save(mesh), diameter="E")


def test_a_cut_off_graphml_file_names_its_line(graph_file):
    path = graph_file(two_vessels())
    path.write_text(path.read_text()[:-40])
    with pytest.raises(NetworkFileError, match=r"\(ParseError: .*line \d+, column \d+\); wanted a"):
        read_graphml(path)

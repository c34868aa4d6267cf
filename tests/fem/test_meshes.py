"""Meshes against the geometry they stand for, whatever order DOLFINx gives their cells."""

import dolfinx
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixeddim import Grid, NetworkError, VertexTag, create_box, create_network
from mixeddim.networks.graphs import edge_indices, edge_lengths, edge_radii, node_positions

SEGMENT = 0.13


def P1(mesh: dolfinx.mesh.Mesh) -> dolfinx.fem.FunctionSpace:
    return dolfinx.fem.functionspace(mesh, ("Lagrange", 1))


# --- The box and its grid ---------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    num_cells=st.tuples(*3 * [st.integers(1, 6)]),
    lower=st.tuples(*3 * [st.floats(-2.0, 2.0)]),
    size=st.tuples(*3 * [st.floats(0.05, 3.0)]),
    cell_type=st.sampled_from(["tetrahedron", "hexahedron"]),
)
def test_dofs_come_to_their_place_on_the_grid(num_cells, lower, size, cell_type):
    box = create_box(num_cells, lower, np.add(lower, size), cell_type=cell_type)
    V = P1(box.mesh)
    grid = box.grid(V)
    axes = [a + np.arange(n + 1) * s / n for a, n, s in zip(lower, num_cells, size, strict=True)]
    x = V.tabulate_dof_coordinates().T
    assert grid.shape == tuple(n + 1 for n in num_cells)
    assert grid.cell_type == box.mesh.topology.cell_name() == cell_type
    np.testing.assert_allclose(
        grid.to_grid(x), np.meshgrid(*axes, indexing="ij"), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3)], ids=str)
def test_grid_order_and_dof_order_are_inverse(batch):
    box = create_box((2, 3, 4))
    grid = box.grid(P1(box.mesh))
    values = np.random.default_rng(1).random((*batch, 60))
    on_grid = grid.to_grid(values)
    assert on_grid.shape == (*batch, 3, 4, 5)
    np.testing.assert_array_equal(grid.to_dofs(on_grid), values)
    np.testing.assert_array_equal(grid.to_grid(grid.to_dofs(on_grid)), on_grid)


def test_grid_needs_no_mesh():
    grid = Grid((2, 1, 2), np.zeros(3), np.ones(3), np.array([2, 0, 3, 1]))
    np.testing.assert_array_equal(grid.to_grid(np.array([1, 2, 3, 4])), [[[2, 4]], [[1, 3]]])


@pytest.mark.parametrize("make_space", [
    lambda box: dolfinx.fem.functionspace(box.mesh, ("Lagrange", 2)),
    lambda box: dolfinx.fem.functionspace(box.mesh, ("Lagrange", 1, (3,))),
    lambda box: dolfinx.fem.functionspace(box.mesh, ("DG", 0)),  # 12 cells on 12 nodes
    lambda _: P1(create_box((1, 1, 2), upper=(1, 2, 1)).mesh),
    lambda _: create_box((1, 1, 2), cell_type="hexahedron").P1,
], ids=["P2", "vector", "DG0", "another box", "hexahedra"])  # fmt: skip
def test_grid_of_any_other_space_is_an_error(make_space):
    box = create_box((1, 1, 2))
    with pytest.raises(ValueError, match=r"wanted a scalar P1 space on this box's mesh"):
        box.grid(make_space(box))


def test_spacing_is_the_shortest_edge_of_a_cuboid():
    box = create_box((4, 5, 10), (-1.0, 0.0, 2.0), (1.0, 3.0, 3.0))
    assert box.num_cells == (4, 5, 10)
    np.testing.assert_allclose(box.cell_size, [0.5, 0.6, 0.1], rtol=1e-14)
    assert box.spacing == pytest.approx(0.1, rel=1e-14)
    assert box.mesh.topology.index_map(3).size_local == 6 * 4 * 5 * 10
    np.testing.assert_array_equal(np.ptp(box.mesh.geometry.x, axis=0), [2.0, 3.0, 1.0])


def test_one_number_of_cells_holds_for_each_axis():
    assert create_box(3).num_cells == (3, 3, 3)
    assert create_box(np.int32(2)).num_cells == (2, 2, 2)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"num_cells": 0}, "got num_cells=0; wanted one positive integer or three"),
    ({"num_cells": (3, -1, 2)}, "wanted one positive integer or three"),
    ({"num_cells": (3, 2)}, "wanted one positive integer or three"),
    ({"num_cells": 2.5}, "got num_cells=2.5; wanted one positive integer"),
    ({"num_cells": np.nan}, "wanted one positive integer"),
    ({"num_cells": np.inf}, "wanted one positive integer"),
    ({"num_cells": "4"}, "wanted one positive integer"),
    ({"num_cells": 2, "lower": (0, 0)}, "wanted three finite numbers each"),
    ({"num_cells": 2, "upper": (1, 1, np.inf)}, "wanted three finite numbers each"),
    ({"num_cells": 2, "upper": (1, 0, 1)}, "wanted upper > lower along each axis"),
    ({"num_cells": 2, "lower": (2, 0, 0)}, "wanted upper > lower along each axis"),
    ({"num_cells": 2, "cell_type": "prism"}, r"got cell_type='prism'; wanted one of \('tetra"),
], ids=str)  # fmt: skip
def test_impossible_boxes_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_box(**arguments)


# --- The network ------------------------------------------------------------------------------


def cell_ends(network):
    mesh = network.mesh
    num_cells = mesh.topology.index_map(1).size_local
    return mesh.geometry.x[mesh.geometry.dofmaps[0][:num_cells]]


def edge_ends(network):
    """Return the ends of the edge that each cell claims to be part of."""
    ends = node_positions(network.graph)[edge_indices(network.graph)]
    return ends[network.edge_of_cell]


def relative_positions(network, points):
    """Return where points (num_cells, k, 3) lie along their cell's edge, and how far off it."""
    start, end = edge_ends(network).swapaxes(0, 1)
    along = end - start
    t = np.einsum("ckj,cj->ck", points - start[:, None], along) / np.sum(along**2, axis=1)[:, None]
    off = np.linalg.norm(points - start[:, None] - t[..., None] * along[:, None], axis=-1)
    return t, off


def test_cells_lie_on_their_edges_and_cover_them(graph):
    network = create_network(graph, SEGMENT)
    ends = cell_ends(network)
    t, off = relative_positions(network, ends)
    assert off.max() < 1e-15
    assert t.min() > -1e-14
    assert t.max() < 1 + 1e-14
    lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    assert lengths.max() <= SEGMENT * (1 + 1e-12)
    # Cells that lie on an edge, as long together as the edge, with distinct midpoints, cover it.
    covered = np.bincount(network.edge_of_cell, lengths)
    np.testing.assert_allclose(covered, edge_lengths(graph), rtol=1e-13)
    assert len(np.unique(np.round(ends.mean(axis=1), 9), axis=0)) == len(ends)


def test_edges_are_cut_into_no_more_segments_than_needed(graph):
    network = create_network(graph, SEGMENT)
    pieces = np.bincount(network.edge_of_cell)
    np.testing.assert_array_equal(pieces, np.ceil(edge_lengths(graph) / SEGMENT))
    # Joined at the nodes: each edge adds its inner points to the nodes of the graph.
    num_vertices = network.mesh.topology.index_map(0).size_local
    assert num_vertices == graph.number_of_nodes() + np.sum(pieces - 1)


@pytest.mark.parametrize(("length", "pieces"), [(0.25, 4), (0.1, 10), (1 / 3, 3), (1.0, 1), (7, 1)])
def test_an_edge_of_a_multiple_of_the_bound_is_cut_without_a_sliver(length, pieces):
    graph = nx.Graph([(0, 1, {"radius": 0.1})])
    graph.add_node(0, pos=(0.1, 0.2, 0.3), inlet=True)
    graph.add_node(1, pos=(1.1, 0.2, 0.3))
    assert len(create_network(graph, length).edge_of_cell) == pieces


def test_radius_and_tangent_of_a_cell_are_those_of_its_edge(graph):
    network = create_network(graph, SEGMENT)
    radius_dofs = network.radius.function_space.dofmap.list[:, 0]
    np.testing.assert_array_equal(
        network.radius.x.array[radius_dofs], edge_radii(graph)[network.edge_of_cell]
    )
    start, end = edge_ends(network).swapaxes(0, 1)
    expected = (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
    tangent_dofs = network.tangent.function_space.dofmap.list[:, 0]
    tangents = network.tangent.x.array.reshape(-1, 3)[tangent_dofs]
    np.testing.assert_allclose(tangents, expected, atol=1e-15)
    ends = cell_ends(network)
    along = ends[:, 1] - ends[:, 0]
    np.testing.assert_allclose(
        np.abs(np.sum(tangents * along, axis=1)), np.linalg.norm(along, axis=1), rtol=1e-13
    )


def test_vertices_at_nodes_carry_what_the_node_is(graph):
    network = create_network(graph, SEGMENT)
    mesh, tags = network.mesh, network.vertex_tags
    mesh.topology.create_connectivity(0, 1)
    geometry = dolfinx.mesh.entities_to_geometry(mesh, 0, tags.indices)[:, 0]
    tag_at = {
        tuple(np.round(mesh.geometry.x[g], 9)): tag
        for g, tag in zip(geometry, tags.values, strict=True)
    }
    assert len(tag_at) == graph.number_of_nodes()
    for node, data in graph.nodes(data=True):
        if data["inlet"]:
            expected = VertexTag.INLET
        else:
            by_degree = {1: VertexTag.END, 2: VertexTag.BEND}
            expected = by_degree.get(graph.degree[node], VertexTag.JUNCTION)
        assert tag_at[tuple(np.round(data["pos"], 9))] == expected


def test_node_field_is_linear_along_edges(graph):
    graph = graph.copy()
    at_nodes = np.random.default_rng(3).normal(size=graph.number_of_nodes())
    nx.set_node_attributes(graph, dict(zip(graph, at_nodes, strict=True)), "pressure")
    network = create_network(graph, SEGMENT)
    field = network.node_field("pressure")
    t, _ = relative_positions(network, cell_ends(network))
    first, second = at_nodes[edge_indices(graph)[network.edge_of_cell]].T[..., None]
    # P1 dofs and geometry nodes of an interval both follow its vertices.
    values = field.x.array[network.P1.dofmap.list]
    np.testing.assert_allclose(values, (1 - t) * first + t * second, atol=1e-13)


def test_edge_field_holds_the_value_of_the_cells_edge(graph):
    graph = graph.copy()
    at_edges = np.random.default_rng(4).normal(size=graph.number_of_edges())
    nx.set_edge_attributes(graph, dict(zip(graph.edges, at_edges, strict=True)), "haematocrit")
    network = create_network(graph, SEGMENT)
    field = network.edge_field("haematocrit")
    values = field.x.array[field.function_space.dofmap.list[:, 0]]
    np.testing.assert_array_equal(values, at_edges[network.edge_of_cell])


def test_dof_of_node_is_where_the_node_is(graph):
    network = create_network(graph, SEGMENT)
    dofs = network.dof_of_node
    assert len(set(dofs.tolist())) == graph.number_of_nodes()
    np.testing.assert_allclose(
        network.P1.tabulate_dof_coordinates()[dofs], node_positions(graph), atol=1e-14
    )


def test_a_network_keeps_the_graph_that_it_was_made_of(fork):
    graph = fork.copy()
    network = create_network(graph, 0.2)
    nx.set_edge_attributes(graph, 0.02, "radius")
    graph.remove_edge(0, 1)
    np.testing.assert_array_equal(network.radius.x.array, create_network(fork, 0.2).radius.x.array)
    with pytest.raises(nx.NetworkXError, match="Frozen"):
        network.graph.remove_edge(0, 1)


def test_missing_attributes_are_named(fork):
    network = create_network(fork, SEGMENT)
    with pytest.raises(
        ValueError, match=r"3 of 3 edges carry no 'age', the first is edge \(0, 1\)"
    ):
        network.edge_field("age")
    with pytest.raises(ValueError, match=r"4 of 4 nodes carry no 'age', the first is node \(0,\)"):
        network.node_field("age")


@pytest.mark.parametrize("length", [0.0, -1.0, np.nan, np.inf])
def test_segment_length_must_be_positive(fork, length):
    with pytest.raises(ValueError, match=f"got max_segment_length={length}; wanted a positive"):
        create_network(fork, length)


def test_an_invalid_graph_is_an_error(fork):
    graph = fork.copy()
    graph.edges[1, 2]["radius"] = -1.0
    with pytest.raises(NetworkError, match="radius"):
        create_network(graph, SEGMENT)


def test_ten_thousand_edges():
    lattice = nx.grid_graph((15, 15, 17))
    graph = nx.convert_node_labels_to_integers(lattice, label_attribute="pos")
    nx.set_edge_attributes(graph, 0.1, "radius")
    nx.set_node_attributes(graph, {0: True}, "inlet")
    network = create_network(graph, 0.5)
    assert graph.number_of_edges() > 10_000
    assert len(network.edge_of_cell) == 2 * graph.number_of_edges()
    t, off = relative_positions(network, cell_ends(network))
    assert off.max() == 0.0
    np.testing.assert_array_equal(np.unique(t), [0.0, 0.5, 1.0])

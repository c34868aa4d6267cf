"""Data sets and files hold what the solution holds, at the right places."""

from dataclasses import replace

import dolfinx
import numpy as np
import pytest
import pyvista as pv

import mixeddim as md
from mixeddim.fem.location import locate


@pytest.fixture(scope="module", params=["box", "mesh", "hexahedra"])
def solution(request):
    """Fields that are known at every point, on boxes and on a mesh that is not known to be one."""
    cell_type = "hexahedron" if request.param == "hexahedra" else "tetrahedron"
    box = md.create_box((3, 4, 5), upper=(1.0, 1.0, 2.0), cell_type=cell_type)
    graph = md.random_vascular_graph(8, radius=0.05, seed=1, method="murray_tree", upper=(1, 1, 2))
    network = md.create_network(graph, max_segment_length=0.2)
    tissue = box.mesh if request.param == "mesh" else box
    solution = md.solve(md.assemble(tissue, network, md.Coefficients(sigma_3d=1.0)))
    return replace(solution, u_3d=_interpolate(solution.u_3d), u_1d=_interpolate(solution.u_1d))


def _field(x):
    return x[0] - 2.0 * x[1] + 3.0 * x[2]


def _interpolate(like):
    field = dolfinx.fem.Function(like.function_space)
    field.interpolate(_field)
    return field


def test_tissue_dataset_has_the_values_of_u_3d_at_its_points(solution):
    tissue = md.tissue_dataset(solution)
    is_box = isinstance(solution.system.tissue, md.StructuredBox)
    assert isinstance(tissue, pv.ImageData if is_box else pv.UnstructuredGrid)
    assert tissue.n_points == 4 * 5 * 6
    assert tissue.bounds == pytest.approx((0, 1, 0, 1, 0, 2))
    np.testing.assert_allclose(tissue.point_data["u_3d"], _field(tissue.points.T), atol=1e-13)


def test_samples_between_the_nodes_are_those_of_trilinear_functions(fork):
    """VTK interpolates an image as hexahedra do."""
    box = md.create_box((3, 4, 5), upper=(1.0, 1.0, 2.0), cell_type="hexahedron")
    solution = md.solve(md.assemble(box, md.create_network(fork, 0.2), md.Coefficients()))
    points = np.random.default_rng(0).uniform(box.lower, box.upper, (20, 3))
    samples = pv.PolyData(points).sample(md.tissue_dataset(solution)).point_data["u_3d"]
    values = solution.u_3d.eval(points, locate(box, points).cells).ravel()
    np.testing.assert_allclose(samples, values, rtol=1e-9)


def test_network_dataset_has_the_values_of_u_1d_at_its_points(solution):
    lines = md.network_dataset(solution)
    np.testing.assert_allclose(lines.point_data["u_1d"], _field(lines.points.T), atol=1e-13)


def test_network_dataset_has_the_radius_of_each_edge_on_cells_and_points(solution):
    lines, network = md.network_dataset(solution), solution.system.network
    radii = np.array([radius for *_, radius in network.graph.edges(data="radius")])
    np.testing.assert_array_equal(lines.cell_data["radius"], radii[network.edge_of_cell])
    ends = lines.lines.reshape(-1, 3)[:, 1:]
    np.testing.assert_array_equal(lines.point_data["radius"][ends[:, 0]], lines.cell_data["radius"])
    np.testing.assert_array_equal(lines.point_data["radius"][ends[:, 1]], lines.cell_data["radius"])


def test_wall_flux_of_the_network_dataset_adds_up_to_the_exchange(solution):
    lines = md.network_dataset(solution).compute_cell_sizes(area=False, volume=False)
    total = lines.cell_data["wall_flux"] @ lines.cell_data["Length"]
    assert total == pytest.approx(solution.mass_balance.exchange, rel=1e-12)


def test_network_dataset_of_a_network_has_its_radius_alone(solution):
    lines = md.network_dataset(solution.system.network)
    assert lines.array_names == ["radius", "radius"]


def test_cleaned_network_dataset_is_connected_as_the_mesh(solution):
    joined, mesh = md.network_dataset(solution).clean(), solution.system.network.mesh
    assert joined.n_points == mesh.topology.index_map(0).size_local
    assert joined.connectivity().cell_data["RegionId"].max() == 0


def test_files_read_back_equal_the_datasets(solution, tmp_path):
    files = md.write_outputs(solution, tmp_path / "new" / "folder")
    is_box = isinstance(solution.system.tissue, md.StructuredBox)
    assert files.tissue.name == ("tissue.vti" if is_box else "tissue.vtu")
    assert files.network.name == "network.vtp"
    assert sorted(files.tissue.parent.iterdir()) == sorted([files.tissue, files.network])
    for path, written in (
        (files.tissue, md.tissue_dataset(solution)),
        (files.network, md.network_dataset(solution)),
    ):
        read = pv.read(path)
        assert type(read) is type(written)
        assert read.n_cells == written.n_cells
        np.testing.assert_array_equal(read.points, written.points)
        for name in written.point_data:
            np.testing.assert_array_equal(read.point_data[name], written.point_data[name])
        for name in written.cell_data:
            np.testing.assert_array_equal(read.cell_data[name], written.cell_data[name])


def test_interrupted_write_keeps_the_earlier_files(solution, tmp_path, monkeypatch):
    files = md.write_outputs(solution, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def save_half(_dataset, path):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pv.DataSet, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        md.write_outputs(solution, tmp_path)
    assert set(before) == {files.tissue, files.network}
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

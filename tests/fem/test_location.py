"""Two ways to find a cell: each must name one that holds the point, at any size of the mesh."""

import dolfinx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpi4py import MPI

from mixeddim import create_box
from mixeddim.fem.location import locate

# In units of the smallest cell: what the arithmetic of barycentric coordinates rounds off.
ROUNDING = 1e-9
EXTENTS = [1e-6, 1e-4, 1e-3, 1.0, 1e3]

by_all = pytest.mark.parametrize("way", ["arithmetic", "search", "hexahedra"])


def make_box(way, *arguments, **options):
    cell_type = "hexahedron" if way == "hexahedra" else "tetrahedron"
    return create_box(*arguments, **options, cell_type=cell_type)


def located(box, way, points):
    return locate(box.mesh if way == "search" else box, points)


def assert_cells_hold(mesh, location, points):
    """Check that mapping the reference points forward gives the points, from inside their cells."""
    assert np.all(location.cells >= 0)
    X = location.reference_points
    vertices = mesh.geometry.x[mesh.geometry.dofmaps[0][location.cells]]
    if mesh.topology.cell_name() == "tetrahedron":
        weights = np.column_stack([1 - X.sum(axis=1), X])
    else:  # in the order of a tensor product, x fastest
        x, y, z = np.stack([1 - X, X], axis=-1).swapaxes(0, 1)
        weights = np.einsum("nk,nj,ni->nkji", z, y, x).reshape(-1, 8)
        assert X.max() < 1 + ROUNDING
        assert X.min() > -ROUNDING
    assert weights.min() > -ROUNDING
    extent = np.ptp(mesh.geometry.x, axis=0).max()
    forward = np.einsum("ni,nij->nj", weights, vertices)
    np.testing.assert_allclose(forward, points, rtol=0, atol=1e-12 * extent)


@by_all
@pytest.mark.parametrize("extent", EXTENTS)
def test_cell_holds_a_random_point(extent, way):
    box = make_box(way, (3, 4, 5), upper=np.array([1.0, 0.5, 2.0]) * extent)
    points = np.random.default_rng(0).random((500, 3)) * box.upper
    assert_cells_hold(box.mesh, located(box, way, points), points)


@by_all
@settings(deadline=None, max_examples=20)
@given(
    num_cells=st.tuples(*3 * [st.integers(1, 4)]),
    lower=st.tuples(*3 * [st.floats(-2.0, 2.0)]),
    size=st.tuples(*3 * [st.floats(0.1, 10.0)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_cell_holds_a_point_on_faces_edges_and_vertices(way, num_cells, lower, size, seed):
    box = make_box(way, num_cells, lower, np.add(lower, size))
    rng = np.random.default_rng(seed)
    # Halves of a cell: vertices, midpoints of edges, points on diagonal faces, the box's faces.
    local = rng.integers(0, 2 * np.array(num_cells) + 1, size=(60, 3)) / 2
    free = rng.random((60, 3)) < 0.3
    local = np.where(free, rng.random((60, 3)) * num_cells, local)
    points = box.lower + local * box.cell_size
    assert_cells_hold(box.mesh, located(box, way, points), points)


@by_all
@pytest.mark.parametrize("extent", EXTENTS)
def test_corners_belong_to_the_box(extent, way):
    box = make_box(way, (2, 1, 3), upper=np.array([1.0, 3.0, 0.2]) * extent)
    corners = np.array(np.meshgrid(*zip(box.lower, box.upper, strict=True))).reshape(3, -1).T
    assert_cells_hold(box.mesh, located(box, way, corners), corners)


@by_all
@pytest.mark.parametrize("extent", EXTENTS)
def test_points_outside_have_no_cell(extent, way):
    box = make_box(way, (3, 2, 2), upper=3 * [extent])
    inside = np.full(3, 0.4 * extent)
    for axis in range(3):
        for position in (-10.0, -0.1, -1e-3, 1 + 1e-3, 1.2, 1e6):
            point = inside.copy()
            point[axis] = position * extent
            assert located(box, way, point[None]).cells.tolist() == [-1]


@by_all
@pytest.mark.parametrize("far", [1e30, np.inf, np.nan])
def test_points_absurdly_far_away_have_no_cell(far, way):
    assert located(make_box(way, 2), way, np.array([[far, 0.5, 0.5]])).cells.tolist() == [-1]


@by_all
def test_points_within_rounding_of_the_boundary_count_as_inside(way):
    box = make_box(way, 3)
    points = np.array([[1 + 1e-15, 0.5, 0.5], [0.3, -1e-15, 0.1], [0.2, 0.4, 1 + 4e-16]])
    assert np.all(located(box, way, points).cells >= 0)


@by_all
def test_no_points_have_no_cells(way):
    location = located(make_box(way, 2), way, np.empty((0, 3)))
    assert location.cells.shape == (0,)
    assert location.reference_points.shape == (0, 3)


@pytest.mark.parametrize("extent", EXTENTS)
def test_both_ways_agree_inside_cells(extent):
    box = create_box((3, 4, 5), upper=np.array([1.0, 0.5, 2.0]) * extent)
    points = np.random.default_rng(0).random((500, 3)) * box.upper
    by_arithmetic, by_search = (located(box, way, points) for way in ("arithmetic", "search"))
    np.testing.assert_array_equal(by_arithmetic.cells, by_search.cells)


def test_search_finds_cells_of_an_irregular_mesh():
    mesh = create_box(3).mesh
    x = mesh.geometry.x
    x[:] = x @ np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.3], [0.1, 0.0, 1.0]]) + 0.05 * np.sin(5 * x)
    vertices = x[mesh.geometry.dofmaps[0]]
    weights = np.random.default_rng(0).dirichlet(np.ones(4), size=len(vertices))
    points = np.einsum("ni,nij->nj", weights, vertices)
    location = locate(mesh, points)
    assert_cells_hold(mesh, location, points)
    np.testing.assert_array_equal(location.cells, np.arange(len(vertices)))


@pytest.mark.parametrize("num_cells", [(1, 1, 1), (3, 4, 2)], ids=str)
def test_trilinear_functions_are_evaluated_exactly_in_hexahedra(num_cells):
    box = make_box("hexahedra", num_cells, (-1.0, 0.0, 0.5), (1.0, 3.0, 2.0))
    points = np.random.default_rng(0).uniform(box.lower, box.upper, (200, 3))
    location = locate(box, points)
    basis = box.P1.element.basix_element.tabulate(0, location.reference_points)[0, :, :, 0]
    np.testing.assert_allclose(basis.sum(axis=1), 1.0, atol=1e-14)

    def function(x):
        return (2.0 + x[0]) * (1.0 - 3.0 * x[1]) * (0.5 + x[2])

    u = dolfinx.fem.Function(box.P1)
    u.interpolate(function)
    values = np.sum(basis * u.x.array[box.P1.dofmap.list[location.cells]], axis=1)
    np.testing.assert_allclose(values, function(points.T), rtol=1e-12, atol=1e-12)


def test_a_mesh_of_hexahedra_without_its_box_is_an_error():
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 2, 2, 2, dolfinx.mesh.CellType.hexahedron)
    with pytest.raises(ValueError, match=r"'hexahedron' .* tetrahedra.*pass the box itself"):
        locate(mesh, np.full((1, 3), 0.5))

"""The averaging matrix: exact where it should be, its adjoint, circles that leave the tissue."""

import math

import dolfinx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixeddim import (
    CircleMean,
    PointTrace,
    Stencil,
    create_box,
)
from mixeddim.fem.averaging import average

BOX = create_box((3, 4, 2), (-1.0, 0.0, 0.5), (1.0, 3.0, 2.0))
HEXAHEDRA = create_box((3, 4, 2), (-1.0, 0.0, 0.5), (1.0, 3.0, 2.0), cell_type="hexahedron")


def frame(tangents):
    """Return two unit vectors normal to each tangent and each other, from an SVD."""
    _, _, basis = np.linalg.svd(tangents[:, None, :])
    return basis[:, 1], basis[:, 2]


class DiskMean:
    """Mean over the disk: Gauss points in the square of the radius, equispaced ones in angle."""

    def stencil(self, centres, tangents, radii, spacing):  # noqa: ARG002
        squares, weights = np.polynomial.legendre.leggauss(4)
        r = np.sqrt((squares + 1) / 2)
        angle = 2 * np.pi * np.arange(12) / 12
        first, second = frame(tangents)
        a = np.outer(r, np.cos(angle)).ravel()
        b = np.outer(r, np.sin(angle)).ravel()
        offsets = a[None, :, None] * first[:, None] + b[None, :, None] * second[:, None]
        points = centres[:, None] + radii[:, None, None] * offsets
        row_weights = np.repeat(weights / 2, 12) / 12
        rows = np.repeat(np.arange(len(centres)), len(a))
        return Stencil(rows, points.reshape(-1, 3), np.tile(row_weights, len(centres)))


class TwoPoints:
    """Unequal weights at two opposite points, listed out of order."""

    def stencil(self, centres, tangents, radii, spacing):  # noqa: ARG002
        n = np.arange(len(centres))
        offset = radii[:, None] * frame(tangents)[0]
        points = np.concatenate([centres + offset, centres - offset])[::-1]
        weights = np.concatenate([np.full(len(n), 0.75), np.full(len(n), 0.25)])[::-1]
        return Stencil(np.concatenate([n, n])[::-1], points, weights)


def lagrange(degree, mesh=BOX.mesh):
    return dolfinx.fem.functionspace(mesh, ("Lagrange", degree))


def wall(num_points=20, seed=0, radius=0.2):
    """Return centres, tangents and radii of circles inside BOX."""
    rng = np.random.default_rng(seed)
    margin = 1.01 * radius
    centres = (
        BOX.lower + margin + rng.random((num_points, 3)) * (BOX.upper - BOX.lower - 2 * margin)
    )
    tangents = rng.normal(size=(num_points, 3))
    tangents[:3] = np.eye(3)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    return centres, tangents, radius * rng.uniform(0.1, 1.0, num_points)


def dofs_of(V, function):
    u = dolfinx.fem.Function(V)
    u.interpolate(function)
    return u.x.array


def evaluate(V, dofs, points):
    """Evaluate a function through DOLFINx alone."""
    u = dolfinx.fem.Function(V)
    u.x.array[:] = dofs
    tree = dolfinx.geometry.bb_tree(V.mesh, 3, padding=1e-12)
    candidates = dolfinx.geometry.compute_collisions_points(tree, points)
    cells = dolfinx.geometry.compute_colliding_cells(V.mesh, candidates, points)
    return u.eval(points, cells.array[cells.offsets[:-1]])[:, 0]


OPERATORS = {
    "circle": CircleMean(),
    "circle of 5": CircleMean(5, phase=0.3),
    "trace": PointTrace(),
    "disk": DiskMean(),
    "two points": TwoPoints(),
}
all_operators = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())

# Means of cos^0, cos^2, cos^4 of the angle, times the distance to the centre, over a mean's points.
MOMENTS = {
    "circle": (CircleMean(), (1, 1 / 2, 3 / 8)),
    "disk": (DiskMean(), (1, 1 / 4, 1 / 8)),
    "trace": (PointTrace(), (1, 0, 0)),
}


@all_operators
@pytest.mark.parametrize("box", [BOX, HEXAHEDRA], ids=["tetrahedra", "hexahedra"])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rows_sum_to_one(operator, box, degree):
    result = average(box, lagrange(degree, box.mesh), *wall(), operator)
    np.testing.assert_allclose(result.Pi.sum(axis=1), 1.0, rtol=0, atol=1e-13)
    assert result.kept.all()
    assert result.num_leaving == 0


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("name", MOMENTS)
def test_exact_on_polynomials_in_the_space(name, degree):
    """Powers (a . x)^q span the polynomials, and their means follow from the binomial formula.

    With h = a . c at the centre, s = R |a_n| and a_n the part of a normal to the tangent,
    (a . x)^q is (h + s cos)^q on the circle.
    """
    operator, moments = MOMENTS[name]
    centres, tangents, radii = wall()
    V = lagrange(degree)
    Pi = average(BOX, V, centres, tangents, radii, operator).Pi
    for a in np.random.default_rng(5).normal(size=(5, 3)):
        u = dofs_of(V, lambda x, a=a: (a @ x) ** degree)
        h = centres @ a
        s = radii * np.linalg.norm(a - (tangents @ a)[:, None] * tangents, axis=1)
        expected = sum(
            math.comb(degree, 2 * k) * moments[k] * h ** (degree - 2 * k) * s ** (2 * k)
            for k in range(degree // 2 + 1)
        )
        np.testing.assert_allclose(Pi @ u, expected, rtol=0, atol=1e-12 * np.abs(u).max())


def test_mean_of_a_square_over_a_circle():
    centres, tangents, radii = wall()
    V = lagrange(2)
    Pi = average(BOX, V, centres, tangents, radii).Pi
    expected = centres[:, 0] ** 2 + radii**2 * (1 - tangents[:, 0] ** 2) / 2
    np.testing.assert_allclose(Pi @ dofs_of(V, lambda x: x[0] ** 2), expected, atol=1e-13)


def test_rotation_of_the_points_matters_less_the_more_there_are():
    V, circles = lagrange(1), wall(radius=0.5)
    u = dofs_of(V, lambda x: np.sin(3 * x[0]) * np.cos(2 * x[1]) + x[2] ** 2)
    counts = 16 * 4 ** np.arange(4)
    change = []
    for count in counts:
        means = [
            average(BOX, V, *circles, CircleMean(count, phase)).Pi @ u
            for phase in np.linspace(0, 2 * np.pi / count, 5)
        ]
        change.append(np.linalg.norm(np.ptp(means, axis=0)))
    # Kinks at cell faces: the rule for periodic functions falls back to second order.
    slope = np.polyfit(np.log(counts), np.log(change), 1)[0]
    assert slope < -1.7
    assert np.all(np.diff(change) < 0)


def test_a_full_turn_of_one_spacing_changes_nothing():
    V, circles = lagrange(1), wall()
    turned, plain = (
        average(BOX, V, *circles, CircleMean(16, phase)).Pi for phase in (2 * np.pi / 16, 0.0)
    )
    assert abs(turned - plain).max() < 1e-14


@all_operators
@pytest.mark.parametrize("box", [BOX, HEXAHEDRA], ids=["tetrahedra", "hexahedra"])
@pytest.mark.parametrize("degree", [1, 2])
def test_dot_test_against_means_of_evaluated_functions(operator, box, degree):
    circles, V = wall(), lagrange(degree, box.mesh)
    Pi = average(box, V, *circles, operator).Pi
    rng = np.random.default_rng(7)
    u, w = rng.normal(size=Pi.shape[1]), rng.normal(size=Pi.shape[0])
    stencil = operator.stencil(*circles, BOX.spacing)
    values = stencil.weights * evaluate(V, u, np.ascontiguousarray(stencil.points))
    means = np.bincount(stencil.rows, values)
    assert means @ w == pytest.approx(u @ (Pi.T @ w), abs=1e-12 * np.linalg.norm(u))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_point_trace_is_evaluation(degree):
    centres, tangents, radii = wall()
    V = lagrange(degree)
    u = np.random.default_rng(8).normal(size=len(dofs_of(V, lambda x: x[0])))
    Pi = average(BOX, V, centres, tangents, radii, PointTrace()).Pi
    np.testing.assert_allclose(Pi @ u, evaluate(V, u, centres), atol=1e-12)


@pytest.mark.parametrize(("radius_over_h", "expected"), [
    (0.01, 16), (0.6, 16), (0.65, 20), (1.0, 28), (2.5, 64), (5.0, 128),
])  # fmt: skip
def test_number_of_points_follows_the_radius(radius_over_h, expected):
    spacing = 0.3
    stencil = CircleMean().stencil(
        np.zeros((2, 3)), np.eye(3)[:2], np.array([radius_over_h * spacing, 1e-3]), spacing
    )
    np.testing.assert_array_equal(np.bincount(stencil.rows), [expected, 16])


@pytest.mark.parametrize("num_points", [3, 7])
def test_points_lie_on_the_circle_at_equal_distances(num_points):
    centres, tangents, radii = wall(5)
    stencil = CircleMean(num_points, phase=0.1).stencil(centres, tangents, radii, 1.0)
    offset = (stencil.points - centres[stencil.rows]).reshape(5, num_points, 3)
    np.testing.assert_allclose(np.linalg.norm(offset, axis=2), radii[:, None] + 0 * offset[..., 0])
    np.testing.assert_allclose(np.einsum("nij,nj->ni", offset, tangents), 0.0, atol=1e-15)
    chord = np.linalg.norm(offset - np.roll(offset, 1, axis=1), axis=2) / radii[:, None]
    np.testing.assert_allclose(chord, 2 * np.sin(np.pi / num_points), rtol=1e-12)


@pytest.mark.parametrize("num_points", [0, 2, -5])
def test_a_circle_has_at_least_three_points(num_points):
    with pytest.raises(ValueError, match=f"got num_points={num_points}; wanted at least 3"):
        CircleMean(num_points)


# --- Circles that leave the box ---------------------------------------------------------------

# The second of three circles reaches through the face x = 1, the third lies outside.
LEAVING = np.array([[0.0, 1.5, 1.25], [0.95, 1.5, 1.25], [1.5, 1.5, 1.25]])
TANGENTS, RADII = np.tile([0.0, 0.0, 1.0], (3, 1)), np.full(3, 0.2)


def test_raise_names_the_first_circle_that_leaves():
    with pytest.raises(ValueError, match=(
        r"2 of 3 circles leave the tissue, the first around \[0.95, 1.5, 1.25\] with radius 0.2; "
        r"wanted all inside.*Scaling.*outside='renormalise'.*outside='drop'"
    )):  # fmt: skip
        average(BOX, lagrange(1), LEAVING, TANGENTS, RADII)


@pytest.mark.parametrize("tissue", [BOX, BOX.mesh], ids=["box", "mesh"])
def test_renormalise_takes_the_mean_over_the_points_inside(tissue):
    V, operator = lagrange(1), CircleMean(24, phase=0.1)
    circles = LEAVING[:2], TANGENTS[:2], RADII[:2]
    result = average(tissue, V, *circles, operator, "renormalise")
    points = operator.stencil(*circles, 1.0).points.reshape(2, 24, 3)
    inside = np.all((points >= BOX.lower) & (points <= BOX.upper), axis=2)
    assert inside[0].all()
    assert 5 < inside[1].sum() < 24
    means = [points[i][inside[i]].mean(axis=0) for i in range(2)]
    for axis in range(3):
        u = dofs_of(V, lambda x, axis=axis: x[axis])
        np.testing.assert_allclose(result.Pi @ u, np.array(means)[:, axis], atol=1e-13)
    np.testing.assert_allclose(result.Pi.sum(axis=1), 1.0, atol=1e-13)
    assert result.kept.all()
    assert result.num_leaving == 1


def test_renormalise_names_the_first_circle_wholly_outside():
    with pytest.raises(ValueError, match=(
        r"1 of 3 circles lie wholly outside the tissue, the first around \[1.5, 1.5, 1.25\] with "
        r"radius 0.2; wanted a part of each inside.*outside='drop'"
    )):  # fmt: skip
        average(BOX, lagrange(1), LEAVING, TANGENTS, RADII, outside="renormalise")


def test_drop_leaves_those_points_out():
    V = lagrange(1)
    result = average(BOX, V, LEAVING, TANGENTS, RADII, outside="drop")
    alone = average(BOX, V, LEAVING[:1], TANGENTS[:1], RADII[:1])
    np.testing.assert_array_equal(result.kept, [True, False, False])
    assert result.num_leaving == 2
    assert result.Pi.shape == (1, 60)
    assert abs(result.Pi - alone.Pi).max() == 0.0


def test_dropping_every_point_leaves_no_row():
    result = average(BOX, lagrange(1), LEAVING[2:], TANGENTS[2:], RADII[2:], outside="drop")
    assert result.Pi.shape == (0, 60)


def test_weights_that_do_not_sum_to_one_are_an_error():
    class Halved(CircleMean):
        def stencil(self, *arguments):
            full = super().stencil(*arguments)
            return Stencil(full.rows, full.points, 0.5 * full.weights)

    with pytest.raises(ValueError, match=r"sum to 0\.5 around a point; wanted 1"):
        average(BOX, lagrange(1), *wall(), operator=Halved())


def test_a_space_on_another_mesh_is_an_error():
    with pytest.raises(ValueError, match="got a space on another mesh"):
        average(BOX, lagrange(1, create_box(2).mesh), *wall())


def test_policies_are_checked():
    with pytest.raises(ValueError, match=r"got outside='ignore'; wanted one of \('raise', 'ren"):
        average(BOX, lagrange(1), *wall(), outside="ignore")


@pytest.mark.parametrize(
    "element", [("Lagrange", 1, (3,)), ("N1curl", 1)], ids=["blocked", "Nedelec"]
)
def test_vector_spaces_are_errors(element):
    V = dolfinx.fem.functionspace(BOX.mesh, element)
    with pytest.raises(ValueError, match="got a vector-valued space; wanted a scalar Lagrange"):
        average(BOX, V, *wall())


# --- Any box ----------------------------------------------------------------------------------


@all_operators
@pytest.mark.parametrize("extent", [1e-4, 1.0])
@pytest.mark.parametrize("degree", [1, 2])
def test_arithmetic_and_search_give_the_same_matrix(operator, extent, degree):
    box = create_box((3, 4, 2), BOX.lower * extent, BOX.upper * extent)
    centres, tangents, radii = wall()
    circles = centres * extent, tangents, radii * extent
    V = lagrange(degree, box.mesh)
    by_arithmetic, by_search = (
        average(tissue, V, *circles, operator).Pi for tissue in (box, box.mesh)
    )
    assert abs(by_arithmetic - by_search).max() < 1e-12


@settings(deadline=None, max_examples=20)
@given(
    num_cells=st.tuples(*3 * [st.integers(1, 5)]),
    degree=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
    radius=st.floats(1e-3, 0.4),
)
def test_linear_functions_are_averaged_exactly_on_any_box(num_cells, degree, seed, radius):
    box = create_box(num_cells, BOX.lower, BOX.upper)
    centres, tangents, radii = wall(10, seed, radius)
    V = lagrange(degree, box.mesh)
    Pi = average(box, V, centres, tangents, radii).Pi
    means = Pi @ dofs_of(V, lambda x: 1 + x[0] - 2 * x[1] + 3 * x[2])
    np.testing.assert_allclose(means, 1 + centres @ [1, -2, 3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("outside", ["raise", "renormalise", "drop"])
def test_a_network_in_another_unit_is_refused_before_it_takes_all_memory(outside):
    """The radius in µm and the box in m: 4e12 points on a circle."""
    box = create_box(4, upper=(1e-4,) * 3)
    V = dolfinx.fem.functionspace(box.mesh, ("Lagrange", 1))
    point = np.full((1, 3), 5e-5), np.array([[0.0, 0.0, 1.0]]), np.array([5e6])
    with pytest.raises(
        ValueError, match=r"radius 5e\+06 in a tissue of extent 0\.0001; wanted net"
    ):
        average(box, V, *point, outside=outside)

"""Circles clipped at the boundary: the mean over the part inside, its share of the exchange."""

import dolfinx
import networkx as nx
import numpy as np
import pytest

import mixeddim as md
from mixeddim import CircleMean, PointTrace, create_box
from mixeddim.fem.averaging import average

BOX = create_box((4, 4, 4))
ALONG_Z = np.array([[0.0, 0.0, 1.0]])


def means(tissue, centre, tangent, radius, outside, operator=None):
    """Return the averaging, and the means of x, y and z."""
    mesh = BOX.mesh
    V = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    result = average(
        tissue, V, np.atleast_2d(centre), tangent, np.array([radius]), operator, outside
    )
    fields = [dolfinx.fem.Function(V) for _ in range(3)]
    for axis, field in enumerate(fields):
        field.interpolate(lambda x, axis=axis: x[axis])
    return result, np.array([result.Pi @ field.x.array for field in fields]).T


@pytest.mark.parametrize("tissue", [BOX, BOX.mesh], ids=["box", "mesh"])
@pytest.mark.parametrize("phase", [0.0, 0.3])
def test_a_circle_half_outside_is_averaged_over_its_inner_half(tissue, phase):
    """The centre lies on the face x = 0; the mean of x over the half circle is 2 R / pi."""
    operator = CircleMean(400, phase=phase)
    result, mean = means(tissue, (0.0, 0.5, 0.5), ALONG_Z, 0.2, "clip", operator)
    assert result.share == pytest.approx([0.5], abs=1e-14)
    assert mean[0] == pytest.approx([0.4 / np.pi, 0.5, 0.5], abs=0.2 * np.pi / 400)
    assert result.kept.all()
    assert result.num_leaving == 1


@pytest.mark.parametrize("num_points", [8, 16, 24])
@pytest.mark.parametrize("tangent", [(0, 0, 1), (0, 1, 0), (0, 0.6, 0.8)])
def test_few_points_too_give_one_half(num_points, tangent):
    """Points on the face itself count half, so that the trapezoidal rule holds on the half."""
    centre, operator = (1.0, 0.5, 0.5), CircleMean(num_points)
    result, mean = means(BOX, centre, np.array([tangent], float), 0.2, "clip", operator)
    assert result.share == pytest.approx([0.5], abs=1e-14)
    assert mean[0, 1:] == pytest.approx([0.5, 0.5], abs=1e-14)


def test_the_share_is_that_of_the_arc_inside():
    """Centre at a third of the radius from the face: the arc inside follows from its cosine."""
    result, _ = means(BOX, (0.1, 0.5, 0.5), ALONG_Z, 0.3, "clip", CircleMean(4000))
    assert result.share == pytest.approx([1 - np.arccos(1 / 3) / np.pi], abs=5e-4)


def test_circles_inside_are_as_without_clipping():
    centre, tangent = (0.5, 0.4, 0.3), np.array([[0.6, 0.0, 0.8]])
    clipped, _ = means(BOX, centre, tangent, 0.3, "clip")
    whole, _ = means(BOX, centre, tangent, 0.3, "raise")
    assert abs(clipped.Pi - whole.Pi).max() == 0.0
    assert clipped.share.tolist() == [1.0]


@pytest.mark.parametrize("operator", [None, PointTrace()], ids=["circle", "trace"])
def test_a_circle_wholly_outside_exchanges_nothing(operator):
    result, _ = means(BOX, (1.4, 0.5, 0.5), ALONG_Z, 0.2, "clip", operator)
    assert result.Pi.shape[0] == 0
    assert not result.kept.any()
    assert result.num_leaving == 1


def vessel(x: float, radius: float = 0.1) -> nx.Graph:
    graph = nx.Graph([(0, 1, {"radius": radius})])
    graph.nodes[0].update(pos=(x, 0.5, 0.2), inlet=True)
    graph.nodes[1].update(pos=(x, 0.5, 0.8), inlet=False)
    return graph


def assemble(x: float, outside: str = "clip", **coefficients: float) -> md.CoupledSystem:
    network = md.create_network(vessel(x), 0.1)
    values = md.Coefficients(**{"sigma_3d": 1.0, "permeability": 3.0} | coefficients)
    return md.assemble(BOX, network, values, outside=outside)


def test_a_vessel_along_a_face_has_half_its_conductance_and_balances():
    system = assemble(0.0)
    whole = 2 * np.pi * 0.1 * 3.0
    np.testing.assert_allclose(system.coupling.beta, 0.5 * whole, rtol=1e-13)
    solution = md.solve(system)
    assert solution.mass_balance.exchange > 0
    assert solution.mass_balance.error < 1e-10


def test_another_permeability_acts_over_the_same_share():
    changed, fresh = (
        assemble(0.05).with_coefficients(permeability=7.0),
        assemble(0.05, permeability=7.0),
    )
    assert 0.5 < changed.coupling.share.max() < 1.0
    np.testing.assert_array_equal(changed.coupling.beta, fresh.coupling.beta)


def test_a_vessel_inside_is_as_without_clipping():
    clipped, whole = (md.solve(assemble(0.5, outside)) for outside in ("clip", "raise"))
    np.testing.assert_array_equal(clipped.u_3d.x.array, whole.u_3d.x.array)

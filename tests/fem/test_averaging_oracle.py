"""The averaging matrix equals that of fenicsx_ii, an independent package of averaging operators."""

import basix.ufl
import dolfinx
import numpy as np
import pytest

from mixeddim import CircleMean, Coefficients, Stencil, assemble, create_box, create_network
from mixeddim.fem.averaging import average


@pytest.fixture(scope="module")
def oracle():
    """Return the package, or skip the test without it."""
    reason = "the oracle is absent: pip install --no-deps fenicsx-ii==0.9.0"
    return pytest.importorskip("fenicsx_ii", reason=reason)


def oracle_matrix(oracle, system, V, operator):
    """Assemble its matrix at our quadrature points, with our order of rows."""
    cells = system.coupling.cells.reshape(-1, 2)[:, 0]
    mesh = system.network.mesh
    points, weights = basix.make_quadrature(basix.CellType.interval, 3)
    element = basix.ufl.quadrature_element("interval", points=points, weights=weights)
    K = dolfinx.fem.functionspace(mesh, element)
    matrix, _, _ = oracle.create_interpolation_matrix(V, K, operator, use_petsc=False)
    return matrix.to_scipy()[K.dofmap.list[cells].ravel()]


@pytest.mark.parametrize("degree", [1, 2])
def test_equals_fenicsx_ii_on_our_points(oracle, fork, degree):
    operator = CircleMean(8)
    box = create_box((4, 5, 3))
    network = create_network(fork, 0.25)
    system = assemble(box, network, Coefficients(), averaging=operator)
    cells = system.coupling.cells
    radii = network.radius.x.array[network.radius.function_space.dofmap.list[cells, 0]]
    ends = network.mesh.geometry.x[network.mesh.geometry.dofmaps[0][cells]]
    tangents = ends[:, 1] - ends[:, 0]
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    circles = system.coupling.points, tangents, radii

    class OurCircles:
        _mesh = network.mesh
        num_points = 8

        def compute_quadrature(self, cells, reference_points):  # noqa: ARG002
            points = operator.stencil(*circles, box.spacing).points
            return oracle.quadrature.Quadrature(
                name="ours",
                points=points.reshape(-1, 8, 3),
                weights=np.full((len(points) // 8, 8), 1 / 8),
                scales=np.ones(len(points) // 8),
            )

    V = dolfinx.fem.functionspace(box.mesh, ("Lagrange", degree))
    ours = average(box, V, *circles, operator).Pi
    if degree == 1:
        assert abs(ours - system.coupling.Pi).max() == 0.0
    assert abs(ours - oracle_matrix(oracle, system, V, OurCircles())).max() < 1e-12


def test_equals_fenicsx_ii_on_its_points(oracle, vessel):
    box = create_box((4, 3, 5))
    network = create_network(vessel, 0.3)
    circle = oracle.Circle(network.mesh, 0.08, degree=15)

    class GaussCircle:
        def stencil(self, centres, tangents, radii, spacing):  # noqa: ARG002
            # Its normals point from the second vertex of a cell to the first.
            points, weights, scales = circle.quadrature(centres, -tangents)
            rows = np.repeat(np.arange(len(centres)), circle.num_points)
            return Stencil(rows, points.reshape(-1, 3), (weights / scales[:, None]).ravel())

    system = assemble(box, network, Coefficients(), averaging=GaussCircle())
    theirs = oracle_matrix(oracle, system, system.side_3d.V, circle)
    assert abs(system.coupling.Pi - theirs).max() < 1e-12

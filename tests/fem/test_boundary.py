"""Boundary conditions against fields that P1 represents exactly, and their messages."""

import dolfinx
import networkx as nx
import numpy as np
import pytest
import ufl

from mixeddim import (
    Coefficients,
    Dirichlet,
    Neumann,
    Robin,
    assemble,
    create_box,
    create_network,
    solve,
)
from mixeddim.fem.boundary import find_facets, find_vertices

BOX = create_box((3, 2, 4), (0.0, 0.0, 0.0), (1.0, 1.0, 1.5))
FACES = [f"{axis}_{side}" for axis in "xyz" for side in ("min", "max")]
K_3D, K_1D, A, B = 2.5, 0.7, 1.2, -0.8


@pytest.fixture(scope="module")
def network(vessel):
    return create_network(vessel, 0.2)


def solve_tissue(network, bcs_3d, **coefficients):
    """Solve in the tissue alone, behind an impermeable wall."""
    coefficients = Coefficients(k_3d=K_3D, k_1d=K_1D, permeability=0.0, **coefficients)
    solution = solve(assemble(BOX, network, coefficients, bcs_3d=bcs_3d))
    return solution.u_3d.function_space.tabulate_dof_coordinates().T, solution.u_3d.x.array


def solve_network(network, bcs_1d, **coefficients):
    """Solve in the network alone."""
    coefficients = Coefficients(sigma_3d=1.0, k_1d=K_1D, permeability=0.0, **coefficients)
    solution = solve(assemble(BOX, network, coefficients, bcs_1d=bcs_1d))
    return solution.u_1d.function_space.tabulate_dof_coordinates(), solution.u_1d.x.array


# --- Faces ------------------------------------------------------------------------------------

# With u = A + B x_i and outward normal +-e_i, k du/dn = +-K B.
OPPOSITE = {"min": "max", "max": "min"}
OUTFLOW = {"min": -K_3D * B, "max": K_3D * B}
CONDITIONS = {
    "Dirichlet": lambda on, u, _: Dirichlet(on, u),
    "Neumann": lambda on, _, flux: Neumann(on, flux),
    "Robin": lambda on, u, flux: Robin(on, 3.0, u + flux / 3.0),
}


@pytest.mark.parametrize("kind", CONDITIONS)
@pytest.mark.parametrize("face", FACES)
def test_linear_tissue_fields_are_exact(face, kind, network):
    axis, side = "xyz".index(face[0]), face[2:]
    at = {"min": BOX.lower[axis], "max": BOX.upper[axis]}
    u = {side: A + B * position for side, position in at.items()}
    bcs = [
        CONDITIONS[kind](face, u[side], OUTFLOW[side]),
        Dirichlet(f"{face[:2]}{OPPOSITE[side]}", u[OPPOSITE[side]]),
    ]
    x, values = solve_tissue(network, bcs)
    np.testing.assert_allclose(values, A + B * x[axis], rtol=0, atol=1e-12)


def test_robin_on_every_face_holds_a_constant(network):
    _, values = solve_tissue(network, [Robin("boundary", 0.4, A)])
    np.testing.assert_allclose(values, A, rtol=0, atol=1e-12)


def test_conditions_on_one_face_add_up(network):
    u = A + 1.5 * B
    split = [
        Robin("z_max", 2.0, u + 0.125),
        Neumann("z_max", K_3D * B - 0.25 - 0.5),
        Robin("z_max", 1.0, u + 0.5),
    ]
    x, values = solve_tissue(network, [Dirichlet("z_min", A), *split])
    np.testing.assert_allclose(values, A + B * x[2], rtol=0, atol=1e-12)


VALUES = {
    "callable": lambda x: A + B * x[0] + x[1] - 2 * x[2],
    "expression": A + ufl.dot(ufl.as_vector([B, 1.0, -2.0]), ufl.SpatialCoordinate(BOX.mesh)),
}


@pytest.mark.parametrize("kind", [*VALUES, "function"])
def test_dirichlet_values_may_vary(kind, network):
    if kind == "function":
        value = dolfinx.fem.Function(dolfinx.fem.functionspace(BOX.mesh, ("Lagrange", 1)))
        value.interpolate(lambda x: A + B * x[0] + x[1] - 2 * x[2])
    else:
        value = VALUES[kind]
    x, values = solve_tissue(network, [Dirichlet("boundary", value)])
    np.testing.assert_allclose(values, A + B * x[0] + x[1] - 2 * x[2], rtol=0, atol=1e-12)


def test_neumann_and_robin_data_may_vary(network):
    """On z_max (1 + x) (value - u) + flux = k du/dn holds for u = 1 + x + z."""
    x, values = solve_tissue(network, [
        *(Dirichlet(face, lambda x: 1 + x[0] + x[2]) for face in ("x_min", "x_max", "z_min")),
        Robin("z_max", lambda x: 1 + x[0], lambda x: 1 + 2 * x[0] + x[2]),
        Neumann("z_max", lambda x: K_3D - (1 + x[0]) * x[0]),
    ])  # fmt: skip
    np.testing.assert_allclose(values, 1 + x[0] + x[2], rtol=0, atol=1e-12)


def test_the_later_dirichlet_condition_holds_where_two_meet(network):
    x, values = solve_tissue(network, [Dirichlet("x_min", 1.0), Dirichlet("y_min", 2.0)])
    on_x, on_y = x[0] < 1e-9, x[1] < 1e-9
    np.testing.assert_allclose(values[on_y], 2.0, rtol=1e-15)
    np.testing.assert_allclose(values[on_x & ~on_y], 1.0, rtol=1e-15)
    _, swapped = solve_tissue(network, [Dirichlet("y_min", 2.0), Dirichlet("x_min", 1.0)])
    np.testing.assert_allclose(swapped[on_x & on_y], 1.0, rtol=1e-15)


def test_faces_are_found():
    counts = {"x_min": 2 * 2 * 4, "y_max": 2 * 3 * 4, "z_min": 2 * 3 * 2}
    for face, count in counts.items():
        assert len(find_facets(BOX, face)) == count
    assert len(find_facets(BOX, "boundary")) == 2 * sum(counts.values())
    assert len(find_facets(BOX.mesh, "boundary")) == 2 * sum(counts.values())


@pytest.mark.parametrize("extent", [1e-6, 1.0, 1e4])
def test_faces_are_found_at_any_size_and_place(extent):
    box = create_box((2, 3, 2), 3 * [extent], 3 * [1.1 * extent])
    for face in FACES:
        assert len(find_facets(box, face)) == (8 if face[0] == "y" else 12)


def test_marker_functions_choose_facets(network):
    bcs = [
        Dirichlet(lambda x: np.isclose(x[0], 0.0), A),
        Neumann(lambda x: np.isclose(x[0], 1.0), K_3D * B),
    ]
    x, values = solve_tissue(network, bcs)
    np.testing.assert_allclose(values, A + B * x[0], rtol=0, atol=1e-12)


# --- Ends of the network ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONDITIONS)
def test_linear_network_fields_are_exact(kind, network, vessel):
    start, end = (np.array(vessel.nodes[n]["pos"]) for n in (0, 1))
    length = np.linalg.norm(end - start)
    condition = CONDITIONS[kind]("ends", A + B * length, K_1D * B)
    x, values = solve_network(network, [Dirichlet("inlets", A), condition])
    s = np.linalg.norm(x - start, axis=1)
    np.testing.assert_allclose(values, A + B * s, rtol=0, atol=1e-13)


def test_conditions_at_one_end_add_up(network, vessel):
    start, end = (np.array(vessel.nodes[n]["pos"]) for n in (0, 1))
    u = A + B * np.linalg.norm(end - start)
    split = [Robin("ends", 2.0, u), Neumann("ends", K_1D * B - 0.5), Robin("ends", 1.0, u + 0.5)]
    x, values = solve_network(network, [Dirichlet("inlets", A), *split])
    s = np.linalg.norm(x - start, axis=1)
    np.testing.assert_allclose(values, A + B * s, rtol=0, atol=1e-13)


def test_quadratic_network_fields_are_exact_at_the_nodes(network, vessel):
    start = np.array(vessel.nodes[0]["pos"])
    length = np.linalg.norm(np.array(vessel.nodes[1]["pos"]) - start)
    bcs = [Dirichlet("inlets", A), Neumann("ends", K_1D * (B + 2 * length))]
    x, values = solve_network(network, bcs, f_1d=-2 * K_1D)
    s = np.linalg.norm(x - start, axis=1)
    np.testing.assert_allclose(values, A + B * s + s**2, rtol=0, atol=1e-13)


def test_flow_divides_at_a_junction(fork):
    """Kirchhoff: what leaves through both ends enters through the inlet."""
    fork = fork.copy()
    outflow = {2: 0.3, 3: -0.1}
    length = {
        (u, v): np.linalg.norm(np.subtract(fork.nodes[u]["pos"], fork.nodes[v]["pos"]))
        for u, v in fork.edges
    }
    expected = {0: A, 1: A - sum(outflow.values()) * length[0, 1] / K_1D}
    for end, flow in outflow.items():
        edge = (1, end) if (1, end) in length else (end, 1)
        expected[end] = expected[1] - flow * length[edge] / K_1D
    nx.set_node_attributes(fork, expected, "pressure")
    nx.set_node_attributes(fork, {n: -outflow.get(n, 0.0) for n in fork}, "inflow")
    network = create_network(fork, 0.1)
    bcs = [Dirichlet("inlets", A), Neumann("ends", network.node_field("inflow"))]
    _, values = solve_network(network, bcs)
    pressure = network.node_field("pressure").x.array
    np.testing.assert_allclose(values, pressure, rtol=0, atol=1e-13)


def test_node_fields_serve_as_dirichlet_values(fork):
    fork = fork.copy()
    nx.set_node_attributes(fork, {0: 1.5, 1: 0.0, 2: -0.5, 3: 0.25}, "pressure")
    network = create_network(fork, 0.1)
    pressure = network.node_field("pressure")
    _, values = solve_network(network, [Dirichlet("inlets and ends", pressure)])
    vertices = find_vertices(network, "inlets and ends")
    dofs = dolfinx.fem.locate_dofs_topological(network.P1, 0, vertices)
    np.testing.assert_allclose(values[dofs], pressure.x.array[dofs], rtol=1e-15)
    np.testing.assert_allclose(np.sort(values[dofs]), [-0.5, 0.25, 1.5], rtol=1e-15)


def test_a_marker_may_choose_any_vertex(network, vessel):
    start = np.array(vessel.nodes[0]["pos"])
    marker = lambda x: np.linalg.norm(x.T - start, axis=1) < 1e-9  # noqa: E731
    np.testing.assert_array_equal(find_vertices(network, marker), find_vertices(network, "inlets"))
    everywhere = lambda x: np.ones(x.shape[1], dtype=bool)  # noqa: E731
    _, values = solve_network(network, [Dirichlet(everywhere, lambda x: x[2])])
    z = network.P1.tabulate_dof_coordinates()[:, 2]
    np.testing.assert_allclose(values, z, atol=1e-15)


# --- Messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "condition", "message"), [
    ("3d", Dirichlet("top"),  "got a tissue condition on 'top'; wanted 'boundary', one of"),
    ("3d", Dirichlet("inlets"), "got a tissue condition on 'inlets'; wanted 'boundary'"),
    ("3d", Neumann(lambda x: x[0] > 5, 1.0), "holds no facet of the tissue; wanted at least one"),
    ("3d", Dirichlet("x_min", [1.0, 2.0]), r"got Dirichlet value of shape \(2,\); wanted a scalar"),
    ("3d", Neumann("x_min", [1.0, 2.0]), r"got Neumann flux of shape \(2,\); wanted a scalar"),
    ("3d", Robin("x_min", [1.0, 2.0]), r"got Robin coefficient of shape \(2,\); wanted a scalar"),
    ("3d", Robin("x_min", 1.0, [1.0]), r"got Robin value of shape \(1,\); wanted a scalar"),
    ("3d", Dirichlet("x_min", np.nan), "Dirichlet value"),
    ("1d", Dirichlet("outlets"), r"got a network condition on 'outlets'; wanted one of \['ends', "),
    ("1d", Dirichlet("x_min"), "got a network condition on 'x_min'; wanted one of"),
    ("1d", Robin(lambda x: x[0] > 5, 1.0), "holds no vertex of the network; wanted at least one"),
    ("1d", Neumann("ends", [1.0, 2.0]), r"got Neumann flux of shape \(2,\); wanted a scalar"),
    ("1d", Dirichlet("inlets", lambda _: np.nan), "Dirichlet value"),
])  # fmt: skip
def test_conditions_that_hold_nowhere_or_nothing_are_errors(side, condition, message, network):
    with pytest.raises(ValueError, match=message):
        assemble(BOX, network, Coefficients(), **{f"bcs_{side}": [condition]})


def test_a_robin_coefficient_is_not_negative():
    with pytest.raises(ValueError, match="got Robin coefficient=-1; wanted a non-negative number"):
        Robin("x_min", -1)


@pytest.mark.parametrize(("side", "condition", "message"), [
    ("3d", Dirichlet("z_min", lambda x: ufl.sqrt(x[0] - 0.5)), "Dirichlet value of the tissue"),
    ("3d", Neumann("z_min", lambda x: ufl.sqrt(x[0] - 0.5)), "Neumann or Robin load of the tissue"),
    ("3d", Robin("z_min", lambda x: ufl.sqrt(x[0] - 0.5), 1.0), "Robin matrix of the tissue"),
    ("1d", Dirichlet("inlets", lambda x: ufl.ln(x[0] - 5)), "Dirichlet value of the network"),
])  # fmt: skip
def test_values_that_are_no_numbers_somewhere_are_errors(side, condition, message, network):
    with pytest.raises(ValueError, match=f"got a {message} that is NaN or infinite somewhere"):
        assemble(BOX, network, Coefficients(), **{f"bcs_{side}": [condition]})


def test_faces_have_names_on_structured_boxes_alone():
    with pytest.raises(ValueError, match=r"one of .* of a StructuredBox, or a marker function"):
        find_facets(BOX.mesh, "x_min")


def test_a_network_of_inlets_alone_has_no_ends(vessel):
    vessel = vessel.copy()
    vessel.nodes[1]["inlet"] = True
    with pytest.raises(ValueError, match="got a boundary condition on 'ends', which holds no vert"):
        find_vertices(create_network(vessel, 0.2), "ends")


@pytest.mark.parametrize("side", ["3d", "1d"])
@pytest.mark.parametrize("condition", ["x_min", 1.0, ("x_min", 1.0)], ids=str)
def test_other_kinds_of_conditions_are_errors(side, condition, network):
    with pytest.raises(TypeError, match="wanted Dirichlet, Neumann or Robin"):
        assemble(BOX, network, Coefficients(), **{f"bcs_{side}": [condition]})

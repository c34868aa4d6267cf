"""Coefficients: every kind gives the matrix of its value, and values do not recompile."""

import math

import dolfinx
import numpy as np
import pytest
import ufl

from mixeddim import Coefficients, Dirichlet, Neumann, Robin, assemble, create_box, create_network

BOX = create_box((3, 2, 4))
CONSTANT = dolfinx.fem.Constant(BOX.mesh, 2.5)
TENSOR = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 3.0]])


@pytest.fixture(scope="module")
def network(vessel):
    return create_network(vessel, 0.25)


def function(mesh, value, element=("Lagrange", 1)):
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
    u.interpolate(value)
    return u


def difference(A, B):
    return abs(A - B).max() / abs(B).max()


# --- Kinds ------------------------------------------------------------------------------------

KINDS = {
    "int": lambda _: 3,
    "numpy scalar": lambda _: np.float32(3),
    "array of no axes": lambda _: np.array(3.0),
    "constant": lambda mesh: dolfinx.fem.Constant(mesh, 3.0),
    "UFL number": lambda _: ufl.as_ufl(3.0),
    "UFL expression": lambda mesh: 3 + 0 * ufl.SpatialCoordinate(mesh)[0] + ufl.as_ufl(0.0),
    "callable": lambda _: lambda x: 2 + ufl.cos(x[0]) ** 2 + ufl.sin(x[0]) ** 2,
    "callable of a number": lambda _: lambda _: 3.0,
    "function": lambda mesh: function(mesh, lambda x: 3 + 0 * x[0]),
    "DG0 function": lambda mesh: function(mesh, lambda x: 3 + 0 * x[0], ("DG", 0)),
    "callable of a function": lambda mesh: lambda _: function(mesh, lambda x: 3 + 0 * x[0]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_a_value_gives_the_same_system(kind, network):
    plain = assemble(BOX, network, Coefficients(
        k_3d=3.0, sigma_3d=3.0, f_3d=3.0, k_1d=3.0, permeability=3.0, f_1d=3.0))  # fmt: skip
    in_3d, in_1d = KINDS[kind](BOX.mesh), KINDS[kind](network.mesh)
    other = assemble(BOX, network, Coefficients(
        k_3d=in_3d, sigma_3d=in_3d, f_3d=in_3d,
        k_1d=in_1d, permeability=in_1d, f_1d=in_1d))  # fmt: skip
    # Trigonometric expressions are integrated approximately where they are not constant in UFL.
    for name in ("K", "M", "A_33", "A_31", "A_11"):
        assert difference(getattr(other, name), getattr(plain, name)) < 1e-12
    np.testing.assert_allclose(other.b_3, plain.b_3, atol=1e-14)
    np.testing.assert_allclose(other.b_1, plain.b_1, atol=1e-14)


@pytest.mark.parametrize(
    "tensor",
    [
        3 * np.eye(3),
        (3 * np.eye(3)).tolist(),
        3 * ufl.Identity(3),
        lambda _: ufl.as_matrix(np.diag([3.0, 3.0, 3.0]).tolist()),
        function(BOX.mesh, lambda x: np.outer(np.eye(3), 3 + 0 * x[0]), ("DG", 0, (3, 3))),
    ],
    ids=["array", "list", "UFL", "callable", "function"],
)  # fmt: skip
def test_a_multiple_of_the_identity_equals_the_scalar(tensor, network):
    scalar = assemble(BOX, network, Coefficients(k_3d=3.0))
    assert difference(assemble(BOX, network, Coefficients(k_3d=tensor)).K, scalar.K) < 1e-14


def test_a_tensor_gives_the_energy_of_linear_functions(network):
    system = assemble(BOX, network, Coefficients(k_3d=TENSOR))
    x = system.side_3d.V.tabulate_dof_coordinates()
    for a in np.random.default_rng(0).normal(size=(3, 3)):
        energy = (x @ a) @ system.K @ (x @ a)  # the gradient is a, the volume 1
        assert energy == pytest.approx(a @ TENSOR @ a, rel=1e-13)


def test_a_varying_coefficient_is_integrated(network):
    coefficients = Coefficients(
        k_3d=lambda x: 1 + x[2], sigma_3d=lambda x: 2 + x[0], f_3d=lambda x: x[1] ** 2
    )
    system = assemble(BOX, network, coefficients)
    ones, z = np.ones(60), system.side_3d.V.tabulate_dof_coordinates()[:, 2]
    assert z @ system.K @ z == pytest.approx(1.5)
    assert ones @ system.M @ ones == pytest.approx(2.5)
    assert system.side_3d.f.sum() == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["sigma_3d", "f_3d", "f_1d", "permeability"])
@pytest.mark.parametrize(
    "zero", [lambda x: 0 * x[0], ufl.as_ufl(0)], ids=["callable", "expression"]
)
def test_an_expression_that_vanishes_is_a_zero(name, zero, network):
    """UFL simplifies it to a Zero without a domain, which no form compiles."""
    system = assemble(BOX, network, Coefficients(**{name: zero}))
    plain = assemble(BOX, network, Coefficients(**{name: 0.0}))
    assert abs(system.A_33 - plain.A_33).max() == 0.0
    assert abs(system.A_11 - plain.A_11).max() == 0.0
    np.testing.assert_array_equal(system.b_3, plain.b_3)


# --- Compilation ------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch):
    """Collect the names of the compiled modules that forms and expressions ask for."""
    names = []
    jit = dolfinx.jit.ffcx_jit

    def spy(*args, **kwargs):
        result = jit(*args, **kwargs)
        names.append(result[1].__name__)
        return result

    monkeypatch.setattr(dolfinx.jit, "ffcx_jit", spy)
    return names


def test_another_value_reuses_the_compiled_forms(compiled, network):
    def modules(scale, **others):
        compiled.clear()
        names = ("k_3d", "sigma_3d", "f_3d", "k_1d", "permeability", "f_1d")
        scaled = {name: scale * (1 + i) for i, name in enumerate(names)} | others
        assemble(
            BOX,
            network,
            Coefficients(**scaled),
            bcs_3d=[Dirichlet("x_min", scale), Neumann("x_max", scale), Robin("y_min", scale, 1.0)],
            bcs_1d=[Dirichlet("inlets", scale), Robin("ends", scale, scale)],
        )
        return set(compiled)

    first = modules(1.0)
    assert len(first) > 5
    assert modules(3.0) == first
    assert modules(3.0, k_3d=TENSOR) != first
    assert modules(3.0, k_3d=TENSOR) == modules(1.0, k_3d=2 * TENSOR)
    # A number written into an expression is compiled in: a check that this test can fail.
    assert modules(3.0, k_3d=lambda x: 2.0 + x[0]) != modules(3.0, k_3d=lambda x: 2.1 + x[0])


# --- Messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("coefficients", "message"), [
    ({"k_3d": 0.0}, "got k_3d=0.0; wanted a positive number"),
    ({"k_3d": -1}, "got k_3d=-1; wanted a positive number"),
    ({"k_3d": np.nan}, "got k_3d=nan; wanted a positive number"),
    ({"k_3d": np.inf}, "got k_3d=inf; wanted a"),
    ({"k_1d": 0}, "got k_1d=0; wanted a positive number"),
    ({"sigma_3d": -0.1}, "got sigma_3d=-0.1; wanted a non-negative number"),
    ({"permeability": -1.0}, "got permeability=-1.0; wanted a non-negative number"),
    ({"permeability": np.inf}, "got permeability=inf; wanted a"),
    ({"k_3d": -np.eye(3)}, "wanted a symmetric positive definite tensor"),
    ({"k_3d": [[1, 1, 0], [0, 1, 0], [0, 0, 1]]}, "wanted a symmetric positive definite tensor"),
    # Conductivities of tissue in SI units: asymmetric, though all entries are below 1e-8.
    ({"k_3d": [[1e-13, 5e-14, 0], [0, 1e-13, 0], [0, 0, 1e-13]]}, "wanted a symmetric positive"),
], ids=str)  # fmt: skip
def test_values_out_of_range_are_errors(coefficients, message):
    with pytest.raises(ValueError, match=message):
        Coefficients(**coefficients)


@pytest.mark.parametrize(("coefficients", "message"), [
    ({"k_3d": [1.0, 2.0]}, r"got k_3d of shape \(2,\); wanted a scalar or shape \(3, 3\)"),
    ({"sigma_3d": np.eye(3)}, r"got sigma_3d of shape \(3, 3\); wanted a scalar"),
    ({"f_3d": lambda x: x}, r"got f_3d of shape \(3,\); wanted a scalar"),
    ({"k_1d": np.eye(3)}, r"got k_1d of shape \(3, 3\); wanted a scalar"),
    ({"f_1d": [1.0]}, r"got f_1d of shape \(1,\); wanted a scalar.* network.edge_field\(attribute"),
    ({"permeability": CONSTANT * ufl.SpatialCoordinate(BOX.mesh)[0]},
     "got permeability on a mesh of topological dimension 3; wanted it on the mesh of its side, of "
     "dimension 1. Interpolate it there, or write it as a callable"),
    ({"f_1d": lambda x: x[0] * ufl.SpatialCoordinate(BOX.mesh)[0]}, "got f_1d"),
    ({"k_3d": ufl.SpatialCoordinate(create_box(1).mesh)[0]}, "got k_3d on a mesh"),
    ({"permeability": lambda x: ufl.exp(1000 + x[0])}, "to inf .* wanted finite, non-negative"),
    ({"permeability": lambda x: 0.3 - x[0]}, "permeability .*-.* wanted finite, non-negative"),
    ({"permeability": lambda _: np.nan}, "got .*permeability.* wanted .*finite"),
    ({"permeability": lambda _: np.inf}, "got .*permeability.* wanted .*finite"),
    ({"f_1d": None}, "got f_1d=None.* wanted"),
    ({"f_3d": np.nan}, "got f_3d=nan.* wanted"),
    ({"k_1d": lambda _: None}, "got k_1d=.* wanted"),
])  # fmt: skip
def test_coefficients_that_do_not_fit_their_side_are_errors(coefficients, message, network):
    with pytest.raises((TypeError, ValueError), match=message):
        assemble(BOX, network, Coefficients(**coefficients))


@pytest.mark.parametrize("value", [
    "wall", 1j, object(), lambda _: "wall", lambda x: np.exp(x[0]), lambda x: math.exp(x[0]),
    lambda x: 1.0 if x[2] < 0.5 else 2.0,
], ids=["string", "complex", "object", "callable of a string", "numpy", "math", "if"])  # fmt: skip
@pytest.mark.parametrize("name", ["k_3d", "f_1d"])
def test_other_kinds_are_errors(name, value, network):
    message = rf"got {name}=.*; wanted a number, a UFL .*written with ufl \(ufl.exp and ufl.cond"
    with pytest.raises(TypeError, match=message):
        assemble(BOX, network, Coefficients(**{name: value}))

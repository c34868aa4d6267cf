"""Derivatives of solves: against finite differences, by Taylor's expansion, and their cost."""

import dataclasses
from types import SimpleNamespace

import dolfinx
import networkx as nx
import numpy as np
import pytest
import torch
import ufl

import learning
import mixeddim as md
from mixeddim import Dirichlet, Neumann, Robin
from mixeddim.parametrisation import PARAMETERS
from mixeddim.processes import Processes

NAMES = tuple(PARAMETERS)


@pytest.fixture(scope="module", params=["tetrahedron", "hexahedron"])
def system(request, fork):
    box = md.create_box((3, 2, 2), cell_type=request.param)
    return md.assemble(
        box,
        md.create_network(fork, 0.4),
        md.Coefficients(sigma_3d=0.7, k_3d=0.3, k_1d=0.4, permeability=2.0, f_3d=0.5, f_1d=0.1),
        bcs_3d=[
            Dirichlet("x_min", lambda x: x[1]),
            Neumann("y_max", 0.3),
            Robin("z_min", 2.0, 0.5),
        ],
        bcs_1d=[Dirichlet("inlets", 1.5), Robin("ends", 0.8, 0.2)],
    )


def differentiable(system, *names):
    return learning.DifferentiableSolve(
        md.parametrise(system, *names), learning.Jacobi(), rtol=1e-13
    )


def some_values(solve, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: torch.tensor(rng.uniform(0.5, 1.5, size), requires_grad=True)
        for name, size in solve.system.sizes.items()
    }


def values_of(system, name):
    number = getattr(system.inputs.coefficients, name, None)
    side = system.side_3d if name == "given_3d" else system.side_1d
    return number if number is not None else torch.tensor(side.dirichlet_values)


@pytest.mark.parametrize("names", [*((n,) for n in NAMES), NAMES], ids="-".join)
def test_fields_are_those_of_the_assembled_system(system, names):
    solve = differentiable(system, *names)
    parameters = {
        name: torch.as_tensor(values_of(system, name), dtype=torch.float64).expand(size)
        for name, size in solve.system.sizes.items()
    }
    exact = md.solve(system)
    for field, wanted in zip(solve(parameters), (exact.u_3d, exact.u_1d), strict=True):
        np.testing.assert_allclose(field, wanted.x.array, rtol=1e-9, atol=1e-10)


def test_values_of_each_edge_and_cell_are_where_they_belong(system):
    """Against functions that are constant on each vessel or cell, circles that leave dropped."""
    rng = np.random.default_rng(4)
    graph = nx.Graph(system.network.graph)
    edge_names, cell_names = ("permeability", "k_1d", "f_1d"), ("k_3d", "sigma_3d", "f_3d")
    coefficients, values = {}, {}
    for name in edge_names:
        values[name] = rng.uniform(0.5, 2.0, graph.number_of_edges())
        nx.set_edge_attributes(graph, dict(zip(graph.edges, values[name], strict=True)), name)
    nx.set_edge_attributes(graph, 0.45, "radius")
    network = md.create_network(graph, 0.3)
    coefficients |= {name: network.edge_field(name) for name in edge_names}
    space = dolfinx.fem.functionspace(system.tissue.mesh, ("DG", 0))
    for name in cell_names:
        field = dolfinx.fem.Function(space)
        values[name] = rng.uniform(0.5, 2.0, len(field.x.array))
        field.x.array[space.dofmap.list[:, 0]] = values[name]
        coefficients[name] = field
    given = md.assemble(
        system.tissue, network, md.Coefficients(**coefficients), outside="drop",
        bcs_3d=[Dirichlet("x_min", lambda x: x[1])],
    )  # fmt: skip
    assert 0 < given.coupling.num_leaving < len(given.coupling.kept)
    exact = md.solve(given)
    solve = differentiable(given.with_coefficients(permeability=9.0), *values)
    u_3d, u_1d = solve({name: torch.tensor(value) for name, value in values.items()})
    np.testing.assert_allclose(u_3d, exact.u_3d.x.array, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(u_1d, exact.u_1d.x.array, rtol=1e-9, atol=1e-10)


def test_fields_at_given_dofs_have_the_obvious_derivative(system):
    """A misfit of given values alone: the adjoint is zero, and nothing else depends on it."""
    solve = differentiable(system, "permeability", "given_1d")
    values = some_values(solve)
    _, u_1d = solve(values)
    (3.0 * u_1d[system.side_1d.dirichlet_dofs]).sum().backward()
    np.testing.assert_allclose(values["given_1d"].grad, 3.0)
    assert not values["permeability"].grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_derivatives_equal_differences(system, name):
    solve = differentiable(system, name)
    [value] = some_values(solve).values()
    value = value.detach()[:4].requires_grad_()
    rest = torch.ones(solve.system.sizes[name] - len(value), dtype=torch.float64)
    weights = [
        torch.randn(4, n, dtype=torch.float64, generator=torch.manual_seed(0))
        for n in (solve.system.num_tissue,)
    ]

    def observe(v):
        u_3d, u_1d = solve({name: torch.cat([v, rest])})
        return torch.cat([weights[0] @ u_3d, u_1d[:3] ** 2])

    assert torch.autograd.gradcheck(observe, value, atol=1e-6, rtol=1e-6)
    assert torch.autograd.gradgradcheck(observe, value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_taylor_remainder_is_of_second_order(system, name):
    solve = differentiable(system, name)
    [value] = some_values(solve).values()
    direction = torch.tensor(np.random.default_rng(1).standard_normal(len(value)))

    def misfit(v):
        u_3d, u_1d = solve({name: v})
        return (u_3d**2).sum() + (u_1d**3).sum()

    at = misfit(value)
    [gradient] = torch.autograd.grad(at, value)
    slope = gradient @ direction
    steps = np.array([0.08, 0.04, 0.02, 0.01])
    with torch.no_grad():
        remainders = [abs(misfit(value + h * direction) - at - h * slope) for h in steps]
        differences = (misfit(value + 1e-4 * direction) - misfit(value - 1e-4 * direction)) / 2e-4
    order = np.polyfit(np.log(steps), np.log(remainders), 1)[0]
    assert order == pytest.approx(2.0, abs=0.1)
    assert float(slope) == pytest.approx(float(differences), rel=1e-6)


def test_all_parameters_together_have_their_second_derivatives(system):
    """A Hessian-vector product against differences of gradients, and how many solves it takes."""
    solve = differentiable(system, *NAMES)
    values = some_values(solve)
    rng = np.random.default_rng(2)
    direction = [torch.tensor(rng.standard_normal(len(v))) for v in values.values()]

    def gradient(moved, **options):
        u_3d, u_1d = solve(dict(zip(values, moved, strict=True)))
        return torch.autograd.grad((u_3d**2).sum() + (u_1d**2).sum(), moved, **options)

    before = solve.num_solves
    gradients = gradient([*values.values()], create_graph=True)
    assert solve.num_solves - before == 2, "the solve and its adjoint"
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    product = torch.autograd.grad(slope, [*values.values()])
    assert solve.num_solves - before == 4
    h = 1e-5
    ahead, behind = (
        gradient(
            [
                (v + s * h * d).detach().requires_grad_()
                for v, d in zip(values.values(), direction, strict=True)
            ]
        )
        for s in (1, -1)
    )
    for wanted, a, b in zip(product, ahead, behind, strict=True):
        difference = (a - b) / (2 * h)
        assert (wanted - difference).norm() <= 1e-6 * wanted.norm()


def test_set_up_is_kept_where_the_matrices_stay(system):
    solve = differentiable(system, "f_1d", "given_1d")
    values = some_values(solve)
    solve(values)
    solver = solve._solver[1]
    solve({name: 2.0 * value for name, value in values.items()})
    assert solve._solver[1] is solver
    solve = differentiable(system, "permeability")
    [kappa] = some_values(solve).values()
    solve({"permeability": kappa})
    solver = solve._solver[1]
    solve({"permeability": kappa.clone()})
    assert solve._solver[1] is solver
    solve({"permeability": 2.0 * kappa})
    assert solve._solver[1] is not solver


@pytest.mark.parametrize(
    "names", [("permeability", "given_1d"), ("k_3d", "sigma_3d"), NAMES], ids="-".join
)
def test_residual_vanishes_at_the_solution_and_has_its_jacobian(system, names):
    solve = differentiable(system, *names)
    values = some_values(solve)
    u_3d, u_1d = (u.detach() for u in solve(values))
    for r in solve.residual(values, u_3d, u_1d):
        assert r.abs().max() < 1e-11
    # With A dr = v and any v the change of the fields takes the residual along.
    du_3d, du_1d = torch.ones_like(u_3d), 0.5 * torch.ones_like(u_1d)
    r_3, r_1 = solve.residual(values, u_3d + du_3d, u_1d + du_1d)
    solver = solve._solver[1]
    found = solver.solve(r_3.detach().numpy(), r_1.detach().numpy(), rtol=1e-13, check=False).x
    free = solve.system.is_free[: len(u_3d)]
    np.testing.assert_allclose(found * free, free, atol=1e-9)


def test_expression_is_differentiated_by_its_constants(system):
    a, b, c = (dolfinx.fem.Constant(system.tissue.mesh, value) for value in (0.2, 0.5, 3.0))
    expression = md.CellExpression(lambda x: ufl.exp(a * x[0]) + b * b * c, [a, b], system.tissue)
    parameters = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=True)
    values = learning.cell_values(expression, parameters)
    assert (float(a.value), float(b.value)) == (0.2, 0.5), "as it was"
    assert torch.autograd.gradcheck(lambda p: learning.cell_values(expression, p), parameters)
    assert torch.autograd.gradgradcheck(lambda p: learning.cell_values(expression, p), parameters)
    a.value, b.value = 0.3, 0.6
    other = system.with_coefficients(k_3d=lambda x: ufl.exp(a * x[0]) + b * b * c)
    solve = differentiable(system, "k_3d")
    if system.tissue.cell_type == "tetrahedron":
        u_3d, _ = solve({"k_3d": values})
        np.testing.assert_allclose(u_3d.detach(), md.solve(other).u_3d.x.array, rtol=1e-9)
    assert torch.autograd.gradcheck(
        lambda p: solve({"k_3d": learning.cell_values(expression, p)})[1], parameters
    )


def test_gradient_costs_about_one_solve():
    """In iterations, which unlike times are the same on every machine."""
    box = md.create_box(8)
    network = md.create_network(md.random_vascular_graph(12, 0.05, seed=0), box.spacing)
    coupled = md.assemble(box, network, md.Coefficients(sigma_3d=1.0))
    solve = learning.DifferentiableSolve(
        md.parametrise(coupled, "permeability"), learning.load_pretrained("multigrid")
    )
    kappa = torch.ones(solve.system.sizes["permeability"], dtype=torch.float64, requires_grad=True)
    iterations = []
    solver_solve = learning.Solver.solve

    def counted(self, *arguments, **options):
        result = solver_solve(self, *arguments, **options)
        iterations.append(result.iterations)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning.Solver, "solve", counted)
        u_3d, _ = solve({"permeability": kappa})
        (u_3d**2).sum().backward()
    forward, backward = iterations
    assert backward <= 1.5 * forward


WRONG = [
    ({}, r"got the parameters \[\]; wanted \['given_1d', 'k_3d', 'perm"),
    ({"kappa": 1.0}, r"got the parameters \['given_1d', 'k_3d', 'kappa', 'permeability'\]"),
    ({"permeability": torch.ones(4, dtype=torch.float64)}, r"shape \(4,\); wanted \(\d+,\)"),
    ({"permeability": 1.0}, "permeability as float; wanted a tensor of torch.float64"),
    ({"permeability": "single"}, "permeability as torch.float32; wanted a tensor"),
    ({"permeability": -1.0 + 0j}, "permeability from -1 to -1; wanted finite non-negative"),
    ({"k_3d": 0j}, "k_3d from 0 to 0; wanted finite positive numbers. Estimate its logarithm"),
    ({"k_3d": complex("nan")}, "k_3d from nan to nan; wanted finite positive"),
    ({"given_1d": complex("inf")}, "given_1d from inf to inf; wanted finite numbers. Look for NaN"),
    ({"given_1d": "meta"}, r"given_1d on meta; wanted it on the CPU. Convert it: value.cpu\(\)"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[m[:30] for _, m in WRONG])
def test_wrong_parameters_are_refused(system, wrong, message):
    solve = differentiable(system, "permeability", "k_3d", "given_1d")
    values = dict(some_values(solve))
    for name, value in wrong.items():
        if isinstance(value, complex):  # everywhere
            value = torch.full_like(values[name], value.real)
        elif isinstance(value, str):
            value = values[name].float() if value == "single" else values[name].to(value)
        values[name] = value
    with pytest.raises(ValueError, match=message):
        solve(values if wrong else {})


def test_other_mistakes_are_explained(system):
    with pytest.raises(ValueError, match=r"got the parameters \['kappa'\]; wanted some of"):
        md.parametrise(system, "kappa")
    with pytest.raises(ValueError, match=r"got the parameters \[\]; wanted some of"):
        md.parametrise(system)
    without = md.assemble(system.tissue, system.network, md.Coefficients())
    with pytest.raises(ValueError, match="given dofs of the tissue, of which there are none"):
        md.parametrise(without, "given_3d")
    with pytest.raises(TypeError, match=r"got a CoupledSystem; wanted what mixeddim.parametrise"):
        learning.DifferentiableSolve(system, learning.Jacobi())
    parametrised = md.parametrise(system, "f_3d")
    with pytest.raises(ValueError, match="preconditioner"):
        learning.DifferentiableSolve(parametrised, None)
    solve = learning.DifferentiableSolve(parametrised, learning.Identity(), max_iterations=1)
    values = some_values(solve)
    with pytest.raises(
        RuntimeError, match=r"\(stopped at max_iterations: .*wanted one that reaches rtol"
    ):
        solve(values)
    with pytest.raises(ValueError, match=r"got fields of shapes .* wanted .* Convert them"):
        solve.residual(values, torch.zeros(3), torch.zeros(2))
    constant = dolfinx.fem.Constant(system.tissue.mesh, 1.0)
    expression = md.CellExpression(lambda x: constant * x[0], [constant], system.tissue)
    with pytest.raises(ValueError, match=r"got parameters of shape \(2,\) .*wanted \(1,\)"):
        learning.cell_values(expression, torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"got the constants \[\]; wanted a sequence of scalar"):
        md.CellExpression(1.0, [], system.tissue)


@pytest.mark.parametrize("wall", ["partition", "drag", "drag at one point"])
def test_walls_of_another_kind_are_refused(system, wall):
    if wall == "partition":
        other = md.assemble(system.tissue, system.network, md.Coefficients(partition=2.0))
    else:  # at one point of many, whose conductance is small beside that of others
        coupling = system.coupling
        drag, beta = np.ones_like(coupling.beta), coupling.beta.copy()
        if wall == "drag at one point":
            drag[1:], beta[1:] = 0.0, 1e12
        other = system.with_parts(coupling=dataclasses.replace(coupling, drag=drag, beta=beta))
    with pytest.raises(ValueError, match="wanted one that exchanges beta"):
        md.parametrise(other, "k_1d")


def test_permeability_in_series_with_a_resistance_is_refused(system):
    coefficients = md.Coefficients(series_resistance=0.5, sigma_3d=1.0)
    other = md.assemble(system.tissue, system.network, coefficients)
    with pytest.raises(ValueError, match="not proportional to its permeability"):
        md.parametrise(other, "permeability")
    solve = differentiable(other, "k_1d")
    exact = md.solve(other)
    u_3d, u_1d = solve({"k_1d": torch.ones(solve.system.sizes["k_1d"], dtype=torch.float64)})
    np.testing.assert_allclose(u_3d, exact.u_3d.x.array, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(u_1d, exact.u_1d.x.array, rtol=1e-9, atol=1e-10)


def test_parameters_changed_in_place_give_no_wrong_gradient(system):
    """Torch refuses what it sees; through `data` it sees nothing, and the gradient is that of then.

    The gradient may be taken twice, and solves in between do not matter.
    """
    solve = differentiable(system, "permeability", "k_3d")

    def misfit(values):
        u_3d, u_1d = solve(values)
        return (u_3d**2).sum() + (u_1d**2).sum()

    values = some_values(solve)
    J, inputs = misfit(values), list(values.values())
    wanted = torch.autograd.grad(J, inputs, retain_graph=True)
    misfit(some_values(solve, seed=1))
    for value in inputs:
        value.data *= 3.0
    again = torch.autograd.grad(J, inputs, retain_graph=True)
    for first, second in zip(wanted, again, strict=True):
        assert torch.equal(first, second)
    with torch.no_grad():
        for value in inputs:
            value *= 3.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(J, inputs)


def test_several_processes_are_refused(system):
    class Two(type(system)):
        processes = Processes(SimpleNamespace(size=2))

    several = Two(**{f.name: getattr(system, f.name) for f in dataclasses.fields(system)})
    with pytest.raises(NotImplementedError, match="2 processes; parametrise needs one that lies"):
        md.parametrise(several, "permeability")
    shared = SimpleNamespace(comm=SimpleNamespace(size=2))
    with pytest.raises(NotImplementedError, match="2 processes; CellExpression needs one"):
        md.CellExpression(1.0, [], shared)

"""Three ways to one solution, what they report, and where mass goes."""

import dataclasses

import dolfinx
import numpy as np
import pytest
import ufl

from mixeddim import (
    Coefficients,
    Dirichlet,
    Neumann,
    Robin,
    SolverError,
    assemble,
    create_box,
    create_network,
    random_vascular_graph,
    reduce,
    solve,
)
from mixeddim.verification.random_problems import reference_solution

METHODS = ["direct", "krylov", "reduced"]
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module", params=METHODS)
def solution(request, system):
    return solve(system, request.param, rtol=1e-12)


def integral(integrand, measure=ufl.dx):
    return dolfinx.fem.assemble_scalar(dolfinx.fem.form(integrand * measure))


# --- Methods ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cell_type", ["tetrahedron", "hexahedron"])
@pytest.mark.parametrize("k_3d", [1.0, 1e-2, 1e-4])
def test_methods_agree(graph, k_3d, cell_type):
    box = create_box(5, cell_type=cell_type)
    coefficients = Coefficients(k_3d=k_3d, sigma_3d=0.1, permeability=2.0, f_3d=-0.5)
    system = assemble(box, create_network(graph, box.spacing), coefficients)
    direct, *others = (solve(system, method, rtol=1e-12) for method in METHODS)
    for other in others:
        for name in ("u_3d", "u_1d"):
            expected = getattr(direct, name).x.array
            np.testing.assert_allclose(
                getattr(other, name).x.array, expected, rtol=0, atol=1e-9 * np.abs(expected).max()
            )


def test_solution_reports_what_was_done(solution, system):
    assert solution.system is system
    assert solution.method in METHODS
    assert solution.u_3d.function_space is system.side_3d.V
    assert solution.u_1d.function_space is system.side_1d.V
    assert (solution.u_3d.name, solution.u_1d.name) == ("u_3d", "u_1d")
    if solution.method == "direct":
        assert solution.iterations == 1
    else:
        assert 1 < solution.iterations < 60


def test_reported_residual_is_the_true_one(solution, system):
    u_3d, u_1d = solution.u_3d.x.array, solution.u_1d.x.array
    r_3 = system.b_3 - system.A_33 @ u_3d - system.A_31 @ u_1d
    r_1 = system.b_1 - system.A_13 @ u_3d - system.A_11 @ u_1d
    drive_3, drive_1 = system.b_3 - system.A_31 @ u_1d, system.b_1 - system.A_13 @ u_3d
    norm = np.linalg.norm
    expected = max(norm(r_3) / norm(drive_3), norm(r_1) / norm(drive_1))
    assert solution.relative_residual == pytest.approx(expected, rel=0.1, abs=1e-15)
    assert solution.relative_residual < 1e-11


@pytest.mark.parametrize("method", ["krylov", "reduced"])
@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_a_looser_tolerance_takes_fewer_iterations_and_holds(system, method, rtol):
    tight, loose = (solve(system, method, rtol=tolerance) for tolerance in (1e-12, rtol))
    assert 1 < loose.iterations < tight.iterations
    assert loose.relative_residual < rtol
    assert loose.relative_residual > 100 * tight.relative_residual


@pytest.mark.parametrize("method", ["krylov", "reduced"])
def test_an_iteration_that_does_not_converge_is_an_error(system, method):
    with pytest.raises(SolverError, match=(
        r"got cg with \w+ stopped after 2 iterations at residual .* \(PETSc reason -3\); wanted "
        r"1e-11 of .*Raise max_iterations or rtol, or use method='direct'"
    )):  # fmt: skip
        solve(system, method, rtol=1e-11, max_iterations=2)


@methods
def test_the_closer_the_guess_the_fewer_the_iterations(system, method):
    solution = solve(system, method, rtol=1e-12)
    near, zero = (dolfinx.fem.Function(solution.u_3d.function_space) for _ in range(2))
    near.x.array[:] = (1.0 + 1e-4) * solution.u_3d.x.array
    results = [
        solve(system, method, initial_guess=guess, rtol=1e-8)
        for guess in (solution.u_3d, near, zero, None)
    ]
    for result in results:
        expected = solution.u_3d.x.array
        np.testing.assert_allclose(result.u_3d.x.array, expected, atol=1e-6 * expected.max())
    iterations = [result.iterations for result in results]
    if method == "direct":
        assert iterations == [1, 1, 1, 1]
    else:
        assert 0 == iterations[0] < iterations[1] < iterations[2] == iterations[3]


def test_a_guess_that_does_not_fit_is_explained(system, solution):
    broken = solution.u_3d.copy()
    broken.x.array[0] = np.nan
    with pytest.raises(ValueError, match="got an initial guess with NaN or infinity"):
        solve(system, "krylov", initial_guess=broken)
    for guess in (solution.u_1d, solution.u_3d.x.array):
        with pytest.raises(ValueError, match=r"got an initial guess of type .* Pass u_3d of a sol"):
            solve(system, "krylov", initial_guess=guess)


@methods
def test_a_singular_problem_is_an_error(fork, method):
    """Nothing holds the level of the fields: no uptake, no Dirichlet or Robin condition."""
    coefficients = Coefficients(f_1d=1.0)
    system = assemble(create_box(4), create_network(fork, 0.25), coefficients, bcs_1d=[])
    with pytest.raises(SolverError, match=r"(It is singular if|got cg with .* stopped after)"):
        solve(system, method)


@methods
def test_units_do_not_matter(fork, method):
    """In SI units all entries are far below one; PETSc's own LU refuses such pivots."""

    def solved(unit):
        coefficients = Coefficients(
            k_3d=unit, sigma_3d=unit, k_1d=0.1 * unit, permeability=2.0 * unit, f_3d=unit
        )
        system = assemble(create_box(4), create_network(fork, 0.25), coefficients)
        return solve(system, method, rtol=1e-12)

    tiny, plain = solved(1e-15), solved(1.0)
    np.testing.assert_allclose(tiny.u_3d.x.array, plain.u_3d.x.array, rtol=1e-9)
    np.testing.assert_allclose(tiny.u_1d.x.array, plain.u_1d.x.array, rtol=1e-9)
    assert tiny.mass_balance.error < 1e-9


def test_results_print_in_a_line(system):
    solution = solve(system)
    for thing in (solution, system, system.network, reduce(system)):
        assert repr(thing).startswith(type(thing).__name__ + "(")
        assert len(repr(thing)) < 100


def test_a_mass_balance_prints_as_a_table(system):
    lines = str(solve(system).mass_balance).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "sources", "boundary", "uptake", "through", "error",
    ]  # fmt: skip


@methods
def test_no_data_no_solution(fork, method):
    system = assemble(
        create_box(4),
        create_network(fork, 0.25),
        Coefficients(sigma_3d=1.0),
        bcs_1d=[Dirichlet("inlets", 0.0)],
    )
    solution = solve(system, method)
    assert not solution.u_3d.x.array.any()
    assert not solution.u_1d.x.array.any()
    assert solution.relative_residual == 0.0
    assert solution.mass_balance.error == 0.0


@pytest.mark.parametrize("method", ["lu", "", None, "Direct"])
def test_an_unknown_method_is_an_error(system, method):
    message = rf"got method={method!r}; wanted one of \('direct', 'krylov', 'reduced'\)"
    with pytest.raises(ValueError, match=message):
        solve(system, method)


# --- No wrong answer --------------------------------------------------------------------------


def fed_cube(length, **coefficients):
    """A cube of 10 cells per side with a network of 40 nodes."""
    upper = 3 * (length,)
    box = create_box(10, upper=upper)
    graph = random_vascular_graph(40, 0.02 * length, 0, upper=upper)
    network = create_network(graph, box.spacing)
    return assemble(box, network, Coefficients(**coefficients))


def assert_fields_equal(solution, u_3d, u_1d, rtol):
    for field, expected in ((solution.u_3d, u_3d), (solution.u_1d, u_1d)):
        np.testing.assert_allclose(
            field.x.array, expected, rtol=0, atol=rtol * np.abs(expected).max()
        )


@methods
@pytest.mark.parametrize("problem", [
    {"length": 2e-4, "k_3d": 1.7e-9, "sigma_3d": 0.05, "k_1d": 8e-9, "permeability": 1e-8},
    {"length": 1.0, "sigma_3d": 1.0, "k_1d": 1e6, "permeability": 1e-3},
], ids=["SI units", "well conducting vessels"])  # fmt: skip
def test_neither_side_hides_behind_the_other(problem, method):
    """One norm of both sides saw no residual where u_3d was off by 86 % and by 3 %."""
    system = fed_cube(**problem)
    assert_fields_equal(solve(system, method), *reference_solution(system), rtol=1e-8)


@pytest.mark.parametrize("permeability", [1e3, 1e6, 1e8])
@pytest.mark.parametrize("k_1d", [1e-3, 1.0, 1e3])
def test_strong_exchange_takes_few_iterations(permeability, k_1d):
    system = fed_cube(1.0, sigma_3d=1.0, k_1d=k_1d, permeability=permeability)
    solution = solve(system, "krylov")
    assert solution.iterations <= 50
    assert_fields_equal(solution, *reference_solution(system), rtol=1e-6)


@methods
def test_a_network_that_nothing_holds_is_an_error(fork, method):
    coefficients = Coefficients(sigma_3d=1.0, permeability=0.0, f_1d=1.0)
    system = assemble(create_box(4), create_network(fork, 0.25), coefficients, bcs_1d=[])
    with pytest.raises(SolverError, match=r"It is singular if nothing holds the level"):
        solve(system, method)


@methods
def test_what_rounding_does_not_determine_is_an_error(fork, method):
    """The uptake that alone holds the level is lost in the rounding of diffusion."""
    coefficients = Coefficients(sigma_3d=1e-14, permeability=1e-14)
    system = assemble(create_box(4), create_network(fork, 0.25), coefficients)
    with pytest.raises(
        SolverError, match=r"(may be off by .* of u_3d|got cg with .* stopped|broke down)"
    ):
        solve(system, method)


# --- The flux over the wall -------------------------------------------------------------------


def test_wall_flux_is_conductance_times_difference(solution, system):
    coupling = system.coupling
    inside = coupling.N @ solution.u_1d.x.array
    outside = coupling.Pi @ solution.u_3d.x.array
    np.testing.assert_allclose(
        solution.wall_flux, coupling.beta * (inside - outside), rtol=0, atol=1e-14
    )
    assert solution.wall_flux.shape == (len(coupling.points),)


def test_wall_flux_adds_up_to_the_exchange(solution, system):
    exchange = solution.mass_balance.exchange
    assert system.coupling.weights @ solution.wall_flux == pytest.approx(exchange, rel=1e-13)
    assert integral(solution.cell_wall_flux) == pytest.approx(exchange, rel=1e-13)


def test_cell_wall_flux_is_the_mean_over_the_cell(solution, system):
    flux = solution.cell_wall_flux
    values = flux.x.array[flux.function_space.dofmap.list[:, 0]]
    for cell in range(len(values)):
        here = system.coupling.cells == cell
        assert values[cell] == pytest.approx(solution.wall_flux[here].mean(), rel=1e-12)


def test_cells_without_exchange_have_no_flux(vessel):
    box, network = create_box(2, upper=(0.5, 1, 1)), create_network(vessel, 0.1)
    solution = solve(assemble(box, network, Coefficients(sigma_3d=1.0), outside="drop"))
    flux = solution.cell_wall_flux
    values = flux.x.array[flux.function_space.dofmap.list[:, 0]]
    exchanging = np.isin(np.arange(len(values)), solution.system.coupling.cells)
    assert 0 < exchanging.sum() < len(values)
    assert np.all(values[exchanging] > 0)
    assert np.all(values[~exchanging] == 0)


def test_a_uniform_flux_is_that_of_the_formula(vessel):
    """u_1d = 1 and u_3d = 0 held everywhere: the flux is 2 pi R kappa."""
    system = assemble(
        create_box(3),
        create_network(vessel, 0.2),
        Coefficients(permeability=4.0),
        bcs_3d=[Dirichlet("boundary", 0.0)],
        bcs_1d=[Dirichlet(lambda x: x[0] < 9, 1.0)],
    )
    solution = solve(system)
    solution.u_3d.x.array[:] = 0.0
    np.testing.assert_allclose(solution.wall_flux, 2 * np.pi * 0.08 * 4.0, rtol=1e-13)


# --- Mass balance -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=METHODS)
def open_solution(request, fork):
    """A problem without Dirichlet dofs in the tissue, so that its inflow is an integral."""
    box = create_box((4, 3, 5))
    coefficients = Coefficients(
        k_3d=2.0, sigma_3d=lambda x: 1 + x[0], permeability=3.0, f_3d=lambda x: x[1], f_1d=0.4
    )
    bcs_3d = [Neumann("x_min", lambda x: 1 + x[1]), Robin("z_max", 2.0, lambda x: x[0])]
    bcs_1d = [Robin("inlets", 5.0, 1.0), Neumann("ends", 0.1)]
    network = create_network(fork, box.spacing)
    system = assemble(box, network, coefficients, bcs_3d=bcs_3d, bcs_1d=bcs_1d)
    return solve(system, request.param, rtol=1e-12)


def test_amounts_are_integrals_of_the_fields(open_solution):
    u_3d, u_1d = open_solution.u_3d, open_solution.u_1d
    x, balance = ufl.SpatialCoordinate(u_3d.function_space.mesh), open_solution.mass_balance
    on_x, on_z = ufl.conditional(x[0] < 1e-9, 1.0, 0.0), ufl.conditional(x[2] > 1 - 1e-9, 1.0, 0.0)
    boundary = on_x * (1 + x[1]) + on_z * 2.0 * (x[0] - u_3d)
    assert balance.source_3d == pytest.approx(integral(x[1]), rel=1e-12)
    assert balance.reaction_3d == pytest.approx(integral((1 + x[0]) * u_3d), rel=1e-12)
    assert balance.boundary_3d == pytest.approx(integral(boundary, ufl.ds), rel=1e-12)

    mesh = u_1d.function_space.mesh
    length = integral(dolfinx.fem.Constant(mesh, 1.0), ufl.dx(domain=mesh))
    assert balance.source_1d == pytest.approx(0.4 * length, rel=1e-12)
    inlet = np.argmin(u_1d.function_space.tabulate_dof_coordinates()[:, 2])
    inflow = 5.0 * (1.0 - u_1d.x.array[inlet]) + 2 * 0.1
    assert balance.boundary_1d == pytest.approx(inflow, rel=1e-12)


def test_amounts_balance(open_solution, solution):
    for balance in (open_solution.mass_balance, solution.mass_balance):
        gained = balance.source_3d + balance.boundary_3d + balance.exchange - balance.reaction_3d
        assert abs(gained) < 1e-9 * balance.traded_3d
        gained = balance.source_1d + balance.boundary_1d - balance.exchange
        assert abs(gained) < 1e-9 * balance.traded_1d
        assert balance.error == max(balance.error_3d, balance.error_1d) < 1e-9
        assert balance.traded_3d >= abs(balance.exchange)


def test_inflow_through_dirichlet_conditions_is_the_flux_of_the_exact_field(vessel):
    """With u = 1 + 2 x between Dirichlet faces and k = 3, 6 enters at x = 1 and leaves at x = 0."""
    system = assemble(
        create_box((3, 2, 2)),
        create_network(vessel, 0.2),
        Coefficients(k_3d=3.0, k_1d=0.5, permeability=0.0),
        bcs_3d=[Dirichlet("x_min", 1.0), Dirichlet("x_max", 3.0)],
        bcs_1d=[Dirichlet("inlets", 1.0), Neumann("ends", -0.25)],
    )
    solution = solve(system)
    residual, _ = system.unconstrained_residual(solution.u_3d.x.array, solution.u_1d.x.array)
    x = system.side_3d.V.tabulate_dof_coordinates()[:, 0]
    assert residual[x > 0.99].sum() == pytest.approx(6.0, rel=1e-12)
    assert residual[x < 0.01].sum() == pytest.approx(-6.0, rel=1e-12)
    balance = solution.mass_balance
    assert balance.boundary_3d == pytest.approx(0.0, abs=1e-12)
    assert balance.boundary_1d == pytest.approx(0.0, abs=1e-12)
    assert balance.error < 1e-9


def test_a_wrong_field_does_not_balance(solution):
    off = dataclasses.replace(solution, u_3d=solution.u_3d.copy())
    off.u_3d.x.array[off.system.side_3d.is_free] += 0.1
    assert off.mass_balance.error > 1e-3

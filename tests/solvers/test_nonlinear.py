"""Nonlinear uptake: rates in h, order of both iterations, limits, balance, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import ufl
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mixeddim as md
from mixeddim.solvers import conjugate_gradients
from mixeddim.verification import study_convergence
from mixeddim.verification.convergence import compute_errors
from mixeddim.verification.manufactured import saturating_uptake


@pytest.fixture(scope="module")
def fed(fork) -> md.CoupledSystem:
    """Tissue that a fork feeds, without any uptake of its own."""
    box = md.create_box(6)
    return md.assemble(box, md.create_network(fork, box.spacing), md.Coefficients())


def distance(one: md.Solution, other: md.Solution) -> float:
    return max(
        abs(one.u_3d.x.array - other.u_3d.x.array).max(),
        abs(one.u_1d.x.array - other.u_1d.x.array).max(),
    )


def test_smooth_solution_converges_at_full_rates() -> None:
    study = study_convergence(saturating_uptake(), (8, 12, 16))
    assert study.rate("L2_3d") == pytest.approx(2.0, abs=0.1)
    assert study.rate("H1_3d") == pytest.approx(1.0, abs=0.1)
    assert study.rate("L2_1d") == pytest.approx(2.0, abs=0.1)
    assert study.rate("L2_flux") > 1.9


def test_smooth_solution_converges_on_hexahedra() -> None:
    exact = replace(saturating_uptake(), cell_type="hexahedron")
    coarse, fine = (
        compute_errors(
            md.solve_nonlinear(exact.assemble(n), exact.uptake, method="reduced", rtol=1e-11), exact
        )
        for n in (8, 16)
    )
    assert np.log2(coarse.L2_3d / fine.L2_3d) == pytest.approx(2.0, abs=0.1)
    assert np.log2(coarse.H1_3d / fine.H1_3d) == pytest.approx(1.0, abs=0.1)
    assert np.log2(coarse.L2_1d / fine.L2_1d) == pytest.approx(2.0, abs=0.1)


def test_gradient_of_the_exact_field_is_its_gradient() -> None:
    problem, step = saturating_uptake(), 1e-6
    points = np.random.default_rng(0).uniform(0, 1, (50, 3)).T
    differences = [
        (problem.u_3d(points + step * e[:, None]) - problem.u_3d(points - step * e[:, None]))
        / (2 * step)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(problem.grad_u_3d(points), differences, atol=1e-7)


def test_newton_converges_quadratically(fed: md.CoupledSystem) -> None:
    solution = md.solve_nonlinear(fed, md.MichaelisMenten(10.0, 0.1), rtol=1e-13)
    r = solution.residual_norms / solution.residual_norms[0]
    orders = np.log(r[2:-1] / r[1:-2]) / np.log(r[1:-2] / r[:-3])
    assert orders[-1] > 1.7
    assert solution.iterations == len(r) - 1 <= 6
    assert solution.relative_residual == r[-1] <= 1e-13


def test_picard_converges_linearly(fed: md.CoupledSystem) -> None:
    solution = md.solve_nonlinear(fed, md.MichaelisMenten(10.0, 0.1), "picard")
    r = solution.residual_norms
    factors = r[1:] / r[:-1]
    assert np.all(factors < 0.5)
    assert np.ptp(factors[-4:]) < 0.2 * factors[-1]  # the same factor in every step
    newton = md.solve_nonlinear(fed, md.MichaelisMenten(10.0, 0.1))
    assert newton.iterations < solution.iterations
    assert distance(newton, solution) < 1e-8


def test_newton_rises_from_below(fed: md.CoupledSystem) -> None:
    """Its first iterates: with rtol of nearly one they are the results."""
    uptake = md.MichaelisMenten(1.0, 1.0)
    exact = md.solve_nonlinear(fed, uptake, rtol=1e-12)
    norms = exact.residual_norms / exact.residual_norms[0]
    iterates = [md.solve_nonlinear(fed, uptake, rtol=1.01 * norm) for norm in norms[1:]]
    assert [iterate.iterations for iterate in iterates] == [1, 2, 3, *range(4, len(norms))]
    means = [iterate.u_3d.x.array.mean() for iterate in iterates]
    assert means == sorted(means)
    assert np.all(iterates[0].u_3d.x.array <= exact.u_3d.x.array + 1e-12)


@pytest.mark.parametrize("linearisation", ["newton", "picard"])
def test_linear_uptake_equals_sigma(system: md.CoupledSystem, linearisation: str) -> None:
    """On a system with every kind of condition; one step is all that either needs."""
    without = replace(system, side_3d=replace(system.side_3d, M=0 * system.side_3d.M))
    solution = md.solve_nonlinear(without, lambda u: (0.5 + _x(u)) * u, linearisation)
    assert solution.iterations == 1
    assert distance(solution, md.solve(system)) < 1e-12
    assert solution.mass_balance.error < 1e-12
    linear = md.solve(system).mass_balance
    assert solution.mass_balance.reaction_3d == pytest.approx(linear.reaction_3d, rel=1e-10)
    assert solution.mass_balance.source_3d == pytest.approx(linear.source_3d, rel=1e-10)


def _x(u: ufl.core.expr.Expr) -> ufl.core.expr.Expr:
    return ufl.SpatialCoordinate(ufl.domain.extract_unique_domain(u))[0]


def test_little_uptake_is_that_of_its_slope(fed: md.CoupledSystem) -> None:
    """Where u is far below the half saturation, V u / (K + u) is nearly (V / K) u."""
    nonlinear = md.solve_nonlinear(fed, md.MichaelisMenten(1e4, 1e4))
    linear = md.assemble(fed.tissue, fed.network, md.Coefficients(sigma_3d=1.0))
    assert distance(nonlinear, md.solve(linear)) < 1e-4


def test_plenty_is_taken_up_at_the_maximum(fed: md.CoupledSystem) -> None:
    """Where u is far above the half saturation, every volume takes V, whatever u is."""
    solution = md.solve_nonlinear(fed, md.MichaelisMenten(0.01, 1e-6))
    assert solution.uptake == pytest.approx(0.01, rel=1e-3)
    assert solution.mass_balance.exchange == pytest.approx(solution.uptake, rel=1e-8)


@settings(max_examples=15, deadline=None)
@given(maximum=st.floats(1e-6, 100.0), half=st.floats(0.05, 10.0))
@example(maximum=0.03125, half=0.5)
def test_balance_and_bounds(fed: md.CoupledSystem, maximum: float, half: float) -> None:
    solution = md.solve_nonlinear(fed, md.MichaelisMenten(maximum, half))
    # What is missing is the sum of the residual, which is small beside the first one, and not
    # always beside what is taken up.
    balance, num_dofs = solution.mass_balance, len(fed.b_3) + len(fed.b_1)
    most = np.sqrt(num_dofs) * solution.residual_norms[-1]
    assert balance.error_3d * balance.traded_3d <= most + 1e-14 * balance.traded_3d
    assert balance.error_1d * balance.traded_1d <= most + 1e-14 * balance.traded_1d
    assert most <= 1e-12 * np.sqrt(num_dofs) * solution.residual_norms[0]
    assert solution.mass_balance.reaction_3d == pytest.approx(solution.uptake)
    assert 0 < solution.uptake <= maximum * 1.001
    assert solution.u_1d.x.array.max() <= 1 + 1e-10


@pytest.mark.parametrize("method", ["direct", "krylov", "reduced"])
def test_every_linear_solver_serves(fed: md.CoupledSystem, method: str) -> None:
    uptake = md.MichaelisMenten(2.0, 0.5)
    solution = md.solve_nonlinear(fed, uptake, method=method)
    assert solution.method == method
    assert distance(solution, md.solve_nonlinear(fed, uptake, rtol=1e-13)) < 1e-8


@pytest.mark.parametrize(
    ("method", "set_up"),
    [("direct", "BlockFactors"), ("krylov", "CoupledMultigrid")],
)
@pytest.mark.parametrize("linearisation", ["newton", "picard"])
def test_one_set_up_serves_all_iterations(
    fed: md.CoupledSystem, monkeypatch, method: str, set_up: str, linearisation: str
) -> None:
    made = []
    make = getattr(conjugate_gradients, set_up)
    monkeypatch.setattr(conjugate_gradients, set_up, lambda *args: made.append(args) or make(*args))
    uptake = md.MichaelisMenten(2.0, 0.5)
    solution = md.solve_nonlinear(fed, uptake, linearisation, method=method)
    assert solution.iterations >= 3
    assert len(made) == 1


def test_what_no_longer_serves_is_set_up_anew(fed: md.CoupledSystem, monkeypatch) -> None:
    plain = md.solve_nonlinear(fed, md.MichaelisMenten(2.0, 0.5), method="krylov")
    monkeypatch.setattr(conjugate_gradients, "MOST_REUSED", 1)
    made = []
    make = conjugate_gradients.CoupledMultigrid
    monkeypatch.setattr(
        conjugate_gradients, "CoupledMultigrid", lambda *args: made.append(args) or make(*args)
    )
    anew = md.solve_nonlinear(fed, md.MichaelisMenten(2.0, 0.5), method="krylov")
    assert len(made) > 2
    np.testing.assert_allclose(anew.u_3d.x.array, plain.u_3d.x.array, rtol=1e-9)


@pytest.mark.parametrize("linearisation", ["newton", "picard"])
@pytest.mark.parametrize("method", ["direct", "krylov", "reduced"])
def test_the_tissue_does_not_hide_behind_the_network(fork, method: str, linearisation: str) -> None:
    """The first residual is the network's, 1e9 times all that reaches the tissue."""
    box = md.create_box(5)
    coefficients = md.Coefficients(k_1d=1e7, permeability=1e-3)
    system = md.assemble(box, md.create_network(fork, box.spacing), coefficients)
    uptake = md.MichaelisMenten(1e-3, 1e-3)
    solution = md.solve_nonlinear(system, uptake, linearisation, method=method)
    load = solution.uptake_load
    residual, _ = system.unconstrained_residual(solution.u_3d.x.array, solution.u_1d.x.array)
    assert np.linalg.norm(residual + load) < 1e-6 * np.linalg.norm(load)


def test_a_solution_serves_wherever_one_does(fed: md.CoupledSystem) -> None:
    solution = md.solve_nonlinear(fed, md.MichaelisMenten(1.0, 1.0))
    assert "NonlinearSolution(newton, " in repr(solution)
    assert md.tissue_dataset(solution).point_data["u_3d"].max() == solution.u_3d.x.array.max()
    assert {"u_1d", "wall_flux"} <= {
        *md.network_dataset(solution).point_data.keys(),
        *md.network_dataset(solution).cell_data.keys(),
    }


def test_nothing_needs_no_iteration(fork) -> None:
    box = md.create_box(3)
    empty = md.assemble(
        box,
        md.create_network(fork, box.spacing),
        md.Coefficients(),
        bcs_1d=[md.Dirichlet("inlets", 0.0)],
    )
    for linearisation in ("newton", "picard"):
        solution = md.solve_nonlinear(empty, md.MichaelisMenten(1.0, 1.0), linearisation)
        assert solution.iterations == solution.relative_residual == 0
        assert not solution.u_3d.x.array.any()


def test_a_rate_whose_slope_is_zero_is_a_source(fed: md.CoupledSystem) -> None:
    """Zero-order kinetics: the same amount everywhere, as f_3d less would give."""
    drained = md.assemble(fed.tissue, fed.network, md.Coefficients(f_3d=-0.1))
    for linearisation in ("newton", "picard"):
        rate = md.solve_nonlinear(fed, lambda u: 0 * u + 0.1, linearisation)
        assert distance(rate, md.solve(drained)) < 1e-12
        assert rate.uptake == pytest.approx(0.1)


def test_picard_goes_in_circles_where_uptake_is_steep(fed: md.CoupledSystem) -> None:
    with pytest.raises(md.SolverError, match="picard stopped after 50 iterations"):
        md.solve_nonlinear(fed, lambda u: 300 * u**3, "picard")
    assert md.solve_nonlinear(fed, lambda u: 300 * u**3).iterations < 15


def test_gives_up_and_says_what_to_try(fed: md.CoupledSystem) -> None:
    with pytest.raises(md.SolverError, match=r"newton stopped after 1 it.*linearisation='picard'"):
        md.solve_nonlinear(fed, md.MichaelisMenten(10.0, 0.1), max_iterations=1)
    with pytest.raises(md.SolverError, match=r"picard stopped after 2 it.*linearisation='newton'"):
        md.solve_nonlinear(fed, md.MichaelisMenten(10.0, 0.1), "picard", max_iterations=2)
    with pytest.raises(md.SolverError, match=r"to nan; wanted 1e-12.*defined and grows"):
        md.solve_nonlinear(fed, lambda u: ufl.sqrt(u - 10.0))
    with np.errstate(over="ignore"), pytest.raises(md.SolverError, match="from inf to inf"):
        md.solve_nonlinear(fed, lambda u: 1e200 * ufl.exp(u))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((lambda u: u, "secant"), "got linearisation='secant'; wanted one of"),
        ((lambda _: 1.0,), r"got uptake\(u\) = 1.0; wanted a scalar UFL expression of u"),
        ((lambda u: ufl.as_vector([u, u]),), "wanted a scalar UFL expression of u"),
    ],
)
def test_refuses(fed: md.CoupledSystem, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.solve_nonlinear(fed, *arguments)


@pytest.mark.parametrize("rtol", [0.0, -1.0, 1.0, float("nan")])
def test_refuses_reductions_that_are_none(fed: md.CoupledSystem, rtol: float) -> None:
    with pytest.raises(ValueError, match=r"got rtol=.*; wanted a reduction between 0 and 1"):
        md.solve_nonlinear(fed, lambda u: u**2, rtol=rtol)


@pytest.mark.parametrize("uptake", [np.tanh, lambda u: 1.0 * u if u > 0.1 else 2.0 * u])
def test_refuses_a_rate_that_is_not_written_with_ufl(fed: md.CoupledSystem, uptake) -> None:
    with pytest.raises(TypeError, match=r"got an uptake that fails for a UFL u: .* ufl.condit"):
        md.solve_nonlinear(fed, uptake)


def test_refuses_a_rate_on_the_network(fed: md.CoupledSystem) -> None:
    radius = fed.network.radius
    with pytest.raises(ValueError, match=r"got uptake\(u\) on a mesh of topological dimension 1"):
        md.solve_nonlinear(fed, lambda u: radius * u)


def test_refuses_impossible_kinetics() -> None:
    with pytest.raises(ValueError, match="got maximum=-1; wanted a non-negative number"):
        md.MichaelisMenten(-1, 1)
    with pytest.raises(ValueError, match="got half=0; wanted a positive number"):
        md.MichaelisMenten(1, 0)

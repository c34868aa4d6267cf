"""Convergence to exact solutions, trial and test function averaged over the wall."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import mixeddim as md
from mixeddim.verification import study_convergence
from mixeddim.verification.manufactured import (
    ExactProblem,
    bessel_mode,
    smooth_coupled,
    surface_source,
    uncoupled,
)


def solve(problem: ExactProblem, num_cells: int) -> md.Solution:
    return md.solve(problem.assemble(num_cells), "reduced", rtol=1e-11)


@pytest.mark.parametrize("make", [uncoupled, smooth_coupled])
def test_smooth_solutions_converge_at_full_rates(make: Callable[[], ExactProblem]) -> None:
    study = study_convergence(make(), (8, 16, 24))
    assert study.rate("L2_3d") == pytest.approx(2.0, abs=0.1)
    assert study.rate("H1_3d") == pytest.approx(1.0, abs=0.1)
    assert study.rate("L2_1d") == pytest.approx(2.0, abs=0.1)
    if make is smooth_coupled:
        assert study.rate("L2_flux") > 1.9


def test_smooth_solutions_converge_at_full_rates_on_hexahedra() -> None:
    study = study_convergence(replace(smooth_coupled(), cell_type="hexahedron"), (8, 12, 16))
    tetrahedra = study_convergence(smooth_coupled(), (8,))
    assert study.rate("L2_3d") == pytest.approx(2.0, abs=0.1)
    assert study.rate("H1_3d") == pytest.approx(1.0, abs=0.1)
    assert study.rate("L2_1d") == pytest.approx(2.0, abs=0.1)
    assert study.rate("L2_flux") > 1.9
    # The same nodes, and a gradient that is nearly twice as close.
    assert study.errors[0].H1_3d < 0.6 * tetrahedra.errors[0].H1_3d
    assert study.errors[0].L2_3d < 0.9 * tetrahedra.errors[0].L2_3d


def test_uncoupled_sides_exchange_nothing() -> None:
    assert np.all(solve(uncoupled(), 8).wall_flux == 0)


@pytest.mark.parametrize("make", [bessel_mode, surface_source])
def test_kink_at_the_wall_limits_the_rates(make: Callable[[], ExactProblem]) -> None:
    # u_3d lies in H^(3/2 - delta): order 1/2 in H1, one more in L2 by duality, order 1 for u_1d and
    # the flux. The fields vary along the vessel too, with an error of order 1 in H1 that would
    # hide the kink's on these meshes, were they not finer along it.
    study = study_convergence(make(), (12, 16, 24), axial_refinement=4)
    assert study.rate("H1_3d") == pytest.approx(0.5, abs=0.1)
    assert study.rate("L2_3d") == pytest.approx(1.5, abs=0.1)
    assert study.rate("L2_1d") == pytest.approx(1.0, abs=0.1)
    assert study.rate("L2_flux") == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("num_cells", "tolerance"), [(8, 1e-2), (16, 2e-3), (32, 1.2e-3)])
def test_bessel_mode_converges_to_the_tabulated_amplitudes(
    num_cells: int, tolerance: float
) -> None:
    solution = solve(bessel_mode(), num_cells)
    coupling = solution.system.coupling
    flux = 2 * coupling.weights @ (solution.wall_flux * np.cos(np.pi * coupling.points[:, 2]))
    assert flux == pytest.approx(0.285631355580, rel=tolerance)
    assert flux / (2 * np.pi) == pytest.approx(0.045459642143, rel=tolerance)


def test_bessel_mode_states_the_tabulated_amplitude() -> None:
    wall = np.array([[0.0], [0.0], [0.0]])
    assert bessel_mode().wall_flux(wall)[0] == pytest.approx(0.285631355580, abs=1e-12)


@pytest.mark.parametrize("make", [uncoupled, smooth_coupled, surface_source, bessel_mode])
def test_gradients_are_those_of_the_fields(make: Callable[[], ExactProblem]) -> None:
    problem, step = make(), 1e-6
    points = np.random.default_rng(0).uniform(problem.lower, problem.upper, (50, 3)).T
    differences = [
        (problem.u_3d(points + step * e[:, None]) - problem.u_3d(points - step * e[:, None]))
        / (2 * step)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(problem.grad_u_3d(points), differences, atol=1e-7)


@pytest.mark.parametrize("make", [uncoupled, smooth_coupled, surface_source, bessel_mode])
def test_mass_is_balanced(make: Callable[[], ExactProblem]) -> None:
    assert solve(make(), 8).mass_balance.error < 1e-9

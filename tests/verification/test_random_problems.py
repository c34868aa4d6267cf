"""No wrong answer: random legal problems, every solver, the direct solution or an error by name.

A sample; `python tests/benchmarks/random_problems.py --solvers all` runs 1,000 of them.
"""

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import learning
import mixeddim as md
from mixeddim.verification import random_problems
from mixeddim.verification.random_problems import draw_problem, reference_solution

_PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "random_problems.py"
_SPEC = importlib.util.spec_from_file_location("random_problems_command", _PATH)
command = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(command)

# Where the old solvers were wrong or slow: fields that nothing but rounding holds, strong exchange
# with badly conducting vessels, elongated boxes.
CHOSEN = (12, 21, 22, 35, 39, 97, 120, 171, 214, 230)


def judged(seeds, solvers):
    found = {seed: command.outcomes(seed, solvers) for seed in seeds}
    wrong = {
        (seed, name): outcome
        for seed, of_seed in found.items()
        for name, outcome in of_seed.items()
        if outcome.verdict == "wrong"
    }
    assert not wrong
    return [outcome for of_seed in found.values() for outcome in of_seed.values()]


@pytest.mark.parametrize("first", range(0, 75, 25))
def test_solvers_of_the_coupled_problem(first):
    outcomes = judged(range(first, first + 25), command.MIXEDDIM)
    right = [outcome for outcome in outcomes if outcome.verdict == "right"]
    assert len(right) >= 0.9 * len(outcomes)


def test_solvers_on_hexahedra(monkeypatch):
    hexahedra = partial(md.create_box, cell_type="hexahedron")
    monkeypatch.setattr(random_problems, "create_box", hexahedra)
    outcomes = judged(range(6), (*command.MIXEDDIM, "fast diagonalisation, coupling"))
    right = [outcome for outcome in outcomes if outcome.verdict == "right"]
    assert len(right) >= 0.9 * len(outcomes)


def test_krylov_takes_few_iterations_whatever_the_coefficients():
    outcomes = judged((*range(100, 125), *CHOSEN), ("krylov",))
    assert max(outcome.iterations for outcome in outcomes) <= 50


@pytest.mark.parametrize("seed", [0, 1, *CHOSEN[::2]])
def test_solvers_of_the_reduced_problem(seed):
    judged([seed], command.GROUPS["classical"])


@pytest.mark.parametrize("name", command.UNETS)
def test_unets(name):
    judged((1, 4), (name,))


def test_learned_multigrid_takes_few_iterations_whatever_the_coefficients():
    outcomes = judged((*range(140, 160), *CHOSEN), ("multigrid",))
    assert max(outcome.iterations for outcome in outcomes) <= 15


# --- The problems -----------------------------------------------------------------------------


def test_a_seed_draws_one_problem():
    one, again, other = (draw_problem(seed) for seed in (3, 3, 4))
    assert one.coefficients.k_3d == again.coefficients.k_3d
    assert (one.sides, one.num_cells, one.graph) == (again.sides, again.num_cells, again.graph)
    assert one.coefficients.k_3d != other.coefficients.k_3d


def test_problems_cover_twelve_decades():
    problems = [draw_problem(seed) for seed in range(1000)]
    for name in ("k_3d", "k_1d", "permeability", "sigma_3d"):
        values = np.array([getattr(p.coefficients, name) for p in problems])
        values = np.log10(values[values > 0])
        assert np.ptp(values) > 11.5, name
    sides = np.array([problem.sides for problem in problems])
    assert np.ptp(np.log10(sides.max(axis=1))) > 8.5
    assert (sides.max(axis=1) / sides.min(axis=1)).max() > 9
    assert 0.3 < np.mean([not problem.bcs_3d for problem in problems]) < 0.7


def test_the_reference_solves_the_system():
    system = draw_problem(1).assemble()
    u_3d, u_1d = reference_solution(system)
    residual = system.b_3 - system.A_33 @ u_3d - system.A_31 @ u_1d
    assert np.linalg.norm(residual) < 1e-12 * np.linalg.norm(system.b_3 - system.A_31 @ u_1d)


def test_the_reference_refuses_a_singular_system(fork):
    network = md.create_network(fork, 0.25)
    system = md.assemble(md.create_box(3), network, md.Coefficients(f_1d=1.0), bcs_1d=[])
    with pytest.raises(ValueError, match="direct solution does not settle"):
        reference_solution(system)


# --- What learning.solve says -----------------------------------------------------------------


def reduced(seed):
    return md.reduce(draw_problem(seed).assemble())


def test_a_residual_that_tells_nothing_of_the_fields_is_gone_on_from():
    """Exchange is 2e5 times stronger than diffusion: by the residual alone u_3d is off by 2 %."""
    system = reduced(39)
    blind = learning.solve(system, learning.Jacobi(), max_iterations=1000, check=False)
    seeing = learning.solve(system, learning.Jacobi(), max_iterations=1000)
    assert blind.status is seeing.status is learning.Status.CONVERGED
    assert blind.iterations == seeing.iterations
    np.testing.assert_array_equal(blind.residual_norms, seeing.residual_norms)
    assert (blind.extra_iterations, seeing.extra_iterations > 0) == (0, True)
    assert np.isnan(blind.error_bound)
    expected, _ = reference_solution(draw_problem(39).assemble())
    assert command.relative_error(blind.x, expected) > 1e-3
    assert command.relative_error(seeing.x, expected) < 1e-5
    assert seeing.error_bound < 1e-5


def test_what_rounding_does_not_determine_has_a_name():
    result = learning.solve(reduced(253), learning.GeometricMultigrid(degree=2), rtol=1e-5)
    assert result.status is learning.Status.INACCURATE
    assert "mixeddim.solve" in result.status.value
    assert result.error_bound > 1e-5


@pytest.mark.parametrize("unit", [1e-40, 1e-15, 1e30])
@pytest.mark.parametrize("load", [1e-100, 1.0, 1e100])
def test_units_do_not_matter_to_float32(unit, load):
    """Entries of 1e-40 are zero in float32, and squares of 1e-100 in float64."""
    system = reduced(6)
    scaled = replace(
        system, K=unit * system.K, M=unit * system.M, beta=unit * system.beta,
        A_11=unit * system.A_11, b_3=load * unit * system.b_3, b_1=load * unit * system.b_1,
    )  # fmt: skip
    multigrid = learning.load_pretrained("multigrid")
    plain, other = (learning.solve(s, multigrid) for s in (system, scaled))
    assert plain.converged
    assert other.converged
    assert other.iterations == plain.iterations
    np.testing.assert_allclose(other.x / load, plain.x, rtol=0, atol=1e-5 * abs(plain.x).max())
    assert other.residual_norms[0] / load / unit == pytest.approx(plain.residual_norms[0])

"""Solving again and again: initial guesses, blocks of right-hand sides, one set-up for many."""

import dataclasses

import numpy as np
import pytest
import torch

import learning
import mixeddim as md
from learning.krylov.fgmres import Status

METHODS = ["fgmres", "cg", "flexible_cg"]
PRECONDITIONERS = {
    "identity": learning.Identity(),
    "jacobi": learning.Jacobi(),
    "fast diagonalisation": learning.FastDiagonalisation(),
    "multigrid": learning.GeometricMultigrid(),
    "learned": learning.load_pretrained("multigrid"),
    "Ruge-Stueben": learning.RugeStuben(),
    "U-Net": learning.load_pretrained("unet-dynamic"),
}


@pytest.fixture(scope="module")
def system():
    box = md.create_box((6, 5, 7))
    network = md.create_network(md.random_vascular_graph(8, 0.05, seed=0), 0.2)
    coefficients = md.Coefficients(sigma_3d=1.0, f_3d=1.0)
    return md.reduce(md.assemble(box, network, coefficients))


@pytest.fixture(scope="module")
def exact(system):
    return np.linalg.solve(system.S @ np.eye(len(system.g)), system.g)


def loads(system, k, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((k, len(system.b_3))), rng.standard_normal((k, len(system.b_1)))


# --- Initial guess ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_closer_the_guess_the_fewer_the_iterations(system, exact, method):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(len(exact)) * np.linalg.norm(exact) / np.sqrt(len(exact))
    solve = lambda guess: learning.solve(  # noqa: E731
        system, learning.Jacobi(), method, initial_guess=guess, rtol=1e-8
    )
    results = [solve(guess) for guess in (None, exact + 1e-3 * noise, exact + 1e-6 * noise, exact)]
    iterations = [result.iterations for result in results]
    assert iterations[0] > iterations[1] > iterations[2] > iterations[3] == 0
    for result in results:
        assert result.converged
        residual = np.linalg.norm(system.g - system.S @ result.x)
        assert residual <= 1.01e-8 * np.linalg.norm(system.g)  # of g, not of the first residual
        assert result.residual_norms.shape == (result.iterations + 1,)


def test_residual_norms_start_with_that_of_the_guess(system, exact):
    guess = 0.9 * exact
    result = learning.solve(system, learning.Jacobi(), initial_guess=guess)
    first = np.linalg.norm(system.g - system.S @ guess)
    np.testing.assert_allclose(result.residual_norms[0], first, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_solution_as_guess_is_returned_and_its_fields_are_checked(system, exact, method):
    result = learning.solve(system, learning.Jacobi(), method, initial_guess=exact)
    assert result.iterations == result.extra_iterations == 0
    np.testing.assert_array_equal(result.x, exact)
    assert result.error_bound < 1e-10
    # A residual below rtol with fields that are not right: iterations go on.
    off = exact + 1e-4 * exact.max()
    rough = learning.solve(system, learning.Jacobi(), method, initial_guess=off, rtol=1e-2)
    assert rough.iterations == 0
    fine = learning.solve(system, learning.Jacobi(), method, initial_guess=off, rtol=1e-6)
    np.testing.assert_allclose(fine.x, exact, rtol=0, atol=1e-5 * abs(exact).max())


@pytest.mark.parametrize("method", METHODS)
def test_nothing_drives_the_system_whatever_the_guess(system, method):
    still = dataclasses.replace(system, b_3=0 * system.b_3, b_1=0 * system.b_1)
    result = learning.solve(still, learning.Jacobi(), method, initial_guess=np.ones_like(system.g))
    assert result.converged
    assert result.iterations == 0
    assert np.all(result.x == 0)


def test_a_guess_in_extreme_units_is_in_those_of_the_solution(system, exact):
    tiny = dataclasses.replace(system, b_3=1e-40 * system.b_3, b_1=1e-40 * system.b_1)
    result = learning.solve(tiny, learning.Jacobi(), initial_guess=1e-40 * exact)
    assert result.iterations == 0
    np.testing.assert_allclose(result.x, 1e-40 * exact, rtol=1e-14)


def test_a_guess_whose_residual_is_not_finite_says_so(system):
    result = learning.solve(
        system, learning.Jacobi(), initial_guess=np.full_like(system.g, 1e308), check=False
    )
    assert result.status is Status.NOT_FINITE


# --- Blocks of right-hand sides ---------------------------------------------------------------


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_a_block_equals_its_rows_solved_one_by_one(system, name):
    b_3, b_1 = loads(system, 3)
    M = PRECONDITIONERS[name]
    block = learning.solve(system, M, b_3=b_3, b_1=b_1, rtol=1e-8)
    assert block.converged
    assert block.x.shape == b_3.shape
    assert block.status == (Status.CONVERGED,) * 3
    solver = learning.Solver(system, M)
    for i in range(3):
        single = solver.solve(b_3[i], b_1[i], rtol=1e-8)
        assert abs(single.iterations - block.iterations[i]) <= 1
        assert abs(single.extra_iterations - block.extra_iterations[i]) <= 1
        np.testing.assert_allclose(block.x[i], single.x, rtol=0, atol=1e-7 * abs(single.x).max())
        most = min(single.iterations + 1, 20)  # rounding grows later on
        norms, expected = block.residual_norms[:most, i], single.residual_norms[:most]
        np.testing.assert_allclose(norms, expected, rtol=0.1, atol=1e-10 * norms[0])
        assert block.error_bound[i] < 3e-6


@pytest.mark.parametrize("method", METHODS)
def test_the_loads_of_both_sides_count(system, method):
    """The pair solves the block system, which the reduced one stands for."""
    b_3, b_1 = loads(system, 3)
    x = learning.solve(system, learning.Jacobi(), method, b_3=b_3, b_1=b_1, rtol=1e-11).x
    u_1d = system.back_substitute(x, b_1)
    assert u_1d.shape == b_1.shape
    left_3 = (system.A_33 @ x.T + system.A_31 @ u_1d.T).T
    left_1 = (system.A_13 @ x.T + system.A_11 @ u_1d.T).T
    np.testing.assert_allclose(left_3, b_3, rtol=0, atol=1e-8 * abs(b_3).max())
    np.testing.assert_allclose(left_1, b_1, rtol=0, atol=1e-8 * abs(b_1).max())


def test_the_side_that_is_left_out_keeps_its_load(system):
    b_3, b_1 = loads(system, 2)
    solver = learning.Solver(system, learning.GeometricMultigrid())
    solve = lambda *b: solver.solve(*b, rtol=1e-10).x  # noqa: E731
    same = np.stack([system.b_3] * 2), np.stack([system.b_1] * 2)
    np.testing.assert_allclose(solve(b_3), solve(b_3, same[1]), rtol=1e-12)
    np.testing.assert_allclose(solve(None, b_1), solve(same[0], b_1), rtol=1e-12)
    np.testing.assert_allclose(solve(b_3[0], b_1), solve(b_3[[0, 0]], b_1), rtol=1e-12)
    np.testing.assert_allclose(solve(), solve(system.b_3, system.b_1), rtol=1e-12)


def test_each_row_stops_by_itself_in_units_of_its_own(system):
    b_3, b_1 = loads(system, 4)
    unit = np.array([1e-100, 1.0, 1e100, 0.0])[:, None]
    result = learning.solve(system, learning.Jacobi(), b_3=unit * b_3, b_1=unit * b_1)
    plain = learning.solve(system, learning.Jacobi(), b_3=b_3, b_1=b_1)
    assert result.converged
    np.testing.assert_array_equal(result.iterations[:3], plain.iterations[:3])
    np.testing.assert_allclose(result.x[:3], unit[:3] * plain.x[:3], rtol=1e-6)
    assert result.iterations[3] == 0
    assert np.all(result.x[3] == 0)


def test_a_block_starts_from_a_guess_for_each_row_or_for_all(system):
    b_3, b_1 = loads(system, 3)
    solver = learning.Solver(system, learning.Jacobi())
    x = solver.solve(b_3, b_1, rtol=1e-10).x
    again = solver.solve(b_3, b_1, initial_guess=x)
    assert np.all(again.iterations == 0)
    for_all = solver.solve(b_3, b_1, initial_guess=x[1])
    assert for_all.iterations[1] == 0 < for_all.iterations[0]


@pytest.mark.parametrize("k", [1, 7, 8, 9, 20])
def test_products_of_many_vectors_equal_those_of_each(system, k):
    batch = learning.batch_systems([system])
    v = torch.from_numpy(loads(system, k)[0])
    each = torch.cat([batch.apply(row[None]) for row in v])
    torch.testing.assert_close(batch.apply(v), each, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(batch.apply(v).numpy().T, system.S @ v.numpy().T, atol=1e-12)


def test_a_block_of_one_system_is_differentiable(system):
    batch = learning.batch_systems([system])
    v = torch.from_numpy(loads(system, 3)[0]).requires_grad_()
    w = torch.from_numpy(loads(system, 3, seed=1)[0])
    (batch.apply(v) * w).sum().backward()
    torch.testing.assert_close(v.grad, batch.apply(w), rtol=1e-12, atol=1e-12)


# --- One set-up -------------------------------------------------------------------------------


class Counting:
    """Jacobi's, counting its set-ups."""

    is_linear = is_symmetric = True

    def __init__(self):
        self.setups = 0

    def setup(self, systems, batch):
        self.setups += 1
        return learning.Jacobi().setup(systems, batch)


def test_a_solver_is_set_up_once(system):
    M = Counting()
    solver = learning.Solver(system, M)
    results = [solver.solve(rtol=rtol) for rtol in (1e-4, 1e-8)]
    assert M.setups == 1
    assert results[0].iterations < results[1].iterations
    assert results[0].method == solver.method == "cg"


def test_time_steps_take_fewer_iterations_from_the_last_solution(system):
    solver = learning.Solver(system, learning.Jacobi())
    u = solver.solve().x
    for growth in (1e-2, 1e-4):
        without = solver.solve((1 + growth) * system.b_3).iterations
        result = solver.solve((1 + growth) * system.b_3, initial_guess=u)
        assert result.iterations < (1 + np.log10(growth) / 8) * without


# --- What does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "message"), [
    ({"initial_guess": np.zeros(3)},
     r"got initial_guess of shape \(3,\); wanted \(336,\), or \(k, 336\)"),
    ({"initial_guess": np.full(336, np.nan)}, "got NaN or infinity in initial_guess"),
    ({"initial_guess": np.zeros((2, 336))}, "got 1 right-hand sides b_3, 1 b_1 and 2 initial"),
    ({"b_3": np.zeros((336, 2))}, r"got b_3 of shape \(336, 2\); wanted \(336,\)"),
    ({"b_3": np.zeros((0, 336))}, r"got b_3 of shape \(0, 336\)"),
    ({"b_3": np.zeros((1, 2, 336))}, r"got b_3 of shape \(1, 2, 336\)"),
    ({"b_1": np.zeros(1)}, r"got b_1 of shape \(1,\)"),
    ({"b_3": np.zeros((2, 336)), "initial_guess": np.zeros((3, 336))}, "2 right-hand sides b_3"),
    ({"b_3": np.full(336, np.inf)}, "got NaN or infinity in b_3"),
])  # fmt: skip
def test_what_does_not_fit_is_explained(system, arguments, message):
    with pytest.raises(ValueError, match=message):
        learning.solve(system, learning.Jacobi(), **arguments)


@pytest.mark.parametrize("method", [learning.cg, learning.flexible_cg, learning.fgmres])
@pytest.mark.parametrize(("guess", "message"), [
    (torch.zeros(1, 3), r"got an initial guess of shape \(1, 3\).*wanted \(1, 2\)"),
    (torch.full((1, 2), torch.nan), "got NaN or infinity in the initial guess"),
])  # fmt: skip
def test_a_guess_of_a_krylov_method_that_does_not_fit_is_explained(method, guess, message):
    with pytest.raises(ValueError, match=message):
        method(lambda v: v, torch.ones(1, 2), lambda v: v, initial_guess=guess)

"""Permeabilities from measurements: the gradient is right and cheap, and the estimate is close."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("12_inverse_problem")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("inverse_problem")


@pytest.fixture(scope="module")
def result(demo, folder):
    return demo.main(["--num-cells", "10", "--output", str(folder)])


def test_gradient_is_right_and_costs_about_a_solve(result):
    assert result.taylor_order == pytest.approx(2.0, abs=0.1)
    assert 0.2 < result.gradient_cost < 1.5


def test_permeabilities_are_estimated(result):
    assert result.truth.shape == result.estimate.shape == (60,)
    error = np.linalg.norm(result.estimate - result.truth) / np.linalg.norm(result.truth)
    assert result.relative_error == pytest.approx(error)
    assert error < 0.1 < 0.3 < np.linalg.norm(0.3 - result.truth) / np.linalg.norm(result.truth)
    # Of each of 200 measurements and 60 vessels about half a unit is left, less what was fitted.
    assert min(result.misfits) < 150 < 1000 < result.misfits[0]


def test_files_of_the_inverse_problem(result, folder):
    picture, data = result.files
    assert picture == folder / "inverse.png"
    assert picture.stat().st_size > 10_000
    assert json.loads(data.read_text()) == {
        name: getattr(result, name) for name in ("taylor_order", "relative_error", "gradient_cost")
    }


def test_points_lie_beside_vessels(demo):
    system = demo.assemble(12, 6, seed=1)
    points, along = demo.draw_points(system.network.graph, 50, np.random.default_rng(0))
    assert np.all((points >= 0) & (points <= 1))
    np.testing.assert_allclose(np.linalg.norm(along, axis=1), 1.0)


def test_help_of_the_inverse_problem_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    options = ("num-nodes", "num-points", "num-cells", "seed", "output")
    assert all(f"--{option}" in printed for option in options)

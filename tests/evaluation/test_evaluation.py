"""Evaluation: numbers as one solve at a time gives them, honest means, exact fits, a true file."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import learning
from learning.evaluation.measures import RIGHT_HAND_SIDES, evaluate, evaluate_epochs, sine_profile
from learning.evaluation.results import (
    DataSummary,
    Results,
    SineProfile,
    fit_line,
    load_results,
    save_results,
)
from learning.problems.data import FAMILIES, right_hand_side
from learning.problems.distributions import DISTRIBUTIONS
from learning.problems.generation import generate
from learning.training.weights import save_weights

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.h5"
    tiny = dataclasses.replace(DISTRIBUTIONS["paper"], num_cells=3, num_nodes=(6, 8))
    return generate(tiny, 5, seed=3, path=path, processes=1, progress=False)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return learning.UNet()


@pytest.fixture(scope="module")
def preconditioners(unet):
    return {
        "none": learning.Identity(),
        "jacobi": learning.Jacobi(),
        "static": learning.UNetPreconditioner(unet),
    }


@pytest.fixture(scope="module")
def evaluation(preconditioners, dataset):
    return evaluate(preconditioners, dataset, seed=1, batch_size=2, **QUIET)


def single_right_hand_side(dataset, family, index, seed=1):
    rng = np.random.default_rng([RIGHT_HAND_SIDES, seed, index, FAMILIES.index(family)])
    return right_hand_side(dataset[index], family, rng)


# --- Iterations -------------------------------------------------------------------------------


def test_iterations_are_those_of_one_solve_at_a_time(evaluation, preconditioners, dataset):
    for name, preconditioner in preconditioners.items():
        wanted = [
            learning.solve(problem.reduced, preconditioner, "fgmres", max_iterations=250).iterations
            for problem in dataset
        ]
        measurement = evaluation.measurements["canonical"][name]
        np.testing.assert_array_equal(measurement.iterations, wanted)
        assert not measurement.failures
        assert measurement.mean == np.mean(wanted)
        assert measurement.std == np.std(wanted)
        assert (measurement.min, measurement.max) == (min(wanted), max(wanted))
        assert measurement.seconds > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_problem_gets_its_own_right_hand_side(family, evaluation, dataset):
    for index, problem in enumerate(dataset):
        batch = learning.batch_systems([problem.reduced])
        b = torch.tensor(single_right_hand_side(dataset, family, index))[None]
        result = learning.fgmres(batch.apply, b, lambda r: r, max_iterations=250)
        got = evaluation.measurements[family]["none"].iterations[index]
        assert got == int(result.iterations[0])


@pytest.mark.parametrize(("name", "rounding"), [("jacobi", 0), ("static", 1)])
def test_neither_company_nor_batches_change_a_number(
    evaluation, preconditioners, dataset, name, rounding
):
    """But for the rounding of a model in float32."""
    alone = evaluate(
        {name: preconditioners[name]},
        dataset[:4],
        families=["random"],
        seed=1,
        batch_size=3,
        **QUIET,
    )
    got = alone.measurements["random"][name].iterations
    wanted = evaluation.measurements["random"][name].iterations[:4]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=rounding)
    assert alone.data == DataSummary(4)


def test_the_evaluation_says_what_it_was_made_from(evaluation, dataset):
    assert evaluation.data.num_problems == 5
    assert evaluation.data.content_hash == dataset.content_hash
    assert evaluation.data.seed == 3
    assert evaluation.data.distribution["num_cells"] == 3
    assert evaluation.data.distribution["num_nodes"] == [6, 8]
    assert (evaluation.seed, evaluation.rtol) == (1, 1e-6)
    assert evaluation.torch_version == torch.__version__


def test_a_solve_that_failed_counts_as_the_limit_and_is_named(dataset):
    class Broken(learning.Identity):
        """Returns NaN for the second system of a batch."""

        def setup(self, systems, batch):  # noqa: ARG002
            factor = torch.ones(len(systems), 1, dtype=torch.float64)
            factor[1] = torch.nan
            return lambda r: factor * r

    good, broken = learning.Identity(), Broken()
    few = evaluate({"none": good}, dataset, max_iterations=3, families=["random"], **QUIET)
    assert set(few.measurements["random"]["none"].failures.values()) == {"MAX_ITERATIONS"}
    assert few.measurements["random"]["none"].mean == 3
    bad = evaluate({"x": broken}, dataset, families=["random"], **QUIET).measurements["random"]["x"]
    assert bad.failures == {1: "NOT_FINITE"}
    assert bad.iterations[1] == bad.max == 250
    assert np.isfinite(bad.mean_log10_residuals).all()


def test_residual_curves_fall_from_one_to_the_tolerance(evaluation):
    for by_name in evaluation.measurements.values():
        for measurement in by_name.values():
            curve = measurement.mean_log10_residuals
            assert len(curve) == measurement.max + 1
            assert curve[0] == 0
            assert (np.diff(curve) <= 1e-12).all()
            assert curve[-1] <= -6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_problems": 0}, "wanted at least one"),
        ({"families": ["smooth"]}, r"right-hand sides \('smooth',\); wanted some of"),
        ({"families": []}, "wanted some of"),
        ({"batch_size": 0}, "got batch_size=0 and 1 preconditioners; wanted at least one"),
    ],
    ids=["no problems", "unknown family", "no family", "no batch"],
)
def test_what_cannot_be_evaluated_is_an_error(change, message, dataset):
    with pytest.raises(ValueError, match=message):
        evaluate({"none": learning.Identity()}, dataset, **change, **QUIET)


# --- Sines ------------------------------------------------------------------------------------


def test_sines_are_those_of_the_loss(preconditioners, dataset):
    preconditioner = preconditioners["jacobi"]
    profile = sine_profile(preconditioner, dataset, window=4, seed=1, batch_size=2, **QUIET)
    assert profile.sines.shape == (5, 12)
    systems = [problem.reduced for problem in dataset]
    batch = learning.batch_systems(systems)
    precondition = preconditioner.setup(systems, batch)
    loss = learning.sine_loss(batch, batch.g, precondition, num_steps=4)
    assert profile.mean_sine == pytest.approx(float(loss), rel=1e-9)
    log_sine = learning.log_sine_loss(batch, batch.g, precondition, num_steps=4)
    assert profile.mean_log_residuals[4] == pytest.approx(4 * float(log_sine), rel=1e-9)


def test_systems_without_residual_leave_the_means_alone(dataset):
    """A preconditioner that solves all but one system exactly."""

    class Exact:
        def setup(self, systems, batch):  # noqa: ARG002
            eye = torch.eye(batch.g.shape[1], dtype=torch.float64)
            columns = [batch.apply(e.expand_as(batch.g)) for e in eye]
            inverse = torch.linalg.inv(torch.stack(columns, dim=2))
            inverse[0] = eye
            return lambda r: torch.einsum("bij,bj->bi", inverse, r)

    exact = sine_profile(Exact(), dataset, window=5, num_steps=8, **QUIET)
    plain = sine_profile(learning.Identity(), dataset[:1], window=5, num_steps=8, **QUIET)
    assert (exact.sines[1:, 0] < 1e-10).all()
    assert np.isnan(exact.sines[1:, 1:]).all()
    np.testing.assert_allclose(exact.mean_sines[1:], plain.sines[0, 1:], rtol=1e-9)
    known = exact.sines[np.isfinite(exact.sines)]
    assert np.isfinite(exact.sines[:, :5]).sum() == 4 + 5
    assert exact.mean_sine == pytest.approx(
        (plain.sines[0, :5].sum() + exact.sines[1:, 0].sum()) / 9, rel=1e-9
    )
    assert known.max() <= 1


def test_a_window_has_to_fit_into_the_steps(dataset):
    with pytest.raises(ValueError, match="got a window of 5 in 4 steps"):
        sine_profile(learning.Identity(), dataset, window=5, num_steps=4, **QUIET)


# --- What follows from them -------------------------------------------------------------------


def planted(sines, window=10):
    return SineProfile(DataSummary(len(sines)), "canonical", 0, window, np.array(sines))


def test_fits_recover_a_planted_line():
    k = np.arange(1, 31)
    scatter = np.array([[0.05], [-0.05]])  # of two systems around the line
    beyond = np.where(k > 10, 0.3, 0.0)  # outside the window
    profile = planted(0.004 * k + 0.3 + scatter + beyond)
    assert profile.sine_fit.slope == pytest.approx(0.004, abs=1e-12)
    assert profile.sine_fit.intercept == pytest.approx(0.3, abs=1e-12)
    assert profile.convergence_estimate == pytest.approx(0.3**10, rel=1e-9)
    assert profile.mean_sine == pytest.approx(0.3 + 0.004 * 5.5, abs=1e-12)
    np.testing.assert_allclose(profile.mean_sines, 0.004 * k + 0.3 + beyond)


def test_fits_recover_a_planted_exponential():
    sines = np.where(np.arange(1, 31) > 10, 0.9, np.exp(-1.134))
    profile = planted([sines, sines])
    assert profile.residual_fit.slope == pytest.approx(-1.134, abs=1e-12)
    assert profile.residual_fit.intercept == pytest.approx(0.0, abs=1e-12)
    assert len(profile.mean_log_residuals) == 31


@pytest.mark.parametrize(
    ("y", "slope", "intercept"),
    [
        ([1.0, 3.0, 5.0], 2.0, 1.0),
        ([1.0, np.nan, 5.0], 2.0, 1.0),
        ([1.0, np.nan, np.nan], np.nan, np.nan),
    ],
    ids=["all known", "one unknown", "a single point"],
)
def test_lines_are_fitted_to_what_is_known(y, slope, intercept):
    fit = fit_line(np.arange(3), np.array(y))
    np.testing.assert_allclose([fit.slope, fit.intercept], [slope, intercept], atol=1e-12)


# --- By epoch ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(unet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for epoch in (0, 1, 12):
        save_weights(unet, folder / "epochs" / f"{epoch:04d}.safetensors")
    return folder


def test_epochs_are_those_of_the_weights(run_folder, evaluation, dataset):
    epochs = evaluate_epochs(run_folder, dataset, num_problems=3, window=4, seed=1, **QUIET)
    assert [result.epoch for result in epochs] == [0, 1, 12]
    wanted = evaluation.measurements["canonical"]["static"].iterations[:3]
    for result in epochs:
        np.testing.assert_array_equal(result.measurement.iterations, wanted)
        assert result.profile.sines.shape == (3, 4)
    (one,) = evaluate_epochs(run_folder, dataset, epochs=[12], num_problems=1, **QUIET)
    assert one.epoch == 12


def test_missing_epochs_are_an_error(run_folder, dataset, tmp_path):
    with pytest.raises(ValueError, match=r"got epochs \[3\] of .* which holds \[0, 1, 12\]"):
        evaluate_epochs(run_folder, dataset, epochs=[3], **QUIET)
    with pytest.raises(ValueError, match="Pass the folder of a training run"):
        evaluate_epochs(tmp_path, dataset, **QUIET)


# --- The file ---------------------------------------------------------------------------------


def assert_equal(got, wanted):
    """Compare results down to their numbers, of which a file keeps six digits."""
    if dataclasses.is_dataclass(wanted):
        for field in dataclasses.fields(wanted):
            assert_equal(getattr(got, field.name), getattr(wanted, field.name))
    elif isinstance(wanted, dict):
        assert list(got) == list(wanted)
        for key in wanted:
            assert_equal(got[key], wanted[key])
    elif isinstance(wanted, tuple):
        assert len(got) == len(wanted)
        for pair in zip(got, wanted, strict=True):
            assert_equal(*pair)
    elif isinstance(wanted, float | np.ndarray):
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        assert np.asarray(got).dtype == np.asarray(wanted).dtype
    else:
        assert got == wanted


def test_results_come_back_from_their_file(evaluation, run_folder, dataset, tmp_path):
    few = evaluate({"none": learning.Identity()}, dataset, max_iterations=3, **QUIET)
    results = Results(
        command="python -m learning evaluate",
        weights={"static": "0123"},
        evaluations={"tiny": evaluation, "unsolved": few},
        profiles={"canonical": {"none": planted([[0.5, np.nan], [0.25, 0.125]], window=2)}},
        epochs=evaluate_epochs(run_folder, dataset, epochs=[1], num_problems=2, **QUIET),
    )
    path = tmp_path / "folder" / "results.json"
    save_results(results, path)
    assert_equal(load_results(path), results)
    assert "NaN" not in path.read_text()
    save_results(load_results(path), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == path.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "holds no results"),
        ("[]", "holds no results"),
        ('{"format": 99}', "has format 99"),
        ('{"format": 1}', "holds no results .'command'.; wanted"),
    ],
    ids=["no JSON", "no results", "another version", "incomplete"],
)
def test_other_files_are_an_error(content, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_results(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no file; wanted one that"):
        load_results(tmp_path / "results.json")


def test_the_file_is_plain_json(evaluation, tmp_path):
    save_results(Results("", evaluations={"tiny": evaluation}), tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    iterations = content["evaluations"]["tiny"]["measurements"]["random"]["none"]["iterations"]
    assert iterations == evaluation.measurements["random"]["none"].iterations.tolist()

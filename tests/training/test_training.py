"""Training: it lowers iterations, with every architecture, and errors name the sample."""

import dataclasses

import numpy as np
import pytest
import torch

import learning
from learning.preconditioners.architectures import ARCHITECTURES
from learning.problems.data import right_hand_side
from learning.problems.distributions import DISTRIBUTIONS
from learning.problems.generation import generate
from learning.training import samples
from learning.training.loop import train
from learning.training.stages import Stage
from learning.training.weights import load_weights


def test_validation_loss_is_that_of_the_last_problems(history, static_stage, static, dataset):
    model = load_weights(static.path / "last.safetensors").model
    losses = []
    for i in (8, 9):
        systems = [dataset[i].reduced]
        batch = learning.batch_systems(systems)
        for k, family in enumerate(static_stage.families):
            seed = [samples.RIGHT_HAND_SIDES, static_stage.seed, samples.VALIDATION, i, k]
            f = right_hand_side(dataset[i], family, np.random.default_rng(seed))
            precondition = learning.UNetPreconditioner(model).setup(systems, batch)
            losses.append(learning.residual_loss(batch, torch.tensor(f)[None], precondition).item())
    assert history(static.path)[-1]["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("loss", ["sine", "log_sine", "hybrid"])
def test_dynamic_training_lowers_iterations(history, dataset, tmp_path, loss):
    """From random weights, on the tiny problems, for a few seconds."""
    stage = Stage(
        loss=loss,
        num_problems=8,
        num_validation=2,
        families=("canonical", "random"),
        num_epochs=5,
        batch_size=8,
        learning_rate=2e-3,
        num_steps=4,
    )
    run = train(stage, dataset, tmp_path, progress=False)
    problem = dataset[9]

    def iterations(epoch):
        model = load_weights(tmp_path / f"epochs/{epoch:04d}.safetensors").model
        return learning.solve(problem.reduced, learning.UNetPreconditioner(model)).iterations

    rows = history(run.path)
    assert rows[-1]["training_loss"] < rows[0]["training_loss"]
    assert iterations(5) < iterations(0)


@pytest.mark.parametrize("change", ["checkpoint", "mixed_precision"])
def test_checkpointing_and_mixed_precision_train_alike(history, tmp_path, change):
    small = dataclasses.replace(DISTRIBUTIONS["paper"], num_cells=8, num_nodes=(6, 8))
    dataset = generate(small, 3, seed=3, path=tmp_path / "8.h5", processes=1, progress=False)
    plain = Stage("sine", 2, 1, ("random",), num_epochs=1, batch_size=2, num_steps=2)
    changed = dataclasses.replace(plain, **{change: True})
    losses = [
        history(train(stage, dataset, tmp_path / str(i), progress=False).path)[0]["training_loss"]
        for i, stage in enumerate((plain, changed))
    ]
    tolerance = 1e-6 if change == "checkpoint" else 0.01
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    assert (losses[1] == losses[0]) == (change == "checkpoint")


def test_grids_too_small_for_mixed_precision_are_refused(static_stage, dataset, tmp_path):
    stage = dataclasses.replace(static_stage, mixed_precision=True)
    with pytest.raises(ValueError, match="grids of 5 cells per side; wanted at least 8"):
        train(stage, dataset, tmp_path, progress=False)


def test_starts_from_given_weights(assert_same_weights, static_stage, static, dataset, tmp_path):
    stage = dataclasses.replace(static_stage, num_epochs=1)
    train(stage, dataset, tmp_path, start=static.best, progress=False)
    assert_same_weights(tmp_path / "epochs/0000.safetensors", static.best)


@pytest.mark.parametrize("loss", ["residual", "log_sine", "energy"])
def test_another_architecture_trains(
    assert_same_weights, history, linear_stage, dataset, tmp_path, loss
):
    stage = dataclasses.replace(linear_stage, loss=loss)
    run = train(stage, dataset, tmp_path / "run", progress=False)
    rows = history(run.path)
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]

    preconditioner = learning.load_preconditioner(run.path / "last.safetensors")
    assert isinstance(preconditioner, ARCHITECTURES["tilted"].preconditioner)
    first, *_, last = learning.evaluate_epochs(run.path, dataset, num_problems=2, progress=False)
    assert last.profile.mean_sine < first.profile.mean_sine
    again = train(
        stage, dataset, tmp_path / "again", start=run.path / "last.safetensors", progress=False
    )
    assert_same_weights(again.path / "epochs/0000.safetensors", run.path / "last.safetensors")


def test_weights_of_another_architecture_are_no_start(
    static_stage, tilted, static, dataset, tmp_path
):
    stage = dataclasses.replace(static_stage, architecture=tilted)
    with pytest.raises(ValueError, match="got weights of architecture 'unet' to start from; want"):
        train(stage, dataset, tmp_path, start=static.best, progress=False)


def test_a_loss_that_is_not_finite_names_its_sample(static_stage, dataset, tmp_path, monkeypatch):
    def spoiled(problem, family, rng):
        f = right_hand_side(problem, family, rng)
        return 1e200 * f if problem is dataset[4] and family == "random" else f

    def overflowing(batch, f, precondition):
        return learning.residual_loss(batch, f, precondition) * f.square().sum() ** 2

    monkeypatch.setattr(samples, "right_hand_side", spoiled)
    monkeypatch.setattr(samples, "residual_loss", overflowing)
    message = "epoch 1, from problem 4 of tiny.h5 with its random right-hand side; wanted"
    with pytest.raises(FloatingPointError, match=message):
        train(static_stage, dataset, tmp_path, progress=False)
    assert (tmp_path / "epochs/0000.safetensors").exists()


@pytest.mark.usefixtures("tilted")
@pytest.mark.parametrize("architecture", ["unet", "tilted"])
def test_a_validation_loss_that_is_not_finite_names_its_sample(
    static_stage, dataset, tmp_path, monkeypatch, architecture
):
    stage = dataclasses.replace(static_stage, architecture=architecture)

    def spoiled(problem, family, rng):
        f = right_hand_side(problem, family, rng)
        return np.nan * f if problem is dataset[9] else f

    monkeypatch.setattr(samples, "right_hand_side", spoiled)
    with pytest.raises(FloatingPointError, match=r"after epoch 1, from problem 9 of tiny\.h5"):
        train(stage, dataset, tmp_path, progress=False)


def test_too_few_problems_are_refused(static_stage, dataset, tmp_path):
    with pytest.raises(ValueError, match=r"10 problems, .*; wanted 9 to train on and 2"):
        train(dataclasses.replace(static_stage, num_problems=9), dataset, tmp_path, progress=False)

"""Training on several data sets: batches take turns, validation is over all of them."""

import dataclasses

import numpy as np
import pytest
import torch

import learning
from learning.training import loop
from learning.training.loop import train
from learning.training.samples import Sample, Samples


@pytest.fixture
def batches(monkeypatch):
    """Record the samples of every batch of training, in order."""
    recorded, step = [], loop._Trainer._step

    def recording(trainer, samples, *args):
        recorded.append([*samples])
        return step(trainer, samples, *args)

    monkeypatch.setattr(loop._Trainer, "_step", recording)
    return recorded


def test_batches_of_several_data_sets_take_turns(linear_stage, dataset, larger, tmp_path, batches):
    stage = dataclasses.replace(linear_stage, num_epochs=2, batch_size=2)
    run = train(stage, [dataset, larger], tmp_path, progress=False)
    assert len(batches) == 2 * 2 * 6
    epochs = batches[:12], batches[12:]
    for epoch in epochs:
        samples = [sample for batch in epoch for sample in batch]
        assert sorted(samples) == [(d, i, k) for d in (0, 1) for i in range(6) for k in (0, 1)]
        assert all(len({d for d, _, _ in batch}) == 1 for batch in epoch)
        turns = [batch[0].data_set for batch in epoch]
        assert turns != sorted(turns)
        assert turns != sorted(turns, reverse=True)
    assert epochs[0] != epochs[1]
    hashes = [data_set["content_hash"] for data_set in run.configuration["data_sets"]]
    assert hashes == [dataset.content_hash, larger.content_hash]


def test_validation_loss_is_the_mean_over_the_last_problems_of_each_data_set(
    history, linear_stage, dataset, larger, tmp_path
):
    stage = dataclasses.replace(linear_stage, families=("canonical",), num_epochs=1)
    run = train(stage, [dataset, larger], tmp_path, progress=False)
    preconditioner = learning.load_preconditioner(run.path / "last.safetensors")
    losses = []
    for problem in (*dataset[-2:], *larger[-2:]):
        systems = [problem.reduced]
        batch = learning.batch_systems(systems)
        f = batch.g / batch.g.norm()
        with torch.no_grad():
            precondition = preconditioner.setup(systems, batch)
            losses.append(learning.residual_loss(batch, f, precondition).item())
    assert history(run.path)[-1]["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_no_two_problems_share_their_random_right_hand_sides(linear_stage, dataset):
    every = Samples(linear_stage, (dataset, dataset), None)
    samples = [Sample(d, i, k) for d in (0, 1) for i in range(10) for k in (0, 1)]
    drawn = {every._rng(sample, epoch).random() for sample in samples for epoch in (0, 1)}
    assert len(drawn) == 2 * len(samples)


@pytest.mark.parametrize("calls", [1, 4, 11])
def test_a_killed_run_on_several_data_sets_ends_as_one_that_was_not(
    assert_same_weights, history, linear_stage, dataset, larger, tmp_path, monkeypatch, calls
):
    """An epoch has six batches, three of each."""
    stage = dataclasses.replace(linear_stage, num_epochs=2)
    whole = train(stage, [dataset, larger], tmp_path / "whole", progress=False)
    step, left = loop._Trainer._step, [calls]

    def step_or_die(*args):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return step(*args)

    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Trainer, "_step", step_or_die)
        with pytest.raises(KeyboardInterrupt):
            train(stage, [dataset, larger], tmp_path / "killed", progress=False)
    train(stage, [dataset, larger], tmp_path / "killed", progress=False)
    assert history(tmp_path / "killed") == history(whole.path)
    assert_same_weights(tmp_path / "killed" / "last.safetensors", whole.path / "last.safetensors")


def test_other_data_sets_are_another_run(static_stage, static, dataset, larger):
    with pytest.raises(ValueError, match="holds another run: data_sets = "):
        train(static_stage, [dataset, larger], static.path, progress=False)


def test_at_least_one_data_set_is_wanted(static_stage, tmp_path):
    with pytest.raises(ValueError, match="got no data set; wanted at least one"):
        train(static_stage, [], tmp_path, progress=False)

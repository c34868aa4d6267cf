"""The folder of a run: what it holds, and that a killed run ends as one that was not."""

import dataclasses
import sys

import pytest

from learning.training import loop, runs
from learning.training.loop import train


def test_a_run_leaves_weights_history_and_configuration(
    assert_same_weights, history, static_stage, static, dataset
):
    files = {str(file.relative_to(static.path)) for file in static.path.rglob("*.*")}
    assert files == {
        "configuration.json",
        "history.csv",
        "best.safetensors",
        "last.safetensors",
        "state.pt",
        *(f"epochs/{epoch:04d}.safetensors" for epoch in (0, 1, 2)),
    }
    rows = history(static.path)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[-1]["learning_rate"] < 0.1 * static_stage.learning_rate
    best = min(rows, key=lambda row: row["validation_loss"])["epoch"]
    assert_same_weights(static.best, static.path / "epochs" / f"{best:04.0f}.safetensors")
    assert_same_weights(static.path / "last.safetensors", static.path / "epochs/0002.safetensors")
    [data_set] = static.configuration["data_sets"]
    assert data_set["content_hash"] == dataset.content_hash
    assert data_set["seed"] == 3


@pytest.mark.parametrize("state_seconds", [0.0, float("inf")])
@pytest.mark.parametrize(
    ("place", "calls"),
    [("_step", 0), ("_step", 2), ("_validate", 0), ("save", 1), ("_step", 4), ("_validate", 1)],
)
def test_a_killed_run_ends_as_one_that_was_not(
    assert_same_weights,
    history,
    static_stage,
    static,
    dataset,
    tmp_path,
    monkeypatch,
    place,
    calls,
    state_seconds,
):
    """An epoch has three batches. Kill before a batch, its validation, or its state is written."""
    owner = runs.RunFolder if place == "save" else loop._Trainer
    method, left = getattr(owner, place), [calls]

    def call_or_die(*args):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return method(*args)

    monkeypatch.setattr(loop, "STATE_SECONDS", state_seconds)
    with monkeypatch.context() as patch:
        patch.setattr(owner, place, call_or_die)
        with pytest.raises(KeyboardInterrupt):
            train(static_stage, dataset, tmp_path, progress=False)
    train(static_stage, dataset, tmp_path, progress=False)
    assert history(tmp_path) == history(static.path)
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_weights(tmp_path / name, static.path / name)


def test_a_finished_run_is_not_repeated_and_said_to_be_finished(
    static_stage, static, dataset, monkeypatch, capsys
):
    monkeypatch.setattr(loop._Trainer, "run_epoch", None)
    before = (static.path / "last.safetensors").stat().st_mtime_ns
    train(static_stage, dataset, static.path, progress=False)
    assert capsys.readouterr().err == ""
    train(static_stage, dataset, static.path)
    assert capsys.readouterr().err == f"{static.path}: all 2 epochs are finished\n"
    assert (static.path / "last.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (True, True), (False, False)])
def test_a_bar_is_shown_on_terminals_or_where_asked_for(
    static_stage, dataset, tmp_path, capsys, progress, shown
):
    """Under pytest stderr is no terminal."""
    stage = dataclasses.replace(static_stage, num_epochs=1, num_problems=1, num_validation=1)
    train(stage, dataset, tmp_path, progress=progress)
    assert ("1/1" in capsys.readouterr().err) == shown


@pytest.mark.parametrize(("num_epochs", "kept"), [(2, 3), (30, 31), (31, 17), (250, 29)])
def test_weights_of_some_epochs_are_kept_the_first_and_last_among_them(
    static_stage, dataset, tmp_path, monkeypatch, num_epochs, kept
):
    def one_epoch(self, _):
        self.state.epoch += 1
        self.state.history.append(dict.fromkeys(runs.COLUMNS, float(self.state.epoch)))
        return True

    monkeypatch.setattr(loop._Trainer, "run_epoch", one_epoch)
    monkeypatch.setattr(runs.RunFolder, "save", lambda *_: None)
    monkeypatch.setattr(runs, "save_weights", lambda *args: written.append(args[1]))
    written = []
    train(
        dataclasses.replace(static_stage, num_epochs=num_epochs), dataset, tmp_path, progress=False
    )
    epochs = [int(file.stem) for file in written if file.parent.name == "epochs"]
    assert (epochs[0], epochs[-1], len(epochs)) == (0, num_epochs, kept)


def test_curves_for_tensorboard_want_the_package(static_stage, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        train(static_stage, dataset, tmp_path, tensorboard=True, progress=False)


def test_curves_for_tensorboard(static_stage, dataset, tmp_path):
    pytest.importorskip("tensorboard")
    stage = dataclasses.replace(static_stage, num_epochs=1, num_problems=1, num_validation=1)
    train(stage, dataset, tmp_path, tensorboard=True, progress=False)
    assert [file.stat().st_size > 100 for file in (tmp_path / "tensorboard").iterdir()] == [True]


def test_another_run_in_the_folder_is_kept(static_stage, static, dataset):
    other = dataclasses.replace(static_stage, learning_rate=0.5, seed=9)
    with pytest.raises(ValueError, match=r"rate = 0.001 there, 0.5 here, seed = 0 there, 9"):
        train(other, dataset, static.path, progress=False)


def test_a_file_in_place_of_the_folder_is_refused(static_stage, dataset, data_file):
    with pytest.raises(ValueError, match=r"got the file .*tiny.h5 as run folder; wanted a folder"):
        train(static_stage, dataset, data_file, progress=False)

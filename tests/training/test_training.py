"""Training: it learns, a killed run ends as one that was not, several processes as one."""

import csv
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import learning
from learning.preconditioners.architectures import ARCHITECTURES, Architecture
from learning.problems.data import right_hand_side
from learning.problems.distributions import DISTRIBUTIONS
from learning.problems.generation import generate
from learning.training import loop, runs
from learning.training.loop import train
from learning.training.processes import check_agreement
from learning.training.stages import STAGES, Stage
from learning.training.weights import load_weights

STATIC = Stage(
    loss="residual",
    num_problems=6,
    num_validation=2,
    families=("canonical", "random"),
    num_epochs=2,
    batch_size=5,
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.h5"
    tiny = dataclasses.replace(DISTRIBUTIONS["paper"], num_cells=5, num_nodes=(6, 8))
    generate(tiny, 10, seed=3, path=path, processes=1, progress=False)
    return path


@pytest.fixture(scope="module")
def dataset(data_file):
    return learning.load_dataset(data_file)


@pytest.fixture(scope="module")
def static(dataset, tmp_path_factory):
    """A whole static stage."""
    return train(STATIC, dataset, tmp_path_factory.mktemp("run"), progress=False)


def tensors(file):
    return load_weights(file).model.state_dict()


def assert_same_weights(got, wanted):
    for name, tensor in tensors(wanted).items():
        torch.testing.assert_close(tensors(got)[name], tensor, rtol=0, atol=0)


def history(folder):
    """Return the rows of history.csv, times left out."""
    with (folder / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [*rows[0]] == [*runs.COLUMNS]
    return [{name: float(row[name]) for name in runs.COLUMNS[:-1]} for row in rows]


def test_a_run_leaves_weights_history_and_configuration(static, dataset):
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
    assert rows[-1]["learning_rate"] < 0.1 * STATIC.learning_rate
    best = min(rows, key=lambda row: row["validation_loss"])["epoch"]
    assert_same_weights(static.best, static.path / "epochs" / f"{best:04.0f}.safetensors")
    assert_same_weights(static.path / "last.safetensors", static.path / "epochs/0002.safetensors")
    [data_set] = static.configuration["data_sets"]
    assert data_set["content_hash"] == dataset.content_hash
    assert data_set["seed"] == 3


def test_validation_loss_is_that_of_the_last_problems(static, dataset):
    model = load_weights(static.path / "last.safetensors").model
    losses = []
    for i in (8, 9):
        systems = [dataset[i].reduced]
        batch = learning.batch_systems(systems)
        for k, family in enumerate(STATIC.families):
            seed = [loop.RIGHT_HAND_SIDES, STATIC.seed, loop.VALIDATION, i, k]
            f = right_hand_side(dataset[i], family, np.random.default_rng(seed))
            precondition = learning.UNetPreconditioner(model).setup(systems, batch)
            losses.append(learning.residual_loss(batch, torch.tensor(f)[None], precondition).item())
    assert history(static.path)[-1]["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("state_seconds", [0.0, float("inf")])
@pytest.mark.parametrize(
    ("place", "calls"),
    [("_step", 0), ("_step", 2), ("_validate", 0), ("save", 1), ("_step", 4), ("_validate", 1)],
)
def test_a_killed_run_ends_as_one_that_was_not(
    static, dataset, tmp_path, monkeypatch, place, calls, state_seconds
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
            train(STATIC, dataset, tmp_path, progress=False)
    train(STATIC, dataset, tmp_path, progress=False)
    assert history(tmp_path) == history(static.path)
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_weights(tmp_path / name, static.path / name)


def test_a_finished_run_is_not_repeated_and_said_to_be_finished(
    static, dataset, monkeypatch, capsys
):
    monkeypatch.setattr(loop._Trainer, "run_epoch", None)
    before = (static.path / "last.safetensors").stat().st_mtime_ns
    train(STATIC, dataset, static.path, progress=False)
    assert capsys.readouterr().err == ""
    train(STATIC, dataset, static.path)
    assert capsys.readouterr().err == f"{static.path}: all 2 epochs are finished\n"
    assert (static.path / "last.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (True, True), (False, False)])
def test_a_bar_is_shown_on_terminals_or_where_asked_for(dataset, tmp_path, capsys, progress, shown):
    """Under pytest stderr is no terminal."""
    stage = dataclasses.replace(STATIC, num_epochs=1, num_problems=1, num_validation=1)
    train(stage, dataset, tmp_path, progress=progress)
    assert ("1/1" in capsys.readouterr().err) == shown


@pytest.mark.parametrize("loss", ["sine", "log_sine", "hybrid"])
def test_dynamic_training_lowers_iterations(dataset, tmp_path, loss):
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
def test_checkpointing_and_mixed_precision_train_alike(tmp_path, change):
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


def test_grids_too_small_for_mixed_precision_are_refused(dataset, tmp_path):
    stage = dataclasses.replace(STATIC, mixed_precision=True)
    with pytest.raises(ValueError, match="grids of 5 cells a side; wanted at least 8"):
        train(stage, dataset, tmp_path, progress=False)


def test_starts_from_given_weights(static, dataset, tmp_path):
    stage = dataclasses.replace(STATIC, num_epochs=1)
    train(stage, dataset, tmp_path, start=static.best, progress=False)
    assert_same_weights(tmp_path / "epochs/0000.safetensors", static.best)


# --- Another architecture ---------------------------------------------------------------------


class Tilt(torch.nn.Module):
    """How much more the last entries of a vector count than the first; best not at all."""

    def __init__(self):
        super().__init__()
        self.tilt = torch.nn.Parameter(torch.ones(1))
        self.idle = torch.nn.Parameter(torch.ones(3))  # as of a level that small grids lack


class TiltedJacobi:
    is_linear = is_symmetric = True

    def __init__(self, model):
        self.model = model

    def setup(self, systems, batch):
        jacobi = learning.Jacobi().setup(systems, batch)
        position = torch.linspace(-2.0, 2.0, batch.g.shape[1], dtype=torch.float64)
        return lambda r: (self.model.tilt.double() * position).exp() * jacobi(r)


LINEAR = dataclasses.replace(STATIC, num_epochs=3, learning_rate=0.2, num_steps=4)


@pytest.fixture
def tilted(monkeypatch):
    """Register a linear symmetric architecture."""
    monkeypatch.setitem(ARCHITECTURES, "tilted", Architecture(Tilt, TiltedJacobi))
    return "tilted"


@pytest.mark.parametrize("loss", ["residual", "log_sine", "energy"])
def test_another_architecture_trains(tilted, dataset, tmp_path, loss):
    stage = dataclasses.replace(LINEAR, loss=loss, architecture=tilted)
    run = train(stage, dataset, tmp_path / "run", progress=False)
    rows = history(run.path)
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]

    preconditioner = learning.load_preconditioner(run.path / "last.safetensors")
    assert isinstance(preconditioner, TiltedJacobi)
    first, *_, last = learning.evaluate_epochs(run.path, dataset, num_problems=2, progress=False)
    assert last.profile.mean_sine < first.profile.mean_sine
    again = train(
        stage, dataset, tmp_path / "again", start=run.path / "last.safetensors", progress=False
    )
    assert_same_weights(again.path / "epochs/0000.safetensors", run.path / "last.safetensors")


def test_weights_of_another_architecture_are_no_start(tilted, static, dataset, tmp_path):
    stage = dataclasses.replace(STATIC, architecture=tilted)
    with pytest.raises(ValueError, match="got weights of architecture 'unet' to start from; want"):
        train(stage, dataset, tmp_path, start=static.best, progress=False)


def test_mixed_precision_is_for_architectures_that_have_it(tilted):
    with pytest.raises(ValueError, match="mixed_precision=True with architecture='tilted', whi"):
        dataclasses.replace(STATIC, architecture=tilted, mixed_precision=True)


# --- Several data sets ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """Problems on another grid, fewer than those of `dataset`."""
    larger = dataclasses.replace(DISTRIBUTIONS["paper"], num_cells=6, num_nodes=(6, 8))
    path = tmp_path_factory.mktemp("data") / "larger.h5"
    return generate(larger, 8, seed=4, path=path, processes=1, progress=False)


@pytest.fixture
def batches(monkeypatch):
    """Record the samples of every batch of training, in order."""
    recorded, step = [], loop._Trainer._step

    def recording(trainer, samples, learning_rate):
        recorded.append([*samples])
        return step(trainer, samples, learning_rate)

    monkeypatch.setattr(loop._Trainer, "_step", recording)
    return recorded


def test_batches_of_several_data_sets_take_turns(tilted, dataset, larger, tmp_path, batches):
    stage = dataclasses.replace(LINEAR, architecture=tilted, num_epochs=2, batch_size=2)
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
    tilted, dataset, larger, tmp_path
):
    stage = dataclasses.replace(LINEAR, architecture=tilted, families=("canonical",), num_epochs=1)
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


def test_no_two_problems_share_their_random_right_hand_sides(tilted, dataset):
    stage = dataclasses.replace(LINEAR, architecture=tilted)
    trainer = loop._Trainer(stage, (dataset, dataset), None, None, 0, 1)
    samples = [loop.Sample(d, i, k) for d in (0, 1) for i in range(10) for k in (0, 1)]
    drawn = {trainer._rng(sample, epoch).random() for sample in samples for epoch in (0, 1)}
    assert len(drawn) == 2 * len(samples)


@pytest.mark.parametrize("calls", [1, 4, 11])
def test_a_killed_run_on_several_data_sets_ends_as_one_that_was_not(
    tilted, dataset, larger, tmp_path, monkeypatch, calls
):
    """An epoch has six batches, three of each."""
    stage = dataclasses.replace(LINEAR, architecture=tilted, num_epochs=2)
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


def test_other_data_sets_are_another_run(static, dataset, larger):
    with pytest.raises(ValueError, match="holds another run: data_sets = "):
        train(STATIC, [dataset, larger], static.path, progress=False)


def test_at_least_one_data_set_is_wanted(tmp_path):
    with pytest.raises(ValueError, match="got no data set; wanted at least one"):
        train(STATIC, [], tmp_path, progress=False)


# --- Several processes ------------------------------------------------------------------------


@pytest.mark.timeout(250)
@pytest.mark.parametrize("batch_size", [5, 1])
def test_two_processes_train_as_one(dataset, larger, tmp_path, batch_size):
    """On two data sets. With batches of one, the second process has only zeros to add."""
    data_sets = [dataset, larger]
    stage = dataclasses.replace(STATIC, batch_size=batch_size, num_problems=3, num_epochs=1)
    script = (
        "import sys; from learning import Stage, load_dataset, load_weights, train\n"
        "data_sets = [load_dataset(file) for file in sys.argv[2:]]\n"
        f"run = train({stage!r}, data_sets, sys.argv[1], progress=False)\n"
        "load_weights(run.best)  # as the next stage does, in each process\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, tmp_path / "script.py", tmp_path / "two", *(data.path for data in data_sets)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    one = train(stage, data_sets, tmp_path / "one", progress=False)
    for got, wanted in zip(history(tmp_path / "two"), history(one.path), strict=True):
        assert got == pytest.approx(wanted, rel=1e-4)
    for name, tensor in tensors(one.best).items():
        got = tensors(tmp_path / "two" / "best.safetensors")[name]
        torch.testing.assert_close(got, tensor, rtol=1e-3, atol=1e-4)


def test_processes_without_a_common_folder_are_refused(monkeypatch):
    def gather(states, own):
        states[:] = [own, (0, 0)]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    state = runs.TrainingState(None, None, epoch=1, batch=2)
    with pytest.raises(ValueError, match=r"got processes at .* \[\(1, 2\), \(0, 0\)\]; wanted all"):
        check_agreement(state, 2)


def test_curves_for_tensorboard_want_the_package(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        train(STATIC, dataset, tmp_path, tensorboard=True, progress=False)


def test_curves_for_tensorboard(dataset, tmp_path):
    pytest.importorskip("tensorboard")
    stage = dataclasses.replace(STATIC, num_epochs=1, num_problems=1, num_validation=1)
    train(stage, dataset, tmp_path, tensorboard=True, progress=False)
    assert [file.stat().st_size > 100 for file in (tmp_path / "tensorboard").iterdir()] == [True]


def test_a_loss_that_is_not_finite_names_its_sample(dataset, tmp_path, monkeypatch):
    def spoiled(problem, family, rng):
        f = right_hand_side(problem, family, rng)
        return 1e200 * f if problem is dataset[4] and family == "random" else f

    def overflowing(batch, f, precondition):
        return learning.residual_loss(batch, f, precondition) * f.square().sum() ** 2

    monkeypatch.setattr(loop, "right_hand_side", spoiled)
    monkeypatch.setattr(loop, "residual_loss", overflowing)
    message = "epoch 1, from problem 4 of tiny.h5 with its random right-hand side; wanted"
    with pytest.raises(FloatingPointError, match=message):
        train(STATIC, dataset, tmp_path, progress=False)
    assert (tmp_path / "epochs/0000.safetensors").exists()


@pytest.mark.parametrize("architecture", ["unet", "tilted"])
def test_a_validation_loss_that_is_not_finite_names_its_sample(
    tilted,  # noqa: ARG001
    dataset,
    tmp_path,
    monkeypatch,
    architecture,
):
    stage = dataclasses.replace(STATIC, architecture=architecture)

    def spoiled(problem, family, rng):
        f = right_hand_side(problem, family, rng)
        return np.nan * f if problem is dataset[9] else f

    monkeypatch.setattr(loop, "right_hand_side", spoiled)
    with pytest.raises(FloatingPointError, match=r"after epoch 1, from problem 9 of tiny\.h5"):
        train(stage, dataset, tmp_path, progress=False)


@pytest.mark.parametrize(("num_epochs", "kept"), [(2, 3), (30, 31), (31, 17), (250, 29)])
def test_weights_of_some_epochs_are_kept_the_first_and_last_among_them(
    dataset, tmp_path, monkeypatch, num_epochs, kept
):
    def one_epoch(self, _):
        self.state.epoch += 1
        self.state.history.append(dict.fromkeys(runs.COLUMNS, float(self.state.epoch)))

    monkeypatch.setattr(loop._Trainer, "run_epoch", one_epoch)
    monkeypatch.setattr(runs.RunFolder, "save", lambda *_: None)
    monkeypatch.setattr(runs, "save_weights", lambda *args: written.append(args[1]))
    written = []
    train(dataclasses.replace(STATIC, num_epochs=num_epochs), dataset, tmp_path, progress=False)
    epochs = [int(file.stem) for file in written if file.parent.name == "epochs"]
    assert (epochs[0], epochs[-1], len(epochs)) == (0, num_epochs, kept)


def test_another_run_in_the_folder_is_kept(static, dataset):
    other = dataclasses.replace(STATIC, learning_rate=0.5, seed=9)
    with pytest.raises(ValueError, match=r"rate = 0.001 there, 0.5 here, seed = 0 there, 9"):
        train(other, dataset, static.path, progress=False)


def test_a_file_in_place_of_the_folder_is_refused(dataset, data_file):
    with pytest.raises(ValueError, match=r"got the file .*tiny.h5 as run folder; wanted a folder"):
        train(STATIC, dataset, data_file, progress=False)


def test_too_few_problems_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"10 problems, .*; wanted 9 to train on and 2"):
        train(dataclasses.replace(STATIC, num_problems=9), dataset, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "error"}, "got loss='error'; wanted one of"),
        ({"loss": "energy"}, "loss='energy' with architecture='unet', .* wanted .*'log_sine'"),
        ({"architecture": "linear"}, r"got architecture='linear'; wanted one of \['unet'"),
        ({"families": ("canonical", "smooth")}, "smooth.*wanted some of"),
        ({"families": ()}, "wanted some of"),
        ({"batch_size": 0}, "got batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0.* wanted a positive"),
        ({"static_weight": 1.5}, "static_weight=1.5.* one from 0 to 1"),
        ({"seed": -1}, "seed=-1.* not negative"),
    ],
)
def test_wrong_stages_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(STATIC, **change)


def test_the_papers_stages_are_those_of_its_tables():
    static, dynamic = STAGES["paper-static"], STAGES["paper-dynamic"]
    assert static.num_problems * len(static.families) == 2400
    assert static.num_validation * len(static.families) == 600
    assert (static.batch_size, static.num_epochs) == (5, 250)
    assert (dynamic.num_problems, dynamic.num_validation) == (100, 20)
    assert (dynamic.batch_size, dynamic.num_epochs, dynamic.num_steps) == (20, 150, 10)

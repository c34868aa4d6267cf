"""The commands, and the whole study in small: from data to report, resumed where it stopped."""

import dataclasses
import json
import re

import pytest

import learning
from learning import reproduction
from learning.__main__ import main
from learning.evaluation.results import load_results
from learning.problems.distributions import DISTRIBUTIONS
from learning.training.stages import STAGES, Stage

TINY = dataclasses.replace(DISTRIBUTIONS["paper"], num_cells=4, num_nodes=(5, 6))
STATIC = Stage("residual", 2, 1, ("canonical", "random"), num_epochs=1, batch_size=2)
DYNAMIC = dataclasses.replace(STATIC, loss="sine", num_steps=2)


@pytest.fixture
def tiny_study(monkeypatch):
    outside = {"murray_tree": dataclasses.replace(TINY, generators=("murray_tree",))}
    outside["5 cells"] = dataclasses.replace(TINY, num_cells=5)
    monkeypatch.setattr(reproduction, "DISTRIBUTIONS", {"paper": TINY})
    monkeypatch.setattr(reproduction, "OUT_OF_DISTRIBUTION", outside)
    monkeypatch.setattr(reproduction, "STAGES", {"short-static": STATIC, "short-dynamic": DYNAMIC})
    for name, number in {"NUM_TRAINING": 3, "NUM_TEST": 2, "NUM_OUTSIDE": 1}.items():
        monkeypatch.setattr(reproduction, name, number)
    generate = reproduction.generate
    monkeypatch.setattr(
        reproduction,
        "generate",
        lambda *args, **options: generate(*args, **options | {"processes": 1, "progress": False}),
    )


@pytest.mark.usefixtures("tiny_study")
def test_one_command_goes_from_data_to_report(tmp_path, capsys, monkeypatch):
    main(["reproduce", "short", str(tmp_path)])
    assert capsys.readouterr().out == f"report: {tmp_path}/report/report.md\n"
    results = load_results(tmp_path / "evaluation.json")
    assert [*results.evaluations] == [reproduction.IN_DISTRIBUTION, "murray_tree", "5 cells"]
    first, tree, _ = (e.measurements["canonical"] for e in results.evaluations.values())
    assert [*first] == ["none", "jacobi", "multigrid", "static", "dynamic"]
    assert [*tree] == ["multigrid", "static", "dynamic"]
    assert [*results.profiles] == [*learning.FAMILIES]
    assert [epoch.epoch for epoch in results.epochs] == [0, 1]
    assert (
        results.weights["dynamic"]
        == learning.load_weights(tmp_path / "dynamic" / "best.safetensors").sha256
    )
    training = learning.load_dataset(tmp_path / "data" / "training.h5")
    test = learning.load_dataset(tmp_path / "data" / "test.h5")
    assert not {p.parameters["seed"] for p in training} & {p.parameters["seed"] for p in test}

    page = (tmp_path / "report" / "report.md").read_text()
    assert f"python -m learning reproduce short {tmp_path}" in page
    # What is finished is not done again.
    for name in ("evaluate", "sine_profile", "evaluate_epochs"):
        monkeypatch.setattr(reproduction, name, None)
    main(["reproduce", "short", str(tmp_path)])
    assert (tmp_path / "report" / "report.md").read_text() == page


@pytest.mark.usefixtures("tiny_study")
def test_an_interrupted_evaluation_goes_on(tmp_path, monkeypatch):
    data = reproduction.generate_test_sets(tmp_path)
    learning.save_weights(learning.UNet(), tmp_path / "unet.safetensors")
    weights = {"dynamic": tmp_path / "unet.safetensors"}
    evaluate, seen = reproduction.evaluate, []

    def evaluate_or_die(preconditioners, dataset, **options):
        seen.append(dataset.distribution)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return evaluate(preconditioners, dataset, **options)

    monkeypatch.setattr(reproduction, "evaluate", evaluate_or_die)
    with pytest.raises(KeyboardInterrupt):
        reproduction.evaluate_data_sets(tmp_path / "results.json", data, weights)
    results = reproduction.evaluate_data_sets(tmp_path / "results.json", data, weights)
    assert [*results.evaluations] == [*data]
    assert len(seen) == 1 + len(data)

    # Other data are measured anew, sines and all, in their order; the others are kept.
    first, *others = data.items()
    swapped = dict([others[0], first, *others[1:]])
    again = reproduction.evaluate_data_sets(tmp_path / "results.json", swapped, weights)
    assert [*again.evaluations] == [*swapped]
    assert len(seen) == 1 + len(data)
    profile = again.profiles["random"]["dynamic"]
    assert profile.data.content_hash == learning.load_dataset(others[0][1]).content_hash

    learning.save_weights(learning.UNet(), tmp_path / "unet.safetensors")
    with pytest.raises(ValueError, match="results of other weights; wanted"):
        reproduction.evaluate_data_sets(tmp_path / "results.json", data, weights)


def test_each_step_is_a_command(tmp_path, capsys):
    data, run, results = (tmp_path / name for name in ("data.h5", "run", "results.json"))
    small = "--num-cells 4 --num-problems 3 --seed 5 --processes 1"
    main(["generate", str(data), *small.split()])
    dataset = learning.load_dataset(data)
    assert dataset.content_hash in capsys.readouterr().out
    assert dataset.distribution == dataclasses.replace(DISTRIBUTIONS["paper"], num_cells=4)

    short = "--num-problems 2 --num-validation 1 --num-epochs 1 --families random --seed 7"
    main(["train", "paper-static", str(data), str(run), *short.split(), "--no-mixed-precision"])
    best = run / "best.safetensors"
    assert capsys.readouterr().out.strip().endswith(str(best))

    main(["evaluate", str(results), "--data", f"few={data}", "--weights", f"static={best}"])
    assert [*load_results(results).evaluations] == ["few"]
    main(["report", str(tmp_path / "report"), str(results), "--static", str(run)])
    page = (tmp_path / "report" / "report.md").read_text()
    assert f"\npython -m learning evaluate {results} --data few={data} --weights" in page
    [row] = re.findall(r"^\| static \| residual \|.*", page, flags=re.MULTILINE)
    assert row.endswith("| 0.4 |")  # where the paper's loss settles

    dynamic = tmp_path / "dynamic"
    start = ["--start", str(best), "--num-steps", "2", *short.split()]
    main(["train", "paper-dynamic", str(data), str(dynamic), *start])
    weights = f"dynamic={dynamic / 'best.safetensors'}"
    followed = tmp_path / "followed.json"
    options = ["--data", f"few={data}", "--weights", weights, "--run", str(dynamic)]
    main(["evaluate", str(followed), *options])
    assert [epoch.epoch for epoch in load_results(followed).epochs] == [0, 1]


def test_several_data_sets_are_given_between_stage_and_folder(tmp_path, capsys):
    files = [str(tmp_path / f"{n}.h5") for n in (3, 4)]
    for n, file in zip("34", files, strict=True):
        small = f"--num-cells {n} --num-problems 2 --seed {n} --processes 1"
        main(["generate", file, *small.split()])
    short = "--num-problems 1 --num-validation 1 --num-epochs 1 --families random --num-steps 1"
    command = ["train", "paper-dynamic", *files, str(tmp_path / "run"), *short.split()]
    main(command)
    warning = "warning: got paper-dynamic without --start, .* from those of paper-static. Give"
    assert re.search(warning, capsys.readouterr().err)
    training = json.loads((tmp_path / "run" / "configuration.json").read_text())
    assert [data_set["distribution"]["num_cells"] for data_set in training["data_sets"]] == [3, 4]
    main(command)
    assert f"{tmp_path}/run: all 1 epochs are finished" in capsys.readouterr().err


def test_help_for_training_explains_stages_and_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("paper-* are those of the paper", "num_epochs 250 150 5 5", "{unet", "log_sine"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "paper-static", "nowhere.h5", "run"], "error: .*nowhere.h5"),
        (["report", "page", "nowhere.json"], "error: .*nowhere.json"),
    ],
)
def test_errors_end_with_their_message(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(arguments)


def test_data_sets_need_names(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "r.json", "--data", "test.h5", "--weights", "a=b"])
    assert "got 'test.h5'; wanted a name and a file, NAME=FILE" in capsys.readouterr().err


def test_unknown_protocols_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"protocol='long'; wanted one of \['paper', 'short'\]"):
        reproduction.reproduce("long", tmp_path)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="got 2 processes; wanted one"):
        reproduction.reproduce("short", tmp_path)


def test_each_protocol_has_both_stages():
    for protocol in ("paper", "short"):
        assert STAGES[f"{protocol}-static"].loss == "residual"
        assert "sine" in STAGES[f"{protocol}-dynamic"].loss

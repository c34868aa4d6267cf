"""The report: numbers of its inputs in its tables, figures that show something, no empty part."""

import csv
import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from matplotlib.image import imread

from learning.evaluation.results import (
    DataSummary,
    EpochResult,
    Evaluation,
    Measurement,
    Results,
    SineProfile,
    save_results,
)
from learning.reporting import write_report
from learning.reporting.provenance import read_run, unseen

PAPER = {"generators": ["spanning_tree"], "num_nodes": [40, 40], "radius": [0.05, 0.05],
         "k_3d": [1.0, 1.0], "sigma_3d": [1.0, 1.0], "num_cells": 20}  # fmt: skip
DATA = DataSummary(4, "ab" * 32, 7, PAPER)
FIGURES = ["iterations", "convergence", "losses", "sines", "beyond_window", "epochs"]


def measurement(iterations, failures=()):
    iterations = np.array(iterations)
    curve = np.linspace(0, -6, iterations.max() + 1)
    return Measurement(iterations, dict.fromkeys(failures, "MAX_ITERATIONS"), curve, 0.125)


def evaluation(shift=0, failures=(), **changes):
    counts = {
        "none": [140, 150, 150, 160],
        "jacobi": [139, 150, 150, 161],
        "static": [20, 21, 22, 23],
        "dynamic": [8, 9, 9, 9],
    }
    measurements = {
        family: {
            name: measurement(np.array(n) + i + shift, failures if name == "dynamic" else ())
            for name, n in counts.items()
        }
        for i, family in enumerate(("canonical", "physical", "random"))
    }
    data = dataclasses.replace(DATA, distribution=PAPER | changes)
    return Evaluation(data, 1e-6, 250, 0, "2.11.0", "CPU (1 thread)", measurements)


def profile(slope, intercept, num_steps=30):
    """Sines on a line in the window of ten, higher beyond, without scatter."""
    k = np.arange(1, num_steps + 1)
    sines = slope * k + intercept + np.where(k > 10, 0.05, 0)
    return SineProfile(DATA, "canonical", 0, 10, np.tile(sines, (4, 1)))


def epoch(number):
    return EpochResult(
        number, profile(0.003, 0.5 - 0.1 * number, 10), measurement(np.array([20, 21]) - number)
    )


MAIN = Results(
    "learning evaluate main.json",
    {"static": "1f" * 32, "dynamic": "2e" * 32},
    {"paper": evaluation()},
    {"canonical": {"none": profile(0.001, 0.9), "static": profile(0.01, 0.49),
                   "dynamic": profile(0.004, 0.25)}},
    (epoch(0), epoch(1), epoch(3)),
)  # fmt: skip
OTHERS = Results(
    "learning evaluate others.json",
    evaluations={
        "thin": evaluation(5, radius=[0.0125, 0.0125]),
        "mixed": evaluation(9, (1, 2), generators=["murray_tree", "spanning_tree"], num_cells=32),
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the module's inputs and its report lie."""
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def main_file(folder):
    save_results(MAIN, folder / "main.json")
    return folder / "main.json"


def run_folder(folder, losses, **configuration):
    """A run whose validation losses are these, with training losses of 0.01 less."""
    folder.mkdir()
    columns = ["epoch", "training_loss", "validation_loss", "learning_rate", "seconds"]
    with (folder / "history.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows([i + 1, x - 0.01, x, 1e-3, 900.0] for i, x in enumerate(losses))
    if configuration:
        (folder / "configuration.json").write_text(json.dumps(configuration))
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    common = {"num_problems": 30, "num_validation": 6, "data": "cd" * 32, "data_seed": 0}
    return {
        "static_run": run_folder(folder / "s", [0.9, 0.5, 0.6, 0.55], loss="residual", **common),
        "dynamic_run": run_folder(folder / "d", [0.5, 0.35], loss="sine", **common),
    }


@pytest.fixture(scope="module")
def report(folder, main_file, runs):
    """A report of everything."""
    save_results(OTHERS, folder / "others.json")
    return write_report([main_file, folder / "others.json"], folder / "report", **runs)


def sections(path):
    """Return the text of each section by its title."""
    parts = re.split(r"^## (.*)\n", path.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def tables(text):
    """Return each table as a mapping from its first column to a mapping from header to cell."""
    found = []
    for is_table, lines in itertools.groupby(text.splitlines(), lambda line: line.startswith("|")):
        if is_table:
            header, _, *rows = ([c.strip() for c in line[1:-1].split("|")] for line in lines)
            assert all(len(row) == len(header) for row in rows)
            found.append({row[0]: dict(zip(header, row, strict=True)) for row in rows})
    return found


# --- Numbers ----------------------------------------------------------------------------------


def test_iterations_stand_beside_those_of_the_paper(report):
    (table,) = tables(sections(report)["Iterations"])
    assert table["U-Net, dynamic"]["canonical"] == "8.75 ± 0.43 (8–9)"
    assert table["U-Net, dynamic"]["random"] == "10.75 ± 0.43 (10–11)"
    assert table["U-Net, static"]["physical"] == "22.50 ± 1.12 (21–24)"
    got = {name: row["paper, canonical"] for name, row in table.items()}
    assert got == {
        "none": "147.5", "Jacobi": "–", "U-Net, static": "26.71", "U-Net, dynamic": "12.86",
    }  # fmt: skip
    assert table["none"]["seconds per system"] == "0.125"


def test_fits_stand_beside_those_of_the_paper(report):
    (table,) = tables(sections(report)["Sines and residuals"])
    row = table["U-Net, static"]
    assert (row["a"], row["b"], row["bᵐ"]) == ("0.0100", "0.490", f"{0.49**10:.1e}")
    assert row["mean sine"] == "0.545"
    residuals = np.append(0, np.cumsum(np.log(0.01 * np.arange(1, 11) + 0.49)))
    alpha, beta = np.polyfit(np.arange(11), residuals, 1)
    assert (row["α"], row["β"]) == (f"{alpha:.3f}", f"{beta:.3f}")
    assert table["paper, epoch 0"]["mean sine"] == "0.593"
    assert table["paper, epoch 150"]["α"] == "-1.134"


def test_epochs_are_rows(report):
    (table,) = tables(sections(report)["By epoch of the dynamic stage"])
    assert list(table) == ["0", "1", "3", "paper, epoch 0", "paper, epoch 150"]
    assert [table[e]["b"] for e in ("0", "1", "3")] == ["0.500", "0.400", "0.200"]
    assert table["3"]["iterations"] == "17.50 ± 0.50 (17–18)"
    assert table["paper, epoch 150"]["iterations"] == "12.86"


def test_losses_are_those_of_the_history(report):
    (table,) = tables(sections(report)["Training"])
    assert table["static"] == {
        "stage": "static", "loss": "residual", "training, last": "0.540",
        "validation, last": "0.550", "validation, lowest": "0.500", "epoch": "2 of 4",
        "paper, validation": "0.4",
    }  # fmt: skip
    assert table["dynamic"]["paper, validation"] == "0.3"


def test_the_protocol_says_what_differs_from_the_paper(report):
    protocol = sections(report)["Protocol"]
    (table,) = tables(protocol)
    assert table["training graphs"] == {
        "training": "training graphs", "static, paper": "480", "static, ours": "30",
        "dynamic, paper": "100", "dynamic, ours": "30",
    }  # fmt: skip
    assert table["epochs"]["static, ours"] == "4"
    assert table["hours"]["static, ours"] == "1"
    assert "radius 0.05, k_3d 1, sigma_3d 1, cells per side 20" in protocol
    assert "seed 7, content hash `abababababab`" in protocol
    assert "The training drew its graphs from another seed." in protocol
    assert "U-Net, dynamic `2e2e2e2e2e2e`" in protocol


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"data": "ab" * 32}, "not all of these are unseen"),
        ({"data": "cd" * 32, "data_seed": 7}, "not all of these are unseen"),
        ({"data": "cd" * 32, "data_seed": 8}, "from another seed"),
        ({"data": "cd" * 32}, None),
        ({"data_sets": [{"content_hash": "cd" * 32, "seed": s} for s in (8, 7)]}, "not all"),
        ({"data_sets": [{"content_hash": "cd" * 32, "seed": 8}]}, "from another seed"),
    ],
    ids=["the same file", "the same seed", "another seed", "an unknown seed", "several", "one"],
)
def test_graphs_that_were_trained_on_are_not_called_unseen(configuration, words, tmp_path):
    run = read_run(run_folder(tmp_path / "run", [0.5], **configuration), "dynamic")
    said = unseen({"dynamic": run}, DATA)
    assert said == "" if words is None else words in said


@pytest.mark.parametrize(("loss", "stage"), [("residual", "dynamic"), ("sine", "static")])
def test_swapped_stages_are_refused(loss, stage, tmp_path):
    folder = run_folder(tmp_path / "run", [0.5], loss=loss)
    with pytest.raises(ValueError, match=f"as the {stage} stage, .* with the {loss} loss; wanted"):
        read_run(folder, stage)


def test_data_sets_out_of_distribution_are_rows(report):
    text = sections(report)["Outside the training distribution"]
    canonical, physical, random = tables(text)
    assert list(canonical) == ["paper", "thin", "mixed"]
    assert canonical["paper"]["U-Net, dynamic"] == "8.8 (9)"
    assert canonical["paper"]["differs by"] == "–"
    assert canonical["thin"]["differs by"] == "radius 0.0125"
    assert (
        canonical["mixed"]["differs by"]
        == "generator murray tree, spanning tree, cells per side 32"
    )
    assert canonical["mixed"]["U-Net, dynamic"] == "17.8 (18), 2 failed"
    assert physical["thin"]["none"] == "156.0 (166)"
    assert random["thin"]["U-Net, static"] == "28.5 (30)"
    assert "`learning evaluate main.json`, `learning evaluate others.json`" in text


def test_every_table_says_which_command_made_it(report):
    for title, text in sections(report).items():
        if title != "Protocol":
            assert "Made by `" in text, title
        if title in ("Iterations", "Training", "Sines and residuals"):
            assert "static stage of 30 training graphs and 4 epochs (paper: 480 and 250)" in text


# --- Figures ----------------------------------------------------------------------------------


def test_figures_show_something(report):
    shown = re.findall(r"!\[.*\]\((.*)\.png\)", report.read_text())
    assert sorted(shown) == sorted(FIGURES)
    assert sorted(p.name for p in report.parent.iterdir()) == sorted(
        ["report.md", *(f"{name}.png" for name in FIGURES)]
    )
    for name in FIGURES:
        pixels = imread(report.parent / f"{name}.png")[..., :3]
        assert pixels.shape[1] > 1000
        assert pixels.std() > 0.05, name
        assert np.ptp(pixels, axis=2).max() > 0.3, name  # colours, not axes alone


def test_unusual_results_are_drawn_too(tmp_path):
    """One problem, one epoch, unknown names, systems solved at once, log-sine losses below zero."""
    one = measurement([1])
    data = DataSummary(1)
    strange = Results(
        "evaluate",
        evaluations={
            "mine": Evaluation(data, 2e-5, 9, 0, "2.11", "CPU", {"random": {"mine": one}})
        },
        profiles={
            "random": {
                name: SineProfile(data, "random", 0, 3, np.array([[0.0, np.nan, np.nan, np.nan]]))
                for name in ("mine", "yours")
            }
        },
        epochs=(EpochResult(0, SineProfile(data, "random", 0, 1, np.array([[0.5]])), one),),
    )
    save_results(strange, tmp_path / "strange.json")
    run = run_folder(tmp_path / "run", [-0.5], loss="log_sine")
    report = write_report([tmp_path / "strange.json"], tmp_path / "report", dynamic_run=run)
    (table,) = tables(sections(report)["Sines and residuals"])
    assert table["mine"]["mean sine"] == "0.000"
    assert table["mine"]["b"] == "–"
    (table,) = tables(sections(report)["Training"])
    assert table["dynamic"]["paper, validation"] == "–"


# --- What is missing --------------------------------------------------------------------------

PARTS = {
    "evaluations": ["Iterations"],
    "profiles": ["Sines and residuals"],
    "epochs": ["By epoch of the dynamic stage"],
}


@pytest.mark.parametrize("part", PARTS)
def test_what_was_not_measured_is_left_out(part, tmp_path):
    save_results(Results("c", **{part: getattr(MAIN, part)}), tmp_path / "one.json")
    report = write_report([tmp_path / "one.json"], tmp_path / "report")
    assert [title for title in sections(report) if title != "Protocol"] == PARTS[part]
    assert "None" not in report.read_text()
    assert "nan" not in report.read_text()


def test_a_run_alone_makes_a_report(runs, tmp_path):
    report = write_report([], tmp_path / "report", dynamic_run=runs["dynamic_run"])
    assert list(sections(report)) == ["Protocol", "Training"]
    assert "static" not in report.read_text()


def test_a_run_without_epochs_has_no_curve(main_file, tmp_path):
    run = run_folder(tmp_path / "run", [])
    report = write_report([main_file], tmp_path / "report", static_run=run)
    assert "Training" not in sections(report)


def test_nothing_to_report_is_an_error(tmp_path):
    save_results(Results("evaluate"), tmp_path / "empty.json")
    with pytest.raises(ValueError, match="got 1 files of results with nothing in them"):
        write_report([tmp_path / "empty.json"], tmp_path / "report")


def test_a_folder_without_a_run_is_an_error(main_file, tmp_path):
    with pytest.raises(ValueError, match=r"has no history\.csv; wanted the folder of a training"):
        write_report([main_file], tmp_path / "report", static_run=tmp_path / "nowhere")

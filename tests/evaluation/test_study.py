"""The study of the shipped weights: its page follows from its results, other documents from it."""

import json
import re
from pathlib import Path

import pytest

from learning.benchmark.regimes import REGIMES
from learning.benchmark.results import load_benchmark
from learning.evaluation.results import load_results
from learning.pretrained import PRETRAINED
from learning.reporting import write_benchmark_report, write_report

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "learning" / "pretrained_weights" / "study"
UNETS = ("unet-static", "unet-dynamic")


@pytest.fixture(scope="module")
def results():
    return load_results(STUDY / "evaluation.json")


def test_its_page_follows_from_its_results(tmp_path):
    page = write_report(
        [STUDY / "evaluation.json"],
        tmp_path,
        static_run=STUDY / "static",
        dynamic_run=STUDY / "dynamic",
    )
    assert page.read_text() == (STUDY / "report" / "report.md").read_text()
    pictures = {file.name for file in tmp_path.glob("*.png")}
    assert pictures == {file.name for file in (STUDY / "report").glob("*.png")}


@pytest.mark.parametrize(
    "document",
    [
        "docs/neural_preconditioners.md",
        *(f"learning/pretrained_weights/{name}.md" for name in UNETS),
    ],
)
def test_tables_of_iterations_elsewhere_are_those_of_its_page(document):
    page = (STUDY / "report" / "report.md").read_text().splitlines()
    rows = re.findall(
        r"^\| (?:none|Jacobi|geometric multigrid|U-Net, .*) \|.*",
        (ROOT / document).read_text(),
        re.M,
    )
    assert rows
    assert set(rows) <= set(page)


def test_its_weights_are_those_that_ship(results):
    assert results.weights == {name.removeprefix("unet-"): PRETRAINED[name] for name in UNETS}
    assert results.run == PRETRAINED["unet-dynamic"]


def test_its_graphs_are_unseen(results):
    first = next(iter(results.evaluations.values()))
    assert first.data.num_problems >= 100
    configuration = json.loads((STUDY / "dynamic" / "configuration.json").read_text())
    assert first.data.seed != configuration["data_seed"]
    assert configuration["start"] == PRETRAINED["unet-static"]


@pytest.mark.parametrize(("name", "most"), [("static", 26.71), ("dynamic", 12.86)])
def test_it_needs_no_more_iterations_than_the_paper(results, name, most):
    measured = next(iter(results.evaluations.values())).measurements
    assert measured["canonical"][name].mean <= most
    assert not any(by_name[name].failures for by_name in measured.values())


# --- The learned multigrid ----------------------------------------------------------------------

ITERATIONS = json.loads((STUDY / "multigrid" / "iterations.json").read_text())


def test_the_multigrid_that_ships_is_the_one_that_was_measured():
    assert ITERATIONS["weights"] == PRETRAINED["multigrid"]
    run = json.loads((STUDY / "multigrid" / "run" / "configuration.json").read_text())
    assert run["start"] is None
    trained_on = {data["content_hash"] for data in run["data_sets"]}
    assert len(trained_on) == 3
    assert ITERATIONS["seed"] not in {data["seed"] for data in run["data_sets"]}
    card = (ROOT / "learning" / "pretrained_weights" / "multigrid.md").read_text()
    assert all(f"`{content[:12]}`" in card for content in trained_on)


@pytest.mark.parametrize("row", REGIMES)
def test_the_multigrid_takes_few_iterations_in_every_regime(row):
    measured = ITERATIONS["rows"][row]["methods"]["learned"]
    assert measured["num_systems"] == 42
    assert not measured["failures"]
    most = 4.1 if row in ("paper", "weak", "conductive") else 5
    assert max(measured["mean_iterations"].values()) <= most
    assert max(measured["most_iterations"].values()) <= 8


@pytest.mark.parametrize("name", ["paper", "heterogeneous_1e2", "strong_1e-4"])
def test_the_multigrid_takes_at_most_two_more_on_finer_grids(name):
    finer = [row for row in ITERATIONS["rows"] if re.fullmatch(rf"{re.escape(name)}-\d+", row)]
    assert f"{name}-40" in finer
    here, *there = (
        max(ITERATIONS["rows"][row]["methods"]["learned"]["mean_iterations"].values())
        for row in (name, *finer)
    )
    assert max(there) <= here + 2


@pytest.mark.parametrize(
    "document", ["docs/neural_preconditioners.md", "learning/pretrained_weights/multigrid.md"]
)
def test_its_rows_elsewhere_are_those_of_its_page(document):
    page = (STUDY / "multigrid" / "iterations.md").read_text().splitlines()
    names = "|".join(re.escape(name) for name in ITERATIONS["rows"])
    rows = re.findall(rf"^\| (?:{names}) \|.*", (ROOT / document).read_text(), re.M)
    assert len(rows) >= 5
    assert set(rows) <= set(page)


# --- Its time -------------------------------------------------------------------------------------

COLUMNS = (
    "gamg_ksp",
    "petsc_multigrid_sor_ksp",
    "icc_ksp",
    "fast_diagonalisation",
    "geometric",
    "geometric_2",
    "multigrid",
)


@pytest.fixture(scope="module")
def methods():
    """Measurements of single systems by regime and grid, then by method."""
    return {
        (cell.regime, cell.num_cells): cell.methods
        for file in (ROOT / "learning" / "benchmarks").glob("*.json")
        for cell in load_benchmark(file).cells
        if cell.batch_size == 1
    }


def test_times_in_the_docs_are_those_of_the_benchmarks_that_ship(methods):
    page = (ROOT / "docs" / "neural_preconditioners.md").read_text()
    rows = re.findall(r"^\| ([\w-]+), (\d+) \| (.*) \|$", page, re.M)
    assert len(rows) == 12
    for regime, num_cells, content in rows:
        measured = methods[regime, int(num_cells)]
        assert content.split(" | ") == [shown(measured[column]) for column in COLUMNS]


FASTEST = {
    "fast diagonalisation": "fast_diagonalisation",
    "incomplete Cholesky (PETSc)": "icc_ksp",
    "**learned multigrid**": "multigrid",
}


def fastest(measured):
    return min((m for m in measured if measured[m].seconds), key=lambda m: measured[m].seconds)


def test_the_readme_names_the_fastest_method_of_each_row(methods):
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| ([\w-]+), n = (\d+) \| (.*) \|$", readme, re.M)
    assert len(rows) == 8
    for regime, num_cells, content in rows:
        measured = methods[regime, int(num_cells)]
        name, *times = content.split(" | ")
        assert FASTEST[name] == fastest(measured)
        columns = (FASTEST[name], "multigrid", "petsc_multigrid_sor_ksp")
        assert times == [shown(measured[column]) for column in columns]


def test_the_learned_multigrid_is_fastest_in_nine_of_ten_cases_on_finer_grids(methods):
    finer = [measured for (_, num_cells), measured in methods.items() if num_cells >= 40]
    ratios = []
    for measured in finer:
        others = (m.seconds for name, m in measured.items() if name != "multigrid" and m.seconds)
        ratios.append(measured["multigrid"].seconds / min(others))
    assert len(ratios) == 10
    *won, lost = sorted(ratios)
    assert (won[0], won[-1], lost) == pytest.approx((0.59, 0.99, 1.07), abs=0.005)


@pytest.mark.parametrize("name", ["cpu", "cpu-grids"])
def test_pages_of_the_benchmarks_follow_from_their_results(name, tmp_path):
    folder = ROOT / "learning" / "benchmarks"
    page = write_benchmark_report(folder / f"{name}.json", tmp_path)
    assert page.read_text() == (folder / name / "benchmark.md").read_text()
    pictures = {file.name for file in tmp_path.glob("*.png")}
    assert pictures == {file.name for file in (folder / name).glob("*.png")}


def shown(measured):
    if measured.seconds is None:
        return "–"
    return f"{1e3 * measured.seconds:.0f} ({measured.mean:.1f})"

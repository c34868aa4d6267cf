"""The study of the shipped weights: its page follows from its results, the README from its page."""

import json
import re
from pathlib import Path

import pytest

from learning.pretrained import PRETRAINED
from learning.reporting import write_report
from learning.results import load_results

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "learning" / "pretrained_weights" / "study"


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
    "document", ["README.md", *(f"learning/pretrained_weights/{n}.md" for n in PRETRAINED)]
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
    assert results.weights == {name.removeprefix("unet-"): PRETRAINED[name] for name in PRETRAINED}
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

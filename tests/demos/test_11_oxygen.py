"""Oxygen of the default network and of Secomb's: numbers, budget, files, options."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

SECOMB = Path(os.environ.get("MIXEDDIM_DATA", ""))


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("11_oxygen")


def test_oxygen_reaches_the_tissue(demo, tmp_path, capsys):
    result = demo.main(["--num-cells", "8", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    solution = result.solution
    assert solution.budget.error < 1e-10
    assert 10 < result.tissue_mean < result.vessel_mean < 60
    assert 0 <= result.fraction_below_1 <= result.fraction_below_5 < 0.5
    assert solution.u_1d.x.array.max() <= 60 + 1e-9
    written = json.loads((tmp_path / "oxygen.json").read_text())
    names = ("tissue_mean", "vessel_mean", "fraction_below_1", "fraction_below_5")
    assert written == {name: getattr(result, name) for name in names}
    for name in names:
        assert f"{name:<17} {written[name]:.4g}" in printed
    for picture in result.files[:2]:
        assert picture.stat().st_size > 10_000


def test_grids_agree(demo, tmp_path):
    coarse, fine = (demo.main(["--num-cells", n, "--output", str(tmp_path)]) for n in ("6", "12"))
    assert coarse.tissue_mean == pytest.approx(fine.tissue_mean, rel=0.03)
    assert coarse.vessel_mean == pytest.approx(fine.vessel_mean, rel=0.02)


def test_the_tissue_is_a_part_of_the_box(demo):
    case = demo.capillaries()
    solution = demo.solve(case, 5, 2).solution
    po2, volume = demo.po2_in_tissue(solution, 2)
    assert po2.shape == (6, 6, 6)
    assert volume.sum() == pytest.approx(1.0)
    assert volume[0, 0, 0] == pytest.approx(volume[2, 2, 2] / 8)
    np.testing.assert_allclose(solution.system.tissue.lower, -2 / 5 * case.side)


# Figures of the Green's function program (Secomb et al., Ann. Biomed. Eng. 32 (2004) 1519) on its
# published networks: tissue and vessel mean [mmHg], parts below 1 and 5 mmHg.
FIGURES = {
    "secomb_brain": (22.41, 43.95, 0.0, 0.0),
    "secomb_tumor1998": (7.68, 32.84, 0.296, 0.550),
}


@pytest.mark.parametrize("name", FIGURES)
def test_secombs_networks(name, demo, tmp_path):
    folder = SECOMB / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}; set MIXEDDIM_DATA to the folder that holds {name}")
    result = demo.main(["--secomb", str(folder), "--output", str(tmp_path)])
    tissue, vessels, below_1, below_5 = FIGURES[name]
    assert result.tissue_mean == pytest.approx(tissue, rel=0.1)
    assert result.vessel_mean == pytest.approx(vessels, rel=0.04)
    assert result.fraction_below_1 == pytest.approx(below_1, abs=0.06)
    assert result.fraction_below_5 == pytest.approx(below_5, abs=0.06)
    assert result.solution.budget.error < 1e-8


def test_hematocrits_that_do_not_fit_the_flow_are_balanced(demo):
    case = demo.capillaries()
    rng = np.random.default_rng(0)
    measured = rng.uniform(0.3, 3.0, len(case.flow))
    cells = demo.md.balance_flow(case.graph, measured * case.flow)
    once = np.divide(cells, case.flow, out=measured.copy(), where=case.flow != 0)
    assert once.min() < 0 or once.max() > 1  # one pass is not enough
    balanced = demo.balanced_hematocrit(case.graph, case.flow, measured)
    assert 0 <= balanced.min() < balanced.max() <= 1
    solution = demo.solve(replace(case, hematocrit=balanced), 4, 1).solution
    assert solution.budget.error < 1e-10


def test_a_folder_without_the_files(demo, tmp_path):
    with pytest.raises(SystemExit, match=r"without network.dat; wanted all three files there"):
        demo.main(["--secomb", str(tmp_path)])


def test_help_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("num-cells", "margin", "secomb", "output"))

"""Oxygen of the default network and of Secomb's: numbers, budget, files, options."""

import mixeddim._fenics  # before DOLFINx

import json
import os
from dataclasses import replace
from pathlib import Path

import dolfinx
import numpy as np
import pytest
from scipy.spatial import Delaunay

import mixeddim as md

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
    result = demo.solve(case, 5, 2)
    tissue = result.solution.system.tissue
    np.testing.assert_allclose(tissue.lower, -3 / 5 * case.side)  # the third cell is stretched
    assert demo.po2_in_box(result).shape == (6, 6, 6)
    volume = result.solution.system.grid.to_grid(result.volume)
    assert volume.sum() == pytest.approx(1.0)
    assert volume[3, 3, 3] == pytest.approx(volume[5, 5, 5] / 8)
    assert volume[2].max() == 0.0


def test_a_stretched_layer_stands_for_a_large_box(demo):
    case = demo.capillaries()
    near, far = (demo.solve(case, 5, num_margin).tissue_mean for num_margin in (1, 6))
    assert near == pytest.approx(far, rel=2e-3)


def test_vessels_far_from_the_tissue_are_refused_before_they_are_meshed(demo):
    case = demo.capillaries()
    case.graph.nodes[next(iter(case.graph))]["pos"] = (
        1.0,
        1.0,
        1.0,
    )  # m, beside a tissue of some hundred µm
    with pytest.raises(SystemExit, match=r"got vessels as far as 1 m .* at most a million"):
        demo.grid(case, None, 1)


def test_a_tissue_of_one_point_is_a_sheet(demo):
    case = demo.capillaries()
    for node in case.graph:
        case.graph.nodes[node]["pos"] = (*case.graph.nodes[node]["pos"][:2], 4e-6)
    side = np.array([200e-6, 200e-6, 8e-6])  # vessels are as wide as that
    result = demo.solve(replace(case, side=side, num_points=np.array([20, 20, 1])))
    po2 = result.solution.system.grid.to_grid(result.solution.u_3d.x.array)
    assert result.solution.system.tissue.upper[2] == 8e-6
    assert np.ptp(po2, axis=2).max() < 0.1 * np.ptp(po2)
    assert result.solution.budget.error < 1e-10


def test_the_outer_bound_cuts_off_corners_that_no_vessel_is_near(demo):
    case = demo.capillaries()
    case.graph.remove_nodes_from(
        [n for n in case.graph if sum(case.graph.nodes[n]["pos"]) > 250e-6]
    )
    box, _ = demo.grid(case, 10, 1)
    midpoints = dolfinx.mesh.compute_midpoints(
        box.mesh, 3, np.arange(box.mesh.topology.index_map(3).size_local)
    )
    in_box = np.all((midpoints > 0) & (midpoints < case.side), axis=1)
    whole, part = (
        demo.part_in_tissue(replace(case, outer_bound=bound), box).x.array for bound in (1.0, 20e-6)
    )
    np.testing.assert_array_equal(whole, 1.0 * in_box)
    hull = Delaunay(md.node_positions(case.graph)).find_simplex(midpoints) >= 0
    assert np.all(part[hull & in_box] == 1.0)
    assert np.all(part <= whole)
    far = np.linalg.norm(midpoints[:, None] - md.node_positions(case.graph), axis=2).min(axis=1)
    assert 0.2 < part.sum() / whole.sum() < 0.8
    assert far[(part == 0) & in_box].min() > 20e-6


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
    cells = md.balance_flow(case.graph, measured * case.flow)
    once = np.divide(cells, case.flow, out=measured.copy(), where=case.flow != 0)
    assert once.min() < 0 or once.max() > 1  # one pass is not enough
    balanced = demo.balanced_hematocrit(case.graph, case.flow, measured)
    assert 0 <= balanced.min() < balanced.max() <= 1
    solution = demo.solve(replace(case, hematocrit=balanced), 4, 1).solution
    assert solution.budget.error < 1e-10


# A made-up network: a vessel on a face, one of 40 µm, a stagnant dead end, parallel vessels, ends
# that the table of boundary nodes leaves out, flows with few digits, a vessel outside the box.
NETWORK = """
 120. 80. 60. box
 6 4 3 points
 25. outer bound
 10. longest
 4 segments per node
 8 segments
 name type from to diam flow hem
 1 5 1 2 40. 61. 0.4
 2 4 2 3 6. 30. 0.4*
 3 5 3 2 7. -31.1 0.41
 4 5 3 4 9 6.0E+01 0.4
 5 5 3 5 5 0. 0.
 6 5 6 7 5 -1.5 0.3
 7 1 5 7 5 -1.5 0.3
 8 5 8 9 5 0.002 0.01
 9 nodes
 title
 1 0 40 30
 2 40 40 30
 3 80 30 30
 4 120 40 30
 5 90 60 50
 6 0 80 60
 7 120 80 60
 8 10 -20 10
 9 60 10 10
 2 boundary nodes

 1 0 40. 0.4 60. 3.
 4 2 -60. 0.4 60. 3.
"""
PARAMETERS = """a title
1 2 3
2 2 100
1.0E-04
50
38 P50
3 n
0.5 C0
3.10E-05 alpha
1. factor
1 3
oxygen
1 1 1
100.
6.0e-10 D alpha
0.0025 M0
10.5
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in (
        ("Network.dat", NETWORK),
        ("SoluteParams.dat", PARAMETERS),
        ("IntravascRes.dat", "2 oxygen\nD K\n4 2.45\n50 0.73\n"),
    ):
        (tmp_path / name).write_text(text.replace("\n", "\r\n"), newline="")
    return tmp_path


def test_a_network_with_all_that_is_awkward(demo, folder):
    result = demo.main(["--secomb", str(folder), "--output", str(folder)])
    assert result.solution.budget.error < 1e-8
    assert result.volume.sum() == pytest.approx(1.0)
    assert 0 < result.tissue_mean < result.vessel_mean < 60
    assert result.solution.u_1d.x.array.max() < 60 + 1e-9
    fine = demo.solve(demo.secomb(folder), 14)
    assert result.tissue_mean == pytest.approx(fine.tissue_mean, rel=0.05)
    assert result.vessel_mean == pytest.approx(fine.vessel_mean, rel=0.02)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" 25. outer", " far outer", "without numbers in lines 2 to 4; wanted the sides of"),
        (" 60. 3.", "", "without PO2 at its boundary nodes; wanted it in the fifth column"),
    ],
)
def test_a_network_without_what_oxygen_needs(old, new, message, demo, folder):
    (folder / "Network.dat").write_text(NETWORK.replace(old, new))
    with pytest.raises(SystemExit, match=message):
        demo.main(["--secomb", str(folder)])


def test_a_folder_without_the_files(demo, tmp_path):
    with pytest.raises(SystemExit, match=r"without network.dat; wanted all three files there"):
        demo.main(["--secomb", str(tmp_path)])


def test_help_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("num-cells", "margin", "secomb", "output"))

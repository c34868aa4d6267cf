"""A bifurcation by hand: Murray's law, and a junction that loses nothing."""

import numpy as np
import pytest

import mixeddim as md


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("02_bifurcation")


def test_bifurcation_conserves_flow(demo, tmp_path, capsys):
    result = demo.main(["--num-cells", "8", "--output", str(tmp_path)])
    vessels = result.vessels
    assert vessels.ends == (("inlet", "junction"), ("junction", "left"), ("junction", "right"))
    mother, left, right = vessels.flux_end[0], *vessels.flux_start[1:]
    assert mother == pytest.approx(left + right, rel=1e-11)
    assert result.imbalance < 1e-11
    assert np.all(vessels.flux_start > vessels.flux_end)
    assert np.all(vessels.flux_end > 0)
    assert vessels.flux_start == pytest.approx(vessels.flux_end + vessels.exchange, rel=1e-11)

    balance = result.solution.mass_balance
    net_inflow = vessels.flux_start[0] - vessels.flux_end[1:].sum()
    assert net_inflow == pytest.approx(balance.boundary_1d, rel=1e-10)
    assert vessels.exchange.sum() == pytest.approx(balance.exchange, rel=1e-10)
    assert balance.error < 1e-10
    ratio = vessels.flux_end[1] / vessels.flux_end[2]
    assert ratio == pytest.approx((demo.R_1 / demo.R_2) ** 4, rel=0.01)

    assert f"{result.imbalance:.1e}" in capsys.readouterr().out
    assert result.picture == tmp_path / "bifurcation.png"
    assert result.picture.stat().st_size > 10_000


def test_flow_is_that_of_poiseuille_where_walls_are_tight(demo):
    solution = demo.solve(6, permeability=0.0)
    mother, left, right = md.edge_table(solution).flux_end
    k_1, k_2 = (demo.R_1 / demo.R_0) ** 4, (demo.R_2 / demo.R_0) ** 4
    resistance = 1 + 1 / (k_1 + k_2)  # of the mother, and of both daughters side by side
    assert mother == pytest.approx(1 / (demo.LENGTH * resistance), rel=1e-10)
    assert left / right == pytest.approx(k_1 / k_2, rel=1e-10)


def test_vessels_pull_at_the_junction_with_forces_that_cancel(demo):
    # What minimises the cost of three vessels, pi R^2 times their length, in the position of the
    # junction; Murray derived the angles from the radii in another way.
    graph = demo.bifurcation()
    junction = np.array(graph.nodes["junction"]["pos"])
    force = np.zeros(3)
    for node in graph["junction"]:
        along = np.array(graph.nodes[node]["pos"]) - junction
        force += graph.edges["junction", node]["radius"] ** 2 * along / np.linalg.norm(along)
    np.testing.assert_allclose(force, 0.0, atol=1e-17)
    cubes = [radius**3 for _, _, radius in graph.edges(data="radius")]
    assert 2 * max(cubes) == pytest.approx(sum(cubes))


def test_help_of_the_bifurcation_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("num-cells", "output"))

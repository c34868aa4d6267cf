"""A random network in tissue: every generator, both solvers."""

import pytest
import pyvista as pv


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("03_random_vascular_network")


def _assert_solved(result, folder):
    """Check what holds for every network: both ways agree, nothing is lost, files are there."""
    assert result.difference < 1e-8
    assert result.direct.relative_residual < 1e-10
    assert result.reduced.relative_residual < 1e-10
    assert result.direct.mass_balance.error < 1e-9
    assert result.reduced.mass_balance.error < 1e-9
    names = ["network.png", "network.vtp", "solution.html", "solution.png", "tissue.vti"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert {path.name for path in result.files} == set(names)


@pytest.mark.parametrize("method", ["spanning_tree", "murray_tree", "capillary_mesh"])
def test_random_network(demo, method, tmp_path, capsys):
    arguments = ["--num-cells", "6", "--num-nodes", "12", "--method", method]
    result = demo.main([*arguments, "--output", str(tmp_path)])
    _assert_solved(result, tmp_path)
    balance = result.direct.mass_balance
    assert result.inflow == pytest.approx(balance.exchange, rel=1e-9)
    assert balance.reaction_3d == pytest.approx(balance.exchange, rel=1e-9)
    u_3d, u_1d = result.direct.u_3d.x.array, result.direct.u_1d.x.array
    assert 0 < u_3d.min() < u_3d.max() < u_1d.min() < u_1d.max() == pytest.approx(1.0)
    assert pv.read(tmp_path / "tissue.vti").dimensions == (7, 7, 7)

    printed = capsys.readouterr().out
    assert "12 (1 inlets" in printed
    assert f"{result.difference:.1e}" in printed
    assert str(tmp_path / "solution.png") in printed


def test_help_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    for option in ("num-cells", "num-nodes", "method", "seed", "output"):
        assert f"--{option}" in printed

"""A straight vessel: the flux through its wall, and errors that fall as the theory says."""

import pytest


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("01_straight_vessel")


def test_straight_vessel(demo, tmp_path, capsys):
    result = demo.main(["--output", str(tmp_path)])
    assert result.exact_amplitude == pytest.approx(0.285631355580, abs=1e-12)
    errors = [amplitude / result.exact_amplitude - 1 for amplitude in result.amplitudes.values()]
    assert [*result.amplitudes] == [8, 16, 64]
    assert 1e-3 > errors[-1] > -1e-3
    assert 5e-3 > errors[0] > errors[1] > errors[2], "refinement helps"
    for norm, rate in demo.RATES.items():
        assert result.study.rate(norm) == pytest.approx(rate, abs=0.1)

    printed = capsys.readouterr().out
    assert f"{result.amplitudes[16]:.6f}" in printed
    assert f"{result.study.rate('H1_3d'):.2f}" in printed
    assert result.picture == tmp_path / "straight_vessel.png"
    assert result.picture.stat().st_size > 10_000
    assert str(result.picture) in printed


def test_profile_across_the_vessel_is_the_exact_one_between_its_wall_and_the_box(demo):
    exact = demo.bessel_mode(radius=demo.RADIUS)
    x, u_3d = demo.across(demo.solve(exact, 16))
    values = exact.u_3d([x, 0 * x, 0 * x])
    assert x[[0, 8, 16]] == pytest.approx([-0.5, 0, 0.5])
    assert u_3d[[0, 16]] == pytest.approx(values[[0, 16]], rel=1e-9), "given there"
    assert u_3d[abs(x) > 0.1] == pytest.approx(values[abs(x) > 0.1], rel=0.04)


def test_meshes_whose_nodes_miss_the_vessel_are_refused(demo, capsys):
    with pytest.raises(SystemExit, match="2"):
        demo.main(["--num-cells", "10"])
    assert "got --num-cells 10; wanted a multiple of 4" in capsys.readouterr().err


def test_help_of_the_straight_vessel_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("num-cells", "output"))

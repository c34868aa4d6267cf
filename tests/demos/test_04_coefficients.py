"""Five tissues around the same vessels: what goes in is taken up, and how the fields differ."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("04_coefficients")


@pytest.fixture(scope="module")
def result(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("coefficients")
    return demo.main(["--num-cells", "8", "--output", str(folder)])


def test_every_tissue_takes_up_what_goes_through_the_walls(demo, result):
    assert result.solutions.keys() == demo.TISSUES.keys()
    for name, solution in result.solutions.items():
        balance = solution.mass_balance
        assert balance.error < 1e-9
        assert balance.reaction_3d == pytest.approx(balance.exchange, rel=1e-8)
        if name == "Michaelis-Menten":
            assert balance.reaction_3d == pytest.approx(solution.uptake)
            assert solution.uptake < demo.uptake.maximum
        else:  # sigma_3d is 1
            assert balance.reaction_3d == pytest.approx(result.means[name])


def test_the_fields_are_what_their_coefficients_make_of_them(result):
    fields = {
        name: solution.system.grid.to_grid(solution.u_3d.x.array)
        for name, solution in result.solutions.items()
    }
    least = {name: field.min() for name, field in fields.items()}
    assert least["layered"] < least["anisotropic"] < least["homogeneous"]

    upper, lower = fields["layered"][:, :, 4:], fields["layered"][:, :, :4]
    assert upper.std() < fields["homogeneous"][:, :, 4:].std()
    assert lower.std() > fields["homogeneous"][:, :, :4].std()

    slopes = [
        {axis: np.abs(np.diff(fields[name], axis=axis)).mean() for axis in (0, 2)}
        for name in ("homogeneous", "anisotropic")
    ]
    ratios = [slope[0] / slope[2] for slope in slopes]
    assert ratios[1] < 0.5 * ratios[0], "u_3d varies less along the fibres, the x axis"


def test_newton_needs_fewer_iterations_than_picard(result):
    assert result.newton.iterations < 10 < result.picard.iterations
    difference = result.newton.u_3d.x.array - result.picard.u_3d.x.array
    assert np.abs(difference).max() < 1e-8


def test_prints_its_numbers_and_draws(demo, tmp_path, capsys):
    result = demo.main(["--num-cells", "4", "--seed", "3", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    for name, mean in result.means.items():
        assert f"{name:<17}  {mean:>9.4f}" in printed
    iterations = result.newton.iterations, result.picard.iterations
    assert "Newton {} iterations, Picard {}".format(*iterations) in printed
    assert result.picture == tmp_path / "coefficients.png"
    assert str(result.picture) in printed
    assert result.picture.stat().st_size > 10_000


def test_help_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("num-cells", "seed", "output"))

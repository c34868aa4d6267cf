"""Blood and tracer are conserved; fields stay within bounds; all that entered is somewhere."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("09_blood_flow_and_transport")


@pytest.fixture(scope="module", params=["2", "5"])
def result(demo, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transport")
    return demo.main(["--num-cells", "8", "--seed", request.param, "--output", str(folder)])


def test_blood_is_conserved(demo, result):
    flow = result.flow
    assert flow.inflow > 0
    assert abs(flow.inflow - flow.outflow) <= 1e-12 * flow.inflow
    assert flow.is_given.sum() == 2 * demo.NUM_HELD
    assert flow.pressure.min() == demo.PRESSURES[1]
    assert flow.pressure.max() == demo.PRESSURES[0]
    # Blood in capillaries of 5 to 10 µm is 5 to 15 times thicker than plasma (Pries et al. 1994).
    relative = flow.viscosity / demo.PLASMA_VISCOSITY
    assert 5 < relative.min() < relative.max() < 15


def test_tracer_is_conserved(demo, result):
    assert result.balance_error < 1e-10
    assert result.amounts.lost < 1e-10
    bolus = result.flow.inflow * demo.BOLUS
    assert result.amounts.entered[-1] == pytest.approx(bolus, rel=1e-12)
    held = result.amounts.network + result.amounts.tissue
    after = result.amounts.times > demo.BOLUS + demo.TIME_STEP
    assert np.all(np.diff(held[after]) < 0), "after the bolus there is less and less"


def test_concentrations_stay_within_bounds(demo, result):
    assert len(result.states) == round(demo.END / demo.TIME_STEP)
    for state in result.states:
        assert state.u_1d.x.array.max() <= 1 + 1e-9
        assert abs(state.u_3d.x.array).max() < 1


def test_prints_its_numbers_and_draws(demo, tmp_path, capsys):
    result = demo.main(["--num-cells", "4", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"{result.flow.inflow:.6g}, {result.flow.outflow:.6g}" in printed
    assert f"{result.balance_error:.1e}" in printed
    assert f"{result.amounts.lost:.1e}" in printed
    assert {path.name for path in result.pictures} == {"flow.png", "transport.png"}
    for picture in result.pictures:
        assert str(picture) in printed
        assert picture.stat().st_size > 10_000


def test_help_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("num-cells", "seed", "output"))

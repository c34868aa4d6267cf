"""The table of effective radii, against the script that makes it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import mixeddim as md
from mixeddim.fem.averaging import average
from mixeddim.fem.unresolved import EFFECTIVE, RADIUS

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "unresolved_resistance.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("unresolved_resistance", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("cell_type", EFFECTIVE)
@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_the_table_is_what_the_script_makes(cell_type, radius, script):
    rng = np.random.default_rng(1)
    lines = [(script.random_direction(rng), rng.uniform(size=3)) for _ in range(20)]
    found = np.exp(
        np.mean([np.log(script.effective_radius(*line, radius, cell_type)) for line in lines])
    )
    assert found == pytest.approx(EFFECTIVE[cell_type][RADIUS.index(radius)], rel=0.04)


@pytest.mark.parametrize("cell_type", EFFECTIVE)
def test_the_script_interpolates_as_the_averages_do(cell_type, script):
    box = md.create_box(4, upper=(4.0,) * 3, cell_type=cell_type)
    points = np.random.default_rng(0).uniform(0, 4, (50, 3))
    trace = average(box, box.P1, points, points, np.ones(50), md.PointTrace(), "raise").Pi
    nodes, values = script.basis(points, cell_type)
    dense = np.zeros((50, 5, 5, 5))
    np.add.at(dense, (np.arange(50)[:, None], *np.moveaxis(nodes, -1, 0)), values)
    np.testing.assert_allclose(box.grid(box.P1).to_grid(trace.toarray()), dense, atol=1e-12)

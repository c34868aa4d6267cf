"""Recommendations: features read off the matrices, the fastest that was measured, and honesty."""

import dataclasses

import numpy as np
import pytest
import torch

import learning
from learning.benchmark import recommendation
from learning.benchmark.features import features_of, mean_features
from learning.benchmark.methods import METHODS
from learning.benchmark.recommendation import recommend
from learning.benchmark.regimes import regime
from learning.benchmark.results import load_benchmark
from learning.problems.generation import generate


@pytest.fixture(scope="module")
def problem_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")

    def draw(name, num_cells=6):
        path = folder / f"{name}-{num_cells}.h5"
        return generate(regime(name, num_cells), 1, 7, path, processes=1, progress=False)[0].reduced

    return draw


@pytest.fixture
def measured():
    return recommendation._measured()


# --- Features ---------------------------------------------------------------------------------


def test_features_are_those_of_the_regime(problem_of):
    paper = features_of(problem_of("paper"))
    assert paper.unknowns == 7**3
    assert paper.points == len(problem_of("paper").weights)
    assert paper.contrast == pytest.approx(1)
    assert paper.anisotropy == pytest.approx(1)
    strong = features_of(problem_of("strong_1e-3"))
    assert strong.coupling == pytest.approx(1e3 * paper.coupling)
    assert strong.reaction == pytest.approx(1e3 * paper.reaction)
    assert features_of(problem_of("weak")).reaction == pytest.approx(0.01 * paper.reaction)
    conductive = features_of(problem_of("conductive")).conduction
    assert conductive == pytest.approx(100 * paper.conduction, rel=1e-6)
    assert features_of(problem_of("anisotropic")).anisotropy == pytest.approx(100, rel=1e-6)
    varying = [features_of(problem_of(f"heterogeneous_1e{d}", 10)).contrast for d in (2, 4)]
    assert 10 < varying[0] <= 100
    assert varying[1] == pytest.approx(varying[0] ** 2, rel=0.5)


def test_mean_features_are_geometric_means(problem_of):
    systems = [problem_of("paper"), problem_of("strong_1e-2")]
    values = [features_of(system).coupling for system in systems]
    assert mean_features(systems).coupling == pytest.approx(np.sqrt(np.prod(values)), rel=1e-3)


def test_no_grid_no_contrast(problem_of):
    system = dataclasses.replace(problem_of("anisotropic"), grid=None)
    assert features_of(system).anisotropy == features_of(system).contrast == 1


# --- Recommendations --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 16])
def test_what_was_measured_gets_its_fastest_preconditioner(batch_size, measured, tmp_path):
    """For each regime of the table, on an unseen problem of the same kind."""
    cells = [c for b in measured for c in b.cells if c.batch_size == batch_size]
    for cell in [c for c in cells if c.num_cells == 20 and c.regime in ("weak", "anisotropic")]:
        path = tmp_path / f"{cell.regime}.h5"
        distribution = regime(cell.regime, 20)
        system = generate(distribution, 1, 8, path, processes=1, progress=False)[0].reduced
        result = recommend(system, batch_size=batch_size)
        usable = [name for name, method in METHODS.items() if method.is_preconditioner]
        times = {n: cell.methods[n].seconds for n in usable if n in cell.methods}
        known = {name: seconds for name, seconds in times.items() if seconds is not None}
        assert result.name == min(known, key=known.get)
        figures = cell.methods[result.name]
        assert f"{result.name} was the fastest in regime {cell.regime}, 20 cells" in result.reason
        assert f"{1e3 * figures.seconds:.3g} ms per system" in result.reason
        assert f"{figures.mean:.1f} iterations" in result.reason
        second = min(set(known) - {result.name}, key=known.get)
        ratio = figures.seconds / known[second]
        assert f"{ratio:.2f} times that of {second}" in result.reason
        assert "was not measured" not in result.reason
        assert learning.solve(system, result.preconditioner).converged


def test_it_is_immutable(problem_of):
    result = recommend(problem_of("paper"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.name = "other"


def test_what_was_not_measured_is_said(problem_of):
    reason = recommend(problem_of("strong_1e-4"), batch_size=500).reason
    assert "The problem itself was not measured, this is the nearest: " in reason
    assert "unknowns 343 against " in reason
    assert "batch size 500 against " in reason


def test_another_device_is_said(problem_of, measured, monkeypatch):
    on_gpu = dataclasses.replace(measured[0].settings, device="Some GPU")
    only = dataclasses.replace(measured[0], settings=on_gpu)
    monkeypatch.setattr(recommendation, "_measured", lambda: (only,))
    reason = recommend(problem_of("paper")).reason
    assert "on Some GPU" in reason
    assert "Nothing was measured on cpu." in reason
    # Where there is one of the same kind, it is taken.
    monkeypatch.setattr(recommendation, "_measured", lambda: (only, measured[0]))
    assert "Nothing was measured" not in recommend(problem_of("paper")).reason


def test_the_fastest_of_the_table_is_taken_whatever_it_is(problem_of, measured, monkeypatch):
    """Also a learned one, whose ratio to the best classical method is quoted then."""
    cell = measured[0].cells[0]
    for name in ("jacobi", "geometric_2", "unet"):
        quick = dataclasses.replace(
            cell.methods["geometric"],
            setup_seconds=1e-6,
            solve_seconds=1e-6,
            is_learned=name == "unet",
        )
        changed = dataclasses.replace(cell, methods={**cell.methods, name: quick})
        table = dataclasses.replace(measured[0], cells=(changed,))
        monkeypatch.setattr(recommendation, "_measured", lambda table=table: (table,))
        result = recommend(problem_of("paper"))
        assert result.name == name
        assert ("of the best classical method" in result.reason) == (name == "unet")


def test_a_mesh_without_a_grid_gets_what_needs_none(problem_of):
    system = dataclasses.replace(problem_of("paper"), grid=None)
    result = recommend(system)
    assert not METHODS[result.name].needs_grid
    assert learning.solve(system, result.preconditioner, max_iterations=500).converged


def test_what_is_not_installed_is_not_recommended(problem_of, monkeypatch):
    monkeypatch.setattr(recommendation.importlib.util, "find_spec", lambda _: None)
    assert METHODS[recommend(problem_of("paper")).name].package is None


def test_a_table_without_any_of_them_is_an_error(problem_of, measured, monkeypatch):
    cell = dataclasses.replace(measured[0].cells[0], methods={})
    table = dataclasses.replace(measured[0], cells=(cell,))
    monkeypatch.setattr(recommendation, "_measured", lambda: (table,))
    with pytest.raises(ValueError, match=r"got measurements of none of .* wanted some. Install"):
        recommend(problem_of("paper"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "got batch_size=0; wanted at least 1. Raise it"),
        ({"device": "nowhere"}, "got device='nowhere', which PyTorch cannot use here"),
    ],
    ids=["batch", "device"],
)
def test_what_cannot_be_is_an_error(arguments, message, problem_of):
    with pytest.raises(ValueError, match=message):
        recommend(problem_of("paper"), **arguments)


def test_a_system_that_is_not_reduced_is_an_error(system):
    with pytest.raises(ValueError, match=r"got a CoupledSystem; wanted .* mixeddim.reduce\(system"):
        recommend(system)


def test_the_tables_that_ship_read(measured):
    assert measured
    for benchmark in measured:
        assert benchmark.command.startswith("python -m learning benchmark")
        assert benchmark.settings.rtol == 1e-6
        assert all(torch.isfinite(torch.tensor(c.features.coupling)) for c in benchmark.cells)
    folder = recommendation._FOLDER
    for entry in folder.iterdir():
        if entry.name.endswith(".json"):
            assert load_benchmark(entry) in measured

"""The script for accelerators on the CPU, everything tiny: a run, one that is cut off, the next."""

import json
import shutil
from pathlib import Path

import pytest

from learning.benchmark.results import load_benchmark
from learning.evaluation.results import load_results
from learning.problems.data import load_dataset
from learning.training.loop import train

NO_DOLFINX = """
import sys

class Refuse:
    def find_spec(self, name, *_):
        there = ("dolfinx", "dolfinx_solver", "ufl", "basix", "mpi4py", "petsc4py")
        if name.split(".")[0] in there:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """The environment of a machine without DOLFINx."""
    folder = tmp_path_factory.mktemp("there")
    (folder / "sitecustomize.py").write_text(NO_DOLFINX)
    return {"PYTHONPATH": str(folder)}


def summary(out):
    return json.loads((out / "summary.json").read_text())


def check_files(out):
    """At most eight of 16 MiB come back from a machine."""
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) <= 8
    assert max(file.stat().st_size for file in files) < 16 * 2**20


def test_a_part_that_runs_past_its_time_is_ended(run, there, tiny_data, tmp_path):
    """Before it has even loaded torch."""
    result = run(1, "--tiny", "--device", "cpu", "--data", tiny_data, "--out", tmp_path / "out",
                 "--work", tmp_path, "--parts", "training", "rest", **there)  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = summary(tmp_path / "out")
    assert found["training"]["failed"].startswith("it ended with status ")
    assert found["rest"] == {"skipped": "no time was left"}
    assert "Timeout (0:00:0" in result.stdout


@pytest.fixture(scope="module")
def interrupted(tiny_data, tmp_path_factory):
    """A folder with the data and the archives of a static stage that ran out of time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        import checkpoints
        import sizes
    data, work = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("work")
    shutil.copytree(tiny_data, data, dirs_exist_ok=True)
    training = load_dataset(data / "training.h5")
    train(sizes.TINY.static, training, work / "static", progress=False, time_limit=0.0)
    (data / "fine.h5").unlink()
    checkpoints.pack(work, data)
    return data


@pytest.fixture(scope="module")
def whole(run, there, interrupted, tmp_path_factory):
    """The next run, from what came back; it has time for everything, and lacks a file."""
    out = tmp_path_factory.mktemp("out")
    result = run(1000, "--tiny", "--device", "cpu", "--data", interrupted, "--out", out,
                 "--work", out.parent / "work",
                 "--parts", "tests", "speed", "benchmark", "training", **there)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"going on from {interrupted / 'static-state.tar'}" in result.stdout
    return out, result.stdout


def test_the_next_run_finishes_everything(whole):
    out, printed = whole
    found = summary(out)
    failed = [part for part, f in found.items() if isinstance(f, dict) and "failed" in f]
    assert failed == []
    assert " passed" in found["tests"]["passed"]
    times = [step["milliseconds"] for name, step in found["speed"].items() if "," in name]
    assert len(times) == 2
    assert min(times) > 0
    training = found["training"]
    for stage in ("static", "dynamic"):
        assert training[stage]["epochs"] == training[stage]["of"] == 2
        assert 1 < training["iterations"][stage]["iterations"] < 250
    assert training["iterations"]["dynamic"]["paper"] == 12.86
    check_files(out)
    assert "==== summary" in printed
    assert "training: iterations: {" in (out / "log.txt").read_text()


def test_the_benchmark_has_every_cell_whose_data_are_there(whole):
    out, printed = whole
    [cell] = load_benchmark(out / "benchmark.json").cells
    assert cell.key == ("heterogeneous_1e4", 3, 4)
    assert set(cell.methods) == {"multigrid", "geometric", "fast_diagonalisation", "jacobi"}
    assert all(m.num_failures == 0 for m in cell.methods.values())
    direct = summary(out)["benchmark"]["direct solvers"]
    assert direct["heterogeneous_1e4, dense"]["residual"] < 1e-10
    cells = summary(out)["benchmark"]["cells"]
    assert cells["missing"] == []
    assert cells["failed"] == ["heterogeneous_1e4, 4 cells"]
    assert "fine.h5', which is no file; wanted a data set" in printed


def test_the_study_has_the_sines_and_epochs_of_the_report(whole):
    out, _ = whole
    results = load_results(out / "evaluation.json")
    assert set(results.profiles["canonical"]) == {"none", "static", "dynamic"}
    assert [epoch.epoch for epoch in results.epochs] == [0, 1, 2]


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "got no number of seconds; wanted how long the run may take, or --prepare"),
    ((10,), r"got no training.h5 in"),
])  # fmt: skip
def test_what_is_missing_is_said(run, tmp_path, arguments, message):
    result = run(*arguments, "--data", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert message in result.stderr

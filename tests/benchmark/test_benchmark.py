"""The benchmark: numbers as one solve gives them, failures as failures, runs that go on."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

import learning
from learning.__main__ import main
from learning.benchmark import run as module
from learning.benchmark.methods import METHODS, Method, training_seconds
from learning.benchmark.regimes import GRIDS, REGIMES, regime
from learning.benchmark.results import load_benchmark, save_benchmark
from learning.benchmark.run import run_benchmark
from learning.evaluation.measures import RIGHT_HAND_SIDES
from learning.problems.data import FAMILIES, right_hand_side
from learning.reporting import write_benchmark_report

SMALL = {"num_cells": [6], "batch_sizes": [1, 3], "num_problems": 2, "repetitions": 2}
QUIET = {"progress": False}
NAMES = ["jacobi", "gamg", "gamg_ksp", "ruge_stuben", "geometric", "fast_diagonalisation", "unet"]
SERIAL = {"gamg", "gamg_ksp", "ruge_stuben"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def benchmark(folder):
    return run_benchmark(
        folder,
        regimes=["paper", "weak"],
        methods=NAMES,
        command="as tested",
        **SMALL,
        **QUIET,
    )


def systems_of(folder, name, count):
    return learning.load_dataset(folder / "data" / f"{name}-6-{count}.h5")


def right_hand_sides(problems, family):
    number = FAMILIES.index(family)
    rows = [
        right_hand_side(p, family, np.random.default_rng([RIGHT_HAND_SIDES, 2, i, number]))
        for i, p in enumerate(problems)
    ]
    return torch.tensor(np.stack(rows))


# --- What is measured -------------------------------------------------------------------------


@pytest.mark.parametrize("regime_name", ["paper", "weak"])
@pytest.mark.parametrize("name", ["jacobi", "gamg", "geometric", "unet"])
def test_iterations_are_those_of_the_krylov_methods(name, regime_name, benchmark, folder):
    measured = benchmark.cell(regime_name, 6, 1).methods[name]
    problems = systems_of(folder, regime_name, 2)
    run = learning.fgmres if name == "unet" else learning.cg
    preconditioner = METHODS[name].build(torch.device("cpu"))
    for family in FAMILIES:
        counts = []
        for i, b in enumerate(right_hand_sides(problems, family)):
            systems = [problems[i].reduced]
            batch = learning.batch_systems(systems)
            with torch.no_grad():
                M = preconditioner.setup(systems, batch)
                result = run(batch.apply, b[None], M, rtol=1e-6, max_iterations=500)
            counts.append(int(result.iterations[0]))
        assert measured.mean_iterations[family] == pytest.approx(np.mean(counts), rel=1e-3)
        assert measured.most_iterations[family] == max(counts)
    assert measured.most == max(measured.most_iterations.values())
    assert measured.mean == max(measured.mean_iterations.values())


def test_what_came_through_has_times_and_memory(benchmark):
    for cell in benchmark.cells:
        assert set(cell.methods) == set(NAMES)
        assert cell.num_problems == (3 if cell.batch_size == 3 else 2)
        for name, measured in cell.methods.items():
            assert not measured.failures
            assert measured.num_systems == (2 if name in SERIAL else cell.num_problems)
            assert measured.repetitions == 2
            assert measured.seconds == measured.setup_seconds + measured.solve_seconds > 0
            assert measured.memory is None or measured.memory >= 0
            assert measured.is_learned == (name == "unet")


def test_petsc_takes_as_many_iterations_as_we_do(benchmark):
    for cell in benchmark.cells:
        ours, theirs = cell.methods["gamg"], cell.methods["gamg_ksp"]
        for family in FAMILIES:
            assert abs(ours.mean_iterations[family] - theirs.mean_iterations[family]) <= 1


@pytest.mark.parametrize(
    "name", ["icc_ksp", "petsc_multigrid_chebyshev_ksp", "petsc_multigrid_sor_ksp"]
)
def test_petsc_solves_to_the_true_residual(name, benchmark, folder):  # noqa: ARG001
    from learning.petsc.ksp import petsc_cg

    problem = systems_of(folder, "paper", 2)[0].reduced
    solve = petsc_cg(
        problem, METHODS[name].build(torch.device("cpu")).kind, rtol=1e-6, max_iterations=99
    )
    x, iterations = solve(problem.g)
    assert np.linalg.norm(problem.g - problem.S @ x) <= 1e-6 * np.linalg.norm(problem.g)
    ours = learning.solve(problem, METHODS[name.removesuffix("_ksp")].build(torch.device("cpu")))
    assert abs(iterations - ours.iterations) <= 1
    with pytest.raises(ValueError, match="got kind='ilu'; wanted one of"):
        petsc_cg(problem, "ilu", rtol=1e-6, max_iterations=9)


def test_ratios_are_to_the_best_classical_method(benchmark):
    for cell in benchmark.cells:
        times = {name: m.seconds for name, m in cell.methods.items() if not m.is_learned}
        best = min(times, key=times.get)
        assert cell.fastest(classical=True) == best
        assert cell.ratio(best) == 1
        assert cell.ratio("unet") == cell.methods["unet"].seconds / times[best]
        assert cell.fastest(among=["unet"]) == "unet"
        assert cell.fastest(among=[]) is None


def test_training_pays_off_after_its_time_over_what_a_solve_saves(benchmark):
    cell = benchmark.cells[0]
    best = cell.methods[cell.fastest(classical=True)]
    assert cell.methods["unet"].seconds > best.seconds
    assert cell.break_even("unet", 100.0) is None
    quick = dataclasses.replace(
        best, setup_seconds=0.0, solve_seconds=best.seconds / 2, is_learned=True
    )
    faster = dataclasses.replace(cell, methods={**cell.methods, "unet": quick})
    assert faster.break_even("unet", 100.0) == pytest.approx(200.0 / best.seconds)


def test_training_time_is_that_of_both_cards():
    hours = [
        float(re.search(r"([\d.]+) hours", learning.pretrained_card(name))[1])
        for name in ("unet-static", "unet-dynamic")
    ]
    assert training_seconds("unet") == pytest.approx(3600 * sum(hours))
    assert training_seconds("gamg") is None


# --- Failures ---------------------------------------------------------------------------------


class Half(learning.Identity):
    """Blind to half of the unknowns, so that the residual cannot fall."""

    def setup(self, systems, batch):  # noqa: ARG002
        return lambda r: r * (torch.arange(r.shape[1]) % 2)


class Broken(learning.Identity):
    def setup(self, systems, batch):  # noqa: ARG002
        raise RuntimeError("out of something")


class Missing(learning.Identity):
    def setup(self, systems, batch):  # noqa: ARG002
        raise ImportError("no such package")


class Slow(learning.Identity):
    def setup(self, systems, batch):
        import time

        time.sleep(2.2)
        return super().setup(systems, batch)


@pytest.fixture
def with_methods(monkeypatch):
    def add(**preconditioners):
        added = {
            name: Method(lambda _, made=made: made, name, is_batched=True)
            for name, made in preconditioners.items()
        }
        added["tiny"] = dataclasses.replace(METHODS["jacobi"], most_unknowns=10)
        monkeypatch.setattr("learning.benchmark.methods.METHODS", {**METHODS, **added})
        for user in ("run", "measurement"):
            monkeypatch.setattr(f"learning.benchmark.{user}.METHODS", {**METHODS, **added})

    return add


def test_what_fails_is_a_failure_and_has_no_time(with_methods, monkeypatch, tmp_path):
    with_methods(half=Half(), broken=Broken(), missing=Missing(), slow=Slow())
    monkeypatch.setattr(module, "training_seconds", lambda _: None)
    names = ["jacobi", "half", "broken", "missing", "slow", "tiny"]
    limited = {**SMALL, "batch_sizes": [1], "time_limit": 2.0}
    result = run_benchmark(tmp_path, regimes=["paper"], methods=names, **limited, **QUIET)
    cell = result.cells[0]
    assert set(cell.skipped) == {"missing", "tiny"}
    assert cell.skipped["missing"] == "no such package"
    assert "10 unknowns" in cell.skipped["tiny"]
    assert cell.methods["half"].num_failures == 6
    assert cell.methods["broken"].failures == {"ERROR": 6}
    assert cell.methods["broken"].message == "RuntimeError: out of something"
    assert cell.methods["slow"].failures == {"TIME_LIMIT": 6}
    for name in ("half", "broken", "slow"):
        measured = cell.methods[name]
        assert measured.most == measured.mean == 500
        assert measured.seconds is None
        assert measured.repetitions == 0
        assert cell.ratio(name) is None
    assert cell.fastest() == "jacobi"
    page = write_benchmark_report(tmp_path / "benchmark.json", tmp_path).read_text()
    assert "6 of 6 failed: time" in page
    assert "broken: RuntimeError: out of something" in page
    assert "missing: no such package (paper, 6 cells, batch 1)" in page


def test_a_solve_that_stops_early_failed(benchmark, folder):  # noqa: ARG001
    from learning.benchmark.methods import PetscCG, Stop

    problem = systems_of(folder, "paper", 2)[0].reduced
    batch = learning.batch_systems([problem])
    solved = PetscCG("icc").setup([problem], batch, Stop(1e-6, 2))(batch.g)
    assert solved.statuses == ["MAX_ITERATIONS"]


DENSE = "fast_diagonalisation_woodbury"


def test_dense_matrices_that_do_not_fit_are_not_tried(monkeypatch, tmp_path):
    monkeypatch.setattr("learning.benchmark.measurement.free_memory", lambda _: 1e5)
    result = run_benchmark(
        tmp_path, regimes=["paper"], methods=[DENSE], **{**SMALL, "batch_sizes": [1]}, **QUIET
    )
    assert "GB for its dense matrices" in result.cells[0].skipped[DENSE]


# --- Going on ---------------------------------------------------------------------------------


def test_cells_that_are_there_are_kept(benchmark, folder, monkeypatch):
    measured = []
    original = module.measure

    def spy(problems, names, *rest):
        measured.append(list(names))
        return original(problems, names, *rest)

    monkeypatch.setattr(module, "measure", spy)
    names = ["jacobi", "gamg"]
    again = run_benchmark(folder, regimes=["paper"], methods=names, **SMALL, **QUIET)
    assert measured == []
    assert again.cells == benchmark.cells
    # One method more: the whole cell is measured again, for only one run makes methods equal.
    one = {**SMALL, "batch_sizes": [1]}
    more = run_benchmark(folder, regimes=["paper"], methods=["icc"], **one, **QUIET)
    assert set(measured[-1]) == {*NAMES, "icc"}
    assert set(more.cell("paper", 6, 1).methods) == {*NAMES, "icc"}
    assert more.cell("weak", 6, 1) == benchmark.cell("weak", 6, 1)


def test_an_interrupted_run_keeps_its_cells(monkeypatch, tmp_path):
    original, calls = module.measure, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:  # warm-up, first cell, second cell
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, "measure", interrupted)
    settings = {"regimes": ["paper"], "methods": ["jacobi"], **SMALL, **QUIET}
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(tmp_path, **settings)
    [first] = load_benchmark(tmp_path / "benchmark.json").cells
    whole = run_benchmark(tmp_path, **settings)
    assert [cell.batch_size for cell in whole.cells] == [1, 3]
    assert whole.cells[0] == first


def test_other_settings_are_refused(benchmark, folder):  # noqa: ARG001
    with pytest.raises(ValueError, match="measured with repetitions 2, not 5; wanted one of the"):
        run_benchmark(folder, regimes=["paper"], **{**SMALL, "repetitions": 5}, **QUIET)


def test_a_file_reads_as_it_was_written(benchmark, tmp_path):
    path = tmp_path / "again.json"
    save_benchmark(benchmark, path)
    assert load_benchmark(path) == benchmark


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 7}', '{"format": 1, "cells": []}'])
def test_a_file_that_is_none_is_an_error(content, tmp_path):
    path = tmp_path / "benchmark.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"holds no benchmark .* Measure again"):
        load_benchmark(path)
    with pytest.raises(FileNotFoundError, match="which is no file; wanted one that"):
        load_benchmark(tmp_path / "none.json")


# --- Names and regimes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regimes": ["papre"]}, r"got regime 'papre'; wanted one of paper, weak.* Choose one"),
        ({"methods": ["cg"]}, r"got methods \['cg'\]; wanted some of jacobi.* Correct the names"),
        ({"methods": []}, "got no methods; wanted at least one"),
        (
            {"num_cells": [1]},
            r"got num_cells=\(1,\).*wanted at least 2 cells per side.* Raise them",
        ),
        ({"batch_sizes": [0]}, r"batch_sizes=\(0,\)"),
    ],
    ids=["regime", "method", "no method", "grid", "batch"],
)
def test_wrong_names_say_what_there_is(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_benchmark(tmp_path, **{"regimes": ["paper"], **SMALL, **change}, **QUIET)


def test_regimes_change_one_thing_of_the_paper():
    paper = dataclasses.asdict(REGIMES["paper"])
    for name, distribution in REGIMES.items():
        changed = {k for k, v in dataclasses.asdict(distribution).items() if v != paper[k]}
        assert len(changed) == (name != "paper"), name
    for n in GRIDS:
        thin = regime("thin", n)
        assert thin.num_cells == n
        assert thin.radius == (0.25 / n, 0.25 / n)
    assert regime("thin", 20) == REGIMES["thin"]


# --- The report -------------------------------------------------------------------------------


def test_the_report_follows_from_the_file_alone(benchmark, tmp_path):
    save_benchmark(benchmark, tmp_path / "benchmark.json")
    page = write_benchmark_report(tmp_path / "benchmark.json", tmp_path / "report")
    text = page.read_text()
    assert "as tested" in text
    for cell in benchmark.cells:
        assert f"## {cell.num_cells} cells per side, batch of {cell.batch_size}" in text
        [row] = re.findall(
            rf"^## 6 cells per side, batch of {cell.batch_size}\n.*?"
            rf"^(\| {cell.regime.replace('_', ' ')} .*?)$",
            text,
            re.M | re.S,
        )
        for name, measured in cell.methods.items():
            assert f"{measured.mean:.1f} ({measured.most})" in row, name
            assert f"×{cell.ratio(name):.2f}" in row, name
        assert row.count("**") == 2
    assert ".png" not in text, "nothing to draw against size"
    finer = [dataclasses.replace(cell, num_cells=12) for cell in benchmark.cells]
    save_benchmark(
        dataclasses.replace(benchmark, cells=(*benchmark.cells, *finer)), tmp_path / "two.json"
    )
    page = write_benchmark_report(tmp_path / "two.json", tmp_path / "two")
    pictures = re.findall(r"\]\((.*?\.png)\)", page.read_text())
    assert pictures == ["time-batch-1.png", "time-batch-3.png"]
    assert all((page.parent / name).stat().st_size > 10_000 for name in pictures)
    again = write_benchmark_report(tmp_path / "benchmark.json", tmp_path / "again")
    assert again.read_text() == text


def test_a_report_of_nothing_is_an_error(benchmark, tmp_path):
    save_benchmark(dataclasses.replace(benchmark, cells=()), tmp_path / "benchmark.json")
    with pytest.raises(ValueError, match=r"without cells; wanted some\. Measure"):
        write_benchmark_report(tmp_path / "benchmark.json", tmp_path)


def test_the_command_measures_and_reports(tmp_path, capsys):
    small = ["--num-cells", "6", "--batch-sizes", "1", "--num-problems", "1", "--repetitions", "1"]
    arguments = ["benchmark", str(tmp_path), "--regimes", "paper", *small]
    main([*arguments, "--data-only"])
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["paper-6-1.h5"]
    assert not (tmp_path / "benchmark.json").exists()
    main([*arguments, "--methods", "jacobi", "fast_diagonalisation"])
    assert f"report: {tmp_path / 'benchmark.md'}" in capsys.readouterr().out
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert content["command"].startswith(f"python -m learning benchmark {tmp_path}")
    assert set(content["cells"][0]["methods"]) == {"jacobi", "fast_diagonalisation"}
    with pytest.raises(SystemExit, match="error: got regime 'none'"):
        main(["benchmark", str(tmp_path), "--regimes", "none"])

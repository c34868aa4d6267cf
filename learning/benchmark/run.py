"""Measure all methods on the same systems: iterations, set-up, solve, memory, failures.

A cell is a regime, a grid and a batch size. In it every method first runs untimed, on all families
of right-hand sides, which yields iterations, failures and memory. Then they take turns, so that
noise of the machine affects all alike. Each is timed on its set-up and on the family for which it
takes the most iterations. Operators and their factors exist before the clock starts. A method
repeats the rest of its set-up each time, except for quantities that depend on the grid alone.

Vectors are in float64, and a solve has failed unless its true residual reaches the tolerance.
Methods that take systems one after another are measured on the first few of a batch.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from tqdm import tqdm

from learning.benchmark.features import mean_features
from learning.benchmark.measurement import measure
from learning.benchmark.methods import METHODS, training_seconds
from learning.benchmark.regimes import regime
from learning.benchmark.results import (
    Benchmark,
    Cell,
    Settings,
    load_benchmark,
    save_benchmark,
)
from learning.devices import usable_device
from learning.problems.data import Dataset
from learning.problems.distributions import to_json
from learning.problems.generation import generate

__all__ = ["DEFAULT_REGIMES", "generate_data", "run_benchmark"]

DEFAULT_REGIMES = ("paper", "heterogeneous_1e2", "strong_1e-3")
RTOL, MAX_ITERATIONS, SEED = 1e-6, 500, 2
FEW = 32  # problems that are drawn before other processes have started


def run_benchmark(
    folder: str | os.PathLike[str],
    *,
    regimes: Sequence[str] = DEFAULT_REGIMES,
    num_cells: Sequence[int] = (20, 40),
    batch_sizes: Sequence[int] = (1, 16),
    methods: Sequence[str] = tuple(METHODS),
    num_problems: int = 2,
    repetitions: int = 3,
    device: torch.device | str = "cpu",
    time_limit: float = 20.0,
    command: str = "",
    progress: bool = True,
) -> Benchmark:
    """Measure what the folder does not hold yet, and write its `benchmark.json` after each cell.

    Problems are drawn into `data/` of the folder, unless they are there; drawing needs DOLFINx,
    measuring does not. Torch is held to one thread meanwhile.

    Args:
        folder: Where everything goes; an unfinished one is continued.
        regimes: Names of `learning.benchmark.regimes.REGIMES`.
        num_cells: Cells along each side of the cube.
        batch_sizes: Systems solved together.
        methods: Names of `learning.benchmark.methods.METHODS`.
        num_problems: Systems in each cell, filled up to whole batches.
        repetitions: How often each method is timed in a cell.
        device: Where to solve.
        time_limit: Seconds after which a method is given up in a cell, checked once an iteration;
            of repetitions there are as many as fit in, and at least one.
        command: What to name in the file as its origin.
        progress: Whether to show a bar.

    Raises:
        ValueError: If a name is unknown, a number out of range, or the folder holds a benchmark of
            other settings.
    """
    _check(regimes, num_cells, batch_sizes, methods, num_problems, repetitions)
    device = usable_device(device)
    folder = Path(folder)
    path = folder / "benchmark.json"
    settings = _settings(device, time_limit, repetitions, num_problems)
    benchmark = _opened(path, Benchmark(command, settings))
    costs = {name: training_seconds(name) for name in methods}
    known = {name: seconds for name, seconds in costs.items() if seconds is not None}
    benchmark = replace(
        benchmark, command=command, training_seconds={**benchmark.training_seconds, **known}
    )
    keys = [(name, n, size) for n in num_cells for name in regimes for size in batch_sizes]
    is_warm = False
    with _one_thread(), tqdm(total=len(keys), disable=not progress, unit="cell") as bar:
        for name, n, size in keys:
            bar.set_postfix_str(f"{name}, {n} cells, batch of {size}")
            distribution = to_json(regime(name, n))
            names = _to_measure(benchmark.cell(name, n, size), distribution, methods)
            if names:
                data = _generate_cell(folder, name, n, size, num_problems)
                if not is_warm:  # libraries are loaded, and their pools of memory made
                    measure(data[:size], names, size, replace(settings, repetitions=0), device)
                    is_warm = True
                measured, skipped = measure(data, names, size, settings, device)
                features = mean_features(problem.reduced for problem in data)
                cell = Cell(name, n, size, len(data), distribution, features, measured, skipped)
                benchmark = benchmark.with_cell(cell)
                save_benchmark(benchmark, path)
            bar.update()
    save_benchmark(benchmark, path)
    return load_benchmark(path)


def generate_data(
    folder: str | os.PathLike[str],
    *,
    regimes: Sequence[str],
    num_cells: Sequence[int],
    batch_sizes: Sequence[int],
    num_problems: int,
) -> None:
    """Draw all problems of a benchmark, to measure on a machine without DOLFINx.

    Args:
        folder: As in `run_benchmark`, as are all others.
        regimes: Names of regimes.
        num_cells: Cells along each side of the cube.
        batch_sizes: Systems solved together.
        num_problems: Systems in each cell, filled up to whole batches.

    Raises:
        ValueError: If a name is unknown, or a number out of range.
    """
    _check(regimes, num_cells, batch_sizes, [*METHODS], num_problems, 1)
    for name in regimes:
        for n in num_cells:
            for size in batch_sizes:
                _generate_cell(Path(folder), name, n, size, num_problems)


def _generate_cell(
    folder: Path, name: str, num_cells: int, batch_size: int, num_problems: int
) -> Dataset:
    """Draw the problems of a cell, or read them where they are there."""
    count = -(-num_problems // batch_size) * batch_size
    path = folder / "data" / f"{name}-{num_cells}-{count}.h5"
    processes = None if count > FEW else 1
    return generate(regime(name, num_cells), count, SEED, path, processes=processes, progress=False)


def _check(
    regimes: Sequence[str],
    num_cells: Sequence[int],
    batch_sizes: Sequence[int],
    methods: Sequence[str],
    num_problems: int,
    repetitions: int,
) -> None:
    for name in regimes:
        regime(name, 1)
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(
            f"got methods {unknown}; wanted some of {', '.join(METHODS)}. Correct the names."
        )
    lists = {"regimes": regimes, "num_cells": num_cells, "batch_sizes": batch_sizes}
    for name, values in {**lists, "methods": methods}.items():
        if not values:
            raise ValueError(f"got no {name}; wanted at least one. Name some, or leave it out.")
    numbers = [*num_cells, *batch_sizes, num_problems, repetitions]
    if min(numbers) < 1 or min(num_cells) < 2:
        raise ValueError(
            f"got num_cells={tuple(num_cells)}, batch_sizes={tuple(batch_sizes)}, "
            f"num_problems={num_problems}, repetitions={repetitions}; wanted at least 2 cells per "
            "side, and 1 of all others. Raise them."
        )


def _opened(path: Path, empty: Benchmark) -> Benchmark:
    """Return the benchmark of a file if it is one to go on with, or the empty one."""
    if not path.exists():
        return empty
    found = load_benchmark(path)
    wanted, there = vars(empty.settings), vars(found.settings)
    differing = {
        name: (there[name], wanted[name]) for name in wanted if there[name] != wanted[name]
    }
    if differing:
        changes = "; ".join(
            f"{name} {was!r}, not {now!r}" for name, (was, now) in differing.items()
        )
        raise ValueError(
            f"got {str(path)!r}, measured with {changes}; wanted one of the same settings, since "
            "times are compared. Name another folder, or remove the file."
        )
    return found


def _to_measure(found: Cell | None, distribution: str, methods: Sequence[str]) -> list[str]:
    """Return the methods of a cell if some are missing: all, for only one run makes them equal."""
    if found is None or found.distribution != distribution:
        return list(methods)
    there = {**found.methods, **found.skipped}
    return [] if set(methods) <= set(there) else list(dict.fromkeys([*there, *methods]))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hold torch to one thread, as the serial methods are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _settings(
    device: torch.device, time_limit: float, repetitions: int, num_problems: int
) -> Settings:
    packages = ("torch", "numpy", "scipy", "pyamg", "dolfinx-solver-real")
    versions = {"Python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Settings(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        processor=_processor(),
        threads=1,
        versions=versions,
        rtol=RTOL,
        max_iterations=MAX_ITERATIONS,
        time_limit=time_limit,
        repetitions=repetitions,
        num_problems=num_problems,
        seed=SEED,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

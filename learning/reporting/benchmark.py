"""The report of a benchmark: tables by grid and batch size, and time against size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from learning.benchmark.methods import METHODS
from learning.benchmark.results import Benchmark, Cell, Measured, load_benchmark
from learning.reporting import tables
from learning.reporting.benchmark_figure import time_by_size
from learning.reporting.figures import DPI
from mixeddim.tensors import replacing

__all__ = ["write_benchmark_report"]


def write_benchmark_report(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Write `benchmark.md` and its pictures from a file of results.

    Args:
        path: `benchmark.json` of a benchmark.
        folder: Where to write.

    Returns:
        The path of `benchmark.md`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no benchmark, or one without cells.
    """
    benchmark = load_benchmark(Path(path))
    if not benchmark.cells:
        raise ValueError(
            f"got {os.fspath(path)!r}, a benchmark without cells; wanted some. Measure first."
        )
    folder = Path(folder)
    sections = [
        _head(benchmark),
        *(_grid(benchmark, n, size) for n, size in _grids(benchmark)),
        _worst(benchmark),
        _cost(benchmark),
        _training(benchmark),
        _pictures(benchmark, folder),
        _skipped(benchmark),
    ]
    page = folder / "benchmark.md"
    with replacing(page) as part:
        part.write_text("\n\n".join(s for s in sections if s) + "\n", encoding="utf-8")
    return page


# --- Sections ---------------------------------------------------------------------------------


def _head(benchmark: Benchmark) -> str:
    s = benchmark.settings
    versions = ", ".join(f"{name} {number}" for name, number in s.versions.items())
    host = "" if s.kind == "cpu" else f" Methods that are not batched run on {s.processor}."
    return "\n\n".join(
        [
            "# Benchmark",
            f"On {s.where}; {versions}.{host} Made by\n\n```\n{benchmark.command}\n```",
            "All methods solve the same systems for the same right-hand sides, vectors in float64, "
            f"to a true residual of {tables.power(s.rtol)}, in at most {s.max_iterations} "
            f"iterations and {s.time_limit:g} s for all solves of a table's cell. They run once "
            f"untimed, and then take turns, {s.repetitions} times, fewer where the limit is "
            "reached. Times are medians for one system, of set-up and one solve, of the family of "
            "right-hand sides (canonical, physical, random) that takes most iterations; the "
            "assembly of S is not in them. Iterations are the mean of the worst family, and in "
            "brackets the most of all.",
            "Linear symmetric preconditioners run in `learning.cg`, the U-Net in `learning.fgmres`;"
            " rows named KSP run in PETSc's own compiled conjugate gradients, with its own "
            "preconditioners. Methods that take systems one by one (PETSc, PyAMG) are measured on "
            f"the first {s.num_problems} of a batch. Problems and right-hand sides are of seed "
            f"{s.seed}.",
        ]
    )


def _grid(benchmark: Benchmark, num_cells: int, batch_size: int) -> str:
    """Write the table of a grid and a batch size."""
    cells = _cells(benchmark, num_cells, batch_size)
    names = _names(cells)
    rows = []
    for cell in cells:
        fastest = cell.fastest()
        entries = [_entry(cell, name, is_fastest=name == fastest) for name in names]
        rows.append([cell.regime.replace("_", " "), *entries])
    problems = sorted({cell.num_problems for cell in cells})
    return "\n\n".join(
        [
            f"## {num_cells} cells per side, batch of {batch_size}",
            "Iterations, time in ms, and its ratio to the best classical method of the row; the "
            f"fastest in bold. {' or '.join(map(str, problems))} systems a row.",
            tables.table(["regime", *map(_label, names)], rows),
        ]
    )


def _worst(benchmark: Benchmark) -> str:
    """Write the largest iterations and the failures over all regimes, by method."""
    grids = _grids(benchmark)
    rows = []
    for name in _names(benchmark.cells):
        entries = []
        for n, size in grids:
            measured = _of(name, _cells(benchmark, n, size))
            if not measured:
                entries.append(tables.NOTHING)
                continue
            solves = sum(m.num_systems * len(m.mean_iterations) for m in measured)
            failures = sum(m.num_failures for m in measured)
            failed = f", {failures} of {solves} failed" if failures else ""
            entries.append(f"{max(m.most for m in measured)}{failed}")
        rows.append([_label(name), *entries])
    return "\n\n".join(
        [
            "## Worst case",
            "Most iterations of any solve over all regimes measured; one that failed counts as "
            f"{benchmark.settings.max_iterations}.",
            tables.table(["method", *map(_grid_name, grids)], rows),
        ]
    )


def _cost(benchmark: Benchmark) -> str:
    """Write set-up, solve and memory, by method."""
    grids = _grids(benchmark)
    rows = []
    for name in _names(benchmark.cells):
        entries = []
        for n, size in grids:
            measured = [m for m in _of(name, _cells(benchmark, n, size)) if m.seconds is not None]
            if not measured:
                entries.append(tables.NOTHING)
                continue
            setup = np.median([m.setup_seconds or 0.0 for m in measured])
            solve = np.median([m.solve_seconds or 0.0 for m in measured])
            sizes = [m.memory for m in measured if m.memory is not None]
            memory = f", {max(sizes) / 1e6:.0f} MB" if sizes else ""
            entries.append(f"{_ms(float(setup))} + {_ms(float(solve))}{memory}")
        rows.append([_label(name), *entries])
    where = (
        "what torch allocates on the device, for methods that are batched"
        if benchmark.settings.kind != "cpu"
        else "the growth of the process's resident memory"
    )
    return "\n\n".join(
        [
            "## Set-up, solve and memory",
            "Set-up + solve in ms, medians over the regimes in which no solve failed, and the most "
            f"memory for a system in any of them: {where}, at its peak.",
            tables.table(["method", *map(_grid_name, grids)], rows),
        ]
    )


def _training(benchmark: Benchmark) -> str | None:
    """Write the number of solves after which training pays off, by learned method."""
    cells = benchmark.cells
    learned = [name for name in _names(cells) if any(m.is_learned for m in _of(name, cells))]
    if not learned:
        return None
    rows = []
    for cell in cells:
        entries = []
        for name in learned:
            seconds = benchmark.training_seconds.get(name)
            if name not in cell.methods:
                entries.append(tables.NOTHING)
            elif cell.methods[name].seconds is None:
                entries.append("never: it failed")
            elif seconds is None:
                entries.append("training time unknown")
            else:
                solves = cell.break_even(name, seconds)
                entries.append("never" if solves is None else f"{solves:,.0f}")
        fastest = cell.fastest(classical=True)
        best = tables.NOTHING if fastest is None else _label(fastest)
        rows.append([_where(cell), best, *entries])
    costs = [
        f"{_label(name)} {benchmark.training_seconds[name] / 3600:.2g} hours"
        for name in learned
        if name in benchmark.training_seconds
    ]
    cost = f" It took: {', '.join(costs)}, as their model cards say." if costs else ""
    return "\n\n".join(
        [
            "## Training",
            "Number of solves after which training has paid off: its time over what a solve saves "
            f"against the best classical method.{cost}",
            tables.table(["cell", "best classical method", *map(_label, learned)], rows),
        ]
    )


def _pictures(benchmark: Benchmark, folder: Path) -> str | None:
    """Draw time against size, one picture per batch size with several grids."""
    parts = ["## Time against size"]
    for size in sorted({cell.batch_size for cell in benchmark.cells}):
        cells = [cell for cell in benchmark.cells if cell.batch_size == size]
        if len({cell.num_cells for cell in cells}) == 1:
            continue
        name = f"time-batch-{size}.png"
        figure = time_by_size(cells)
        with replacing(folder / name) as part:
            figure.savefig(part, dpi=DPI)
        parts += [f"Batch of {size}:", f"![time against size, batch of {size}]({name})"]
    return "\n\n".join(parts) if len(parts) > 1 else None


def _skipped(benchmark: Benchmark) -> str | None:
    """Write the skipped methods with the reasons, and the errors that ended a set-up."""
    reasons: dict[str, list[str]] = {}
    for cell in benchmark.cells:
        messages = {n: m.message for n, m in cell.methods.items() if m.message is not None}
        for name, reason in {**cell.skipped, **messages}.items():
            reasons.setdefault(f"{_label(name)}: {reason}", []).append(_where(cell))
    if not reasons:
        return None
    lines = [f"- {reason} ({'; '.join(where)})" for reason, where in reasons.items()]
    return "\n".join(["## Not measured", "", *lines])


# --- What they share --------------------------------------------------------------------------


def _entry(cell: Cell, name: str, *, is_fastest: bool) -> str:
    """Write iterations, time and ratio of a method, or the number of failed solves and why."""
    measured = cell.methods.get(name)
    if measured is None:
        return tables.NOTHING
    if measured.seconds is None:
        why = ", ".join(_FAILURES.get(status, status.lower()) for status in measured.failures)
        solves = measured.num_systems * len(measured.mean_iterations)
        return f"{measured.num_failures} of {solves} failed: {why}"
    ratio = cell.ratio(name)
    time = _ms(measured.seconds)
    lines = [
        f"{measured.mean:.1f} ({measured.most})",
        f"**{time}**" if is_fastest else time,
        tables.NOTHING if ratio is None else f"×{ratio:.2f}",
    ]
    return "<br>".join(lines)


_FAILURES: Final = {
    "MAX_ITERATIONS": "iterations",
    "TIME_LIMIT": "time",
    "STAGNATED": "stagnated",
    "ERROR": "error",
}


def _grids(benchmark: Benchmark) -> list[tuple[int, int]]:
    return sorted({(cell.num_cells, cell.batch_size) for cell in benchmark.cells})


def _cells(benchmark: Benchmark, num_cells: int, batch_size: int) -> list[Cell]:
    grid = (num_cells, batch_size)
    return [cell for cell in benchmark.cells if (cell.num_cells, cell.batch_size) == grid]


def _names(cells: Sequence[Cell]) -> list[str]:
    """Return the methods that were measured, in the order of `METHODS`."""
    measured = {name for cell in cells for name in cell.methods}
    return [*(name for name in METHODS if name in measured), *sorted(measured - set(METHODS))]


def _of(name: str, cells: Iterable[Cell]) -> list[Measured]:
    return [cell.methods[name] for cell in cells if name in cell.methods]


def _label(name: str) -> str:
    return METHODS[name].label if name in METHODS else name


def _grid_name(grid: tuple[int, int]) -> str:
    return f"{grid[0]} cells, batch {grid[1]}"


def _where(cell: Cell) -> str:
    return f"{cell.regime.replace('_', ' ')}, {_grid_name((cell.num_cells, cell.batch_size))}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.0995 else f"{1e3 * seconds:.2g}"

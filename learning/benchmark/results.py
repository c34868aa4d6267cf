"""Results of a benchmark, quantities derived from them, and the JSON file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from learning.benchmark.features import Features
from mixeddim.tensors import replacing

__all__ = ["Benchmark", "Cell", "Measured", "Settings", "load_benchmark", "save_benchmark"]

_FORMAT = 1


@dataclass(frozen=True)
class Measured:
    """One method on the systems of a cell; times and memory are for one system.

    Attributes:
        is_learned: Whether it was trained.
        num_systems: How many systems it solved.
        mean_iterations: Mean by family of right-hand sides; a solve that failed counts as the
            largest number allowed.
        most_iterations: Most of them by family.
        failures: How many solves did not reach the tolerance, by the name of their status.
        message: The error that ended the set-up, or None.
        repetitions: How often it was timed; 0 if it failed.
        setup_seconds: Median wall time of the set-up, or None if it failed.
        solve_seconds: The same of the solve, for the family that takes most iterations.
        memory: Most bytes that set-up and solves held at a time, or None if that is unknown.
    """

    is_learned: bool
    num_systems: int
    mean_iterations: Mapping[str, float]
    most_iterations: Mapping[str, int]
    failures: Mapping[str, int]
    message: str | None = None
    repetitions: int = 0
    setup_seconds: float | None = None
    solve_seconds: float | None = None
    memory: float | None = None

    @property
    def mean(self) -> float:
        """Mean number of iterations of the worst family."""
        return max(self.mean_iterations.values())

    @property
    def most(self) -> int:
        """Most iterations of a solve."""
        return max(self.most_iterations.values())

    @property
    def num_failures(self) -> int:
        """Number of solves that failed."""
        return sum(self.failures.values())

    @property
    def seconds(self) -> float | None:
        """Set-up and one solve, or None if one failed."""
        if self.setup_seconds is None or self.solve_seconds is None:
            return None
        return self.setup_seconds + self.solve_seconds


@dataclass(frozen=True)
class Cell:
    """All methods on one regime, grid and batch size, in one run.

    Attributes:
        regime: Name of the regime.
        num_cells: Cells along each side of the cube.
        batch_size: Systems solved together.
        num_problems: Systems in all, of which serial methods solve `Settings.num_problems`.
        distribution: What they were drawn from, as `to_json` of
            `learning.problems.distributions` writes it.
        features: Geometric means of their features.
        methods: What was measured, by name of the method.
        skipped: Why others were not.
    """

    regime: str
    num_cells: int
    batch_size: int
    num_problems: int
    distribution: str
    features: Features
    methods: Mapping[str, Measured]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, int]:
        """The key of a cell of the benchmark: regime, cells per side, batch size."""
        return self.regime, self.num_cells, self.batch_size

    def fastest(self, *, classical: bool = False, among: Iterable[str] | None = None) -> str | None:
        """Return the method of the shortest time, or None if none came through.

        Args:
            classical: Whether to leave learned ones out.
            among: The methods to choose from; all by default.
        """
        times = {
            name: measured.seconds
            for name, measured in self.methods.items()
            if measured.seconds is not None
            and not (classical and measured.is_learned)
            and (among is None or name in among)
        }
        return min(times, key=lambda name: times[name]) if times else None

    def ratio(self, name: str) -> float | None:
        """Return a method's time over that of the best classical one, or None without both."""
        best, seconds = self.fastest(classical=True), self.methods[name].seconds
        if best is None or seconds is None:
            return None
        reference = self.methods[best].seconds
        return None if reference is None else seconds / reference

    def break_even(self, name: str, training_seconds: float) -> float | None:
        """Return after how many solves training has paid off, or None if it never does."""
        best, seconds = self.fastest(classical=True), self.methods[name].seconds
        if best is None or seconds is None:
            return None
        saved = (self.methods[best].seconds or 0.0) - seconds
        return training_seconds / saved if saved > 0 else None


@dataclass(frozen=True)
class Settings:
    """Shared by all cells of a file.

    Attributes:
        device: Where the batched methods ran.
        processor: The CPU, where all others did.
        threads: Threads of torch; of other libraries as many as OMP_NUM_THREADS says.
        versions: Name of a package -> its version.
        rtol: Tolerance on the true residual, in units of the right-hand side's norm.
        max_iterations: Where a solve was given up.
        time_limit: Seconds after which a method was given up in a cell.
        repetitions: How often a method was timed in a cell, if that took less than the limit.
        num_problems: Systems of a cell, filled up to whole batches.
        seed: Of problems and right-hand sides.
    """

    device: str
    processor: str
    threads: int
    versions: Mapping[str, str]
    rtol: float
    max_iterations: int
    time_limit: float
    repetitions: int
    num_problems: int
    seed: int

    @property
    def kind(self) -> str:
        """Type of the device, as torch names it: "cpu" or "cuda"."""
        return "cpu" if self.device == "CPU" else "cuda"

    @property
    def where(self) -> str:
        """The device, and on the CPU its name and threads."""
        if self.kind != "cpu":
            return self.device
        return f"{self.processor}, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True)
class Benchmark:
    """All that a benchmark measured.

    Attributes:
        command: The command line.
        settings: What the cells share.
        cells: In the order in which they were measured.
        training_seconds: Name of a learned method -> time of its training, where that is known.
    """

    command: str
    settings: Settings
    cells: tuple[Cell, ...] = ()
    training_seconds: Mapping[str, float] = field(default_factory=dict)

    def cell(self, regime: str, num_cells: int, batch_size: int) -> Cell | None:
        """Return a cell, or None if it was not measured."""
        key = (regime, num_cells, batch_size)
        return next((cell for cell in self.cells if cell.key == key), None)

    def with_cell(self, cell: Cell) -> Benchmark:
        """Return this with a cell added, in place of the one that was there."""
        others = tuple(other for other in self.cells if other.key != cell.key)
        return replace(self, cells=(*others, cell))


# --- The file ---------------------------------------------------------------------------------


def save_benchmark(benchmark: Benchmark, path: Path) -> None:
    """Write a benchmark to a JSON file, numbers to four digits, replacing it in one step.

    Args:
        benchmark: What to write.
        path: The file; an existing one stays whole until the new one is complete.
    """
    content = _rounded(asdict(benchmark))
    cells = ",\n".join(json.dumps(cell, allow_nan=False) for cell in content.pop("cells"))
    head = json.dumps({"format": _FORMAT, **content}, allow_nan=False)
    with replacing(path) as part:
        part.write_text(f'{head[:-1]}, "cells": [\n{cells}\n]}}\n', encoding="utf-8")


def load_benchmark(path: Path) -> Benchmark:
    """Read a file of `save_benchmark`.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no benchmark, or one of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"got {str(path)!r}, which is no file; wanted one that `python -m learning benchmark` "
            "wrote. Check the path, or measure first."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise ValueError(f"it is of another format than {_FORMAT}")
        return Benchmark(
            command=content["command"],
            settings=_read(Settings, content["settings"]),
            cells=tuple(_cell(cell) for cell in content["cells"]),
            training_seconds=content["training_seconds"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"got {str(path)!r}, which holds no benchmark ({error}); wanted a file that `python -m "
            "learning benchmark` of this version wrote. Measure again."
        ) from error


def _cell(content: dict[str, Any]) -> Cell:
    content["features"] = _read(Features, content["features"])
    content["methods"] = {
        name: _read(Measured, measured) for name, measured in content["methods"].items()
    }
    return _read(Cell, content)


def _read[T](kind: type[T], content: dict[str, Any]) -> T:
    unknown = set(content) ^ {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{kind.__name__} with or without {sorted(unknown)}")
    return kind(**content)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value

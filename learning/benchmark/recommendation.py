"""Recommend a preconditioner: the fastest one on the measured system most like yours."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

import numpy as np
import torch

from learning.benchmark.features import features_of
from learning.benchmark.methods import METHODS, Method, PetscCG
from learning.benchmark.results import Benchmark, Cell, load_benchmark
from learning.devices import usable_device
from learning.krylov.preconditioner import Preconditioner
from mixeddim.tensors import ReducedSystem

__all__ = ["Recommendation", "recommend"]

_FOLDER = resources.files("learning") / "benchmarks"

ALIKE: Final = 2.0  # the factor within which a feature counts as measured


@dataclass(frozen=True, eq=False)
class Recommendation:
    """A preconditioner, and why.

    Attributes:
        name: Its name in `learning.benchmark.methods.METHODS`.
        preconditioner: Ready for `learning.solve`, on the device asked for.
        reason: What was measured, where, and how that differs from the problem.
    """

    name: str
    preconditioner: Preconditioner
    reason: str


def recommend(
    problem: ReducedSystem, device: torch.device | str = "cpu", batch_size: int = 1
) -> Recommendation:
    """Recommend the preconditioner that was fastest, set-up included, on the system most like one.

    "Like" is by what `learning.benchmark.features` reads off the matrices, the batch size, and the
    kind of device; what was measured comes with the package (`learning/benchmarks`).

    Args:
        problem: The system.
        device: Where to solve.
        batch_size: How many systems like it are solved together.

    Raises:
        ValueError: If the problem is not reduced, there is no such device, not at least one
            system, or nothing that was measured fits the problem.
        FileNotFoundError: If the package was installed without its measurements.
    """
    if not isinstance(problem, ReducedSystem):
        raise ValueError(
            f"got a {type(problem).__name__}; wanted a ReducedSystem. Reduce it with "
            "mixeddim.reduce(system)."
        )
    problem.processes.refuse("recommend")
    if batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}; wanted at least 1. Raise it.")
    device = usable_device(device)
    candidates = [name for name, method in METHODS.items() if _is_usable(method, problem)]
    benchmark, cell, pairs = _nearest(problem, device, batch_size, candidates)
    name = cell.fastest(among=candidates)
    assert name is not None  # _nearest chose one with a fastest
    preconditioner = METHODS[name].build(device)
    assert not isinstance(preconditioner, PetscCG)  # no candidate is
    reason = _figures(name, benchmark, cell, candidates) + _caveats(pairs, benchmark, device)
    return Recommendation(name, preconditioner, reason)


@lru_cache(maxsize=1)
def _measured() -> tuple[Benchmark, ...]:
    """Read the measurements that come with the package, one file for each machine."""
    files = [entry for entry in _FOLDER.iterdir() if entry.name.endswith(".json")]
    if not files:
        raise FileNotFoundError(
            "got no measurements in learning/benchmarks; wanted the files of this version. "
            "Install the package again."
        )
    benchmarks = []
    for entry in sorted(files, key=lambda entry: entry.name):
        with resources.as_file(entry) as path:
            benchmarks.append(load_benchmark(path))
    return tuple(benchmarks)


def _is_usable(method: Method, problem: ReducedSystem) -> bool:
    """Whether a method is a preconditioner, installed here, that fits the problem."""
    return (
        method.is_preconditioner
        and (problem.grid is not None or not method.needs_grid)
        and len(problem.b_3) <= method.most_unknowns
        and (method.package is None or importlib.util.find_spec(method.package) is not None)
    )


def _nearest(
    problem: ReducedSystem, device: torch.device, batch_size: int, candidates: Sequence[str]
) -> tuple[Benchmark, Cell, dict[str, tuple[float, float]]]:
    """Return the measurement nearest to a problem, and by feature the values of both.

    One on the same kind of device is nearer than any other.
    """
    here = {**features_of(problem).values, "batch_size": float(batch_size)}
    found: list[tuple[tuple[bool, float], Benchmark, Cell, dict[str, tuple[float, float]]]] = []
    for benchmark in _measured():
        for cell in benchmark.cells:
            if cell.fastest(among=candidates) is not None:
                there = {**cell.features.values, "batch_size": float(cell.batch_size)}
                pairs = {name: (here[name], there[name]) for name in here}
                distance = sum(abs(np.log(a / b)) for a, b in pairs.values())
                key = (benchmark.settings.kind != device.type, float(distance))
                found.append((key, benchmark, cell, pairs))
    if not found:
        raise ValueError(
            f"got measurements of none of {list(candidates)}, which fit this problem and are "
            "installed; wanted some. Install PETSc or PyAMG, or use Jacobi()."
        )
    return min(found, key=lambda entry: entry[0])[1:]


def _figures(name: str, benchmark: Benchmark, cell: Cell, candidates: Sequence[str]) -> str:
    """Say what was measured."""
    measured = cell.methods[name]
    setup, solve = measured.setup_seconds or 0.0, measured.solve_seconds or 0.0
    text = (
        f"{name} was the fastest in regime {cell.regime}, {cell.num_cells} cells per side, batch "
        f"of {cell.batch_size}, on {benchmark.settings.where}: {_ms(setup + solve)} per system "
        f"(set-up {_ms(setup)}, solve {_ms(solve)}, {measured.mean:.1f} iterations, at most "
        f"{measured.most})"
    )
    second = cell.fastest(among=[other for other in candidates if other != name])
    if second is not None:
        seconds = cell.methods[second].seconds or 0.0
        text += f", {(setup + solve) / seconds:.2f} times that of {second}, {_ms(seconds)}"
    ratio = cell.ratio(name)
    if measured.is_learned and ratio is not None:
        text += f" and {ratio:.2f} times that of the best classical method"
    return f"{text}."


def _caveats(
    pairs: Mapping[str, tuple[float, float]], benchmark: Benchmark, device: torch.device
) -> str:
    """Say where the problem differs from what was measured."""
    text = ""
    if benchmark.settings.kind != device.type:
        text += f" Nothing was measured on {device.type}."
    far = {
        name: (here, there)
        for name, (here, there) in pairs.items()
        if abs(np.log(here / there)) > np.log(ALIKE)
    }
    if far:
        parts = (
            f"{name.replace('_', ' ')} {here:.3g} against {there:.3g}"
            for name, (here, there) in far.items()
        )
        text += f" The problem itself was not measured, this is the nearest: {', '.join(parts)}."
    return text


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"

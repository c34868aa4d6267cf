"""Measure methods on the same batches of systems, taking turns (see `learning.benchmark.run`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from learning.benchmark.memory import free_memory, most_memory
from learning.benchmark.methods import METHODS, Method, Solver, Stop
from learning.benchmark.results import Measured, Settings
from learning.evaluation.measures import RIGHT_HAND_SIDES
from learning.problems.data import FAMILIES, Problem, right_hand_side
from learning.systems.operators import SystemBatch, batch_systems
from mixeddim.tensors import ReducedSystem

__all__ = ["measure"]

COPIES = 4  # of a dense matrix, at most, while it is being factored


def measure(
    problems: Sequence[Problem],
    names: Sequence[str],
    batch_size: int,
    settings: Settings,
    device: torch.device,
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure methods on the same systems, right-hand sides and tolerance.

    Args:
        problems: A whole number of batches.
        names: Names of `METHODS`.
        batch_size: Systems solved together.
        settings: Tolerance, limits and repetitions.
        device: Where to solve.

    Returns:
        The measurements, and the reasons for skipped methods, by name of the method.
    """
    systems = [problem.reduced for problem in problems]
    methods = {name: METHODS[name] for name in names}
    reasons = {name: _obstacle(m, systems, batch_size, device) for name, m in methods.items()}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    methods = {name: method for name, method in methods.items() if name not in skipped}
    if not methods:
        return {}, skipped
    batched = _batches(problems, batch_size, settings, device)
    single = batched
    if batch_size > 1:
        single = _batches(problems[: settings.num_problems], 1, settings, device)
    trials = {}
    for name, method in methods.items():
        batches = batched if method.is_batched else single
        try:
            trials[name] = _Trial(method.solver(device), batches, settings)
            trials[name].run_untimed(device if method.is_batched else torch.device("cpu"))
        except ImportError as error:
            skipped[name] = str(error)
            trials.pop(name, None)
    for repetition in range(settings.repetitions):
        for trial in trials.values():
            if repetition < trial.repetitions:
                trial.run_timed()
    measured = {
        name: trial.measured(is_learned=methods[name].pretrained is not None)
        for name, trial in trials.items()
    }
    return measured, skipped


# --- What is solved ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Batch:
    """Systems, also as tensors, and right-hand sides by family, each of shape (batch, n_3)."""

    systems: list[ReducedSystem]
    tensors: SystemBatch
    right_hand_sides: dict[str, torch.Tensor]

    @property
    def fresh_tensors(self) -> SystemBatch:
        """The batch without what another method or repetition made of the tissue."""
        return replace(self.tensors, kept={})

    @property
    def fresh_systems(self) -> list[ReducedSystem]:
        """Copies with the operator only, so that no set-up reuses the work of another one."""
        return [_fresh(system) for system in self.systems]


_OPERATOR = ("A_0", "A_33", "A_31", "A_13", "solve_11", "L_11", "S", "g")


def _fresh(system: ReducedSystem) -> ReducedSystem:
    copy = replace(system)
    vars(copy).update({name: getattr(system, name) for name in _OPERATOR})
    return copy


def _batches(
    problems: Sequence[Problem], batch_size: int, settings: Settings, device: torch.device
) -> list[_Batch]:
    batches = []
    for start in range(0, len(problems), batch_size):
        chosen = problems[start : start + batch_size]
        systems = [problem.reduced for problem in chosen]
        tensors = batch_systems(systems, torch.float64, device)
        right_hand_sides = {}
        for number, family in enumerate(FAMILIES):
            rows = [
                right_hand_side(
                    problem,
                    family,
                    np.random.default_rng([RIGHT_HAND_SIDES, settings.seed, start + i, number]),
                )
                for i, problem in enumerate(chosen)
            ]
            right_hand_sides[family] = torch.tensor(np.stack(rows)).to(tensors.g)
        batches.append(_Batch(systems, tensors, right_hand_sides))
    return batches


def _obstacle(
    method: Method, systems: Sequence[ReducedSystem], batch_size: int, device: torch.device
) -> str | None:
    """Return the reason why a method cannot be tried, or None."""
    unknowns = len(systems[0].b_3)
    if unknowns > method.most_unknowns:
        return f"not tried with more than {method.most_unknowns:.0f} unknowns"
    size = 0
    if device.type in method.dense_on:
        size = max(len(system.weights) for system in systems)
    if device.type == "cuda":  # the inverse of the network block
        size = max(size, *(len(system.b_1) for system in systems))
    needed = COPIES * 8.0 * size**2 * batch_size
    if needed > free_memory(device):
        return f"needs about {needed / 1e9:.0f} GB for its dense matrices of {size} by {size}"
    return None


# --- A method on all batches ------------------------------------------------------------------


@dataclass(eq=False)
class _Trial:
    """Runs of one method."""

    solver: Solver
    batches: Sequence[_Batch]
    settings: Settings
    iterations: dict[str, list[int]] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)
    message: str | None = None
    memory: float | None = None
    repetitions: int = 0
    setup_times: list[float] = field(default_factory=list)
    solve_times: list[float] = field(default_factory=list)

    @property
    def num_systems(self) -> int:
        return sum(len(batch.systems) for batch in self.batches)

    def run_untimed(self, device: torch.device) -> None:
        """Solve for all families: iterations, failures, memory, and the number of repetitions."""
        limit, most = self.settings.time_limit, self.settings.max_iterations
        self.iterations = {family: [] for family in FAMILIES}
        began = time.perf_counter()
        try:
            with most_memory(device) as use:
                began = time.perf_counter()
                stop = Stop(self.settings.rtol, most, began + limit)
                for batch in self.batches:
                    self._solve_all(batch, stop)
        except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:
            self.message = f"{type(error).__name__}: {error}"
            for iterations in self.iterations.values():
                missing = self.num_systems - len(iterations)
                iterations += [most] * missing
                self.statuses += ["ERROR"] * missing
        else:
            self.memory = None if use.bytes is None else use.bytes / len(self.batches[0].systems)
        if set(self.statuses) == {"CONVERGED"}:
            fitting = int(limit / (time.perf_counter() - began))
            self.repetitions = min(max(fitting, 1), self.settings.repetitions)

    def _solve_all(self, batch: _Batch, stop: Stop) -> None:
        with torch.no_grad():
            solve = None
            for family, b in batch.right_hand_sides.items():
                if time.perf_counter() > stop.deadline:
                    iterations, statuses = [stop.max_iterations] * len(b), ["TIME_LIMIT"] * len(b)
                else:
                    if solve is None:
                        solve = self.solver.setup(batch.fresh_systems, batch.fresh_tensors, stop)
                    solved = solve(b)
                    iterations, statuses = solved.iterations, solved.statuses
                self.statuses += statuses
                self.iterations[family] += [
                    n if status == "CONVERGED" else stop.max_iterations
                    for n, status in zip(iterations, statuses, strict=True)
                ]

    def run_timed(self) -> None:
        """Time the set-up, and the solve for the family with the most iterations."""
        means = {family: np.mean(counts) for family, counts in self.iterations.items()}
        worst = max(means, key=lambda family: means[family])
        stop = Stop(self.settings.rtol, self.settings.max_iterations)
        setup_time = solve_time = 0.0
        for batch in self.batches:
            systems = batch.fresh_systems
            solve, seconds = _timed(
                self.solver.setup, batch.tensors, systems, batch.fresh_tensors, stop
            )
            setup_time += seconds
            _, seconds = _timed(solve, batch.tensors, batch.right_hand_sides[worst])
            solve_time += seconds
        self.setup_times.append(setup_time / self.num_systems)
        self.solve_times.append(solve_time / self.num_systems)

    def measured(self, *, is_learned: bool) -> Measured:
        failed = [status for status in self.statuses if status != "CONVERGED"]
        return Measured(
            is_learned=is_learned,
            num_systems=self.num_systems,
            mean_iterations={f: float(np.mean(counts)) for f, counts in self.iterations.items()},
            most_iterations={f: max(counts) for f, counts in self.iterations.items()},
            failures={status: failed.count(status) for status in dict.fromkeys(failed)},
            message=self.message,
            repetitions=len(self.setup_times),
            setup_seconds=float(np.median(self.setup_times)) if self.setup_times else None,
            solve_seconds=float(np.median(self.solve_times)) if self.solve_times else None,
            memory=self.memory,
        )


def _timed[**P, T](
    function: Callable[P, T], batch: SystemBatch, *args: P.args, **kwargs: P.kwargs
) -> tuple[T, float]:
    """Call a function without gradients; returns its result and its wall time in seconds."""
    is_cuda = batch.g.is_cuda
    if is_cuda:
        torch.cuda.synchronize(batch.g.device)
    began = time.perf_counter()
    with torch.no_grad():
        result = function(*args, **kwargs)
    if is_cuda:
        torch.cuda.synchronize(batch.g.device)
    return result, time.perf_counter() - began

"""Measure preconditioners on unseen problems: iterations, sines, and both by epoch of training.

Each problem has one right-hand side per family. Its generator is seeded by the problem and the
family, so it is the same for every preconditioner, in batches of any size.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learning.devices import usable_device
from learning.evaluation.results import (
    DataSummary,
    EpochResult,
    Evaluation,
    Measurement,
    SineProfile,
)
from learning.krylov.fgmres import KrylovResult, Status, fgmres
from learning.krylov.preconditioner import Preconditioner
from learning.preconditioners.architectures import preconditioner_of
from learning.problems.data import FAMILIES, Dataset, Problem, check_families, right_hand_side
from learning.progress import progress_bar
from learning.systems.operators import SystemBatch, batch_systems
from learning.training.weights import load_weights

__all__ = ["evaluate", "evaluate_epochs", "sine_profile"]

# Relative residuals below this are rounding error, and so are the sines that follow.
ROUNDING = 1e-12

# Keeps the seeds apart from those of training.
RIGHT_HAND_SIDES = 3


def evaluate(
    preconditioners: Mapping[str, Preconditioner],
    problems: Sequence[Problem],
    *,
    num_problems: int | None = None,
    families: Sequence[str] = FAMILIES,
    rtol: float = 1e-6,
    max_iterations: int = 250,
    seed: int = 0,
    batch_size: int = 10,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> Evaluation:
    """Solve problems by FGMRES without restarts in float64, with each preconditioner.

    Args:
        preconditioners: Preconditioners on `device`, by name.
        problems: A data set, or any problems on one grid.
        num_problems: Number of problems to solve, from the first; by default all of them. A larger
            number than there are means all.
        families: Families of right-hand sides, from `learning.problems.data.FAMILIES`.
        rtol: Wanted norm of the true residual, in units of the right-hand side's norm.
        max_iterations: Largest number of iterations.
        seed: Seed of the right-hand sides.
        batch_size: Number of problems solved together. Each needs memory for two vectors per
            iteration; results change by rounding only.
        device: Where to solve.
        progress: Whether to show a bar; by default where stderr is a terminal.

    Raises:
        ValueError: If there is no problem, no preconditioner or no such family.
    """
    num_problems = _number_of(problems, num_problems)
    check_families(families)
    if batch_size < 1 or not preconditioners:
        raise ValueError(
            f"got batch_size={batch_size} and {len(preconditioners)} preconditioners; wanted at "
            "least one of each. Pass some."
        )
    collected: dict[str, dict[str, list[_Solves]]] = {
        family: {name: [] for name in preconditioners} for family in families
    }
    total = num_problems * len(families) * len(preconditioners)
    device = usable_device(device)
    with progress_bar(progress, total=total, unit="system", desc="solving") as bar:
        for indices, batch_problems, batch in _batches(problems, num_problems, batch_size, device):
            systems = [problem.reduced for problem in batch_problems]
            right_hand_sides = {
                family: _right_hand_sides(batch_problems, indices, family, seed, batch)
                for family in families
            }
            for name, preconditioner in preconditioners.items():
                precondition, setup_time = _timed(preconditioner.setup, batch, systems, batch)
                for family, b in right_hand_sides.items():
                    bar.set_postfix_str(f"{name}, {family}")
                    result, solve_time = _timed(
                        fgmres,
                        batch,
                        batch.apply,
                        b,
                        precondition,
                        rtol=rtol,
                        max_iterations=max_iterations,
                    )
                    solves = _solves(result, setup_time + solve_time, max_iterations)
                    collected[family][name].append(solves)
                    bar.update(len(indices))
    return Evaluation(
        data=_summary(problems, num_problems),
        rtol=rtol,
        max_iterations=max_iterations,
        seed=seed,
        torch_version=torch.__version__,
        device=_describe(device),
        measurements={
            family: {name: _measurement(solves) for name, solves in by_name.items()}
            for family, by_name in collected.items()
        },
    )


def sine_profile(
    preconditioner: Preconditioner,
    problems: Sequence[Problem],
    *,
    num_problems: int | None = None,
    family: str = "canonical",
    window: int = 10,
    num_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 10,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> SineProfile:
    """Record the sines of FGMRES over a fixed number of steps.

    With a strong preconditioner, a solve to a tolerance would end inside the window over which
    sines are averaged and lines are fitted. Here a system stops only at rounding error.

    Args:
        preconditioner: A preconditioner on `device`.
        problems: As in `evaluate`, which uses the same right-hand sides.
        num_problems: As in `evaluate`.
        family: Family of right-hand sides.
        window: Number of steps m over which means and fits are taken.
        num_steps: Number of steps to record; three windows by default.
        seed: As in `evaluate`.
        batch_size: As in `evaluate`.
        device: As in `evaluate`.
        progress: As in `evaluate`.

    Raises:
        ValueError: If there is no problem, no such family, or `num_steps` is less than `window`.
    """
    num_steps = 3 * window if num_steps is None else num_steps
    if not 1 <= window <= num_steps:
        raise ValueError(
            f"got a window of {window} in {num_steps} steps; wanted 1 <= window <= num_steps. "
            "Correct them."
        )
    num_problems = _number_of(problems, num_problems)
    check_families([family])
    sines = []
    with progress_bar(progress, total=num_problems, unit="system", desc="sines") as bar:
        for indices, batch_problems, batch in _batches(problems, num_problems, batch_size, device):
            b = _right_hand_sides(batch_problems, indices, family, seed, batch)
            with torch.no_grad():
                systems = [problem.reduced for problem in batch_problems]
                precondition = preconditioner.setup(systems, batch)
                result = fgmres(batch.apply, b, precondition, rtol=0.0, max_iterations=num_steps)
            sines.append(_meaningful_sines(result, num_steps))
            bar.update(len(indices))
    return SineProfile(
        data=_summary(problems, num_problems),
        family=family,
        seed=seed,
        window=window,
        sines=np.concatenate(sines),
    )


def evaluate_epochs(
    run_folder: str | os.PathLike[str],
    problems: Sequence[Problem],
    *,
    epochs: Sequence[int] | None = None,
    num_problems: int | None = 20,
    family: str = "canonical",
    window: int = 10,
    rtol: float = 1e-6,
    max_iterations: int = 250,
    seed: int = 0,
    batch_size: int = 10,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> tuple[EpochResult, ...]:
    """Measure the weights after each epoch of a training run.

    Args:
        run_folder: Folder of the run, with `epochs/0000.safetensors` and so on.
        problems: As in `evaluate`.
        epochs: The epochs to measure; by default all whose weights are in the folder.
        num_problems: As in `evaluate`; a few problems show the trend.
        family: Family of right-hand sides.
        window: Number of steps m over which means and fits are taken.
        rtol: As in `evaluate`.
        max_iterations: As in `evaluate`.
        seed: As in `evaluate`.
        batch_size: As in `evaluate`.
        device: As in `evaluate`.
        progress: As in `evaluate`.

    Returns:
        One entry per epoch, in order.

    Raises:
        ValueError: If the folder has no weights by epoch, or lacks the weights of a wanted epoch.
    """
    folder = Path(run_folder) / "epochs"
    files = {int(file.stem): file for file in folder.glob("[0-9]*.safetensors")}
    chosen = sorted(files) if epochs is None else sorted(set(epochs))
    if not chosen or set(chosen) - set(files):
        raise ValueError(
            f"got epochs {chosen} of {folder}, which holds {sorted(files)}; wanted at least one "
            "epoch, all of them there. Pass the folder of a training run."
        )
    common: dict[str, Any] = {
        "num_problems": num_problems,
        "seed": seed,
        "batch_size": batch_size,
        "device": device,
        "progress": False,
    }
    results = []
    for epoch in progress_bar(progress, iterable=chosen, unit="epoch", desc="by epoch"):
        preconditioner = preconditioner_of(load_weights(files[epoch]).model.to(device))
        solved = evaluate(
            {"trained": preconditioner},
            problems,
            families=[family],
            rtol=rtol,
            max_iterations=max_iterations,
            **common,
        )
        profile = sine_profile(
            preconditioner, problems, family=family, window=window, num_steps=window, **common
        )
        results.append(EpochResult(epoch, profile, solved.measurements[family]["trained"]))
    return tuple(results)


# --- Batches ----------------------------------------------------------------------------------


def _batches(
    problems: Sequence[Problem], num_problems: int, batch_size: int, device: torch.device | str
) -> Iterator[tuple[range, list[Problem], SystemBatch]]:
    for start in range(0, num_problems, batch_size):
        indices = range(start, min(start + batch_size, num_problems))
        chosen = [problems[index] for index in indices]
        systems = [problem.reduced for problem in chosen]
        yield indices, chosen, batch_systems(systems, torch.float64, device)


def _right_hand_sides(
    problems: Sequence[Problem], indices: range, family: str, seed: int, batch: SystemBatch
) -> torch.Tensor:
    number = FAMILIES.index(family)
    rows = [
        right_hand_side(
            problem, family, np.random.default_rng([RIGHT_HAND_SIDES, seed, index, number])
        )
        for problem, index in zip(problems, indices, strict=True)
    ]
    return torch.tensor(np.stack(rows)).to(batch.g)


def _timed[**P, T](
    function: Callable[P, T], batch: SystemBatch, *args: P.args, **kwargs: P.kwargs
) -> tuple[T, float]:
    """Call a function without gradients; returns its result and its wall time in seconds."""
    if batch.g.is_cuda:
        torch.cuda.synchronize(batch.g.device)
    began = time.perf_counter()
    with torch.no_grad():
        result = function(*args, **kwargs)
    if batch.g.is_cuda:
        torch.cuda.synchronize(batch.g.device)
    return result, time.perf_counter() - began


# --- Results of a batch -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Solves:
    """The solves of a batch: iterations, statuses, relative residuals and time."""

    iterations: NDArray[np.int64]
    statuses: list[str]
    history: NDArray[np.float64]
    seconds: float


def _solves(result: KrylovResult, seconds: float, max_iterations: int) -> _Solves:
    statuses = [status.name for status in result.status]
    solved = np.array([status is Status.CONVERGED for status in result.status])
    iterations = np.where(solved, result.iterations.cpu().numpy(), max_iterations)
    history = (result.residual_norms / result.residual_norms[0]).cpu().numpy().T
    return _Solves(iterations, statuses, history, seconds)


def _measurement(batches: Sequence[_Solves]) -> Measurement:
    statuses = [status for batch in batches for status in batch.statuses]
    length = max(batch.history.shape[1] for batch in batches)
    history = np.concatenate(
        [
            np.pad(batch.history, ((0, 0), (0, length - batch.history.shape[1])), mode="edge")
            for batch in batches
        ]
    )
    return Measurement(
        iterations=np.concatenate([batch.iterations for batch in batches]),
        failures={i: name for i, name in enumerate(statuses) if name != Status.CONVERGED.name},
        mean_log10_residuals=np.log10(np.maximum(history, ROUNDING)).mean(axis=0),
        seconds=sum(batch.seconds for batch in batches) / len(statuses),
    )


def _meaningful_sines(result: KrylovResult, num_steps: int) -> NDArray[np.float64]:
    """Return the sines, shape (batch, num_steps), NaN after a system has stopped."""
    sines = result.sines.cpu().numpy().T
    before = np.cumprod(np.hstack([np.ones((len(sines), 1)), sines[:, :-1]]), axis=1)
    steps = np.arange(1, sines.shape[1] + 1)
    running = (steps <= result.iterations.cpu().numpy()[:, None]) & (before > ROUNDING)
    kept = np.where(running, sines, np.nan)
    return np.pad(kept, ((0, 0), (0, num_steps - kept.shape[1])), constant_values=np.nan)


def _summary(problems: Sequence[Problem], num_problems: int) -> DataSummary:
    if not isinstance(problems, Dataset):
        return DataSummary(num_problems)
    distribution = asdict(problems.distribution)
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in distribution.items()}
    return DataSummary(num_problems, problems.content_hash, problems.seed, plain)


def _describe(device: torch.device | str) -> str:
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type.upper()} ({threads} thread{'s' if threads > 1 else ''})"


def _number_of(problems: Sequence[Problem], num_problems: int | None) -> int:
    available = len(problems)
    wanted = available if num_problems is None else min(num_problems, available)
    if wanted < 1:
        raise ValueError(
            f"got {available} problems, of which to take {num_problems}; wanted at least one. "
            "Generate some, or raise the number."
        )
    return wanted

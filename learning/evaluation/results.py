"""Results of an evaluation, quantities derived from them, and the JSON file that keeps them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixeddim.tensors import replacing

__all__ = [
    "DataSummary",
    "EpochResult",
    "Evaluation",
    "LineFit",
    "Measurement",
    "Results",
    "SineProfile",
    "fit_line",
    "load_results",
    "save_results",
]

_FORMAT = 1


@dataclass(frozen=True)
class LineFit:
    """A straight line, slope x + intercept."""

    slope: float
    intercept: float


def fit_line(x: NDArray[Any], y: NDArray[np.float64]) -> LineFit:
    """Fit a line by least squares to the points with finite y; NaN with fewer than two."""
    known = np.isfinite(y)
    if known.sum() < 2:
        return LineFit(np.nan, np.nan)
    x, y = x[known], y[known]
    slope = float(np.dot(x - x.mean(), y - y.mean()) / np.square(x - x.mean()).sum())
    return LineFit(slope, float(y.mean() - slope * x.mean()))


@dataclass(frozen=True)
class DataSummary:
    """The problems that were solved.

    Attributes:
        num_problems: Number of problems.
        content_hash: Hash of their data set, or None if they are from no data set.
        seed: Seed of their generation, or None.
        distribution: Fields of the distribution they were drawn from, or None.
    """

    num_problems: int
    content_hash: str | None = None
    seed: int | None = None
    distribution: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Measurement:
    """Solves of all problems with one preconditioner and one family of right-hand sides.

    Attributes:
        iterations: FGMRES steps to the tolerance, shape (num_problems,); a solve that failed
            counts as the largest number allowed.
        failures: Index of each problem that did not converge -> name of its status.
        mean_log10_residuals: Mean over the problems of log10(|r_k| / |r_0|), from k = 0 to the
            slowest solve; a system that has stopped keeps its last residual.
        seconds: Wall time of set-up and solve per system; not a benchmark.
    """

    iterations: NDArray[np.int64]
    failures: Mapping[int, str]
    mean_log10_residuals: NDArray[np.float64]
    seconds: float

    @property
    def mean(self) -> float:
        """Mean number of iterations."""
        return float(self.iterations.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the number of iterations over the problems."""
        return float(self.iterations.std())

    @property
    def min(self) -> int:
        """Fewest iterations."""
        return int(self.iterations.min())

    @property
    def max(self) -> int:
        """Most iterations."""
        return int(self.iterations.max())


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Iteration counts of several preconditioners on one data set.

    Attributes:
        data: The problems.
        rtol: Tolerance on the true residual, in units of the right-hand side's norm.
        max_iterations: Largest number of iterations.
        seed: Seed of the right-hand sides.
        torch_version: Version of torch.
        device: Where the solves ran.
        measurements: Family of right-hand sides -> name of the preconditioner -> measurement.
    """

    data: DataSummary
    rtol: float
    max_iterations: int
    seed: int
    torch_version: str
    device: str
    measurements: Mapping[str, Mapping[str, Measurement]]


@dataclass(frozen=True, eq=False)
class SineProfile:
    """Sines of FGMRES with one preconditioner over a fixed number of steps.

    Attributes:
        data: The problems.
        family: Family of right-hand sides.
        seed: Seed of the right-hand sides.
        window: Number of steps m over which means and fits are taken.
        sines: Shape (num_problems, num_steps); NaN after a system has stopped, or once its residual
            is rounding error.
    """

    data: DataSummary
    family: str
    seed: int
    window: int
    sines: NDArray[np.float64]

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps k of the sines, from 1, shape (num_steps,)."""
        return np.arange(1, self.sines.shape[1] + 1)

    @property
    def mean_sines(self) -> NDArray[np.float64]:
        """Mean over the systems that still run, shape (num_steps,); NaN where none runs."""
        return _mean_of_known(self.sines)

    @property
    def mean_log_residuals(self) -> NDArray[np.float64]:
        """Mean of log(|r_k| / |r_0|), natural, from k = 0, shape (num_steps + 1,).

        It is the sum of the mean log sines. While all systems run, this equals the plain mean;
        later it continues with those that still run, without a jump where one stops.
        """
        with np.errstate(divide="ignore"):
            logarithms = np.log(self.sines)
        logarithms[np.isneginf(logarithms)] = np.nan  # the last step before an exact solution
        return np.concatenate([[0.0], np.cumsum(_mean_of_known(logarithms))])

    @property
    def mean_sine(self) -> float:
        """Mean sine over the window and the systems that still run."""
        return float(_mean_of_known(self.sines[:, : self.window].reshape(-1, 1))[0])

    @property
    def sine_fit(self) -> LineFit:
        """The line s_k = a k + b through the mean sines of the window."""
        return fit_line(self.steps[: self.window], self.mean_sines[: self.window])

    @property
    def convergence_estimate(self) -> float:
        """The paper's estimate b^m of the residual's reduction over the window."""
        return float(np.power(self.sine_fit.intercept, self.window))

    @property
    def residual_fit(self) -> LineFit:
        """The line log(|r_k| / |r_0|) = alpha k + beta through 0 <= k <= m, natural logarithm."""
        log_residuals = self.mean_log_residuals[: self.window + 1]
        return fit_line(np.arange(len(log_residuals)), log_residuals)


@dataclass(frozen=True, eq=False)
class EpochResult:
    """Results with the weights after one epoch of training.

    Attributes:
        epoch: Number of finished epochs; 0 is the start of the stage.
        profile: Sines over the window.
        measurement: Solves to the tolerance.
    """

    epoch: int
    profile: SineProfile
    measurement: Measurement


@dataclass(frozen=True, eq=False)
class Results:
    """All results of one command.

    Attributes:
        command: The command line.
        weights: Name of the preconditioner -> SHA-256 of its weights, where it has any.
        evaluations: Name of the data set -> iteration counts. The first data set has the
            distribution of the training, the others lie outside of it.
        profiles: Family of right-hand sides -> name of the preconditioner -> sines.
        epochs: Results of the dynamic stage after each epoch.
        run: SHA-256 of the last weights of the run that `epochs` is about.
    """

    command: str
    weights: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, SineProfile]] = field(default_factory=dict)
    epochs: tuple[EpochResult, ...] = ()
    run: str | None = None


# --- The file ---------------------------------------------------------------------------------


def save_results(results: Results, path: Path) -> None:
    """Write results to a JSON file, with numbers to six digits, replacing it in one step.

    Args:
        results: The results.
        path: The file; an existing one stays whole until the new one is complete.
    """
    content = {"format": _FORMAT, **_plain(results)}
    text = json.dumps(content, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def load_results(path: Path) -> Results:
    """Read a file of `save_results`.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a file of results, or has another version.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"got {str(path)!r}, which is no file; wanted one that `python -m learning evaluate` "
            "wrote. Check the path, or evaluate first."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"it has format {content['format']}, this version reads {_FORMAT}")
        return Results(
            command=content["command"],
            weights=content["weights"],
            run=content["run"],
            evaluations={name: _evaluation(e) for name, e in content["evaluations"].items()},
            profiles={
                family: {name: _profile(p) for name, p in profiles.items()}
                for family, profiles in content["profiles"].items()
            },
            epochs=tuple(
                EpochResult(e["epoch"], _profile(e["profile"]), _measurement(e["measurement"]))
                for e in content["epochs"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"got {str(path)!r}, which holds no results ({error}); wanted a file that `python -m "
            "learning evaluate` of this version wrote. Evaluate again."
        ) from error


def _plain(value: Any) -> Any:
    """Convert results to types of JSON; NaN becomes null."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def _evaluation(content: dict[str, Any]) -> Evaluation:
    measurements = {
        family: {name: _measurement(m) for name, m in by_name.items()}
        for family, by_name in content.pop("measurements").items()
    }
    data = DataSummary(**content.pop("data"))
    return Evaluation(data=data, measurements=measurements, **content)


def _measurement(content: dict[str, Any]) -> Measurement:
    return Measurement(
        iterations=np.array(content["iterations"], dtype=np.int64),
        failures={int(index): status for index, status in content["failures"].items()},
        mean_log10_residuals=np.array(content["mean_log10_residuals"], dtype=np.float64),
        seconds=content["seconds"],
    )


def _profile(content: dict[str, Any]) -> SineProfile:
    data = DataSummary(**content.pop("data"))
    sines = np.array(content.pop("sines"), dtype=np.float64)
    return SineProfile(data=data, sines=sines, **content)


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the numbers in each column; NaN where there are none."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

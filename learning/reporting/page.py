"""Write the paper's tables and figures, with its numbers and ours, from files of results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from learning.evaluation.results import Evaluation, Results, load_results
from learning.reporting import figures, paper, tables
from learning.reporting.provenance import (
    TrainingRun,
    made_by,
    read_run,
    shortened,
    training_table,
    unseen,
)
from mixeddim.tensors import replacing

__all__ = ["write_report"]


def write_report(
    results: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    static_run: str | os.PathLike[str] | None = None,
    dynamic_run: str | os.PathLike[str] | None = None,
) -> Path:
    """Write `report.md` and its figures; sections without measurements are left out.

    Args:
        results: Files of `save_results` in `learning.evaluation.results`. The first data set of the
            first file is that of the paper; all others are reported as out of distribution. Sines
            and epochs come from the first file that has them.
        folder: Where to write.
        static_run: Folder of the static stage.
        dynamic_run: Folder of the dynamic stage.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: If a file or folder is of the wrong kind, or there is nothing to report.
    """
    folder = Path(folder)
    loaded = [load_results(Path(path)) for path in results]
    runs = {"static": static_run, "dynamic": dynamic_run}
    inputs = _Inputs(
        runs={stage: read_run(Path(run), stage) for stage, run in runs.items() if run is not None},
        evaluations=[
            (r.command, name, evaluation)
            for r in loaded
            for name, evaluation in r.evaluations.items()
        ],
        weights={name: sha256 for r in reversed(loaded) for name, sha256 in r.weights.items()},
        profiles=next((r for r in loaded if any(r.profiles.values())), None),
        epochs=next((r for r in loaded if r.epochs), None),
    )
    sections = [section for write in _SECTIONS if (section := write(inputs, folder))]
    if not sections:
        raise ValueError(
            f"got {len(loaded)} files of results with nothing in them, and no run; wanted "
            "something to report. Evaluate first."
        )
    path = folder / "report.md"
    with replacing(path) as part:
        part.write_text("\n\n".join([_OPENING, *sections]) + "\n", encoding="utf-8")
    return path


_OPENING: Final = (
    "# The paper's tables and figures, reproduced\n\n"
    "The paper is N. Dimola, A. Coclite, P. Zunino, *Neural Preconditioning via Krylov Subspace "
    "Geometry*, arXiv:2507.15452 (2025). Iterations are those of unrestarted FGMRES with vectors "
    "in float64, to the true residual. `python -m learning report` wrote this page."
)

# --- What it is made from ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Inputs:
    """All inputs of the report.

    Attributes:
        runs: Stage -> its training.
        evaluations: Command, name of the data set, and evaluation; the paper's first.
        weights: Preconditioner -> SHA-256.
        profiles: The results with sines.
        epochs: The results with epochs.
    """

    runs: Mapping[str, TrainingRun]
    evaluations: Sequence[tuple[str, str, Evaluation]]
    weights: Mapping[str, str]
    profiles: Results | None
    epochs: Results | None


# --- Sections: text, or None without what it takes --------------------------------------------


def _protocol(inputs: _Inputs, folder: Path) -> str | None:  # noqa: ARG001
    parts = ["## Protocol"]
    if inputs.runs:
        parts.append(training_table(inputs.runs))
    if inputs.evaluations:
        _, name, evaluation = inputs.evaluations[0]
        data = evaluation.data
        graphs = f"- Graphs: {data.num_problems} of the data set `{name}`"
        if data.content_hash is not None:
            graphs += f" (seed {data.seed}, content hash `{data.content_hash[:12]}`)"
        lines = [f"{graphs}. {unseen(inputs.runs, data)}".rstrip()]
        if data.distribution:
            lines.append(f"- Problems: {tables.distribution(data.distribution)}.")
        lines.append(
            f"- Solves: to {tables.power(evaluation.rtol)}, in at most {evaluation.max_iterations} "
            f"iterations, right-hand sides from seed {evaluation.seed}; torch "
            f"{evaluation.torch_version} on {evaluation.device}."
        )
        lines.append(
            "- The paper's grid, coefficients and tolerance are our reading, chosen so that plain "
            "GMRES takes about as many iterations as it reports; its graphs are not ours."
        )
        parts.append("\n".join(lines))
    if inputs.weights:
        hashes = (f"{_label(name)} `{sha256[:12]}`" for name, sha256 in inputs.weights.items())
        parts.append(f"Weights, by SHA-256: {', '.join(hashes)}.")
    if inputs.evaluations:
        commands = dict.fromkeys(command for command, _, _ in inputs.evaluations)
        parts.append("\n".join(["Evaluated by", "", "```", *commands, "```"]))
    return "\n\n".join(parts) if len(parts) > 1 else None


def _iterations(inputs: _Inputs, folder: Path) -> str | None:
    if not inputs.evaluations:
        return None
    command, _, evaluation = inputs.evaluations[0]
    families = evaluation.measurements
    rows = []
    for name in _names(families.values()):
        cells = [tables.mean_and_spread(by_name.get(name)) for by_name in families.values()]
        seconds = [by_name[name].seconds for by_name in families.values() if name in by_name]
        expected = tables.value(paper.ITERATIONS.get(name))
        rows.append([_label(name), *cells, expected, f"{np.mean(seconds):.3f}"])
    parts = [
        "## Iterations",
        f"Mean ± standard deviation (fewest–most) over {evaluation.data.num_problems} graphs, to a "
        f"relative residual of {tables.power(evaluation.rtol)}. A solve that failed counts as "
        f"{evaluation.max_iterations}. Seconds are wall time, set-up included, in batches on "
        f"{evaluation.device}: for information.",
        tables.table(["preconditioner", *families, "paper, canonical", "seconds per system"], rows),
        made_by(command, inputs.runs),
        _picture(folder, "iterations", figures.iteration_histograms(evaluation)),
        _picture(folder, "convergence", figures.convergence(evaluation)),
    ]
    return "\n\n".join(parts)


def _losses(inputs: _Inputs, folder: Path) -> str | None:
    histories = {stage: r.history for stage, r in inputs.runs.items() if len(r.history["epoch"])}
    if not histories:
        return None
    losses = {
        stage: inputs.runs[stage].configuration.get("loss", paper.TRAINING[stage]["loss"])
        for stage in histories
    }
    rows = []
    for stage, history in histories.items():
        training, validation = history["training_loss"], history["validation_loss"]
        best = int(np.argmin(validation))
        numbers = (f"{x:.3f}" for x in (training[-1], validation[-1], validation[best]))
        epoch = f"{history['epoch'][best]:.0f} of {history['epoch'][-1]:.0f}"
        rows.append([stage, tables.value(losses[stage]), *numbers, epoch])
        rows[-1].append(tables.value(paper.LOSSES.get(losses[stage])))
    header = ["stage", "loss", "training, last", "validation, last", "validation, lowest", "epoch"]
    parts = [
        "## Training",
        tables.table([*header, "paper, validation"], rows),
        made_by("python -m learning train", inputs.runs),
        _picture(folder, "losses", figures.loss_curves(histories, losses)),
    ]
    return "\n\n".join(parts)


def _sines(inputs: _Inputs, folder: Path) -> str | None:
    if inputs.profiles is None:
        return None
    profiles = inputs.profiles.profiles
    shown, by_name = next(item for item in profiles.items() if item[1])
    profile = next(iter(by_name.values()))
    m, num_problems = profile.window, len(profile.sines)
    rows = [
        [_label(name), family, *tables.fits(profile)]
        for family, by_name in profiles.items()
        for name, profile in by_name.items()
    ]
    rows += [[f"paper, {epoch}", "canonical", *fits] for epoch, fits in paper.FITS.items()]
    parts = [
        "## Sines and residuals",
        f"Mean sine over the first m = {m} iterations; line sₖ = ak + b through the mean sines of "
        f"k = 1 to {m}; the paper's estimate bᵐ; line log(|rₖ| / |r₀|) = αk + β (natural "
        f"logarithm) through k = 0 to {m}. Means over {num_problems} graphs. Epoch 0 of the paper "
        "is the start of the dynamic stage: the static model, in our reading.",
        tables.table(["preconditioner", "right-hand sides", *tables.FIT_HEADER], rows),
        made_by(inputs.profiles.command, inputs.runs),
        f"Means over the graphs as points, fits as lines; {shown} right-hand sides:",
        _picture(folder, "sines", figures.residuals_and_sines(by_name)),
    ]
    dynamic = inputs.runs.get("dynamic")
    trained = m if dynamic is None else dynamic.facts.get("num_steps", m)
    parts += [
        f"Beyond the window of {trained} iterations that the dynamic stage trains on, mean and "
        f"middle 80 % of the graphs, {shown} right-hand sides; a curve ends where the residual is "
        "rounding:",
        _picture(folder, "beyond_window", figures.beyond_window(by_name, trained)),
    ]
    return "\n\n".join(parts)


def _by_epoch(inputs: _Inputs, folder: Path) -> str | None:
    if inputs.epochs is None:
        return None
    epochs = inputs.epochs.epochs
    rows = [
        [f"{e.epoch}", *tables.fits(e.profile), tables.mean_and_spread(e.measurement)]
        for e in figures.spread(epochs, 11)
    ]
    iterations = (tables.value(paper.ITERATIONS[stage]) for stage in ("static", "dynamic"))
    for (epoch, fits), expected in zip(paper.FITS.items(), iterations, strict=True):
        rows.append([f"paper, {epoch}", *fits, expected])
    profile = epochs[0].profile
    parts = [
        "## By epoch of the dynamic stage",
        f"As above, from the weights after each epoch, on {len(profile.sines)} graphs and "
        f"{profile.family} right-hand sides.",
        tables.table(["epoch", *tables.FIT_HEADER, "iterations"], rows),
        made_by(inputs.epochs.command, inputs.runs),
        _picture(folder, "epochs", figures.epoch_curves(epochs)),
    ]
    return "\n\n".join(parts)


def _out_of_distribution(inputs: _Inputs, folder: Path) -> str | None:  # noqa: ARG001
    if len(inputs.evaluations) < 2:
        return None
    evaluations = [(name, evaluation) for _, name, evaluation in inputs.evaluations]
    reference = evaluations[0][1].data.distribution or {}
    limits = sorted({evaluation.max_iterations for _, evaluation in evaluations})
    parts = [
        "## Outside the training distribution",
        "Mean (most) iterations with the same weights, not trained again; the first row is the "
        "data set of the tables above. A solve that failed counts as "
        f"{' or '.join(map(str, limits))}. The paper has no such table.",
    ]
    for family in _names(evaluation.measurements for _, evaluation in evaluations):
        outside = evaluations[1:]  # what was measured there is shown of the first one too
        names = _names(evaluation.measurements.get(family, {}) for _, evaluation in outside)
        rows = []
        for data_set, evaluation in evaluations:
            by_name = evaluation.measurements.get(family, {})
            changed = tables.difference(evaluation.data.distribution or {}, reference)
            cells = [tables.mean_and_most(by_name.get(name)) for name in names]
            rows.append([data_set, changed, str(evaluation.data.num_problems), *cells])
        header = ["data set", "differs by", "graphs", *map(_label, names)]
        parts += [f"### {family.capitalize()} right-hand sides", tables.table(header, rows)]
    commands = dict.fromkeys(f"`{shortened(command)}`" for command, _, _ in inputs.evaluations)
    return "\n\n".join([*parts, f"Made by {', '.join(commands)}."])


_SECTIONS: Final[Sequence[Callable[[_Inputs, Path], str | None]]] = (
    _protocol,
    _iterations,
    _losses,
    _sines,
    _by_epoch,
    _out_of_distribution,
)

# --- What they share --------------------------------------------------------------------------


def _picture(folder: Path, name: str, figure: Figure) -> str:
    """Save a figure, and return the Markdown that shows it."""
    with replacing(folder / f"{name}.png") as part:
        figure.savefig(part, dpi=figures.DPI)
    return f"![{name.replace('_', ' ')}]({name}.png)"


def _names(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all mappings, each once, in order."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _label(name: str) -> str:
    return figures.LABELS.get(name, name)

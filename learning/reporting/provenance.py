"""Provenance of a report's numbers: how the weights were trained, and by which command."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learning.evaluation.results import DataSummary
from learning.reporting import paper, tables

__all__ = ["TrainingRun", "made_by", "read_run", "shortened", "training_table", "unseen"]


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """The record of a training run.

    Attributes:
        configuration: That of `learning.training.runs.RunFolder`; empty if the folder has none.
        history: Column of history.csv -> values, shape (num_epochs,).
    """

    configuration: Mapping[str, Any]
    history: Mapping[str, NDArray[np.float64]]

    @property
    def facts(self) -> dict[str, Any]:
        """The configuration, but the epochs that were run, and their time in hours."""
        hours = f"{self.history['seconds'].sum() / 3600:.2g}"
        facts = {**self.configuration, "num_epochs": len(self.history["epoch"]), "hours": hours}
        if facts.get("loss") == "residual":
            facts.pop("num_steps", None)  # it runs no FGMRES
        return facts


def read_run(folder: Path, stage: str) -> TrainingRun:
    """Read the configuration and the history of a run folder.

    Args:
        folder: The folder.
        stage: "static" or "dynamic".

    Raises:
        ValueError: If it has no history, or its loss is that of the other stage.
    """
    history, configuration = folder / "history.csv", folder / "configuration.json"
    if not history.is_file():
        raise ValueError(
            f"got {str(folder)!r}, which has no history.csv; wanted the folder of a training run. "
            "Train first, or leave this stage out."
        )
    with history.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
        columns = {
            name: np.array([float(row[name]) for row in rows]) for name in reader.fieldnames or ()
        }
    known = json.loads(configuration.read_text("utf-8")) if configuration.is_file() else {}
    loss = known.get("loss")
    if loss is not None and (loss == "residual") != (stage == "static"):
        raise ValueError(
            f"got {str(folder)!r} as the {stage} stage, which was trained with the {loss} loss; "
            "wanted the residual loss for the static stage, another for the dynamic one. Swap them."
        )
    return TrainingRun(known, columns)


def training_table(runs: Mapping[str, TrainingRun]) -> str:
    """Write a table of how each stage, "static" or "dynamic", was trained, beside the paper."""
    rows = []
    for key, label in _ROWS.items():
        pairs = [(paper.TRAINING[stage].get(key), r.facts.get(key)) for stage, r in runs.items()]
        if any(ours is not None for _, ours in pairs):
            rows.append([label, *(tables.value(entry) for pair in pairs for entry in pair)])
    header = [f"{stage}, {whose}" for stage in runs for whose in ("paper", "ours")]
    return tables.table(["training", *header], rows)


_ROWS: Final = {
    "loss": "loss",
    "num_problems": "training graphs",
    "num_validation": "validation graphs",
    "families": "right-hand sides of a graph",
    "num_epochs": "epochs",
    "batch_size": "batch size",
    "num_steps": "Krylov steps m",
    "learning_rate": "first learning rate of Adam",
    "mixed_precision": "mixed precision",
    "seed": "seed",
    "hours": "hours",
}


def shortened(command: str) -> str:
    """Return the first words of a long command; the page has it in full elsewhere."""
    words = command.split()
    return command if len(words) <= 6 else " ".join([*words[:5], "…"])


def made_by(command: str, runs: Mapping[str, TrainingRun]) -> str:
    """Say which command made a table, and what differs from the paper."""
    text = (
        f"Made by `{shortened(command)}`. Unlike the paper: our own graphs, and the regime as we "
        "read it"
    )
    for stage, run in runs.items():
        facts, expected = run.facts, paper.TRAINING[stage]
        counts = [(noun, facts[key], expected[key]) for key, noun in _COUNTS if key in facts]
        ours = " and ".join(f"{got} {noun}" for noun, got, _ in counts)
        theirs = " and ".join(f"{wanted}" for _, _, wanted in counts)
        text += f"; {stage} stage of {ours} (paper: {theirs})"
    return f"{text}."


_COUNTS: Final = (("num_problems", "training graphs"), ("num_epochs", "epochs"))


def unseen(runs: Mapping[str, TrainingRun], data: DataSummary) -> str:
    """Say whether problems were drawn apart from those of the training; "" if that is unknown.

    Data sets of one seed share their graphs, however many they hold: see
    `learning.problems.generation`.
    """
    configurations = [run.configuration for run in runs.values()]
    data_sets = [one for configuration in configurations for one in _data_sets(configuration)]
    hashes = {one.get("content_hash") for one in data_sets}
    seeds = {one.get("seed") for one in data_sets}
    if data.content_hash is None or data.seed is None or not configurations:
        return ""
    if data.content_hash in hashes or data.seed in seeds:
        return "**The training drew its graphs from the same seed: not all of these are unseen.**"
    return "" if None in seeds else "The training drew its graphs from another seed."


def _data_sets(configuration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return hash and seed of each data set; runs of earlier versions had one, and other keys."""
    earlier = {"content_hash": configuration.get("data"), "seed": configuration.get("data_seed")}
    data_sets: list[dict[str, Any]] = configuration.get("data_sets", [earlier])
    return data_sets

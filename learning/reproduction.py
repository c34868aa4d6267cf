"""The paper's study from data to report, one command; every step resumes.

In the folder: data/, the runs static/ and dynamic/, evaluation.json, and report/.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch

from learning.data import FAMILIES, Dataset, load_dataset
from learning.distributions import DISTRIBUTIONS, ProblemDistribution
from learning.evaluation import evaluate, evaluate_epochs, sine_profile
from learning.generation import generate
from learning.preconditioner import Identity, Jacobi, Preconditioner
from learning.reporting import write_report
from learning.results import Results, load_results, save_results
from learning.stages import STAGES
from learning.training import train
from learning.unet import UNetPreconditioner
from learning.weights import load_weights

__all__ = ["OUTSIDE", "evaluate_data_sets", "reproduce"]

OUTSIDE: Mapping[str, ProblemDistribution] = MappingProxyType(
    {name: of for name, of in DISTRIBUTIONS.items() if name not in ("paper", "wide")}
    | {f"{n} cells": replace(DISTRIBUTIONS["paper"], num_cells=n) for n in (16, 24, 32, 40)}
)
"""Data sets that no stage has seen the like of, by name."""

FIRST = "unseen graphs"
"""Name of the data set that training was for."""

NUM_TRAINING, NUM_TEST, NUM_OUTSIDE = 600, 100, 10
NUM_SINES = 40  # of the test graphs, over three times the window
SEED_TRAINING, SEED_TEST, SEED_OUTSIDE = 0, 1, 2


def reproduce(
    protocol: str, folder: str | os.PathLike[str], *, device: torch.device | str = "cpu"
) -> Path:
    """Generate, train both stages, evaluate and report, or go on where this was interrupted.

    Args:
        protocol: "paper" for the paper's stages, "short" for those of the shipped weights.
        folder: Where everything goes.
        device: Where to train and solve.

    Returns:
        The path of the report.

    Raises:
        ValueError: If there is no such protocol, or the folder holds something else.
    """
    protocols = sorted(name.removesuffix("-static") for name in STAGES if name.endswith("-static"))
    if protocol not in protocols:
        raise ValueError(f"got protocol={protocol!r}; wanted one of {protocols}.")
    folder = Path(folder)
    training_set = generate(
        DISTRIBUTIONS["paper"], NUM_TRAINING, SEED_TRAINING, folder / "data" / "training.h5"
    )
    static = train(STAGES[f"{protocol}-static"], training_set, folder / "static", device=device)
    dynamic = train(
        STAGES[f"{protocol}-dynamic"],
        training_set,
        folder / "dynamic",
        start=static.best,
        device=device,
    )
    del training_set  # two gigabytes with the operators of every problem

    results = folder / "evaluation.json"
    evaluate_data_sets(
        results,
        generate_test_sets(folder / "data"),
        {"static": static.best, "dynamic": dynamic.best},
        run_folder=dynamic.path,
        device=device,
        command=f"python -m learning reproduce {protocol} {folder}",
    )
    return write_report(
        [results], folder / "report", static_run=static.path, dynamic_run=dynamic.path
    )


def generate_test_sets(folder: Path) -> dict[str, Path]:
    """Generate unseen problems like those of the training, and those of `OUTSIDE`.

    Args:
        folder: Where to write; files that are there stay.

    Returns:
        Name of the data set -> its file, the one like the training first.
    """
    files = {FIRST: folder / "test.h5"}
    generate(DISTRIBUTIONS["paper"], NUM_TEST, SEED_TEST, files[FIRST])
    for name, distribution in OUTSIDE.items():
        files[name] = folder / f"{name.replace(' ', '_')}.h5"
        generate(distribution, NUM_OUTSIDE, SEED_OUTSIDE, files[name], processes=1)
    return files


def evaluate_data_sets(
    path: str | os.PathLike[str],
    data: Mapping[str, str | os.PathLike[str]],
    weights: Mapping[str, str | os.PathLike[str]],
    *,
    run_folder: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    command: str = "",
) -> Results:
    """Measure trained weights beside no preconditioner and Jacobi's, or go on doing so.

    Results are written after each data set. Of the first one the sines are recorded too; on the
    others, plain FGMRES is left out.

    Args:
        path: JSON file to write; one that holds results of the same weights is continued.
        data: Name of the data set -> its file, the one like the training first.
        weights: Name of the preconditioner -> its file of weights.
        run_folder: A training run whose weights by epoch are measured too.
        device: Where to solve.
        command: What to name in the file as its origin.

    Raises:
        ValueError: If the file holds results of other weights, or a file is not what it should be.
    """
    path = Path(path)
    loaded = {name: load_weights(file) for name, file in weights.items()}
    trained: dict[str, Preconditioner] = {
        name: UNetPreconditioner(w.model.to(device)) for name, w in loaded.items()
    }
    results = Results(command=command, weights={name: w.sha256 for name, w in loaded.items()})
    if path.exists():
        found = load_results(path)
        if found.weights != results.weights:
            raise ValueError(
                f"got {path}, which holds results of other weights; wanted those of these, or no "
                "file. Name another file, or remove it."
            )
        results = found
    for name, file in data.items():
        dataset = load_dataset(file)
        if _is_done(results, name, dataset):
            continue
        print(f"{name}:", file=sys.stderr)
        baselines: dict[str, Preconditioner] = {"none": Identity(), "jacobi": Jacobi()}
        if name != next(iter(data)):
            del baselines["none"]
        measured = evaluate(baselines | trained, dataset, device=device)
        results = replace(results, evaluations={**results.evaluations, name: measured})
        save_results(results, path)

    first = load_dataset(next(iter(data.values())))
    if not results.profiles:
        profiles = {
            family: {
                name: sine_profile(
                    preconditioner, first, num_problems=NUM_SINES, family=family, device=device
                )
                for name, preconditioner in ({"none": Identity()} | trained).items()
            }
            for family in FAMILIES
        }
        results = replace(results, profiles=profiles)
        save_results(results, path)
    if run_folder is not None and not results.epochs:
        results = replace(results, epochs=evaluate_epochs(run_folder, first, device=device))
        save_results(results, path)
    return results


def _is_done(results: Results, name: str, dataset: Dataset) -> bool:
    if name not in results.evaluations:
        return False
    return results.evaluations[name].data.content_hash == dataset.content_hash

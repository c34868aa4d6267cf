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

from learning.evaluation.measures import evaluate, evaluate_epochs, sine_profile
from learning.evaluation.results import Results, load_results, save_results
from learning.krylov.preconditioner import Identity, Jacobi, Preconditioner
from learning.preconditioners.architectures import preconditioner_of
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.problems.data import FAMILIES, Dataset, load_dataset
from learning.problems.distributions import DISTRIBUTIONS, ProblemDistribution
from learning.problems.generation import generate
from learning.reporting import write_report
from learning.training.loop import train
from learning.training.stages import STAGES
from learning.training.weights import load_weights

__all__ = ["OUT_OF_DISTRIBUTION", "evaluate_data_sets", "reproduce"]

_TRAINED_ON = ("paper", "wide", "regimes", "regimes_varying", "regimes_fibres")

OUT_OF_DISTRIBUTION: Mapping[str, ProblemDistribution] = MappingProxyType(
    {name: of for name, of in DISTRIBUTIONS.items() if name not in _TRAINED_ON}
    | {f"{n} cells": replace(DISTRIBUTIONS["paper"], num_cells=n) for n in (16, 24, 32, 40)}
)
"""Distributions that no stage has seen, by name."""

CLASSICAL: Mapping[str, Preconditioner] = MappingProxyType(
    {"none": Identity(), "jacobi": Jacobi(), "multigrid": GeometricMultigrid()}
)
"""The peers of the trained preconditioners, by name."""

IN_DISTRIBUTION = "unseen graphs"
"""Name of the data set of the training distribution."""

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
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"got {os.environ['WORLD_SIZE']} processes; wanted one. Use torchrun for `train` alone."
        )
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
    """Generate unseen problems like those of the training, and those of `OUT_OF_DISTRIBUTION`.

    Args:
        folder: Where to write; files that are there stay.

    Returns:
        Name of the data set -> its file, the one like the training first.
    """
    files = {IN_DISTRIBUTION: folder / "test.h5"}
    generate(DISTRIBUTIONS["paper"], NUM_TEST, SEED_TEST, files[IN_DISTRIBUTION])
    for name, distribution in OUT_OF_DISTRIBUTION.items():
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
    """Measure trained weights beside `CLASSICAL` preconditioners, or go on doing so.

    Results are written after each data set, and what the file holds of these very data, weights
    and run is kept. Of the first data set the sines are recorded too; the others do without the
    hundreds of iterations of plain FGMRES and Jacobi.

    Args:
        path: JSON file to write; one that holds results of the same weights is continued.
        data: Name of the data set -> its file, the one like the training first.
        weights: Name of the preconditioner -> its file of weights.
        run_folder: A finished training run whose weights by epoch are measured too.
        device: Where to solve.
        command: What to name in the file as its origin.

    Raises:
        ValueError: If the file holds results of other weights, or a file is not what it should be.
    """
    path = Path(path)
    loaded = {name: load_weights(file) for name, file in weights.items()}
    trained: dict[str, Preconditioner] = {
        name: preconditioner_of(w.model.to(device)) for name, w in loaded.items()
    }
    results = Results(command=command, weights={name: w.sha256 for name, w in loaded.items()})
    if path.exists():
        found = load_results(path)
        if found.weights != results.weights:
            raise ValueError(
                f"got {path}, which holds results of other weights; wanted those of these, or no "
                "file. Name another file, or remove it."
            )
        results = replace(found, command=command)

    first = next(iter(data))
    evaluations = {}
    for name, file in data.items():
        dataset = load_dataset(file)
        measured = results.evaluations.get(name)
        if measured is None or measured.data.content_hash != dataset.content_hash:
            print(f"{name}:", file=sys.stderr)
            classical = CLASSICAL if name == first else {"multigrid": CLASSICAL["multigrid"]}
            measured = evaluate(
                {**classical, **trained}, dataset, batch_size=_batch_size(dataset), device=device
            )
        evaluations[name] = measured
        results = replace(results, evaluations={**results.evaluations, name: measured})
        save_results(results, path)
    results = replace(results, evaluations=evaluations)

    unseen = load_dataset(data[first])
    origins = {p.data.content_hash for by in results.profiles.values() for p in by.values()}
    if origins != {unseen.content_hash}:
        profiles = {
            family: {
                name: sine_profile(
                    preconditioner, unseen, num_problems=NUM_SINES, family=family, device=device
                )
                for name, preconditioner in {"none": Identity(), **trained}.items()
            }
            for family in FAMILIES
        }
        results = replace(results, profiles=profiles)
        save_results(results, path)
    if run_folder is not None:
        run = load_weights(Path(run_folder) / "last.safetensors").sha256
        if results.run != run:
            epochs = evaluate_epochs(run_folder, unseen, device=device)
            results = replace(results, epochs=epochs, run=run)
    save_results(results, path)
    return results


def _batch_size(dataset: Dataset) -> int:
    """Return how many problems to solve together, fewer where their vectors are longer."""
    num_dofs = (dataset.distribution.num_cells + 1) ** 3
    return max(1, 10 * 21**3 // max(num_dofs, 21**3))

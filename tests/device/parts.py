"""The parts of a run on an accelerator: each returns what it found, as plain numbers."""

from __future__ import annotations

import csv
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sizes import Sizes

from learning.benchmark import run as benchmark_run
from learning.benchmark.features import mean_features
from learning.benchmark.measurement import measure
from learning.benchmark.methods import training_seconds
from learning.benchmark.regimes import regime
from learning.benchmark.results import Benchmark, Cell, load_benchmark, save_benchmark
from learning.devices import exact_convolutions, fast_convolutions
from learning.evaluation.measures import evaluate
from learning.preconditioners.architectures import preconditioner_of
from learning.preconditioners.unet import UNet
from learning.problems.data import Dataset, load_dataset
from learning.problems.distributions import to_json
from learning.problems.generation import in_tissue
from learning.training import loop
from learning.training.loop import train
from learning.training.samples import Samples
from learning.training.stages import Stage
from learning.training.steps import captured, descend, new_optimizer
from learning.training.weights import load_weights
from mixeddim.tensors import ReducedSystem, sparse_csr

PAPER = {"static": 26.71, "dynamic": 12.86}  # mean iterations on unseen graphs
TIME_LIMIT, REPETITIONS = 20.0, 3  # of a method in a cell


@dataclass(frozen=True)
class Context:
    """Where a run finds everything.

    Attributes:
        sizes: What to do.
        data: Folder of the data sets.
        work: Folder of the training runs.
        out: Folder of the results.
        device: Where to compute.
    """

    sizes: Sizes
    data: Path
    work: Path
    out: Path
    device: torch.device

    @cached_property
    def training(self) -> Dataset:
        """The graphs to train on."""
        return load_dataset(self.data / "training.h5")

    @cached_property
    def unseen(self) -> Dataset:
        """The graphs to evaluate on, and the networks of the benchmark."""
        return load_dataset(self.data / "unseen.h5")

    @cached_property
    def fine(self) -> Dataset:
        """Networks on a finer grid."""
        return load_dataset(self.data / "fine.h5")

    @property
    def weights(self) -> dict[str, Path]:
        """Name of a stage -> its best weights, or the last ones, where it has any."""
        files = {
            name: [self.work / name / f"{kind}.safetensors" for kind in ("best", "last")]
            for name in self.sizes.stages
        }
        there = {name: [f for f in both if f.exists()] for name, both in files.items()}
        return {name: found[0] for name, found in there.items() if found}


# --- Speed of a step --------------------------------------------------------------------------


def speeds(context: Context) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield what tells the steps of both stages apart, and how to time them in milliseconds."""
    for is_captured in (True, False) if context.device.type == "cuda" else (False,):
        for name, stage in context.sizes.stages.items():
            for mixed_precision in sorted({False, stage.mixed_precision}, reverse=True):
                precision = "mixed precision" if mixed_precision else "full precision"
                how = "CUDA graph" if is_captured else "eager"
                chosen = replace(stage, mixed_precision=mixed_precision)
                time_it = partial(_milliseconds, context, chosen, is_captured=is_captured)
                yield f"{name}, {precision}, {how}", time_it


def _milliseconds(context: Context, stage: Stage, *, is_captured: bool) -> dict[str, Any]:
    """Return the median time of a step, of as many as fit in a second."""
    few = replace(stage, num_problems=stage.batch_size, num_validation=1)
    model = UNet().to(context.device)
    if context.device.type == "cuda":
        model.to(memory_format=torch.channels_last_3d)
    samples = Samples(few, (context.training,), model)
    resident, optimizer = samples.resident, new_optimizer(model, 1e-6)
    if resident is None:
        raise ValueError("got problems that cannot stay on the device; wanted those of the paper")

    def step(index: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        batch, M = resident.batch(index, mixed_precision=stage.mixed_precision)
        return descend(samples.loss(batch, f, M), optimizer)

    index = torch.arange(stage.batch_size, device=context.device)
    f = resident.systems.g[index]
    with fast_convolutions() if stage.mixed_precision else exact_convolutions():
        run = captured(step, optimizer, index, f) if is_captured else step
        first = _seconds(lambda: run(index, f))
        first = min(first, _seconds(lambda: run(index, f)))
        number = min(max(int(1.0 / first), 1), 100)
        times = [_seconds(lambda: run(index, f)) for _ in range(number)]
    return {"milliseconds": round(1e3 * sorted(times)[len(times) // 2], 3), "steps": number}


def _seconds(function: Callable[[], torch.Tensor]) -> float:
    began = time.perf_counter()
    function().item()  # waits for the device
    return time.perf_counter() - began


# --- Benchmark --------------------------------------------------------------------------------


def benchmark(context: Context, time_limit: float) -> dict[str, Any]:
    """Measure cells that benchmark.json lacks, one after the other, while time is left."""
    end = time.monotonic() + time_limit
    path = context.out / "benchmark.json"
    settings = benchmark_run._settings(context.device, TIME_LIMIT, REPETITIONS, 1)
    known = {name: training_seconds(name) for name in context.sizes.methods}
    found = Benchmark(
        "tests/device/run.sh", settings, (), {n: s for n, s in known.items() if s is not None}
    )
    if path.exists():
        found = load_benchmark(path)
    slowest: dict[int, float] = {}
    missing, failed = [], []
    with benchmark_run._one_thread():
        for name, num_cells, batch_size in _cells(context):
            if found.cell(name, num_cells, batch_size) is not None:
                continue
            if time.monotonic() + slowest.get(num_cells, 0.0) > end:
                missing.append(f"{name}, {num_cells} cells")
                continue
            began = time.monotonic()
            limit = min(TIME_LIMIT, (end - began) / len(context.sizes.methods))
            here = replace(settings, time_limit=limit)
            try:
                cell = _cell(context, name, num_cells, batch_size, here)
            except Exception:  # the next cell may work
                traceback.print_exc()
                failed.append(f"{name}, {num_cells} cells")
                continue
            found = found.with_cell(cell)
            save_benchmark(found, path)
            took = time.monotonic() - began
            slowest[num_cells] = max(slowest.get(num_cells, 0.0), took)
            print(f"{name}, {num_cells} cells, batch of {batch_size}: {took:.0f} s")
    return {f"{c.regime}, {c.num_cells} cells": _row(c) for c in found.cells} | {
        "missing": missing,
        "failed": failed,
        "distinct networks": {"coarse": context.sizes.num_unseen, "fine": context.sizes.num_fine},
    }


def _row(cell: Cell) -> dict[str, Any]:
    """Return what tells a cell in a few numbers: set-up and one solve, for one system."""
    methods = cell.methods
    return {
        "best classical": cell.fastest(classical=True),
        "multigrid over it": cell.ratio("multigrid") if "multigrid" in methods else None,
        "milliseconds": {
            n: None if m.seconds is None else round(1e3 * m.seconds, 3) for n, m in methods.items()
        },
        "iterations": {n: m.mean for n, m in methods.items()},
    }


def _cells(context: Context) -> Iterator[tuple[str, int, int]]:
    sizes = context.sizes
    for name in sizes.regimes:
        yield name, sizes.training.num_cells, sizes.batch_size
        yield name, sizes.fine_cells, sizes.num_fine


def _cell(context: Context, name: str, num_cells: int, batch_size: int, settings: Any) -> Cell:
    """Measure a cell; where there are fewer networks than systems in a batch, they repeat."""
    networks = context.fine if num_cells == context.sizes.fine_cells else context.unseen
    distribution = replace(
        regime(name, num_cells), num_nodes=networks.distribution.num_nodes
    )  # tiny networks are smaller
    dataset = in_tissue(networks, distribution)
    problems = [dataset[i % len(dataset)] for i in range(batch_size)]
    names = list(context.sizes.methods)
    few = problems[: min(2, batch_size)]
    measure(few, names, len(few), replace(settings, repetitions=0), context.device)  # warms up
    measured, skipped = measure(problems, names, batch_size, settings, context.device)
    features = mean_features(problem.reduced for problem in dataset)
    return Cell(
        name, num_cells, batch_size, batch_size, to_json(distribution), features, measured, skipped
    )


def direct(context: Context) -> dict[str, Any]:
    """Time direct solvers of torch on one system of each regime, on the grid of the training."""
    found = {}
    for name in context.sizes.regimes:
        distribution = replace(
            regime(name, context.sizes.training.num_cells),
            num_nodes=context.unseen.distribution.num_nodes,
        )
        system = in_tissue(context.unseen, distribution)[0].reduced
        for kind, solve in (("sparse", _sparse_direct), ("dense", _dense_direct)):
            try:
                x, seconds = solve(system, context.device)
            except (RuntimeError, NotImplementedError) as error:  # built without cuDSS, say
                found[f"{name}, {kind}"] = {"unavailable": str(error).splitlines()[0]}
                continue
            residual = np.linalg.norm(system.g - system.S @ x) / np.linalg.norm(system.g)
            found[f"{name}, {kind}"] = {"milliseconds": 1e3 * seconds, "residual": float(residual)}
    return found


def _sparse_direct(
    system: ReducedSystem, device: torch.device
) -> tuple[NDArray[np.float64], float]:
    """Solve the block system, whose tissue part is that of S; returns it and the second time."""
    blocks = [[system.A_33, system.A_31], [system.A_13, system.A_11]]
    A = sparse_csr(sparse.block_array(blocks, format="csr").sorted_indices(), torch.float64, device)
    b = torch.tensor(np.concatenate([system.g, np.zeros(len(system.b_1))]), device=device)
    solve = partial(torch.sparse.spsolve, A, b)
    _seconds(lambda: solve()[0])
    seconds = _seconds(lambda: solve()[0])
    return solve().cpu().numpy()[: len(system.g)], seconds


def _dense_direct(system: ReducedSystem, device: torch.device) -> tuple[NDArray[np.float64], float]:
    """Factor S as a dense matrix; returns the solution and the second time, from dense blocks."""
    A_33, A_31, A_11 = (
        torch.tensor(A.toarray(), device=device) for A in (system.A_33, system.A_31, system.A_11)
    )
    g = torch.tensor(system.g, device=device)[:, None]

    def solve() -> torch.Tensor:
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(A_11), A_31.mT, upper=False)
        S = A_33 - half.mT @ half
        return torch.cholesky_solve(g, torch.linalg.cholesky(S))[:, 0]

    _seconds(lambda: solve()[0])
    seconds = _seconds(lambda: solve()[0])
    return solve().cpu().numpy(), seconds


# --- The paper's protocol ---------------------------------------------------------------------


def refuse_graphs() -> None:
    """Let training take its steps one by one, where a CUDA graph went wrong."""
    loop.captured = lambda step, *_: step


def train_stage(context: Context, name: str, time_limit: float) -> dict[str, Any]:
    """Go on with a stage of the protocol, for so many seconds at most."""
    stages = list(context.sizes.stages)
    before = stages[: stages.index(name)]
    unfinished = [other for other in before if not _is_finished(context, other)]
    if unfinished:
        return {"skipped": f"{unfinished[0]} is not finished"}
    start = context.weights[before[-1]] if before else None
    train(
        context.sizes.stages[name],
        context.training,
        context.work / name,
        start=start,
        device=context.device,
        progress=False,
        time_limit=max(time_limit, 0.0),
    )
    rows = _history(context, name)
    last = rows[-1] if rows else {}
    seconds = sorted(float(row["seconds"]) for row in rows)
    return {
        "epochs": len(rows),
        "of": context.sizes.stages[name].num_epochs,
        "seconds per epoch": seconds[len(seconds) // 2] if seconds else None,
        "training loss": float(last["training_loss"]) if last else None,
        "validation loss": float(last["validation_loss"]) if last else None,
    }


def _history(context: Context, name: str) -> list[dict[str, str]]:
    file = context.work / name / "history.csv"
    if not file.exists():
        return []
    with file.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _is_finished(context: Context, name: str) -> bool:
    return len(_history(context, name)) == context.sizes.stages[name].num_epochs


# --- Iterations on unseen graphs --------------------------------------------------------------


def evaluate_stages(context: Context) -> dict[str, Any]:
    """Count iterations with the weights of both stages, beside those of the paper."""
    preconditioners = {
        name: preconditioner_of(load_weights(file).model.to(context.device))
        for name, file in context.weights.items()
    }
    if not preconditioners:
        return {"skipped": "there are no weights"}
    found = evaluate(
        preconditioners,
        context.unseen,
        families=("canonical",),
        device=context.device,
        progress=False,
    ).measurements["canonical"]
    return {
        name: {
            "epochs": len(_history(context, name)),
            "iterations": one.mean,
            "fewest": one.min,
            "most": one.max,
            "failures": len(one.failures),
            "paper": PAPER[name],
        }
        for name, one in found.items()
    }


def study(context: Context) -> dict[str, Any]:
    """Write evaluation.json of the whole protocol, from which the study's report is made."""
    if not all(_is_finished(context, name) for name in context.sizes.stages):
        return {"skipped": "the protocol is not finished"}
    from learning.reproduction import IN_DISTRIBUTION, evaluate_data_sets

    evaluate_data_sets(
        context.out / "evaluation.json",
        {IN_DISTRIBUTION: context.data / "unseen.h5"},
        context.weights,
        run_folder=context.work / "dynamic",
        device=context.device,
        command="tests/device/run.sh",
    )
    return {"file": "evaluation.json"}

"""Train a neural preconditioner: the static stage, then the dynamic one.

Every random number depends only on the seed, the epoch and the sample, never on earlier draws. So a
killed run repeats the work since its last saved state, and ends with the same weights as a run that
was not killed, on the same device with the same numbers of threads and processes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import distributed, nn
from tqdm import tqdm

from learning.devices import exact_convolutions
from learning.preconditioners.architectures import ARCHITECTURES, preconditioner_of
from learning.problems.data import Dataset, right_hand_side
from learning.progress import progress_bar
from learning.systems.operators import batch_systems
from learning.training.losses import KRYLOV_LOSSES, residual_loss
from learning.training.processes import check_agreement, own_device, processes, wait
from learning.training.runs import RunFolder, TrainingState, curves
from learning.training.stages import Stage
from learning.training.weights import load_weights

__all__ = ["train"]

MAX_GRADIENT_NORM = 1.0  # otherwise a few samples with steep losses spoil the weights
STATE_SECONDS = 300.0  # a kill costs no more work than this
LEAST_CELLS_MIXED = 8  # with a coarsest grid of 2^3, oneDNN 3.x reads uninitialised memory
VALIDATION = 2**31  # used as the epoch of validation: its right-hand sides stay the same
ORDER, RIGHT_HAND_SIDES = 1, 2  # keep seeds apart, also from those of evaluation and generation


class Sample(NamedTuple):
    """The number of a data set, of a problem in it, and of one of the stage's families."""

    data_set: int
    problem: int
    family: int


def train(
    stage: Stage,
    data: Dataset | Sequence[Dataset],
    folder: str | os.PathLike[str],
    *,
    start: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    tensorboard: bool = False,
    progress: bool | None = None,
) -> RunFolder:
    """Run a training stage, or resume the one in the folder.

    Under torchrun each process takes its share of every batch, and the first writes the files.

    Args:
        stage: The settings.
        data: One or several data sets, for example on different grids; each batch is from one of
            them. Each has at least `num_problems + num_validation` problems.
        folder: The run folder (see `learning.training.runs`).
        start: Weights to start from, such as those of a static stage; by default the initial
            weights of the architecture, which are random for the U-Net.
        device: Where to train.
        tensorboard: Whether to write curves for TensorBoard into the folder as well.
        progress: Whether to show a bar, or a message if the run is already finished; by default
            the message is shown, and the bar where stderr is a terminal.

    Returns:
        The folder, with the weights in it.

    Raises:
        ValueError: If the folder holds another run, there is no data set, one has too few problems
            or too few cells for mixed precision, the weights to start from are of another
            architecture, or there is no such device.
        FileNotFoundError: If the file of weights to start from does not exist.
        ModuleNotFoundError: If `tensorboard` is set and TensorBoard is not installed.
        FloatingPointError: If a loss or gradient is not finite; the message names the sample.
    """
    data_sets = (data,) if isinstance(data, Dataset) else tuple(data)
    device = own_device(device)
    _check_data(stage, data_sets, device)
    weights = None if start is None else load_weights(start)
    if weights is not None and weights.architecture != stage.architecture:
        raise ValueError(
            f"got weights of architecture {weights.architecture!r} to start from; wanted "
            f"{stage.architecture!r}, that of the stage. Change one of them."
        )
    model = _first_model(stage) if weights is None else weights.model.train()
    model.to(device)
    state = TrainingState(model, torch.optim.Adam(model.parameters(), stage.learning_rate))
    configuration = asdict(stage) | {
        "data_sets": [
            {
                "distribution": asdict(dataset.distribution),
                "content_hash": dataset.content_hash,
                "seed": dataset.seed,
            }
            for dataset in data_sets
        ],
        "start": None if weights is None else weights.sha256,
        "max_gradient_norm": MAX_GRADIENT_NORM,
    }
    run = RunFolder(Path(folder), configuration)
    with processes(device) as (rank, world_size), exact_convolutions():
        if rank == 0:
            run.open()
        wait(world_size)
        if not run.load(state) and rank == 0:
            run.save_epoch(state)
        check_agreement(state, world_size)
        if state.epoch == stage.num_epochs and progress is not False and rank == 0:
            print(f"{run.path}: all {stage.num_epochs} epochs are finished", file=sys.stderr)
        trainer = _Trainer(stage, data_sets, state, run, rank, world_size)
        with (
            progress_bar(
                progress if rank == 0 else False,
                total=stage.num_epochs * trainer.num_batches,
                initial=state.epoch * trainer.num_batches + state.batch,
                unit="batch",
            ) as bar,
            curves(run.path, state.epoch, tensorboard and rank == 0) as add_row,
        ):
            while state.epoch < stage.num_epochs:
                trainer.run_epoch(bar)
                if rank == 0:
                    run.save_epoch(state)
                add_row(state.history[-1])
        wait(world_size)  # the next stage starts from files that the first process wrote
    return run


def _check_data(stage: Stage, data_sets: Sequence[Dataset], device: torch.device) -> None:
    if not data_sets:
        raise ValueError("got no data set; wanted at least one. Write one with learning.generate.")
    wanted = stage.num_problems + stage.num_validation
    for dataset in data_sets:
        if len(dataset) < wanted:
            raise ValueError(
                f"got a data set of {len(dataset)} problems, {os.fspath(dataset.path)!r}; wanted "
                f"{stage.num_problems} to train on and {stage.num_validation} to validate on. "
                f"Generate {wanted}."
            )
        too_small = dataset.distribution.num_cells < LEAST_CELLS_MIXED
        if stage.mixed_precision and too_small and device.type == "cpu":
            raise ValueError(
                f"got mixed precision on grids of {dataset.distribution.num_cells} cells per side; "
                f"wanted at least {LEAST_CELLS_MIXED}, below which torch's gradients in bfloat16 "
                "are wrong on CPUs. Train small grids in full precision."
            )


def _first_model(stage: Stage) -> nn.Module:
    """Return an untrained model, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed)
        return ARCHITECTURES[stage.architecture].model()


@dataclass(frozen=True)
class _Trainer:
    """One process of a run."""

    stage: Stage
    data_sets: Sequence[Dataset]
    state: TrainingState
    run: RunFolder
    rank: int
    world_size: int

    @property
    def num_batches(self) -> int:
        """Number of batches per epoch."""
        num_samples = self.stage.num_problems * len(self.stage.families)
        return len(self.data_sets) * -(-num_samples // self.stage.batch_size)

    def run_epoch(self, bar: tqdm) -> None:
        """Train on the remaining batches of an epoch, and validate."""
        state, batches = self.state, self._batches()
        saved = time.monotonic()
        for batch in range(state.batch, len(batches)):
            began = time.monotonic()
            learning_rate = self._learning_rate(batch)
            loss = self._step(batches[batch], learning_rate)
            state.loss_sum += loss * len(batches[batch])
            state.batch = batch + 1
            state.seconds += time.monotonic() - began
            bar.set_postfix(epoch=state.epoch + 1, loss=f"{loss:.4f}", rate=f"{learning_rate:.1e}")
            bar.update()
            if self.rank == 0 and time.monotonic() - saved > STATE_SECONDS:
                self.run.save(state)
                saved = time.monotonic()

        began = time.monotonic()
        validation_loss = self._validate()
        state.history.append(
            {
                "epoch": state.epoch + 1,
                "training_loss": state.loss_sum / sum(len(batch) for batch in batches),
                "validation_loss": validation_loss,
                "learning_rate": self._learning_rate(len(batches) - 1),
                "seconds": state.seconds + time.monotonic() - began,
            }
        )
        state.epoch, state.batch, state.loss_sum, state.seconds = state.epoch + 1, 0, 0.0, 0.0

    def _batches(self) -> list[list[Sample]]:
        """Return the batches of the current epoch; data sets take turns in random order."""
        rng = np.random.default_rng([ORDER, self.stage.seed, self.state.epoch])
        size = self.stage.batch_size
        queues, turns = [], []
        for d in range(len(self.data_sets)):
            samples = self._samples(d, range(self.stage.num_problems))
            order = rng.permutation(len(samples))
            starts = range(0, len(samples), size)
            queues.append(iter([[samples[i] for i in order[s : s + size]] for s in starts]))
            turns += [d] * len(starts)
        return [next(queues[d]) for d in rng.permutation(turns)]

    def _samples(self, data_set: int, problems: range) -> list[Sample]:
        families = range(len(self.stage.families))
        return [Sample(data_set, i, k) for i in problems for k in families]

    def _learning_rate(self, batch: int) -> float:
        """Return the rate of a batch of the current epoch, on a cosine that ends at zero."""
        progress = (self.state.epoch + batch / self.num_batches) / self.stage.num_epochs
        return self.stage.learning_rate * (1.0 + float(np.cos(np.pi * progress))) / 2.0

    def _step(self, samples: Sequence[Sample], learning_rate: float) -> float:
        """Take a step of Adam on a batch; this process computes its share."""
        own, epoch, state = samples[self.rank :: self.world_size], self.state.epoch, self.state
        parameters = list(state.model.parameters())
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)  # also where this process has no sample
        total = torch.zeros((), dtype=torch.float64, device=_device(state.model))
        if own:
            loss = self._loss(own, epoch, mixed_precision=self.stage.mixed_precision)
            loss = loss * (len(own) / len(samples))
            loss.backward()
            total += loss.detach()
        if self.world_size > 1:
            for tensor in [total, *(parameter.grad for parameter in parameters)]:
                distributed.all_reduce(tensor)
        gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        if not (torch.isfinite(total) and torch.isfinite(gradient_norm)):
            self._blame(own, epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate
        state.optimizer.step()
        return float(total)

    def _validate(self) -> float:
        """Return the mean loss over the validation samples; processes share them."""
        total = torch.zeros((), dtype=torch.float64, device=_device(self.state.model))
        num_samples = 0
        own: list[Sample] = []
        for d, dataset in enumerate(self.data_sets):
            last, batch_size = len(dataset), self.stage.batch_size
            samples = self._samples(d, range(last - self.stage.num_validation, last))
            share = samples[self.rank :: self.world_size]
            num_samples += len(samples)
            own += share
            with torch.no_grad():
                for i in range(0, len(share), batch_size):
                    batch = share[i : i + batch_size]
                    total += len(batch) * self._loss(batch, VALIDATION, mixed_precision=False)
        if self.world_size > 1:
            distributed.all_reduce(total)
        if not torch.isfinite(total):
            self._blame(own, VALIDATION)
        return float(total) / num_samples

    def _loss(
        self, samples: Sequence[Sample], epoch: int, *, mixed_precision: bool
    ) -> torch.Tensor:
        """Return the mean loss over samples of one data set, with right-hand sides of an epoch."""
        stage, model = self.stage, self.state.model
        problems = [self.data_sets[d][i] for d, i, _ in samples]
        right_hand_sides = [
            right_hand_side(problem, stage.families[sample.family], self._rng(sample, epoch))
            for problem, sample in zip(problems, samples, strict=True)
        ]
        systems = [problem.reduced for problem in problems]
        batch = batch_systems(systems, torch.float64, _device(model))
        f = torch.tensor(np.stack(right_hand_sides), device=batch.g.device)
        preconditioner = preconditioner_of(model, mixed_precision=mixed_precision)
        precondition = preconditioner.setup(systems, batch)
        if stage.loss == "residual":
            return residual_loss(batch, f, precondition)
        options: dict[str, Any] = {"checkpoint": stage.checkpoint}
        if stage.loss == "hybrid":
            options["weight"] = stage.static_weight
        return KRYLOV_LOSSES[stage.loss](batch, f, precondition, stage.num_steps, **options)

    def _rng(self, sample: Sample, epoch: int) -> np.random.Generator:
        """Return the generator of a sample's right-hand side; problems count over all data sets."""
        before = sum(len(dataset) for dataset in self.data_sets[: sample.data_set])
        number = before + sample.problem
        return np.random.default_rng(
            [RIGHT_HAND_SIDES, self.stage.seed, epoch, number, sample.family]
        )

    def _blame(self, samples: Sequence[Sample], epoch: int) -> NoReturn:
        """Raise an error that names the samples whose loss or gradient is not finite."""
        names = []
        for sample in samples:
            mixed_precision = self.stage.mixed_precision and epoch != VALIDATION
            loss = self._loss([sample], epoch, mixed_precision=mixed_precision)
            parameters = [*self.state.model.parameters()]
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            if not all(t.isfinite().all() for t in (loss, *gradients)):
                family = self.stage.families[sample.family]
                names.append(
                    f"problem {sample.problem} of {self.data_sets[sample.data_set].path.name} "
                    f"with its {family} right-hand side"
                )
        when = "after" if epoch == VALIDATION else "in"
        raise FloatingPointError(
            f"got a loss or a gradient that is not finite {when} epoch {self.state.epoch + 1}, "
            f"from {' and '.join(names) or 'the batch as a whole, or another process'}; wanted "
            "numbers. Look at that problem, lower the learning rate or leave mixed precision; "
            "the folder holds an earlier state."
        )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device

"""Train a neural preconditioner: the static stage, then the dynamic one.

Every random number follows from the seed, the epoch and the sample, never from what was drawn
before: a run that was killed repeats what its last state does not hold, and ends in the weights of
a run that was not, on the same device with as many threads and processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import distributed
from tqdm import tqdm

from learning.data import Dataset, right_hand_side
from learning.devices import exact_convolutions, usable_device
from learning.losses import KRYLOV_LOSSES, residual_loss
from learning.operators import batch_systems
from learning.runs import RunFolder, TrainingState
from learning.stages import Stage
from learning.unet import UNet, UNetPreconditioner
from learning.weights import load_weights

__all__ = ["train"]

MAX_GRADIENT_NORM = 1.0  # a few samples with steep losses would throw the weights off
STATE_SECONDS = 300.0  # how much work a kill may cost
LEAST_CELLS_MIXED = 8  # on a bottom grid of 2^3, oneDNN 3.x reads what nobody wrote
VALIDATION = 2**31  # an epoch that never comes: right-hand sides that stay the same
ORDER, RIGHT_HAND_SIDES = 1, 2  # apart in every seed, and from those of evaluation and generation

type Sample = tuple[int, int]
"""The number of a problem, and that of one of the stage's families of right-hand sides."""


def train(
    stage: Stage,
    dataset: Dataset,
    folder: str | os.PathLike[str],
    *,
    start: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    tensorboard: bool = False,
    progress: bool = True,
) -> RunFolder:
    """Run a training stage, or go on with the one that the folder holds.

    Under torchrun each process takes its share of every batch, and the first writes the files.

    Args:
        stage: What to do.
        dataset: At least `num_problems + num_validation` problems.
        folder: The run folder (see `learning.runs`).
        start: Weights to start from, as those of a static stage; random ones by default.
        device: Where to train.
        tensorboard: Whether to write the curves into the folder for TensorBoard too.
        progress: Whether to show a bar.

    Returns:
        The folder, with the weights in it.

    Raises:
        ValueError: If the folder holds another run, the data set has too few problems or too few
            cells for mixed precision, or there is no such device.
        FileNotFoundError: If there are no weights to start from.
        ModuleNotFoundError: If TensorBoard is wanted and not installed.
        FloatingPointError: If a loss or gradient is not finite; says of which sample.
    """
    wanted = stage.num_problems + stage.num_validation
    if len(dataset) < wanted:
        raise ValueError(
            f"got a data set of {len(dataset)} problems; wanted {stage.num_problems} to train on "
            f"and {stage.num_validation} to validate on. Generate {wanted}."
        )
    device = _own_device(device)
    too_small = dataset.distribution.num_cells < LEAST_CELLS_MIXED
    if stage.mixed_precision and too_small and device.type == "cpu":
        raise ValueError(
            f"got mixed precision on grids of {dataset.distribution.num_cells} cells a side; "
            f"wanted at least {LEAST_CELLS_MIXED}, below which torch's gradients in bfloat16 are "
            "wrong on CPUs. Train small grids in full precision."
        )
    weights = None if start is None else load_weights(start)
    model = _random_model(stage.seed) if weights is None else weights.model.train()
    model.to(device)
    state = TrainingState(model, torch.optim.Adam(model.parameters(), stage.learning_rate))
    configuration = asdict(stage) | {
        "distribution": asdict(dataset.distribution),
        "data": dataset.content_hash,
        "data_seed": dataset.seed,
        "start": None if weights is None else weights.sha256,
        "max_gradient_norm": MAX_GRADIENT_NORM,
    }
    run = RunFolder(Path(folder), configuration)
    with _processes(device) as (rank, world_size), exact_convolutions():
        if rank == 0:
            run.open()
        _wait(world_size)
        if not run.load(state) and rank == 0:
            run.save_epoch(state)
        _check_agreement(state, world_size)
        trainer = _Trainer(stage, dataset, state, run, rank, world_size)
        with (
            tqdm(
                total=stage.num_epochs * trainer.num_batches,
                initial=state.epoch * trainer.num_batches + state.batch,
                disable=not progress or rank > 0,
                unit="batch",
            ) as bar,
            _curves(run, state.epoch, tensorboard and rank == 0) as add_row,
        ):
            while state.epoch < stage.num_epochs:
                trainer.run_epoch(bar)
                if rank == 0:
                    run.save_epoch(state)
                add_row(state.history[-1])
        _wait(world_size)  # the next stage starts from files that the first process wrote
    return run


@dataclass(frozen=True)
class _Trainer:
    """One process of a run."""

    stage: Stage
    dataset: Dataset
    state: TrainingState
    run: RunFolder
    rank: int
    world_size: int

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-self.stage.num_problems * len(self.stage.families) // self.stage.batch_size)

    def run_epoch(self, bar: tqdm) -> None:
        """Train on what is left of an epoch, and validate."""
        stage, state = self.stage, self.state
        samples = self._samples(0, stage.num_problems)
        order = np.random.default_rng([ORDER, stage.seed, state.epoch]).permutation(len(samples))
        saved = time.monotonic()
        for batch in range(state.batch, self.num_batches):
            began = time.monotonic()
            chosen = order[batch * stage.batch_size : (batch + 1) * stage.batch_size]
            learning_rate = self._learning_rate(batch)
            loss = self._step([samples[i] for i in chosen], learning_rate)
            state.loss_sum += loss * len(chosen)
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
                "training_loss": state.loss_sum / len(samples),
                "validation_loss": validation_loss,
                "learning_rate": self._learning_rate(self.num_batches - 1),
                "seconds": state.seconds + time.monotonic() - began,
            }
        )
        state.epoch, state.batch, state.loss_sum, state.seconds = state.epoch + 1, 0, 0.0, 0.0

    def _samples(self, first: int, last: int) -> list[Sample]:
        return [(i, k) for i in range(first, last) for k in range(len(self.stage.families))]

    def _learning_rate(self, batch: int) -> float:
        """Return the rate of a batch of the current epoch: a cosine from the first to zero."""
        progress = (self.state.epoch + batch / self.num_batches) / self.stage.num_epochs
        return self.stage.learning_rate * (1.0 + float(np.cos(np.pi * progress))) / 2.0

    def _step(self, samples: Sequence[Sample], learning_rate: float) -> float:
        """Take a step of Adam on a batch, of which this process has its share."""
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
        last = len(self.dataset)
        samples = self._samples(last - self.stage.num_validation, last)
        own, batch_size = samples[self.rank :: self.world_size], self.stage.batch_size
        total = torch.zeros((), dtype=torch.float64, device=_device(self.state.model))
        with torch.no_grad():
            for i in range(0, len(own), batch_size):
                batch = own[i : i + batch_size]
                total += len(batch) * self._loss(batch, VALIDATION, mixed_precision=False)
        if self.world_size > 1:
            distributed.all_reduce(total)
        if not torch.isfinite(total):
            self._blame(own, VALIDATION)
        return float(total) / len(samples)

    def _loss(
        self, samples: Sequence[Sample], epoch: int, *, mixed_precision: bool
    ) -> torch.Tensor:
        """Return the mean loss over samples, with the right-hand sides of an epoch."""
        stage, model = self.stage, self.state.model
        problems = [self.dataset[i] for i, _ in samples]
        right_hand_sides = [
            right_hand_side(
                problem,
                stage.families[k],
                np.random.default_rng([RIGHT_HAND_SIDES, stage.seed, epoch, i, k]),
            )
            for problem, (i, k) in zip(problems, samples, strict=True)
        ]
        systems = [problem.reduced for problem in problems]
        batch = batch_systems(systems, torch.float64, _device(model))
        f = torch.tensor(np.stack(right_hand_sides), device=batch.g.device)
        precondition = UNetPreconditioner(model, mixed_precision=mixed_precision).setup(
            systems, batch
        )
        if stage.loss == "residual":
            return residual_loss(batch, f, precondition)
        options: dict[str, Any] = {"checkpoint": stage.checkpoint}
        if stage.loss == "hybrid":
            options["weight"] = stage.static_weight
        return KRYLOV_LOSSES[stage.loss](batch, f, precondition, stage.num_steps, **options)

    def _blame(self, samples: Sequence[Sample], epoch: int) -> NoReturn:
        """Raise an error that names the samples whose loss or gradient is not finite."""
        names = []
        for i, k in samples:
            mixed_precision = self.stage.mixed_precision and epoch != VALIDATION
            loss = self._loss([(i, k)], epoch, mixed_precision=mixed_precision)
            gradients = torch.autograd.grad(loss, [*self.state.model.parameters()])
            if not all(t.isfinite().all() for t in (loss, *gradients)):
                names.append(f"problem {i} with its {self.stage.families[k]} right-hand side")
        when = "after" if epoch == VALIDATION else "in"
        raise FloatingPointError(
            f"got a loss or a gradient that is not finite {when} epoch {self.state.epoch + 1}, "
            f"from {' and '.join(names) or 'the batch as a whole, or another process'}; wanted "
            "numbers. Look at that problem, lower the learning rate or leave mixed precision; "
            "the folder holds an earlier state."
        )


def _device(model: UNet) -> torch.device:
    return next(model.parameters()).device


def _random_model(seed: int) -> UNet:
    """Return a network of random weights, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet()


# --- Several processes ------------------------------------------------------------------------


def _own_device(device: torch.device | str) -> torch.device:
    """Return the device of this process: under torchrun each one has a GPU of its own."""
    if str(device) == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    device = usable_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def _processes(device: torch.device) -> Iterator[tuple[int, int]]:
    """Join the processes that torchrun started; yields the own rank and their number."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), distributed.get_world_size()
    finally:
        distributed.destroy_process_group()


def _wait(world_size: int) -> None:
    if world_size > 1:
        distributed.barrier()


def _check_agreement(state: TrainingState, world_size: int) -> None:
    """Raise where processes took up different states, as from folders that they do not share."""
    if world_size == 1:
        return
    states: list[Any] = [None] * world_size
    distributed.all_gather_object(states, (state.epoch, state.batch))
    if len(set(states)) > 1 and state.epoch + state.batch > 0:
        raise ValueError(
            f"got processes at (epoch, batch) {states}; wanted all at the same. Give them one "
            "folder, on a file system that they share."
        )


# --- TensorBoard ------------------------------------------------------------------------------


@contextmanager
def _curves(
    run: RunFolder, epoch: int, tensorboard: bool
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield a function that adds a row of the history to TensorBoard's curves, if wanted."""
    if not tensorboard:
        yield lambda _: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ModuleNotFoundError(
            "got tensorboard=True without the package tensorboard; wanted both or neither. "
            "Install it with: pip install tensorboard"
        ) from error

    def add_row(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    # What a killed process wrote beyond its last state is purged.
    with SummaryWriter(str(run.path / "tensorboard"), purge_step=epoch + 1) as writer:
        yield add_row

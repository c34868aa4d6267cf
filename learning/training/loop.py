"""Train a neural preconditioner: the static stage, then the dynamic one.

Every random number depends only on the seed, the epoch and the sample, never on earlier draws. So a
killed run repeats the work since its last saved state, and ends with the same weights as a run that
was not killed, on the same device with the same numbers of threads and processes; on an accelerator
to rounding, which varies there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import distributed, nn
from tqdm import tqdm

from learning.devices import exact_convolutions, fast_convolutions
from learning.preconditioners.architectures import ARCHITECTURES
from learning.preconditioners.unet import UNet
from learning.problems.data import Dataset
from learning.progress import progress_bar
from learning.training.processes import check_agreement, own_device, processes, wait
from learning.training.runs import RunFolder, TrainingState, curves
from learning.training.samples import VALIDATION, Sample, Samples
from learning.training.stages import Stage
from learning.training.steps import (
    MAX_GRADIENT_NORM,
    Step,
    ahead,
    captured,
    descend,
    new_optimizer,
    set_rate,
)
from learning.training.weights import load_weights

__all__ = ["train"]

STATE_SECONDS = 300.0  # a kill costs no more work than this
LEAST_CELLS_MIXED = 8  # with a coarsest grid of 2^3, oneDNN 3.x reads uninitialised memory
LOOK_SECONDS = 1.0  # between looks at the losses of an accelerator, which make it wait
VALIDATED_TOGETHER = 60  # samples, where problems stay on an accelerator, to keep it busy
DRAWING_THREADS = 4  # of right-hand sides, beside an accelerator


def train(
    stage: Stage,
    data: Dataset | Sequence[Dataset],
    folder: str | os.PathLike[str],
    *,
    start: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    tensorboard: bool = False,
    progress: bool | None = None,
    time_limit: float = np.inf,
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
        time_limit: Seconds after which to stop at the end of a batch, with the state saved, so that
            the next call goes on; for a single process.

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
    deadline = time.monotonic() + time_limit
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
    if device.type == "cuda" and isinstance(model, UNet):
        model.to(memory_format=torch.channels_last_3d)  # what its matrix units take
    state = TrainingState(model, new_optimizer(model, stage.learning_rate))
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
    convolutions = fast_convolutions if stage.mixed_precision else exact_convolutions
    with processes(device) as (rank, world_size), convolutions():
        if world_size > 1 and time_limit < np.inf:
            raise ValueError(
                f"got time_limit={time_limit} on {world_size} processes, which would stop at "
                "different batches; wanted one process. Leave it, and stop torchrun itself."
            )
        if rank == 0:
            run.open()
        wait(world_size)
        if not run.load(state) and rank == 0:
            run.save_epoch(state)
        check_agreement(state, world_size)
        if state.epoch == stage.num_epochs and progress is not False and rank == 0:
            print(f"{run.path}: all {stage.num_epochs} epochs are finished", file=sys.stderr)
        samples = Samples(stage, data_sets, model, may_stay=world_size == 1)
        trainer = _Trainer(stage, samples, state, run, rank, world_size, deadline)
        with (
            progress_bar(
                progress if rank == 0 else False,
                total=stage.num_epochs * samples.num_batches,
                initial=state.epoch * samples.num_batches + state.batch,
                unit="batch",
            ) as bar,
            curves(run.path, state.epoch, tensorboard and rank == 0) as add_row,
        ):
            while state.epoch < stage.num_epochs:
                if not trainer.run_epoch(bar):
                    break
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
    samples: Samples
    state: TrainingState
    run: RunFolder
    rank: int
    world_size: int
    deadline: float

    def run_epoch(self, bar: tqdm) -> bool:
        """Train on the remaining batches of an epoch, and validate; False if time ran out."""
        state, batches = self.state, self.samples.of_epoch(self.state.epoch)
        on_cpu = self.samples.device.type == "cpu"
        losses = torch.full((len(batches),), torch.nan, dtype=torch.float64)
        losses = losses.to(self.samples.device)
        draw = partial(self._draw, state.epoch)
        draws = ahead(draw, batches[state.batch :], 0 if on_cpu else DRAWING_THREADS)
        saved = looked = time.monotonic()
        for batch, f in enumerate(draws, start=state.batch):
            losses[batch] = self._step(batches[batch], f, self._learning_rate(batch))
            now = time.monotonic()
            is_late, is_last = now > self.deadline, batch + 1 == len(batches)
            if not (on_cpu or is_late or is_last or now - looked > LOOK_SECONDS):
                continue
            self._look(batches, losses[: batch + 1].tolist(), bar)
            state.seconds += time.monotonic() - looked
            looked = time.monotonic()
            if self.rank == 0 and (is_late or looked - saved > STATE_SECONDS):
                self.run.save(state)
                saved = time.monotonic()
            if is_late:
                return False

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
        return True

    def _look(
        self, batches: Sequence[Sequence[Sample]], losses: Sequence[float], bar: tqdm
    ) -> None:
        """Count the batches of which the losses are known as finished."""
        state, end = self.state, len(losses)
        for samples, loss in zip(batches[state.batch : end], losses[state.batch :], strict=True):
            if not np.isfinite(loss):
                self._blame(self._own(samples), state.epoch)
            state.loss_sum += loss * len(samples)
        rate = self._learning_rate(end - 1)
        bar.set_postfix(epoch=state.epoch + 1, loss=f"{losses[-1]:.4f}", rate=f"{rate:.1e}")
        bar.update(end - state.batch)
        state.batch = end

    def _own(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return the share of this process."""
        return samples[self.rank :: self.world_size]

    def _draw(self, epoch: int, samples: Sequence[Sample]) -> torch.Tensor:
        return self.samples.right_hand_sides(self._own(samples), epoch)

    def _learning_rate(self, batch: int) -> float:
        """Return the rate of a batch of the current epoch, on a cosine that ends at zero."""
        progress = (self.state.epoch + batch / self.samples.num_batches) / self.stage.num_epochs
        return self.stage.learning_rate * (1.0 + float(np.cos(np.pi * progress))) / 2.0

    def _step(
        self, samples: Sequence[Sample], f: torch.Tensor, learning_rate: float
    ) -> torch.Tensor:
        """Take a step of Adam on a batch; returns the loss, NaN where it is not finite.

        Args:
            samples: Of the batch; this process computes its share.
            f: Right-hand sides of this share, on the CPU.
            learning_rate: Of the step.
        """
        set_rate(self.state.optimizer, learning_rate)
        own, device = self._own(samples), self.samples.device
        if self.samples.resident is not None:
            is_usual = len(own) == self.stage.batch_size
            step = self._usual_step if is_usual else self._resident_step
            return step(_to(self.samples.resident.index(own), device), _to(f, device))
        loss = torch.zeros((), dtype=torch.float64, device=device)
        if own:
            batch, M = self.samples.batch(own, mixed_precision=self.stage.mixed_precision)
            loss = self.samples.loss(batch, f.to(device), M) * (len(own) / len(samples))
        return descend(loss, self.state.optimizer, self.world_size)

    def _resident_step(self, index: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        """Take a step on problems that stay on the device, without a look at any value."""
        assert self.samples.resident is not None
        mixed_precision = self.stage.mixed_precision
        batch, M = self.samples.resident.batch(index, mixed_precision=mixed_precision)
        return descend(self.samples.loss(batch, f, M), self.state.optimizer)

    @cached_property
    def _usual_step(self) -> Step:
        """The same on a full batch, replayed from a CUDA graph on an accelerator."""
        resident, optimizer = self.samples.resident, self.state.optimizer
        assert resident is not None
        if self.stage.checkpoint:  # it asks for the state of the random numbers
            return self._resident_step
        places = torch.arange(self.stage.batch_size, device=self.samples.device)
        places = places % len(resident.places)
        return captured(self._resident_step, optimizer, places, resident.systems.g[places])

    def _validate(self) -> float:
        """Return the mean loss over the validation samples; processes share them."""
        total = torch.zeros((), dtype=torch.float64, device=self.samples.device)
        with torch.no_grad():
            for samples, f in self._validation:
                batch, M = self.samples.batch(samples, mixed_precision=False)
                total += len(samples) * self.samples.loss(batch, f, M)
        if self.world_size > 1:
            distributed.all_reduce(total)
        if not torch.isfinite(total):
            self._blame([s for samples, _ in self._validation for s in samples], VALIDATION)
        return float(total) / sum(map(len, self.samples.of_validation()))

    @cached_property
    def _validation(self) -> list[tuple[Sequence[Sample], torch.Tensor]]:
        """This process's share of the validation samples in batches, their right-hand sides."""
        size, device = self.stage.batch_size, self.samples.device
        if self.samples.resident is not None and device.type == "cuda":
            size = max(size, VALIDATED_TOGETHER)
        shares = [self._own(samples) for samples in self.samples.of_validation()]
        batches = [share[i : i + size] for share in shares for i in range(0, len(share), size)]
        draw = self.samples.right_hand_sides
        return [(batch, draw(batch, VALIDATION).to(device)) for batch in batches]

    def _blame(self, samples: Sequence[Sample], epoch: int) -> NoReturn:
        """Raise an error that names the samples whose loss or gradient is not finite."""
        names = []
        for sample in samples:
            mixed_precision = self.stage.mixed_precision and epoch != VALIDATION
            batch, M = self.samples.batch([sample], mixed_precision=mixed_precision)
            f = self.samples.right_hand_sides([sample], epoch).to(self.samples.device)
            loss = self.samples.loss(batch, f, M)
            parameters = [*self.state.model.parameters()]
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            if not all(t.isfinite().all() for t in (loss, *gradients)):
                family = self.stage.families[sample.family]
                names.append(
                    f"problem {sample.problem} of "
                    f"{self.samples.data_sets[sample.data_set].path.name} "
                    f"with its {family} right-hand side"
                )
        when = "after" if epoch == VALIDATION else "in"
        raise FloatingPointError(
            f"got a loss or a gradient that is not finite {when} epoch {self.state.epoch + 1}, "
            f"from {' and '.join(names) or 'the batch as a whole, or another process'}; wanted "
            "numbers. Look at that problem, lower the learning rate or leave mixed precision; "
            "the folder holds an earlier state."
        )


def _to(v: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the CPU to a device, without waiting until it is there."""
    return v.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else v

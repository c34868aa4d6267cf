"""The folder of a training run: its files, and the state from which a killed run resumes.

- configuration.json: the stage, the data sets and the weights it started from
- history.csv: one row per epoch
- best.safetensors: weights of the lowest validation loss
- last.safetensors: weights of the last epoch
- epochs/0012.safetensors: weights after some of the epochs; 0000 are the first ones
- state.pt: all that is needed to resume, including the optimiser
- tensorboard/: the history as curves, on request
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from learning.training.steps import restore
from learning.training.weights import save_weights
from mixeddim.tensors import replacing

__all__ = ["COLUMNS", "RunFolder", "TrainingState", "curves"]

COLUMNS = ("epoch", "training_loss", "validation_loss", "learning_rate", "seconds")
"""Columns of history.csv; seconds are the wall time of the epoch."""


@dataclass(eq=False)
class TrainingState:
    """The part of a run that changes while training.

    Attributes:
        model: The network.
        optimizer: Its optimiser.
        epoch: Number of finished epochs.
        batch: Number of finished batches of the current epoch.
        loss_sum: Sum of their losses over the samples.
        seconds: Time spent on them.
        history: A row of `COLUMNS` for each finished epoch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


MAX_CHECKPOINTS = 30  # in the folder of epochs, 4 MB each
_NUMBERS = ("epoch", "batch", "loss_sum", "seconds", "history")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Attributes:
        path: The folder.
        configuration: Everything the result depends on, as plain numbers and strings.
    """

    path: Path
    configuration: Mapping[str, Any]

    @property
    def best(self) -> Path:
        """Weights of the lowest validation loss."""
        return self.path / "best.safetensors"

    def open(self) -> None:
        """Create the folder, or check that it holds the same run.

        Raises:
            ValueError: If it holds another run or a damaged configuration, or is a file.
        """
        if self.path.is_file():
            raise ValueError(
                f"got the file {self.path} as run folder; wanted a folder. Name one after the data"
                " sets."
            )
        file = self.path / "configuration.json"
        wanted = json.loads(json.dumps(self.configuration))
        if not file.exists():
            with replacing(file) as part:
                part.write_text(json.dumps(wanted, indent=2) + "\n")
            return
        try:
            got = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(
                f"got {file}, which is damaged ({error}); wanted the configuration of a run. Name "
                "another folder, or remove this one."
            ) from error
        differing = sorted(k for k in {*got, *wanted} if got.get(k) != wanted.get(k))
        if differing:
            raise ValueError(
                f"got the folder {self.path}, which holds another run: "
                + ", ".join(
                    f"{k} = {got.get(k)!r} there, {wanted.get(k)!r} here" for k in differing
                )
                + "; wanted an empty folder or one of the same run. Name another folder."
            )

    def load(self, state: TrainingState) -> bool:
        """Resume where the last process stopped; returns whether there was a state.

        Raises:
            ValueError: If the state is damaged.
        """
        file = self.path / "state.pt"
        if not file.exists():
            return False
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged files raise errors of many types
            raise ValueError(
                f"got {file}, which is damaged ({error}); wanted the state of a run. Remove the "
                "folder and train again."
            ) from error
        state.model.load_state_dict(content["model"])
        restore(state.optimizer, content["optimizer"])
        for name in _NUMBERS:
            setattr(state, name, content[name])
        return True

    def save(self, state: TrainingState) -> None:
        """Write all that is needed to resume from here."""
        content: dict[str, Any] = {name: getattr(state, name) for name in _NUMBERS}
        content |= {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}
        with replacing(self.path / "state.pt") as part:
            torch.save(content, part)

    def save_epoch(self, state: TrainingState) -> None:
        """Write weights and history after an epoch, then the state: a kill repeats the epoch."""
        losses = [row["validation_loss"] for row in state.history]
        about = {"epoch": str(state.epoch), "training": json.dumps(self.configuration)}
        files = []
        last = self.configuration["num_epochs"]
        if state.epoch in (*range(0, last, -(-last // MAX_CHECKPOINTS)), last):
            files.append(self.path / "epochs" / f"{state.epoch:04d}.safetensors")
        if losses:
            about["validation_loss"] = repr(losses[-1])
            files.append(self.path / "last.safetensors")
            if losses[-1] == min(losses):
                files.append(self.best)
        for file in files:
            save_weights(state.model, file, about)
        with (
            replacing(self.path / "history.csv") as part,
            part.open("w", newline="") as stream,
        ):
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(state.history)
        self.save(state)


# --- TensorBoard ------------------------------------------------------------------------------


@contextmanager
def curves(
    folder: Path, epoch: int, tensorboard: bool
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield a function that adds a row of the history to TensorBoard's curves.

    Args:
        folder: The run folder; the curves get a folder in it.
        epoch: Number of finished epochs.
        tensorboard: Whether to write curves; if not, the function does nothing.

    Raises:
        ModuleNotFoundError: If curves are to be written, and TensorBoard is not installed.
    """
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

    # This removes what a killed process wrote after its last state.
    with SummaryWriter(str(folder / "tensorboard"), purge_step=epoch + 1) as writer:
        yield add_row

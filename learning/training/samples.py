"""What training visits: problems of data sets with their right-hand sides, in batches.

Where all problems share their tissue and the model is a U-Net, they stay on its device, and vectors
are in grid order (see `Resident`); elsewhere each batch is put together when its turn comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from learning.preconditioners.architectures import preconditioner_of
from learning.preconditioners.unet import Geometry, UNetPreconditioner
from learning.problems.data import Dataset, right_hand_side
from learning.systems.operators import SystemBatch, batch_systems
from learning.systems.resident import ResidentSystems, resident_bytes
from learning.systems.tissue import share_tissue
from learning.training.losses import KRYLOV_LOSSES, residual_loss
from learning.training.stages import Stage
from mixeddim.tensors import ReducedSystem, free_memory

__all__ = ["RIGHT_HAND_SIDES", "VALIDATION", "Resident", "Sample", "Samples"]

VALIDATION = 2**31  # used as the epoch of validation: its right-hand sides stay the same
ORDER, RIGHT_HAND_SIDES = 1, 2  # keep seeds apart, also from those of evaluation and generation
MOST_MEMORY = 0.3  # of what is free, for systems that stay

type Map = Callable[[torch.Tensor], torch.Tensor]


class Sample(NamedTuple):
    """The number of a data set, of a problem in it, and of one of the stage's families."""

    data_set: int
    problem: int
    family: int


@dataclass(frozen=True)
class Samples:
    """The samples of a stage.

    Attributes:
        stage: The settings.
        data_sets: The problems.
        model: What is trained.
        may_stay: Whether problems may stay on the device of the model.
    """

    stage: Stage
    data_sets: Sequence[Dataset]
    model: nn.Module
    may_stay: bool = True

    @property
    def num_batches(self) -> int:
        """Number of batches per epoch."""
        num_samples = self.stage.num_problems * len(self.stage.families)
        return len(self.data_sets) * -(-num_samples // self.stage.batch_size)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def of_epoch(self, epoch: int) -> list[list[Sample]]:
        """Return the batches of an epoch; data sets take turns in random order."""
        rng = np.random.default_rng([ORDER, self.stage.seed, epoch])
        size = self.stage.batch_size
        queues, turns = [], []
        for d in range(len(self.data_sets)):
            samples = self._of_problems(d, range(self.stage.num_problems))
            order = rng.permutation(len(samples))
            starts = range(0, len(samples), size)
            queues.append(iter([[samples[i] for i in order[s : s + size]] for s in starts]))
            turns += [d] * len(starts)
        return [next(queues[d]) for d in rng.permutation(turns)]

    def of_validation(self) -> list[list[Sample]]:
        """Return the samples of validation, one list for each data set."""
        return [
            self._of_problems(d, range(len(dataset) - self.stage.num_validation, len(dataset)))
            for d, dataset in enumerate(self.data_sets)
        ]

    def _of_problems(self, data_set: int, problems: range) -> list[Sample]:
        families = range(len(self.stage.families))
        return [Sample(data_set, i, k) for i in problems for k in families]

    @cached_property
    def resident(self) -> Resident | None:
        """The problems on the device, where they can stay there."""
        preconditioner = preconditioner_of(self.model)
        if not (self.may_stay and isinstance(preconditioner, UNetPreconditioner)):
            return None
        if len(self.data_sets) > 1 or not share_tissue([p.reduced for p in self.data_sets[0][:2]]):
            return None
        [dataset], stage = self.data_sets, self.stage
        numbers = [
            *range(stage.num_problems),
            *range(len(dataset) - stage.num_validation, len(dataset)),
        ]
        return Resident.of({i: dataset[i].reduced for i in numbers}, preconditioner)

    def batch(self, samples: Sequence[Sample], *, mixed_precision: bool) -> tuple[SystemBatch, Map]:
        """Return the systems of samples of one data set as a batch, and M for it."""
        if self.resident is not None:
            index = self.resident.index(samples).to(self.device)
            return self.resident.batch(index, mixed_precision=mixed_precision)
        systems = [self.data_sets[d][i].reduced for d, i, _ in samples]
        batch = batch_systems(systems, torch.float64, self.device)
        preconditioner = preconditioner_of(self.model, mixed_precision=mixed_precision)
        return batch, preconditioner.setup(systems, batch)

    def right_hand_sides(self, samples: Sequence[Sample], epoch: int) -> torch.Tensor:
        """Return those of samples in an epoch, (batch, n) on the CPU, in the order of `batch`."""
        rows = []
        for sample in samples:
            problem = self.data_sets[sample.data_set][sample.problem]
            family = self.stage.families[sample.family]
            row = right_hand_side(problem, family, self._rng(sample, epoch))
            if self.resident is not None:
                grid = problem.reduced.grid
                assert grid is not None  # those of residents
                row = grid.to_grid(row).ravel()
            rows.append(row)
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, dtype=torch.float64)

    def loss(self, batch: SystemBatch, f: torch.Tensor, M: Map) -> torch.Tensor:
        """Return the mean loss over right-hand sides f of a batch, without a look at any value."""
        stage = self.stage
        if stage.loss == "residual":
            return residual_loss(batch, f, M)
        options: dict[str, Any] = {"checkpoint": stage.checkpoint}
        if stage.loss == "hybrid":
            options["weight"] = stage.static_weight
        return KRYLOV_LOSSES[stage.loss](batch, f, M, stage.num_steps, **options)

    def _rng(self, sample: Sample, epoch: int) -> np.random.Generator:
        """Return the generator of a sample's right-hand side; problems count over all data sets."""
        before = sum(len(dataset) for dataset in self.data_sets[: sample.data_set])
        number = before + sample.problem
        return np.random.default_rng(
            [RIGHT_HAND_SIDES, self.stage.seed, epoch, number, sample.family]
        )


def _compute(system: ReducedSystem) -> None:
    """Let a system compute what it keeps, and what takes longest of it."""
    _ = system.g, system.distance_to_network, system.diagonal_33


@dataclass(frozen=True, eq=False)
class Resident:
    """Problems that stay on the device of a U-Net, with their vectors in grid order.

    Attributes:
        places: Number of a problem in its data set -> its place here.
        systems: The systems.
        geometry: What the U-Net sees of them.
        model: The U-Net.
    """

    places: dict[int, int]
    systems: ResidentSystems
    geometry: Geometry
    model: nn.Module

    @classmethod
    def of(
        cls, systems: dict[int, ReducedSystem], preconditioner: UNetPreconditioner
    ) -> Resident | None:
        """Put systems on the device of a U-Net, or return None where they do not fit there.

        Args:
            systems: Number of a problem in its data set -> its system.
            preconditioner: The U-Net.
        """
        model, held = preconditioner.model, [*systems.values()]
        device = next(model.parameters()).device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        if not share_tissue(held) or resident_bytes(held) > MOST_MEMORY * free:
            return None
        if device.type != "cpu":  # whose host has cores to spare
            with ThreadPoolExecutor() as executor:
                deque(executor.map(_compute, held), maxlen=0)
        return cls(
            places={i: place for place, i in enumerate(systems)},
            systems=ResidentSystems.of(held, device),
            geometry=preconditioner.geometry(held).in_grid_order(),
            model=model,
        )

    def index(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Return the places of samples, shape (batch,), on the CPU."""
        return torch.tensor([self.places[sample.problem] for sample in samples])

    def batch(self, index: torch.Tensor, *, mixed_precision: bool) -> tuple[SystemBatch, Map]:
        """Return the systems at some places as a batch, and M for it.

        Args:
            index: The places, shape (batch,), on the device.
            mixed_precision: As in `UNetPreconditioner`.
        """
        M = UNetPreconditioner(self.model, mixed_precision=mixed_precision).on(self.geometry[index])
        return self.systems.batch(index), M

"""The processes of a training run: a single one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

from learning.devices import usable_device
from learning.training.runs import TrainingState

__all__ = ["check_agreement", "own_device", "processes", "wait"]


def own_device(device: torch.device | str) -> torch.device:
    """Return the device of this process; under torchrun each process has its own GPU.

    Raises:
        ValueError: If there is no such device.
    """
    if str(device) == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    device = usable_device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def processes(device: torch.device) -> Iterator[tuple[int, int]]:
    """Join the processes that torchrun started; yields the rank of this one and their number."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), distributed.get_world_size()
    finally:
        distributed.destroy_process_group()


def wait(world_size: int) -> None:
    """Wait for the other processes."""
    if world_size > 1:
        distributed.barrier()


def check_agreement(state: TrainingState, world_size: int) -> None:
    """Check that all processes resumed the same state, which they do not without a shared folder.

    Raises:
        ValueError: If their states differ.
    """
    if world_size == 1:
        return
    states: list[Any] = [None] * world_size
    distributed.all_gather_object(states, (state.epoch, state.batch))
    if len(set(states)) > 1 and state.epoch + state.batch > 0:
        raise ValueError(
            f"got processes at (epoch, batch) {states}; wanted all at the same. Give them one "
            "folder, on a file system that they share."
        )

"""The device of tensors, and the precision of an accelerator's products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["exact_convolutions", "fast_convolutions", "is_capturing", "usable_device"]


def usable_device(device: torch.device | str) -> torch.device:
    """Return a device on which torch can compute here.

    Raises:
        ValueError: If there is no such device.
    """
    try:
        return torch.zeros(1, device=device).device
    except (AssertionError, RuntimeError) as error:  # torch raises both for devices it lacks
        raise ValueError(
            f"got device={str(device)!r}, which PyTorch cannot use here ({error}); wanted 'cpu', "
            "or 'cuda' where there is a GPU with its driver. Choose another."
        ) from error


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Keep cuDNN from rounding float32 to TF32 inside, and from algorithms that vary.

    By default it does both. An operator amplifies rounding of a correction as much as it is rough.
    """
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


@contextmanager
def fast_convolutions() -> Iterator[None]:
    """Let cuDNN round float32 to TF32 inside, and choose the fastest algorithms by trying them.

    Results then differ by rounding from run to run. A CPU computes in float32 all the same.
    """
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=True, deterministic=False, allow_tf32=True
    ):
        yield


def is_capturing(v: torch.Tensor) -> bool:
    """Return whether a CUDA graph records what is done to a tensor, so that it has no value yet."""
    return v.is_cuda and torch.cuda.is_current_stream_capturing()

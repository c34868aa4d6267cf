"""The memory of the machine, and the peak memory of a piece of code."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import mixeddim.tensors

__all__ = ["MemoryUse", "free_memory", "most_memory"]

_SELF = Path("/proc/self")


class MemoryUse:
    """What `most_memory` found: `bytes`, or None where the system does not tell."""

    bytes: int | None = None


@contextmanager
def most_memory(device: torch.device) -> Iterator[MemoryUse]:
    """Measure by how much memory grows at most while the body runs.

    On an accelerator that is what torch allocates there. Of the CPU it is the resident memory of
    the process, after all that was freed has gone back to the system: of pages, and including what
    libraries keep. Linux alone tells.
    """
    use = MemoryUse()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield use
        torch.cuda.synchronize(device)
        use.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (_SELF / "clear_refs").write_text("5", encoding="ascii")  # the peak starts here
        resident = _status("VmRSS")
    except (OSError, AttributeError):
        resident = None
    yield use
    peak = _status("VmHWM") if resident is not None else None
    if resident is not None and peak is not None:
        use.bytes = max(peak - resident, 0)


def free_memory(device: torch.device) -> float:
    """Return how many bytes can still be allocated; infinity where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return mixeddim.tensors.free_memory()


def _status(field: str) -> int | None:
    match = re.search(
        rf"^{field}:\s+(\d+) kB", (_SELF / "status").read_text(encoding="ascii"), re.M
    )
    return 1024 * int(match[1]) if match else None

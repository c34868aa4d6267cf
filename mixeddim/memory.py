"""The free memory, and the refusal of files whose arrays claim more of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["MemoryClaimError", "check_claim", "free_memory"]


class MemoryClaimError(ValueError):
    """A file whose arrays claim more memory than is free; nothing of them has been read."""


def free_memory() -> float:
    """Return how many bytes can still be allocated; infinity where the system does not tell."""
    try:
        content = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return float("inf")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", content, re.M)
    return 1024.0 * int(match[1]) if match else float("inf")


def check_claim(path: str | os.PathLike[str], num_bytes: int) -> None:
    """Check that the arrays of a file fit into the free memory, before they are read.

    A few kilobytes can claim terabytes, damaged or made so: zeros compress a thousandfold, and a
    header may state any shape.

    Args:
        path: The file.
        num_bytes: What its arrays claim in memory, as their headers tell.

    Raises:
        MemoryClaimError: If they claim more than is free.
    """
    free = free_memory()
    if num_bytes > free:
        raise MemoryClaimError(
            f"got {os.fspath(path)!r}, whose arrays claim {num_bytes / 2**30:.3g} GiB; wanted at "
            f"most what is free ({free / 2**30:.3g} GiB). Read it on a machine with more memory, "
            "or write it again if it should be smaller."
        )

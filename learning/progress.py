"""Progress bars, shown on a terminal only, so that job logs stay short."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

__all__ = ["progress_bar"]


def progress_bar(progress: bool | None, **options: Any) -> tqdm:
    """Return a bar on stderr.

    Args:
        progress: Whether to show it; None shows it if stderr is a terminal.
        options: Those of tqdm.
    """
    return tqdm(disable=None if progress is None else not progress, **options)

"""Archives of the folders of the stages, small enough to bring home one by one."""

from __future__ import annotations

import tarfile
from pathlib import Path

STAGES = ("static", "dynamic")
FILES = {
    "weights": ("configuration.json", "history.csv", "best.safetensors", "last.safetensors"),
    "state": ("configuration.json", "history.csv", "state.pt"),
}
"""Kind of an archive -> the files of a run folder in it."""


def pack(work: Path, out: Path) -> None:
    """Write the archives of the run folders."""
    for stage in STAGES:
        for kind, names in FILES.items():
            there = [file for name in names if (file := work / stage / name).exists()]
            if there:
                with tarfile.open(out / f"{stage}-{kind}.tar", "w") as archive:
                    for file in there:
                        archive.add(file, arcname=file.name)


def unpack(data: Path, work: Path) -> list[str]:
    """Make the run folders from the archives of an earlier run, unless there are such folders.

    Returns:
        What to tell the user.
    """
    messages = []
    for stage in STAGES:
        if (work / stage).exists():
            messages.append(f"going on with {work / stage}")
            continue
        for archive in (data / f"{stage}-{kind}.tar" for kind in FILES):
            if archive.exists():
                with tarfile.open(archive) as content:
                    content.extractall(work / stage, filter="data")
                messages.append(f"going on from {archive}")
    return messages

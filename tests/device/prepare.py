"""Write the data sets that a run on an accelerator needs; an interrupted call goes on."""

from __future__ import annotations

from pathlib import Path

from sizes import FULL, MOST_BYTES, TINY

FEW = 10  # problems that are made before other processes have started


def prepare(folder: Path, *, tiny: bool) -> None:
    """Write `training.h5`, `unseen.h5` and `fine.h5`; needs DOLFINx.

    The benchmark's other tissues are not stored: see `learning.problems.generation.in_tissue`.
    """
    from learning.problems.generation import generate

    for name, (distribution, count, seed) in (TINY if tiny else FULL).data.items():
        processes = None if count > FEW else 1
        generate(distribution, count, seed, folder / f"{name}.h5", processes=processes)
    files = sorted(folder.glob("*.h5"))
    total = sum(file.stat().st_size for file in files)
    for file in files:
        print(f"{file.stat().st_size / 1e6:8.1f} MB  {file}")
    print(f"{total / 1e6:8.1f} MB in all")
    if total > MOST_BYTES:
        raise ValueError(
            f"got {total / 1e6:.0f} MB of data in {folder}; wanted at most {MOST_BYTES / 1e6:.0f}. "
            "Remove what is not of this script."
        )

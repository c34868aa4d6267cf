"""Any number of processes computes the same: fields, exchange and balance to 1e-10."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

PROGRAM = Path(__file__).with_name("problems.py")

type Arrays = Mapping[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    path = tmp_path_factory.mktemp("serial") / "out.npz"
    subprocess.run([sys.executable, str(PROGRAM), str(path)], check=True, timeout=200)
    return np.load(path)


def largest_differences(one: Arrays, other: Arrays) -> dict[str, float]:
    """Return the difference of each array, relative to its largest entry; of amounts, to all."""
    differences = {}
    for name, array in one.items():
        problem, part = name.split(": ")
        unit = abs(array).max()
        if part.startswith("amount"):
            unit = max(one[f"{problem}: amount traded_{side}"] for side in ("3d", "1d"))
        differences[name] = float(abs(other[name] - array).max() / unit)
    return differences


@pytest.mark.parametrize("number", [2, 3, 4])
def test_several_processes_compute_the_same_as_one(
    number: int, serial: Arrays, run_on_processes: Callable[..., str], tmp_path: Path
) -> None:
    run_on_processes(number, "-m", "mpi4py", str(PROGRAM), str(tmp_path / "out.npz"))
    differences = largest_differences(serial, np.load(tmp_path / "out.npz"))
    assert len(differences) == len(serial) > 100
    assert {name: d for name, d in differences.items() if not d <= 1e-10} == {}

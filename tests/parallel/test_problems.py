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
        unit = abs(array).max() or 1.0  # such as no hypoxic part
        if part.startswith("amount"):
            unit = max(one[f"{problem}: amount traded_{side}"] for side in ("3d", "1d"))
        differences[name] = float(abs(other[name] - array).max() / unit)
    return differences


# More processes than cores are slow: they solve some of the problems, two processes all of them.
SOME = {
    3: [
        "every condition, hexahedra",
        "murray_tree, direct",
        "corner",
        "drop",
        "clip, no box",
        "leaky transport",
        "partition",
        "no box",
        "newton",
        "oxygen",
        "hexahedron, krylov, factored",
    ],
    4: [
        "every condition",
        "capillary_mesh, reduced",
        "corner, krylov",
        "transport",
        "tetrahedron, krylov, factored",
    ],
    8: ["few cells", "few cells, krylov"],
}


@pytest.mark.parametrize("number", [2, 3, 4, 8])
def test_several_processes_compute_the_same_as_one(
    number: int, serial: Arrays, run_on_processes: Callable[..., str], tmp_path: Path
) -> None:
    path, problems = tmp_path / "out.npz", SOME.get(number, [])
    run_on_processes(number, "-m", "mpi4py", str(PROGRAM), str(path), *problems)
    here = {n: a for n, a in serial.items() if not problems or n.split(": ")[0] in problems}
    there = dict(np.load(path))
    counts = {name for name in here if name.endswith(": iterations")}
    # Aggregates follow the processes.
    assert {n: int(there[n]) for n in counts if abs(there[n] - here[n]) > 3} == {}
    differences = largest_differences({n: a for n, a in here.items() if n not in counts}, there)
    assert len(differences) > 15 * (len(problems) or 15)
    assert {name: d for name, d in differences.items() if not d <= 1e-10} == {}

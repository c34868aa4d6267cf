"""Any number of processes takes the same iterations to the same solution of a reduced system."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("preconditioners.py")

type Found = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def serial(run_on_processes: Callable[..., str]) -> Found:
    found: Found = json.loads(run_on_processes(1, str(PROGRAM)))
    return found


SOME = {
    3: ["paper", "odd cells, layers", "strong exchange", "corner"],
    4: ["paper", "given values", "few cells"],
}


@pytest.mark.parametrize("number", [2, 3, 4])
def test_iterations_and_solution_are_those_of_one_process(
    number: int, serial: Found, run_on_processes: Callable[..., str]
) -> None:
    problems = SOME.get(number, [])
    found: Found = json.loads(run_on_processes(number, "-m", "mpi4py", str(PROGRAM), *problems))
    assert found.keys() == {n for n in serial if not problems or n.split(": ")[0] in problems}
    for name, there in found.items():
        here = serial[name]
        # GAMG's aggregates depend on who owns which dof.
        slack = 3 if name.endswith("gamg") else 0
        assert abs(there["iterations"] - here["iterations"]) <= slack, name
        assert there["status"] == here["status"], name
        assert there["sums"] == pytest.approx(here["sums"], rel=1e-10), name


@pytest.mark.parametrize("number", [2, 3])
def test_what_is_in_boxes_equals_what_is_whole(
    number: int, run_on_processes: Callable[..., str]
) -> None:
    program = PROGRAM.with_name("boxes.py")
    printed = run_on_processes(number, "-m", "mpi4py", str(program))
    assert int(printed.split()[0]) >= 6

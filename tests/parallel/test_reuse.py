"""Blocks of right-hand sides and initial guesses give the same on any number of processes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("reuse.py")


def test_solves_with_one_set_up_are_those_of_one_process(
    run_on_processes: Callable[..., str],
) -> None:
    here = json.loads(run_on_processes(1, str(PROGRAM)))
    there = json.loads(run_on_processes(3, "-m", "mpi4py", str(PROGRAM)))
    for name, found in there.items():
        assert found["iterations"] == here[name]["iterations"], name
        assert found["again"] == [0, 0, 0], name
        assert found["near"] == here[name]["near"], name
        for key in ("sums", "network"):
            assert found[key] == pytest.approx(here[name][key], rel=1e-8), name

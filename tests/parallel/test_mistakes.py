"""What one process does wrong, all say."""

from collections.abc import Callable
from pathlib import Path


def test_each_process_gets_the_message(run_on_processes: Callable[..., str]) -> None:
    program = Path(__file__).with_name("mistakes.py")
    assert run_on_processes(3, "-m", "mpi4py", str(program)).strip() == "25 mistakes"

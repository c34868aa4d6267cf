"""A process that is killed ends the job with an error, and leaves files whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import pyvista as pv

PROGRAM = Path(__file__).with_name("killed.py")


@pytest.mark.parametrize("processes", [2, 3])
def test_a_killed_process_ends_the_job(tmp_path: Path, processes: int) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [str(mpiexec if mpiexec.exists() else "mpiexec"), "-n", str(processes)]
    command += [sys.executable, "-m", "mpi4py", str(PROGRAM), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "written" in done.stdout, done.stderr
    assert "done" not in done.stdout
    assert done.returncode != 0
    assert {path.name for path in tmp_path.iterdir()} == {"tissue.vti", "network.vtp"}
    assert pv.read(tmp_path / "tissue.vti")["u_3d"].shape == (7**3,)
    assert pv.read(tmp_path / "network.vtp")["u_1d"].size > 0

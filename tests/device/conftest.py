"""Data for the tests of the device: what the environment names, or tiny ones made here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.sh"


@pytest.fixture(scope="session")
def run():
    """Return a function that runs the script, with further variables of the environment."""

    def start(*arguments, **environment):
        return subprocess.run(
            ["bash", str(RUN), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            env={**os.environ, "PYTHON": sys.executable, **environment},
        )

    return start


@pytest.fixture(scope="session")
def tiny_data(run, tmp_path_factory):
    """A folder with tiny data sets."""
    folder = tmp_path_factory.mktemp("tiny")
    result = run("--prepare", "--tiny", "--data", folder)
    assert result.returncode == 0, result.stderr
    assert "MB in all" in result.stdout
    return folder


@pytest.fixture(scope="session")
def data(request):
    """The folder of the data that the device is tested on."""
    there = os.environ.get("DEVICE_DATA")
    return Path(there) if there else request.getfixturevalue("tiny_data")

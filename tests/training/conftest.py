"""Shared by the tests of training: small data sets, one finished run, a linear architecture."""

import mixeddim._fenics  # noqa: F401

import csv
import dataclasses

import pytest
import torch

import learning
from learning.preconditioners.architectures import ARCHITECTURES, Architecture
from learning.problems.distributions import DISTRIBUTIONS
from learning.problems.generation import generate
from learning.training import runs
from learning.training.loop import train
from learning.training.stages import Stage
from learning.training.weights import load_weights


@pytest.fixture(scope="session")
def static_stage():
    """A static stage of the U-Net."""
    return Stage(
        loss="residual",
        num_problems=6,
        num_validation=2,
        families=("canonical", "random"),
        num_epochs=2,
        batch_size=5,
    )


@pytest.fixture(scope="session")
def data_file(tmp_path_factory):
    """The file of `dataset`."""
    path = tmp_path_factory.mktemp("data") / "tiny.h5"
    tiny = dataclasses.replace(DISTRIBUTIONS["paper"], num_cells=5, num_nodes=(6, 8))
    generate(tiny, 10, seed=3, path=path, processes=1, progress=False)
    return path


@pytest.fixture(scope="session")
def dataset(data_file):
    """Ten tiny problems."""
    return learning.load_dataset(data_file)


@pytest.fixture(scope="session")
def larger(tmp_path_factory):
    """Problems on another grid, fewer than those of `dataset`."""
    larger = dataclasses.replace(DISTRIBUTIONS["paper"], num_cells=6, num_nodes=(6, 8))
    path = tmp_path_factory.mktemp("data") / "larger.h5"
    return generate(larger, 8, seed=4, path=path, processes=1, progress=False)


@pytest.fixture(scope="session")
def static(static_stage, dataset, tmp_path_factory):
    """A whole static stage."""
    return train(static_stage, dataset, tmp_path_factory.mktemp("run"), progress=False)


# --- Files of a run ---------------------------------------------------------------------------


def _tensors(file):
    return load_weights(file).model.state_dict()


@pytest.fixture(scope="session")
def tensors():
    """Return the tensors of a file of weights, by name."""
    return _tensors


@pytest.fixture(scope="session")
def assert_same_weights():
    """Assert that two files hold the same weights, bit for bit."""

    def check(got, wanted):
        for name, tensor in _tensors(wanted).items():
            torch.testing.assert_close(_tensors(got)[name], tensor, rtol=0, atol=0)

    return check


@pytest.fixture(scope="session")
def history():
    """Return the rows of history.csv in the folder of a run, times left out."""

    def read(folder):
        with (folder / "history.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert [*rows[0]] == [*runs.COLUMNS]
        return [{name: float(row[name]) for name in runs.COLUMNS[:-1]} for row in rows]

    return read


# --- Another architecture ---------------------------------------------------------------------


class Tilt(torch.nn.Module):
    """How much more the last entries of a vector count than the first; best not at all."""

    def __init__(self):
        super().__init__()
        self.tilt = torch.nn.Parameter(torch.ones(1))
        self.idle = torch.nn.Parameter(torch.ones(3))  # as of a level that small grids lack


class TiltedJacobi:
    is_linear = is_symmetric = True

    def __init__(self, model):
        self.model = model

    def setup(self, systems, batch):
        jacobi = learning.Jacobi().setup(systems, batch)
        position = torch.linspace(-2.0, 2.0, batch.g.shape[1], dtype=torch.float64)
        return lambda r: (self.model.tilt.double() * position).exp() * jacobi(r)


@pytest.fixture
def tilted(monkeypatch):
    """Register a linear symmetric architecture, and return its name."""
    monkeypatch.setitem(ARCHITECTURES, "tilted", Architecture(Tilt, TiltedJacobi))
    return "tilted"


@pytest.fixture
def linear_stage(static_stage, tilted):
    """A stage of the linear symmetric architecture."""
    return dataclasses.replace(
        static_stage, architecture=tilted, num_epochs=3, learning_rate=0.2, num_steps=4
    )

"""Pretrained preconditioners: those that ship, and the way they and a user's own are loaded."""

import json
import tomllib
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

import learning
import mixeddim as md
from learning import pretrained
from learning.pretrained import (
    PRETRAINED,
    load_preconditioner,
    load_pretrained,
    pretrained_card,
)
from learning.problems.distributions import DISTRIBUTIONS, from_json
from learning.training.weights import load_weights, save_weights

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "learning" / "pretrained_weights"


def problem(num_cells):
    box = md.create_box(num_cells)
    network = md.create_network(md.random_vascular_graph(8, 0.05, 1), box.spacing)
    return md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0)))


@pytest.fixture(scope="module")
def system():
    return problem(4)


# --- The models that ship ---------------------------------------------------------------------


def test_each_model_has_its_weights_its_card_and_its_row_in_the_table():
    assert {*PRETRAINED} == {"multigrid", "unet-static", "unet-dynamic"}
    assert {file.stem for file in FOLDER.glob("*.safetensors")} == {*PRETRAINED}
    assert {file.stem for file in FOLDER.glob("*.md")} - {"README"} == {*PRETRAINED}


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_shipped_model_helps_on_a_grid_it_was_not_trained_on(name):
    system = problem(8)
    without = learning.solve(system, learning.Identity())
    result = learning.solve(system, load_pretrained(name))
    assert result.converged
    assert result.iterations < without.iterations


@pytest.mark.parametrize(("name", "most"), [("unet-static", 26.71), ("unet-dynamic", 12.86)])
def test_a_shipped_model_takes_no_more_iterations_than_the_papers(name, most):
    """On three graphs of the paper's regime, from seeds beyond those that data sets draw."""
    preconditioner = load_pretrained(name)
    box = md.create_box(20)
    iterations = []
    for seed in range(2**31, 2**31 + 3):
        network = md.create_network(md.random_vascular_graph(40, 0.05, seed), box.spacing)
        system = md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0)))
        result = learning.solve(system, preconditioner)
        assert result.converged
        iterations.append(result.iterations)
    assert sum(iterations) / 3 <= most


# What each model has seen.
DATA = {
    "multigrid": ["regimes", "regimes_varying", "regimes_fibres"],
    "unet-static": ["paper"],
    "unet-dynamic": ["paper"],
}


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_shipped_model_is_small_and_says_how_it_was_trained(name):
    file = FOLDER / f"{name}.safetensors"
    assert file.stat().st_size < 5e6
    training = json.loads(load_weights(file).metadata["training"])
    data_sets = training.get("data_sets", [training])
    trained_on = [from_json(json.dumps(data["distribution"])) for data in data_sets]
    num_cells = {"multigrid": 24}.get(name, 20)
    wanted = [replace(DISTRIBUTIONS[data], num_cells=num_cells) for data in DATA[name]]
    assert trained_on == wanted
    assert len(pretrained_card(name)) > 500


def most_iterations(problems, preconditioner):
    """Return for each problem the iterations of conjugate gradients, the most of all families."""
    systems = [problem.reduced for problem in problems]
    batch = learning.batch_systems(systems)
    precondition = preconditioner.setup(systems, batch)
    counts = []
    for family in learning.FAMILIES:
        rows = [
            learning.right_hand_side(problem, family, np.random.default_rng(i))
            for i, problem in enumerate(problems)
        ]
        with torch.no_grad():
            result = learning.cg(batch.apply, torch.tensor(np.stack(rows)), precondition)
        assert {*result.status} == {learning.Status.CONVERGED}
        counts.append(result.iterations)
    return torch.stack(counts).amax(dim=0).tolist()


def test_iterations_of_the_multigrid_are_what_they_were(tmp_path):
    """On ten problems with networks, coupling, reaction and diffusion over all ranges at once."""
    everything = replace(DISTRIBUTIONS["regimes_varying"], contrast=(1.0, 1e4), num_cells=20)
    problems = learning.generate(everything, 10, 5, tmp_path / "ten.h5", processes=1)
    pinned = [2, 3, 2, 3, 4, 2, 3, 3, 3, 4]
    assert most_iterations(problems, load_pretrained("multigrid")) == pinned


@pytest.mark.parametrize("outside", [
    {"contrast": (1e6, 1e6)},
    {"generators": ("capillary_mesh",)},
    {"radius": (0.25, 0.25)},
    {"anisotropy": (100.0, 100.0), "fibres": "oblique"},
    {"k_3d": (1e-6, 1e-6), "sigma_3d": (1e-6, 1e-6)},
    {"k_1d": (1e4, 1e4), "permeability": (1e3, 1e3)},
], ids=str)  # fmt: skip
def test_far_from_its_training_the_multigrid_is_not_worse_than_unlearned(outside, tmp_path):
    distribution = replace(DISTRIBUTIONS["paper"], num_cells=16, **outside)
    problems = learning.generate(distribution, 2, 5, tmp_path / "outside.h5", processes=1)
    learned = most_iterations(problems, load_pretrained("multigrid"))
    unlearned = most_iterations(problems, learning.GeometricMultigrid(dtype=torch.float32))
    assert all(few <= many + 2 for few, many in zip(learned, unlearned, strict=True))


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_shipped_model_is_part_of_the_wheel(name):
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for suffix in ("safetensors", "md"):
        file = f"pretrained_weights/{name}.{suffix}"
        assert any(fnmatch(file, pattern) for pattern in setuptools["package-data"]["learning"])


# --- Loading, on models made here -------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Ship an untrained model named tiny; return its file."""
    path = tmp_path / "tiny.safetensors"
    torch.manual_seed(0)
    save_weights(learning.UNet(), path)
    (tmp_path / "tiny.md").write_text("# tiny\nUntrained: ½ a model.\n", encoding="utf-8")
    monkeypatch.setattr(pretrained, "_FOLDER", tmp_path)
    monkeypatch.setitem(PRETRAINED, "tiny", load_weights(path).sha256)
    return path


@pytest.mark.parametrize(
    "load", [lambda _: load_pretrained("tiny"), load_preconditioner], ids=["name", "path"]
)
def test_a_loaded_preconditioner_solves_as_the_saved_model_does(load, tiny, system):
    wanted = learning.solve(system, learning.UNetPreconditioner(load_weights(tiny).model))
    result = learning.solve(system, load(tiny))
    assert result.converged
    assert (result.x == wanted.x).all()


def test_the_card_is_the_text_beside_the_weights(tiny):  # noqa: ARG001
    assert pretrained_card("tiny") == "# tiny\nUntrained: ½ a model.\n"


@pytest.mark.parametrize("function", [load_pretrained, pretrained_card])
def test_an_unknown_name_is_answered_with_the_known_ones(function, tiny):  # noqa: ARG001
    with pytest.raises(ValueError, match=r"got name='huge'; wanted one of \[.*'tiny'.*\]"):
        function("huge")


def test_exchanged_weights_are_noticed(tiny):
    save_weights(learning.UNet(), tiny)
    assert load_preconditioner(tiny)
    with pytest.raises(ValueError, match=r"wanted .* those of this version of the package"):
        load_pretrained("tiny")


def test_damaged_weights_are_noticed(tiny):
    tiny.write_bytes(tiny.read_bytes()[:-1])
    for load in (lambda: load_pretrained("tiny"), lambda: load_preconditioner(tiny)):
        with pytest.raises(ValueError, match="damaged, cut short"):
            load()


def test_weights_that_were_left_out_of_the_package_are_noticed(tiny):
    tiny.unlink()
    with pytest.raises(FileNotFoundError, match="which is no file"):
        load_pretrained("tiny")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_an_error(device, tiny):
    with pytest.raises(ValueError, match=f"got device='{device}', which PyTorch cannot use"):
        load_preconditioner(tiny, device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_preconditioners_run_on_the_device_they_were_loaded_to(tiny, system):
    on_cpu = learning.solve(system, load_preconditioner(tiny))
    on_gpu = learning.solve(system, load_preconditioner(tiny, "cuda"), device="cuda")
    assert on_gpu.x == pytest.approx(on_cpu.x, abs=1e-4)

"""The learned multigrid in use: few iterations, batches, weights in files, devices, errors."""

from dataclasses import replace

import pytest
import torch

import learning
from learning.preconditioners.multigrid import level
from learning.preconditioners.multigrid.learned import LearnedMultigrid
from learning.training.weights import load_weights, save_weights

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
KINDS = ["spanning_tree", "murray_tree", "capillary_mesh"]


@pytest.mark.parametrize(("options", "most"), [
    ({}, 6), ({"k": 1e-3}, 6), ({"k": 1e-6}, 8), ({"sigma": 1e-3}, 6), ({"k_1d": 100.0}, 6),
    ({"contrast": 1e4}, 9), ({"anisotropy": 100.0}, 9),
    ({"kind": "capillary_mesh", "permeability": 100.0}, 6),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("num_cells", [8, 13])
def test_few_iterations_before_training(problem, network, num_cells, options, most):
    system = problem(3 * (num_cells,), **options)
    for method in ("cg", "fgmres"):
        result = learning.solve(system, LearnedMultigrid(network(dtype=torch.float32)), method)
        assert result.converged
        assert result.iterations <= most


def test_iterations_do_not_depend_on_the_mesh(problem, network):
    counts = [
        learning.solve(problem(3 * (n,)), LearnedMultigrid(network())).iterations
        for n in (8, 10, 16)
    ]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_wild_weights_still_converge(problem, network, seed):
    system = problem((8, 8, 8), KINDS[seed % 3], k=0.01**seed, contrast=1e4)
    result = learning.solve(system, LearnedMultigrid(network(10.0, seed)), "cg")
    assert result.converged


def test_a_model_that_returns_nan_says_so(problem, network):
    model = network()
    torch.nn.init.constant_(model.logits, torch.nan)
    result = learning.solve(problem((8, 8, 8)), LearnedMultigrid(model))
    assert result.status is learning.Status.NOT_FINITE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_batch_equals_its_systems_one_by_one(problem, network, setup, dtype, monkeypatch):
    # Else the strongest coupling of a batch says whether all systems take row sums.
    monkeypatch.setattr(level, "LUMPED", -1.0)
    systems = [
        problem(), problem(kind="murray_tree", k=1e-4), problem(seed=1, contrast=1e4),
        problem(kind="capillary_mesh", permeability=0.01, sigma=10.0),
    ]  # fmt: skip
    model = network(1.0, 0, dtype)
    r = torch.randn(4, len(systems[0].g), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        together = setup(model, systems)(r)
        for i, system in enumerate(systems):
            alone = setup(model, [system])(r[i : i + 1])[0]
            tolerance = 1e-10 if dtype == torch.float64 else 1e-4
            assert (alone - together[i]).norm() <= tolerance * alone.norm()


def test_setting_up_is_deterministic_and_leaves_random_numbers_alone(problem, network, setup):
    system, model = problem(), network(1.0)
    r = torch.tensor(system.g[None])
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    with torch.no_grad():
        first, again = (setup(model, [system])(r) for _ in range(2))
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(first, again)


def test_weights_come_back_from_a_file(problem, network, setup, tmp_path):
    model, system = network(0.5, 3, torch.float32), problem()
    save_weights(model, tmp_path / "multigrid.safetensors")
    loaded = load_weights(tmp_path / "multigrid.safetensors")
    assert loaded.architecture == "multigrid"
    r = torch.tensor(system.g[None])
    with torch.no_grad():
        assert torch.equal(setup(loaded.model, [system])(r), setup(model, [system])(r))


def test_systems_and_devices_are_checked(problem, network, setup):
    def wants(message, model, *systems):
        with pytest.raises(ValueError, match=message):
            setup(model, systems)

    system, model = problem(), network()
    wants(
        "got a system on a mesh without a grid.*Use create_box", model, replace(system, grid=None)
    )
    wants(r"grids of \[\(4, 7, 6\), \(6, 7, 4\)\] nodes; wanted one shape", model,
          problem((3, 6, 5)), problem((5, 6, 3)))  # fmt: skip
    wants("got a system that is singular", model, replace(system, M=-100.0 * system.M))
    wants("got a model on meta and systems on cpu; wanted one device", network().to("meta"), system)


@needs_cuda
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_an_accelerator_gives_the_same(problem, network, scale):
    systems = [problem((8, 8, 8)), problem((8, 8, 8), seed=1, k=1e-4, contrast=100.0)]
    here, there = (learning.batch_systems(systems, device=d) for d in ("cpu", "cuda"))
    model = network(scale)
    with torch.no_grad():
        expected = LearnedMultigrid(model).setup(systems, here)(here.g)
        found = LearnedMultigrid(model.cuda()).setup(systems, there)(there.g).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)

"""An accelerator computes what the CPU does: products, solvers, losses, gradients, training.

They need the prepared data alone, and no DOLFINx. Without an accelerator the CPU stands in for it,
which shows that the tests themselves run.
"""

import csv
import os
from dataclasses import replace

import pytest
import torch

import learning
from learning.devices import exact_convolutions
from learning.preconditioners.fast_diagonalisation import FastDiagonalisation
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.preconditioners.unet import UNet, UNetPreconditioner
from learning.problems.distributions import DISTRIBUTIONS
from learning.problems.generation import in_tissue
from learning.training.loop import train
from learning.training.samples import Resident, Samples
from learning.training.stages import Stage
from learning.training.steps import captured, descend, new_optimizer

DEVICE = torch.device(os.environ.get("DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
TISSUES = {
    "paper": {},
    "heterogeneous": {"contrast": (1e4, 1e4)},
    "strong": {"k_3d": (1e-3, 1e-3)},
    "fibres": {"anisotropy": (100.0, 100.0)},
}


@pytest.fixture(scope="module")
def unseen(data):
    return learning.load_dataset(data / "unseen.h5")


@pytest.fixture(scope="module", params=TISSUES)
def systems(request, unseen):
    """Three systems in each tissue."""
    dataset = in_tissue(unseen, replace(unseen.distribution, **TISSUES[request.param]))
    return [problem.reduced for problem in dataset[:3]]


def batches(systems):
    return learning.batch_systems(systems), learning.batch_systems(systems, device=DEVICE)


def vectors(like, seed=0):
    return torch.randn(like.shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def assert_equal(found, wanted, tolerance):
    """Up to a tolerance in units of the largest entry."""
    scale = wanted.abs().max().item()
    torch.testing.assert_close(
        found.cpu().double(), wanted.double(), rtol=0, atol=tolerance * scale
    )


# --- Solvers ----------------------------------------------------------------------------------


def test_products_with_S_are_equal(systems):
    here, there = batches(systems)
    v = vectors(here.g)
    assert there.g.device.type == DEVICE.type
    assert_equal(there.g, here.g, 1e-12)
    assert_equal(there.apply(v.to(DEVICE)), here.apply(v), 1e-12)


def learned(device):
    return learning.load_pretrained("multigrid", device)


LINEAR = {
    "jacobi": lambda _: learning.Jacobi(),
    "learned multigrid": learned,
    "geometric": lambda _: GeometricMultigrid(),
    "geometric, degree 2": lambda _: GeometricMultigrid(degree=2),
    "geometric in float32": lambda _: GeometricMultigrid(dtype=torch.float32),
    "fast diagonalisation": lambda _: FastDiagonalisation(),
    "fast diagonalisation, coupling": lambda _: FastDiagonalisation(corrects_coupling=True),
}


@pytest.mark.parametrize("name", LINEAR)
def test_conjugate_gradients_take_as_many_steps_to_the_same_solution(name, systems):
    results = []
    for device, batch in zip(("cpu", DEVICE), batches(systems), strict=True):
        with torch.no_grad():
            M = LINEAR[name](device).setup(systems, batch)
            results.append(learning.cg(batch.apply, batch.g, M, rtol=1e-9, max_iterations=500))
    here, there = results
    slack = 5 if name == "jacobi" else 1
    assert (there.iterations.cpu() - here.iterations).abs().max() <= slack
    converged = [status.name == "CONVERGED" for status in here.status]
    assert converged == [status.name == "CONVERGED" for status in there.status]
    if all(converged):
        assert_equal(there.x, here.x, 1e-5)


@pytest.mark.parametrize("name", ["unet-static", "unet-dynamic"])
def test_fgmres_takes_as_many_steps_with_the_U_Net(name, unseen):
    systems = [problem.reduced for problem in unseen[:3]]
    results = []
    for device, batch in zip(("cpu", DEVICE), batches(systems), strict=True):
        with torch.no_grad():
            M = learning.load_pretrained(name, device).setup(systems, batch)
            results.append(learning.fgmres(batch.apply, batch.g, M, rtol=1e-6))
    here, there = results
    assert {status.name for status in (*here.status, *there.status)} == {"CONVERGED"}
    assert (there.iterations.cpu() - here.iterations).abs().max() <= 1
    assert_equal(there.x, here.x, 1e-4)


def test_solve_finds_the_same_solution(systems):
    here = learning.solve(systems[0], learned("cpu"))
    there = learning.solve(systems[0], learned(DEVICE), device=DEVICE)
    assert here.converged
    assert there.converged
    assert abs(there.iterations - here.iterations) <= 1
    assert_equal(torch.tensor(there.x), torch.tensor(here.x), 2e-5)


# --- Training ---------------------------------------------------------------------------------


@pytest.fixture
def unet():
    """Return a function that makes the same U-Net on a device."""

    def make(device):
        torch.manual_seed(0)
        model = UNet().to(device)
        if torch.device(device).type == "cuda":
            model.to(memory_format=torch.channels_last_3d)
        return model

    return make


LOSSES = {"residual": 3, "sine": 3}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_of_resident_systems_are_equal(loss, unseen, unet):
    stage = Stage(loss, 3, 1, ("canonical",), num_epochs=1, batch_size=3, num_steps=LOSSES[loss])
    systems = {i: problem.reduced for i, problem in enumerate(unseen[:3])}
    values, gradients, products = [], [], []
    for device in ("cpu", DEVICE):
        model = unet(device)
        resident = Resident.of(systems, UNetPreconditioner(model))
        index = torch.tensor([2, 0, 1], device=device)
        batch, M = resident.batch(index, mixed_precision=False)
        f = vectors(batch.g).to(device)
        products.append(batch.apply(f))
        with exact_convolutions():
            value = Samples(stage, (unseen,), model).loss(batch, f, M)
            gradients.append(torch.autograd.grad(value, list(model.parameters())))
        values.append(value.detach())
    assert_equal(products[1], products[0], 1e-12)
    torch.testing.assert_close(values[1].cpu(), values[0], rtol=1e-5, atol=0)
    scale = max(g.abs().max().item() for g in gradients[0])
    for found, wanted in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("mixed_precision", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_captured_step_is_the_step(loss, mixed_precision, unseen, unet, capsys):
    """Three steps on different systems, from the same weights."""
    if mixed_precision and DEVICE.type == "cpu":
        pytest.skip("tiny grids have no mixed precision on a CPU")
    stage = Stage(loss, 3, 1, ("canonical",), num_epochs=1, batch_size=2, num_steps=LOSSES[loss])
    weights, losses = [], []
    for is_captured in (False, True):
        model = unet(DEVICE)
        samples = Samples(stage, (unseen,), model)
        optimizer = new_optimizer(model, 1e-3)

        def step(index, f, samples=samples, optimizer=optimizer):
            batch, M = samples.resident.batch(index, mixed_precision=mixed_precision)
            return descend(samples.loss(batch, f, M), optimizer)

        chosen = [torch.tensor(pair, device=DEVICE) for pair in ((0, 1), (2, 0), (1, 2))]
        f = samples.resident.systems.g
        with exact_convolutions():
            run = captured(step, optimizer, chosen[0], f[chosen[0]]) if is_captured else step
            losses.append([run(index, f[index]).item() for index in chosen])
        weights.append([p.detach().cpu() for p in model.parameters()])
    assert "without a CUDA graph" not in capsys.readouterr().err
    assert losses[1] == pytest.approx(losses[0], rel=1e-2 if mixed_precision else 1e-3)
    # Adam's first steps have the size of the rate even where the gradient is all rounding.
    if not mixed_precision:
        found, wanted = (torch.cat([p.flatten() for p in one]) for one in weights)
        assert ((found - wanted).abs() > 3e-4).double().mean() < 0.02


def history(run):
    with (run.path / "history.csv").open() as stream:
        return [float(row["validation_loss"]) for row in csv.DictReader(stream)]


@pytest.mark.parametrize("loss", LOSSES)
def test_training_ends_at_the_same_loss(loss, unseen, tmp_path):
    families = ("canonical", "random")
    num_problems = min(len(unseen) - 1, 4)
    stage = Stage(loss, num_problems, 1, families, num_epochs=1, batch_size=3, num_steps=2)
    here = history(train(stage, unseen, tmp_path / "here", progress=False))
    there = history(train(stage, unseen, tmp_path / "there", device=DEVICE, progress=False))
    assert there == pytest.approx(here, rel=1e-2)


def test_a_stage_goes_on_after_its_time(unseen, tmp_path):
    stage = Stage("residual", 2, 1, ("canonical", "random"), num_epochs=2, batch_size=2)
    for _ in range(2):
        train(stage, unseen, tmp_path, device=DEVICE, progress=False, time_limit=0.0)
    run = train(stage, unseen, tmp_path, device=DEVICE, progress=False)
    assert len(history(run)) == 2


def test_the_data_are_those_of_the_paper(unseen):
    """Up to the size, which is tiny where the script is only tried."""
    paper = DISTRIBUTIONS["paper"]
    found = unseen.distribution
    assert replace(found, num_cells=paper.num_cells, num_nodes=paper.num_nodes) == paper

"""Losses: their options, mixtures and definitions. Those of the U-Net derive in test_unet.py."""

import pytest
import torch

import mixeddim as md
from learning.krylov.conjugate_gradients import cg
from learning.preconditioners.unet import UNet, UNetPreconditioner
from learning.systems.operators import batch_systems
from learning.training.losses import (
    energy_loss,
    hybrid_loss,
    log_sine_loss,
    residual_loss,
    sine_loss,
)


@pytest.fixture(scope="module")
def problem():
    """A batch, a U-Net in float64 and its map."""
    box = md.create_box((4, 3, 5))
    systems = []
    for seed in range(2):
        network = md.create_network(md.random_vascular_graph(6, 0.05, seed), 0.3)
        systems.append(md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0))))
    batch = batch_systems(systems)
    torch.manual_seed(0)
    unet = UNet().double()
    return batch, unet, UNetPreconditioner(unet).setup(systems, batch)


@pytest.mark.parametrize("loss", [sine_loss, log_sine_loss, hybrid_loss])
def test_checkpoints_leave_losses_and_gradients_alone(problem, loss):
    batch, unet, precondition = problem
    values, gradients, num_runs = [], [], []
    for checkpoint in (False, True):
        runs = []
        hook = unet.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        unet.zero_grad()
        value = loss(batch, batch.g, precondition, 3, checkpoint=checkpoint)
        value.backward()
        hook.remove()
        values.append(value.detach())
        gradients.append([parameter.grad.clone() for parameter in unet.parameters()])
        num_runs.append(len(runs))
    torch.testing.assert_close(*values, rtol=1e-14, atol=0)
    scale = max(gradient.abs().max().item() for gradient in gradients[0])
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12 * scale)
    assert num_runs[1] == num_runs[0] + 3


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_hybrid_is_the_weighted_mean_of_static_and_dynamic(problem, weight):
    batch, _, precondition = problem
    with torch.no_grad():
        static = residual_loss(batch, batch.g, precondition)
        dynamic = sine_loss(batch, batch.g, precondition, 4)
        hybrid = hybrid_loss(batch, batch.g, precondition, 4, weight)
    torch.testing.assert_close(hybrid, weight * static + (1 - weight) * dynamic)


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_weight_is_between_0_and_1(problem, weight):
    batch, _, precondition = problem
    with pytest.raises(ValueError, match=f"got weight={weight}; wanted 0 for the sine loss to 1"):
        hybrid_loss(batch, batch.g, precondition, 4, weight)


# --- The energy loss --------------------------------------------------------------------------


def dense(batch):
    """Return S of each system, shape (batch, n, n)."""
    unit = torch.eye(batch.g.shape[1], dtype=torch.float64)
    return torch.stack([batch.apply(row.expand_as(batch.g)) for row in unit], dim=2)


def linear(batch, weight):
    """Return a symmetric M: the identity, and a matrix of rank one, each with its weight."""
    smooth = torch.linspace(0.0, 1.0, batch.g.shape[1], dtype=torch.float64).cos()
    return lambda r: weight[0] * r + weight[1] * (r @ smooth)[:, None] * smooth


def test_energy_loss_is_that_of_its_definition(problem):
    batch, _, _ = problem
    precondition, m = linear(batch, torch.tensor([1.0, 0.3], dtype=torch.float64)), 4
    S = dense(batch)
    exact = torch.linalg.solve(S, batch.g)
    error = exact - cg(batch.apply, batch.g, precondition, rtol=0.0, max_iterations=m).x
    energy = [torch.einsum("bi,bij,bj->b", v, S, v).sqrt() for v in (error, exact)]
    wanted = (energy[0] / energy[1]).log().mean() / m
    got = energy_loss(batch, batch.g, precondition, m)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=0)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_energy_loss_is_differentiable_in_the_model(problem, checkpoint):
    batch, _, _ = problem
    weight = torch.tensor([1.0, 0.3], dtype=torch.float64, requires_grad=True)

    def value(weight):
        return energy_loss(batch, batch.g, linear(batch, weight), 3, checkpoint=checkpoint)

    assert torch.autograd.gradcheck(value, weight)


def test_energy_loss_of_the_inverse_is_very_low(problem):
    batch, _, _ = problem
    assert energy_loss(batch, batch.g, lambda r: r, 1) > -1.0
    exact = torch.linalg.inv(dense(batch))
    assert energy_loss(batch, batch.g, lambda r: torch.einsum("bij,bj->bi", exact, r), 1) < -25.0


@pytest.mark.parametrize(
    "loss", [residual_loss, sine_loss, log_sine_loss, hybrid_loss, energy_loss]
)
def test_a_loss_of_what_is_not_finite_is_not_finite(problem, loss):
    batch, _, _ = problem
    assert not torch.isfinite(loss(batch, batch.g, lambda r: r * torch.nan))


@pytest.mark.parametrize(
    "loss", [residual_loss, sine_loss, log_sine_loss, hybrid_loss, energy_loss]
)
def test_a_model_that_returns_nothing_is_explained(problem, loss):
    batch, _, _ = problem
    message = r"got None from the preconditioner; wanted a tensor of shape \(2, 120\) .*`forward`"
    with pytest.raises(ValueError, match=message):
        loss(batch, batch.g, lambda _: None)

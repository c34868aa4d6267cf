"""Losses of the U-Net: their options and mixtures. Their derivatives are in test_unet.py."""

import pytest
import torch

import mixeddim as md
from learning.losses import hybrid_loss, log_sine_loss, residual_loss, sine_loss
from learning.operators import batch_systems
from learning.unet import UNet, UNetPreconditioner


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


@pytest.mark.parametrize("loss", [residual_loss, sine_loss, log_sine_loss, hybrid_loss])
def test_a_loss_of_what_is_not_finite_is_not_finite(problem, loss):
    batch, _, _ = problem
    assert not torch.isfinite(loss(batch, batch.g, lambda r: r * torch.nan))

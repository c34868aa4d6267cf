"""The U-Net of the paper, as a network and as a preconditioner, and the losses that train it."""

import numpy as np
import pytest
import torch

import learning
import mixeddim as md

ROWS = {
    ("first", "second"): 13_840,
    ("down_half",): 55_296,
    ("down_quarter",): 221_184,
    ("bottom",): 442_368,
    ("up_half", "merge_half"): 286_784,
    ("up_full", "merge_full"): 71_912 - 200,  # without the head
}


def problems(num_cells, seeds, num_nodes=12):
    box = md.create_box(num_cells)
    systems = []
    for seed in seeds:
        graph = md.random_vascular_graph(num_nodes, 0.05, seed)
        network = md.create_network(graph, box.spacing)
        systems.append(md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0))))
    return systems


@pytest.fixture(scope="module")
def systems():
    return problems((5, 4, 6), range(3))


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return learning.UNet()


def test_numbers_of_parameters_are_those_of_the_paper(unet):
    for names, wanted in ROWS.items():
        got = sum(p.numel() for name in names for p in getattr(unet, name).parameters())
        assert got == wanted, names
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(1_091_384, rel=0.01)


@pytest.mark.parametrize("grid", [(1, 1, 1), (4, 4, 4), (5, 6, 7), (9, 2, 13)])
def test_any_grid_is_swept(unet, grid):
    with torch.no_grad():
        assert unet(torch.randn(2, 2, *grid)).shape == (2, 1, *grid)


def test_correction_scales_with_the_residual(unet, systems):
    batch = learning.batch_systems(systems)
    precondition = learning.UNetPreconditioner(unet).setup(systems, batch)
    with torch.no_grad():
        once, thousandfold = precondition(batch.g), precondition(1000 * batch.g)
        assert torch.all(precondition(torch.zeros_like(batch.g)) == 0)
    assert once.dtype == torch.float64
    torch.testing.assert_close(thousandfold, 1000 * once, rtol=1e-5, atol=0)


def test_dofs_meet_the_network_in_grid_order(systems):
    """A model that returns its first channel is the identity, up to scale, in any dof order."""

    class First(torch.nn.Linear):
        def forward(self, inputs):
            assert inputs.shape[2:] == (6, 5, 7)
            np.testing.assert_allclose(inputs[:, 1], distances, rtol=1e-6)
            return inputs[:, :1]

    distances = np.stack([system.distance_to_network for system in systems])
    batch = learning.batch_systems(systems)
    z = learning.UNetPreconditioner(First(1, 1)).setup(systems, batch)(batch.g)
    scale = torch.tensor([np.sqrt(np.mean(s.A_33.diagonal() ** 2)) for s in systems])
    torch.testing.assert_close(z * scale[:, None], batch.g, rtol=1e-6, atol=1e-12)


def test_distance_is_that_to_the_network(systems):
    system = systems[0]
    x, y, z = np.meshgrid(*(np.linspace(0, 1, n) for n in (6, 5, 7)), indexing="ij")
    nodes = np.stack([x, y, z], axis=-1)[..., None, :]
    expected = np.linalg.norm(nodes - system.points, axis=-1).min(axis=-1)
    np.testing.assert_allclose(system.distance_to_network, expected, atol=1e-12)


def test_no_unit_of_length_matters(unet):
    def correction(unit):
        box = md.create_box(6, upper=(unit, unit, unit))
        graph = md.random_vascular_graph(8, 0.05 * unit, 0, upper=(unit, unit, unit))
        network = md.create_network(graph, box.spacing)
        coefficients = md.Coefficients(
            k_3d=1.0, sigma_3d=unit**-2, k_1d=unit**2, permeability=1 / unit
        )
        system = md.reduce(md.assemble(box, network, coefficients))
        batch = learning.batch_systems([system])
        r = torch.linspace(-1, 1, len(system.g), dtype=torch.float64)[None]
        with torch.no_grad():
            return learning.UNetPreconditioner(unet).setup([system], batch)(r)

    torch.testing.assert_close(1000 * correction(1000.0), correction(1.0), rtol=1e-3, atol=1e-6)


def test_a_mesh_without_a_grid_is_an_error(unet):
    box = md.create_box(2)
    network = md.create_network(md.random_vascular_graph(4, 0.05, 0), 0.5)
    system = md.reduce(md.assemble(box.mesh, network, md.Coefficients()))
    with pytest.raises(ValueError, match="got a system on a mesh without a grid"):
        learning.solve(system, learning.UNetPreconditioner(unet))


# --- Solving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Identity", "Jacobi", "UNet"])
def test_every_preconditioner_solves_to_the_direct_solution(name, unet):
    preconditioner = (
        learning.UNetPreconditioner(unet) if name == "UNet" else getattr(learning, name)()
    )
    for system in problems((2, 1, 3), range(2), num_nodes=4):
        result = learning.solve(system, preconditioner, rtol=1e-10)
        exact = np.linalg.solve(system.S @ np.eye(len(system.g)), system.g)
        assert result.converged
        assert len(result.residual_norms) == result.iterations + 1
        np.testing.assert_allclose(result.x, exact, rtol=0, atol=1e-7)


def test_an_unconverged_solve_says_so(systems):
    result = learning.solve(systems[0], learning.Identity(), max_iterations=3)
    assert not result.converged
    assert result.iterations == 3
    assert "raise it" in result.status.value


# --- Losses -----------------------------------------------------------------------------------

LOSSES = {
    "static": learning.residual_loss,
    "sine": lambda *args: learning.sine_loss(*args, num_steps=3),
    "log-sine": lambda *args: learning.log_sine_loss(*args, num_steps=3),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_are_differentiable_in_the_model(loss):
    """In float64, at two small layers; the others follow by the chain rule."""
    systems = problems(2, range(2), num_nodes=4)
    batch = learning.batch_systems(systems)
    torch.manual_seed(1)
    unet = learning.UNet().double()
    precondition = learning.UNetPreconditioner(unet).setup(systems, batch)
    parameters = (unet.head.bias, unet.first.bias)

    def value(*_):
        return loss(batch, batch.g, precondition)

    assert torch.autograd.gradcheck(value, parameters, eps=1e-7, atol=1e-6)


def test_sine_losses_state_the_residual_after_the_steps(systems):
    batch = learning.batch_systems(systems)
    identity = learning.Identity().setup(systems, batch)
    m = 5
    result = learning.fgmres(batch.apply, batch.g, identity, rtol=0.0, max_iterations=m)
    reduction = result.true_residual_norms / batch.g.norm(dim=1)
    log_sine = learning.log_sine_loss(batch, batch.g, identity, num_steps=m)
    torch.testing.assert_close(log_sine, reduction.log().mean() / m, rtol=1e-10, atol=0)
    sine = learning.sine_loss(batch, batch.g, identity, num_steps=m)
    torch.testing.assert_close(sine, result.sines.mean(), rtol=1e-12, atol=0)


def test_static_loss_of_the_inverse_is_zero_and_of_nothing_one(systems):
    batch = learning.batch_systems(systems)
    inverse = torch.stack([torch.tensor(np.linalg.inv(s.S @ np.eye(210))) for s in systems])
    exact = lambda r: torch.einsum("bij,bj->bi", inverse, r)  # noqa: E731
    assert learning.residual_loss(batch, batch.g, exact) < 1e-12
    assert learning.residual_loss(batch, batch.g, torch.zeros_like) == 1.0


def test_dynamic_training_lowers_the_iterations():
    """A few steps on a tiny problem, seeded: the whole chain learns."""
    train, unseen = problems(6, range(4)), problems(6, [100])[0]
    batch = learning.batch_systems(train, torch.float32)
    torch.manual_seed(0)
    unet = learning.UNet()
    preconditioner = learning.UNetPreconditioner(unet)
    before = learning.solve(unseen, preconditioner).iterations
    precondition = preconditioner.setup(train, batch)
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        learning.sine_loss(batch, batch.g, precondition, num_steps=5).backward()
        optimizer.step()
    assert learning.solve(unseen, preconditioner).iterations < 0.7 * before


class _Rounded(torch.autograd.Function):
    """Rounding to the ten bits of TF32, also of the gradient."""

    @staticmethod
    def forward(_, x):
        bits = x.contiguous().view(torch.int32)
        return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)

    @staticmethod
    def backward(_, gradient):
        return _Rounded.apply(gradient)


def test_reduced_precision_changes_loss_and_gradient_little():
    """That of an accelerator: bfloat16, and TF32 in the last two convolutions, rounded by hand."""
    systems = problems(8, range(3))
    batch = learning.batch_systems(systems)
    f = torch.randn(batch.g.shape, dtype=torch.float64, generator=torch.manual_seed(0))
    model = learning.load_pretrained("unet-static").model.requires_grad_()
    parameters = list(model.parameters())
    values, gradients = [], []
    for mixed_precision in (False, True):
        if mixed_precision:
            for layer in (model.merge_full, model.head):
                layer.weight.data = _Rounded.apply(layer.weight.data)
                layer.register_forward_pre_hook(lambda _, inputs: (_Rounded.apply(inputs[0]),))
        M = learning.UNetPreconditioner(model, mixed_precision=mixed_precision)
        loss = learning.sine_loss(batch, f, M.setup(systems, batch), num_steps=3)
        found = torch.autograd.grad(loss, parameters)
        values.append(loss.item())
        gradients.append(torch.cat([g.flatten() for g in found]).double())
    assert values[1] == pytest.approx(values[0], rel=0.02)
    assert values[1] != values[0]
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.95

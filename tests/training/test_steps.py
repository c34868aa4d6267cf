"""Steps of problems that stay on the device: the numbers are those of ordinary batches."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

import learning
from learning.krylov import cycles, fgmres
from learning.preconditioners.unet import UNet, UNetPreconditioner
from learning.systems.resident import ResidentSystems
from learning.training import loop
from learning.training.loop import train
from learning.training.losses import residual_loss, sine_loss
from learning.training.samples import Resident, Samples
from learning.training.stages import Stage
from learning.training.steps import (
    ahead,
    captured,
    descend,
    new_optimizer,
    put_back,
    restore,
    set_rate,
)

CHOSEN = (7, 2, 2, 0)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return UNet()


@pytest.fixture(scope="module")
def pair(dataset, unet):
    """The same four systems: as a batch in dof order, and chosen from resident ones."""
    systems = [problem.reduced for problem in dataset]
    chosen = [systems[i] for i in CHOSEN]
    batch = learning.batch_systems(chosen)
    M = UNetPreconditioner(unet).setup(chosen, batch)
    resident = Resident.of(dict(enumerate(systems)), UNetPreconditioner(unet))
    return batch, M, *resident.batch(torch.tensor(CHOSEN), mixed_precision=False)


@pytest.fixture(scope="module")
def to_grid(dataset):
    order = torch.argsort(torch.tensor(dataset[0].reduced.grid.node_of_dof))
    return lambda v: v[:, order]


def test_resident_systems_are_those_of_a_batch(pair, to_grid):
    batch, M, there, M_there = pair
    torch.testing.assert_close(there.g, to_grid(batch.g), rtol=1e-13, atol=0)
    v = torch.randn(batch.g.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    torch.testing.assert_close(there.apply(to_grid(v)), to_grid(batch.apply(v)), rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(M_there(to_grid(v)), to_grid(M(v)), rtol=1e-5, atol=1e-6)


def test_resident_products_are_symmetric_and_differentiable(pair):
    _, _, there, _ = pair
    u, v = torch.randn(2, *there.g.shape, dtype=torch.float64, generator=torch.manual_seed(2))
    torch.testing.assert_close((u * there.apply(v)).sum(1), (v * there.apply(u)).sum(1))
    v.requires_grad_()
    assert torch.autograd.gradcheck(there.apply, (v,), fast_mode=True)
    assert torch.autograd.gradcheck(there.average, (v,), fast_mode=True)


def test_systems_of_several_tissues_do_not_stay(dataset):
    first, second = (dataset[i].reduced for i in (0, 1))
    other = dataclasses.replace(second, K=2.0 * second.K)
    with pytest.raises(ValueError, match=r"got systems of several tissues, .* batch_systems"):
        ResidentSystems.of([first, other])
    assert Resident.of({0: first, 1: other}, UNetPreconditioner(UNet())) is None


@pytest.mark.parametrize("loss", [residual_loss, lambda *a: sine_loss(*a, num_steps=3)])
def test_losses_and_gradients_are_those_of_a_batch(pair, to_grid, unet, loss):
    batch, M, there, M_there = pair
    f = torch.randn(batch.g.shape, dtype=torch.float64, generator=torch.manual_seed(3))
    parameters = list(unet.parameters())
    values = [loss(batch, f, M), loss(there, to_grid(f), M_there)]
    gradients = [torch.autograd.grad(value, parameters) for value in values]
    torch.testing.assert_close(*values, rtol=1e-6, atol=0)
    scale = max(g.abs().max().item() for g in gradients[0])
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5 * scale)


# --- What a CUDA graph records ----------------------------------------------------------------


@pytest.fixture
def recording(monkeypatch):
    """Take the way of a capture, and fail where a value is looked at that a graph has not yet."""

    def refuse(*_):
        raise RuntimeError("a value was looked at")

    for module in (cycles, fgmres):
        monkeypatch.setattr(module, "is_capturing", lambda _: True)

    def start():
        for name in ("__bool__", "item", "tolist", "__float__", "numpy", "nonzero"):
            monkeypatch.setattr(torch.Tensor, name, refuse)

    return start


@pytest.mark.parametrize("loss", ["residual", "sine", "log_sine", "hybrid"])
def test_a_step_looks_at_no_value(dataset, recording, loss):
    stage = Stage(loss, 6, 2, ("canonical",), num_epochs=1, batch_size=3, num_steps=3)
    samples = Samples(stage, (dataset,), UNet())
    optimizer = new_optimizer(samples.model, 1e-3)
    index = torch.tensor([0, 3, 4])
    f = samples.resident.systems.g[index]
    with put_back(optimizer):
        pass  # makes the optimiser's state
    # Adam looks at its count of steps, which an accelerator holds; the rest of the step does not.
    optimizer.step = lambda: None
    recording()
    batch, M = samples.resident.batch(index, mixed_precision=False)
    descend(samples.loss(batch, f, M), optimizer)
    with pytest.raises(RuntimeError, match="a value was looked at"):
        learning.fgmres(batch.apply, f, M)


def test_the_way_of_a_capture_gives_the_same_sines(pair, monkeypatch):
    """Also of a system that is solved before the last step."""
    batch, *_ = pair
    exact = torch.linalg.inv(torch.stack([batch.apply(e.expand_as(batch.g)) for e in
                             torch.eye(batch.g.shape[1], dtype=torch.float64)], dim=2))  # fmt: skip
    solving = [
        lambda r: torch.einsum("bij,bj->bi", exact, r),
        lambda r: torch.cat([torch.einsum("bij,bj->bi", exact[:2], r[:2]), r[2:]]),
    ]
    for M in solving:
        wanted = fgmres.krylov_sines(batch.apply, batch.g, M, 4)
        for module in (cycles, fgmres):
            monkeypatch.setattr(module, "is_capturing", lambda _: True)
        torch.testing.assert_close(fgmres.krylov_sines(batch.apply, batch.g, M, 4), wanted)
        monkeypatch.undo()


def test_warming_up_leaves_weights_and_optimiser_alone(unet):
    model = UNet()
    model.load_state_dict(unet.state_dict())
    optimizer = new_optimizer(model, 1e-3)
    x = torch.randn(1, 2, 4, 4, 4)
    for steps in (0, 2):  # of an optimiser without and with a state
        for _ in range(steps):
            descend(model(x).square().mean(), optimizer)
        before = [p.detach().clone() for p in model.parameters()]
        counts = [optimizer.state[p]["step"].clone() for p in model.parameters() if steps]
        with put_back(optimizer):
            for _ in range(3):
                descend(model(x).square().mean(), optimizer)
        torch.testing.assert_close([*model.parameters()], before, rtol=0, atol=0)
        found = [optimizer.state[p]["step"] for p in model.parameters()]
        assert all(int(count) == steps for count in found)
        assert not counts or counts == found


def test_on_a_cpu_nothing_is_captured(unet):
    def step(index, f):
        return f[index].sum()

    f = torch.ones(2, 3)
    assert captured(step, new_optimizer(unet, 1e-3), torch.zeros(1, dtype=torch.int64), f) is step


# --- The optimiser ----------------------------------------------------------------------------


def test_a_step_is_that_of_adam_on_clipped_gradients():
    models = [torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)]
    models[1].load_state_dict(models[0].state_dict())
    x = 100.0 * torch.randn(5, 3)
    ours, plain = new_optimizer(models[0], 1e-2), torch.optim.Adam(models[1].parameters(), 1e-2)
    for rate in (1e-2, 3e-3):
        set_rate(ours, rate)
        value = descend(models[0](x).square().mean(), ours)
        loss = models[1](x).square().mean()
        plain.zero_grad()
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(models[1].parameters(), 1.0) > 1.0
        plain.param_groups[0]["lr"] = rate
        plain.step()
        assert value == loss.detach().double()
    torch.testing.assert_close(models[0].weight, models[1].weight, rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_spoils_no_weight():
    model = torch.nn.Linear(3, 1)
    optimizer = new_optimizer(model, 1e-2)
    descend(model(torch.ones(1, 3)).sum(), optimizer)
    assert torch.isnan(descend((model(torch.ones(1, 3)) * torch.inf).sum(), optimizer))
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_state_of_an_optimiser_on_another_device_is_restored():
    """With a rate that is a tensor and other layouts, as on an accelerator."""
    x = torch.randn(1, 2, 4, 4, 4)
    there = UNet().to(memory_format=torch.channels_last_3d)
    first = torch.optim.Adam(there.parameters(), torch.tensor(1e-3))
    descend(there(x).square().mean(), first)
    here = UNet()
    here.load_state_dict(there.state_dict())
    second = new_optimizer(here, 1e-3)
    restore(second, first.state_dict())
    assert isinstance(second.param_groups[0]["lr"], float)
    for p, q in zip(there.parameters(), here.parameters(), strict=True):
        for name in ("exp_avg", "exp_avg_sq", "step"):
            torch.testing.assert_close(second.state[q][name], first.state[p][name], rtol=0, atol=0)
        assert second.state[q]["exp_avg"].stride() == q.stride()


# --- The loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["residual", "sine"])
def test_training_is_the_same_wherever_problems_stay(
    static_stage, dataset, tmp_path, history, monkeypatch, loss
):
    stage = dataclasses.replace(static_stage, loss=loss, num_steps=3)
    there = history(train(stage, dataset, tmp_path / "resident", progress=False).path)
    monkeypatch.setattr(Samples, "resident", None)
    here = history(train(stage, dataset, tmp_path / "batches", progress=False).path)
    for row, wanted in zip(there, here, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)


def test_a_run_that_is_out_of_time_goes_on_in_the_next(
    static_stage, static, dataset, tmp_path, assert_same_weights, history
):
    run, calls = None, 0
    while not (tmp_path / "last.safetensors").exists() or len(history(tmp_path)) < 2:
        run = train(static_stage, dataset, tmp_path, progress=False, time_limit=0.0)
        calls += 1
        assert calls < 20
    assert calls >= 6  # one batch each
    run = train(static_stage, dataset, tmp_path, progress=False)
    assert history(tmp_path) == history(static.path)
    assert_same_weights(run.best, static.best)


def test_processes_would_not_stop_together(static_stage, dataset, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def two(_):
        yield 0, 2

    monkeypatch.setattr(loop, "processes", two)
    with pytest.raises(ValueError, match=r"got time_limit=5.0 on 2 processes.*wanted one process"):
        train(static_stage, dataset, tmp_path, progress=False, time_limit=5.0)


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_what_is_computed_ahead_comes_in_order(num_threads):
    seen = []

    def square(i):
        seen.append(i)
        return i * i

    values = ahead(square, range(50), num_threads, most=4)
    assert next(values) == 0
    assert len(seen) <= 5
    assert [0, *values] == [i * i for i in range(50)]
    with pytest.raises(ZeroDivisionError):
        [*ahead(lambda i: 1 / i, [1, 0], num_threads)]


def test_padded_rows_hold_empty_ones_and_any_matrix():
    from scipy import sparse

    from learning.systems.padded import padded_map

    rng = np.random.default_rng(0)
    blocks = [sparse.random_array((4, 6), density=d, rng=rng, format="csr") for d in (0.3, 0.0)]
    A = padded_map(sparse.block_diag(blocks, format="csr"), 2, torch.empty(0, dtype=torch.float64))
    v, w = (torch.tensor(rng.standard_normal((2, n))) for n in (6, 4))
    for i, block in enumerate(blocks):
        np.testing.assert_allclose(A(v)[i], block @ v[i].numpy(), atol=1e-14)
        np.testing.assert_allclose(A.T(w)[i], block.T @ w[i].numpy(), atol=1e-14)
    turned = A[torch.tensor([1, 0, 0])]
    np.testing.assert_allclose(turned(v[[1, 0, 0]]), A(v)[[1, 0, 0]])

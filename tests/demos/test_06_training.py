"""Training from scratch: iterations on unseen problems fall from stage to stage."""

import numpy as np
import pytest
import torch

import learning


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("06_training")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def result(demo, folder):
    return demo.main(["--num-cells", "7", "--num-steps", "100", "--output", str(folder)])


@pytest.fixture(scope="module")
def problems(demo, result, folder):  # noqa: ARG001
    return demo.draw_problems(7, 0, folder)


def test_training_lowers_iterations_on_unseen_problems(demo, result, folder):
    iterations = result.iterations
    samples = demo.NUM_UNSEEN * len(learning.FAMILIES)
    assert all(len(values) == samples for values in iterations.values())
    # Before training M is the identity but for a factor, which FGMRES does not notice.
    np.testing.assert_array_equal(iterations["untrained"], iterations["none"])
    assert iterations["static"].max() < 0.7 * iterations["none"].min()
    assert iterations["static"].max() < iterations["Jacobi"].min()
    assert iterations["dynamic"].mean() < iterations["static"].mean() - 1

    assert [len(losses) for losses in result.losses.values()] == [100, 33]
    for losses in result.losses.values():
        assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert result.picture == folder / "training.png"
    assert result.picture.stat().st_size > 10_000


def test_training_can_be_repeated(demo, result, problems):
    def first_losses(seed):
        rng = np.random.default_rng(seed)
        model = demo.create_model(seed)
        return demo.train(model, problems[: demo.NUM_TRAINING], learning.residual_loss, 5, rng)

    assert first_losses(0) == first_losses(0)
    assert first_losses(0)[0] == pytest.approx(result.losses["static"][0], rel=1e-6)
    assert first_losses(0)[1:] != first_losses(1)[1:]


def test_preconditioner_scales_with_the_residual(demo, problems):
    reduced = problems[0].reduced
    batch = learning.batch_systems([reduced])
    model = demo.create_model(seed=1)
    torch.nn.init.constant_(model.head.weight, 0.1)
    precondition = demo.NeuralPreconditioner(model).setup([reduced], batch)
    with torch.no_grad():
        correction = precondition(batch.g)
        torch.testing.assert_close(
            precondition(1e-9 * batch.g), 1e-9 * correction, rtol=1e-5, atol=0
        )
        a = reduced.A_33.diagonal().mean()
        assert not torch.allclose(correction, batch.g / a, rtol=1e-2), "the network has a say"
        assert torch.all(precondition(torch.zeros_like(batch.g)) == 0)


def test_help_of_training_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    options = ("num-cells", "num-steps", "seed", "output")
    assert all(f"--{option}" in printed for option in options)

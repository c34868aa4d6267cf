"""Solving one system: every method, and what it says when it cannot."""

import dataclasses

import numpy as np
import pytest
import torch

import learning
import mixeddim as md
from learning.krylov.fgmres import Status

METHODS = ["fgmres", "cg", "flexible_cg"]


@pytest.fixture(scope="module")
def system():
    box = md.create_box((4, 3, 5))
    network = md.create_network(md.random_vascular_graph(8, 0.05, seed=0), 0.2)
    return md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0)))


@pytest.mark.parametrize(
    "preconditioner", [learning.Identity(), learning.Jacobi()], ids=["identity", "jacobi"]
)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_the_direct_solution(system, preconditioner, method):
    result = learning.solve(system, preconditioner, method, rtol=1e-10)
    exact = np.linalg.solve(system.S @ np.eye(len(system.g)), system.g)
    assert result.converged
    assert result.method == method
    assert np.linalg.norm(system.g - system.S @ result.x) <= 1.01e-10 * np.linalg.norm(system.g)
    assert result.residual_norms.shape == (result.iterations + 1,)
    np.testing.assert_allclose(result.x, exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_an_unconverged_solve_says_so(system, method):
    result = learning.solve(system, learning.Identity(), method, max_iterations=3)
    assert not result.converged
    assert result.status is Status.MAX_ITERATIONS
    assert result.residual_norms.shape == (4,)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_returns_nan_says_so(system, method):
    model = learning.UNet()
    torch.nn.init.constant_(model.head.bias, torch.nan)
    result = learning.solve(system, learning.UNetPreconditioner(model), method)
    assert result.status is Status.NOT_FINITE
    assert result.residual_norms.shape == (1,)
    assert np.all(result.x == 0)


class Of:
    """A preconditioner from a map."""

    def __init__(self, apply):
        self.apply = apply

    def setup(self, _, __):
        return self.apply


class Declared(Of):
    """One that says what it is."""

    def __init__(self, is_linear, is_symmetric):
        super().__init__(lambda r: r)
        self.is_linear, self.is_symmetric = is_linear, is_symmetric


@pytest.mark.parametrize(("preconditioner", "method"), [
    (learning.Identity(), "cg"),
    (learning.Jacobi(), "cg"),
    (learning.UNetPreconditioner(learning.UNet()), "fgmres"),
    (Declared(True, True), "cg"),
    (Declared(True, False), "fgmres"),
    (Declared(False, True), "fgmres"),
    (Of(lambda r: r), "fgmres"),
])  # fmt: skip
def test_the_method_suits_what_the_preconditioner_declares(system, preconditioner, method):
    result = learning.solve(system, preconditioner, max_iterations=3)
    assert result.method == method
    named = learning.solve(system, preconditioner, method, max_iterations=3)
    np.testing.assert_array_equal(result.residual_norms, named.residual_norms)


def test_a_preconditioner_that_is_not_positive_is_left_to_the_flexible_methods(system):
    negative = Of(lambda r: -r)
    assert learning.solve(system, negative).converged
    assert learning.solve(system, negative, "flexible_cg").converged
    result = learning.solve(system, negative, "cg")
    assert result.status is Status.NOT_DEFINITE
    assert "use fgmres" in result.status.value


@pytest.mark.parametrize(("preconditioner", "arguments", "message"), [
    (learning.Jacobi(), {"method": "gmres"},
     r"got method='gmres'; wanted one of \('auto', 'fgmres', 'cg', 'flexible_cg'\)"),
    (learning.UNet(), {}, r"got an object of type UNet as prec.*UNetPreconditioner\(model\)"),
    ("unet-dynamic", {}, r"got 'unet-dynamic' as preconditioner; .*load_pretrained\(name\)"),
    (learning.Jacobi, {}, r"got <class .*Jacobi'> as preconditioner; .*Use .* Jacobi\(\)"),
    (learning.Recommendation("jacobi", learning.Jacobi(), ""), {}, r"Recomm.* \.preconditioner of"),
    (Of(lambda r: r[:, :-1]), {},
     r"got shape \(1, 119\) on cpu from the preconditioner; wanted \(1, 120\)"),
    (Of(lambda r: r.to("meta")), {}, "on meta from the preconditioner; wanted .* on cpu"),
    (Of(lambda _: None), {}, r"got None from the preconditioner; wanted a tensor of shape "
     r"\(1, 120\) on cpu, .* End its function, .* with `return` and that tensor"),
    (Of(lambda r: r.numpy()), {}, "got an object of type ndarray from the preconditioner"),
    (Of(None), {}, r"got None as the map r -> M r; .* shape \(1, 120\).*End setup with `return`"),
    (learning.Jacobi(), {"rtol": -1.0}, "got rtol=-1.0"),
])  # fmt: skip
def test_what_does_not_fit_is_explained(system, preconditioner, arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        learning.solve(system, preconditioner, **arguments)


def test_a_system_that_is_not_reduced_is_explained():
    box = md.create_box(2)
    network = md.create_network(md.random_vascular_graph(4, 0.05, 0), 0.5)
    coupled = md.assemble(box, network, md.Coefficients())
    with pytest.raises(ValueError, match=r"got a CoupledSystem; wanted .* mixeddim.reduce\(system"):
        learning.solve(coupled, learning.Jacobi())


def test_a_system_that_is_not_finite_is_explained(system):
    broken = dataclasses.replace(system, b_3=np.full_like(system.b_3, np.nan))
    with pytest.raises(ValueError, match="got NaN or infinity in b_3; wanted numbers"):
        learning.solve(broken, learning.Jacobi())


def test_a_model_on_another_device_is_explained(system):
    preconditioner = learning.UNetPreconditioner(learning.UNet().to("meta"))
    with pytest.raises(ValueError, match="got a model on meta and systems on cpu"):
        learning.solve(system, preconditioner)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_model_of_any_dtype_preconditions(system, dtype):
    torch.manual_seed(0)
    preconditioner = learning.UNetPreconditioner(learning.UNet().to(dtype))
    result = learning.solve(system, preconditioner, rtol=1e-9)
    assert result.converged
    assert result.x.dtype == np.float64

"""Flexible GMRES: exact, equal to PETSc's, its sines the angles of Krylov spaces."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

from learning.krylov.fgmres import Status, fgmres, krylov_sines


def random_systems(batch, n, seed=0):
    """Return well-conditioned nonsymmetric matrices and right-hand sides."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(batch, n, n, generator=generator, dtype=torch.float64) / n**0.5
    A = A + 2.5 * torch.eye(n, dtype=torch.float64)
    return A, torch.randn(batch, n, generator=generator, dtype=torch.float64)


def times(A):
    return lambda v: torch.einsum("bij,bj->bi", A, v)


def no_preconditioner(v):
    return v


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_exact_in_as_many_steps_as_unknowns(n):
    A, b = random_systems(4, n)
    result = fgmres(times(A), b, no_preconditioner, rtol=1e-12, max_iterations=n)
    torch.testing.assert_close(result.x, torch.linalg.solve(A, b), rtol=0, atol=1e-10)
    assert result.iterations.max() <= n


def test_residual_history_equals_that_of_petsc():
    n = 60
    A, b = random_systems(1, n)
    inverse_diagonal = 1.0 / A.diagonal(dim1=1, dim2=2)
    ours = fgmres(times(A), b, lambda v: inverse_diagonal * v, rtol=1e-10, max_iterations=n)

    matrix = PETSc.Mat().createDense((n, n), array=A[0].numpy(), comm=PETSc.COMM_SELF)
    matrix.assemble()
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(matrix)
    ksp.setType("fgmres")
    ksp.setGMRESRestart(n)
    ksp.getPC().setType("jacobi")
    ksp.setTolerances(rtol=1e-10, max_it=n)
    ksp.setConvergenceHistory(n + 1)
    rhs = PETSc.Vec().createWithArray(b[0].numpy(), comm=PETSc.COMM_SELF)
    ksp.solve(rhs, rhs.duplicate())

    theirs = ksp.getConvergenceHistory()
    assert len(theirs) == int(ours.iterations) + 1
    np.testing.assert_allclose(ours.residual_norms[:, 0], theirs, rtol=0, atol=1e-10 * theirs[0])


@pytest.mark.parametrize("restart", [None, 4])
def test_product_of_sines_is_the_residual_reduction(restart):
    A, b = random_systems(3, 30)
    result = fgmres(times(A), b, no_preconditioner, rtol=1e-8, restart=restart)
    reduction = result.sines.cumprod(dim=0) * b.norm(dim=1)
    torch.testing.assert_close(reduction, result.residual_norms[1:], rtol=1e-8, atol=0)
    assert {*result.status} == {Status.CONVERGED}


def test_product_of_sines_is_the_true_residual_reduction():
    A, b = random_systems(2, 25)
    for m in (1, 3, 8):
        result = fgmres(times(A), b, no_preconditioner, rtol=0.0, max_iterations=m)
        reduction = result.true_residual_norms / b.norm(dim=1)
        torch.testing.assert_close(result.sines.prod(dim=0), reduction, rtol=1e-12, atol=1e-14)


def test_sines_are_those_of_the_angles_between_residuals_and_krylov_images():
    n, m = 20, 8
    A, b = random_systems(1, n)
    M = torch.linalg.inv(random_systems(1, n, seed=1)[0])
    sines = krylov_sines(times(A), b, times(M), m)[:, 0]
    AM = (A[0] @ M[0]).numpy()
    image, residual = np.empty((n, 0)), b[0].numpy()
    power = residual
    for k in range(m):
        power = AM @ (power / np.linalg.norm(power))
        image = np.column_stack([image, power])
        basis = np.linalg.svd(image, full_matrices=False)[0]
        cosine = np.linalg.svd(basis.T @ residual[:, None] / np.linalg.norm(residual))[1][0]
        assert sines[k].item() == pytest.approx(np.sqrt(1 - cosine**2), abs=1e-7)
        residual = residual - basis @ (basis.T @ residual)


def test_sines_are_differentiable_in_the_preconditioner():
    A, b = random_systems(2, 8)
    weight = (torch.eye(8) + 0.1 * torch.ones(8, 8)).double().requires_grad_()

    def loss(weight):
        # Not linear, as a network is not, so that each step needs its own derivative.
        return krylov_sines(times(A), b, lambda v: torch.tanh(v @ weight) + v, 4)

    assert torch.autograd.gradcheck(loss, (weight,))


def gradients(checkpoint, model, loss):
    model.zero_grad()
    value = loss(checkpoint)
    value.backward()
    return value.detach(), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("autocast", [False, True])
def test_checkpoints_change_memory_not_gradients(autocast):
    """With the autocast state of the forward pass, which sets what is computed again."""
    A, b = random_systems(3, 12)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(12, 30), torch.nn.Tanh(), torch.nn.Linear(30, 12))
    model = model.to(torch.float32 if autocast else torch.float64)
    dtype = next(model.parameters()).dtype
    kept = []

    def precondition(v):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return v + model(v.to(dtype)).double()

    def loss(checkpoint):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            return krylov_sines(times(A), b, precondition, 6, checkpoint=checkpoint).mean()

    plain, expected = gradients(False, model, loss)
    activations = sum(t.shape[-1] == 30 for t in kept)
    kept.clear()
    checkpointed, got = gradients(True, model, loss)
    assert activations > 0
    assert not any(t.shape[-1] == 30 for t in kept)
    assert checkpointed == plain
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_sines_of_what_is_not_finite_are_nan():
    """So that a loss made of them is not finite either, and training stops."""
    A, b = random_systems(3, 10)

    def poison(v):
        return torch.where(torch.tensor([[False], [True], [False]]), torch.inf, v)

    sines = krylov_sines(times(A), b, poison, 4)
    assert torch.isnan(sines[:, 1]).all()
    assert torch.isfinite(sines[:, [0, 2]]).all()


def test_sines_are_one_after_the_solution():
    b = random_systems(2, 3)[1]
    sines = krylov_sines(lambda v: 2.0 * v, b, no_preconditioner, 5)
    assert sines.tolist() == [[0.0, 0.0]] + 4 * [[1.0, 1.0]]


def test_a_batch_equals_its_systems_one_by_one():
    A, b = random_systems(5, 30)
    b = b * torch.logspace(-8, 8, 5, dtype=torch.float64)[:, None]
    A[0], b[1] = torch.eye(30), 0.0
    together = fgmres(times(A), b, no_preconditioner, rtol=1e-9)
    assert together.iterations[0] == 1
    assert together.iterations[1] == 0
    for i in range(5):
        alone = fgmres(times(A[i : i + 1]), b[i : i + 1], no_preconditioner, rtol=1e-9)
        assert alone.iterations[0] == together.iterations[i]
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-9, atol=1e-12)
        assert alone.status[0] is together.status[i] is Status.CONVERGED


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 15),
    batch=st.integers(1, 4),
    seed=st.integers(0, 1000),
    restart=st.sampled_from([None, 3]),
)
def test_solves_to_the_tolerance(n, batch, seed, restart):
    A, b = random_systems(batch, n, seed)
    A = A @ A.mT + torch.eye(n, dtype=torch.float64)
    result = fgmres(times(A), b, no_preconditioner, rtol=1e-7, max_iterations=500, restart=restart)
    assert {*result.status} == {Status.CONVERGED}
    true = (b - times(A)(result.x)).norm(dim=1)
    assert torch.all(true <= 1e-7 * b.norm(dim=1))
    torch.testing.assert_close(true, result.true_residual_norms)


def test_a_changing_preconditioner_is_allowed():
    A, b = random_systems(2, 20)
    factors = iter(torch.linspace(0.2, 3.0, 100).tolist())
    result = fgmres(times(A), b, lambda v: next(factors) * v.clamp(-0.3, 0.5), rtol=1e-8)
    assert {*result.status} == {Status.CONVERGED}


def test_a_float32_model_solves_in_float64():
    A, b = random_systems(2, 20)
    M = torch.linalg.inv(A).float()
    result = fgmres(times(A), b, lambda v: times(M)(v.float()), rtol=1e-11)
    assert result.x.dtype == torch.float64
    assert {*result.status} == {Status.CONVERGED}
    assert result.iterations.max() <= 4


@pytest.mark.parametrize(("solve", "status"), [
    (lambda A, b: fgmres(times(A), b, no_preconditioner, max_iterations=3), Status.MAX_ITERATIONS),
    (lambda A, b: fgmres(times(A.float()), b.float(), no_preconditioner, rtol=1e-9),
     Status.STAGNATED),
    (lambda A, b: fgmres(times(A), b, lambda v: v / 0.0), Status.NOT_FINITE),
    (lambda A, b: fgmres(times(A), b, lambda v: 0.0 * v), Status.STAGNATED),
], ids=["too few", "float32", "NaN", "zero preconditioner"])  # fmt: skip
def test_a_failed_solve_says_why(solve, status):
    A, b = random_systems(2, 40)
    result = solve(A, b)
    assert {*result.status} == {status}
    assert torch.isfinite(result.x).all()
    assert len(status.value) > 30


def test_one_failed_system_leaves_the_others_alone():
    A, b = random_systems(3, 20)

    def poison(v):
        return torch.where(torch.tensor([[False], [True], [False]]), torch.nan, v)

    result = fgmres(times(A), b, poison, rtol=1e-8)
    assert result.status == (Status.CONVERGED, Status.NOT_FINITE, Status.CONVERGED)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"b": torch.ones(3)}, r"got b of shape \(3,\).*Use b\[None\]"),
    ({"b": torch.ones(1, 3, dtype=torch.int64)}, "wanted .* in float32 or float64"),
    ({"b": torch.tensor([[0.0], [torch.inf]])}, r"NaN or infinity in the right-hand sides \[1\]"),
    ({"rtol": -1.0}, "got rtol=-1.0"),
    ({"max_iterations": 0}, "got 0 steps"),
    ({"restart": 0}, "got restart=0"),
    ({"precondition": lambda v: v[:, :1]}, r"got shape \(1, 1\) on cpu from the precond.*\(1, 2\)"),
])  # fmt: skip
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        fgmres(no_preconditioner, **({"b": torch.ones(1, 2), "precondition": abs} | arguments))

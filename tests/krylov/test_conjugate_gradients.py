"""Conjugate gradients, plain and flexible: exact, equal to PETSc's, honest about failure."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from petsc4py import PETSc

from learning.krylov.conjugate_gradients import cg, energy_reduction, flexible_cg
from learning.krylov.fgmres import Status, fgmres

METHODS = pytest.mark.parametrize("method", [cg, flexible_cg], ids=lambda method: method.__name__)


def spd_systems(batch, n, seed=0):
    """Return symmetric matrices with eigenvalues from 1 to about 6, and right-hand sides."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(batch, n, n, generator=generator, dtype=torch.float64) / n**0.5
    A = A @ A.mT + torch.eye(n, dtype=torch.float64)
    return A, torch.randn(batch, n, generator=generator, dtype=torch.float64)


def stretched(A, ratio):
    """Scale rows and columns, up to the given ratio between the last and the first."""
    scale = torch.logspace(0, np.log10(ratio), A.shape[-1], dtype=torch.float64)
    return scale[:, None] * A * scale


def times(A):
    return lambda v: torch.einsum("bij,bj->bi", A, v)


def no_preconditioner(v):
    return v


def bent(v):
    """Scale entries by what they are themselves: nonlinear, homogeneous, close to the identity."""
    return v * (1.0 + 0.5 * v.abs() / v.abs().amax(dim=1, keepdim=True))


@METHODS
@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_exact_in_as_many_steps_as_unknowns(method, n):
    A, b = spd_systems(4, n)
    result = method(times(A), b, no_preconditioner, rtol=1e-12, max_iterations=n)
    torch.testing.assert_close(result.x, torch.linalg.solve(A, b), rtol=0, atol=1e-10)
    assert result.iterations.max() <= n


@METHODS
def test_error_falls_in_the_energy_norm_as_the_best_in_the_krylov_space(method):
    A, b = spd_systems(1, 30)
    exact = torch.linalg.solve(A, b)
    for m in (1, 2, 5):
        powers = torch.stack([torch.linalg.matrix_power(A[0], k) @ b[0] for k in range(m)], dim=1)
        best = powers @ torch.linalg.solve(powers.T @ A[0] @ powers, powers.T @ b[0])
        x = method(times(A), b, no_preconditioner, rtol=0.0, max_iterations=m).x[0]
        torch.testing.assert_close(x, best, rtol=0, atol=1e-9 * exact.norm().item())


# --- Beside PETSc -----------------------------------------------------------------------------


class Shell:
    """A map of torch vectors as a preconditioner of PETSc."""

    def __init__(self, precondition):
        self.precondition = precondition

    def apply(self, _, r, z):
        z.array = self.precondition(torch.tensor(r.array_r.copy())[None])[0].numpy()


def petsc_history(A, b, precondition, ksp_type, **options):
    n = b.shape[1]
    matrix = PETSc.Mat().createDense((n, n), array=A[0].numpy(), comm=PETSc.COMM_SELF)
    matrix.assemble()
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOptionsPrefix("krylov_test_")
    for name, value in options.items():
        PETSc.Options("krylov_test_")[name] = value
    ksp.setOperators(matrix)
    ksp.setType(ksp_type)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(Shell(precondition))
    ksp.setTolerances(rtol=1e-10, max_it=200)
    ksp.setConvergenceHistory(201)
    ksp.setFromOptions()
    rhs = PETSc.Vec().createWithArray(b[0].numpy(), comm=PETSc.COMM_SELF)
    ksp.solve(rhs, rhs.duplicate())
    return ksp.getConvergenceHistory()


@pytest.mark.parametrize(("precondition", "num_directions"), [
    (no_preconditioner, None), ("Jacobi", None), ("Jacobi", 1), ("Jacobi", 30),
    (bent, 1), (bent, 3), (bent, 30),
], ids=lambda value: getattr(value, "__name__", str(value)))  # fmt: skip
def test_residual_history_equals_that_of_petsc(precondition, num_directions):
    A, b = spd_systems(1, 60)
    A = stretched(A, 2)  # more, and plain CG loses orthogonality, each code in its own way
    if precondition == "Jacobi":
        inverse_diagonal = 1.0 / A.diagonal(dim1=1, dim2=2)
        precondition = lambda v: inverse_diagonal * v  # noqa: E731
    if num_directions is None:
        ours = cg(times(A), b, precondition, rtol=1e-10)
        theirs = petsc_history(A, b, precondition, "cg")
    else:
        ours = flexible_cg(times(A), b, precondition, rtol=1e-10, num_directions=num_directions)
        options = {"ksp_fcg_mmax": num_directions, "ksp_fcg_truncation_type": "standard"}
        theirs = petsc_history(A, b, precondition, "fcg", **options)
    assert len(theirs) == int(ours.iterations) + 1 > 15
    np.testing.assert_allclose(ours.residual_norms[:, 0], theirs, rtol=0, atol=1e-10 * theirs[0])


# --- One method beside the other, one system beside the others --------------------------------


def test_both_are_one_method_where_the_preconditioner_is_linear_and_symmetric():
    A, b = spd_systems(3, 40)
    M = torch.linalg.inv(A + 0.5 * spd_systems(3, 40, seed=1)[0])
    plain, flexible = (method(times(A), b, times(M), rtol=1e-10) for method in (cg, flexible_cg))
    torch.testing.assert_close(plain.iterations, flexible.iterations)
    scale = b.norm(dim=1).max().item()
    torch.testing.assert_close(
        plain.residual_norms, flexible.residual_norms, rtol=0, atol=1e-12 * scale
    )


def test_more_directions_make_up_for_a_preconditioner_that_is_not_linear():
    A, b = spd_systems(2, 200)
    A = stretched(A, 10)
    inverse_diagonal = 1.0 / A.diagonal(dim1=1, dim2=2)

    def lopsided(v):
        return inverse_diagonal * v * torch.where(v > 0, 1.0, 0.1)

    last, all_of_them = (
        flexible_cg(times(A), b, lopsided, rtol=1e-8, num_directions=number) for number in (1, 200)
    )
    assert {*last.status, *all_of_them.status} == {Status.CONVERGED}
    assert all_of_them.iterations.max() < 0.8 * last.iterations.min()


def test_the_sign_of_the_preconditioner_is_free_in_the_flexible_method():
    """Losses made of sines leave it free: a model trained on them may be negative."""
    A, b = spd_systems(2, 40)
    M = torch.linalg.inv(A + 0.5 * spd_systems(2, 40, seed=1)[0])
    positive, negative = (flexible_cg(times(A), b, times(sign * M)) for sign in (1, -1))
    torch.testing.assert_close(positive.x, negative.x, rtol=1e-12, atol=1e-12)
    assert {*negative.status} == {Status.CONVERGED}
    assert {*cg(times(A), b, times(-M)).status} == {Status.NOT_DEFINITE}


@METHODS
def test_a_batch_equals_its_systems_one_by_one(method):
    A, b = spd_systems(5, 30)
    b = b * torch.logspace(-150, 150, 5, dtype=torch.float64)[:, None]
    A[0], b[1] = torch.eye(30), 0.0
    together = method(times(A), b, bent, rtol=1e-9)
    assert together.iterations[0] < together.iterations[2]
    assert together.iterations[1] == 0
    assert torch.all(together.x[1] == 0)
    for i in range(5):
        alone = method(times(A[i : i + 1]), b[i : i + 1], bent, rtol=1e-9)
        assert alone.iterations[0] == together.iterations[i]
        assert alone.status[0] is together.status[i]
        steps = int(alone.iterations[0])
        for name in ("x", "true_residual_norms"):
            one, same = getattr(alone, name)[0], getattr(together, name)[i]
            torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-12 * b[i].norm().item())
        norms = together.residual_norms[:, i]
        assert torch.all(norms[steps:] == norms[steps])
        assert torch.all(together.sines[steps:, i] == 1)
    reduction = together.sines.cumprod(dim=0) * b.norm(dim=1)
    torch.testing.assert_close(reduction, together.residual_norms[1:], rtol=1e-10, atol=0)


@settings(deadline=None, max_examples=30)
@given(
    method=st.sampled_from([cg, flexible_cg]),
    n=st.integers(1, 15),
    batch=st.integers(1, 4),
    seed=st.integers(0, 1000),
    rtol=st.sampled_from([1e-3, 1e-7, 1e-13]),
)
def test_solves_to_the_tolerance(method, n, batch, seed, rtol):
    A, b = spd_systems(batch, n, seed)
    result = method(times(A), b, no_preconditioner, rtol=rtol, max_iterations=500)
    assert {*result.status} == {Status.CONVERGED}
    true = (b - times(A)(result.x)).norm(dim=1)
    assert torch.all(true <= rtol * b.norm(dim=1))
    torch.testing.assert_close(true, result.true_residual_norms)


@METHODS
def test_a_recurrence_that_lies_is_restarted_from_the_true_residual(method):
    """With an exact M the first step seems to solve; it is wrong by one per cent, four times."""
    A, b = spd_systems(2, 20)
    error = itertools.cycle([0.01, 0.0])  # in the step, and in the check that follows

    def careless(v):
        return (1.0 + next(error)) * times(A)(v)

    result = method(careless, b, times(torch.linalg.inv(A)), rtol=1e-7)
    assert {*result.status} == {Status.CONVERGED}
    assert result.iterations.tolist() == [4, 4]


@METHODS
def test_a_float32_preconditioner_solves_in_float64(method):
    A, b = spd_systems(2, 20)
    M = torch.linalg.inv(A).float()
    result = method(times(A), b, lambda v: times(M)(v.float()), rtol=1e-11)
    assert result.x.dtype == torch.float64
    assert {*result.status} == {Status.CONVERGED}
    assert result.iterations.max() <= 4


# --- The fall of the error --------------------------------------------------------------------


def energy(A, v):
    return torch.einsum("bi,bij,bj->b", v, A, v)


@pytest.mark.parametrize("m", [1, 3, 8])
def test_reduction_is_that_of_the_error_in_the_energy_norm(m):
    A, b = spd_systems(3, 30)
    A, b = stretched(A, 10), b * torch.tensor([[1e-150], [1.0], [1e150]], dtype=torch.float64)
    M = torch.linalg.inv(A + 0.5 * spd_systems(3, 30, seed=1)[0])
    reduction = energy_reduction(times(A), b, times(M), m)
    unit = b / b.norm(dim=1, keepdim=True)
    exact = torch.linalg.solve(A, unit)
    x = cg(times(A), unit, times(M), rtol=0.0, max_iterations=m).x
    wanted = energy(A, exact - x) / energy(A, exact)
    torch.testing.assert_close(reduction, wanted, rtol=1e-6, atol=0)


def test_reduction_is_known_far_below_the_precision_of_its_square():
    """The difference of two squares would be rounding here."""
    A, b = spd_systems(2, 30)
    M = torch.linalg.inv(A + 1e-3 * spd_systems(2, 30, seed=1)[0])
    reduction = energy_reduction(times(A), b, times(M), 4)
    assert torch.all((reduction > 1e-26) & (reduction < 1e-18))
    exact = torch.linalg.solve(A, b)
    x = cg(times(A), b, times(M), rtol=0.0, max_iterations=4).x
    wanted = energy(A, exact - x) / energy(A, exact)
    torch.testing.assert_close(reduction, wanted, rtol=0.05, atol=0)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_reduction_is_differentiable_in_what_M_and_b_depend_on(checkpoint):
    A, b = spd_systems(2, 6)
    L = torch.linalg.cholesky(torch.linalg.inv(A + 0.5 * spd_systems(2, 6, seed=1)[0]))

    def logarithm(b, L):
        M = L @ L.mT
        return energy_reduction(times(A), b, times(M), 3, checkpoint=checkpoint).log()

    assert torch.autograd.gradcheck(logarithm, (b.requires_grad_(), L.requires_grad_()))


def test_reduction_of_an_exact_preconditioner_is_rounding_with_finite_gradients():
    A, b = spd_systems(2, 10)
    M = torch.linalg.inv(A).requires_grad_()
    reduction = energy_reduction(times(A), b, times(M), 5)
    assert torch.all(reduction < 1e-28)
    (gradient,) = torch.autograd.grad(reduction.clamp_min(1e-300).log().sum(), M)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("factor", [0.0, -1.0, torch.nan])
def test_reduction_of_what_is_not_positive_definite_is_not_a_number(factor):
    A, b = spd_systems(2, 10)
    scale = torch.tensor([[1.0], [factor]], dtype=torch.float64)
    reduction = energy_reduction(times(A), b, lambda v: scale * v, 3)
    assert torch.isfinite(reduction).tolist() == [True, False]


def test_reduction_that_is_not_found_is_not_a_number(monkeypatch):
    A, b = spd_systems(1, 40)
    monkeypatch.setattr("learning.krylov.conjugate_gradients.MOST_STEPS", 2)
    assert torch.isnan(energy_reduction(times(A), b, no_preconditioner, 3)).all()


def test_reduction_takes_at_least_one_step():
    with pytest.raises(ValueError, match="got 0 steps; wanted at least one"):
        energy_reduction(no_preconditioner, torch.ones(1, 2), no_preconditioner, 0)


# --- Failures ---------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize(("solve", "status"), [
    (lambda f, A, b: f(times(A), b, no_preconditioner, max_iterations=3), Status.MAX_ITERATIONS),
    (lambda f, A, b: f(times(A.float()), b.float(), no_preconditioner, rtol=1e-9),
     Status.STAGNATED),
    (lambda f, A, b: f(times(A.float()), b.float(), no_preconditioner, rtol=0.0),
     Status.STAGNATED),
    (lambda f, A, b: f(times(A), b, lambda v: v / 0.0), Status.NOT_FINITE),
    (lambda f, A, b: f(times(torch.nan * A), b, no_preconditioner), Status.NOT_FINITE),
    (lambda f, A, b: f(times(A), b, lambda v: 0.0 * v), Status.NOT_DEFINITE),
    (lambda f, A, b: f(times(-A), b, no_preconditioner), Status.NOT_DEFINITE),
    (lambda f, A, b: f(times(A - 2.5 * torch.eye(40)), b, no_preconditioner), Status.NOT_DEFINITE),
], ids=["too few", "float32", "no tolerance", "M infinite", "A NaN", "M zero", "A negative",
        "A indefinite"])  # fmt: skip
def test_a_failed_solve_says_why(method, solve, status):
    A, b = spd_systems(2, 40)
    result = solve(method, A, b)
    assert {*result.status} == {status}
    assert torch.isfinite(result.x).all()
    assert torch.isfinite(result.residual_norms).all()
    assert len(status.value) > 30


def test_what_breaks_conjugate_gradients_is_left_to_fgmres():
    A, b = spd_systems(2, 40)
    A = A - 2.5 * torch.eye(40)
    assert "use fgmres" in cg(times(A), b, no_preconditioner).status[0].value
    assert {*fgmres(times(A), b, no_preconditioner).status} == {Status.CONVERGED}


@METHODS
def test_one_failed_system_leaves_the_others_alone(method):
    A, b = spd_systems(4, 20)

    def poison(v):
        return torch.tensor([[1.0], [torch.nan], [0.0], [1.0]]).double() * v

    result = method(times(A), b, poison, rtol=1e-8)
    alone = method(times(A[3:]), b[3:], no_preconditioner, rtol=1e-8)
    assert result.status == (
        Status.CONVERGED, Status.NOT_FINITE, Status.NOT_DEFINITE, Status.CONVERGED
    )  # fmt: skip
    torch.testing.assert_close(result.x[3], alone.x[0], rtol=1e-10, atol=1e-10)
    assert torch.all(result.x[1:3] == 0)


def test_number_of_directions_is_checked():
    with pytest.raises(ValueError, match="got num_directions=0; wanted at least one"):
        flexible_cg(no_preconditioner, torch.ones(1, 2), no_preconditioner, num_directions=0)


@METHODS
@pytest.mark.parametrize(("arguments", "message"), [
    ({"b": torch.ones(3)}, r"got b of shape \(3,\).*Use b\[None\]"),
    ({"rtol": 1.0}, "got rtol=1.0"),
    ({"max_iterations": 0}, "got 0 steps"),
    ({"precondition": lambda v: v[:, :1]}, r"got shape \(1, 1\) on cpu from the precond.*\(1, 2\)"),
])  # fmt: skip
def test_arguments_are_checked(method, arguments, message):
    with pytest.raises(ValueError, match=message):
        method(
            no_preconditioner,
            **({"b": torch.ones(1, 2), "precondition": no_preconditioner} | arguments),
        )

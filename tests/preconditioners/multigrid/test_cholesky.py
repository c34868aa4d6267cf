"""Incomplete factors: exact without fill, above A with all of it, and few iterations on fibres."""

import numpy as np
import pytest
import torch

from learning import kernels
from learning.krylov.conjugate_gradients import cg
from learning.preconditioners.multigrid import cholesky
from learning.preconditioners.multigrid.cholesky import (
    Factor,
    Ordering,
    obliqueness_of,
    tensors_of_stencils,
)
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.preconditioners.multigrid.learned import LearnedMultigrid
from learning.preconditioners.multigrid.stencils import (
    CENTRE,
    OFFSETS,
    whole,
)
from learning.systems.operators import batch_systems
from learning.systems.stencils import StencilMatrix, stencils_of

pytest.importorskip("numba")

AXES = {"xyz": (0, 1, 2), "yxz": (1, 0, 2), "zyx": (2, 1, 0)}
FIBRES = {
    "x": (1.0, 0.0, 0.0),
    "rising": (2.0, 1.0, 1.0),
    "falling": (1.0, -1.0, 0.3),
    "hardest": (-0.5, 0.5, 0.7),
}


def random_stencil(shape, seed=0):
    """Return a symmetric positive definite matrix of entries of both signs, and itself dense."""
    rng = np.random.default_rng(seed)
    n = int(np.prod(shape))
    node = np.indices(shape).reshape(3, -1).T
    A = np.zeros((n, n))
    for i in range(n):
        near = [j for j in range(i) if abs(node[j] - node[i]).max() <= 1]
        A[i, near] = rng.uniform(-1.0, 0.7, len(near))
    A += A.T
    A += np.diag(abs(A).sum(axis=1) * rng.uniform(1.001, 1.1, n))
    stencil = np.zeros((27, n))
    for o, offset in enumerate(OFFSETS):
        for i in range(n):
            there = node[i] + offset
            if (there >= 0).all() and (there < shape).all():
                stencil[o, i] = A[i, np.ravel_multi_index(tuple(there), shape)]
    return stencil.reshape(27, *shape), A


def inverse(stencil, order=Ordering(), dtype=np.float64):  # noqa: B008
    """Return the matrix of (L D L')^-1."""
    n = stencil[0].size
    factor = Factor.of(stencil, np.zeros(n), dtype, order)
    return np.stack([factor(e) for e in np.eye(n, dtype=dtype)], axis=1)


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, 1), (-1, 1, -1)])
def test_factors_are_exact_where_all_fill_is_between_neighbours(axes, signs):
    # A long grid, two nodes wide: numbered along it, later neighbours are each other's.
    shape = tuple(5 if axis == axes[0] else 2 for axis in range(3))
    stencil, A = random_stencil(shape)
    np.testing.assert_allclose(inverse(stencil, Ordering(axes, signs)) @ A, np.eye(20), atol=1e-12)


def test_with_all_fill_on_the_diagonal_factors_are_above_the_matrix(monkeypatch):
    stencil, A = random_stencil((3, 4, 5), seed=1)
    eigenvalues = np.linalg.eigvals(inverse(stencil) @ A).real
    assert eigenvalues.max() > 1.0 + 1e-6
    monkeypatch.setattr(cholesky, "EXPECTED", 1.0)
    monkeypatch.setattr(cholesky, "OPPOSITE", 1.0)
    M = inverse(stencil)
    np.testing.assert_allclose(M, M.T, atol=1e-13 * abs(M).max())
    eigenvalues = np.linalg.eigvals(M @ A).real
    assert 0.0 < eigenvalues.min() < eigenvalues.max() < 1.0 + 1e-12


def test_a_factor_that_breaks_down_takes_the_whole_fill_instead(monkeypatch, problem):
    # Without any share of the fill, fibres that Kuhn's diagonals oppose leave no positive pivot.
    system = problem((8, 8, 8), direction=FIBRES["falling"], anisotropy=1e4)
    stencil = whole(stencils_of([system.A_0], [system.grid]).stencils)[0].numpy()
    against = Ordering((2, 0, 1), (1, 1, 1))
    monkeypatch.setattr(cholesky, "EXPECTED", 1.0)
    monkeypatch.setattr(cholesky, "OPPOSITE", 1.0)
    with_all_fill = inverse(stencil, against)
    monkeypatch.setattr(cholesky, "EXPECTED", -1.0)
    monkeypatch.setattr(cholesky, "OPPOSITE", -1.0)
    np.testing.assert_array_equal(inverse(stencil, against), with_all_fill)


def test_entries_that_lead_out_of_the_grid_are_bounded_by_the_diagonal():
    stencil, _ = random_stencil((4, 2, 2), seed=3)
    part = np.ascontiguousarray(stencil[:, :2])  # a process's box: the other half is elsewhere
    _, A = random_stencil((4, 2, 2), seed=3)
    there = np.abs(A[:8, 8:]).sum(axis=1)
    expected = np.linalg.inv(A[:8, :8] + np.diag(there))
    np.testing.assert_allclose(inverse(part), expected, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize("direction", FIBRES.values(), ids=FIBRES)
def test_nodes_are_numbered_along_the_fibres(problem, direction):
    system = problem((4, 4, 4), direction=direction, anisotropy=100.0)
    tensor = tensors_of_stencils(whole(stencils_of([system.K], [system.grid]).stencils).numpy())[0]
    _, directions = np.linalg.eigh(tensor)
    unit = np.array(direction) / np.linalg.norm(direction)
    assert abs(directions[:, -1] @ unit) == pytest.approx(1.0, abs=1e-2)
    along_axes, across = obliqueness_of(np.stack([np.diag([1.0, 1.0, 1e-2]), tensor]))
    assert along_axes == pytest.approx(1.0)
    assert across > 50.0 or direction == FIBRES["x"]
    order = Ordering.along_fibres(tensor)
    slowest_first = np.array(direction)[list(order.axes)] * order.signs
    assert (np.diff(abs(slowest_first)) <= 1e-12).all()
    rising = slowest_first[abs(slowest_first) > 0.1]
    assert (rising > 0).all() or (rising < 0).all()


def test_isotropic_tissue_keeps_the_order_of_the_grid():
    assert Ordering.along_fibres(np.eye(3)) == Ordering()


@pytest.mark.parametrize("k", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("direction", FIBRES.values(), ids=FIBRES)
def test_the_cycle_is_symmetric_positive_definite_and_converges(problem, direction, k):
    system = problem((6, 6, 6), k=k, direction=direction, anisotropy=100.0, contrast=100.0)
    batch = batch_systems([system])
    apply = GeometricMultigrid("cholesky").setup([system], batch)
    columns = torch.eye(len(system.b_3), dtype=torch.float64)
    M = torch.stack([apply(e[None])[0] for e in columns], dim=1).numpy()
    np.testing.assert_allclose(M, M.T, atol=1e-10 * abs(M).max())
    S = torch.stack([batch.apply(e[None])[0] for e in columns], dim=1).numpy()
    R = np.linalg.cholesky((S + S.T) / 2)
    eigenvalues = np.linalg.eigvalsh(R.T @ M @ R)
    assert 0.0 < eigenvalues.min() < eigenvalues.max() < 1.1


def iterations(systems, preconditioner):
    batch = batch_systems(systems)
    rng = np.random.default_rng(0)
    b = torch.tensor(rng.standard_normal(batch.g.shape))
    return cg(batch.apply, b, preconditioner.setup(systems, batch), max_iterations=200).iterations


def test_oblique_fibres_take_half_of_the_iterations_or_fewer(problem):
    systems = [problem((16, 16, 16), direction=d, anisotropy=100.0) for d in FIBRES.values()]
    few = iterations(systems, GeometricMultigrid("cholesky", 1, torch.float32))
    many = iterations(systems, GeometricMultigrid("low_rank", 2, torch.float32))
    assert max(few) <= 12
    assert few.double().mean() <= 8
    assert 2 * few.sum() < many.sum()


@pytest.mark.parametrize("k", [1.0, 1e-2, 1e-4])
def test_iterations_hold_at_every_strength_of_exchange(problem, k):
    systems = [problem((16, 16, 16), k=k, seed=seed) for seed in range(2)]
    assert max(iterations(systems, GeometricMultigrid("cholesky", 1, torch.float32))) <= 5


def test_products_are_differentiable(problem):
    system = problem((4, 4, 4))
    batch = batch_systems([system])
    apply = GeometricMultigrid("cholesky").setup([system], batch)
    r = torch.randn(batch.g.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(apply, r)


def test_an_accelerator_is_refused():
    like = torch.empty(1, 8, device="meta")
    with pytest.raises(NotImplementedError, match=r"got vectors on meta .* wanted a CPU"):
        cholesky.incomplete_cholesky(np.zeros((1, 27, 2, 2, 2)), np.zeros(8), like)


def test_without_numba_the_error_names_it(monkeypatch):
    monkeypatch.setattr(kernels, "ARE_COMPILED", False)
    stencil = np.zeros((1, 27, 2, 2, 2))
    stencil[:, CENTRE] = 1.0
    with pytest.raises(ModuleNotFoundError, match="without numba; wanted its compiler"):
        cholesky.incomplete_cholesky(stencil, np.zeros(8), torch.empty(1, 8))


def test_the_product_of_stencils_is_inverted_by_their_factor():
    stencil, _ = random_stencil((5, 2, 2), seed=4)
    x = torch.randn(1, 20, dtype=torch.float64)
    b = StencilMatrix(torch.tensor(stencil[None, CENTRE:]))(x)
    M = cholesky.incomplete_cholesky(stencil[None], np.zeros(20), x)
    torch.testing.assert_close(M(b), x)


@pytest.mark.parametrize("name", ["none", *FIBRES])
def test_the_learned_cycle_takes_factors_on_oblique_fibres_and_only_there(problem, network, name):
    fibres = {} if name == "none" else {"direction": FIBRES[name], "anisotropy": 100.0}
    systems = [problem((16, 16, 16), **fibres)]
    batch = batch_systems(systems)
    with torch.no_grad():
        model = network(dtype=torch.float32).eval()
        learned = LearnedMultigrid(model).setup(systems, batch)(batch.g)
        factors = GeometricMultigrid("cholesky", 1, torch.float32).setup(systems, batch)(batch.g)
    assert torch.equal(learned, factors) == (name not in ("none", "x"))

"""Geometric multigrid: each part equals its dense twin, the whole is definite and robust."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from learning.krylov.conjugate_gradients import cg
from learning.krylov.fgmres import Status, fgmres
from learning.preconditioners.multigrid import geometric
from learning.preconditioners.multigrid.geometric import GeometricMultigrid, create_hierarchy
from learning.preconditioners.multigrid.smoothers import LUMPED, RELAXATION
from learning.preconditioners.multigrid.stencils import thinned
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    interpolation,
)
from learning.systems.operators import batch_systems

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SMOOTHERS = pytest.mark.parametrize(
    ("smoother", "degree"), [("low_rank", 1), ("low_rank", 2), ("l1_jacobi", 1), ("l1_jacobi", 2)]
)


@pytest.fixture(scope="module")
def systems(reduced):
    """Of one grid, and otherwise as different as can be."""
    return [
        reduced(6),
        reduced(6, k_3d=1e-4, seed=1, num_nodes=20),
        reduced(6, contrast=1e4, seed=2, k_1d=100.0),
        reduced(6, k_3d=0.1, seed=3, num_nodes=4, faces=["x_min", "z_max"], permeability=100.0),
        reduced(6, permeability=0.0),
    ]


@pytest.fixture
def three_grids(monkeypatch):
    """Coarsen 6³ cells to 3³ and 2³."""
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", 30)


def dense(system):
    return system.S @ np.eye(len(system.b_3))


def matrix_of(map_, n, dtype=torch.float64):
    """Return the matrix of a map of single systems."""
    columns = [map_(e[None])[0] for e in torch.eye(n, dtype=dtype)]
    return torch.stack(columns, dim=1).double().numpy()


def iterations(system, preconditioner, method=cg, seed=0):
    batch = batch_systems([system])
    b = torch.tensor(np.random.default_rng(seed).standard_normal(batch.g.shape))
    precondition = preconditioner.setup([system], batch)
    counts = []
    for right_hand_side in (b, batch.g):
        result = method(batch.apply, right_hand_side, precondition, max_iterations=100)
        assert {*result.status} == {Status.CONVERGED}
        counts.append(int(result.iterations[0]))
    return max(counts)


# --- Levels -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("three_grids")
def test_coarse_operators_are_galerkin_products_of_s(systems):
    batch = batch_systems(systems)
    hierarchy = create_hierarchy(systems, batch, torch.float64)
    assert [level.like.shape[1] for level in hierarchy.levels] == [343, 64]
    for i, system in enumerate(systems):
        dof_of_node = np.argsort(system.grid.node_of_dof)
        S = dense(system)[np.ix_(dof_of_node, dof_of_node)]

        def block(map_, n, i=i):
            vectors = torch.zeros(n, len(systems), n, dtype=torch.float64)
            vectors[:, i] = torch.eye(n)
            return torch.stack([map_(v)[i] for v in vectors], dim=1).numpy()

        for level in hierarchy.levels:
            np.testing.assert_allclose(block(level.apply, len(S)), S, atol=1e-12 * abs(S).max())
            P = block(level.prolong, np.prod([len(x) for x in level.next_axes]))
            np.testing.assert_array_equal(P.T, block(level.prolong.T, len(P)))
            S = P.T @ S @ P
        inverse = np.linalg.inv(S)
        found = block(hierarchy.solve_coarsest, 27)
        np.testing.assert_allclose(found, inverse, atol=1e-9 * abs(inverse).max())


def dense_smoother(dense_base, smoother, degree, A_0, Pi_WB, Pi, S):
    """Return the definition: a polynomial of M S by its eigenvalues, times S^-1."""
    coupling, D = Pi.T @ Pi_WB, abs(A_0).sum(axis=1) / RELAXATION
    row_sums, plain = coupling.sum(axis=1), S
    is_weak = (row_sums / D).max() <= LUMPED
    if is_weak:
        S = A_0 + np.diag(row_sums)
    if is_weak or smoother == "l1_jacobi":
        M = np.diag(1.0 / (D + row_sums))
    else:
        M = dense_base(D, coupling, len(Pi))
    eigenvalues, V = np.linalg.eig(M @ S)
    eigenvalues = eigenvalues.real
    assert 0 < eigenvalues.min() < eigenvalues.max() <= RELAXATION * (1 + 1e-12)
    if degree == 1:
        rest = 1 - eigenvalues
    else:
        T = np.polynomial.Chebyshev.basis(degree)
        centre, radius = 0.625 * RELAXATION, 0.375 * RELAXATION
        rest = T((centre - eigenvalues) / radius) / T(centre / radius)
    X = (np.eye(len(S)) - (V * rest) @ np.linalg.inv(V)).real @ np.linalg.inv(S)
    assert np.linalg.eigvals(X @ plain).real.max() < 2  # so that a cycle is definite
    return X


@pytest.mark.usefixtures("three_grids")
@pytest.mark.parametrize(("smoother", "degree", "i"), [
    ("low_rank", 1, 0), ("low_rank", 2, 1), ("low_rank", 3, 2), ("low_rank", 1, 3),
    ("l1_jacobi", 1, 1), ("l1_jacobi", 3, 2), ("l1_jacobi", 2, 3),
])  # fmt: skip
def test_cycle_equals_its_dense_definition(systems, dense_base, smoother, degree, i):
    system = systems[i]
    batch = batch_systems([system])
    A_0, S, Pi = (system.K + system.M).toarray(), dense(system), system.Pi.toarray()
    # Weak entries count on the diagonal.
    node = system.grid.node_of_dof
    thin = thinned(batch.stencils).to_scipy().toarray()[np.ix_(node, node)]
    S, A_0 = S + thin - A_0, thin
    WB = system.weights * system.beta
    fine, smoothers, operators, interpolations = axes_of(system.grid), [], [], []
    for nodes in (system.grid.node_of_dof, slice(None)):
        smoothers.append(dense_smoother(dense_base, smoother, degree, A_0, WB[:, None] * Pi, Pi, S))
        coarse = coarsened(fine, np.ones((1, 3)))
        P = interpolation(coarse, fine).toarray()[nodes]
        operators.append(S)
        interpolations.append(P)
        A_0, S, Pi, fine = P.T @ A_0 @ P, P.T @ S @ P, Pi @ P, coarse
    M = np.linalg.inv(S)
    for i in (1, 0):
        S, P, smooth = operators[i], interpolations[i], smoothers[i]
        if i == 0:  # the second grid, as small as it is, is visited twice
            M = 2 * M - M @ operators[1] @ M
        E = np.eye(len(S))
        error = (E - smooth @ S) @ (E - P @ M @ P.T @ S) @ (E - smooth @ S)
        M = (E - error) @ np.linalg.inv(S)
    found = matrix_of(GeometricMultigrid(smoother, degree).setup([system], batch), len(M))
    np.testing.assert_allclose(found, M, atol=1e-9 * abs(M).max())


@pytest.mark.usefixtures("three_grids")
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_fourth_kind_is_definite_and_converges(systems, degree):
    for system in systems:
        M = GeometricMultigrid(degree=degree, polynomial="fourth_kind").setup(
            [system], batch_systems([system])
        )
        S = dense(system)
        L = np.linalg.cholesky((S + S.T) / 2)
        M = matrix_of(M, len(S))
        np.testing.assert_allclose(M, M.T, atol=1e-9 * abs(M).max())
        eigenvalues = np.linalg.eigvalsh(L.T @ M @ L)
        assert 0 < eigenvalues[0] < eigenvalues[-1] <= 1 + 1e-6


def test_small_grids_are_solved_directly(reduced):
    system = reduced((5, 3, 4))
    batch = batch_systems([system])
    M = GeometricMultigrid().setup([system], batch)
    np.testing.assert_allclose(matrix_of(M, 120), np.linalg.inv(dense(system)), atol=1e-9)
    assert iterations(system, GeometricMultigrid()) == 1


# --- What conjugate gradients need ------------------------------------------------------------


@pytest.mark.usefixtures("three_grids")
@SMOOTHERS
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(None, 1e-12), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_cycle_is_symmetric_positive_definite_and_linear(
    systems, smoother, degree, dtype, tolerance
):
    batch = batch_systems(systems)
    preconditioner = GeometricMultigrid(smoother, degree, dtype)
    assert preconditioner.is_linear
    assert preconditioner.is_symmetric
    M = preconditioner.setup(systems, batch)
    generator = torch.Generator().manual_seed(0)
    for size in (1.0, 1e-60):
        u, v = torch.randn(2, *batch.g.shape, generator=generator, dtype=torch.float64)
        u = size * u
        Mu, Mv = M(u), M(v)
        assert Mu.dtype == torch.float64
        energy = (u * Mu).sum(1)
        assert torch.all(energy > 0)
        bound = tolerance * (energy * (v * Mv).sum(1)).sqrt()
        assert torch.all(((u * Mv).sum(1) - (v * Mu).sum(1)).abs() <= bound)
        combined = M(2.0 * u - 3.0 * size * v)
        error = (combined - 2.0 * Mu + 3.0 * size * Mv).norm(dim=1)
        assert torch.all(error <= tolerance * combined.norm(dim=1))


@pytest.mark.usefixtures("three_grids")
@SMOOTHERS
def test_cycle_converges_in_the_energy_norm_whatever_the_coefficients(systems, smoother, degree):
    """The eigenvalues of M S lie in (0, 1], since each smoother converges by itself."""
    for system in systems:
        batch = batch_systems([system])
        M = GeometricMultigrid(smoother, degree).setup([system], batch)
        eigenvalues = np.linalg.eigvals(matrix_of(M, 343) @ dense(system))
        assert abs(eigenvalues.imag).max() < 1e-6
        assert eigenvalues.real.min() > 0
        assert eigenvalues.real.max() <= 1 + 1e-8


def test_zero_stays_zero(systems):
    batch = batch_systems(systems)
    for dtype in (torch.float64, torch.float32):
        M = GeometricMultigrid(dtype=dtype).setup(systems, batch)
        assert torch.all(M(torch.zeros_like(batch.g)) == 0)


@pytest.mark.usefixtures("three_grids")
@pytest.mark.parametrize(("smoother", "degree"), [("low_rank", 2), ("l1_jacobi", 1)])
def test_cycle_is_differentiable(reduced, smoother, degree):
    system = reduced(3, num_nodes=3)
    batch = batch_systems([system])
    M = GeometricMultigrid(smoother, degree).setup([system], batch)
    r = torch.randn(batch.g.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(M, (r,))
    assert torch.autograd.gradgradcheck(M, (r,))
    v = torch.randn_like(r)
    (gradient,) = torch.autograd.grad(M(r), r, v)
    torch.testing.assert_close(gradient, M(v))


# --- Iterations -------------------------------------------------------------------------------


@SMOOTHERS
def test_iterations_do_not_depend_on_the_mesh(reduced, smoother, degree):
    coarse, fine = (iterations(reduced(n), GeometricMultigrid(smoother, degree)) for n in (8, 16))
    assert abs(fine - coarse) <= 2
    assert fine <= 9


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_low_rank_smoother_holds_at_every_coupling_strength(reduced, degree, dtype):
    preconditioner = GeometricMultigrid("low_rank", degree, dtype)
    weak = iterations(reduced(10), preconditioner)
    for k_3d in (1e-2, 1e-4, 1e-6):
        assert iterations(reduced(10, k_3d=k_3d), preconditioner) <= weak + 1
    diagonal = GeometricMultigrid("l1_jacobi", degree, dtype)
    assert iterations(reduced(10, k_3d=1e-4), diagonal) > 2 * weak


@pytest.mark.parametrize("method", [cg, fgmres], ids=lambda method: method.__name__)
@pytest.mark.parametrize(("num_cells", "arguments"), [
    (9, {}), (11, {}), (13, {}), ((24, 6, 6), {}), ((3, 11, 20), {}), ((1, 8, 40), {}),
    (10, {"upper": (1.0, 1.0, 5.0)}),
    (10, {"k_3d": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.01]]}),
    (10, {"contrast": 1e4}),
    (10, {"faces": ["x_min", "y_max"]}),
    (10, {"faces": ["z_min"], "sigma_3d": 0.0, "k_3d": 1e-3}),
    (10, {"sigma_3d": 1e-8}),
    (10, {"k_1d": 1e3, "permeability": 1e3}),
], ids=str)  # fmt: skip
def test_few_iterations_on_any_box_with_any_coefficients(reduced, method, num_cells, arguments):
    system = reduced(num_cells, **arguments)
    assert iterations(system, GeometricMultigrid(), method) <= 11


@pytest.mark.parametrize("chosen", [slice(0, 5, 4), slice(1, 4, 2)], ids=["weak", "strong"])
def test_a_batch_equals_its_systems_one_by_one(systems, chosen):
    """Where all are coupled weakly, or all strongly: the strongest says how all are smoothed."""
    systems = systems[chosen]
    batch = batch_systems(systems)
    together = GeometricMultigrid().setup(systems, batch)(batch.g)
    for i, system in enumerate(systems):
        alone = batch_systems([system])
        correction = GeometricMultigrid().setup([system], alone)(alone.g)
        torch.testing.assert_close(correction[0], together[i], rtol=1e-9, atol=1e-12)


@SMOOTHERS
def test_a_residual_that_is_not_finite_spoils_no_other(systems, smoother, degree):
    batch = batch_systems(systems)
    precondition = GeometricMultigrid(smoother, degree).setup(systems, batch)
    residuals = batch.g.clone()
    wanted = precondition(residuals)
    residuals[2, 100] = torch.nan
    found = precondition(residuals)
    others = [0, 1, 3, 4]
    assert not found[2].isfinite().all()
    torch.testing.assert_close(found[others], wanted[others])


# --- Errors and devices -----------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "message"), [
    ({"smoother": "ilu"}, r"got smoother='ilu'; wanted one of \('low_rank', 'l1_jacobi', 'ch"),
    ({"polynomial": "legendre"}, r"got polynomial='legendre'; wanted one of \('chebyshev', 'fou"),
    ({"degree": 0}, "got degree=0; wanted a positive integer"),
    ({"degree": 1.5}, "got degree=1.5; wanted a positive integer"),
    ({"dtype": torch.float16}, "got dtype=torch.float16; wanted torch.float32, torch.float64"),
])  # fmt: skip
def test_options_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        GeometricMultigrid(**arguments)


def test_systems_are_checked(reduced, systems):
    def setup(*candidates):
        return GeometricMultigrid().setup(candidates, batch_systems(candidates))

    with pytest.raises(ValueError, match=r"got a system on a mesh without a grid.*Use create_box"):
        setup(replace(systems[0], grid=None))
    with pytest.raises(ValueError, match=r"grids of \[\(3, 4, 5\), \(5, 4, 3\)\] nodes; wanted"):
        setup(reduced((2, 3, 4)), reduced((4, 3, 2)))
    with pytest.raises(ValueError, match=r"got a system that is singular .*Give the tissue"):
        setup(replace(systems[0], M=-100.0 * systems[0].M))


@needs_cuda
@SMOOTHERS
def test_an_accelerator_gives_the_same(systems, smoother, degree):
    preconditioner = GeometricMultigrid(smoother, degree)
    here, there = (batch_systems(systems, device=device) for device in ("cpu", "cuda"))
    expected = preconditioner.setup(systems, here)(here.g)
    found = preconditioner.setup(systems, there)(there.g).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)

"""Geometric multigrid: each part equals its dense twin, the whole is definite and robust."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import ufl
from scipy import sparse

import mixeddim as md
from learning.krylov.conjugate_gradients import cg
from learning.krylov.fgmres import Status, fgmres
from learning.krylov.operators import batch_systems
from learning.krylov.sparse import spd_solver
from learning.preconditioners.multigrid import geometric
from learning.preconditioners.multigrid.geometric import GeometricMultigrid, create_hierarchy
from learning.preconditioners.multigrid.smoothers import RELAXATION
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    coupling_along_axes,
    interpolation,
)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SMOOTHERS = pytest.mark.parametrize(
    ("smoother", "degree"), [("low_rank", 1), ("low_rank", 2), ("l1_jacobi", 1), ("l1_jacobi", 2)]
)


def reduced(num_cells, k_3d=1.0, seed=0, num_nodes=12, upper=(1.0, 1.0, 1.0), faces=(), **kwargs):
    box = md.create_box(num_cells, upper=upper)
    graph = md.random_vascular_graph(num_nodes, 0.05, seed)
    coefficients = md.Coefficients(**({"k_3d": k_3d, "sigma_3d": 1.0} | kwargs))
    bcs = [md.Dirichlet(face, 0.3) for face in faces]
    return md.reduce(md.assemble(box, md.create_network(graph, 0.1), coefficients, bcs_3d=bcs))


def wavy(contrast):
    return lambda x: contrast ** (0.5 * ufl.sin(7 * x[0]) * ufl.sin(5 * x[1] + 1))


@pytest.fixture(scope="module")
def systems():
    """Of one grid, and otherwise as different as can be."""
    return [
        reduced(6),
        reduced(6, k_3d=1e-4, seed=1, num_nodes=20),
        reduced(6, k_3d=wavy(1e4), seed=2, k_1d=100.0),
        reduced(6, k_3d=0.1, seed=3, num_nodes=4, faces=["x_min", "z_max"], permeability=100.0),
        reduced(6, permeability=0.0),
    ]


@pytest.fixture(autouse=True)
def more_grids(monkeypatch):
    """Solve on coarse grids as small as on an accelerator, lest small problems have but one."""
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", geometric.MOST_DENSE_NODES)


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


# --- Grids and interpolation ------------------------------------------------------------------


def grid_of(shape):
    n = int(np.prod(shape))
    return md.Grid(shape, np.zeros(3), np.ones(3), np.arange(n))


@pytest.mark.parametrize(("num_cells", "strengths", "coarse"), [
    ((20, 20, 20), [[1, 1, 1]], (10, 10, 10)),
    ((5, 5, 5), [[2, 2, 2]], (3, 3, 3)),
    ((1, 2, 3), [[1, 1, 1]], (1, 1, 2)),
    ((1, 1, 4), [[9, 9, 1]], (1, 1, 2)),
    ((8, 8, 8), [[1, 1, 0.1]], (4, 4, 8)),
    ((8, 8, 8), [[1, 1, 0.1], [0.1, 1, 1]], (8, 4, 8)),
    ((8, 8, 8), [[1, 0.1, 0.1], [0.1, 0.1, 1]], (4, 4, 4)),
    ((8, 8, 8), [[1, 0.2, 0.1], [0.1, 0.2, 1]], (8, 4, 8)),
    ((4, 4, 4), [[0, 0, 0]], (2, 2, 2)),
], ids=str)  # fmt: skip
def test_axes_of_strong_coupling_are_halved(num_cells, strengths, coarse):
    axes = axes_of(grid_of(tuple(n + 1 for n in num_cells)))
    halved = coarsened(axes, np.array(strengths, dtype=float))
    assert tuple(len(x) - 1 for x in halved) == coarse
    for x, n in zip(halved, num_cells, strict=True):
        assert (x[0], x[-1]) == (0, n)


def test_axes_of_weak_coupling_catch_up():
    axes, sizes = axes_of(grid_of((33, 33, 33))), []
    for _ in range(5):
        axes = coarsened(axes, np.array([[1.0, 1.0, 0.01]]))
        sizes.append(tuple(len(x) - 1 for x in axes))
    assert sizes == [(16, 16, 32), (8, 8, 32), (4, 4, 32), (2, 2, 16), (1, 1, 8)]


@pytest.mark.parametrize(
    ("num_cells", "upper", "k_3d", "expected"),
    [((4, 4, 4), (1, 1, 1), 1.0, (16, 16, 16)),
     ((4, 3, 5), (1, 1, 1), 2.0, (16, 9, 25)),
     ((4, 4, 4), (1, 1, 2), [[1, 0.4, 0], [0.4, 2, 0], [0, 0, 4]], (16, 32, 16))],
    ids=["cubes", "cuboids", "tensor"],
)  # fmt: skip
def test_coupling_along_axes_is_diffusion_over_squared_cell_size(num_cells, upper, k_3d, expected):
    system = reduced(num_cells, k_3d, upper=upper)
    found = coupling_along_axes(system.K, system.grid)
    np.testing.assert_allclose(found / found[0], np.array(expected) / expected[0], rtol=1e-12)


@pytest.mark.parametrize("num_cells", [(4, 4, 4), (5, 4, 3), (1, 7, 2), (3, 1, 9)], ids=str)
def test_interpolation_reproduces_trilinear_functions(num_cells):
    fine = axes_of(grid_of(tuple(n + 1 for n in num_cells)))
    for _ in range(3):
        coarse = coarsened(fine, np.ones((1, 3)))
        P = interpolation(coarse, fine)

        def values(axes):
            x, y, z = np.meshgrid(*axes, indexing="ij")
            return (1 + 2 * x - y + 3 * z + x * y - y * z + 2 * x * y * z).ravel()

        np.testing.assert_allclose(P @ values(coarse), values(fine), atol=1e-12)
        np.testing.assert_allclose(P.sum(axis=1), 1.0, atol=1e-15)
        fine = coarse


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
            P = block(level.prolong, level.prolong.matrix.shape[1] // len(systems))
            np.testing.assert_array_equal(P.T, block(level.prolong.T, len(P)))
            S = P.T @ S @ P
        inverse = np.linalg.inv(S)
        found = block(hierarchy.solve_coarsest, 27)
        np.testing.assert_allclose(found, inverse, atol=1e-9 * abs(inverse).max())


def dense_smoother(smoother, degree, A_0, Pi_WB, Pi, S):
    """Return the definition: a polynomial of M S by its eigenvalues, times S^-1."""
    coupling = Pi.T @ Pi_WB
    if smoother == "l1_jacobi":
        M = np.diag(RELAXATION / (abs(A_0) + coupling).sum(axis=1))
    else:
        M = np.linalg.inv(np.diag(abs(A_0).sum(axis=1)) / RELAXATION + coupling)
    eigenvalues, V = np.linalg.eig(M @ S)
    eigenvalues = eigenvalues.real
    assert 0 < eigenvalues.min() < eigenvalues.max() <= RELAXATION
    if degree == 1:
        rest = 1 - eigenvalues
    else:
        T = np.polynomial.Chebyshev.basis(degree)
        centre, radius = 0.625 * RELAXATION, 0.375 * RELAXATION
        rest = T((centre - eigenvalues) / radius) / T(centre / radius)
    return (np.eye(len(S)) - (V * rest) @ np.linalg.inv(V)).real @ np.linalg.inv(S)


@pytest.mark.usefixtures("three_grids")
@pytest.mark.parametrize(("smoother", "degree", "i"), [
    ("low_rank", 1, 0), ("low_rank", 2, 1), ("low_rank", 3, 2), ("low_rank", 1, 3),
    ("l1_jacobi", 1, 1), ("l1_jacobi", 3, 2), ("l1_jacobi", 2, 3),
])  # fmt: skip
def test_cycle_equals_its_dense_definition(systems, smoother, degree, i):
    system = systems[i]
    batch = batch_systems([system])
    A_0, S, Pi = (system.K + system.M).toarray(), dense(system), system.Pi.toarray()
    WB = system.weights * system.beta
    fine, smoothers, operators, interpolations = axes_of(system.grid), [], [], []
    for nodes in (system.grid.node_of_dof, slice(None)):
        smoothers.append(dense_smoother(smoother, degree, A_0, WB[:, None] * Pi, Pi, S))
        coarse = coarsened(fine, np.ones((1, 3)))
        P = interpolation(coarse, fine).toarray()[nodes]
        operators.append(S)
        interpolations.append(P)
        A_0, S, Pi, fine = P.T @ A_0 @ P, P.T @ S @ P, Pi @ P, coarse
    M = np.linalg.inv(S)
    for S, P, smooth in zip(
        *(reversed(x) for x in (operators, interpolations, smoothers)), strict=True
    ):
        E = np.eye(len(S))
        error = (E - smooth @ S) @ (E - P @ M @ P.T @ S) @ (E - smooth @ S)
        M = (E - error) @ np.linalg.inv(S)
    found = matrix_of(GeometricMultigrid(smoother, degree).setup([system], batch), len(M))
    np.testing.assert_allclose(found, M, atol=1e-9 * abs(M).max())


def test_small_grids_are_solved_directly():
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
def test_cycle_is_differentiable(smoother, degree):
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
def test_iterations_do_not_depend_on_the_mesh(smoother, degree):
    coarse, fine = (iterations(reduced(n), GeometricMultigrid(smoother, degree)) for n in (8, 16))
    assert abs(fine - coarse) <= 2
    assert fine <= 9


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_low_rank_smoother_holds_at_every_coupling_strength(degree, dtype):
    preconditioner = GeometricMultigrid("low_rank", degree, dtype)
    weak = iterations(reduced(10), preconditioner)
    for k_3d in (1e-2, 1e-4, 1e-6):
        assert iterations(reduced(10, k_3d), preconditioner) <= weak + 1
    diagonal = GeometricMultigrid("l1_jacobi", degree, dtype)
    assert iterations(reduced(10, 1e-4), diagonal) > 2 * weak


@pytest.mark.parametrize("method", [cg, fgmres], ids=lambda method: method.__name__)
@pytest.mark.parametrize(("num_cells", "arguments"), [
    (9, {}), (11, {}), (13, {}), ((24, 6, 6), {}), ((3, 11, 20), {}), ((1, 8, 40), {}),
    (10, {"upper": (1.0, 1.0, 5.0)}),
    (10, {"k_3d": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.01]]}),
    (10, {"k_3d": wavy(1e4)}),
    (10, {"faces": ["x_min", "y_max"]}),
    (10, {"faces": ["z_min"], "sigma_3d": 0.0, "k_3d": 1e-3}),
    (10, {"sigma_3d": 1e-8}),
    (10, {"k_1d": 1e3, "permeability": 1e3}),
], ids=str)  # fmt: skip
def test_few_iterations_on_any_box_with_any_coefficients(method, num_cells, arguments):
    system = reduced(num_cells, **arguments)
    assert iterations(system, GeometricMultigrid(), method) <= 11


def test_a_batch_equals_its_systems_one_by_one(systems):
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
    ({"smoother": "ilu"}, r"got smoother='ilu'; wanted one of \('low_rank', 'l1_jacobi'\)"),
    ({"degree": 0}, "got degree=0; wanted a positive integer"),
    ({"degree": 1.5}, "got degree=1.5; wanted a positive integer"),
    ({"dtype": torch.float16}, "got dtype=torch.float16; wanted torch.float32, torch.float64"),
])  # fmt: skip
def test_options_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        GeometricMultigrid(**arguments)


def test_systems_are_checked(systems):
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


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_solver_of_sparse_blocks_is_their_inverse(device):
    A = sparse.block_diag([sparse.diags_array([4.0, 3.0, k]) for k in (2.0, 5.0)], format="csr")
    A = A + sparse.diags_array(0.5 * np.ones(5) * [1, 1, 0, 1, 1], offsets=1)
    A = (A + A.T).tocsr()
    b = torch.randn(2, 3, dtype=torch.float64, device=device, requires_grad=True)
    solve = spd_solver(A, b)
    expected = np.linalg.solve(A.toarray(), b.detach().cpu().numpy().ravel())
    np.testing.assert_allclose(solve(b).detach().cpu().numpy().ravel(), expected, atol=1e-14)
    assert torch.autograd.gradcheck(solve, (b,))
    assert solve(b.float()).dtype == torch.float32
    singular = sparse.csr_array((6, 6))
    with pytest.raises(ValueError, match=r"got a (singular|matrix that is not positive)"):
        spd_solver(singular, b)

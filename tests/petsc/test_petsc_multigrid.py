"""Multigrid of PETSc: the cycle equals its dense twin, counts are small, options are left alone."""

import numpy as np
import pytest
import torch
from petsc4py import PETSc

import learning
import mixeddim as md
from learning.petsc import (
    PetscMultigrid,
    PetscPreconditioner,
    as_pc,
    preconditioners,
    schur_complement,
    tissue_block,
)
from learning.petsc.ksp import petsc_cg
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    coupling_along_axes,
    interpolation,
)

SMOOTHERS = pytest.mark.parametrize("smoother", ["chebyshev", "sor"])


@pytest.fixture(scope="module")
def systems(reduced):
    """Of one grid, and otherwise as different as can be."""
    return [
        reduced(6),
        reduced(6, seed=1, k_3d=1e-4),
        reduced(6, seed=2, contrast=1e4, k_1d=100.0),
        reduced(
            6, seed=3, faces=["x_min", "z_max"], k_3d=np.diag([1.0, 1.0, 0.01]), permeability=100.0
        ),
        reduced(6, sigma_3d=0.0),
    ]


@pytest.fixture
def three_grids(monkeypatch):
    """Coarsen 6³ cells to 3³ and 2³."""
    monkeypatch.setattr(preconditioners, "MOST_COARSE_NODES", 30)


def application(preconditioner, system):
    """Return M of one system as a map of numpy arrays."""
    M = preconditioner.setup([system], learning.batch_systems([system]))
    return lambda r: M(torch.tensor(r)[None])[0].numpy()


def probes(system, number=2):
    return np.random.default_rng(0).standard_normal((number, len(system.b_3)))


# --- The cycle --------------------------------------------------------------------------------


def chebyshev_error(A):
    """Return what two steps of Chebyshev for [0.2, 1] leave of an error."""
    one = np.eye(len(A))
    shifted = (0.6 * one - A / np.abs(A).sum(axis=1)[:, None]) / 0.4
    return (2 * shifted @ shifted - one) / (2 * (0.6 / 0.4) ** 2 - 1)


def sor_error(A):
    """Return what a sweep of Gauss-Seidel forth and one back leave of an error."""
    one = np.eye(len(A))
    return (one - np.linalg.solve(np.triu(A), A)) @ (one - np.linalg.solve(np.tril(A), A))


ERRORS = {"chebyshev": chebyshev_error, "sor": sor_error}


def dense_cycle(A, prolongations, smoothing_error):
    """Return the matrix of the V(1,1)-cycle, from the errors it leaves."""
    if not prolongations:
        return np.linalg.inv(A)
    P, *coarser = prolongations
    B = dense_cycle(P.T @ A @ P, coarser, smoothing_error)
    smoothed = smoothing_error(A)
    left = smoothed @ (np.eye(len(A)) - P @ B @ P.T @ A) @ smoothed
    return (np.eye(len(A)) - left) @ np.linalg.inv(A)


def dense_prolongations(system, number):
    axes, coupling = axes_of(system.grid), coupling_along_axes(system.K, system.grid)[None]
    matrices = []
    for _ in range(number):
        fine, axes = axes, coarsened(axes, coupling)
        matrices.append(interpolation(axes, fine).toarray())
    matrices[0] = matrices[0][system.grid.node_of_dof]
    return matrices


@pytest.mark.usefixtures("three_grids")
@SMOOTHERS
@pytest.mark.parametrize(("case", "number"), [(0, 2), (1, 2), (2, 2), (3, 3), (4, 2)])
def test_the_cycle_equals_its_dense_twin(systems, smoother, case, number):
    system = systems[case]
    prolongations = dense_prolongations(system, number)
    assert prolongations[-1].shape[1] <= 30 < prolongations[-1].shape[0]
    wanted = dense_cycle(system.A_33.toarray(), prolongations, ERRORS[smoother])
    M = application(PetscMultigrid(smoother), system)
    found = np.stack([M(e) for e in np.eye(len(wanted))], axis=1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())


@pytest.mark.usefixtures("three_grids")
@SMOOTHERS
def test_linear_symmetric_and_positive(systems, smoother):
    preconditioner = PetscMultigrid(smoother)
    assert preconditioner.is_linear
    assert preconditioner.is_symmetric
    for system in systems:
        M = application(preconditioner, system)
        u, v = probes(system)
        Mu, Mv = M(u), M(v)
        size = np.linalg.norm(u) * np.linalg.norm(Mv)
        assert v @ Mu == pytest.approx(u @ Mv, abs=1e-12 * size)
        assert u @ Mu > 0
        assert v @ Mv > 0
        np.testing.assert_allclose(M(2 * u - 3 * v), 2 * Mu - 3 * Mv, rtol=0, atol=1e-11 * size)


@pytest.mark.usefixtures("three_grids")
@SMOOTHERS
def test_eigenvalues_lie_between_zero_and_one(systems, smoother):
    """The cycle converges by itself, and from one side."""
    for system in systems:
        M = application(PetscMultigrid(smoother), system)
        A = system.A_33.toarray()
        values = np.linalg.eigvals(np.stack([M(column) for column in A], axis=1))
        np.testing.assert_allclose(values.imag, 0.0, atol=1e-7)
        assert values.real.min() > 0.1
        assert values.real.max() < 1 + 1e-7


@SMOOTHERS
def test_a_small_grid_is_solved_directly(reduced, smoother):
    system = reduced((4, 3, 5))
    [r] = probes(system, 1)
    np.testing.assert_allclose(
        system.A_33 @ application(PetscMultigrid(smoother), system)(r), r, atol=1e-11
    )


@pytest.mark.usefixtures("three_grids")
@SMOOTHERS
def test_a_batch_is_each_system_on_its_own_and_always_the_same(systems, smoother):
    preconditioner = PetscMultigrid(smoother)
    batch = learning.batch_systems(systems)
    together = preconditioner.setup(systems, batch)(batch.g)
    for i, system in enumerate(systems):
        alone = application(preconditioner, system)(system.g)
        np.testing.assert_array_equal(together[i].numpy(), alone)


# --- Counts -----------------------------------------------------------------------------------


@SMOOTHERS
@pytest.mark.parametrize("num_cells", [8, 11, 16, 20])
def test_iterations_in_the_paper_regime_do_not_grow(reduced, smoother, num_cells):
    system = reduced(num_cells)
    result = learning.solve(system, PetscMultigrid(smoother))
    assert result.converged
    assert result.method == "cg"
    assert result.iterations <= 6
    assert learning.solve(system, PetscMultigrid(smoother), "fgmres").iterations <= 6


@SMOOTHERS
@pytest.mark.parametrize(
    ("coefficients", "most"),
    [({"contrast": 1e4}, 9), ({"k_3d": np.diag([1.0, 1.0, 0.01])}, 8), ({"k_3d": 1e-2}, 8),
     ({"sigma_3d": 0.0}, 7)],
    ids=["heterogeneous", "anisotropic", "strong coupling", "no reaction"],
)  # fmt: skip
def test_iterations_in_other_regimes(reduced, smoother, coefficients, most):
    result = learning.solve(reduced(12, **coefficients), PetscMultigrid(smoother))
    assert result.converged
    assert result.iterations <= most


@SMOOTHERS
def test_counts_are_the_same_in_petscs_solver(reduced, smoother):
    system = reduced(10)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(schur_complement(system), tissue_block(system))
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-8, atol=0.0, max_it=200)
    ksp.setConvergenceHistory(201)
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(as_pc(PetscMultigrid(smoother), system))
    b = PETSc.Vec().createWithArray(system.g.copy(), comm=PETSc.COMM_SELF)
    ksp.solve(b, b.duplicate())
    ours = learning.solve(system, PetscMultigrid(smoother), rtol=1e-8)
    theirs = ksp.getConvergenceHistory()
    assert ksp.getIterationNumber() == ours.iterations
    np.testing.assert_allclose(theirs, ours.residual_norms, rtol=0, atol=1e-10 * theirs[0])


# --- Options ----------------------------------------------------------------------------------


@pytest.fixture
def users_options():
    """Options a user may have set for a multigrid of their own."""
    return {
        "pc_type": "none",
        "pc_mg_levels": "1",
        "mg_levels_ksp_type": "richardson",
        "mg_levels_ksp_max_it": "7",
        "mg_levels_pc_type": "none",
        "mg_coarse_pc_type": "jacobi",
        "mg_coarse_ksp_max_it": "1",
        "pc_factor_levels": "2",
        "pc_gamg_threshold": "0.5",
        "ksp_type": "gmres",
    }


def application_of(preconditioner):
    return lambda system: application(preconditioner, system)(system.g)


def iterate_of(kind):
    """Return the map to what PETSc's own solver has after a few steps."""
    return lambda system: petsc_cg(system, kind, rtol=1e-12, max_iterations=3)(system.g)[0]


@pytest.mark.parametrize(
    "compute",
    [
        application_of(PetscMultigrid("chebyshev")),
        application_of(PetscMultigrid("sor")),
        application_of(PetscPreconditioner("gamg")),
        *map(iterate_of, ["icc", "gamg", "chebyshev", "sor"]),
    ],
    ids=["chebyshev", "sor", "gamg", "icc, KSP", "gamg, KSP", "chebyshev, KSP", "sor, KSP"],
)
def test_options_of_the_user_change_nothing_and_stay(reduced, compute, users_options):
    system = reduced(8)
    wanted = compute(system)
    database = PETSc.Options()
    before = database.getAll()
    for name, value in users_options.items():
        database.setValue(name, value)
    try:
        during = database.getAll()
        found = compute(system)
        assert database.getAll() == during
    finally:
        for name in users_options:
            database.delValue(name)
    np.testing.assert_array_equal(found, wanted)
    assert database.getAll() == before


# --- Errors -----------------------------------------------------------------------------------


def test_an_unknown_smoother_is_explained():
    with pytest.raises(
        ValueError, match=r"got smoother='jacobi'; wanted one of \('chebyshev', 'sor'\)"
    ):
        PetscMultigrid("jacobi")


def test_a_mesh_without_a_grid_is_explained():
    box = md.create_box(4)
    network = md.create_network(md.random_vascular_graph(8, 0.05, seed=0), 0.2)
    system = md.reduce(md.assemble(box.mesh, network, md.Coefficients(sigma_3d=1.0)))
    with pytest.raises(ValueError, match="got a system on a mesh without a grid; wanted one on"):
        application(PetscMultigrid(), system)


@SMOOTHERS
@pytest.mark.parametrize("k_3d", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("num_cells", [4, 8, 11])
def test_a_singular_system_is_explained_and_leaves_no_options(reduced, smoother, num_cells, k_3d):
    system = reduced(num_cells, k_3d=k_3d, sigma_3d=0.0, permeability=0.0)
    before = PETSc.Options().getAll()
    with pytest.raises(ValueError, match="tissue block is singular on its coarsest grid; wanted"):
        application(PetscMultigrid(smoother), system)
    assert PETSc.Options().getAll() == before

"""Linear preconditioners: all symmetric and positive; PyAMG's equal its own solver."""

import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
import ufl
from hypothesis import given, settings
from hypothesis import strategies as st

import learning
import mixeddim as md
from learning.petsc import PetscMultigrid, PetscPreconditioner
from learning.preconditioners.classical import RugeStuben, SmoothedAggregation
from learning.preconditioners.fast_diagonalisation import FastDiagonalisation
from learning.preconditioners.multigrid.learned import LearnedMultigrid, MultigridBounds

LINEAR = {
    "identity": learning.Identity(),
    "jacobi": learning.Jacobi(),
    "ruge-stuben": RugeStuben(),
    "smoothed aggregation": SmoothedAggregation(),
    "fast diagonalisation": FastDiagonalisation(),
    "fast diagonalisation, coupling": FastDiagonalisation(corrects_coupling=True),
    "multigrid": learning.GeometricMultigrid(),
    "multigrid, l1-Jacobi twice": learning.GeometricMultigrid("l1_jacobi", degree=2),
    "learned multigrid": LearnedMultigrid(MultigridBounds().double()),
    "icc": PetscPreconditioner("icc"),
    "gamg": PetscPreconditioner("gamg"),
    "mumps": PetscPreconditioner("mumps"),
    "multigrid of PETSc, chebyshev": PetscMultigrid("chebyshev"),
    "multigrid of PETSc, sor": PetscMultigrid("sor"),
}
every_linear_one = pytest.mark.parametrize("preconditioner", LINEAR.values(), ids=LINEAR)


@cache
def geometry(shape, seed):
    """Return a box and a network in it; meshes are few, for each costs MPI communicators."""
    graph = md.random_vascular_graph(8, 0.05, seed)
    return md.create_box(shape), md.create_network(graph, 0.2)


def problem(shape=(4, 3, 5), seed=0, bcs_3d=(), **coefficients):
    box, network = geometry(shape, seed)
    coefficients = {"sigma_3d": 1.0, **coefficients}
    return md.reduce(md.assemble(box, network, md.Coefficients(**coefficients), bcs_3d=[*bcs_3d]))


@pytest.fixture(scope="module")
def systems():
    return [
        problem(),
        problem(seed=1, k_3d=lambda x: 0.01 + x[0] ** 2, permeability=100.0),
        problem(seed=2, k_3d=np.diag([1.0, 0.1, 10.0]), sigma_3d=lambda x: 10 * x[1]),
    ]


# --- What every linear one promises -----------------------------------------------------------

FACES = ["x_min", "x_max", "y_min", "y_max", "z_min", "z_max"]


@every_linear_one
@settings(max_examples=8, deadline=None)
@given(
    shape=st.sampled_from([(4, 3, 5), (2, 6, 2), (1, 2, 3)]),
    seed=st.integers(0, 1),
    k=st.floats(-4.0, 1.0).map(lambda x: 10.0**x),
    contrast=st.floats(0.0, 4.0).map(lambda x: 10.0**x),
    sigma=st.sampled_from([0.0, 1e-2, 1.0, 1e2]),
    fixed=st.sets(st.sampled_from(FACES[::2]), max_size=2),
    probe=st.integers(0, 2**32 - 1),
)
def test_linear_symmetric_and_positive(
    preconditioner, shape, seed, k, contrast, sigma, fixed, probe
):
    assert preconditioner.is_linear
    assert preconditioner.is_symmetric
    system = problem(
        shape,
        seed,
        [md.Dirichlet(face, 0.5) for face in sorted(fixed)],
        k_3d=lambda x: k * ufl.exp(float(np.log(contrast)) * x[0] * x[1]),
        sigma_3d=sigma,
    )
    batch = learning.batch_systems([system])
    M = preconditioner.setup([system], batch)
    rng = np.random.default_rng(probe)
    u, v = (torch.tensor(rng.standard_normal(batch.g.shape)) for _ in range(2))
    Mu, Mv = M(u), M(v)
    size = Mu.norm() * v.norm()
    assert (v * Mu).sum() == pytest.approx((u * Mv).sum().item(), abs=1e-11 * size.item())
    assert (u * Mu).sum() > 0
    assert (v * Mv).sum() > 0
    torch.testing.assert_close(
        M(2.0 * u - 3.0 * v), 2.0 * Mu - 3.0 * Mv, rtol=0, atol=1e-11 * size.item()
    )
    assert torch.all(M(torch.zeros_like(u)) == 0)


@every_linear_one
def test_a_batch_is_each_system_on_its_own(preconditioner, systems):
    batch = learning.batch_systems(systems)
    together = preconditioner.setup(systems, batch)(batch.g)
    for i, system in enumerate(systems):
        alone = preconditioner.setup([system], learning.batch_systems([system]))(batch.g[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-12)


@every_linear_one
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_corrections_have_the_dtype_of_the_residual(preconditioner, systems, dtype):
    batch = learning.batch_systems(systems[:1], dtype)
    z = preconditioner.setup(systems[:1], batch)(batch.g)
    exact = learning.batch_systems(systems[:1])
    wanted = preconditioner.setup(systems[:1], exact)(exact.g)
    assert z.dtype == dtype
    torch.testing.assert_close(z.double(), wanted, rtol=0, atol=1e-4 * wanted.abs().max().item())


@every_linear_one
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_an_accelerator_changes_nothing(preconditioner, systems):
    batch, there = learning.batch_systems(systems), learning.batch_systems(systems, device="cuda")
    if isinstance(preconditioner, LearnedMultigrid):
        pytest.skip("its model lives on one device")
    here = preconditioner.setup(systems, batch)(batch.g)
    z = preconditioner.setup(systems, there)(there.g)
    assert z.device == there.g.device
    torch.testing.assert_close(z.cpu(), here, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "most"), [
    ("jacobi", 80), ("icc", 30), ("gamg", 14), ("ruge-stuben", 8), ("smoothed aggregation", 12),
    ("fast diagonalisation", 10), ("fast diagonalisation, coupling", 8), ("mumps", 1),
    ("multigrid", 8), ("multigrid, l1-Jacobi twice", 6), ("learned multigrid", 5),
    ("multigrid of PETSc, chebyshev", 6), ("multigrid of PETSc, sor", 6),
])  # fmt: skip
def test_iterations_in_the_paper_regime(name, most):
    system = problem((8, 8, 8))
    result = learning.solve(system, LINEAR[name])
    assert result.converged
    assert result.method == "cg"
    assert result.iterations <= most
    assert learning.solve(system, LINEAR[name], "fgmres").iterations <= most


# --- PyAMG ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preconditioner", [RugeStuben(), SmoothedAggregation()])
def test_pyamg_as_a_solver_converges_as_its_cycle_iterated(preconditioner):
    """x + M (b - A x), over and over, solves with A_33."""
    system = problem((6, 6, 6))
    A = system.A_33
    M = preconditioner.setup([system], learning.batch_systems([system]))
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    x = np.zeros_like(b)
    for _ in range(40):
        x += M(torch.tensor(b - A @ x)[None])[0].numpy()
    assert np.linalg.norm(b - A @ x) < 1e-8 * np.linalg.norm(b)


def test_a_mesh_without_a_grid_coarsens_too():
    box, network = geometry((4, 3, 5), 0)
    system = md.reduce(md.assemble(box.mesh, network, md.Coefficients(sigma_3d=1.0)))
    assert learning.solve(system, RugeStuben()).iterations < 10


def test_missing_pyamg_is_explained():
    code = (
        "import sys; sys.modules['pyamg'] = None\n"
        "from learning.preconditioners.classical import RugeStuben\n"
        "RugeStuben().setup([], None)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "learning found no PyAMG" in result.stderr
    assert "pip install" in result.stderr

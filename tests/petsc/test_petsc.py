"""PETSc on both sides: its preconditioners in our solvers, ours in its, with the same counts."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from petsc4py import PETSc

import learning
import learning.petsc
import mixeddim as md
from learning.petsc import LearningPC, PetscPreconditioner, as_pc, schur_complement, tissue_block
from learning.preconditioners.fast_diagonalisation import FastDiagonalisation


@pytest.fixture(scope="module")
def system():
    box = md.create_box((4, 3, 5))
    network = md.create_network(md.random_vascular_graph(8, 0.05, seed=0), 0.2)
    return md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0)))


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return learning.UNetPreconditioner(learning.UNet().double())


def krylov(system, method, context=None, rtol=1e-8):
    """Return a KSP as a user would write it."""
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(schur_complement(system), tissue_block(system))
    ksp.setType(method)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=rtol, atol=0.0, max_it=200)
    ksp.setConvergenceHistory(201)
    if method == "fgmres":
        ksp.setGMRESRestart(200)
    if context is not None:
        ksp.getPC().setType("python")
        ksp.getPC().setPythonContext(context)
    return ksp


def solve(ksp, system):
    b = PETSc.Vec().createWithArray(system.g.copy(), comm=PETSc.COMM_SELF)
    x = b.duplicate()
    ksp.solve(b, x)
    return x.getArray()


def apply(M, system, r):
    setup = M.setup([system], learning.batch_systems([system]))
    return setup(torch.tensor(r)[None])[0].numpy()


# --- PETSc's preconditioners ------------------------------------------------------------------


def incomplete_cholesky(A):
    """Return the factor with the pattern of the lower triangle of A, entry by entry."""
    n, pattern = len(A), A != 0
    L = np.zeros_like(A)
    for i in range(n):
        for j in range(i + 1):
            if pattern[i, j]:
                rest = A[i, j] - L[i, :j] @ L[j, :j]
                L[i, j] = np.sqrt(rest) if i == j else rest / L[j, j]
    return L


def test_icc_equals_its_definition(system):
    L = incomplete_cholesky(system.A_33.toarray())
    r = np.random.default_rng(0).standard_normal(len(L))
    wanted = np.linalg.solve(L.T, np.linalg.solve(L, r))
    np.testing.assert_allclose(apply(PetscPreconditioner("icc"), system, r), wanted, rtol=1e-10)


def test_mumps_is_the_inverse_of_the_schur_complement(system):
    r = np.random.default_rng(0).standard_normal(len(system.b_3))
    np.testing.assert_allclose(
        system.S @ apply(PetscPreconditioner("mumps"), system, r), r, atol=1e-11
    )


def test_gamg_equals_petscs_own_history(system):
    ksp = krylov(system, "cg")
    ksp.getPC().setType("gamg")
    ksp.getPC().setUseAmat(False)  # smooth with A_33, not with S
    solve(ksp, system)
    ours = learning.solve(system, PetscPreconditioner("gamg"), rtol=1e-8)
    theirs = ksp.getConvergenceHistory()
    assert ours.iterations == ksp.getIterationNumber()
    np.testing.assert_allclose(theirs, ours.residual_norms, rtol=0, atol=1e-8 * theirs[0])


def test_an_unknown_kind_is_explained():
    with pytest.raises(ValueError, match=r"got kind='ilu'; wanted one of \('icc', 'gamg', 'mumps'"):
        PetscPreconditioner("ilu")


# --- Ours in PETSc's solvers ------------------------------------------------------------------


class Nonlinear:
    """A good linear preconditioner and some U-Net."""

    is_linear = is_symmetric = False

    def __init__(self, unet):
        self.unet = unet

    def setup(self, systems, batch):
        linear = FastDiagonalisation().setup(systems, batch)
        nonlinear = self.unet.setup(systems, batch)
        return lambda r: linear(r) + nonlinear(r)


COUNTS = [
    ("cg", "jacobi"),
    ("cg", "fast diagonalisation"),
    ("fgmres", "jacobi"),
    ("fgmres", "fast diagonalisation"),
    ("fgmres", "nonlinear"),
]


@pytest.mark.parametrize(("method", "name"), COUNTS, ids=lambda value: value)
def test_histories_equal_those_of_our_solvers(system, unet, method, name):
    preconditioner = {
        "jacobi": learning.Jacobi(),
        "fast diagonalisation": FastDiagonalisation(),
        "nonlinear": Nonlinear(unet),
    }[name]
    ours = learning.solve(system, preconditioner, method, rtol=1e-8)
    ksp = krylov(system, method, as_pc(preconditioner, system))
    x = solve(ksp, system)
    theirs = ksp.getConvergenceHistory()
    assert ours.converged
    assert ksp.getIterationNumber() == ours.iterations
    np.testing.assert_allclose(theirs, ours.residual_norms, rtol=0, atol=1e-8 * theirs[0])
    np.testing.assert_allclose(x, ours.x, rtol=0, atol=1e-6)


def test_histories_of_a_unet_are_equal(system, unet):
    """As far as rounding does not grow: untrained it takes as many steps as there are unknowns."""
    ours = learning.solve(system, unet, max_iterations=30)
    ksp = krylov(system, "fgmres", as_pc(unet, system))
    ksp.setTolerances(max_it=30)
    solve(ksp, system)
    theirs = ksp.getConvergenceHistory()
    np.testing.assert_allclose(theirs, ours.residual_norms, rtol=0, atol=1e-8 * theirs[0])


def test_operators_are_the_systems(system):
    S, A_33 = schur_complement(system), tissue_block(system)
    v = np.random.default_rng(0).standard_normal(len(system.b_3))
    x, y = S.createVecs()
    x.setArray(v)
    S.mult(x, y)
    np.testing.assert_allclose(y.getArray(), system.S @ v, rtol=1e-13)
    S.multTranspose(x, y)
    np.testing.assert_allclose(y.getArray(), system.S @ v, rtol=1e-13)
    A_33.mult(x, y)
    np.testing.assert_allclose(y.getArray(), system.A_33 @ v, atol=1e-13)


class Options:
    """PETSc options for as long as a test needs them."""

    def __init__(self, **options):
        self.options = options

    def __enter__(self):
        for name, value in self.options.items():
            PETSc.Options().setValue(name, value)

    def __exit__(self, *_):
        for name in self.options:
            PETSc.Options().delValue(name)


FROM_OPTIONS = {"pc_type": "python", "pc_python_type": "learning.petsc.LearningPC"}


def named(prefix, name):
    options = {**FROM_OPTIONS, "pc_learning_name": name}
    return Options(**{prefix + key: value for key, value in options.items()})


@pytest.mark.parametrize("prefix", ["", "tissue_"])
def test_options_choose_a_class(system, prefix):
    ksp = krylov(system, "cg")
    ksp.setOptionsPrefix(prefix)
    with named(prefix, "Jacobi"):
        ksp.setFromOptions()
        solve(ksp, system)
    assert (
        ksp.getIterationNumber() == learning.solve(system, learning.Jacobi(), rtol=1e-8).iterations
    )


def test_options_choose_a_file_of_weights(system, tmp_path):
    torch.manual_seed(0)
    model = learning.UNet()
    path = tmp_path / "model.safetensors"
    learning.save_weights(model, path, {"training": "none"})
    ksp = krylov(system, "fgmres")
    ksp.setTolerances(max_it=10)
    with named("", str(path)):
        ksp.setFromOptions()
        solve(ksp, system)
    wanted = learning.solve(system, learning.UNetPreconditioner(model), max_iterations=10)
    np.testing.assert_allclose(ksp.getConvergenceHistory(), wanted.residual_norms, rtol=1e-5)


def test_view_names_the_preconditioner(system, tmp_path):
    ksp = krylov(system, "cg", as_pc(learning.Jacobi(), system))
    ksp.setUp()
    viewer = PETSc.Viewer().createASCII(str(tmp_path / "view.txt"), comm=PETSc.COMM_SELF)
    ksp.view(viewer)
    viewer.destroy()
    assert "learning: Jacobi" in (tmp_path / "view.txt").read_text()


# --- Errors -----------------------------------------------------------------------------------


def raises_in_petsc(message):
    """PETSc raises its own error, from the one of its callback."""
    return pytest.raises(PETSc.Error, check=lambda e: bool(re.search(message, str(e.__cause__))))


def test_another_size_is_explained(system):
    ksp = krylov(system, "cg", as_pc(learning.Jacobi(), system))
    small = PETSc.Mat().createDense((3, 3), array=np.eye(3), comm=PETSc.COMM_SELF)
    ksp.setOperators(small)
    with raises_in_petsc(r"got a PC of a matrix of shape \(3, 3\).*120 tissue dofs"):
        ksp.setUp()


def test_an_operator_that_knows_no_system_is_explained(system):
    ksp = krylov(system, "cg")
    A_33 = tissue_block(system)
    ksp.setOperators(A_33)
    with named("", "Jacobi"):
        ksp.setFromOptions()
        with raises_in_petsc(r"got an operator of type seqaij.*schur_complement"):
            ksp.setUp()


def test_an_unknown_name_is_explained(system):
    ksp = krylov(system, "cg")
    with (
        named("", "Jakobi"),
        raises_in_petsc("got pc_learning_name='Jakobi'; wanted one of"),
    ):
        ksp.setFromOptions()


def test_no_name_is_explained(system):
    ksp = krylov(system, "cg", LearningPC())
    with raises_in_petsc("got no preconditioner; .*-pc_learning_name"):
        ksp.setUp()


def test_transpose_of_a_nonlinear_one_is_explained(system, unet):
    ksp = krylov(system, "cg", as_pc(unet, system))
    ksp.setUp()
    x, y = schur_complement(system).createVecs()
    with raises_in_petsc(r"which is not symmetric, to be transposed.*fgmres"):
        ksp.getPC().applyTranspose(x, y)


class Returns:
    """A preconditioner whose setup returns what it is given."""

    is_linear = is_symmetric = True

    def __init__(self, apply):
        self.apply = apply

    def setup(self, *_):
        return self.apply


def test_a_preconditioner_that_returns_nothing_is_explained(system):
    ksp = krylov(system, "cg", as_pc(Returns(lambda _: None), system))
    x, y = schur_complement(system).createVecs()
    x.set(1.0)
    with raises_in_petsc(r"got None from the preconditioner; wanted a tensor of shape \(1, 120\)"):
        ksp.solve(x, y)


def test_a_setup_that_returns_nothing_is_explained(system):
    ksp = krylov(system, "cg", as_pc(Returns(None), system))
    with raises_in_petsc(r"got None from the setup of Returns; .* End setup with `return`"):
        ksp.setUp()


@pytest.mark.parametrize("candidate", ["unet-dynamic", learning.UNet(), learning.Jacobi])
def test_what_is_no_preconditioner_is_refused_at_once(system, candidate):
    with pytest.raises(ValueError, match="as preconditioner; wanted an object with a method setup"):
        as_pc(candidate, system)


def test_missing_petsc_is_explained():
    code = "import sys; sys.modules['petsc4py'] = None\nimport learning\nimport learning.petsc"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "learning.petsc found no petsc4py" in result.stderr

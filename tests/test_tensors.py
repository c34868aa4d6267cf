"""The reduced system in torch: the product of scipy, its gradients, a process without DOLFINx."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from mixeddim import reduce, save_reduced, to_torch


@pytest.fixture(scope="module")
def reduced(system):
    return reduce(system)


@pytest.fixture(scope="module")
def tensors(reduced):
    return to_torch(reduced)


def random_vectors(reduced, *batch, seed=0):
    return np.random.default_rng(seed).normal(size=(*batch, len(reduced.b_3)))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 3e-6)], ids=str
)
@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3), (0,)], ids=str)
def test_product_equals_that_of_scipy(reduced, dtype, tolerance, batch):
    v = random_vectors(reduced, *batch)
    expected = (reduced.S @ v.reshape(-1, v.shape[-1]).T).T.reshape(v.shape)
    product = to_torch(reduced, dtype).apply(torch.tensor(v, dtype=dtype))
    assert product.dtype == dtype
    assert product.shape == v.shape
    scale = abs(reduced.A_33).sum(axis=1).max() * (np.abs(v).max() if v.size else 1.0)
    np.testing.assert_allclose(product.numpy(), expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_parts_are_those_of_the_reduced_system(reduced, dtype):
    tensors = to_torch(reduced, dtype)
    for name in ("A_33", "A_31", "A_13"):
        expected = getattr(reduced, name).toarray()
        actual = getattr(tensors, name)
        assert actual.layout == torch.sparse_csr
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual.to_dense(), expected, rtol=1e-6, atol=1e-12)
    A_11 = torch.tensor(reduced.A_11.toarray(), dtype=dtype)
    np.testing.assert_allclose(tensors.solve_11(A_11), np.eye(len(A_11)), atol=1e-5)
    np.testing.assert_allclose(tensors.g, reduced.g, rtol=1e-6, atol=1e-6)
    assert tensors.g.dtype == dtype
    assert tensors.grid is reduced.grid


def test_a_layout_in_memory_does_not_matter(reduced, tensors):
    v = torch.tensor(random_vectors(reduced, 4))
    transposed = v.T.contiguous().T
    assert not transposed.is_contiguous()
    np.testing.assert_array_equal(tensors.apply(transposed), tensors.apply(v))


def test_a_copy_is_taken(reduced):
    tensors = to_torch(reduced)
    tensors.g.zero_()
    assert reduced.g.any()


def test_solving_in_torch_gives_the_solution(reduced, tensors):
    S = tensors.apply(torch.eye(len(reduced.b_3), dtype=torch.float64))
    np.testing.assert_allclose(S, S.T, rtol=0, atol=1e-13)
    u = torch.linalg.solve(S, tensors.g).numpy()
    np.testing.assert_allclose(reduced.S @ u, reduced.g, atol=1e-12)


def test_first_and_second_derivatives(reduced, tensors):
    v = torch.tensor(random_vectors(reduced, 2), requires_grad=True)
    # Few directions suffice: gradcheck in fast mode projects on random ones.
    assert torch.autograd.gradcheck(tensors.apply, (v,), fast_mode=True)
    assert torch.autograd.gradgradcheck(tensors.apply, (v,), fast_mode=True)

    def cubic(v):  # not linear, so that the second derivative is not zero
        return (tensors.apply(v) ** 3).sum()

    assert torch.autograd.gradcheck(cubic, (v,), fast_mode=True)
    assert torch.autograd.gradgradcheck(cubic, (v,), fast_mode=True)


def test_gradient_of_the_energy_is_twice_the_product(reduced, tensors):
    v = torch.tensor(random_vectors(reduced, 3), requires_grad=True)
    (gradient,) = torch.autograd.grad((v * tensors.apply(v)).sum(), v)
    np.testing.assert_allclose(
        gradient, 2 * (reduced.S @ v.detach().numpy().T).T, rtol=0, atol=1e-12
    )


def test_no_graph_is_kept_where_none_is_asked_for(reduced, tensors):
    assert not tensors.apply(torch.tensor(random_vectors(reduced))).requires_grad


@pytest.mark.parametrize(("make", "message"), [
    (lambda n: torch.ones(n + 1, dtype=torch.float64),
     r"got v of shape \(121,\), torch.float64 on cpu; wanted \(\.\.\., 120\)"),
    (lambda n: torch.ones(n, 2, dtype=torch.float64), r"got v of shape \(120, 2\)"),
    (lambda _: torch.tensor(1.0, dtype=torch.float64), r"got v of shape \(\)"),
    (lambda n: torch.ones(n, dtype=torch.float32),
     r"torch.float32 on cpu; wanted \(\.\.\., 120\), torch.float64 on cpu. Convert v, or call"),
    (lambda n: torch.ones(n, dtype=torch.int64), "torch.int64 on cpu; wanted"),
    (lambda n: torch.ones(n, dtype=torch.float64, device="meta"), "torch.float64 on meta; wanted"),
], ids=["length", "transposed", "scalar", "float32", "integer", "device"])  # fmt: skip
def test_vectors_that_do_not_fit_are_errors(tensors, make, message):
    with pytest.raises(ValueError, match=message):
        tensors.apply(make(tensors.g.shape[0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.complex128, torch.int64, float], ids=str)
def test_other_dtypes_are_errors(reduced, dtype):
    with pytest.raises(ValueError, match=r"wanted torch\.float32 or torch\.float64"):
        to_torch(reduced, dtype)


SCRIPT = """
    import sys

    class Blocked:
        names = {"basix", "dolfinx", "dolfinx_solver", "ffcx", "mpi4py", "petsc4py", "ufl"}

        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in self.names:
                raise ModuleNotFoundError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocked())
    import numpy as np
    import torch

    import mixeddim.tensors

    path, vectors, products = sys.argv[1:]
    reduced = mixeddim.load_reduced(path)
    tensors = mixeddim.tensors.to_torch(reduced)
    v = torch.tensor(np.load(vectors))
    np.save(products, tensors.apply(v).numpy())
    np.testing.assert_array_equal(reduced.grid.to_dofs(reduced.grid.to_grid(v.numpy())), v)
    assert not Blocked.names & set(sys.modules), Blocked.names & set(sys.modules)
    try:
        mixeddim.assemble
    except ImportError:
        print("blocked")
"""


def test_a_process_without_dolfinx_applies_a_saved_system(reduced, tmp_path):
    v = random_vectors(reduced, 3)
    save_reduced(reduced, tmp_path / "system.npz")
    np.save(tmp_path / "vectors.npy", v)
    names = ("system.npz", "vectors.npy", "products.npy")
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == ["blocked"]
    products = np.load(tmp_path / "products.npy")
    np.testing.assert_allclose(products, (reduced.S @ v.T).T, rtol=0, atol=1e-12)

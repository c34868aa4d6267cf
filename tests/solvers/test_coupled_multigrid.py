"""Multigrid that knows of the network: definite and convergent whatever the coefficients."""

import numpy as np
import pytest
from scipy import sparse

import mixeddim as md
from mixeddim.algebra.network_block import definite_factors
from mixeddim.solvers import coarsening, exchange
from mixeddim.solvers.coupled_multigrid import CoupledMultigrid

CASES = {
    "plain": {},
    "strong exchange": {"permeability": 1e6},
    "vessels that follow": {"permeability": 1e6, "k_1d": 1e-4},
    "well conducting vessels": {"permeability": 1e3, "k_1d": 1e6},
    "reaction": {"sigma_3d": 1e6, "permeability": 1e4, "k_1d": 1e-3},
    "SI units": {"k_3d": 1e-12, "sigma_3d": 1e-12, "k_1d": 1e-13, "permeability": 1e-11},
}


@pytest.fixture(autouse=True)
def several_levels(monkeypatch):
    monkeypatch.setitem(coarsening._COARSENING, "pc_gamg_coarse_eq_limit", "30")


def assembled(num_cells=(6, 5, 4), upper=(1.0, 1.0, 1.0), cell_type="tetrahedron", **coefficients):
    box = md.create_box(num_cells, upper=upper, cell_type=cell_type)
    graph = md.random_vascular_graph(8, 0.05 * min(upper), 0, upper=upper)
    network = md.create_network(graph, box.spacing)
    return md.assemble(box, network, md.Coefficients(**{"sigma_3d": 1.0, **coefficients}))


@pytest.mark.parametrize(
    ("cell_type", "case"),
    [
        *(("tetrahedron", case) for case in CASES),
        ("hexahedron", "plain"),
        ("hexahedron", "reaction"),
    ],
)
@pytest.mark.parametrize("most_factored", [0, 3000], ids=["bounded", "factored"])
def test_symmetric_positive_definite_and_convergent(cell_type, case, most_factored, monkeypatch):
    """The eigenvalues of M S lie in (0, 1]: each smoother converges by itself."""
    monkeypatch.setattr(exchange, "MOST_FACTORED", most_factored)
    system = assembled(cell_type=cell_type, **CASES[case])
    M, one = CoupledMultigrid(system), np.eye(len(system.b_3))
    assert "2 levels" in repr(M) or "3 levels" in repr(M)
    dense = np.column_stack([M(e) for e in one])
    S = md.reduce(system).S @ one
    scale = np.sqrt(S.diagonal())
    symmetric = scale[:, None] * dense * scale
    assert np.linalg.norm(symmetric - symmetric.T) < 1e-6 * np.linalg.norm(symmetric)
    eigenvalues = np.linalg.eigvals(dense @ S).real
    # The degree of the polynomial that bounds is cut where exchange is a million times diffusion.
    assert eigenvalues.min() > (0.05 if most_factored else 1e-5)
    assert eigenvalues.max() < 1 + 1e-6


@pytest.mark.parametrize("cell_type", ["tetrahedron", "hexahedron"])
@pytest.mark.parametrize("upper", [(1.0, 0.1, 0.1), (0.1, 1.0, 1.0), (1.0, 0.3, 0.1)])
def test_long_boxes(upper, cell_type):
    system = assembled((8, 8, 8), upper, cell_type, permeability=1e3, k_1d=1e-3, sigma_3d=100.0)
    assert md.solve(system, "krylov").iterations <= 50


def test_hexahedra_are_coarsened_by_seven_points():
    """Of constant coefficients: 1D stiffness times lumped mass, as the energy of x shows."""
    system = assembled((4, 3, 5), (1.0, 2.0, 0.5), "hexahedron", k_3d=np.diag([1.0, 2.0, 3.0]))
    A = coarsening.rows_to_coarsen(system)
    assert np.diff(A.indptr).max() == 7
    assert abs(A - A.T).max() < 1e-14
    np.testing.assert_allclose(A.sum(axis=1), (system.K + system.M).sum(axis=1), atol=1e-12)
    along_axes = coarsening._along_axes(system, system.K)
    x = system.side_3d.V.tabulate_dof_coordinates()
    energies = (along_axes.sum(axis=1) @ x**2) - np.einsum("ia,ia->a", x, along_axes @ x)
    np.testing.assert_allclose(energies, -np.array([1.0, 2.0, 3.0]), rtol=1e-12)


def test_other_meshes(fork):
    """Aggregates need no grid."""
    box = md.create_box(6)
    coefficients = md.Coefficients(sigma_3d=1.0, permeability=1e6)
    system = md.assemble(box.mesh, md.create_network(fork, box.spacing), coefficients)
    direct, krylov = (md.solve(system, method) for method in ("direct", "krylov"))
    assert krylov.iterations <= 30
    np.testing.assert_allclose(krylov.u_3d.x.array, direct.u_3d.x.array, rtol=1e-6)


def test_without_exchange_the_network_is_no_matter(fork):
    network = md.create_network(fork, 0.25)
    coefficients = md.Coefficients(sigma_3d=1.0, permeability=0.0, f_3d=1.0)
    solution = md.solve(md.assemble(md.create_box(6), network, coefficients), "krylov")
    np.testing.assert_allclose(solution.u_3d.x.array, 1.0, rtol=1e-8)


def test_options_are_put_back():
    before = coarsening.PETSc.Options().getAll()
    CoupledMultigrid(assembled())
    assert coarsening.PETSc.Options().getAll() == before


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_factors_in_any_unit(unit):
    rng = np.random.default_rng(0)
    A = sparse.random_array((20, 20), density=0.3, rng=rng)
    A = unit * (A @ A.T + sparse.eye_array(20)).tocsr()
    x = rng.normal(size=20)
    np.testing.assert_allclose(definite_factors(A)(A @ x), x, rtol=1e-10)

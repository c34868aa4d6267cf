"""Fast diagonalisation: exact where it says so, close elsewhere, coefficients read off."""

from itertools import product

import numpy as np
import pytest
import torch
import ufl
from scipy import sparse

import learning
import mixeddim as md
from learning.preconditioners.fast_diagonalisation import FastDiagonalisation


def problem(
    shape=(5, 4, 6), upper=(1.0, 1.2, 0.9), bcs_3d=(), cell_type="tetrahedron", **coefficients
):
    box = md.create_box(shape, upper=upper, cell_type=cell_type)
    network = md.create_network(md.random_vascular_graph(8, 0.05, seed=0), 0.2)
    return md.reduce(
        md.assemble(
            box, network, md.Coefficients(**coefficients), bcs_3d=[*bcs_3d], outside="renormalise"
        )
    )


def dense(system, preconditioner):
    """Return M as a matrix."""
    M = preconditioner.setup([system], learning.batch_systems([system]))
    n = len(system.b_3)
    return np.column_stack([
        M(torch.tensor(column)[None])[0].numpy() for column in np.eye(n)
    ])  # fmt: skip


def stiffness_1d(n, h, low, high):
    """Return 1D P1 stiffness and lumped mass of the free nodes."""
    K = sparse.diags_array([np.r_[1.0, np.full(n - 2, 2.0), 1.0], -np.ones(n - 1), -np.ones(n - 1)],
                           offsets=[0, 1, -1]).toarray() / h  # fmt: skip
    M = np.diag(h * np.r_[0.5, np.ones(n - 2), 0.5])
    free = slice(int(low), n - int(high))
    return K[free, free], M[free, free]


DIRICHLET = {
    "none": [],
    "x_min": ["x_min"],
    "x_min, z_max": ["x_min", "z_max"],
    "y_min, y_max": ["y_min", "y_max"],
}


@pytest.mark.parametrize("faces", DIRICHLET.values(), ids=DIRICHLET)
@pytest.mark.parametrize("k", [(2.0, 2.0, 2.0), (1.0, 30.0, 0.1)], ids=["isotropic", "anisotropic"])
def test_inverse_of_the_sum_of_tensor_products(k, faces):
    """Without reaction it is the inverse of the 7-point stencil, to rounding."""
    system = problem(
        bcs_3d=[md.Dirichlet(face, 0.0) for face in faces], k_3d=np.diag(k), sigma_3d=0.0
    )
    grid = system.grid
    pencils = [
        stiffness_1d(n, h, f"{axis}_min" in faces, f"{axis}_max" in faces)
        for axis, n, h in zip("xyz", grid.shape, grid.cell_size, strict=True)
    ]
    (K_x, M_x), (K_y, M_y), (K_z, M_z) = pencils
    F = (
        k[0] * np.kron(np.kron(K_x, M_y), M_z)
        + k[1] * np.kron(np.kron(M_x, K_y), M_z)
        + k[2] * np.kron(np.kron(M_x, M_y), K_z)
    )
    M = dense(system, FastDiagonalisation())
    K = system.K.toarray()
    is_free = np.count_nonzero(K, axis=1) > 1
    order = np.argsort(grid.node_of_dof)
    order = order[is_free[order]]
    inverse, r = M[np.ix_(order, order)], np.random.default_rng(0).standard_normal(len(order))
    if not faces:
        r -= r.mean()  # the kernel of F
    np.testing.assert_allclose(F @ (inverse @ r), r, atol=1e-9)
    fixed = np.flatnonzero(~is_free)
    np.testing.assert_allclose(M[fixed][:, fixed], np.diag(1 / K.diagonal()[fixed]))


@pytest.mark.parametrize(
    ("shape", "faces"),
    [*product([(5, 4, 6), (2, 3, 4)], DIRICHLET.values()), ((5, 4, 6), ["boundary"])],
    ids=str,
)
@pytest.mark.parametrize("k", [(2.0, 2.0, 2.0), (1.0, 30.0, 0.1)], ids=["isotropic", "anisotropic"])
def test_exact_inverse_on_hexahedra(k, shape, faces):
    """Of diffusion and reaction, to rounding, with conditions on any sides."""
    system = problem(
        shape,
        bcs_3d=[md.Dirichlet(face, 1.0) for face in faces],
        cell_type="hexahedron",
        k_3d=np.diag(k),
        sigma_3d=3.0,
        permeability=0.0,
    )
    M = dense(system, FastDiagonalisation())
    A = (system.K + system.M).toarray()
    np.testing.assert_allclose(M @ A, np.eye(len(A)), rtol=0, atol=1e-12)
    assert learning.solve(system, FastDiagonalisation(), rtol=1e-10).iterations <= 2


def test_exact_inverse_on_hexahedra_with_the_coupling_corrected():
    system = problem(cell_type="hexahedron", k_3d=0.1, sigma_3d=1.0, permeability=1e3)
    M = dense(system, FastDiagonalisation(corrects_coupling=True))
    np.testing.assert_allclose(M @ (system.S @ np.eye(len(M))), np.eye(len(M)), rtol=0, atol=1e-8)


def test_stiffness_of_the_mesh_is_the_stencil_but_along_the_edges_of_the_box():
    system = problem(sigma_3d=0.0)
    grid = system.grid
    (K_x, M_x), (K_y, M_y), (K_z, M_z) = (
        stiffness_1d(n, h, False, False) for n, h in zip(grid.shape, grid.cell_size, strict=True)
    )
    F = (
        np.kron(np.kron(K_x, M_y), M_z)
        + np.kron(np.kron(M_x, K_y), M_z)
        + np.kron(np.kron(M_x, M_y), K_z)
    )
    order = np.argsort(grid.node_of_dof)
    difference = np.abs(system.K.toarray()[np.ix_(order, order)] - F).max(axis=1)
    at_edge = np.add.reduce(
        [(i == 0) | (i == n - 1) for i, n in zip(np.indices(grid.shape), grid.shape, strict=True)]
    )
    assert np.all(difference[at_edge.ravel() < 2] < 1e-12)
    assert np.all(difference[at_edge.ravel() >= 2] > 1e-3)


SPECTRA = {  # eigenvalues of M S with the coupling corrected: how good the rest is
    "diffusion": ({"k_3d": 1.0, "sigma_3d": 1e-3}, 0.6, 1.5),
    "mass": ({"k_3d": 1e-6, "sigma_3d": 1.0}, 0.3, 2.5),
    "both": ({"k_3d": 0.01, "sigma_3d": 1.0}, 0.3, 2.5),
}


@pytest.mark.parametrize(("coefficients", "least", "most"), SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("permeability", [1.0, 1e4])
def test_close_to_the_inverse_at_every_coupling_strength(permeability, coefficients, least, most):
    system = problem(permeability=permeability, **coefficients)
    M = dense(system, FastDiagonalisation(corrects_coupling=True))
    eigenvalues = np.linalg.eigvals(M @ (system.S @ np.eye(len(M)))).real
    assert least < eigenvalues.min()
    assert eigenvalues.max() < most


def test_woodbury_equals_the_inverse_of_the_corrected_matrix():
    system = problem(k_3d=0.1, sigma_3d=1.0, permeability=10.0)
    without = np.linalg.inv(dense(system, FastDiagonalisation()))
    coupling = system.S @ np.eye(len(without)) - (system.K + system.M).toarray()
    wanted = np.linalg.inv(without + coupling)
    got = dense(system, FastDiagonalisation(corrects_coupling=True))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("bcs", [[], [md.Robin("z_min", 50.0, 1.0)]], ids=["Neumann", "Robin"])
@pytest.mark.parametrize("cell_type", ["tetrahedron", "hexahedron"])
@pytest.mark.parametrize("contrast", [1e2, 1e4])
def test_smooth_variation_costs_few_iterations(contrast, cell_type, bcs):
    exponent = float(np.log(contrast))
    system = problem(
        (8, 8, 8),
        bcs_3d=bcs,
        cell_type=cell_type,
        sigma_3d=1.0,
        k_3d=lambda x: ufl.exp(exponent * ufl.cos(x[0] * x[1])),
    )
    jacobi = learning.solve(system, learning.Jacobi())
    result = learning.solve(system, FastDiagonalisation())
    assert result.converged
    assert result.iterations < jacobi.iterations / 2


@pytest.mark.parametrize("cell_type", ["tetrahedron", "hexahedron"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3), (2, 5, 4)])
@pytest.mark.parametrize("bcs", [
    [md.Robin("x_min", 1e4, 1.0), md.Robin("y_max", 1e4, 1.0)],
    [md.Dirichlet("x_min", 1.0), md.Robin("y_min", 1e4, 1.0)],
], ids=["Robin", "both"])  # fmt: skip
def test_boundary_conditions_do_not_hide_the_coefficients_of_small_grids(shape, cell_type, bcs):
    system = problem(shape, bcs_3d=bcs, cell_type=cell_type, k_3d=0.1, sigma_3d=1.0)
    result = learning.solve(system, FastDiagonalisation(), rtol=1e-8)
    assert result.converged
    assert result.iterations <= 40


def test_constants_alone_are_held_by_the_network():
    """Without reaction and Dirichlet sides diffusion is singular, but not its preconditioner."""
    system = problem(sigma_3d=0.0)
    for corrects_coupling in (False, True):
        result = learning.solve(system, FastDiagonalisation(corrects_coupling), rtol=1e-8)
        assert result.converged
        assert result.iterations < 20


def test_a_network_without_dirichlet_values_is_corrected_too():
    """What it exchanges with the tissue is then singular: a constant passes no wall."""
    box = md.create_box(4)
    network = md.create_network(md.random_vascular_graph(6, 0.05, seed=0), 0.2)
    system = md.reduce(
        md.assemble(box, network, md.Coefficients(sigma_3d=0.1), bcs_1d=[md.Neumann("inlets", 1.0)])
    )
    result = learning.solve(system, FastDiagonalisation(corrects_coupling=True))
    assert result.converged
    assert result.iterations < 10


# --- Errors -----------------------------------------------------------------------------------


def test_a_mesh_without_a_grid_is_an_error():
    box = md.create_box(2)
    network = md.create_network(md.random_vascular_graph(4, 0.05, 0), 0.5)
    system = md.reduce(md.assemble(box.mesh, network, md.Coefficients()))
    with pytest.raises(ValueError, match=r"got a system on a mesh without a grid.*RugeStuben"):
        learning.solve(system, FastDiagonalisation())


def test_boxes_of_different_cells_do_not_batch():
    systems = [problem(), problem(cell_type="hexahedron")]
    with pytest.raises(ValueError, match=r"boxes of hexahedron and tetrahedron cells; wanted one"):
        FastDiagonalisation().setup(systems, learning.batch_systems(systems))


def test_boxes_of_different_kinds_do_not_batch():
    systems = [problem(), problem(bcs_3d=[md.Dirichlet("x_min", 0.0)])]
    with pytest.raises(ValueError, match=r"got systems on 2 kinds of box.*Batch each on its own"):
        FastDiagonalisation().setup(systems, learning.batch_systems(systems))

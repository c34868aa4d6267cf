"""Stiffness from cell values equals what DOLFINx assembles; tensors and fields are as promised."""

from dataclasses import replace

import dolfinx
import numpy as np
import pytest

import mixeddim as md
from learning.problems.stiffness import cell_stiffness, diffusion_tensor, smooth_field, stiffness
from learning.systems.stencils import OFFSETS, stencils_of
from mixeddim.tensors import Grid

FULL = np.array([[2.0, 0.3, -0.4], [0.3, 1.0, 0.1], [-0.4, 0.1, 0.5]])
FIBRES = diffusion_tensor(100.0, np.array([0.6, 0.0, 0.8]))
BOXES = [((3, 4, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
         ((4, 3, 5), (-1.0, 0.5, 2.0), (1.0, 0.9, 9.0)),
         ((1, 6, 1), (0.0, 0.0, 0.0), (3.0, 1.0, 0.1))]  # fmt: skip


def assembled(num_cells, lower, upper, k, tensor):
    """Return the grid and DOLFINx's stiffness matrix for k constant in each cell."""
    box = md.create_box(num_cells, lower=lower, upper=upper)
    DG0 = dolfinx.fem.functionspace(box.mesh, ("DG", 0))
    field = dolfinx.fem.Function(DG0)
    cells = (DG0.tabulate_dof_coordinates() - box.lower) / box.cell_size
    field.x.array[:] = k[tuple(np.floor(cells).astype(int).T)]
    middle, length = (np.add(lower, upper) / 2, np.subtract(upper, lower))
    graph = md.random_vascular_graph(2, 0.05, seed=0)
    for _, data in graph.nodes(data=True):
        data["pos"] = tuple(middle + (np.array(data["pos"]) - 0.5) * length * 0.2)
    for _, _, data in graph.edges(data=True):
        data["radius"] = 0.01 * length.min()
    coefficients = md.Coefficients(k_3d=field * dolfinx.fem.Constant(box.mesh, tensor))
    system = md.assemble(box, md.create_network(graph, 1.0), coefficients)
    return system.grid, system.K


@pytest.mark.parametrize("tensor", [np.eye(3), FULL, FIBRES], ids=["isotropic", "full", "fibres"])
@pytest.mark.parametrize(("num_cells", "lower", "upper"), BOXES, ids=str)
def test_the_matrix_is_the_one_that_dolfinx_assembles(num_cells, lower, upper, tensor):
    k = np.exp(4.0 * np.random.default_rng(0).standard_normal(num_cells))
    grid, expected = assembled(num_cells, lower, upper, k, tensor)
    found = stiffness(grid, k, tensor)
    assert abs(found - found.T).max() == 0.0
    assert abs(found - expected).max() <= 1e-13 * abs(expected).max()


def grid_of(shape, cell_size=(1.0, 1.0, 1.0)):
    n = int(np.prod(shape))
    node_of_dof = np.random.default_rng(1).permutation(n)
    return Grid(shape, np.zeros(3), np.array(cell_size), node_of_dof)


def test_constant_isotropic_diffusion_couples_six_neighbours():
    """On cubes: -h k to each, as the finite differences do."""
    grid = grid_of((4, 4, 4), (0.5, 0.5, 0.5))
    [stencil] = stencils_of([stiffness(grid, np.full((3, 3, 3), 3.0), np.eye(3))], [grid]).stencils
    inner = stencil[:, 1:-1, 1:-1, 1:-1]
    for o, offset in enumerate(OFFSETS):
        expected = 9.0 if o == 0 else -1.5 if sum(map(abs, offset)) == 1 else 0.0
        np.testing.assert_allclose(inner[o], expected, rtol=1e-14, atol=0, err_msg=str(offset))


@pytest.mark.parametrize("tensor", [FULL, FIBRES], ids=["full", "fibres"])
def test_energies_of_linear_functions_are_exact(tensor):
    """(k T grad u, grad u) of u = a.x, with k by the cell, is a.T a times the integral of k."""
    grid = grid_of((4, 3, 5), (0.5, 1.0, 2.0))
    k = np.random.default_rng(2).uniform(0.1, 10.0, (3, 2, 4))
    K = stiffness(grid, k, tensor)
    x = np.stack(np.unravel_index(grid.node_of_dof, grid.shape), axis=1) * grid.cell_size
    np.testing.assert_allclose(x.T @ (K @ x), k.sum() * tensor, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(K.sum(axis=1), 0.0, atol=1e-12 * K.max())


def test_a_box_of_hexahedra_is_an_error():
    grid = replace(grid_of((2, 2, 2)), cell_type="hexahedron")
    with pytest.raises(ValueError, match=r"got a box of hexahedron cells; wanted tetrahedra"):
        stiffness(grid, np.ones((1, 1, 1)), np.eye(3))


def test_scaling_a_cell_scales_its_matrix():
    cell_size, factor = np.array([1.0, 0.5, 2.0]), 1e-3
    for matrix in (cell_stiffness(cell_size, FULL), cell_stiffness(cell_size, FIBRES)):
        assert np.linalg.eigvalsh(matrix)[1] > 1e-3 * np.linalg.norm(matrix)  # but for constants
        np.testing.assert_allclose(matrix.sum(axis=1), 0.0, atol=1e-15 * np.abs(matrix).max())
    np.testing.assert_allclose(
        cell_stiffness(factor * cell_size, FULL), factor * cell_stiffness(cell_size, FULL)
    )


@pytest.mark.parametrize("anisotropy", [1.0, 7.0, 1e4])
def test_a_tensor_of_fibres_has_determinant_one_and_the_ratio(anisotropy):
    direction = np.array([2.0, -1.0, 2.0]) / 3.0
    tensor = diffusion_tensor(anisotropy, direction)
    np.testing.assert_array_equal(tensor, tensor.T)
    low, middle, high = np.linalg.eigvalsh(tensor)
    assert low == pytest.approx(middle, rel=1e-9)
    assert high / low == pytest.approx(anisotropy, rel=1e-9)
    assert low * middle * high == pytest.approx(1.0, rel=1e-9)
    np.testing.assert_allclose(tensor @ direction, high * direction, rtol=1e-12)


# --- Fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_cells", [2, 5, 16])
def test_a_field_fills_its_range_exactly(num_cells):
    for seed in range(5):
        field = smooth_field(num_cells, np.random.default_rng(seed))
        assert field.shape == 3 * (num_cells,)
        assert (field.min(), field.max()) == (-0.5, 0.5)


def test_a_single_cell_has_the_middle_of_the_range():
    np.testing.assert_array_equal(smooth_field(1, np.random.default_rng(0)), [[[0.0]]])


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_is_the_same_field_on_every_grid(seed):
    """Cells of 5 a side have their midpoints at every third of those of 15."""
    coarse, fine = (smooth_field(n, np.random.default_rng(seed)) for n in (5, 15))
    common = fine[1::3, 1::3, 1::3]
    assert np.corrcoef(coarse.ravel(), common.ravel())[0, 1] > 1.0 - 1e-12  # up to the range


def test_a_draw_takes_as_many_numbers_on_every_grid():
    """So that what is drawn after it, the direction of fibres, does not depend on the grid."""
    left, right = np.random.default_rng(3), np.random.default_rng(3)
    smooth_field(2, left)
    smooth_field(9, right)
    assert left.random() == right.random()


def test_fields_are_smooth_and_of_every_orientation():
    fields = np.array([smooth_field(16, np.random.default_rng(seed)) for seed in range(40)])
    roughness = [np.mean(np.diff(fields, axis=axis) ** 2) for axis in (1, 2, 3)]
    # White noise has 2; four waves across a side at most 4 pi / 16 a cell, squared.
    assert max(roughness) / fields.var() < (4 * np.pi / 16) ** 2
    assert max(roughness) < 1.5 * min(roughness)
    assert abs(np.corrcoef(fields[0].ravel(), fields[1].ravel())[0, 1]) < 0.9

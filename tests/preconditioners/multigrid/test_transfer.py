"""Coarser grids: which axes are halved, and interpolation, exact on trilinear functions."""

import numpy as np
import pytest

import mixeddim as md
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    coarsened_by_four,
    coupling_along_axes,
    interpolation,
)


def grid_of(shape):
    n = int(np.prod(shape))
    return md.Grid(shape, np.zeros(3), np.ones(3), np.arange(n))


@pytest.mark.parametrize(("coarsen", "num_cells", "strengths", "coarse"), [
    (coarsened, (20, 20, 20), [[1, 1, 1]], (10, 10, 10)),
    (coarsened, (5, 5, 5), [[2, 2, 2]], (3, 3, 3)),
    (coarsened, (1, 2, 3), [[1, 1, 1]], (1, 1, 2)),
    (coarsened, (1, 1, 4), [[9, 9, 1]], (1, 1, 2)),
    (coarsened, (8, 8, 8), [[1, 1, 0.1]], (4, 4, 8)),
    (coarsened, (8, 8, 8), [[1, 1, 0.1], [0.1, 1, 1]], (8, 4, 8)),
    (coarsened, (8, 8, 8), [[1, 0.1, 0.1], [0.1, 0.1, 1]], (4, 4, 4)),
    (coarsened, (8, 8, 8), [[1, 0.2, 0.1], [0.1, 0.2, 1]], (8, 4, 8)),
    (coarsened, (4, 4, 4), [[0, 0, 0]], (2, 2, 2)),
    (coarsened_by_four, (40, 40, 40), [[1, 1, 1]], (10, 10, 10)),
    (coarsened_by_four, (41, 30, 30), [[1, 0.6, 0.3]], (11, 8, 15)),
    (coarsened_by_four, (40, 40, 40), [[1, 0.01, 0.01]], (10, 40, 40)),
    (coarsened_by_four, (40, 40, 40), [[0, 0, 0]], (10, 10, 10)),
    (coarsened_by_four, (20, 20, 20), [[1, 1, 1]], (10, 10, 10)),
], ids=lambda value: getattr(value, "__name__", str(value)))  # fmt: skip
def test_axes_of_strong_coupling_lose_nodes(coarsen, num_cells, strengths, coarse):
    """Every second one, or on large grids three of four."""
    axes = axes_of(grid_of(tuple(n + 1 for n in num_cells)))
    fewer = coarsen(axes, np.array(strengths, dtype=float))
    assert tuple(len(x) - 1 for x in fewer) == coarse
    for x, n in zip(fewer, num_cells, strict=True):
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
def test_coupling_along_axes_is_diffusion_over_squared_cell_size(
    reduced, num_cells, upper, k_3d, expected
):
    system = reduced(num_cells, k_3d=k_3d, upper=upper)
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

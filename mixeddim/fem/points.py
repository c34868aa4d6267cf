"""Basis and gradients of a P1 space at quadrature points, as sparse matrices.

With E the basis, D its gradients, and w the quadrature weights, the matrices of a side become
products that keep each cell's coefficient apart:

    M(sigma) = E' diag(w sigma) E      K(k) = D' diag(w k) D      f = E' (w f)

Needs no DOLFINx beyond the space that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

if TYPE_CHECKING:
    import mixeddim._fenics  # noqa: F401

    import dolfinx

__all__ = ["AtPoints", "basis_at_points", "gradients_at_points"]


@dataclass(frozen=True, eq=False)
class AtPoints:
    """A linear map from dofs to values at quadrature points.

    Attributes:
        matrix: The map, shape (num_values, num_dofs).
        weights: Quadrature weight of each value, in units of length or volume, shape (num_values,).
        cells: Cell of each, shape (num_values,).
    """

    matrix: sparse.csr_array
    weights: NDArray[np.float64]
    cells: NDArray[np.int64]


def basis_at_points(V: dolfinx.fem.FunctionSpace) -> AtPoints:
    """Return the values of a P1 space at points that integrate products of two of its functions."""
    points, weights = _rule(V, 2)
    basis = _tabulate(V, points)[0]
    _, scale = _gradients(V, points)
    shape = scale.shape + basis.shape[-1:]
    values = np.broadcast_to(basis, shape)[:, :, None]
    return _at_points(V, values, scale * weights)


def gradients_at_points(V: dolfinx.fem.FunctionSpace) -> AtPoints:
    """Return the gradients of a P1 space, three values per point, for products of two of them.

    On a network they are the gradients along it, as vectors in space.
    """
    points, weights = _rule(V, 2 if V.mesh.geometry.dofmaps[0].shape[1] == 8 else 1)
    gradients, scale = _gradients(V, points)
    return _at_points(V, gradients, scale * weights)


def _at_points(
    V: dolfinx.fem.FunctionSpace, values: NDArray[np.float64], weights: NDArray[np.float64]
) -> AtPoints:
    """Return the map with values (cells, points, components, dofs of a cell)."""
    num_cells, num_points, num_components, num_local = values.shape
    per_cell = num_points * num_components
    columns = np.repeat(V.dofmap.list[:num_cells], per_cell, axis=0)
    num_rows = num_cells * per_cell
    rows = np.arange(0, num_rows * num_local + 1, num_local)
    matrix = sparse.csr_array(
        (values.ravel(), columns.ravel(), rows),
        shape=(num_rows, V.dofmap.index_map.size_local),
    )
    matrix.sort_indices()
    return AtPoints(
        matrix,
        np.repeat(weights.ravel(), num_components),
        np.repeat(np.arange(num_cells), per_cell),
    )


def _gradients(
    V: dolfinx.fem.FunctionSpace, points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gradients (cells, points, 3, dofs of a cell) and volumes (cells, points) per unit."""
    reference = _tabulate(V, points)[1:]  # (tdim, points, dofs)
    num_cells = V.mesh.topology.index_map(V.mesh.topology.dim).size_local
    corners = V.mesh.geometry.x[V.mesh.geometry.dofmaps[0][:num_cells]]
    jacobian = np.einsum("cai,tqa->cqit", corners, reference)
    metric = jacobian.mT @ jacobian
    gradients = jacobian @ np.linalg.solve(metric, reference.transpose(1, 0, 2)[None])
    return gradients, np.sqrt(np.linalg.det(metric))


def _tabulate(V: dolfinx.fem.FunctionSpace, points: NDArray[np.float64]) -> NDArray[np.float64]:
    table: NDArray[np.float64] = V.element.basix_element.tabulate(1, points)[..., 0]
    return table


_A: Final = (5.0 - np.sqrt(5.0)) / 20.0  # Keast 1986: four points, exact for degree 2
_TETRAHEDRON: Final = np.full((4, 3), _A)
_TETRAHEDRON[1:] += np.eye(3) * (1.0 - 4.0 * _A)


def _rule(
    V: dolfinx.fem.FunctionSpace, degree: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points and weights on the reference cell, exact for a degree of 1 or 2 per variable.

    Gauss on intervals and hexahedra; on tetrahedra the midpoint or four points.
    """
    dim, num_corners = V.mesh.topology.dim, V.mesh.geometry.dofmaps[0].shape[1]
    if num_corners == 4:
        points = np.full((1, 3), 0.25) if degree == 1 else _TETRAHEDRON
        return points, np.full(len(points), 1.0 / (6.0 * len(points)))
    nodes, weights = np.polynomial.legendre.leggauss(degree)
    axes = np.meshgrid(*[(1.0 + nodes) / 2.0] * dim, indexing="ij")
    products = np.prod(np.meshgrid(*[weights / 2.0] * dim, indexing="ij"), axis=0)
    return np.stack([x.ravel() for x in axes], axis=1), products.ravel()

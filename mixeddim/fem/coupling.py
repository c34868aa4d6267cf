"""Exchange over the vessel wall: means, basis, weights and conductance along the network."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from dataclasses import dataclass, replace

import basix
import dolfinx
import numpy as np
import ufl
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.fem.averaging import AveragingOperator, OutsidePolicy, average
from mixeddim.fem.forms import Coefficients, as_ufl
from mixeddim.fem.meshes import Network, StructuredBox

__all__ = ["Coupling", "at_points", "couple"]


@dataclass(frozen=True, eq=False)
class Coupling:
    """Exchange over the vessel wall at quadrature points of the network, before elimination.

    Attributes:
        Pi: Means of the tissue basis over the wall, shape (num_points, num_dofs_3d); on several
            processes a `FromTissue`. All that follows is whole on each.
        N: Values of the network basis, shape (num_points, num_dofs_1d).
        weights: Quadrature weights, in units of length, shape (num_points,).
        beta: Wall conductance per unit length, 1 / (1 / (2 pi outer_radius kappa) + K), times the
            share of the wall that exchanges, shape (num_points,).
        points: Coordinates of the quadrature points, shape (num_points, 3).
        cells: Cell of the network mesh of each point, shape (num_points,).
        num_leaving: Number of quadrature points whose stencil leaves the tissue.
        kept: Which of all quadrature points these are, shape (num_all_points,).
        share: Share of the wall that exchanges: below 1 where a circle is clipped,
            shape (num_points,).
        partition: s, the ratio of tissue to network at equilibrium.
        drag: Fluid per length that carries u from the network (positive), or u / s from the tissue
            (negative), through the wall, shape (num_points,); None where none does.
    """

    Pi: sparse.csr_array
    N: sparse.csr_array
    weights: NDArray[np.float64]
    beta: NDArray[np.float64]
    points: NDArray[np.float64]
    cells: NDArray[np.int32]
    num_leaving: int
    kept: NDArray[np.bool_]
    share: NDArray[np.float64]
    partition: float
    drag: NDArray[np.float64] | None = None

    @property
    def conductances(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What multiplies T u_3d / s, and what multiplies u_1d, in the flux."""
        if self.drag is None:
            return self.beta, self.beta
        return self.beta + np.maximum(-self.drag, 0.0), self.beta + np.maximum(self.drag, 0.0)

    def with_coefficients(self, network: Network, coefficients: Coefficients) -> Coupling:
        """Return the same exchange with other coefficients.

        Args:
            network: The network.
            coefficients: Those of the wall are taken.

        Raises:
            ValueError: If permeability or resistance is negative somewhere.
        """
        beta = _conductance(network, coefficients)[self.kept] * self.share
        return replace(self, beta=beta, partition=coefficients.partition)

    def flux(self, u_3d: NDArray[np.float64], u_1d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the flux from the network into the tissue per length.

        That is beta (u_1d - T u_3d / s) and what fluid drags through the wall.

        Args:
            u_3d: Tissue dofs.
            u_1d: Network dofs.

        Returns:
            Shape (num_points,).
        """
        inside, outside = self.N @ u_1d, self.Pi @ u_3d / self.partition
        flux: NDArray[np.float64] = self.beta * (inside - outside)
        if self.drag is not None:
            flux += np.maximum(self.drag, 0.0) * inside + np.minimum(self.drag, 0.0) * outside
        return flux


def couple(
    tissue: StructuredBox | dolfinx.mesh.Mesh,
    V_3d: dolfinx.fem.FunctionSpace,
    network: Network,
    coefficients: Coefficients,
    operator: AveragingOperator | None,
    outside: OutsidePolicy,
) -> Coupling:
    """Evaluate means, basis, weights and conductance at the quadrature points of the network.

    Args:
        tissue: Structured box of either cell type, or any mesh of straight-edged tetrahedra.
        V_3d: P1 space on it.
        network: The network.
        coefficients: Those of the wall are taken.
        operator: The average of the tissue; by default the mean over the circle.
        outside: What to do where a circle leaves the tissue (see `mixeddim.fem.averaging.average`).

    Raises:
        ValueError: If permeability or resistance is negative somewhere, or circles leave under
            "raise".
    """
    mesh, V_1d = network.mesh, network.P1
    reference_points, reference_weights = _quadrature()
    num_cells = mesh.topology.index_map(1).size_local
    cells = np.repeat(np.arange(num_cells, dtype=np.int32), len(reference_weights))

    ends = mesh.geometry.x[mesh.geometry.dofmaps[0][:num_cells]]
    along = ends[:, 1] - ends[:, 0]
    length = np.linalg.norm(along, axis=1)
    points = (ends[:, None, 0] + reference_points[None] * along[:, None]).reshape(-1, 3)
    tangents = (along / length[:, None])[cells]
    weights = np.outer(length, reference_weights).ravel()

    beta = _conductance(network, coefficients)
    basis = V_1d.element.basix_element.tabulate(0, reference_points)[0, :, :, 0]
    columns = V_1d.dofmap.list[cells]
    rows = np.repeat(np.arange(len(cells), dtype=np.int32), columns.shape[1])
    N = sparse.coo_array(
        (np.tile(basis, (num_cells, 1)).ravel(), (rows, columns.ravel())),
        shape=(len(cells), V_1d.dofmap.index_map.size_local),
    ).tocsr()

    radii = network.outer_radius.x.array[network.outer_radius.function_space.dofmap.list[cells, 0]]
    averaging = average(tissue, V_3d, points, tangents, radii, operator, outside)
    kept = averaging.kept
    return Coupling(
        averaging.Pi,
        N[kept],
        weights[kept],
        beta[kept] * averaging.share,
        points[kept],
        cells[kept],
        averaging.num_leaving,
        kept,
        averaging.share,
        coefficients.partition,
    )


def at_points(network: Network, expression: ufl.core.expr.Expr) -> NDArray[np.float64]:
    """Return an expression on the network at all quadrature points, shape (num_all_points,)."""
    mesh, (reference_points, _) = network.mesh, _quadrature()
    cells = np.arange(mesh.topology.index_map(1).size_local, dtype=np.int32)
    evaluate = dolfinx.fem.Expression(expression, reference_points).eval
    values: NDArray[np.float64] = evaluate(mesh, cells)
    return values.ravel()


def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return reference points and weights on a cell of the network.

    Two Gauss points per cell integrate N' B N exactly where B is constant on the cell.
    """
    points, weights = basix.make_quadrature(basix.CellType.interval, 3)
    return points, weights


def _conductance(network: Network, coefficients: Coefficients) -> NDArray[np.float64]:
    """Return beta at all quadrature points of the network."""
    mesh = network.mesh
    kappa = as_ufl(coefficients.permeability, mesh, "permeability")
    beta = at_points(network, 2 * ufl.pi * network.outer_radius * kappa)
    if not np.all((beta >= 0) & np.isfinite(beta)):
        raise ValueError(
            f"got a permeability from {beta.min():.3g} to {beta.max():.3g} / (2 pi outer_radius); "
            "wanted finite, non-negative values on the whole network."
        )
    K = at_points(network, as_ufl(coefficients.series_resistance, mesh, "series_resistance"))
    if not np.all((K >= 0) & np.isfinite(K)):
        raise ValueError(
            f"got a series_resistance from {K.min():.3g} to {K.max():.3g}; wanted finite, "
            "non-negative values on the whole network."
        )
    return beta / (1.0 + K * beta)

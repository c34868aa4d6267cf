"""Assemble the coupled problem: the parts, the Dirichlet elimination, and the four blocks.

With K, M and K_1d from the weak forms, Pi the averaging matrix at quadrature points of the
network, N its own basis there, W the quadrature weights and B the wall conductances:

    A_33 = K + M + Pi' W B Pi      A_31 = -Pi' W B N
    A_13 = A_31'                   A_11 = K_1d + N' W B N
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import basix
import dolfinx
import numpy as np
import ufl
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.averaging import AveragingOperator, OutsidePolicy, average
from mixeddim.boundary import (
    BoundaryCondition,
    Dirichlet,
    Neumann,
    Robin,
    find_facets,
    find_vertices,
)
from mixeddim.forms import Coefficient, Coefficients, as_ufl, diffusion, reaction, source
from mixeddim.grid import Grid
from mixeddim.meshes import Network, StructuredBox

__all__ = ["CoupledSystem", "Coupling", "Side", "assemble"]


@dataclass(frozen=True, eq=False)
class Side:
    """One side of the problem before Dirichlet elimination and without the coupling.

    Attributes:
        V: P1 space.
        K: Stiffness matrix.
        M: Reaction matrix.
        R: Robin matrix.
        f: Load of the sources, shape (num_dofs,).
        h: Load of the Neumann and Robin data, shape (num_dofs,).
        dirichlet_dofs: Dofs with a given value, sorted.
        dirichlet_values: Their values.
    """

    V: dolfinx.fem.FunctionSpace
    K: sparse.csr_array
    M: sparse.csr_array
    R: sparse.csr_array
    f: NDArray[np.float64]
    h: NDArray[np.float64]
    dirichlet_dofs: NDArray[np.int32]
    dirichlet_values: NDArray[np.float64]

    @property
    def is_free(self) -> NDArray[np.bool_]:
        """Which dofs are unknowns, shape (num_dofs,)."""
        free = np.ones(len(self.f), dtype=bool)
        free[self.dirichlet_dofs] = False
        return free

    def residual(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A u - b of this side alone, before Dirichlet elimination."""
        return self.K @ u + self.M @ u + self.R @ u - self.f - self.h

    @property
    def dirichlet_diagonal(self) -> float:
        """What the diagonal of an eliminated dof is set to: the mean diagonal entry of K."""
        return float(self.K.diagonal().mean())

    @property
    def given_values(self) -> NDArray[np.float64]:
        """The Dirichlet values at their dofs and zero elsewhere, shape (num_dofs,)."""
        values = np.zeros(len(self.f))
        values[self.dirichlet_dofs] = self.dirichlet_values
        return values


@dataclass(frozen=True, eq=False)
class Coupling:
    """Exchange over the vessel wall at quadrature points of the network, before elimination.

    Attributes:
        Pi: Means of the tissue basis over the wall, shape (num_points, num_dofs_3d).
        N: Values of the network basis, shape (num_points, num_dofs_1d).
        weights: Quadrature weights, in units of length, shape (num_points,).
        beta: Wall conductance per unit length, 2 pi radius kappa, shape (num_points,).
        points: Coordinates of the quadrature points, shape (num_points, 3).
        cells: Cell of the network mesh that each lies in, shape (num_points,).
        num_leaving: Number of quadrature points whose mean reached outside the tissue.
    """

    Pi: sparse.csr_array
    N: sparse.csr_array
    weights: NDArray[np.float64]
    beta: NDArray[np.float64]
    points: NDArray[np.float64]
    cells: NDArray[np.int32]
    num_leaving: int

    def flux(self, u_3d: NDArray[np.float64], u_1d: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the flux from the network into the tissue per unit length, beta (u_1d - T u_3d).

        Args:
            u_3d: Tissue dofs.
            u_1d: Network dofs.

        Returns:
            Shape (num_points,).
        """
        return self.beta * (self.N @ u_1d - self.Pi @ u_3d)


@dataclass(frozen=True, eq=False)
class CoupledSystem:
    """The discrete coupled problem, its parts kept apart.

    The matrices named as in the module's formula have the Dirichlet dofs eliminated
    symmetrically: their rows and columns are zero but for the mean diagonal entry of K, so that
    these equations weigh as much as the others in a norm, and the right-hand sides carry their
    values. `side_3d`, `side_1d` and `coupling` hold the same parts before elimination.

    Attributes:
        tissue: Structured box or mesh of the tissue.
        network: Network with its mesh.
        side_3d: Tissue without coupling, before elimination.
        side_1d: Network without coupling, before elimination.
        coupling: Wall exchange, before elimination.
    """

    tissue: StructuredBox | dolfinx.mesh.Mesh
    network: Network
    side_3d: Side
    side_1d: Side
    coupling: Coupling

    @cached_property
    def grid(self) -> Grid | None:
        """Nodes of the structured box in grid order, or None on any other mesh."""
        if isinstance(self.tissue, StructuredBox):
            return self.tissue.grid(self.side_3d.V)
        return None

    @cached_property
    def K(self) -> sparse.csr_array:
        """Stiffness (and Robin) matrix of the tissue."""
        side = self.side_3d
        return _eliminate(side.K + side.R, side.is_free, side.dirichlet_diagonal)

    @cached_property
    def M(self) -> sparse.csr_array:
        """Reaction matrix of the tissue."""
        return _eliminate(self.side_3d.M, self.side_3d.is_free, diagonal=0.0)

    @cached_property
    def K_1d(self) -> sparse.csr_array:
        """Stiffness (and Robin) matrix of the network."""
        side = self.side_1d
        return _eliminate(side.K + side.R, side.is_free, side.dirichlet_diagonal)

    @cached_property
    def Pi(self) -> sparse.csr_array:
        """Averaging matrix, with the columns of Dirichlet dofs zero."""
        return _drop_columns(self.coupling.Pi, self.side_3d.is_free)

    @cached_property
    def N(self) -> sparse.csr_array:
        """Network basis at the quadrature points, with the columns of Dirichlet dofs zero."""
        return _drop_columns(self.coupling.N, self.side_1d.is_free)

    @property
    def W(self) -> sparse.dia_array:
        """Diagonal of quadrature weights."""
        return sparse.diags_array(self.coupling.weights)

    @property
    def B(self) -> sparse.dia_array:
        """Diagonal of wall conductances."""
        return sparse.diags_array(self.coupling.beta)

    @cached_property
    def A_33(self) -> sparse.csr_array:
        """Tissue block."""
        return (self.K + self.M + self.Pi.T @ self.W @ self.B @ self.Pi).tocsr()

    @cached_property
    def A_31(self) -> sparse.csr_array:
        """Coupling block, tissue rows and network columns."""
        return -(self.Pi.T @ self.W @ self.B @ self.N).tocsr()

    @property
    def A_13(self) -> sparse.csr_array:
        """Coupling block, network rows and tissue columns."""
        return self.A_31.T.tocsr()

    @cached_property
    def A_11(self) -> sparse.csr_array:
        """Network block."""
        return (self.K_1d + self.N.T @ self.W @ self.B @ self.N).tocsr()

    @property
    def b_3(self) -> NDArray[np.float64]:
        """Right-hand side of the tissue, shape (num_dofs_3d,)."""
        return self._right_hand_sides[0]

    @property
    def b_1(self) -> NDArray[np.float64]:
        """Right-hand side of the network, shape (num_dofs_1d,)."""
        return self._right_hand_sides[1]

    @cached_property
    def _right_hand_sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Loads less what the Dirichlet values contribute, and those values at their dofs."""
        given_3d, given_1d = self.side_3d.given_values, self.side_1d.given_values
        residual_3d, residual_1d = self.unconstrained_residual(given_3d, given_1d)
        given_3d *= self.side_3d.dirichlet_diagonal
        given_1d *= self.side_1d.dirichlet_diagonal
        b_3 = np.where(self.side_3d.is_free, -residual_3d, given_3d)
        b_1 = np.where(self.side_1d.is_free, -residual_1d, given_1d)
        return b_3, b_1

    def unconstrained_residual(
        self, u_3d: NDArray[np.float64], u_1d: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return A u - b of both sides before Dirichlet elimination.

        At a Dirichlet dof of a solution this is the flow that its condition lets in.

        Args:
            u_3d: Tissue dofs.
            u_1d: Network dofs.
        """
        exchange = self.coupling.weights * self.coupling.flux(u_3d, u_1d)
        residual_3d = self.side_3d.residual(u_3d) - self.coupling.Pi.T @ exchange
        residual_1d = self.side_1d.residual(u_1d) + self.coupling.N.T @ exchange
        return residual_3d, residual_1d


def assemble(
    tissue: StructuredBox | dolfinx.mesh.Mesh,
    network: Network,
    coefficients: Coefficients,
    *,
    bcs_3d: Sequence[BoundaryCondition] = (),
    bcs_1d: Sequence[BoundaryCondition] = (Dirichlet("inlets", 1.0),),
    averaging: AveragingOperator | None = None,
    outside: OutsidePolicy = "raise",
) -> CoupledSystem:
    """Assemble the coupled 3D-1D problem with P1 elements on both meshes.

    Args:
        tissue: Structured box, or any mesh of straight-edged tetrahedra.
        network: The network in it.
        coefficients: Material data and sources.
        bcs_3d: Conditions on the boundary of the tissue; no flux where there is none.
        bcs_1d: Conditions on the network, by default u_1d = 1 at the inlets; no flux at the
            other ends.
        averaging: How the tissue is averaged around the network, for trial and test function
            alike; the mean over the circle by default.
        outside: What to do where a circle leaves the tissue (see `mixeddim.averaging.average`).

    Raises:
        ValueError: If circles leave the tissue under "raise", or a condition or coefficient does
            not fit its side.
        NotImplementedError: If the meshes are distributed over several processes.
    """
    mesh = tissue.mesh if isinstance(tissue, StructuredBox) else tissue
    for name, comm in (("tissue", mesh.comm), ("network", network.mesh.comm)):
        if comm.size > 1:
            raise NotImplementedError(
                f"got a {name} mesh on {comm.size} processes; assembly is serial for now. "
                "Create both meshes with comm=MPI.COMM_SELF."
            )
    V_3d = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    side_3d = _assemble_side(
        V_3d, coefficients.k_3d, coefficients.sigma_3d, coefficients.f_3d, "3d", ((), (3, 3))
    )
    side_1d = _assemble_side(network.P1, coefficients.k_1d, None, coefficients.f_1d, "1d", ((),))
    return CoupledSystem(
        tissue,
        network,
        _apply_conditions(side_3d, bcs_3d, tissue),
        _apply_conditions(side_1d, bcs_1d, network),
        _couple(tissue, V_3d, network, coefficients.permeability, averaging, outside),
    )


def _assemble_side(
    V: dolfinx.fem.FunctionSpace,
    k: Coefficient,
    sigma: Coefficient | None,
    f: Coefficient,
    suffix: str,
    k_shapes: tuple[tuple[int, ...], ...],
) -> Side:
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    K = _matrix(diffusion(u, v, as_ufl(k, V.mesh, f"k_{suffix}", k_shapes)))
    nothing = sparse.csr_array(K.shape)
    M = nothing
    if sigma is not None:
        M = _matrix(reaction(u, v, as_ufl(sigma, V.mesh, f"sigma_{suffix}")))
    load = _vector(source(v, as_ufl(f, V.mesh, f"f_{suffix}")))
    no_dofs, no_values = np.empty(0, dtype=np.int32), np.empty(0)
    return Side(V, K, M, nothing, load, np.zeros_like(load), no_dofs, no_values)


def _apply_conditions(side: Side, conditions: Sequence[BoundaryCondition], domain: Any) -> Side:
    """Add Robin matrices and boundary loads to a side, and collect its Dirichlet values."""
    V, is_network = side.V, isinstance(domain, Network)
    V.mesh.topology.create_connectivity(V.mesh.topology.dim - 1, V.mesh.topology.dim)
    R, h = side.R, side.h
    values = np.full(len(h), np.nan)
    for condition in conditions:
        if is_network:
            entities = find_vertices(domain, condition.on)
        else:
            entities = find_facets(domain, condition.on)
        dofs = dolfinx.fem.locate_dofs_topological(V, V.mesh.topology.dim - 1, entities)
        match condition:
            case Dirichlet(value=value):
                values[dofs] = _interpolate(value, V, "Dirichlet value")[dofs]
            case Neumann(flux=flux) if is_network:
                h = h + _at(dofs, _interpolate(flux, V, "Neumann flux"))
            case Neumann(flux=flux):
                ds, v = _boundary_measure(V.mesh, entities), ufl.TestFunction(V)
                h = h + _vector(source(v, as_ufl(flux, V.mesh, "Neumann flux"), ds))
            case Robin(coefficient=coefficient, value=value) if is_network:
                at_dofs = _at(dofs, _interpolate(coefficient, V, "Robin coefficient"))
                R = R + sparse.diags_array(at_dofs)
                h = h + at_dofs * _interpolate(value, V, "Robin value")
            case Robin(coefficient=coefficient, value=value):
                ds = _boundary_measure(V.mesh, entities)
                u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
                alpha = as_ufl(coefficient, V.mesh, "Robin coefficient")
                R = R + _matrix(reaction(u, v, alpha, ds))
                h = h + _vector(source(v, alpha * as_ufl(value, V.mesh, "Robin value"), ds))
            case _:
                raise TypeError(
                    f"got a boundary condition {condition!r}; wanted Dirichlet, Neumann or Robin."
                )
    dofs = np.flatnonzero(~np.isnan(values)).astype(np.int32)
    return replace(side, R=R.tocsr(), h=h, dirichlet_dofs=dofs, dirichlet_values=values[dofs])


def _couple(
    tissue: StructuredBox | dolfinx.mesh.Mesh,
    V_3d: dolfinx.fem.FunctionSpace,
    network: Network,
    permeability: Coefficient,
    operator: AveragingOperator | None,
    outside: OutsidePolicy,
) -> Coupling:
    """Evaluate means, basis, weights and conductance at the quadrature points of the network."""
    mesh, V_1d = network.mesh, network.P1
    # Two Gauss points a cell integrate N' B N exactly where B is constant on the cell.
    reference_points, reference_weights = basix.make_quadrature(basix.CellType.interval, 3)
    num_cells = mesh.topology.index_map(1).size_local
    cells = np.repeat(np.arange(num_cells, dtype=np.int32), len(reference_weights))

    ends = mesh.geometry.x[mesh.geometry.dofmaps[0][:num_cells]]
    along = ends[:, 1] - ends[:, 0]
    length = np.linalg.norm(along, axis=1)
    points = (ends[:, None, 0] + reference_points[None] * along[:, None]).reshape(-1, 3)
    tangents = (along / length[:, None])[cells]
    weights = np.outer(length, reference_weights).ravel()

    kappa = as_ufl(permeability, mesh, "permeability")
    conductance = dolfinx.fem.Expression(2 * ufl.pi * network.radius * kappa, reference_points)
    beta = conductance.eval(mesh, np.arange(num_cells, dtype=np.int32)).ravel()
    if not np.all(beta >= 0):
        raise ValueError(
            f"got a permeability as low as {np.nanmin(beta):.3g} / (2 pi radius); wanted finite, "
            "non-negative values on the whole network."
        )
    basis = V_1d.element.basix_element.tabulate(0, reference_points)[0, :, :, 0]
    columns = V_1d.dofmap.list[cells]
    rows = np.repeat(np.arange(len(cells)), columns.shape[1])
    N = sparse.coo_array(
        (np.tile(basis, (num_cells, 1)).ravel(), (rows, columns.ravel())),
        shape=(len(cells), V_1d.dofmap.index_map.size_local),
    ).tocsr()

    radii = network.radius.x.array[network.radius.function_space.dofmap.list[cells, 0]]
    averaging = average(tissue, V_3d, points, tangents, radii, operator, outside)
    kept = averaging.kept
    return Coupling(
        averaging.Pi,
        N[kept],
        weights[kept],
        beta[kept],
        points[kept],
        cells[kept],
        averaging.num_leaving,
    )


def _matrix(form: ufl.Form) -> sparse.csr_array:
    return sparse.csr_array(dolfinx.fem.assemble_matrix(dolfinx.fem.form(form)).to_scipy())


def _vector(form: ufl.Form) -> NDArray[np.float64]:
    return dolfinx.fem.assemble_vector(dolfinx.fem.form(form)).array.copy()


def _boundary_measure(mesh: dolfinx.mesh.Mesh, facets: NDArray[np.int32]) -> ufl.Measure:
    tags = dolfinx.mesh.meshtags(mesh, mesh.topology.dim - 1, facets, 1)
    return ufl.Measure("ds", domain=mesh, subdomain_data=tags, subdomain_id=1)


def _interpolate(
    value: Coefficient, V: dolfinx.fem.FunctionSpace, name: str
) -> NDArray[np.float64]:
    """Return the dof values of a coefficient in a space."""
    field = dolfinx.fem.Function(V)
    expression = as_ufl(value, V.mesh, name)
    field.interpolate(dolfinx.fem.Expression(expression, V.element.interpolation_points))
    return field.x.array


def _at(dofs: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep the values at some dofs and set the others to zero."""
    kept = np.zeros_like(values)
    kept[dofs] = values[dofs]
    return kept


def _eliminate(
    A: sparse.csr_array, is_free: NDArray[np.bool_], diagonal: float
) -> sparse.csr_array:
    """Zero the rows and columns of the dofs that are not free, and set their diagonal."""
    if is_free.all():
        return A.tocsr()
    free = sparse.diags_array(is_free.astype(float))
    return (free @ A @ free + sparse.diags_array(np.where(is_free, 0.0, diagonal))).tocsr()


def _drop_columns(A: sparse.csr_array, is_free: NDArray[np.bool_]) -> sparse.csr_array:
    if is_free.all():
        return A
    return (A @ sparse.diags_array(is_free.astype(float))).tocsr()

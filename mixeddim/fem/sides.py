"""Each side on its own: matrices and loads of the tissue or the network, and its conditions.

On several processes the tissue's matrices are those of `distributed`, and of its dofs each process
has those that it owns. The network's mesh lies whole on each process, and so does its side.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import dolfinx
import numpy as np
import ufl
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.algebra.distributed import zeros_like
from mixeddim.fem.boundary import (
    BoundaryCondition,
    Dirichlet,
    Neumann,
    Place,
    Robin,
    find_facets,
    find_vertices,
)
from mixeddim.fem.forms import Coefficients, as_ufl, diffusion, reaction, source
from mixeddim.fem.matrices import assemble_matrices, assemble_vector
from mixeddim.fem.meshes import Network, StructuredBox
from mixeddim.processes import Processes

__all__ = [
    "Side",
    "assemble_network",
    "assemble_tissue",
    "drop_columns",
    "eliminate",
    "interpolate",
    "reassemble",
]


@dataclass(frozen=True, eq=False)
class Side:
    """One side of the problem before Dirichlet elimination and without the coupling.

    The dofs are those that this process owns: on one process, and of the network, all.

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
    def processes(self) -> Processes:
        """The processes over which the dofs are distributed."""
        return Processes.of(self.V.mesh)

    def function(self, dofs: NDArray[np.float64], name: str) -> dolfinx.fem.Function:
        """Return the function with these dofs, shape (num_dofs,)."""
        field = dolfinx.fem.Function(self.V, name=name)
        field.x.array[: len(dofs)] = dofs
        field.x.scatter_forward()
        return field

    @property
    def is_free(self) -> NDArray[np.bool_]:
        """Which dofs are unknowns, shape (num_dofs,)."""
        free = np.ones(len(self.f), dtype=bool)
        free[self.dirichlet_dofs] = False
        return free

    def residual(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A u - b of this side alone, before Dirichlet elimination."""
        load = self.f + self.h
        if not self.processes.any(u.any()):  # as where nothing is given
            return -load
        return self.K @ u + self.M @ u + self.R @ u - load

    @property
    def dirichlet_diagonal(self) -> float:
        """The diagonal entry of eliminated dofs: the mean diagonal entry of K."""
        diagonal, processes = self.K.diagonal(), self.processes
        if processes.size == 1:
            return float(diagonal.mean())
        return processes.sum(diagonal.sum()) / processes.sum(len(diagonal))

    @property
    def given_values(self) -> NDArray[np.float64]:
        """The Dirichlet values at their dofs and zero elsewhere, shape (num_dofs,)."""
        values = np.zeros(len(self.f))
        values[self.dirichlet_dofs] = self.dirichlet_values
        return values


def assemble_tissue(
    tissue: StructuredBox | dolfinx.mesh.Mesh,
    coefficients: Coefficients,
    conditions: Sequence[BoundaryCondition],
) -> Side:
    """Assemble the tissue with P1 elements and the conditions on its faces."""
    if isinstance(tissue, StructuredBox):
        V = tissue.P1
    else:
        V = dolfinx.fem.functionspace(tissue, ("Lagrange", 1))
    return _apply_conditions(
        V,
        **_tissue_parts(V, coefficients, ("k_3d", "sigma_3d", "f_3d")),
        conditions=conditions,
        find=lambda on: find_facets(tissue, on),
        boundary_matrix=_face_matrix,
        boundary_load=_face_load,
    )


def assemble_network(
    network: Network, coefficients: Coefficients, conditions: Sequence[BoundaryCondition]
) -> Side:
    """Assemble the network with P1 elements and the conditions at its nodes."""
    V = network.P1
    parts = _network_parts(V, coefficients, ("k_1d", "f_1d"))
    return _apply_conditions(
        V,
        **parts,
        M=sparse.csr_array(parts["K"].shape),
        conditions=conditions,
        find=lambda on: find_vertices(network, on),
        boundary_matrix=_node_matrix,
        boundary_load=_node_load,
    )


def reassemble(side: Side, coefficients: Coefficients, changed: Collection[str]) -> Side:
    """Return a side with other coefficients; its conditions and all other parts are shared.

    Args:
        side: Of the tissue or the network.
        coefficients: All of them.
        changed: Names of those that changed, on either side.
    """
    parts_of = _tissue_parts if side.V.mesh.topology.dim == 3 else _network_parts
    parts = parts_of(side.V, coefficients, changed)
    if not parts:
        return side
    _check_finite(side.V.mesh, {_PARTS[name]: part for name, part in parts.items()})
    return replace(side, **parts)


def eliminate(A: sparse.csr_array, side: Side, diagonal: float | None = None) -> sparse.csr_array:
    """Zero rows and columns of dofs that are not free; set their diagonal, else the side's own."""
    is_free = side.is_free
    if side.processes.all(is_free.all()):
        return A.tocsr()
    if diagonal is None:
        diagonal = side.dirichlet_diagonal
    free = sparse.diags_array(is_free.astype(float))
    return (free @ A @ free + sparse.diags_array(np.where(is_free, 0.0, diagonal))).tocsr()


def drop_columns(A: sparse.csr_array, is_free: NDArray[np.bool_]) -> sparse.csr_array:
    """Return a matrix with the columns of dofs that are not free zero."""
    if is_free.all():
        return A
    return (A @ sparse.diags_array(is_free.astype(float))).tocsr()


def _tissue_parts(
    V: dolfinx.fem.FunctionSpace, coefficients: Coefficients, names: Collection[str]
) -> dict[str, Any]:
    """Return the parts K, M and f of the tissue that named coefficients make."""
    mesh, u, v = V.mesh, ufl.TrialFunction(V), ufl.TestFunction(V)
    forms = {}
    if "k_3d" in names:
        k_3d = as_ufl(coefficients.k_3d, mesh, "k_3d", shapes=((), (3, 3)))
        forms["K"] = diffusion(u, v, k_3d)
    if "sigma_3d" in names:
        forms["M"] = reaction(u, v, as_ufl(coefficients.sigma_3d, mesh, "sigma_3d"))
    parts: dict[str, Any] = dict(zip(forms, _matrices(*forms.values()), strict=True))
    if "f_3d" in names:
        parts["f"] = _vector(source(v, as_ufl(coefficients.f_3d, mesh, "f_3d")))
    return parts


def _network_parts(
    V: dolfinx.fem.FunctionSpace, coefficients: Coefficients, names: Collection[str]
) -> dict[str, Any]:
    """Return the parts K and f of the network that named coefficients make."""
    mesh, u, v = V.mesh, ufl.TrialFunction(V), ufl.TestFunction(V)
    parts: dict[str, Any] = {}
    if "k_1d" in names:
        [parts["K"]] = _matrices(diffusion(u, v, as_ufl(coefficients.k_1d, mesh, "k_1d")))
    if "f_1d" in names:
        parts["f"] = _vector(source(v, as_ufl(coefficients.f_1d, mesh, "f_1d")))
    return parts


type _Entities = NDArray[np.int32]


def _apply_conditions(
    V: dolfinx.fem.FunctionSpace,
    K: sparse.csr_array,
    M: sparse.csr_array,
    f: NDArray[np.float64],
    conditions: Sequence[BoundaryCondition],
    find: Callable[[Place], _Entities],
    boundary_matrix: Callable[
        [dolfinx.fem.FunctionSpace, _Entities, ufl.core.expr.Expr], sparse.csr_array
    ],
    boundary_load: Callable[
        [dolfinx.fem.FunctionSpace, _Entities, ufl.core.expr.Expr], NDArray[np.float64]
    ],
) -> Side:
    """Collect Robin matrices, boundary loads and Dirichlet values into a side."""
    mesh = V.mesh
    R, h = zeros_like(K), np.zeros_like(f)
    given, is_given = np.zeros_like(f), np.zeros(len(f), dtype=bool)
    if isinstance(conditions, Dirichlet | Neumann | Robin):
        raise TypeError(
            f"got a {type(conditions).__name__} alone; wanted a sequence of conditions. "
            "Write it in a list."
        )
    for condition in conditions:
        match condition:
            case Dirichlet(on=on, value=value):
                dofs = _dofs_on(V, find(on))
                given[dofs] = interpolate(as_ufl(value, mesh, "Dirichlet value"), V)[dofs]
                is_given[dofs] = True
            case Neumann(on=on, flux=flux):
                h = h + boundary_load(V, find(on), as_ufl(flux, mesh, "Neumann flux"))
            case Robin(on=on, coefficient=coefficient, value=value):
                alpha = as_ufl(coefficient, mesh, "Robin coefficient")
                R = R + boundary_matrix(V, find(on), alpha)
                h = h + boundary_load(V, find(on), alpha * as_ufl(value, mesh, "Robin value"))
            case _:
                raise TypeError(
                    f"got a boundary condition {condition!r}; wanted Dirichlet, Neumann or Robin."
                )
    parts = {"stiffness": K, "reaction": M, "source": f}
    parts |= {"Robin matrix": R, "Neumann or Robin load": h, "Dirichlet value": given}
    _check_finite(mesh, parts)
    dofs = np.flatnonzero(is_given).astype(np.int32)
    return Side(V, K, M, R, f, h, dofs, given[dofs])


_PARTS: Final = {"K": "stiffness", "M": "reaction", "f": "source"}


def _check_finite(mesh: dolfinx.mesh.Mesh, parts: Mapping[str, Any]) -> None:
    for name, part in parts.items():
        values = part if isinstance(part, np.ndarray) else part.data
        if not Processes.of(mesh).all(np.all(np.isfinite(values))):
            raise ValueError(
                f"got a {name} of the {'tissue' if mesh.topology.dim == 3 else 'network'} that is "
                "NaN or infinite somewhere; wanted finite values. Look at the expression where it "
                "divides, takes roots or logarithms."
            )


def _face_matrix(
    V: dolfinx.fem.FunctionSpace, facets: _Entities, alpha: ufl.core.expr.Expr
) -> sparse.csr_array:
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    [matrix] = _matrices(reaction(u, v, alpha, _boundary_measure(V.mesh, facets)))
    return matrix


def _face_load(
    V: dolfinx.fem.FunctionSpace, facets: _Entities, g: ufl.core.expr.Expr
) -> NDArray[np.float64]:
    return _vector(source(ufl.TestFunction(V), g, _boundary_measure(V.mesh, facets)))


def _node_matrix(
    V: dolfinx.fem.FunctionSpace, vertices: _Entities, alpha: ufl.core.expr.Expr
) -> sparse.csr_array:
    return sparse.diags_array(_node_load(V, vertices, alpha)).tocsr()


def _node_load(
    V: dolfinx.fem.FunctionSpace, vertices: _Entities, g: ufl.core.expr.Expr
) -> NDArray[np.float64]:
    dofs = _dofs_on(V, vertices)
    load = np.zeros(V.dofmap.index_map.size_local)
    load[dofs] = interpolate(g, V)[dofs]
    return load


def _dofs_on(V: dolfinx.fem.FunctionSpace, entities: _Entities) -> NDArray[np.int32]:
    dim = V.mesh.topology.dim
    V.mesh.topology.create_connectivity(dim - 1, dim)
    dofs = dolfinx.fem.locate_dofs_topological(V, dim - 1, entities)
    return dofs[dofs < V.dofmap.index_map.size_local]


def interpolate(
    expression: ufl.core.expr.Expr, V: dolfinx.fem.FunctionSpace
) -> NDArray[np.float64]:
    """Return the dofs of an expression in a space, those that this process owns."""
    field = dolfinx.fem.Function(V)
    field.interpolate(dolfinx.fem.Expression(expression, V.element.interpolation_points))
    return field.x.array[: V.dofmap.index_map.size_local].copy()


def _matrices(*forms: ufl.Form) -> list[sparse.csr_array]:
    return assemble_matrices(*(dolfinx.fem.form(form) for form in forms)) if forms else []


def _vector(form: ufl.Form) -> NDArray[np.float64]:
    return assemble_vector(dolfinx.fem.form(form))


def _boundary_measure(mesh: dolfinx.mesh.Mesh, facets: NDArray[np.int32]) -> ufl.Measure:
    tags = dolfinx.mesh.meshtags(mesh, mesh.topology.dim - 1, facets, 1)
    return ufl.Measure("ds", domain=mesh, subdomain_data=tags, subdomain_id=1)

"""A coupled system as a function of its coefficients, for derivatives with respect to them.

Each coefficient theta that is to be estimated enters A u = b, with u both sides one after the
other, through sparse matrices that do not depend on it:

    A = A_fixed + sum_i P_i' diag(w_i theta_i) P_i      b = b_fixed + sum_j P_j' (w_j theta_j)

P takes gradients for conductivities, values for reaction and sources, and the difference N u_1d -
Pi u_3d for the wall. theta_i has a value per edge or per cell, which all its points share. So the
derivative of lambda' A u by theta_i is w_i (P_i lambda) (P_i u), summed over the points of an edge
or cell. Needs no DOLFINx beyond the system that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.fem.points import basis_at_points, gradients_at_points
from mixeddim.reduction import ReducedSystem, reduce

if TYPE_CHECKING:
    from mixeddim.fem.assembly import CoupledSystem

__all__ = ["ParametrisedSystem", "Term", "parametrise"]

PARAMETERS: Final = {
    "permeability": "edges",
    "k_1d": "edges",
    "f_1d": "edges",
    "k_3d": "cells",
    "sigma_3d": "cells",
    "f_3d": "cells",
    "given_3d": "given dofs of the tissue",
    "given_1d": "given dofs of the network",
}
"""What can be estimated, and what has one value of it."""

_LOADS: Final = ("f_3d", "f_1d")


@dataclass(frozen=True, eq=False)
class Term:
    """P' diag(weights theta[index]) P, or for a source P' (weights theta[index]).

    Attributes:
        P: From the unknowns of both sides to values at points, shape (num_values, num_dofs); the
            columns of given dofs are zero.
        P_given: The same from the given dofs of both sides, shape (num_values, num_given).
        weights: Shape (num_values,).
        index: Edge or cell of each value, shape (num_values,).
    """

    P: sparse.csr_array
    P_given: sparse.csr_array
    weights: NDArray[np.float64]
    index: NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class ParametrisedSystem:
    """What `parametrise` returns: the parts of A and b that parameters make, and the rest.

    Vectors contain the tissue's dofs, then the network's, num_dofs together.

    Attributes:
        fixed: The reduced system without the parts that parameters make, in which A_11 lacks the
            exchange also where its permeability is fixed.
        terms: Parts of A, by the name of the parameter.
        loads: Parts of b, by the name of the parameter.
        lifting: Columns of A_fixed at the given dofs, shape (num_dofs, num_given).
        load: b_fixed before given values are lifted, zero at given dofs, shape (num_dofs,).
        given_dofs: Dofs with given values, of the tissue first, shape (num_given,).
        given_values: Those of the system it was made from, shape (num_given,).
        sizes: Number of values of each parameter.
        cell_midpoints: Midpoint of each cell of the tissue, shape (num_cells, 3).
    """

    fixed: ReducedSystem
    terms: Mapping[str, Term]
    loads: Mapping[str, Term]
    lifting: sparse.csr_array
    load: NDArray[np.float64]
    given_dofs: NDArray[np.int64]
    given_values: NDArray[np.float64]
    sizes: Mapping[str, int]
    cell_midpoints: NDArray[np.float64]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size} {name}" for name, size in self.sizes.items())
        return f"ParametrisedSystem({len(self.load)} unknowns, {sizes})"

    @property
    def num_tissue(self) -> int:
        """Number of dofs of the tissue."""
        return len(self.fixed.b_3)

    @cached_property
    def is_free(self) -> NDArray[np.float64]:
        """1 at unknowns and 0 at given dofs, shape (num_dofs,)."""
        free = np.ones(len(self.load))
        free[self.given_dofs] = 0.0
        return free

    def with_values(self, values: Mapping[str, NDArray[np.float64]]) -> ReducedSystem:
        """Return the reduced system with values of all parameters that A depends on.

        Its right-hand sides are not those of these values.

        Args:
            values: By the names of `terms`, of the shapes (sizes[name],).
        """
        fixed = self.fixed
        beta = fixed.beta
        if "permeability" in self.terms:
            term = self.terms["permeability"]
            beta = term.weights / fixed.weights * values["permeability"][term.index]
        parts = {
            name: _product(self._sides[name], term, values[name])
            for name, term in self.terms.items()
            if name != "permeability"
        }
        K, M, A_11 = (
            base + parts[name] if name in parts else base
            for base, name in ((fixed.K, "k_3d"), (fixed.M, "sigma_3d"), (fixed.A_11, "k_1d"))
        )
        exchange = fixed.N.T @ sparse.diags_array(fixed.weights * beta) @ fixed.N
        reduced = replace(fixed, K=K, M=M, beta=beta, A_11=(A_11 + exchange).tocsr())
        if K is fixed.K and M is fixed.M:
            vars(reduced)["A_0"] = fixed.A_0  # the same object for all values
        return reduced

    @cached_property
    def _sides(self) -> dict[str, sparse.csr_array]:
        """P of each term on the side that it belongs to."""
        n = self.num_tissue
        return {
            name: (term.P[:, n:] if name == "k_1d" else term.P[:, :n]).tocsr()
            for name, term in self.terms.items()
        }


def _product(P: sparse.csr_array, term: Term, values: NDArray[np.float64]) -> sparse.csr_array:
    return (P.T @ sparse.diags_array(term.weights * values[term.index]) @ P).tocsr()


def parametrise(system: CoupledSystem, *names: str) -> ParametrisedSystem:
    """Return a system as a function of some of its coefficients and given values.

    Args:
        system: The system, whose other coefficients stay as they are.
        *names: What varies: "permeability", "k_1d", "f_1d" with a value per edge, in the order of
            `graph.edges`; "k_3d" (a scalar), "sigma_3d", "f_3d" with a value per cell of the
            tissue's mesh; "given_3d", "given_1d" with a value per Dirichlet dof, in the order of
            `system.side_3d.dirichlet_dofs` and `system.side_1d.dirichlet_dofs`.

    Raises:
        ValueError: If there is no name, or an unknown one, or no dof with a given value; or if the
            wall exchanges anything but beta (u_1d - T u_3d), or its permeability is named and beta
            not proportional to it.
        NotImplementedError: If the system is distributed over several processes.
    """
    system.processes.refuse("parametrise")
    if not names or not {*names} <= PARAMETERS.keys():
        raise ValueError(
            f"got the parameters {sorted(names)}; wanted some of {sorted(PARAMETERS)}. "
            "Name what you want derivatives with respect to."
        )
    sizes = _sizes(system, names)
    _check_wall(system)
    side_3d, side_1d = system.side_3d, system.side_1d
    n_3 = len(side_3d.f)
    given = np.concatenate([side_3d.dirichlet_dofs, n_3 + side_1d.dirichlet_dofs]).astype(np.int64)
    is_free = np.concatenate([side_3d.is_free, side_1d.is_free]).astype(float)
    terms = {}
    for name in names:
        if not name.startswith("given"):
            P, weights, index = _at_points(system, name)
            free = (P @ sparse.diags_array(is_free)).tocsr()
            free.eliminate_zeros()
            terms[name] = Term(free, P[:, given].tocsr(), weights, index)
    fixed, lifting, load = _fixed_parts(system, names, given)
    mesh = side_3d.V.mesh
    corners = mesh.geometry.x[mesh.geometry.dofmaps[0][: _num_cells(system)]]
    return ParametrisedSystem(
        fixed=fixed,
        terms={name: part for name, part in terms.items() if name not in _LOADS},
        loads={name: part for name, part in terms.items() if name in _LOADS},
        lifting=(sparse.diags_array(is_free) @ lifting).tocsr(),
        load=is_free * load,
        given_dofs=given,
        given_values=np.concatenate([side_3d.dirichlet_values, side_1d.dirichlet_values]),
        sizes=sizes,
        cell_midpoints=corners.mean(axis=1),
    )


def _check_wall(system: CoupledSystem) -> None:
    """Refuse exchange other than beta (u_1d - T u_3d), which is zero between equal fields."""
    coupling = system.coupling
    flux = coupling.flux(np.ones(len(system.side_3d.f)), np.ones(len(system.side_1d.f)))
    if not np.all(np.abs(flux) <= 1e-8 * coupling.beta):
        raise ValueError(
            "got a wall through which equal fields exchange something; wanted one that exchanges "
            "beta (u_1d - T u_3d). Leave out partition coefficients other than 1, and drag."
        )


def _num_cells(system: CoupledSystem) -> int:
    return int(system.side_3d.V.mesh.topology.index_map(3).size_local)


def _sizes(system: CoupledSystem, names: Sequence[str]) -> dict[str, int]:
    """Return the number of values of each parameter."""
    counts = {
        "edges": system.network.graph.number_of_edges(),
        "cells": _num_cells(system),
        "given dofs of the tissue": len(system.side_3d.dirichlet_dofs),
        "given dofs of the network": len(system.side_1d.dirichlet_dofs),
    }
    sizes = {name: counts[PARAMETERS[name]] for name in names}
    missing = [PARAMETERS[name] for name, size in sizes.items() if size == 0]
    if missing:
        raise ValueError(
            f"got parameters for {missing[0]}, of which there are none; wanted at least one. Give "
            "values by a Dirichlet condition where they are to be estimated."
        )
    return sizes


def _at_points(
    system: CoupledSystem, name: str
) -> tuple[sparse.csr_array, NDArray[np.float64], NDArray[np.int64]]:
    """Return P from all dofs, weights and index of the term of one parameter."""
    edge_of_cell = system.network.edge_of_cell
    if name == "permeability":
        coupling = system.coupling
        unit, double = (
            system.with_coefficients(permeability=kappa).coupling.beta for kappa in (1.0, 2.0)
        )
        if not np.allclose(double, 2.0 * unit, rtol=1e-12, atol=0.0):
            raise ValueError(
                "got a wall whose conductance is not proportional to its permeability; wanted one "
                "that is. Leave out the resistance in series with it."
            )
        return _jump(system), coupling.weights * unit, edge_of_cell[coupling.cells]
    at_points = gradients_at_points if name.startswith("k") else basis_at_points
    n_3, n_1 = len(system.side_3d.f), len(system.side_1d.f)
    if name.endswith("3d"):
        at = at_points(system.side_3d.V)
        zero = sparse.csr_array((len(at.weights), n_1))
        return sparse.hstack([at.matrix, zero]).tocsr(), at.weights, at.cells
    at = at_points(system.side_1d.V)
    zero = sparse.csr_array((len(at.weights), n_3))
    return sparse.hstack([zero, at.matrix]).tocsr(), at.weights, edge_of_cell[at.cells]


def _jump(system: CoupledSystem) -> sparse.csr_array:
    """Return the map from all dofs to N u_1d - Pi u_3d."""
    return sparse.hstack([-system.coupling.Pi, system.coupling.N]).tocsr()


def _fixed_parts(
    system: CoupledSystem, names: Sequence[str], given: NDArray[np.int64]
) -> tuple[ReducedSystem, sparse.csr_array, NDArray[np.float64]]:
    """Return what parameters do not make: A_fixed, its columns at given dofs, and the load."""

    def kept(name: str, part: Any) -> Any:
        return 0.0 * part if name in names else part

    side_3d, side_1d, coupling = system.side_3d, system.side_1d, system.coupling
    K_3 = kept("k_3d", side_3d.K) + side_3d.R
    M_3 = kept("sigma_3d", side_3d.M)
    K_1 = kept("k_1d", side_1d.K) + side_1d.M + side_1d.R
    beta, jump = kept("permeability", coupling.beta), _jump(system)
    lifting = sparse.block_diag([K_3 + M_3, K_1]).tocsr()[:, given]
    lifting += jump.T @ (sparse.diags_array(coupling.weights * beta) @ jump[:, given])
    load_3, load_1 = kept("f_3d", side_3d.f) + side_3d.h, kept("f_1d", side_1d.f) + side_1d.h
    fixed = replace(
        reduce(system),
        K=_eliminated(K_3, side_3d.is_free, side_3d.dirichlet_diagonal),
        M=_eliminated(M_3, side_3d.is_free, 0.0),
        beta=beta,
        A_11=_eliminated(K_1, side_1d.is_free, side_1d.dirichlet_diagonal),
    )
    return fixed, lifting, np.concatenate([load_3, load_1])


def _eliminated(
    A: sparse.csr_array, is_free: NDArray[np.bool_], diagonal: float
) -> sparse.csr_array:
    free = sparse.diags_array(is_free.astype(float))
    return (free @ A @ free + sparse.diags_array(np.where(is_free, 0.0, diagonal))).tocsr()

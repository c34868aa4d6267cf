"""Assemble the coupled problem: the parts, the Dirichlet elimination, and the four blocks.

With K, M and K_1d from the weak forms, Pi the averaging matrix at quadrature points of the
network, N its own basis there, W the quadrature weights and B the wall conductances:

    A_33 = K + M + Pi' W B Pi      A_31 = -Pi' W B N
    A_13 = A_31'                   A_11 = K_1d + N' W B N

Where the wall has a partition coefficient s, K, M, Pi and b_3 stand here divided by s, which keeps
the matrix symmetric: the tissue's equations are divided by s, and u_3d is as it is.

On several processes the tissue is distributed and the network whole on each (see `distributed`);
every process calls every function.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import attrgetter, is_
from typing import Any, Final

import dolfinx
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.fem.averaging import AveragingOperator, OutsidePolicy
from mixeddim.fem.blocks import Blocks
from mixeddim.fem.boundary import BoundaryCondition, Dirichlet
from mixeddim.fem.coupling import Coupling, couple
from mixeddim.fem.forms import Coefficient, Coefficients
from mixeddim.fem.grid import Grid
from mixeddim.fem.meshes import Network, StructuredBox
from mixeddim.fem.sides import (
    Side,
    assemble_network,
    assemble_tissue,
    drop_columns,
    eliminate,
    reassemble,
)
from mixeddim.networks.graphs import check_inlets
from mixeddim.processes import Processes

__all__ = ["CoupledSystem", "assemble"]


@dataclass(frozen=True, eq=False, repr=False)
class CoupledSystem(Blocks):
    """The discrete coupled problem, with its parts stored separately.

    In the matrices of the module's formula the Dirichlet dofs are eliminated symmetrically. Their
    rows and columns are zero except for the diagonal, which is the mean diagonal entry of K, so
    that these equations have the same weight as the others in a norm. The right-hand sides contain
    the Dirichlet values. `side_3d`, `side_1d` and `coupling` hold the same parts before
    elimination.

    A system keeps its meshes alive, and an MPI process has room for some 150 meshes: for many
    problems keep only the reduced systems.

    Attributes:
        tissue: Structured box or mesh of the tissue.
        network: Network with its mesh.
        side_3d: Tissue without coupling, before elimination.
        side_1d: Network without coupling, before elimination.
        coupling: Wall exchange, before elimination.
        inputs: What else it was assembled from.
    """

    tissue: StructuredBox | dolfinx.mesh.Mesh
    network: Network
    side_3d: Side
    side_1d: Side
    coupling: Coupling
    inputs: Inputs

    def __repr__(self) -> str:
        n_3, n_1 = self.side_3d.V.dofmap.index_map.size_global, len(self.side_1d.f)
        points = len(self.coupling.weights)
        return f"CoupledSystem({n_3} + {n_1} unknowns, coupled at {points} points)"

    @property
    def processes(self) -> Processes:
        """The processes over which the tissue is distributed."""
        return self.side_3d.processes

    @cached_property
    def grid(self) -> Grid | None:
        """Nodes of the structured box in grid order, or None on any other mesh."""
        if isinstance(self.tissue, StructuredBox):
            return self.tissue.grid(self.side_3d.V)
        return None

    @cached_property
    def K(self) -> sparse.csr_array:
        """Stiffness (and Robin) matrix of the tissue."""
        return self._scaled(eliminate(self.side_3d.K + self.side_3d.R, self.side_3d))

    @cached_property
    def M(self) -> sparse.csr_array:
        """Reaction matrix of the tissue."""
        return self._scaled(eliminate(self.side_3d.M, self.side_3d, diagonal=0.0))

    def _scaled(self, tissue: sparse.csr_array) -> sparse.csr_array:
        """Return a matrix of the tissue's equations, which are divided by s."""
        s = self.coupling.partition
        return tissue if s == 1 else tissue / s

    @cached_property
    def K_1d(self) -> sparse.csr_array:
        """Stiffness (and reaction and Robin) matrix of the network."""
        side = self.side_1d
        return eliminate(side.K + side.M + side.R, side)

    @cached_property
    def Pi(self) -> sparse.csr_array:
        """Averaging matrix, with the columns of Dirichlet dofs zero."""
        Pi, s = drop_columns(self.coupling.Pi, self.side_3d.is_free), self.coupling.partition
        if s == 1:
            return Pi
        return (sparse.diags_array(np.full(Pi.shape[0], 1.0 / s)) @ Pi).tocsr()

    @cached_property
    def N(self) -> sparse.csr_array:
        """Network basis at the quadrature points, with the columns of Dirichlet dofs zero."""
        return drop_columns(self.coupling.N, self.side_1d.is_free)

    @cached_property
    def W(self) -> sparse.dia_array:
        """Diagonal of quadrature weights."""
        return sparse.diags_array(self.coupling.weights)

    @cached_property
    def B(self) -> sparse.dia_array:
        """Diagonal of wall conductances; with what flows in from the tissue, where that drags."""
        return sparse.diags_array(self.coupling.conductances[0])

    @cached_property
    def B_1(self) -> sparse.dia_array:
        """The same for u_1d, with what filters out of the network."""
        return sparse.diags_array(self.coupling.conductances[1])

    @cached_property
    def A_13(self) -> sparse.csr_array:
        """Coupling block, network rows and tissue columns."""
        if self.coupling.drag is None:
            return self.A_31.T.tocsr()
        return (-(self.N.T @ self.W @ self.B) @ self.Pi).tocsr()

    @cached_property
    def A_11(self) -> sparse.csr_array:
        """Network block."""
        return (self.K_1d + self.N.T @ self.W @ self.B_1 @ self.N).tocsr()

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
        """Loads minus the contributions of Dirichlet values, and these values at their dofs."""
        given_3d, given_1d = self.side_3d.given_values, self.side_1d.given_values
        residual_3d, residual_1d = self.unconstrained_residual(given_3d, given_1d)
        given_3d *= self.side_3d.dirichlet_diagonal
        given_1d *= self.side_1d.dirichlet_diagonal
        b_3 = np.where(self.side_3d.is_free, -residual_3d, given_3d) / self.coupling.partition
        b_1 = np.where(self.side_1d.is_free, -residual_1d, given_1d)
        return b_3, b_1

    def with_coefficients(self, **changed: Coefficient) -> CoupledSystem:
        """Return the system with other coefficients, at the cost of what they change.

        Equal to a new `assemble`, but for rounding. All that is not named stays as it is, also a
        DOLFINx function in it whose values have changed since: name it again.

        Args:
            **changed: New values by the names of `Coefficients`.

        Raises:
            ValueError: If a coefficient does not fit its side.
            TypeError: If there is no coefficient of that name.

        Example:
            >>> for kappa in (0.1, 1.0, 10.0):
            ...     solution = md.solve(system.with_coefficients(permeability=kappa))
        """
        inputs = self.inputs.changed(changed)
        coupling = self.coupling
        if {"permeability", "series_resistance", "partition"} & changed.keys():
            coupling = coupling.with_coefficients(self.network, inputs.coefficients)
        return self.with_parts(
            side_3d=reassemble(self.side_3d, inputs.coefficients, changed),
            side_1d=reassemble(self.side_1d, inputs.coefficients, changed),
            coupling=coupling,
            inputs=inputs,
        )

    def with_network(
        self,
        network: Network,
        *,
        bcs_1d: Sequence[BoundaryCondition] | None = None,
        **changed: Coefficient,
    ) -> CoupledSystem:
        """Return the system with another network in the same tissue, whose matrices are shared.

        Equal to a new `assemble`.

        Args:
            network: The new network.
            bcs_1d: Conditions on it; by default those on the old one.
            **changed: Coefficients that change with it, by their names: functions on the mesh of
                the old network do not fit the new one.

        Raises:
            NetworkError, ValueError, TypeError: As `assemble`.
        """
        inputs = self.inputs.changed(changed)
        if bcs_1d is not None:
            inputs = replace(inputs, bcs_1d=tuple(bcs_1d))
        _check_network(self.tissue, network, inputs.bcs_1d)
        return self.with_parts(
            network=network,
            side_3d=reassemble(self.side_3d, inputs.coefficients, changed),
            **_network_parts(self.tissue, self.side_3d, network, inputs),
            inputs=inputs,
        )

    def with_parts(self, **parts: Any) -> CoupledSystem:
        """Return the system with other attributes; matrices made of the same parts are shared.

        They are then the same objects, by which a solver sees that its set-up fits.
        """
        system = replace(self, **parts)
        for name, sources in _MADE_OF.items():
            parts_of = attrgetter(*sources)
            if all(map(is_, parts_of(self), parts_of(system))):
                vars(system)[name] = getattr(self, name)
        return system

    def unconstrained_residual(
        self, u_3d: NDArray[np.float64], u_1d: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return A u - b of both sides before Dirichlet elimination and division by s.

        At a Dirichlet dof of a solution this is the inflow through its condition. On several
        processes the residual of the tissue is that of the dofs owned here.

        Args:
            u_3d: Tissue dofs, such as `solution.u_3d.x.array`.
            u_1d: Network dofs.
        """
        exchange = self.coupling.weights * self.coupling.flux(u_3d, u_1d)
        residual_3d = self.side_3d.residual(u_3d) - self.coupling.Pi.T @ exchange
        residual_1d = self.side_1d.residual(u_1d) + self.coupling.N.T @ exchange
        return residual_3d, residual_1d


_TISSUE: Final = ("side_3d.V", "side_3d.dirichlet_dofs")
_NETWORK: Final = ("network", "side_1d.dirichlet_dofs")
_MADE_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "grid": _TISSUE,
    "K": (*_TISSUE, "side_3d.K", "side_3d.R", "coupling.partition"),
    "M": (*_TISSUE, "side_3d.M", "coupling.partition"),
    "A_0": (*_TISSUE, "side_3d.K", "side_3d.R", "side_3d.M", "coupling.partition"),
    "K_1d": (*_NETWORK, "side_1d.K", "side_1d.M", "side_1d.R"),
    "Pi": (*_TISSUE, "coupling.Pi", "coupling.partition"),
    "N": (*_NETWORK, "coupling.N"),
    "A_11": (
        *_NETWORK,
        "side_1d.K",
        "side_1d.M",
        "side_1d.R",
        "coupling.N",
        "coupling.weights",
        "coupling.beta",
        "coupling.drag",
    ),
}
"""The parts that each matrix of a system is made of."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a system was assembled from, besides tissue and network.

    Attributes:
        coefficients: Material data and sources.
        bcs_1d: Conditions on the network.
        averaging: The average of the tissue, or None for the mean over the circle.
        outside: What was done where a circle leaves the tissue.
    """

    coefficients: Coefficients
    bcs_1d: Sequence[BoundaryCondition]
    averaging: AveragingOperator | None
    outside: OutsidePolicy

    def changed(self, coefficients: Mapping[str, Coefficient]) -> Inputs:
        """Return the same with new values of the named coefficients."""
        known = {field.name for field in fields(Coefficients)}
        if not coefficients.keys() <= known:
            raise TypeError(
                f"got the coefficients {sorted(coefficients)}; wanted some of {sorted(known)}. "
                "Correct the name."
            )
        values: dict[str, Any] = dict(coefficients)
        return replace(self, coefficients=replace(self.coefficients, **values))


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
    """Assemble the coupled 3D-1D problem with P1 elements, on hexahedra trilinear ones.

    Args:
        tissue: Structured box of either cell type, or any mesh of straight-edged tetrahedra.
        network: The network in it.
        coefficients: Material data and sources.
        bcs_3d: Conditions on the boundary of the tissue; no flux where none is given.
        bcs_1d: Conditions on the network, by default u_1d = 1 at the inlets; no flux at the
            other ends.
        averaging: The average of the tissue around the network, for both trial and test function;
            by default the mean over the circle.
        outside: What to do where a circle leaves the tissue (see `mixeddim.fem.averaging.average`).

    Raises:
        NetworkError: If u_1d is given at the inlets, and a connected part of the network has none.
        ValueError: If circles leave the tissue under "raise", a condition or coefficient does not
            fit its side, or box and network do not lie on the same processes.
        TypeError: If a condition or coefficient is of an unknown kind, or `network` is not a mesh.
    """
    _check_network(tissue, network, bcs_1d)
    inputs = Inputs(coefficients, bcs_1d, averaging, outside)
    side_3d = assemble_tissue(tissue, coefficients, bcs_3d)
    parts = _network_parts(tissue, side_3d, network, inputs)
    return CoupledSystem(tissue, network, side_3d, **parts, inputs=inputs)


def _check_network(
    tissue: StructuredBox | dolfinx.mesh.Mesh, network: Network, bcs_1d: Sequence[BoundaryCondition]
) -> None:
    """Refuse what is no network, or one that does not fit the tissue or the conditions."""
    if not isinstance(network, Network):
        raise TypeError(
            f"got a network of type {type(network).__name__}; wanted the mesh of one. "
            "Use create_network(graph, max_segment_length)."
        )
    mesh = tissue.mesh if isinstance(tissue, StructuredBox) else tissue
    if MPI.Comm.Compare(mesh.comm, network.comm) > MPI.CONGRUENT:
        raise ValueError(
            f"got a tissue on {mesh.comm.size} processes and a network on {network.comm.size}; "
            "wanted both on the same. Pass the same comm to create_box and create_network: "
            "MPI.COMM_WORLD, as by default, to share one problem, or MPI.COMM_SELF for a problem "
            "of its own on each process."
        )
    if any(isinstance(bc, Dirichlet) and bc.on == "inlets" for bc in bcs_1d):
        check_inlets(network.graph)


def _network_parts(
    tissue: StructuredBox | dolfinx.mesh.Mesh, side_3d: Side, network: Network, inputs: Inputs
) -> dict[str, Any]:
    """Return what a network adds to its tissue: its side and the exchange."""
    coefficients = inputs.coefficients
    return {
        "side_1d": assemble_network(network, coefficients, inputs.bcs_1d),
        "coupling": couple(
            tissue,
            side_3d.V,
            network,
            coefficients,
            inputs.averaging,
            inputs.outside,
        ),
    }

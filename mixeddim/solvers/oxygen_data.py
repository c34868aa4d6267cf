"""What oxygen is solved from, checked and as arrays: flow, red cells, entering PO2, consumption."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Hashable, Mapping
from numbers import Real
from typing import Any, Final

import dolfinx
import numpy as np
import ufl
from numpy.typing import ArrayLike, NDArray

from mixeddim.fem.assembly import CoupledSystem
from mixeddim.fem.forms import Coefficient, as_ufl, source
from mixeddim.fem.matrices import assemble_vector
from mixeddim.networks.graphs import edge_radii
from mixeddim.networks.oxygen import MOST, BloodOxygen
from mixeddim.solvers.advection import Advection, discretise_advection

__all__ = [
    "advection_of_cells",
    "check_numbers",
    "check_system",
    "demand",
    "entering_po2",
    "flow_and_hematocrit",
    "loads",
]

FASTEST: Final = 100.0
"""Mean velocity beyond which flow is in another unit [m/s]; in the aorta it is near 1."""


def check_system(system: CoupledSystem, blood: BloodOxygen) -> None:
    """Refuse exchange that more than the pressures drive, and given values in another unit."""
    coupling = system.coupling
    if coupling.partition != 1:
        raise ValueError(
            f"got a system with partition={coupling.partition!r}; wanted 1, since partial "
            "pressures of both sides are equal at equilibrium. Leave partition out: the "
            "solubilities are in k_3d and in blood."
        )
    if coupling.drag is not None:
        raise ValueError(
            "got a system of a state of transport, in which fluid drags a tracer through the "
            "wall; wanted exchange alone. Pass the system that was passed to simulate_transport."
        )
    given = system.side_3d.dirichlet_values
    most = system.processes.max(given.max(initial=0.0))
    if most > MOST[blood.unit]:
        raise ValueError(f"got bcs_3d with values up to {most:.4g}; wanted {blood.range}")


def check_numbers(rtol: Any, half_consumption: Any, blood: BloodOxygen) -> None:
    """Refuse what is no tolerance, or no partial pressure."""
    if not isinstance(rtol, Real) or not 0 < float(rtol) < 1:
        raise ValueError(f"got rtol={rtol!r}; wanted a number between 0 and 1, such as 1e-10.")
    if not isinstance(half_consumption, Real) or not 0 < float(half_consumption) < np.inf:
        raise ValueError(
            f"got half_consumption={half_consumption!r}; wanted a positive pressure in "
            f"{blood.unit}; it is a few mmHg."
        )
    if float(half_consumption) > MOST[blood.unit]:
        raise ValueError(f"got half_consumption={half_consumption!r}; wanted {blood.range}")


def loads(system: CoupledSystem, value: Coefficient, name: str) -> NDArray[np.float64]:
    """Return the integrals of a coefficient times each basis function of the tissue."""
    V = system.side_3d.V
    return assemble_vector(
        dolfinx.fem.form(source(ufl.TestFunction(V), as_ufl(value, V.mesh, name)))
    )


def demand(system: CoupledSystem, consumption: Coefficient) -> NDArray[np.float64]:
    """Return the largest consumption at each node [m³/s]."""
    most = loads(system, consumption, "consumption")
    least = system.processes.max(-most.min(initial=0.0))
    if not least <= 0:
        raise ValueError(
            "got a consumption that is negative, or no number, somewhere in the tissue; wanted "
            "M0 >= 0 [1/s]. Give a production as f_3d of the coefficients."
        )
    return most


def flow_and_hematocrit(
    system: CoupledSystem, flow: ArrayLike, hematocrit: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return flow and hematocrit of each edge."""
    graph = system.network.graph
    num_edges = graph.number_of_edges()
    values = []
    for name, given in (("flow", flow), ("hematocrit", hematocrit)):
        try:
            value = np.asarray(given, dtype=float)
        except (TypeError, ValueError):
            value = np.full((), np.nan)
        if value.shape not in ((), (num_edges,)):
            raise ValueError(
                f"got {name} of shape {value.shape}; wanted a number for each of the {num_edges} "
                "edges, in the order of network.graph.edges, such as that of solve_blood."
            )
        value = np.broadcast_to(value, num_edges)
        for edge in np.flatnonzero(~np.isfinite(value)):
            raise ValueError(
                f"got no {name} on edge {list(graph.edges)[edge]!r}; wanted a finite number for "
                "each edge. Take it from solve_blood on network.graph."
            )
        values.append(value)
    Q, H = values
    fastest = (abs(Q) / (np.pi * edge_radii(graph) ** 2)).max()
    if fastest > FASTEST:
        raise ValueError(
            f"got flows with a mean velocity up to {fastest:.3g} m/s; wanted those of blood, in "
            "m³/s. Multiply nl/min by 1e-12 / 60, µm³/s by 1e-18; radii are in m."
        )
    if not np.all((H >= 0) & (H <= 1)):
        raise ValueError(
            f"got hematocrits from {H.min():.3g} to {H.max():.3g}; wanted them from 0 to 1. Give "
            "shares, not per cent."
        )
    return Q, H


def advection_of_cells(system: CoupledSystem, flux: NDArray[np.float64]) -> Advection:
    """Discretise the advection of red cells, whose flow along each edge is given."""
    try:
        return discretise_advection(system.network, flux)
    except ValueError as error:
        raise ValueError(
            "got a hematocrit with which red cells get lost or appear where vessels meet; wanted "
            "that of solve_blood on network.graph, or one number for all edges. As a flow of red "
            f"cells: {error}"
        ) from error


def entering_po2(
    system: CoupledSystem,
    inlet_po2: float | Mapping[Hashable, float],
    inflow: NDArray[np.float64],
    blood: BloodOxygen,
) -> NDArray[np.float64]:
    """Return the pressure of entering blood at the dofs of the network; 0 where none enters."""
    graph = system.network.graph
    at_node = system.network.dof_of_node
    po2 = np.full(len(inflow), np.nan)
    if isinstance(inlet_po2, Mapping):
        ordinals = {node: ordinal for ordinal, node in enumerate(graph)}
        for node, value in inlet_po2.items():
            if node not in ordinals:
                raise ValueError(
                    f"got a PO2 at {node!r}; wanted a node of the graph, such as "
                    f"{next(iter(graph))!r}."
                )
            if not isinstance(value, Real):
                raise ValueError(
                    f"got the PO2 {value!r} at node {node!r}; wanted a number in "
                    f"{blood.unit}. Leave out nodes without one."
                )
            po2[at_node[ordinals[node]]] = value
    else:
        try:
            po2[:] = float(inlet_po2)
        except (TypeError, ValueError):
            raise ValueError(
                f"got inlet_po2={inlet_po2!r}; wanted a number, or a dictionary from the nodes "
                f"where blood enters to numbers, in {blood.unit}."
            ) from None
    known = po2[np.isfinite(po2)]
    if not np.all((known >= 0) & (known <= MOST[blood.unit])):
        raise ValueError(
            f"got an inlet_po2 from {known.min():.4g} to {known.max():.4g}; wanted {blood.range}"
        )
    enters = inflow > 1e-12 * inflow.max(initial=0.0)
    for dof in np.flatnonzero(enters & ~np.isfinite(po2)):
        node = list(graph)[int(np.flatnonzero(at_node == dof)[0])]
        raise ValueError(
            f"got no PO2 of the blood that enters at node {node!r}; wanted that of all blood that "
            "enters. Add the node to inlet_po2."
        )
    return np.where(np.isfinite(po2), po2, 0.0)

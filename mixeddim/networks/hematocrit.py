"""Red cells at junctions, and the flow of blood whose viscosity they set.

At a diverging junction red cells do not split as the blood does: a daughter that takes a small
share FQ_B of the flow gets few or none. With D the diameters in µm, F the feeding vessel of
hematocrit H, and a, b the daughters, the share FQ_E of the red cells in daughter a is (Pries,
Secomb, Am. J. Physiol. 289 (2005) H2657, doi:10.1152/ajpheart.00297.2005)

    logit FQ_E = A + B logit((FQ_B - X0) / (1 - 2 X0)),    0 below X0, 1 above 1 - X0
    A = -13.29 (D_a²/D_b² - 1) / (D_a²/D_b² + 1) (1 - H) / D_F
    B = 1 + 6.98 (1 - H) / D_F        X0 = 0.964 (1 - H) / D_F

Junctions of other degrees follow the usual extension. Vessels that feed the same junction mix: H is
that of the mixture, and D_F the mean of their diameters by flow. Where more than two vessels leave,
each is a daughter beside the others, whose cross-section is the mean by flow, and the shares are
divided by their sum; where they sum up to less than 1/2, what is missing to 1/2 is added by flow.
Blood from outside has 1/D_F = 0 and splits like a mixture; so does what leaves to the outside. No
vessel takes more than hematocrit 0.95; the cells above that go where there is room.

All means are by flow, so that a vessel in which the flow vanishes has no effect on the others: the
red cells of each vessel depend on the flow continuously, also where a vessel turns its flow and
changes sides at its junctions. Means by number jump there, and a steady state may not exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from mixeddim.algebra.compiler import compiled

__all__ = ["MOST_CELLS", "STILL", "Junctions", "RedCells", "phase_separation"]

type Array = NDArray[np.float64]

MOST_CELLS = 0.95
"""Hematocrit of packed red cells."""

STILL = 1e-13
"""Flow below this part of the largest one is rounding."""

LEAST_CLAIMED = 0.5
"""Sum of the shares of many daughters below which the flow decides about the rest."""


def phase_separation(
    share_of_flow: ArrayLike,
    hematocrit: ArrayLike,
    feeding_diameter: ArrayLike,
    diameter: ArrayLike,
    other_diameter: ArrayLike,
) -> NDArray[np.float64]:
    """Return the share of the red cells that enter a daughter vessel at a bifurcation.

    Args:
        share_of_flow: FQ_B, the share of the blood that enters the daughter, from 0 to 1.
        hematocrit: Discharge hematocrit H of the feeding vessel, from 0 to 1.
        feeding_diameter: D_F [µm]; infinite where red cells split as the blood does.
        diameter: Diameter of the daughter [µm].
        other_diameter: Diameter of the other daughter [µm].

    Returns:
        FQ_E, from 0 to 1, of the shape to which the arguments broadcast. That of the other daughter
        is the rest.

    Raises:
        ValueError: If an argument is out of range.
    """
    F, H, D_F, D_a, D_b = (
        np.asarray(argument, dtype=float)
        for argument in (share_of_flow, hematocrit, feeding_diameter, diameter, other_diameter)
    )
    for name, values in (("share_of_flow", F), ("hematocrit", H)):
        if not np.all((values >= 0) & (values <= 1)):
            raise ValueError(
                f"got {name} from {values.min():.3g} to {values.max():.3g}; wanted them from 0 to "
                "1. Give shares, not per cent."
            )
    if not all(np.all(D > 0) for D in (D_F, D_a, D_b)):
        raise ValueError("got a diameter that is not positive; wanted positive ones in µm.")
    with np.errstate(divide="ignore", over="ignore"):  # at 0 and 1, where the logit is infinite
        return np.asarray(_share_of_cells(F, (1 - H) / D_F, D_a, D_b))


def _share_of_cells(F, plasma, D_a, D_b):  # type: ignore[no-untyped-def]
    """Return FQ_E, of numbers or of arrays; plasma is (1 - H) / D_F."""
    X0 = np.minimum(0.964 * plasma, 0.5 * (1 - 1e-6))  # a step at 1/2 is the limit
    A = -13.29 * (D_a**2 - D_b**2) / (D_a**2 + D_b**2) * plasma
    B = 1 + 6.98 * plasma
    x = np.minimum(np.maximum((F - X0) / (1 - 2 * X0), 0.0), 1.0)
    return 1 / (1 + np.exp(-A - B * (np.log(x) - np.log(1 - x))))


_share_in_loop = compiled(_share_of_cells)


@dataclass(frozen=True, eq=False)
class RedCells:
    """Red cells in a network.

    Attributes:
        flux: Volume of red cells per time along each edge, signed as its flow, shape (num_edges,).
        hematocrit: Discharge hematocrit of each edge, shape (num_edges,); where blood stands
            still, what was passed for that.
        node_inflow: Volume of red cells per time from outside at each node, negative for outflow,
            shape (num_nodes,).
    """

    flux: Array
    hematocrit: Array
    node_inflow: Array


class Junctions:
    """The nodes of a network as junctions of its vessels, at which red cells split and mix.

    Args:
        edges: Both ends of each edge as node ordinals, shape (num_edges, 2).
        diameter: That of each edge [µm].
        inlet_hematocrit: That of blood from outside at each node, shape (num_nodes,).
    """

    def __init__(self, edges: NDArray[np.int64], diameter: Array, inlet_hematocrit: Array) -> None:
        self.edges, self.diameter, self.inlet_hematocrit = edges, diameter, inlet_hematocrit
        num_nodes, ends = len(inlet_hematocrit), edges.ravel()
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=num_nodes))])
        self.incident = np.argsort(ends, kind="stable") // 2  # the edges of node after node

    def distribute(self, flow: Array, node_inflow: Array, where_still: Array) -> RedCells:
        """Follow the red cells down the flow, from junction to junction.

        Args:
            flow: Volume per time along each edge, positive from its first end to its second.
            node_inflow: Volume per time from outside at each node, negative for outflow.
            where_still: Hematocrit of the edges in which blood stands still, shape (num_edges,).
        """
        forth = flow > 0
        upstream = np.where(forth, self.edges[:, 0], self.edges[:, 1])
        downstream = np.where(forth, self.edges[:, 1], self.edges[:, 0])
        Q = np.where(abs(flow) > STILL * abs(flow).max(initial=0.0), abs(flow), 0.0)
        flux, outflow = np.zeros_like(Q), np.zeros_like(node_inflow)
        arguments = (self.starts, self.incident, upstream, downstream)
        rest = (node_inflow, self.inlet_hematocrit, self.diameter, flux, outflow)
        if not _descend(*arguments, Q, *rest):
            Q = _without_circulation(upstream, downstream, Q, len(outflow))
            flux[:] = 0.0
            _descend(*arguments, Q, *rest)
        hematocrit = np.divide(flux, Q, out=np.array(where_still, dtype=float), where=Q > 0)
        entering = np.maximum(node_inflow, 0.0) * self.inlet_hematocrit
        return RedCells(np.where(forth, flux, -flux), hematocrit, entering - outflow)


def _without_circulation(
    upstream: NDArray[np.int64], downstream: NDArray[np.int64], Q: Array, num_nodes: int
) -> Array:
    """Return the flow without what runs in circles.

    Blood runs down the pressure and never in a circle. Where blood stands still, rounding may say
    otherwise, and cells could enter such a circle and never leave it.
    """
    moving = Q > 0
    pairs = (upstream[moving], downstream[moving])
    ahead = sparse.coo_array((np.ones(moving.sum()), pairs), shape=(num_nodes, num_nodes))
    _, circle = connected_components(ahead.tocsr(), connection="strong")
    return np.where(circle[upstream] != circle[downstream], Q, 0.0)


@compiled
def _descend(  # type: ignore[no-untyped-def]
    starts, incident, upstream, downstream, Q, node_inflow, inlet_hematocrit, D, flux, outflow
):
    """Set the flux of red cells along each edge, and what leaves each node to the outside.

    A node is ready once all vessels that feed it have their flux. Returns whether all nodes were:
    those on a circle never are.
    """
    num_nodes = len(node_inflow)
    waits, ready, num_ready = np.zeros(num_nodes, np.int64), np.empty(num_nodes, np.int64), 0
    for edge in range(len(Q)):
        if Q[edge] > 0:
            waits[downstream[edge]] += 1
    for node in range(num_nodes):
        if waits[node] == 0:
            ready[num_ready] = node
            num_ready += 1
    done = 0
    while done < num_ready:
        node = ready[done]
        done += 1
        _split(node, starts, incident, upstream, Q, node_inflow, inlet_hematocrit, D, flux, outflow)
        for place in range(starts[node], starts[node + 1]):
            edge = incident[place]
            if Q[edge] > 0 and upstream[edge] == node:
                waits[downstream[edge]] -= 1
                if waits[downstream[edge]] == 0:
                    ready[num_ready] = downstream[edge]
                    num_ready += 1
    return done == num_nodes


@compiled
def _split(  # type: ignore[no-untyped-def]
    node, starts, incident, upstream, Q, node_inflow, inlet_hematocrit, D, flux, outflow
):
    """Give the red cells that arrive at a node to the vessels that leave it, and the outside."""
    entering, leaving = max(node_inflow[node], 0.0), max(-node_inflow[node], 0.0)
    cells = entering * inlet_hematocrit[node]
    fed, width, through, area, number = 0.0, 0.0, 0.0, 0.0, 0
    for place in range(starts[node], starts[node + 1]):
        edge = incident[place]
        if Q[edge] > 0 and upstream[edge] == node:
            through += Q[edge]
            area += Q[edge] * D[edge] ** 2
            number += 1
        elif Q[edge] > 0:
            fed += Q[edge]
            width += Q[edge] * D[edge]
            cells += flux[edge]
    if through + leaving == 0:
        outflow[node] = 0.0
        return
    outflow[node] = cells * leaving / (through + leaving)
    cells -= outflow[node]
    H = min(cells / through, MOST_CELLS) if through > 0 else 0.0
    # (1 - H) / D_F; blood from outside counts with 1 / D_F = 0.
    plasma = (1 - H) * fed / width * fed / (fed + entering) if fed > 0 else 0.0
    total = 0.0
    for place in range(starts[node], starts[node + 1]):
        edge = incident[place]
        if Q[edge] > 0 and upstream[edge] == node:
            rest, other = through - Q[edge], D[edge]
            if number == 1 or rest <= 0:
                share = 1.0
            else:
                other = np.sqrt(max(area - Q[edge] * D[edge] ** 2, 0.0) / rest)
                share = _share_in_loop(Q[edge] / through, plasma, D[edge], other)
            flux[edge] = share
            total += share
    claimed = max(total, LEAST_CLAIMED)
    excess, room = 0.0, 0.0
    for place in range(starts[node], starts[node + 1]):
        edge = incident[place]
        if Q[edge] > 0 and upstream[edge] == node:
            # No more than packed cells: what is too much goes where there is room.
            most = MOST_CELLS * Q[edge]
            wanted = (flux[edge] + (claimed - total) * Q[edge] / through) / claimed * cells
            flux[edge] = min(wanted, most)
            excess += max(wanted - most, 0.0)
            room += max(most - wanted, 0.0)
    if excess > 0 and room > 0:
        for place in range(starts[node], starts[node + 1]):
            edge = incident[place]
            if Q[edge] > 0 and upstream[edge] == node:
                flux[edge] += excess * (MOST_CELLS * Q[edge] - flux[edge]) / room

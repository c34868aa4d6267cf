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
each is a daughter beside the mean cross-section of the others, and the shares are divided by their
sum. Blood from outside has no D_F and splits like a mixture; so does what leaves to the outside.
No vessel takes more than hematocrit 0.95; the cells above that go where there is room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.special import expit, logit

__all__ = ["MOST_CELLS", "STILL", "RedCells", "distribute_red_cells", "phase_separation"]

type Array = NDArray[np.float64]

MOST_CELLS = 0.95
"""Hematocrit of packed red cells."""

STILL = 1e-13
"""Flow below this part of the largest one is rounding."""


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
    plasma = (1 - H) / D_F
    X0 = np.minimum(0.964 * plasma, 0.5 * (1 - 1e-6))  # a step at 1/2 is the limit
    A = -13.29 * (D_a**2 - D_b**2) / (D_a**2 + D_b**2) * plasma
    B = 1 + 6.98 * plasma
    with np.errstate(divide="ignore"):  # at 0 and 1, where the logit is infinite
        shares: Array = expit(A + B * logit(np.clip((F - X0) / (1 - 2 * X0), 0.0, 1.0)))
    return shares


@dataclass(frozen=True, eq=False)
class RedCells:
    """Red cells in a network.

    Attributes:
        flux: Volume of red cells per time along each edge, signed as its flow, shape (num_edges,).
        hematocrit: Discharge hematocrit of each edge, shape (num_edges,); where blood stands
            still, that of the guess.
        node_inflow: Volume of red cells per time from outside at each node, negative for outflow,
            shape (num_nodes,).
    """

    flux: Array
    hematocrit: Array
    node_inflow: Array


def distribute_red_cells(
    edges: NDArray[np.int64],
    flow: Array,
    node_inflow: Array,
    inlet_hematocrit: Array,
    diameter: Array,
    guess: Array,
) -> RedCells:
    """Distribute red cells over a network in which the flow is known.

    The shares at each junction are those of the hematocrit in a guess. So the cells that arrive at
    all nodes solve one linear system, which conserves them for any guess:

        c = c_inlet + T S c        S shares from node to edge, T from edge to the node downstream

    Args:
        edges: Both ends of each edge as node ordinals, shape (num_edges, 2).
        flow: Volume per time along each edge, positive from its first end to its second.
        node_inflow: Volume per time from outside at each node, negative for outflow.
        inlet_hematocrit: That of blood from outside at each node, shape (num_nodes,).
        diameter: That of each edge [µm].
        guess: Discharge hematocrit of each edge.
    """
    num_nodes, num_edges = len(node_inflow), len(edges)
    forth = flow > 0
    upstream = np.where(forth, edges[:, 0], edges[:, 1])
    downstream = np.where(forth, edges[:, 1], edges[:, 0])
    Q = _without_circulation(upstream, downstream, abs(flow), num_nodes)
    entering, leaving = np.maximum(node_inflow, 0.0), np.maximum(-node_inflow, 0.0)

    def arriving(values: Array) -> Array:
        return _totals(downstream, Q * values, num_nodes)

    fed = arriving(np.ones(num_edges))
    H = _ratio(arriving(guess) + entering * inlet_hematocrit, fed + entering)
    D_F = _ratio(arriving(diameter), fed, otherwise=np.inf)
    shares = _shares(upstream, Q, np.minimum(H, MOST_CELLS), D_F, diameter, num_nodes)
    through = _totals(upstream, Q, num_nodes)
    shares *= _ratio(through, through + leaving)[upstream]

    T_S = sparse.coo_array((shares, (downstream, upstream)), shape=(num_nodes, num_nodes))
    remaining = (sparse.eye_array(num_nodes) - T_S).tocsc()
    factors = splu(remaining)
    inlets = entering * inlet_hematocrit
    cells = factors.solve(inlets)
    cells += factors.solve(inlets - remaining @ cells)
    cells = np.maximum(cells, 0.0)  # rounding
    flux = shares * cells[upstream]
    return RedCells(
        np.where(forth, flux, -flux),
        _ratio(flux, Q, otherwise=guess),
        inlets - cells * _ratio(leaving, through + leaving),
    )


def _without_circulation(
    upstream: NDArray[np.int64], downstream: NDArray[np.int64], Q: Array, num_nodes: int
) -> Array:
    """Return the flow without what is rounding, or runs in circles.

    Blood runs down the pressure and never in a circle. Where blood stands still, rounding may say
    otherwise, and cells could enter such a circle and never leave it.
    """
    moving = STILL * Q.max() < Q
    pairs = (upstream[moving], downstream[moving])
    ahead = sparse.coo_array((np.ones(moving.sum()), pairs), shape=(num_nodes, num_nodes))
    _, circle = connected_components(ahead.tocsr(), connection="strong")
    return np.where(moving & (circle[upstream] != circle[downstream]), Q, 0.0)


def _shares(
    upstream: NDArray[np.int64], Q: Array, H: Array, D_F: Array, D: Array, num_nodes: int
) -> Array:
    """Return the share that each edge takes of the red cells at the node upstream."""

    def leaving(values: Array) -> Array:
        return _totals(upstream, values, num_nodes)

    flowing = (Q > 0).astype(float)
    number = leaving(flowing)[upstream]
    of_flow = _ratio(Q, leaving(Q)[upstream])
    rest = np.maximum(leaving(flowing * D**2)[upstream] - D**2, 0.0)
    other = np.where((number > 1) & (flowing > 0), np.sqrt(_ratio(rest, number - 1, D**2)), D)
    of_cells = phase_separation(of_flow, H[upstream], D_F[upstream], D, other)
    of_cells = np.where(number == 1, flowing, of_cells * flowing)
    total = leaving(of_cells)[upstream]
    of_cells = np.where(total > 0, _ratio(of_cells, total), of_flow)  # many daughters below X0
    # No more than packed cells: what is too much goes where there is room.
    most = _ratio(MOST_CELLS * of_flow, H[upstream], otherwise=np.inf)  # where H = 0 all are 0
    room = np.maximum(most - of_cells, 0.0)
    excess = np.maximum(of_cells - most, 0.0)
    if excess.any():
        total_room = leaving(np.where(np.isinf(room), 0.0, room))[upstream]
        of_cells += leaving(excess)[upstream] * _ratio(room, total_room) - excess
    return of_cells


def _totals(nodes: NDArray[np.int64], values: Array, num_nodes: int) -> Array:
    """Return the sum of the values at each node."""
    return np.asarray(np.bincount(nodes, values, num_nodes), dtype=float)


def _ratio(numerator: Array, denominator: Array, otherwise: float | Array = 0.0) -> Array:
    """Return the ratio where the denominator is positive, something else where it is not."""
    out = np.broadcast_to(np.asarray(otherwise, dtype=float), np.shape(numerator)).copy()
    return np.divide(numerator, denominator, out=out, where=denominator > 0)

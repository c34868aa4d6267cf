# # A bifurcation: inflow equals outflow
#
# No blood is lost where a vessel branches. This demo
#
# - builds a Y of three vessels by hand, as a graph, with radii and angles by Murray's law,
# - solves for the pressures of blood and tissue,
# - computes the flow along each vessel, and its sum at the junction.
#
# ## The problem
#
# $u_{1d}$ is the pressure of blood in the network, $u_{3d}$ that of the fluid in the tissue. The
# flow along a vessel of radius R is $Q = -k_{1d}\, \partial_s u_{1d}$ with Poiseuille's conductance
# $k_{1d} = \pi R^4 / (8 \mu)$. The flow through its wall per length is
# $q = \beta\, (u_{1d} - T u_{3d})$ with $\beta = 2 \pi R \kappa$:
#
# $$ \partial_s Q + q = 0 \quad\text{on } \Lambda, \qquad
#    -\nabla\cdot(k_{3d} \nabla u_{3d}) + \sigma_{3d} u_{3d} = q\, \delta_\Lambda
#    \quad\text{in } \Omega. $$
#
# The pressure is 1 where the mother vessel enters and 0 where the daughters end. The junction needs
# no condition. The weak form holds for all $v_{1d}$ that are continuous there. Take the one that is
# 1 at the junction and 0 beyond its neighbours: the flows into the junction add up to zero, so
# Kirchhoff's law is a natural condition.

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np

import mixeddim as md

# ## The data
#
# A network is a `networkx.Graph` whose nodes have a position `pos` and whose edges have a `radius`;
# `inlet` marks where blood enters. Murray (1926, doi:10.1073/pnas.12.3.207) derives the radii and
# angles with the least power for pumping and upkeep:
#
# $$ R_0^3 = R_1^3 + R_2^3, \qquad
#    \cos\theta_1 = \frac{R_0^4 + R_1^4 - R_2^4}{2 R_0^2 R_1^2}, $$
#
# and the same for $\theta_2$: the thinner daughter has the larger angle.

R_0, R_1 = 0.05, 0.043
R_2 = (R_0**3 - R_1**3) ** (1 / 3)
JUNCTION, LENGTH = np.array([0.5, 0.5, 0.55]), 0.45


def angle(daughter: float, other: float) -> float:
    """Return the angle between the mother and a daughter vessel, from their radii."""
    return float(np.arccos((R_0**4 + daughter**4 - other**4) / (2 * R_0**2 * daughter**2)))


def bifurcation() -> nx.Graph:
    graph = nx.Graph()
    graph.add_node("inlet", pos=(0.5, 0.5, 1.0), inlet=True)
    graph.add_node("junction", pos=tuple(JUNCTION))
    graph.add_edge("inlet", "junction", radius=R_0)
    for name, radius, theta in (("left", R_1, -angle(R_1, R_2)), ("right", R_2, angle(R_2, R_1))):
        along = np.array([np.sin(theta), 0.0, -np.cos(theta)])
        graph.add_node(name, pos=tuple(JUNCTION + LENGTH * along))
        graph.add_edge("junction", name, radius=radius)
    return graph


# Lengths are in units of the box's side, and $k_{1d}$ in units of the mother's, so that a vessel of
# radius R has $(R / R_0)^4$. `network.radius` is a function on the mesh of the network, and can be
# used in expressions.


def solve(num_cells: int, permeability: float = 1.0) -> md.Solution:
    box = md.create_box(num_cells)
    network = md.create_network(bifurcation(), max_segment_length=box.spacing)
    coefficients = md.Coefficients(
        k_3d=1.0, sigma_3d=1.0, k_1d=(network.radius / R_0) ** 4, permeability=permeability
    )
    pressures = [md.Dirichlet("inlets", 1.0), md.Dirichlet("ends", 0.0)]
    return md.solve(md.assemble(box, network, coefficients, bcs_1d=pressures))


# ## Flows
#
# Multiply the equation of the network by a test function v and integrate along one vessel, from its
# first end a to its second end b:
#
# $$ Q_a v_a - Q_b v_b = (k_{1d}\, \partial_s u_{1d}, \partial_s v) + (q, v). $$
#
# For this vessel alone, the right-hand side has the entry $Q_a$ at the node a, the inflow there,
# and $-Q_b$ at b. All other entries vanish. With v = 1 their sum says that the inflow leaves at b
# or through the wall. The entries of several vessels at one junction add up to the equation of that
# node in the solved system, so their sum is zero, on any mesh, down to rounding. The slope of
# $u_{1d}$ in the last element would miss the flow through the wall there. `md.edge_table` returns
# these flows and the other quantities of each vessel, `md.node_inflow` their sum at each node.


# ## What came out
#
# A tenth of the blood leaves through the walls, and the junction loses nothing. The daughters have
# the same length and the same pressures at their ends, so their flows are as $R^4$. In Murray's
# optimum they would be as $R^3$, which needs a lower pressure at the end of the thin daughter.


@dataclass(frozen=True)
class Result:
    solution: md.Solution
    vessels: md.EdgeTable
    imbalance: float  # of the flows at the junction, relative to the mother's
    picture: Path


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(
        description="Solve a bifurcation in tissue and follow the flow through it."
    )
    add = parser.add_argument
    add("--num-cells", type=int, default=24, help="cells along each side of the box (24)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    solution = solve(args.num_cells)
    vessels = md.edge_table(solution)
    inflow = dict(zip(solution.system.network.graph, md.node_inflow(solution), strict=True))
    imbalance = abs(inflow["junction"]) / inflow["inlet"]

    missing = vessels.flux_start - vessels.flux_end - vessels.exchange
    columns = (vessels.radius, vessels.flux_start, vessels.flux_end, vessels.exchange)
    print("vessel              radius  flow in  flow out  through wall  missing")
    for (a, b), radius, start, end, wall, lost in zip(vessels.ends, *columns, missing, strict=True):
        amounts = f"{start:>7.4f}  {end:>8.4f}  {wall:>12.4f}  {lost:>7.0e}"
        print(f"{f'{a} - {b}':<18}  {radius:.4f}  {amounts}")
    print(f"\nmissing at the junction, relative  {imbalance:.1e}")
    print(f"mass balance error                 {solution.mass_balance.error:.1e}")
    titles = ("blood pressure", "tissue pressure")
    picture = md.plot(solution, args.output / "bifurcation.png", titles=titles)
    print(f"\nwritten:\n  {picture}")
    return Result(solution, vessels, imbalance, picture)


if __name__ == "__main__":
    main()

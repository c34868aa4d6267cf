# # A network from a file
#
# Measured networks come in many formats with different units, and need repair before a solver can
# use them: vessels are chains of short pieces, ends that should meet lie apart, some parts are not
# connected. This demo takes a network from its file to pressures and flows in SI units. It shows
# how to
#
# - read a network, with its units and the data at its ends,
# - repair it in steps, each with a report,
# - make the problem nondimensional, solve it, and return to physical units,
# - draw the network in µm, and the solution.
#
# ## The problem
#
# Blood flows through the network $\Lambda$ and leaks through the walls of its vessels into the
# tissue $\Omega$ around, from where lymph vessels drain it. For the pressures $p_{3d}$ in the
# tissue and $p_{1d}$ in the vessels this reads
#
# $$ -\nabla\cdot(K \nabla p_{3d}) + S\, p_{3d}
#    + 2\pi R L_p\, (T p_{3d} - p_{1d})\, \delta_\Lambda = 0 \quad\text{in } \Omega, $$
# $$ -\partial_s\Bigl(\frac{\pi R^4}{8\mu}\, \partial_s p_{1d}\Bigr)
#    + 2\pi R L_p\, (p_{1d} - T p_{3d}) = 0 \quad\text{on } \Lambda, $$
#
# with the mean $T p_{3d}$ over the vessel's circumference. At its ends the network has a given
# pressure, $p_{1d} = p$, or a given flow $Q$ into it; nothing passes the faces of the box.
#
# ## Weak form
#
# Find $p_{3d}$, and $p_{1d}$ with the given values, such that for all $v_{3d}$, and $v_{1d}$ that
# vanish where $p_{1d}$ is given,
#
# $$ (K \nabla p_{3d}, \nabla v_{3d})_\Omega + (S\, p_{3d}, v_{3d})_\Omega
#  + \Bigl(\frac{\pi R^4}{8\mu}\, \partial_s p_{1d}, \partial_s v_{1d}\Bigr)_\Lambda
#  + (2\pi R L_p\, (T p_{3d} - p_{1d}), T v_{3d} - v_{1d})_\Lambda
#  = \sum_{\text{ends}} Q\, v_{1d}. $$

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

import mixeddim as md

MESHES = Path(__file__).resolve().parents[1] / "meshes"

# ## Reading
#
# `md.read_network` chooses the reader by the suffix of the file. Two formats fix their units and
# are converted to m, Pa and m³/s: Secomb's `Network.dat` (`.dat`: µm, mmHg, nl/min) and SWC
# (`.swc`: µm). The others hold bare numbers, which `length_unit` multiplies: `--length-unit 1e-6`
# where they are µm. DGF does not name its columns, and MANworks stores the radii in a separate
# file.
#
# The file gives the data at the ends. Nodes with a `pressure` [Pa] become inlets, the mark of nodes
# with a given value; nodes with an `inflow` [m³/s] are given that flow. For a file with neither,
# the pressure at all ends falls along x from 4000 to 2000 Pa.


def read(file: Path, length_unit: float | None, radii: Path | None) -> nx.Graph:
    options: dict[str, Any] = {} if length_unit is None else {"length_unit": length_unit}
    if file.suffix.lower() == ".dgf":
        options |= {"node_parameters": {"pressure": 0}, "edge_parameters": {"radius": 0}}
    if radii is not None:
        options["radii"] = radii
    return md.read_network(file, **options)


def with_end_data(graph: nx.Graph) -> nx.Graph:
    """Return a copy in which each component has a given pressure, and all nodes an inflow."""
    copy = graph.copy()
    ends = {node for node, degree in graph.degree if degree == 1}
    given = {node for node in ends if "pressure" in graph.nodes[node]}
    if not given:
        x = {node: pos[0] for node, pos in graph.nodes(data="pos")}
        low, extent = min(x.values()), max(x.values()) - min(x.values()) or 1.0
        given = ends
        for node in ends:
            copy.nodes[node]["pressure"] = 4000.0 - 2000.0 * (x[node] - low) / extent
    for node, attributes in copy.nodes(data=True):
        attributes["inlet"] = node in given
        attributes.setdefault("pressure", 0.0)  # of no account but at the inlets
        attributes.setdefault("inflow", 0.0)
    return copy


# ## Repair
#
# There are three steps, in this order. First, nodes within a nanometre of each other are merged: a
# file of polylines stores the same point once per polyline. Second, parts that are not connected to
# the largest one are removed, with the pressures at their ends. Read the report, and raise the
# tolerance where ends that should meet lie farther apart. Third, chains of short edges are
# straightened where that moves the vessel by less than a quarter of its radius, which hardly
# changes a mean over the circumference; the new edges keep the resistance of the chains.


def mend(graph: nx.Graph) -> tuple[md.Cleaning, ...]:
    radius = md.network_statistics(graph).radius.median
    merged = md.merge_close_nodes(graph, tolerance=1e-9)
    connected = md.largest_component(merged.graph)
    return merged, connected, md.resolve_chains(connected.graph, tolerance=0.25 * radius)


# ## Units
#
# Lengths in units of the network's extent $L$ and division by $K$ turn the problem into
#
# $$ \hat k_{3d} = 1, \quad \hat\sigma_{3d} = S L^2 / K, \quad \hat\kappa = L_p L / K,
#    \quad \hat k_{1d} = \pi L^2 \hat R^4 / (8 \mu K), \quad \hat Q = Q / (K L). $$
#
# Pressures stay in Pa, flows are in units of $K L$ times Pa. The values are typical of normal
# tissue (Baxter, Jain, Microvasc. Res. 37 (1989) 77, to one digit).

TISSUE_CONDUCTIVITY = 6e-15  # K [m² / (Pa s)]
TISSUE_DRAINAGE = 1e-7  # S [1 / (Pa s)]
WALL_CONDUCTIVITY = 3e-12  # L_p [m / (Pa s)]
BLOOD_VISCOSITY = 4e-3  # mu [Pa s]
MARGIN = 0.1  # of tissue around the network, in units of its extent


@dataclass(frozen=True)
class Problem:
    system: md.CoupledSystem
    flow_scale: float  # m³/s


def assemble(graph: nx.Graph, num_cells: int) -> Problem:
    positions = np.array([position for _, position in graph.nodes(data="pos")])
    lower, upper = positions.min(axis=0), positions.max(axis=0)
    L, K = float((upper - lower).max()) * (1 + 2 * MARGIN), TISSUE_CONDUCTIVITY
    origin = 0.5 * (lower + upper) - 0.5 * L
    scaling = md.Scaling(length=L, origin=(origin[0], origin[1], origin[2]))

    box = md.create_box(num_cells)
    network = md.create_network(scaling.apply(with_end_data(graph)), box.spacing)
    coefficients = md.Coefficients(
        k_3d=1.0,
        sigma_3d=TISSUE_DRAINAGE * L**2 / K,
        k_1d=np.pi * L**2 / (8 * BLOOD_VISCOSITY * K) * network.radius**4,
        permeability=WALL_CONDUCTIVITY * L / K,
    )
    inflow = network.node_field("inflow")
    inflow.x.array[:] /= K * L
    bcs: list[Any] = [md.Dirichlet("inlets", network.node_field("pressure"))]
    if np.any(inflow.x.array):
        bcs.append(md.Neumann("ends", inflow))
    return Problem(
        md.assemble(box, network, coefficients, bcs_1d=bcs, outside="renormalise"), K * L
    )


# ## Solution, pictures, numbers
#
# At a node with a given pressure, the inflow is the residual of the equation that this value
# replaced; at the other ends it is given. All that enters through the ends and does not leave
# through them passes the walls.


@dataclass(frozen=True)
class Result:
    read: nx.Graph  # in m
    steps: tuple[md.Cleaning, ...]
    solution: md.Solution
    inflow: float  # into the network through its ends [m³/s]
    outflow: float
    exchange: float  # over the walls into the tissue [m³/s]
    files: tuple[Path, ...]


def solve(read: nx.Graph, num_cells: int, output: Path) -> Result:
    steps = mend(read)
    problem = assemble(steps[-1].graph, num_cells)
    system, solution = problem.system, md.solve(problem.system)
    _, residual = system.unconstrained_residual(solution.u_3d.x.array, solution.u_1d.x.array)
    flow = system.side_1d.h.copy()
    flow[system.side_1d.dirichlet_dofs] += residual[system.side_1d.dirichlet_dofs]
    flow *= problem.flow_scale

    micrometres = md.Scaling(length=1e-6).apply(with_end_data(steps[-1].graph))
    pictures = (
        md.plot_network(
            md.create_network(micrometres, max_segment_length=1e6),
            output / "network.png",
            title="radius [µm]",
        ),
        md.plot(
            solution,
            output / "solution.png",
            titles=("blood pressure [Pa]", "tissue pressure [Pa]"),
        ),
    )
    cleaned = md.write_network(steps[-1].graph, output / "cleaned.graphml")
    return Result(
        read=read,
        steps=steps,
        solution=solution,
        inflow=float(np.maximum(flow, 0.0).sum()),
        outflow=float(np.maximum(-flow, 0.0).sum()),
        exchange=problem.flow_scale * solution.mass_balance.exchange,
        files=(*pictures, cleaned),
    )


def report(file: Path, result: Result) -> None:
    print(f"{file}, in m\n{md.network_statistics(result.read)}\n")
    print(*result.steps, sep="\n", end="\n\n")
    p_1d, p_3d = (field.x.array for field in (result.solution.u_1d, result.solution.u_3d))
    print(f"blood pressure          {p_1d.min():.4g} to {p_1d.max():.4g} Pa")
    print(f"tissue pressure         {p_3d.min():.4g} to {p_3d.max():.4g} Pa")
    print(f"flow into the network   {result.inflow:.4g} m³/s")
    print(f"flow out of it          {result.outflow:.4g} m³/s")
    print(f"exchange over the wall  {result.exchange:.4g} m³/s")
    print(f"mass balance error      {result.solution.mass_balance.error:.1e}\n")
    print("written:", *result.files, sep="\n  ")


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description="Read a network from a file and solve on it.")
    add = parser.add_argument
    file = MESHES / "capillaries.dat"
    add("--network", type=Path, default=file, metavar="FILE", help="input (meshes/capillaries.dat)")
    add("--length-unit", type=float, metavar="METRES", help="of a file that fixes no unit (1)")
    add("--radii", type=Path, metavar="FILE", help="with the radii of the arcs of a .pts file")
    add("--num-cells", type=int, default=24, help="cells along each side of the box (24)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)
    result = solve(read(args.network, args.length_unit, args.radii), args.num_cells, args.output)
    report(args.network, result)
    return result


if __name__ == "__main__":
    main()

# # A vascular network in tissue
#
# Blood vessels are far thinner than the tissue they feed. Instead of meshing their walls, we keep
# them as a network of lines $\Lambda$ (1D) in a box of tissue $\Omega$ (3D), and let both exchange
# what flows through the vessel wall. This demo shows how to
#
# - generate a vascular network, or read a measured one,
# - mesh network and tissue, assemble the coupled problem, and reduce it to the tissue,
# - solve it as a whole and reduced, compare both, and check the mass balance,
# - draw the result and write it for ParaView.
#
# ## The problem
#
# The unknowns are $u_{3d}$ in the tissue and $u_{1d}$ in the network, pressures or concentrations:
#
# $$ -\nabla\cdot(k_{3d} \nabla u_{3d}) + \sigma_{3d} u_{3d}
#    + \beta\, (T u_{3d} - u_{1d})\, \delta_\Lambda = f_{3d} \quad\text{in } \Omega, $$
# $$ -\partial_s(k_{1d}\, \partial_s u_{1d})
#    + \beta\, (u_{1d} - T u_{3d}) = f_{1d} \quad\text{on } \Lambda. $$
#
# $T u_{3d}(s)$ is the mean of $u_{3d}$ over the circle of the vessel's radius $\varepsilon$ around
# it, and $\beta = 2\pi\varepsilon\kappa$ its perimeter times the permeability $\kappa$ of the wall.
# $u_{1d}$ is given at the inlets; nothing leaves through the other ends or the faces of the box.
#
# ## Weak form and discretisation
#
# The test function of the tissue is averaged as well, which makes the coupling symmetric: find
# $u_{3d}, u_{1d}$ such that for all $v_{3d}, v_{1d}$
#
# $$ (k_{3d} \nabla u_{3d}, \nabla v_{3d})_\Omega + (\sigma_{3d} u_{3d}, v_{3d})_\Omega
#  + (k_{1d}\, \partial_s u_{1d}, \partial_s v_{1d})_\Lambda
#  + (\beta (T u_{3d} - u_{1d}), T v_{3d} - v_{1d})_\Lambda
#  = (f_{3d}, v_{3d})_\Omega + (f_{1d}, v_{1d})_\Lambda. $$
#
# Both meshes carry continuous, piecewise linear functions. The network enters the tissue's matrix
# through an averaging matrix $\Pi$ alone, so that neither mesh has to follow the other. Eliminating
# the network leaves a problem in the tissue, $S u_{3d} = g$ with the Schur complement
# $S = A_{33} - A_{31} A_{11}^{-1} A_{13}$.

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mixeddim as md

# ## The data
#
# A problem is an assembled system, the units that its numbers stand for, and the titles of the
# colour bars. In the random network all is nondimensional: a unit cube, unit coefficients, vessels
# of radius 0.05, and $u_{1d} = 1$ at the inlets.


@dataclass(frozen=True)
class Problem:
    system: md.CoupledSystem
    length: str = ""
    flow_unit: str = ""
    flow_scale: float = 1.0
    titles: tuple[str, str] = ("u_1d (network)", "u_3d (tissue)")


def random_problem(num_cells: int, num_nodes: int, method: str, seed: int) -> Problem:
    graph = md.random_vascular_graph(num_nodes=num_nodes, radius=0.05, seed=seed, method=method)
    box = md.create_box(num_cells)
    network = md.create_network(graph, max_segment_length=box.spacing)
    coefficients = md.Coefficients(k_3d=1.0, sigma_3d=1.0, k_1d=1.0, permeability=1.0)
    return Problem(md.assemble(box, network, coefficients))


# With `--network` the vessels come from a file: coordinates and radii in m, a pressure in Pa at
# each node, which is imposed where the network was cut out of the tissue, at its end points.
# Circles around vessels near the faces leave the box: their mean is taken over the part inside.
#
# The unknowns are then pressures of blood and of the fluid in the tissue. In SI units $k_{3d} = K$
# is the hydraulic conductivity of the tissue, $\sigma_{3d}$ its drainage, $\kappa = L_p$ the
# hydraulic conductivity of the wall, and $k_{1d} = \pi R^4 / (8\mu)$ Poiseuille's conductance.
# Lengths in units of the sample's side $L$ and division by $K$ make them nondimensional:
#
# $$ \hat k_{3d} = 1, \quad \hat\sigma_{3d} = \sigma_{3d} L^2 / K, \quad \hat\kappa = L_p L / K,
#    \quad \hat k_{1d} = k_{1d} / (K L^2) = \pi L^2 \hat R^4 / (8 \mu K). $$
#
# In capillaries they lie between 0.1 and 120. The box is a cube whose side is the largest extent
# of the network. Pressures stay in Pa, since the problem is linear; flows are in units of $K L$
# times Pa. The values are typical of normal tissue (Baxter, Jain, Microvasc. Res. 37
# (1989) 77, to one digit; osmotic pressures are left out).

TISSUE_CONDUCTIVITY = 6e-15  # K [m² / (Pa s)]
TISSUE_DRAINAGE = 1e-7  # sigma_3d [1 / (Pa s)], by lymph vessels at zero pressure
WALL_CONDUCTIVITY = 3e-12  # L_p [m / (Pa s)]
BLOOD_VISCOSITY = 4e-3  # mu [Pa s]


def measured_problem(num_cells: int, file: Path) -> Problem:
    graph = md.read_dgf(file, node_parameters={"pressure": 0}, edge_parameters={"radius": 0})
    positions = np.array([position for _, position in graph.nodes(data="pos")])
    L, K = float(np.ptp(positions, axis=0).max()), TISSUE_CONDUCTIVITY
    scaling = md.Scaling(length=L, origin=tuple(positions.min(axis=0)))
    box = md.create_box(num_cells)
    network = md.create_network(scaling.apply(md.mark_ends_as_inlets(graph)), box.spacing)
    coefficients = md.Coefficients(
        k_3d=1.0,
        sigma_3d=TISSUE_DRAINAGE * L**2 / K,
        k_1d=np.pi * L**2 / (8 * BLOOD_VISCOSITY * K) * network.radius**4,
        permeability=WALL_CONDUCTIVITY * L / K,
    )
    end_pressure = md.Dirichlet("inlets", network.node_field("pressure"))
    system = md.assemble(box, network, coefficients, bcs_1d=[end_pressure], outside="renormalise")
    titles = ("blood pressure [Pa]", "tissue pressure [Pa]")
    return Problem(system, f", lengths in units of {L:.4g} m", " m³/s", K * L, titles)


# ## Solution
#
# The whole system is factored by MUMPS. The reduced one is solved by conjugate gradients,
# preconditioned by algebraic multigrid; the factors of $A_{11}$ then give $u_{1d}$. At a node with
# a given value, the residual of the equation that this value replaced is what flows in there.


@dataclass(frozen=True)
class Result:
    direct: md.Solution
    reduced: md.Solution
    difference: float  # of the two, relative to the largest value
    inflow: float  # into the network where values are given, in the unit of the problem
    outflow: float
    files: tuple[Path, ...]


def solve(problem: Problem, output: Path) -> Result:
    system = problem.system
    direct, reduced = md.solve(system), md.solve(system, method="reduced")
    difference = max(
        np.abs(a.x.array - b.x.array).max() / np.abs(b.x.array).max()
        for a, b in ((reduced.u_3d, direct.u_3d), (reduced.u_1d, direct.u_1d))
    )
    _, residual = system.unconstrained_residual(direct.u_3d.x.array, direct.u_1d.x.array)
    flow = problem.flow_scale * residual[system.side_1d.dirichlet_dofs]
    inflow, outflow = np.maximum(flow, 0).sum(), np.maximum(-flow, 0).sum()

    pictures = (
        md.plot_network(system.network, output / "network.png"),
        md.plot(direct, output / "solution.png", titles=problem.titles),
    )
    data = md.write_outputs(direct, output)
    files = (*pictures, data.tissue, data.network)
    return Result(direct, reduced, float(difference), float(inflow), float(outflow), files)


# ## What came out


def report(problem: Problem, result: Result) -> None:
    direct, reduced = result.direct, result.reduced
    sizes = len(direct.u_3d.x.array), len(direct.u_1d.x.array)
    exchange = problem.flow_scale * direct.mass_balance.exchange
    print(f"network{problem.length}\n{md.network_statistics(problem.system.network.graph)}\n")
    print("solver         unknowns  iterations  residual")
    for name, size, solution in (("direct", sum(sizes), direct), ("reduced", sizes[0], reduced)):
        row = f"{size:>8}  {solution.iterations:>10}  {solution.relative_residual:>8.1e}"
        print(f"{name:<13}  {row}")
    print(f"\ndifference of both      {result.difference:.1e}")
    print(f"mass balance error      {direct.mass_balance.error:.1e}")
    for title, field in zip(problem.titles, (direct.u_1d, direct.u_3d), strict=True):
        print(f"{title:<22}  {field.x.array.min():.4g} to {field.x.array.max():.4g}")
    print(f"flow into the network   {result.inflow:.4g}{problem.flow_unit}")
    print(f"flow out of it          {result.outflow:.4g}{problem.flow_unit}")
    print(f"exchange over the wall  {exchange:.4g}{problem.flow_unit}\n")
    print("written:", *result.files, sep="\n  ")


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description="Solve and draw a vascular network in tissue.")
    add = parser.add_argument
    add("--num-cells", type=int, default=20, help="cells along each side of the box (20)")
    add("--num-nodes", type=int, default=40, help="nodes of the random network (40)")
    add("--method", default="spanning_tree", help="or murray_tree, capillary_mesh: its generator")
    add("--seed", type=int, default=7, help="its seed (7)")
    add("--network", type=Path, metavar="FILE", help="a measured network in its place (DGF)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)
    if args.network is None:
        problem = random_problem(args.num_cells, args.num_nodes, args.method, args.seed)
    else:
        problem = measured_problem(args.num_cells, args.network)
    result = solve(problem, args.output)
    report(problem, result)
    return result


if __name__ == "__main__":
    main()

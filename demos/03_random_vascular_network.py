# # A vascular network in tissue
#
# Blood vessels are far thinner than the tissue they feed. Instead of meshing their walls, we model
# them as a network of lines $\Lambda$ (1D) in a box of tissue $\Omega$ (3D), and couple both by the
# flux through the vessel wall. This demo shows how to
#
# - generate a vascular network (demo 10 reads one from a file),
# - mesh network and tissue, assemble the coupled problem, and reduce it to the tissue,
# - solve it as a whole and reduced, compare both, and check the mass balance,
# - draw the result and write it for ParaView,
# - run all of this on several processes: `mpiexec -n 4 python -m mpi4py` before the name of the
#   script gives the same numbers and files.
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
# only through an averaging matrix $\Pi$, so the two meshes need not match. Eliminating the network
# leaves a problem in the tissue, $S u_{3d} = g$ with the Schur complement
# $S = A_{33} - A_{31} A_{11}^{-1} A_{13}$.

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import mixeddim as md

# ## The data
#
# The problem is nondimensional: a unit cube, unit coefficients, vessels of radius 0.05, and
# $u_{1d} = 1$ at the inlets.

TITLES = ("pressure u_1d in vessels", "pressure u_3d in tissue")


def assemble(num_cells: int, num_nodes: int, method: str, seed: int) -> md.CoupledSystem:
    graph = md.random_vascular_graph(num_nodes=num_nodes, radius=0.05, seed=seed, method=method)
    box = md.create_box(num_cells)
    network = md.create_network(graph, max_segment_length=box.spacing)
    coefficients = md.Coefficients(k_3d=1.0, sigma_3d=1.0, k_1d=1.0, permeability=1.0)
    return md.assemble(box, network, coefficients)


# ## Solution
#
# MUMPS factors the whole system. Conjugate gradients, preconditioned by algebraic multigrid, solve
# the reduced one; the factors of $A_{11}$ then give $u_{1d}$. At a node with a given value, the
# inflow is the residual of the equation that this value replaced.


@dataclass(frozen=True)
class Result:
    direct: md.Solution
    reduced: md.Solution
    difference: float  # of the two, relative to the largest value
    inflow: float  # into the network at its inlets
    files: tuple[Path, ...]


def fields(solution: md.Solution) -> dict[str, NDArray[np.float64]]:
    """Return all values of both fields; `u_3d.x.array` are those that a process holds."""
    u_1d, u_3d = md.network_dataset(solution)["u_1d"], md.tissue_dataset(solution)["u_3d"]
    return {"u_1d": u_1d, "u_3d": u_3d}


def solve(system: md.CoupledSystem, output: Path) -> Result:
    direct, reduced = md.solve(system), md.solve(system, method="reduced")
    difference = max(
        np.abs(a - b).max() / np.abs(b).max()
        for a, b in zip(fields(reduced).values(), fields(direct).values(), strict=True)
    )
    _, residual = system.unconstrained_residual(direct.u_3d.x.array, direct.u_1d.x.array)
    inflow = residual[system.side_1d.dirichlet_dofs].sum()

    pictures = (
        md.plot_network(system.network, output / "network.png"),
        md.plot(direct, output / "solution.png", titles=TITLES),
        md.export_html(direct, output / "solution.html"),
    )
    data = md.write_outputs(direct, output)
    files = (*pictures, data.tissue, data.network)
    return Result(direct, reduced, float(difference), float(inflow), files)


# ## What came out


def report(result: Result) -> str:
    direct, reduced = result.direct, result.reduced
    sizes = [u.function_space.dofmap.index_map.size_global for u in (direct.u_3d, direct.u_1d)]
    lines = [f"{md.network_statistics(direct.system.network.graph)}\n"]
    lines += ["solver         unknowns  iterations  residual"]
    for name, size, solution in (("direct", sum(sizes), direct), ("reduced", sizes[0], reduced)):
        row = f"{size:>8}  {solution.iterations:>10}  {solution.relative_residual:>8.1e}"
        lines += [f"{name:<13}  {row}"]
    lines += [f"\ndifference of both      {result.difference:.1e}"]
    lines += [f"mass balance error      {direct.mass_balance.error:.1e}"]
    for name, values in fields(direct).items():
        lines += [f"{name:<22}  {values.min():.4g} to {values.max():.4g}"]
    lines += [f"flow into the network   {result.inflow:.4g}"]
    lines += [f"exchange over the wall  {direct.mass_balance.exchange:.4g}\n"]
    return "\n  ".join(["\n".join([*lines, "written:"]), *map(str, result.files)])


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description="Solve and draw a vascular network in tissue.")
    add = parser.add_argument
    add("--num-cells", type=int, default=20, help="cells along each side of the box (20)")
    add("--num-nodes", type=int, default=40, help="nodes of the random network (40)")
    add("--method", default="spanning_tree", help="or murray_tree, capillary_mesh: its generator")
    add("--seed", type=int, default=7, help="its seed (7)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)
    system = assemble(args.num_cells, args.num_nodes, args.method, args.seed)
    result = solve(system, args.output)
    text = report(result)  # on every process, since its numbers are sums over all of them
    if system.network.comm.rank == 0:
        print(text)
    return result


if __name__ == "__main__":
    main()

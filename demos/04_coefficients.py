# # Coefficients of your own, one line at a time
#
# This demo shows coefficients that are not constant. The same vessels feed the same box of tissue
# five times, and each time a single line changes:
#
# 1. homogeneous tissue,
# 2. tissue that conducts well in some places and badly in others,
# 3. layers,
# 4. fibres, along which the tissue conducts better than across them,
# 5. cells with a limited uptake: Michaelis-Menten kinetics.
#
# ## The problem
#
# Think of $u_{1d}$ as the concentration of a nutrient in blood and $u_{3d}$ as that in tissue:
#
# $$ -\nabla\cdot(k_{3d} \nabla u_{3d}) + \sigma_{3d} u_{3d} + r(u_{3d})
#    + \beta\, (T u_{3d} - u_{1d})\, \delta_\Lambda = 0 \quad\text{in } \Omega, $$
# $$ -\partial_s(k_{1d}\, \partial_s u_{1d})
#    + \beta\, (u_{1d} - T u_{3d}) = 0 \quad\text{on } \Lambda, $$
#
# with $u_{1d} = 1$ at the inlets, no flux elsewhere, and $T$ and $\beta = 2\pi\varepsilon\kappa$ as
# in `03_random_vascular_network.py`. The weak form: for all $v_{3d}, v_{1d}$
#
# $$ (k_{3d} \nabla u_{3d}, \nabla v_{3d})_\Omega + (\sigma_{3d} u_{3d} + r(u_{3d}), v_{3d})_\Omega
#  + (k_{1d}\, \partial_s u_{1d}, \partial_s v_{1d})_\Lambda
#  + (\beta (T u_{3d} - u_{1d}), T v_{3d} - v_{1d})_\Lambda = 0. $$

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ufl
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import mixeddim as md

# ## Five tissues
#
# A coefficient is a number, a tensor, or UFL: an expression, a DOLFINx function, a callable of the
# position. `replace` changes only the coefficients that it names. The walls are rather permeable
# here, and the nutrient diffuses about $\sqrt{k_{3d} / \sigma_{3d}} \approx 0.2$ from a vessel
# before it is taken up.

homogeneous = md.Coefficients(k_3d=0.05, sigma_3d=1.0, k_1d=1.0, permeability=2.0)

heterogeneous = replace(
    homogeneous, k_3d=lambda x: 0.05 * 10 ** (ufl.sin(9 * x[0]) * ufl.sin(9 * x[2]))
)

layered = replace(homogeneous, k_3d=lambda x: ufl.conditional(x[2] > 0.5, 0.25, 0.01))

anisotropic = replace(homogeneous, k_3d=np.diag([0.25, 0.01, 0.01]))

# The last uptake is nonlinear, and replaces $\sigma_{3d} u_{3d}$. At high concentrations cells take
# up their maximum $V$; at low ones they take up $(V / K)\, u$, so $V / K$ acts like $\sigma_{3d}$:
#
# $$ r(u) = \frac{V u}{K + u}. $$

saturating = replace(homogeneous, sigma_3d=0.0)
uptake = md.MichaelisMenten(maximum=0.6, half=0.05)

# `md.MichaelisMenten` is simply `lambda u: 0.6 * u / (0.05 + u)`: write the uptake of your cells in
# the same way. Newton's method needs $r'$, which UFL derives; Picard's uses $r(u) / u$ of the last
# iterate as $\sigma_{3d}$. Each iteration assembles only the tissue's reaction again.

TISSUES = {
    "homogeneous": homogeneous,
    "heterogeneous": heterogeneous,
    "layered": layered,
    "anisotropic": anisotropic,
    "Michaelis-Menten": saturating,
}


@dataclass(frozen=True)
class Result:
    solutions: dict[str, md.Solution]
    picard: md.NonlinearSolution
    means: dict[str, float]  # of u_3d over the tissue
    picture: Path

    @property
    def newton(self) -> md.NonlinearSolution:
        return self.solutions["Michaelis-Menten"]


def solve(box: md.StructuredBox, network: md.Network) -> dict[str, md.Solution]:
    solutions: dict[str, md.Solution] = {}
    for name, coefficients in TISSUES.items():
        system = md.assemble(box, network, coefficients)
        if coefficients is saturating:
            solutions[name] = md.solve_nonlinear(system, uptake)
        else:
            solutions[name] = md.solve(system)
    return solutions


def means_over_tissue(solutions: dict[str, md.Solution]) -> dict[str, float]:
    """The integrals of u_3d; the box has volume 1."""
    mass = solutions["homogeneous"].system.side_3d.M  # since sigma_3d is 1 there
    return {name: float((mass @ s.u_3d.x.array).sum()) for name, s in solutions.items()}


# ## A picture
#
# A slice through the middle of each tissue, with the vessels near it; nearer vessels are darker. On
# a structured box one reordering turns the dofs into an array. The last panel shows the residuals:
# each iteration of Newton's method about squares it, each iteration of Picard's reduces it by about
# the same factor.


def draw(result_of: dict[str, md.Solution], picard: md.NonlinearSolution, file: Path) -> Path:
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    *panels, convergence = figure.subplots(2, 3).ravel()
    fields = {name: middle_slice(solution) for name, solution in result_of.items()}
    colours = Normalize(0, 1)
    for panel, (name, field) in zip(panels, fields.items(), strict=True):
        nodes = np.linspace(0, 1, len(field))
        image = panel.pcolormesh(
            nodes, nodes, field.T, norm=colours, cmap="viridis", shading="gouraud"
        )
        panel.add_collection(vessels_near_slice(result_of[name].system.network))
        panel.set(
            title=name, aspect="equal", xlim=(0, 1), ylim=(0, 1), xticks=(0, 1), yticks=(0, 1)
        )
        panel.set_xlabel("x", labelpad=-8)
        panel.set_ylabel("z", labelpad=-8)
    axes = [*panels, convergence]
    figure.colorbar(image, ax=axes, label="$u_{3d}$ at y = ½", location="left", shrink=0.6)

    newton = result_of["Michaelis-Menten"]
    for name, solution, look in (("Picard", picard, "s--"), ("Newton", newton, "o-")):
        norms = solution.residual_norms / solution.residual_norms[0]
        convergence.semilogy(norms, look, label=name, markersize=4)
    convergence.set(title="Michaelis-Menten", xlabel="iterations", ylabel="residual, relative")
    convergence.xaxis.set_major_locator(MaxNLocator(integer=True))
    convergence.spines[["top", "right"]].set_visible(False)
    convergence.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150, bbox_inches="tight")
    return file


def middle_slice(solution: md.Solution) -> np.ndarray:
    """u_3d on the plane of nodes next to y = ½, of shape (nodes along x, nodes along z)."""
    field = solution.system.grid.to_grid(solution.u_3d.x.array)
    return field[:, field.shape[1] // 2, :]


def vessels_near_slice(network: md.Network, reach: float = 0.25) -> LineCollection:
    ends = network.mesh.geometry.x[network.mesh.geometry.dofmaps[0]]
    distance = abs(ends[:, :, 1].mean(axis=1) - 0.5)
    near = distance < reach
    fading = 1 - distance[near] / reach
    return LineCollection(ends[near][:, :, [0, 2]], linewidths=2.5, colors="black", alpha=fading)


# ## What came out
#
# The flux through the walls equals the uptake of the tissue: the balance holds for each tissue,
# the nonlinear one included.


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description="Swap coefficients, one line at a time.")
    add = parser.add_argument
    add("--num-cells", type=int, default=20, help="cells along each side of the box (20)")
    add("--seed", type=int, default=7, help="seed of the network (7)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    graph = md.random_vascular_graph(num_nodes=40, radius=0.05, seed=args.seed)
    box = md.create_box(args.num_cells)
    network = md.create_network(graph, max_segment_length=box.spacing)
    solutions = solve(box, network)
    picard = md.solve_nonlinear(solutions["Michaelis-Menten"].system, uptake, "picard")
    means = means_over_tissue(solutions)

    print(f"{'tissue':<17}  mean u_3d  least u_3d  through walls   uptake  balance error")
    for name, solution in solutions.items():
        least, balance = solution.u_3d.x.array.min(), solution.mass_balance
        row = f"{means[name]:>9.4f}  {least:>10.4f}  {balance.exchange:>13.4f}"
        print(f"{name:<17}  {row}  {balance.reaction_3d:>7.4f}  {balance.error:>13.1e}")
    newton = solutions["Michaelis-Menten"]
    print(f"\nNewton {newton.iterations} iterations, Picard {picard.iterations}")
    picture = draw(solutions, picard, args.output / "coefficients.png")
    print(f"\nwritten:\n  {picture}")
    return Result(solutions, picard, means, picture)


if __name__ == "__main__":
    main()

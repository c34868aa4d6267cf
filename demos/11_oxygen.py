# # Oxygen from blood to tissue
#
# How much oxygen reaches the tissue between capillaries, and where does it run out? This demo
#
# - lets blood flow through a network, with red cells that split at junctions,
# - computes the partial pressure of oxygen (PO2) in blood and tissue,
# - or reads a network, its flow and its parameters from three files of T. W. Secomb's programs
#   (`--secomb FOLDER`), of which public examples exist.
#
# ## The problem
#
# Blood of hematocrit $H$ carries oxygen dissolved in plasma and bound to red cells, by Hill's curve
#
# $$ C(p) = \alpha p + H C_0 \frac{p^n}{p^n + p_{50}^n}. $$
#
# What it loses, $\mathrm{d}(Q C)/\mathrm{d}s = -q$, diffuses through the wall into the tissue,
# whose cells consume it (Michaelis & Menten):
#
# $$ p - T p_{3d} = K q, \qquad \nabla\cdot(D\alpha \nabla p_{3d})
#    = M_0 \frac{p_{3d}}{p_{3d} + p_{half}} - q\, \delta_\Lambda. $$
#
# $K$ is the resistance of the blood itself, from a table by diameter. A vessel thinner than the
# cells of the grid has a second resistance in series: that of the tissue next to it which the grid
# does not resolve (`md.unresolved_resistance`). Junctions mix perfectly.
#
# The weak form is that of the other demos, with $\beta = 1/K$, the advection of
# `09_blood_flow_and_transport.py`, and Newton's method for $C(p)$ and the consumption.

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import networkx as nx
import numpy as np
import ufl
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import mixeddim as md

# ## The data
#
# Lengths in m, flows in m³/s, PO2 in mmHg. `meshes/capillaries.dat` has pressures at the ends of
# its vessels, from which the flow of blood and the hematocrit follow.

CAPILLARIES = Path(__file__).resolve().parents[1] / "meshes" / "capillaries.dat"
DIFFUSION = 6e-14  # D alpha of the tissue [m²/s/mmHg]
CONSUMPTION = 1e-3  # M0 [1/s]
HALF_CONSUMPTION = 10.5  # [mmHg]
RESISTANCE = md.IntravascularResistance(
    diameter=1e-6 * np.array([4, 6, 8, 12, 20, 50]),
    resistance=1e12 * np.array([2.45, 1.74, 1.44, 1.16, 0.935, 0.73]),
)  # [mmHg s/m²]
BLOOD_DIFFUSIVITY = 1.5e-9  # of oxygen along a vessel [m²/s]


@dataclass(frozen=True)
class Case:
    graph: nx.Graph  # with the PO2 of entering blood as `po2`
    side: np.ndarray  # of the tissue, whose lower corner is the origin [m]
    flow: np.ndarray  # along each edge [m³/s]
    hematocrit: np.ndarray
    blood: md.BloodOxygen
    resistance: md.IntravascularResistance
    diffusion: float
    consumption: float
    half_consumption: float


def sides(network_file: Path) -> np.ndarray:
    return 1e-6 * np.array(network_file.read_text("latin-1").splitlines()[1].split()[:3], float)


def capillaries() -> Case:
    graph = md.read_network(CAPILLARIES)
    blood = md.solve_blood(
        graph,
        nx.get_node_attributes(graph, "pressure"),
        nx.get_node_attributes(graph, "inflow"),
        hematocrit=nx.get_node_attributes(graph, "hematocrit"),
    )
    return Case(
        graph,
        sides(CAPILLARIES),
        blood.flow,
        blood.hematocrit,
        md.BloodOxygen(),
        RESISTANCE,
        DIFFUSION,
        CONSUMPTION,
        HALF_CONSUMPTION,
    )


# Secomb's files hold the flow and the hematocrit of each segment, with few digits. `balance_flow`
# makes them add up at junctions, first those of blood, then those of red cells. Where little blood
# flows the latter may end outside of what blood can hold; then they start once more from inside.
# Blood may enter and leave at the nodes of the third table.


def balanced_hematocrit(graph: nx.Graph, flow: np.ndarray, hematocrit: np.ndarray) -> np.ndarray:
    for _ in range(100):
        cells = md.balance_flow(graph, hematocrit * flow)
        balanced = np.divide(cells, flow, out=hematocrit.copy(), where=flow != 0)
        if balanced.min() >= 0 and balanced.max() <= 1:
            break
        hematocrit = balanced.clip(0.01, 0.95)
    return balanced


def secomb(folder: Path) -> Case:
    files = {file.name.lower(): file for file in folder.iterdir()}
    for name in ("network.dat", "soluteparams.dat", "intravascres.dat"):
        if name not in files:
            raise SystemExit(f"got {folder} without {name}; wanted all three files there.")
    graph = md.read_network(files["network.dat"])
    solutes = md.read_solute_parameters(files["soluteparams.dat"])
    for node in nx.get_node_attributes(graph, "hematocrit"):
        graph.nodes[node]["inlet"] = True
    flow, hematocrit = (
        np.array([value for *_, value in graph.edges(data=name)]) for name in ("flow", "hematocrit")
    )
    flow = md.balance_flow(graph, solutes.flow_factor * flow)
    hematocrit = balanced_hematocrit(graph, flow, hematocrit)
    return Case(
        graph,
        sides(files["network.dat"]),
        flow,
        hematocrit,
        solutes.blood,
        md.read_intravascular_resistance(files["intravascres.dat"]),
        solutes.diffusion,
        solutes.consumption,
        solutes.half_consumption,
    )


# ## Solution
#
# Vessels end on the faces of the tissue, so that their walls reach beyond it. The box is larger by
# a margin of cells on each side, in which nothing is consumed. Secomb's programs do the same in an
# infinite space. The resistances of blood and of the unresolved tissue act in series.

MOST_CELLS = 12_000  # in the tissue, which may be a thin sheet


@dataclass(frozen=True)
class Result:
    case: Case
    solution: md.OxygenSolution
    tissue_mean: float  # [mmHg]
    vessel_mean: float
    fraction_below_1: float  # of the tissue's volume
    fraction_below_5: float
    num_margin: int  # cells around the tissue
    cpu_time: float  # [s]
    files: tuple[Path, ...] = ()


def solve(case: Case, num_cells: int, num_margin: int) -> Result:
    started = process_time()
    cell = max(case.side.min() / num_cells, (case.side.prod() / MOST_CELLS) ** (1 / 3))
    in_tissue = np.maximum(2, np.rint(case.side / cell)).astype(int)
    radius, places = md.edge_radii(case.graph), md.node_positions(case.graph)
    beyond = radius.max() + np.maximum(-places, places - case.side).max(axis=0)
    needed = np.floor(beyond * in_tissue / case.side) + 1  # cells that hold all walls
    num_margin = max(num_margin, int(needed.max()))
    margin = num_margin * case.side / in_tissue
    box = md.create_box(in_tissue + 2 * num_margin, -margin, case.side + margin)

    resistance = case.resistance(radius) + md.unresolved_resistance(box, radius, case.diffusion)
    permeability = 1 / (2 * np.pi * radius * resistance)
    nx.set_edge_attributes(
        case.graph, dict(zip(case.graph.edges, permeability.tolist(), strict=True)), "permeability"
    )
    network = md.create_network(case.graph, max_segment_length=box.spacing)
    system = md.assemble(
        box,
        network,
        md.Coefficients(
            k_3d=case.diffusion,
            k_1d=BLOOD_DIFFUSIVITY * case.blood.solubility * np.pi * network.radius**2,
            permeability=network.edge_field("permeability"),
        ),
        bcs_1d=[],
    )
    solution = md.solve_oxygen(
        system,
        case.flow,
        case.hematocrit,
        inlet_po2=nx.get_node_attributes(case.graph, "po2"),
        consumption=lambda x: case.consumption * inside(x, case.side),
        half_consumption=case.half_consumption,
        blood=case.blood,
    )
    po2, volume = po2_in_tissue(solution, num_margin)
    return Result(
        case,
        solution,
        tissue_mean=float((volume * po2).sum()),
        vessel_mean=solution.vessel_mean,
        fraction_below_1=float(volume[po2 < 1].sum()),
        fraction_below_5=float(volume[po2 < 5].sum()),
        num_margin=num_margin,
        cpu_time=process_time() - started,
    )


def inside(x, side: np.ndarray):
    within = (ufl.And(ufl.gt(x[i], 0), ufl.lt(x[i], float(side[i]))) for i in range(3))
    x_within, y_within, z_within = within
    all_within = ufl.And(ufl.And(x_within, y_within), z_within)
    return ufl.conditional(all_within, 1.0, 0.0)


# The tissue proper is a part of the grid, of whose nodes each stands for the volume around it.


def po2_in_tissue(solution: md.OxygenSolution, num_margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Return PO2 at the nodes in the tissue, and their parts of its volume."""
    part = slice(num_margin, -num_margin)
    po2 = solution.system.grid.to_grid(solution.u_3d.x.array)[part, part, part]
    volume = np.ones(po2.shape)
    for axis in range(3):
        ends = np.moveaxis(volume, axis, 0)
        ends[0] /= 2
        ends[-1] /= 2
    return po2, volume / volume.sum()


# ## Pictures
#
# The first picture is a projection along the z axis: the PO2 of the blood in the vessels, and the
# mean PO2 of the tissue over the depth.


def draw_po2(result: Result, file: Path) -> Path:
    solution, side = result.solution, 1e6 * result.case.side
    mesh, dofs = solution.system.network.mesh, solution.system.network.P1.dofmap.list
    ends = 1e6 * mesh.geometry.x[mesh.geometry.dofmaps[0]]
    in_vessels = solution.u_1d.x.array[dofs].mean(axis=1)
    po2, _ = po2_in_tissue(solution, result.num_margin)
    norm = Normalize(0, in_vessels.max())
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    vessels, tissue = figure.subplots(1, 2)
    widths = 6e5 * solution.system.network.radius.x.array
    style = {"linewidths": widths, "capstyle": "round", "cmap": "inferno", "norm": norm}
    lines = vessels.add_collection(LineCollection(ends[:, :, :2], array=in_vessels, **style))
    x, y = (np.linspace(0, side[axis], po2.shape[axis]) for axis in (0, 1))
    tissue.pcolormesh(x, y, po2.mean(axis=2).T, norm=norm, cmap="inferno", shading="gouraud")
    for panel, title in ((vessels, "blood"), (tissue, "tissue, mean over the depth")):
        panel.set(title=title, aspect="equal", xlim=(0, side[0]), ylim=(0, side[1]))
        panel.set(xlabel="x [µm]", ylabel="y [µm]")
    figure.colorbar(lines, ax=(vessels, tissue), label="PO2 [mmHg]")
    return save(figure, file)


# The second one shows how PO2 is distributed over the tissue's volume and the vessels' length.


def draw_histogram(result: Result, file: Path) -> Path:
    po2, volume = po2_in_tissue(result.solution, result.num_margin)
    length = result.solution.system.coupling.weights
    bins = np.linspace(0, max(po2.max(), result.solution.blood_po2.max()), 31)
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    panel.hist(po2.ravel(), bins, weights=volume.ravel(), label="tissue, by volume", alpha=0.7)
    in_blood, parts = result.solution.blood_po2, length / length.sum()
    panel.hist(in_blood, bins, weights=parts, label="blood, by length", alpha=0.7)
    panel.set(xlabel="PO2 [mmHg]", ylabel="part")
    panel.legend(frameon=False)
    return save(figure, file)


def save(figure: Figure, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150, bbox_inches="tight")
    return file


# ## What came out
#
# The budget closes to rounding, because the outflow of one volume is the inflow of another and
# Newton's method ends far below the tolerance.


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description="Oxygen from blood to tissue.")
    add = parser.add_argument
    add("--num-cells", type=int, default=10, help="cells along the tissue's shortest side (10)")
    add("--margin", type=int, default=1, help="cells around the tissue, at least (1)")
    add("--secomb", type=Path, metavar="FOLDER", help="where network.dat and its parameters are")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    case = secomb(args.secomb) if args.secomb else capillaries()
    result = solve(case, args.num_cells, args.margin)
    solution = result.solution
    print(f"{solution.system}\n{solution}\n\n{solution.budget}\n")
    names = ("tissue_mean", "vessel_mean", "fraction_below_1", "fraction_below_5")
    numbers = {name: getattr(result, name) for name in names}
    for name, number in numbers.items():
        print(f"{name:<17} {number:.4g}")
    print(f"CPU time          {result.cpu_time:.2f} s")
    pictures = (
        draw_po2(result, args.output / "oxygen.png"),
        draw_histogram(result, args.output / "oxygen_histogram.png"),
    )
    file = args.output / "oxygen.json"
    file.write_text(json.dumps(numbers, indent=2) + "\n")
    files = (*pictures, file)
    print("\nwritten:", *files, sep="\n  ")
    return replace(result, files=files)


if __name__ == "__main__":
    main()

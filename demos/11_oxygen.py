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

import mixeddim._fenics  # before DOLFINx

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import dolfinx
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
    side: np.ndarray  # of a box from the origin that holds the tissue [m]
    num_points: np.ndarray  # that the file asks for along each side
    outer_bound: float  # of the tissue: its distance from the vessels' convex hull [m]
    flow: np.ndarray  # along each edge [m³/s]
    hematocrit: np.ndarray
    blood: md.BloodOxygen
    resistance: md.IntravascularResistance
    diffusion: float
    consumption: float
    half_consumption: float


def tissue_of(graph: nx.Graph) -> tuple[np.ndarray, np.ndarray, float]:
    header = graph.graph
    return np.array(header["box"]), np.array(header["tissue_points"]), header["outer_bound"]


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
        *tissue_of(graph),
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
# Blood may enter and leave at the nodes of the third table, and at ends that it does not name: with
# the mean PO2 of the others.


def balanced_hematocrit(graph: nx.Graph, flow: np.ndarray, hematocrit: np.ndarray) -> np.ndarray:
    for _ in range(100):
        cells = md.balance_flow(graph, hematocrit * flow)
        balanced = np.divide(cells, flow, out=hematocrit.copy(), where=flow != 0)
        if balanced.min() >= -1e-12 and balanced.max() <= 1 + 1e-12:
            break
        hematocrit = balanced.clip(0.01, 0.95)
    return balanced.clip(0, 1)


def secomb(folder: Path) -> Case:
    files = {file.name.lower(): file for file in folder.iterdir()}
    for name in ("network.dat", "soluteparams.dat", "intravascres.dat"):
        if name not in files:
            raise SystemExit(f"got {folder} without {name}; wanted all three files there.")
    graph = md.read_network(files["network.dat"])
    if not graph.graph:
        raise SystemExit(
            f"got {files['network.dat']} without numbers in lines 2 to 4; wanted the sides of the "
            "tissue, its numbers of points and its outer bound there. Complete them."
        )
    solutes = md.read_solute_parameters(files["soluteparams.dat"])
    for node in nx.get_node_attributes(graph, "hematocrit"):
        graph.nodes[node]["inlet"] = True
    given = nx.get_node_attributes(graph, "po2")
    if not given:
        raise SystemExit(
            f"got {files['network.dat']} without PO2 at its boundary nodes; wanted it in the fifth "
            "column of the third table. Add it."
        )
    side, num_points, _ = tissue_of(graph)
    for node in graph.nodes.values():
        node.setdefault("po2", float(np.mean(list(given.values()))))
        in_box = np.clip(node["pos"], 0, side)
        node["pos"] = tuple(np.where(num_points == 1, in_box, node["pos"]).tolist())
    flow, hematocrit = (
        np.array([value for *_, value in graph.edges(data=name)]) for name in ("flow", "hematocrit")
    )
    flow = md.balance_flow(graph, solutes.flow_factor * flow)
    hematocrit = balanced_hematocrit(graph, flow, hematocrit)
    return Case(
        graph,
        *tissue_of(graph),
        flow,
        hematocrit,
        solutes.blood,
        md.read_intravascular_resistance(files["intravascres.dat"]),
        solutes.diffusion,
        solutes.consumption,
        solutes.half_consumption,
    )


# ## The tissue
#
# Secomb's programs solve in an infinite space, in which nothing is consumed outside of the tissue.
# Here the tissue lies in a larger grid of hexahedra. Around the box that holds it there are as many
# cells as the walls of vessels need that reach beyond it, and one at least. The outermost layer
# stands for an infinite space: it is stretched. In coordinates that grow $s_i$ times as fast along
# the axis $i$ the diffusion is $D\alpha\, s_1 s_2 s_3 / s_i^2$ along it. A tissue of one point
# along an axis is a sheet, of which the programs make a problem in a plane: there is nothing beyond
# it along that axis, and vessels lie in it.

STRETCH = 4.0  # of the outermost layer
FEWEST_CELLS, MOST_CELLS = 500, 6000  # in the box that holds the tissue


def grid(case: Case, num_cells: int | None, num_margin: int) -> tuple[md.StructuredBox, np.ndarray]:
    """Return a larger box, and how many cells it has beyond each face, shape (2, 3)."""
    volume = case.side.prod()
    most = np.clip(case.num_points.prod() / 2, FEWEST_CELLS, MOST_CELLS)
    cell = (volume / most) ** (1 / 3)
    if num_cells is not None:
        cell = max(case.side.min() / num_cells, (volume / MOST_CELLS) ** (1 / 3))
    in_box = np.maximum(1, np.rint(case.side / cell)).astype(int)
    places = md.node_positions(case.graph)
    reach = np.full((len(places), 1), md.edge_radii(case.graph).max())
    beyond = np.array([(reach - places).max(axis=0), (places + reach - case.side).max(axis=0)])
    cells = np.maximum(num_margin, np.floor(beyond * in_box / case.side).astype(int) + 1) + 1
    cells[:, case.num_points == 1] = 0
    if (in_box + cells.sum(axis=0)).prod() > 1e6:
        far = f"got vessels as far as {beyond.max():.3g} m from the tissue"
        raise SystemExit(f"{far}; wanted a grid of at most a million cells. Leave out what is far.")
    below, above = cells * case.side / in_box
    lower, upper = -below, case.side + above
    box = md.create_box(in_box + cells.sum(axis=0), lower, upper, cell_type="hexahedron")
    return box, cells


# The tissue is what lies in the convex hull of the vessels, or no farther from it than the outer
# bound that the file gives. The hull is known by how far it reaches in many directions.

DIRECTIONS = np.array([d for d in np.ndindex(7, 7, 7) if d != (3, 3, 3)]) - 3.0


def part_in_tissue(case: Case, box: md.StructuredBox) -> dolfinx.fem.Function:
    """Return 1 in the cells of the tissue, 0 elsewhere."""
    directions = DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1)[:, None]
    radius = max(md.edge_radii(case.graph))
    reach = (md.node_positions(case.graph) @ directions.T).max(axis=0) + radius + case.outer_bound

    def is_inside(x: np.ndarray) -> np.ndarray:
        in_box = np.all((x > 0) & (x < case.side[:, None]), axis=0)
        return 1.0 * (in_box & np.all(directions @ x < reach[:, None], axis=0))

    part = dolfinx.fem.Function(dolfinx.fem.functionspace(box.mesh, ("DG", 0)))
    part.interpolate(is_inside)
    return part


def diffusion_in_stretched_space(case: Case, box: md.StructuredBox) -> dolfinx.fem.Function:
    """Return the diagonal of D alpha."""
    layer = np.where(case.num_points == 1, 0.0, box.cell_size)
    first, last = box.lower + layer, box.upper - layer

    def diagonal(x: np.ndarray) -> np.ndarray:
        stretch = np.where((x < first[:, None]) | (x > last[:, None]), STRETCH, 1.0)
        return case.diffusion * stretch.prod(axis=0) / stretch**2

    k_3d = dolfinx.fem.Function(dolfinx.fem.functionspace(box.mesh, ("DG", 0, (3,))))
    k_3d.interpolate(diagonal)
    return k_3d


# ## Solution
#
# The resistances of blood and of the unresolved tissue act in series. Segments half as long as the
# cells keep the error of upwind advection small.


@dataclass(frozen=True)
class Result:
    case: Case
    solution: md.OxygenSolution
    volume: np.ndarray  # of the tissue at each node, as a part of the whole
    beyond: np.ndarray  # cells beyond each face of the box that holds the tissue, shape (2, 3)
    tissue_mean: float  # [mmHg]
    vessel_mean: float
    fraction_below_1: float  # of the tissue's volume
    fraction_below_5: float
    cpu_time: float  # [s]
    files: tuple[Path, ...] = ()


def solve(case: Case, num_cells: int | None = None, num_margin: int = 1) -> Result:
    started = process_time()
    box, beyond = grid(case, num_cells, num_margin)
    radius = md.edge_radii(case.graph)
    resistance = case.resistance(radius) + md.unresolved_resistance(box, radius, case.diffusion)
    along = BLOOD_DIFFUSIVITY * case.blood.solubility * np.pi * radius**2
    permeability = 1 / (2 * np.pi * radius * resistance)
    for name, values in (("permeability", permeability), ("k_1d", along)):
        per_edge = dict(zip(case.graph.edges, values.tolist(), strict=True))
        nx.set_edge_attributes(case.graph, per_edge, name)
    network = md.create_network(case.graph, max_segment_length=box.spacing / 2)
    system = md.assemble(
        box,
        network,
        md.Coefficients(
            k_3d=ufl.diag(diffusion_in_stretched_space(case, box)),
            k_1d=network.edge_field("k_1d"),
            permeability=network.edge_field("permeability"),
        ),
        bcs_1d=[],
        outside="renormalise" if np.any(case.num_points == 1) else "raise",
    )
    part = part_in_tissue(case, box)
    consumption = part.copy()
    consumption.x.array[:] *= case.consumption
    solution = md.solve_oxygen(
        system,
        case.flow,
        case.hematocrit,
        inlet_po2=nx.get_node_attributes(case.graph, "po2"),
        consumption=consumption,
        half_consumption=case.half_consumption,
        blood=case.blood,
    )
    at_nodes = dolfinx.fem.form(part * ufl.TestFunction(system.side_3d.V) * ufl.dx)
    volume = dolfinx.fem.assemble_vector(at_nodes).array
    volume /= volume.sum()
    po2 = solution.u_3d.x.array
    return Result(
        case,
        solution,
        volume,
        beyond,
        tissue_mean=float(volume @ po2),
        vessel_mean=solution.vessel_mean,
        fraction_below_1=float(volume[po2 < 1].sum()),
        fraction_below_5=float(volume[po2 < 5].sum()),
        cpu_time=process_time() - started,
    )


# ## Pictures
#
# The first picture is a projection along the z axis: the PO2 of the blood in the vessels, and the
# mean PO2 of the box that holds the tissue over its depth.


def po2_in_box(result: Result) -> np.ndarray:
    below, above = result.beyond
    po2 = result.solution.system.grid.to_grid(result.solution.u_3d.x.array)
    ends = [
        slice(low, size - high) for low, size, high in zip(below, po2.shape, above, strict=True)
    ]
    return po2[tuple(ends)]


def draw_po2(result: Result, file: Path) -> Path:
    solution, side = result.solution, 1e6 * result.case.side
    mesh, dofs = solution.system.network.mesh, solution.system.network.P1.dofmap.list
    ends = 1e6 * mesh.geometry.x[mesh.geometry.dofmaps[0]]
    in_vessels = solution.u_1d.x.array[dofs].mean(axis=1)
    po2 = po2_in_box(result)
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
    solution = result.solution
    po2, length = solution.u_3d.x.array, solution.system.coupling.weights
    bins = np.linspace(0, max(po2.max(), solution.blood_po2.max()), 31)
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    panel.hist(po2, bins, weights=result.volume, label="tissue, by volume", alpha=0.7)
    parts = length / length.sum()
    panel.hist(solution.blood_po2, bins, weights=parts, label="blood, by length", alpha=0.7)
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
    add("--num-cells", type=int, help="cells along the tissue's shortest side (by its points)")
    add("--margin", type=int, default=1, help="unstretched cells around the tissue, at least (1)")
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

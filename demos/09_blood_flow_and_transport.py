# # Blood flow, and a tracer that it carries
#
# For one second a tracer enters a capillary network with the blood. How much of it is in the
# vessels, in the tissue, taken up or washed out at each time? This demo
#
# - computes the flow of blood through a network, with the viscosity of blood in capillaries,
# - lets the flow carry a tracer, which leaks through the walls and diffuses in the tissue,
# - checks in each step that nothing is lost, and plots where the tracer is.
#
# ## Blood flow
#
# In a vessel of radius $R$ and length $L$ the flow is proportional to the pressure drop
# (Poiseuille), and at each junction the flows add up to zero (Kirchhoff):
#
# $$ Q = \frac{\pi R^4}{8 \mu L} (p_u - p_v), \qquad \sum_{\text{edges at a node}} Q = 0. $$
#
# There is one equation per node; pressures are given where blood enters and leaves. Because of the
# red cells $\mu$ depends on the diameter: in a capillary as wide as a cell, blood is several times
# more viscous than plasma. `md.relative_viscosity` computes the laws of Pries et al. for glass
# tubes (1992) and for living vessels (1994), with one hematocrit for all vessels.
#
# ## Transport
#
# The concentrations $u_{1d}$ in blood and $u_{3d}$ in tissue follow
#
# $$ \partial_t u_{3d} - \nabla\cdot(k_{3d} \nabla u_{3d}) + \sigma_{3d} u_{3d}
#    + \beta\, (T u_{3d} - u_{1d})\, \delta_\Lambda = 0 \quad\text{in } \Omega, $$
# $$ \pi R^2\, \partial_t u_{1d} + \partial_s (Q u_{1d}) - \partial_s(k_{1d}\, \partial_s u_{1d})
#    + \beta\, (u_{1d} - T u_{3d}) = 0 \quad\text{on } \Lambda, $$
#
# with $\beta = 2\pi R\kappa$ and the mean $T$ over the wall as in `03_random_vascular_network.py`.
# Blood enters with the concentration of the bolus and leaves with that of its node; a junction
# mixes perfectly. In the tissue the weak form is discretised as in the other demos. On the network
# the volume of a mesh node is half of each segment around it, and a segment carries the
# concentration of its upstream node. So no tracer is lost, and along the network alone no
# concentration overshoots; with exchange through the wall it may overshoot slightly next to fronts.
# The time steps are implicit Euler steps, for which the matrix is factored once.

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

import mixeddim as md

# ## The data
#
# Lengths in µm, times in s, pressures in Pa: flows are then in µm³/s, and 10⁶ µm³ are a nanolitre.
# Concentrations are in units of that of the bolus. The values are typical of a small solute that
# leaks easily.

SIDE = 200.0  # of the cube [µm]
RADII = 2.5, 5.0  # of capillaries, least and largest [µm]
PRESSURES = 4000.0, 3000.0  # where blood enters and where it leaves [Pa]
NUM_HELD = 4  # nodes at which it enters, and as many at which it leaves
PLASMA_VISCOSITY = 1.2e-3  # [Pa s]
HEMATOCRIT = 0.45
TISSUE_DIFFUSIVITY = 500.0  # [µm²/s]
BLOOD_DIFFUSIVITY = 800.0  # [µm²/s]
PERMEABILITY = 5.0  # of the wall [µm/s]
UPTAKE = 0.05  # sigma_3d [1/s]
BOLUS, END, TIME_STEP = 1.0, 8.0, 0.1  # [s]


# Blood enters at the four nodes next to one face of the cube, and leaves at the four next to the
# opposite one.


def capillaries(seed: int) -> nx.Graph:
    corner = (SIDE,) * 3
    graph = md.random_vascular_graph(
        60, RADII[1], seed, "capillary_mesh", upper=corner, margin=1.5 * RADII[1]
    )
    rng = np.random.default_rng(seed)
    for edge in graph.edges:
        graph.edges[edge]["radius"] = rng.uniform(*RADII)
    along_x = sorted(graph, key=lambda node: graph.nodes[node]["pos"][0])
    for node in graph:
        graph.nodes[node]["inlet"] = node in (*along_x[:NUM_HELD], *along_x[-NUM_HELD:])
    for nodes, pressure in zip((along_x[:NUM_HELD], along_x[-NUM_HELD:]), PRESSURES, strict=True):
        for node in nodes:
            graph.nodes[node]["pressure"] = pressure
    return graph


def solve_flow(graph: nx.Graph) -> md.Flow:
    viscosity = PLASMA_VISCOSITY * md.relative_viscosity(2 * md.edge_radii(graph), HEMATOCRIT)
    return md.solve_flow(graph, viscosity, nx.get_node_attributes(graph, "pressure"))


# The tracer's problem is assembled as a stationary one, without values given at the inlets.


def transport(graph: nx.Graph, flow: md.Flow, num_cells: int) -> list[md.TransportState]:
    box = md.create_box(num_cells, upper=(SIDE,) * 3)
    network = md.create_network(graph, max_segment_length=box.spacing)
    coefficients = md.Coefficients(
        k_3d=TISSUE_DIFFUSIVITY,
        sigma_3d=UPTAKE,
        k_1d=np.pi * BLOOD_DIFFUSIVITY * network.radius**2,
        permeability=PERMEABILITY,
    )
    states = md.simulate_transport(
        md.assemble(box, network, coefficients, bcs_1d=[]),
        flow.flow,
        time_step=TIME_STEP,
        num_steps=round(END / TIME_STEP),
        inlet_concentration=lambda time: 1.0 if time < BOLUS + TIME_STEP / 2 else 0.0,
    )
    return list(states)


# ## Where the tracer is
#
# Each state gives the inflow, outflow and uptake of its step, per unit time, and the stored
# amounts. Summed over the steps, the amounts must equal the total that entered.


@dataclass(frozen=True)
class Amounts:
    times: np.ndarray  # from 0 on
    network: np.ndarray  # at each time [µm³ times the concentration of the bolus]
    tissue: np.ndarray
    taken_up: np.ndarray
    washed_out: np.ndarray
    entered: np.ndarray

    @property
    def lost(self) -> float:
        """The largest amount that is nowhere, relative to all that enters."""
        found = self.network + self.tissue + self.taken_up + self.washed_out
        return float(abs(found - self.entered).max() / self.entered[-1])


def amounts(states: Sequence[md.TransportState]) -> Amounts:
    def of(name: str) -> np.ndarray:
        return np.array([0.0, *(getattr(state.mass_balance, name) for state in states)])

    sums = (TIME_STEP * np.cumsum(of(name)) for name in ("reaction_3d", "outflow", "inflow"))
    times = np.array([0.0, *(state.time for state in states)])
    return Amounts(times, of("amount_1d"), of("amount_3d"), *sums)


@dataclass(frozen=True)
class Result:
    flow: md.Flow
    states: tuple[md.TransportState, ...]
    amounts: Amounts
    balance_error: float  # the largest of all steps, relative
    pictures: tuple[Path, Path]


# ## Pictures
#
# Both pictures are projections along the z axis. The first shows pressure, velocity and viscosity
# in each vessel. Line widths follow the radii, not to scale.


def vessels(ends: np.ndarray, values: np.ndarray, radii: np.ndarray, **style) -> LineCollection:
    """Segments, with ends of shape (segments, 2, 3), coloured by their values."""
    widths = 5 * radii / RADII[1]
    return LineCollection(
        ends[:, :, :2], array=values, linewidths=widths, capstyle="round", **style
    )


def draw_flow(flow: md.Flow, file: Path) -> Path:
    graph, (first, second) = flow.graph, md.edge_indices(flow.graph).T
    positions = np.array([position for _, position in graph.nodes(data="pos")])
    ends = np.stack([positions[first], positions[second]], axis=1)
    quantities = {
        "pressure [Pa]": (flow.pressure[first] + flow.pressure[second]) / 2,
        "velocity [mm/s]": abs(flow.mean_velocity) / 1000,
        "viscosity, relative to plasma": flow.viscosity / PLASMA_VISCOSITY,
    }
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for panel, (title, values) in zip(figure.subplots(1, 3), quantities.items(), strict=True):
        lines = panel.add_collection(vessels(ends, values, md.edge_radii(graph), cmap="plasma"))
        held = positions[flow.is_given]
        sign = np.where(flow.node_inflow[flow.is_given] > 0, 1, -1)
        for direction, marker, name in ((1, ">", "in"), (-1, "s", "out")):
            x, y, _ = held[sign == direction].T
            panel.plot(x, y, marker, color="black", markersize=7, label=name)
        frame(panel, title)
        figure.colorbar(lines, ax=panel, location="bottom", shrink=0.8)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return save(figure, file)


# The second shows the concentration in the vessels and, behind them, its mean over the depth of the
# tissue.


def draw_transport(states: Sequence[md.TransportState], history: Amounts, file: Path) -> Path:
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    system = states[0].system
    mesh, radii = system.network.mesh, system.network.radius.x.array
    ends, dofs = mesh.geometry.x[mesh.geometry.dofmaps[0]], system.network.P1.dofmap.list
    depth_means = [system.grid.to_grid(state.u_3d.x.array).mean(axis=2) for state in states]
    in_tissue = Normalize(0, max(mean.max() for mean in depth_means))
    nodes = np.linspace(0, SIDE, len(depth_means[0]))
    panels = upper.subplots(1, 4)
    for panel, time in zip(panels, (0.3, BOLUS, 2.0, END), strict=True):
        index = round(time / TIME_STEP) - 1
        tissue = panel.pcolormesh(
            nodes, nodes, depth_means[index].T, norm=in_tissue, cmap="Blues", shading="gouraud"
        )
        concentration = states[index].u_1d.x.array[dofs].mean(axis=1)
        lines = vessels(ends, concentration, radii, cmap="plasma", norm=Normalize(0, 1))
        panel.add_collection(lines)
        frame(panel, f"after {states[index].time:.1f} s")
    upper.colorbar(lines, ax=panels[:2], location="bottom", label="in the vessels", shrink=0.6)
    label = "in the tissue, mean over the depth"
    upper.colorbar(tissue, ax=panels[2:], location="bottom", label=label, shrink=0.6)

    shares = {
        "in the vessels": history.network,
        "in the tissue": history.tissue,
        "taken up": history.taken_up,
        "washed out": history.washed_out,
    }
    panel = lower.subplots()
    colours = ("#f0b040", "#4a88ba", "#5a9e6f", "#c8c8c8")
    total = history.entered[-1]
    stacked = [amount / total for amount in shares.values()]
    panel.stackplot(history.times, stacked, labels=shares, colors=colours)
    panel.plot(history.times, history.entered / total, "k--", label="entered")
    panel.set(xlim=(0, END), ylim=(0, 1.05), xlabel="time [s]", ylabel="part of the tracer")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, reverse=True)
    return save(figure, file)


def frame(panel, title: str) -> None:
    panel.set(title=title, aspect="equal", xlim=(0, SIDE), ylim=(0, SIDE))
    panel.set(xticks=(0, SIDE), yticks=(0, SIDE))
    panel.set_xlabel("x [µm]", labelpad=-8)
    panel.set_ylabel("y [µm]", labelpad=-14)


def save(figure: Figure, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150, bbox_inches="tight")
    return file


# ## What came out
#
# The balance of blood closes to rounding, and so does that of the tracer, in each step and over all
# steps. This holds for any step size, because the outflow of one volume is the inflow of another.


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description="Blood flow and the transport of a tracer.")
    add = parser.add_argument
    add("--num-cells", type=int, default=20, help="cells along each side of the box (20)")
    add("--seed", type=int, default=2, help="seed of the network (2)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    graph = capillaries(args.seed)
    flow = solve_flow(graph)
    velocities = abs(flow.mean_velocity) / 1000
    print(f"{len(flow.flow)} capillaries\n")
    print(f"blood in, out [µm³/s]     {flow.inflow:.6g}, {flow.outflow:.6g}")
    print(f"difference, relative      {abs(flow.inflow - flow.outflow) / flow.inflow:.1e}")
    print(f"velocity, median, largest {np.median(velocities):.3g}, {velocities.max():.3g} mm/s")
    print(f"wall shear stress, median {np.median(flow.wall_shear_stress):.3g} Pa\n")

    states = transport(graph, flow, args.num_cells)
    history = amounts(states)
    error = max(state.mass_balance.error for state in states)
    print("time [s]  in vessels  in tissue  taken up  washed out  of what has entered")
    every_second = round(1 / TIME_STEP)
    for index in range(every_second, len(history.times), every_second):
        parts = (history.network, history.tissue, history.taken_up, history.washed_out)
        row = (f"{part[index] / history.entered[index]:>10.1%}" for part in parts)
        print(f"{history.times[index]:>8.1f}  " + " ".join(row))
    print(f"\nbalance error of a step   {error:.1e}\nlost over all steps       {history.lost:.1e}")
    pictures = (
        draw_flow(flow, args.output / "flow.png"),
        draw_transport(states, history, args.output / "transport.png"),
    )
    print("\nwritten:", *pictures, sep="\n  ")
    return Result(flow, tuple(states), history, error, pictures)


if __name__ == "__main__":
    main()

"""A tracer washed out of the mouse's cortex: how far the numbers are converged.

    python tests/benchmarks/tracer_clearance.py FOLDER       (two minutes, one thread)

FOLDER holds `mouse_cortex/network.dgf`, which is not part of this project. The problem is that of
docs/how_to/tracer.md; prints what is left in the tissue, a share of the start, as Markdown.
"""

import argparse
from pathlib import Path

import networkx as nx
import numpy as np

import mixeddim as md

SIDE, POROSITY, TIMES = 2e-4, 0.2, (10.0, 30.0)
CASES = ((8, 0.5), (16, 0.5), (32, 0.5), (16, 1.0), (16, 0.25), (16, 0.125))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    path = parser.parse_args().folder / "mouse_cortex" / "network.dgf"
    graph = md.read_dgf(path, node_parameters={"pressure": 0}, edge_parameters={"radius": 0})
    for *_, data in graph.edges(data=True):
        data["outer_radius"] = data["radius"] + 0.5e-6
    ends = {node: graph.nodes[node]["pressure"] for node, degree in graph.degree if degree == 1}
    flow = md.solve_blood(graph, ends).flow
    print("| cells per side | time step [s] | left after 10 s | left after 30 s |")
    print("| --- | --- | --- | --- |")
    for num_cells, time_step in CASES:
        left = washed_out(graph, flow, num_cells, time_step)
        print(f"| {num_cells} | {time_step:g} | {left[0]:.4f} | {left[1]:.4f} |", flush=True)


def washed_out(graph: nx.Graph, flow: np.ndarray, num_cells: int, time_step: float) -> list[float]:
    """Return the share of the tracer that is left in the tissue at TIMES."""
    box = md.create_box(num_cells, upper=(SIDE,) * 3)
    network = md.create_network(graph, max_segment_length=box.spacing)
    coefficients = md.Coefficients(
        k_3d=1e-10, k_1d=1e-9 * np.pi * network.radius**2, permeability=1e-6
    )
    states = md.simulate_transport(
        md.assemble(box, network, coefficients, bcs_1d=[], outside="clip"),
        flow,
        time_step=time_step,
        num_steps=round(TIMES[-1] / time_step),
        initial_3d=1.0,
        inlet_concentration=0.0,
        storage_3d=POROSITY,
    )
    amounts = [state.mass_balance.amount_3d / (POROSITY * SIDE**3) for state in states]
    return [amounts[round(time / time_step) - 1] for time in TIMES]


if __name__ == "__main__":
    main()

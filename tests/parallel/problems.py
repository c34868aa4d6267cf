"""Program: solve problems of every kind on the processes there are, and save what came out.

    mpiexec -n 3 python -m mpi4py tests/parallel/problems.py FILE.npz [PROBLEM ...]

Fields are saved in the order of coordinates, which is the same on any number of processes.
"""

import mixeddim._fenics

import sys
from collections.abc import Callable, Iterator
from unittest import mock

import dolfinx
import networkx as nx
import numpy as np
import ufl
from mpi4py import MPI
from numpy.typing import NDArray

import mixeddim as md
from mixeddim.solvers import coarsening, exchange

WORLD = MPI.COMM_WORLD


def in_order_of_coordinates(u: dolfinx.fem.Function) -> NDArray[np.float64]:
    """Return the dofs of a tissue field, from all processes."""
    owned = u.function_space.dofmap.index_map.size_local
    x = u.function_space.tabulate_dof_coordinates()[:owned]
    x, values = (np.concatenate(WORLD.allgather(part)) for part in (x, u.x.array[:owned]))
    assert len(values) == u.function_space.dofmap.index_map.size_global
    return values[np.lexsort(np.rint(1e6 * x).T)]


def result(solution: md.Solution) -> dict[str, NDArray[np.float64] | float]:
    """Return the numbers of a solution."""
    balance = solution.mass_balance
    amounts = {f"amount {name}": value for name, value in vars(balance).items()}
    assert balance.error < 1e-9, balance
    assert np.allclose(solution.system.diagonal_33, solution.system.A_33.diagonal(), rtol=1e-12)
    assert np.array_equal(WORLD.bcast(solution.u_1d.x.array), solution.u_1d.x.array)
    statistics = md.tissue_statistics(solution, hypoxic_below=0.4, quantiles=[0.3])
    amounts |= {
        "mean": statistics.mean,
        "quantiles": np.array([*statistics.quantiles.values()]),
        "extremes": np.array([statistics.minimum, statistics.maximum]),
        "hypoxic": statistics.hypoxic_fraction or 0.0,
    }
    if not isinstance(solution, md.TransportState):
        table = md.edge_table(solution)
        for name in ("exchange", "flux_start", "flux_end"):
            amounts[f"amount edge {name}"] = getattr(table, name)
        amounts["amount node inflow"] = md.node_inflow(solution)
        amounts["edge means"] = np.nan_to_num([table.mean_u_1d, table.mean_wall_u_3d])
    return amounts | {
        "u_3d": in_order_of_coordinates(solution.u_3d),
        "u_1d": solution.u_1d.x.array,
        "wall_flux": solution.wall_flux,
    }


def network(method: str, spacing: float) -> md.Network:
    return md.create_network(md.random_vascular_graph(25, 0.05, seed=3, method=method), spacing)


def contrast(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
    return 100.0 ** (0.5 * ufl.sin(7 * x[0]) * ufl.sin(5 * x[1] + 1))


TENSOR = [[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]]


def every_condition(cell_type: str = "tetrahedron") -> md.CoupledSystem:
    box = md.create_box((7, 8, 6), upper=(1.0, 1.2, 0.9), cell_type=cell_type)
    graph = md.random_vascular_graph(20, 0.05, seed=1, upper=(1.0, 1.2, 0.9))
    coefficients = md.Coefficients(
        k_3d=TENSOR,
        sigma_3d=lambda x: 0.5 + x[0],
        k_1d=lambda x: 0.7 + x[2],
        permeability=lambda x: 3.0 + x[0],
        f_3d=lambda x: ufl.sin(x[1]),
        f_1d=0.4,
    )
    return md.assemble(
        box,
        md.create_network(graph, box.spacing),
        coefficients,
        bcs_3d=[
            md.Dirichlet("x_min", lambda x: x[1]),
            md.Neumann("y_max", 0.3),
            md.Robin("z_min", 2.0, 0.5),
        ],
        bcs_1d=[md.Dirichlet("inlets", 1.5), md.Robin("ends", 0.8, 0.2)],
    )


def heterogeneous(method: str) -> md.CoupledSystem:
    box = md.create_box(8)
    coefficients = md.Coefficients(k_3d=contrast, sigma_3d=1.0)
    return md.assemble(box, network(method, box.spacing), coefficients)


def strong_exchange(cell_type: str) -> md.CoupledSystem:
    """Return vessels of great permeability in tissue with fibres and contrast."""
    box = md.create_box(12, cell_type=cell_type)
    coefficients = md.Coefficients(
        k_3d=lambda x: contrast(x) * ufl.as_matrix(TENSOR), sigma_3d=1.0, permeability=1e4
    )
    return md.assemble(box, network("spanning_tree", box.spacing), coefficients)


def krylov(system: md.CoupledSystem, most_factored: int) -> dict[str, NDArray[np.float64] | float]:
    """Return the result by a hierarchy with distributed and with whole levels.

    Args:
        system: The system.
        most_factored: Points of the network up to which the exchange is inverted, not bounded.
    """
    with (
        mock.patch.object(coarsening, "MOST_WHOLE", 60),
        mock.patch.dict(coarsening._COARSENING, {"pc_gamg_coarse_eq_limit": "30"}),
        mock.patch.object(exchange, "MOST_FACTORED", most_factored),
    ):
        solution = md.solve(system, "krylov", rtol=1e-12)
    assert "A_33" not in vars(system)
    return result(solution) | {"iterations": solution.iterations}


def corner() -> md.CoupledSystem:
    """Return one short vessel in a corner: most processes own none of its circles."""
    graph = nx.Graph()
    graph.add_node("in", pos=(0.2, 0.2, 0.2), inlet=True)
    graph.add_node("out", pos=(0.3, 0.2, 0.2), inlet=False)
    graph.add_edge("in", "out", radius=0.05)
    box = md.create_box(6)
    return md.assemble(box, md.create_network(graph, 1.0), md.Coefficients(sigma_3d=0.1))


def few_cells() -> md.CoupledSystem:
    """Return six tetrahedra without structure, for processes that own no cell at all."""
    graph = nx.Graph()
    graph.add_node(0, pos=(0.4, 0.4, 0.4), inlet=True)
    graph.add_node(1, pos=(0.6, 0.6, 0.6), inlet=False)
    graph.add_edge(0, 1, radius=0.05)
    return md.assemble(
        md.create_box(1).mesh,
        md.create_network(graph, 1.0),
        md.Coefficients(sigma_3d=1.0),
        bcs_3d=[md.Dirichlet(lambda x: x[0] < 1e-9, 0.5)],
    )


def leaving(outside: str, *, structured: bool) -> md.CoupledSystem:
    """Return vessels along the faces, in a box or in the same as a mesh without structure."""
    box = md.create_box(5)
    graph = nx.Graph()
    graph.add_node(0, pos=(0.02, 0.5, 0.1), inlet=True)
    graph.add_node(1, pos=(0.02, 0.5, 0.9), inlet=False)
    graph.add_node(2, pos=(0.5, 0.5, 0.5), inlet=False)
    graph.add_edge(0, 1, radius=0.06)
    graph.add_edge(1, 2, radius=0.1)
    return md.assemble(
        box if structured else box.mesh,
        md.create_network(graph, 0.1),
        md.Coefficients(sigma_3d=1.0),
        outside=outside,
    )


def transport() -> Iterator[md.TransportState]:
    box = md.create_box(6)
    graph = md.random_vascular_graph(15, 0.05, seed=2)
    flow = md.solve_flow(graph, 1.0, {n: float(i) for n, i in pressures(graph)}).flow
    coefficients = md.Coefficients(k_3d=0.1, sigma_3d=0.2, k_1d=0.01, permeability=2.0)
    system = md.assemble(box, md.create_network(graph, box.spacing), coefficients, bcs_1d=[])
    return md.simulate_transport(
        system, flow, time_step=0.05, num_steps=10, initial_3d=lambda x: 0.1 * x[0]
    )


def leaky_transport() -> dict[str, NDArray[np.float64] | float]:
    """Return a tracer in the flow through leaky vessels, and that flow."""
    box = md.create_box(6)
    network = md.create_network(md.random_vascular_graph(15, 0.05, seed=2), box.spacing)
    ends = {n: 2e4 * p for n, p in pressures(network.graph)}
    filtration = md.Filtration(
        hydraulic_conductivity=0.1, mobility=1.0, oncotic_1d=8.0, drainage=0.3
    )
    flow = md.solve_leaky_flow(box, network, 1e-3, ends, filtration=filtration)
    assert flow.balance.error < 1e-10
    coefficients = md.Coefficients(k_3d=0.1, sigma_3d=0.2, permeability=2.0, partition=1.7)
    system = md.assemble(box, network, coefficients, bcs_1d=[])
    states = md.simulate_transport(
        system, flow, time_step=0.05, num_steps=5, storage_3d=lambda x: 0.2 + x[0], storage_1d=0.8
    )
    return result(list(states)[-1]) | {
        "pressure_3d": in_order_of_coordinates(flow.pressure_3d),
        "segment flow": flow.segment_flow,
        "filtration": flow.filtration,
    }


def oxygen() -> dict[str, NDArray[np.float64] | float]:
    """Return PO2 around capillaries, with a given pressure at a face, and the budget."""
    side = 1e-4
    graph = md.random_vascular_graph(20, 3e-6, 4, "capillary_mesh", upper=(side,) * 3, margin=8e-6)
    ends = {n: 3000.0 - 1e7 * graph.nodes[n]["pos"][0] for n, _ in pressures(graph)}
    nx.set_node_attributes(graph, {n: n in ends for n in graph}, "inlet")
    blood = md.solve_blood(graph, ends)
    box = md.create_box(10, upper=(side,) * 3)  # nodes at whole µm, which keep their order
    network = md.create_network(graph, box.spacing)
    coefficients = md.Coefficients(k_3d=6e-14, k_1d=1e-24, permeability=2.7e-8)
    bcs_3d = [md.Dirichlet("x_min", 30.0)]
    system = md.assemble(box, network, coefficients, bcs_3d=bcs_3d, bcs_1d=[])
    solution = md.solve_oxygen(
        system,
        blood.flow,
        blood.hematocrit,
        inlet_po2=80.0,
        consumption=2e-3,
        half_consumption=5.0,
        rtol=1e-13,
    )
    assert solution.budget.error < 1e-10
    assert solution.mass_balance.error < 1e-10
    names = ("extraction", "vessel_mean", "tissue_mean", "wall_po2", "blood_po2", "saturation")
    return {name: getattr(solution, name) for name in names} | {
        "budget": np.array([*vars(solution.budget).values()]),
        "hypoxic": solution.hypoxic_fraction(20.0),
        "u_3d": in_order_of_coordinates(solution.u_3d),
        "u_1d": solution.u_1d.x.array,
    }


def pressures(graph: nx.Graph) -> list[tuple[object, float]]:
    ends = [n for n, degree in graph.degree if degree == 1 or graph.nodes[n].get("inlet")]
    return [(n, 1e-3 * (graph.nodes[n].get("inlet", False))) for n in ends]


PROBLEMS: dict[str, Callable[[], dict[str, NDArray[np.float64] | float]]] = {
    "every condition": lambda: result(md.solve(every_condition())),
    "every condition, hexahedra": lambda: result(md.solve(every_condition("hexahedron"))),
    "every condition, reduced": lambda: result(md.solve(every_condition(), "reduced", rtol=1e-12)),
    "every condition, krylov": lambda: krylov(every_condition("hexahedron"), 3000),
    **{
        f"{cell_type}, krylov, {name}": lambda cell_type=cell_type, most=most: krylov(
            strong_exchange(cell_type), most
        )
        for cell_type in ("tetrahedron", "hexahedron")
        for name, most in (("factored", 3000), ("bounded", 0))
    },
    **{
        f"{method}, {solver}": lambda method=method, solver=solver: result(
            md.solve(heterogeneous(method), solver, rtol=1e-12)
        )
        for method in ("spanning_tree", "murray_tree", "capillary_mesh")
        for solver in ("direct", "reduced")
    },
    "corner": lambda: result(md.solve(corner())),
    "corner, krylov": lambda: krylov(corner(), 3000),
    "renormalise": lambda: result(md.solve(leaving("renormalise", structured=True))),
    "drop": lambda: result(md.solve(leaving("drop", structured=True))),
    "partition": lambda: result(
        md.solve(every_condition().with_coefficients(partition=2.5, series_resistance=0.2))
    ),
    "clip": lambda: result(md.solve(leaving("clip", structured=True))),
    "clip, no box": lambda: result(md.solve(leaving("clip", structured=False))),
    "no box": lambda: result(md.solve(leaving("renormalise", structured=False))),
    "few cells": lambda: result(md.solve(few_cells())),
    "few cells, krylov": lambda: krylov(few_cells(), 0),
    "newton": lambda: result(md.solve_nonlinear(every_condition(), md.MichaelisMenten(3.0, 0.5))),
    "leaky transport": leaky_transport,
    "oxygen": oxygen,
    "transport": lambda: result(list(transport())[-1]),
}


def main(path: str, *names: str) -> None:
    arrays = {}
    for name in names or PROBLEMS:
        arrays |= {f"{name}: {part}": value for part, value in PROBLEMS[name]().items()}
    if WORLD.rank == 0:
        np.savez(path, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])

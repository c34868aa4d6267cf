"""Cost of reading, checking, mending, meshing and drawing a large network.

    python tests/benchmarks/large_networks.py                (10⁵ edges)
    python tests/benchmarks/large_networks.py --edges 1e6    (half an hour or more)

Prints CPU seconds of each step, and the peak memory of its process, the graph included, as a
Markdown table. Each step has a process of its own. The network is a jittered lattice; steps on
polylines take one with a third of the vessels, of three edges each.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
from numpy.typing import NDArray

import mixeddim as md
from mixeddim.networks.io import (
    read_csv,
    read_dgf,
    read_graphml,
    read_manworks,
    read_secomb,
    read_swc,
    read_vtk,
    write_csv,
    write_dgf,
    write_graphml,
    write_vtp,
)

JITTER = 0.3  # of the lattice's cell, so that vessels keep their distance
RADII = (0.10, 0.15)
PIECES = 3  # edges of each vessel of the network of polylines

type Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=float, default=1e5, help="size of the network, about")
    parser.add_argument("--only", default="", help="steps whose name holds this word")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step is not None:
        measure(arguments.step, int(arguments.edges), arguments.folder)
        return
    print(f"{arguments.edges:.3g} edges | CPU seconds | peak memory [GiB]\n--- | --- | ---")
    with tempfile.TemporaryDirectory() as folder:
        for name in STEPS:
            if arguments.only in name:
                command = [sys.executable, __file__, "--step", name, "--folder", folder]
                sys.stdout.flush()
                subprocess.run([*command, "--edges", str(arguments.edges)], check=False)


def measure(name: str, num_edges: int, folder: Path) -> None:
    """Prepare a step, run it and print its row."""
    work = STEPS[name](num_edges, folder)
    start = cpu_seconds()
    work()
    seconds = cpu_seconds() - start
    uses = [
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(f"{name} | {seconds:.1f} | {max(uses) / 2**20:.2f}", flush=True)


def cpu_seconds() -> float:
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in times)


# --- Networks ---------------------------------------------------------------------------------


def lattice(num_edges: int) -> nx.Graph:
    """Return a lattice of m³ jittered nodes and 3 m² (m - 1) edges."""
    points, edges, radii = lattice_arrays(num_edges)
    return as_graph(points, edges, radii)


def lattice_arrays(
    num_edges: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    m = round((num_edges / 3) ** (1 / 3) + 1 / 3)
    rng = np.random.default_rng(0)
    points = np.indices((m, m, m)).reshape(3, -1).T + JITTER * rng.uniform(-1, 1, (m**3, 3))
    number = np.arange(m**3).reshape(m, m, m)
    pairs = [
        np.stack([np.delete(number, -1, axis).ravel(), np.delete(number, 0, axis).ravel()], 1)
        for axis in range(3)
    ]
    edges = np.concatenate(pairs)
    return points / (m - 1), edges, rng.uniform(*RADII, len(edges)) / (m - 1)


def polylines(num_edges: int) -> nx.Graph:
    """Return a lattice whose vessels have `PIECES` edges each."""
    return as_graph(*polyline_arrays(num_edges))


def polyline_arrays(
    num_edges: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    points, edges, radii = lattice_arrays(num_edges // PIECES)
    rng = np.random.default_rng(1)
    parts = np.arange(1, PIECES)[:, None, None] / PIECES
    inner = (1 - parts) * points[edges[:, 0]] + parts * points[edges[:, 1]]
    inner += 0.2 * radii.min() * rng.uniform(-1, 1, inner.shape)
    numbers = len(points) + np.arange((PIECES - 1) * len(edges)).reshape(PIECES - 1, -1)
    chain = np.vstack([edges[:, 0], numbers, edges[:, 1]])
    pieces = np.stack([chain[:-1].T.ravel(), chain[1:].T.ravel()], axis=1)
    return np.vstack([points, inner.reshape(-1, 3)]), pieces, radii.repeat(PIECES)


def tree(num_edges: int) -> nx.Graph:
    """Return a tree that spans a lattice of three times as many edges."""
    points, edges, radii = lattice_arrays(3 * num_edges)
    return nx.minimum_spanning_tree(as_graph(points, edges, radii), weight="radius")


def as_graph(
    points: NDArray[np.float64], edges: NDArray[np.int64], radii: NDArray[np.float64]
) -> nx.Graph:
    graph = nx.Graph()
    for node, (pos, is_inlet) in enumerate(
        zip(map(tuple, points.tolist()), (points[:, 0] <= points[:, 0].min()).tolist(), strict=True)
    ):
        graph.add_node(node, pos=pos, inlet=is_inlet)
    for (u, v), radius in zip(edges.tolist(), radii.tolist(), strict=True):
        graph.add_edge(u, v, radius=radius)
    return graph


# --- Steps ------------------------------------------------------------------------------------


def on(
    make: Callable[[int], nx.Graph], function: Callable[[nx.Graph], object]
) -> Callable[..., Work]:
    """Return a step that makes a network, and then calls a function on it."""

    def prepare(num_edges: int, _: Path) -> Work:
        graph = make(num_edges)
        return lambda: function(graph)

    return prepare


def written(
    name: str,
    function: Callable[[nx.Graph, Path], object],
    make: Callable[[int], nx.Graph] = lattice,
) -> Callable[..., Work]:
    """Return a step that makes a network, and then writes it to a file."""

    def prepare(num_edges: int, folder: Path) -> Work:
        graph = make(num_edges)
        return lambda: function(graph, folder / name)

    return prepare


def read(name: str, function: Callable[[Path], object]) -> Callable[..., Work]:
    """Return a step that reads the file that a step before it has written."""
    return lambda _, folder: lambda: function(folder / name)


def write_swc(graph: nx.Graph, path: Path) -> None:
    parent = {child: node for node, child in nx.bfs_edges(graph, 0)}
    with path.open("w") as file:
        for node in [0, *parent]:
            x, y, z = graph.nodes[node]["pos"]
            file.write(f"{node} 2 {x} {y} {z} 0.01 {parent.get(node, -1)}\n")


def write_manworks(graph: nx.Graph, path: Path) -> None:
    positions = {node: " ".join(map(repr, pos)) for node, pos in graph.nodes(data="pos")}
    with path.open("w") as file:
        file.write("BEGIN_LIST\n")
        for u, v in graph.edges:
            file.write(f"BEGIN_ARC\nBC INT\nBC INT\n1 {positions[u]}\n2 {positions[v]}\nEND_ARC\n")
        file.write("END_LIST\n")


def write_secomb(graph: nx.Graph, path: Path) -> None:
    with path.open("w") as file:
        file.write("title\n" * 6 + f"{graph.number_of_edges()} segments\nname type from to\n")
        for name, (u, v) in enumerate(graph.edges):
            file.write(f"{name} 5 {u} {v} 8.0 1.0 0.4\n")
        file.write(f"{len(graph)} nodes\nname x y z\n")
        for node, (x, y, z) in graph.nodes(data="pos"):
            file.write(f"{node} {x} {y} {z}\n")
        file.write("1 boundary node\nname type value hematocrit\n0 0 10.0 0.4\n")


def skeleton(num_edges: int) -> nx.MultiGraph:
    """Return a lattice as sknw writes it, with the points of the centre lines on its edges."""
    points, edges, _ = lattice_arrays(num_edges // PIECES)
    graph = nx.MultiGraph()
    for node, point in enumerate(points):
        graph.add_node(node, o=point)
    part = np.arange(1, PIECES)[:, None] / PIECES
    for u, v in edges.tolist():
        graph.add_edge(u, v, pts=(1 - part) * points[u] + part * points[v])
    return graph


def flow(graph: nx.Graph) -> object:
    positions = md.node_positions(graph)[:, 0]
    nodes = np.array(graph)
    pressures = dict.fromkeys(nodes[positions < positions.min() + 0.01].tolist(), 1.0)
    pressures |= dict.fromkeys(nodes[positions > positions.max() - 0.01].tolist(), 0.0)
    return md.solve_flow(graph, 1e-3, pressures)


def flow_of_many_widths(num_edges: int, _: Path) -> Work:
    """Return the step for radii that vary over more than a decade from edge to edge."""
    points, edges, radii = lattice_arrays(num_edges)
    widths = np.exp(0.5 * np.random.default_rng(2).standard_normal(len(edges)))
    graph = as_graph(points, edges, radii * widths)
    return lambda: flow(graph)


def picture(num_edges: int, folder: Path) -> Work:
    network = md.create_network(lattice(num_edges), 1.0)
    return lambda: md.plot_network(network, folder / "network.png")


def generated(num_edges: int, _: Path) -> Work:
    radius = 0.05 * num_edges ** (-1 / 3)
    nodes = 2 * num_edges // 3
    return lambda: md.random_vascular_graph(nodes, radius, seed=0, method="capillary_mesh")


STEPS: dict[str, Callable[[int, Path], Work]] = {
    "random_vascular_graph": generated,
    "networkx: copy": on(lattice, lambda graph: nx.freeze(graph.copy())),
    "validate_graph": on(lattice, md.validate_graph),
    "create_network, a segment per edge": on(lattice, lambda graph: md.create_network(graph, 1.0)),
    "create_network, three or so": on(
        lattice,
        lambda graph: md.create_network(graph, 0.4 * graph.number_of_nodes() ** (-1 / 3)),
    ),
    "network_statistics": on(lattice, md.network_statistics),
    "mark_ends_as_inlets": on(lattice, md.mark_ends_as_inlets),
    "Scaling.apply": on(lattice, md.Scaling(2.0).apply),
    "solve_flow": on(lattice, flow),
    "solve_flow, radii over a decade": flow_of_many_widths,
    "largest_component": on(lattice, md.largest_component),
    "merge_close_nodes": on(lattice, lambda graph: md.merge_close_nodes(graph, 1e-9)),
    "remove_empty_edges": on(lattice, md.remove_empty_edges),
    "find_hubs": on(lattice, md.find_hubs),
    "prune_spurs, tree": on(tree, md.prune_spurs),
    "prune_spurs, polylines": on(polylines, md.prune_spurs),
    "resolve_chains, polylines": on(polylines, md.resolve_chains),
    "resolve_chains, lattice": on(lattice, md.resolve_chains),
    "merge_repeated_lines, polylines": on(polylines, md.merge_repeated_lines),
    "merge_repeated_lines, lattice": on(lattice, md.merge_repeated_lines),
    "from_skeleton": on(skeleton, lambda graph: md.from_skeleton(graph, radius=1e-3, axes="xyz")),
    "write_vtp": written("network.vtp", write_vtp),
    "read_vtk": read("network.vtp", read_vtk),
    "write_graphml": written("network.graphml", write_graphml),
    "read_graphml": read("network.graphml", read_graphml),
    "write_csv": written("nodes.csv", write_csv),
    "read_csv": read("nodes.csv", read_csv),
    "write_dgf": written("network.dgf", write_dgf),
    "read_dgf": read(
        "network.dgf",
        lambda path: read_dgf(path, node_parameters={"inlet": 0}, edge_parameters={"radius": 0}),
    ),
    "(file for read_swc)": written("tree.swc", write_swc, tree),
    "read_swc": read("tree.swc", read_swc),
    "(file for read_manworks)": written("network.pts", write_manworks),
    "read_manworks": read("network.pts", read_manworks),
    "(file for read_secomb)": written("Network.dat", write_secomb),
    "read_secomb": read("Network.dat", read_secomb),
    "plot_network": picture,
}


if __name__ == "__main__":
    main()

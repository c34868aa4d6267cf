"""Make the networks of this folder: `python meshes/make_networks.py [FOLDER]`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pyvista as pv
from numpy.typing import NDArray

from mixeddim.networks.generators import random_vascular_graph
from mixeddim.networks.graphs import edge_indices, node_positions
from mixeddim.networks.io import write_csv, write_graphml

SIDE = 200.0  # µm, of the cube that holds the random networks


def random_network(num_nodes: int, method: str, seed: int, radius: float = 4.0) -> nx.Graph:
    """Return a random network in µm, in a cube of 200 µm."""
    return random_vascular_graph(
        num_nodes, radius, seed=seed, method=method, upper=(SIDE,) * 3, margin=10.0
    )


def bends(graph: nx.Graph, num_inner: int = 3, height: float = 0.06) -> NDArray[np.float64]:
    """Return each edge as an arc, shape `(num_edges, num_inner + 2, 3)`, its height a part of L."""
    start, end = node_positions(graph)[edge_indices(graph)].swapaxes(0, 1)
    along = end - start
    across = np.cross(along, [0.3, 0.5, 0.8])
    across *= (np.linalg.norm(along, axis=1) / np.linalg.norm(across, axis=1))[:, None]
    t = np.linspace(0.0, 1.0, num_inner + 2)[:, None]
    return start[:, None] + t * along[:, None] + height * np.sin(math.pi * t) * across[:, None]


def write_y(folder: Path) -> None:
    """Write a bifurcation as CSV: µm and Pa, its radii by Murray's law R³ = R_1³ + R_2³."""
    graph = nx.Graph()
    points = [
        (100.0, 100.0, 20.0),
        (100.0, 100.0, 100.0),
        (60.0, 100.0, 180.0),
        (140.0, 100.0, 180.0),
    ]
    for node, (pos, pressure) in enumerate(
        zip(points, (4500.0, None, 3000.0, 3000.0), strict=True)
    ):
        graph.add_node(node, pos=pos, inlet=node == 0)
        if pressure is not None:
            graph.nodes[node]["pressure"] = pressure
    graph.add_edge(0, 1, radius=8.0)
    graph.add_edges_from([(1, 2), (1, 3)], radius=8.0 / 2 ** (1 / 3))
    write_csv(graph, folder / "y_nodes.csv")


def write_tree(folder: Path) -> None:
    """Write a tree that fills a cube as SWC: µm, its root the first sample."""
    graph = random_network(40, "murray_tree", seed=5)
    root = next(node for node, inlet in graph.nodes(data="inlet") if inlet)
    sample = {node: number for number, node in enumerate(nx.dfs_preorder_nodes(graph, root), 1)}
    parent = {child: one for one, child in nx.bfs_edges(graph, root)}
    lines = ["# a tree of vessels in a cube of 200 um", "# sample type x y z radius parent"]
    for node, number in sample.items():
        x, y, z = graph.nodes[node]["pos"]
        radius = graph.edges[node, parent[node]]["radius"] if node in parent else 4.0
        link = sample[parent[node]] if node in parent else -1
        lines.append(f"{number} 0 {x:.4f} {y:.4f} {z:.4f} {radius:.4f} {link}")
    (folder / "tree.swc").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_bent(folder: Path) -> None:
    """Write bent vessels as VTP, one polyline each with end points of its own: µm."""
    graph = random_network(24, "spanning_tree", seed=2)
    arcs = bends(graph)
    num_arcs, num_points = arcs.shape[:2]
    lines = np.arange(num_arcs * num_points).reshape(num_arcs, num_points)
    mesh = pv.PolyData(arcs.reshape(-1, 3), lines=np.insert(lines, 0, num_points, axis=1).ravel())
    mesh.cell_data["radius"] = np.random.default_rng(2).uniform(2.5, 4.5, num_arcs)
    mesh.save(folder / "bent.vtp")


def write_capillaries(folder: Path) -> None:
    """Write bent capillaries as Network.dat: names with gaps, pressures and a flow at the ends."""
    graph = random_network(30, "spanning_tree", seed=11)
    arcs, pairs = bends(graph), edge_indices(graph)
    name = {ordinal: 10 * ordinal + 7 for ordinal in range(graph.number_of_nodes())}
    nodes = {name[ordinal]: pos for ordinal, pos in enumerate(node_positions(graph))}
    diameters = np.random.default_rng(11).uniform(5.0, 9.0, len(arcs))
    segments = []
    for (start, end), arc, diameter in zip(pairs, arcs, diameters, strict=True):
        inner = range(max(nodes) + 3, max(nodes) + 3 * len(arc) - 3, 3)
        nodes |= dict(zip(inner, arc[1:-1], strict=True))
        chain = [name[start], *inner, name[end]]
        segments += [(u, v, diameter) for u, v in pairwise(chain)]
    rows = [f"{5 * i + 2} 5 {u} {v} {d:.3f} 0.0 0.45 *" for i, (u, v, d) in enumerate(segments)]
    ends = sorted(
        (graph.nodes[n]["pos"][0], name[o]) for o, n in enumerate(graph) if graph.degree[n] == 1
    )
    boundary = [f"{end} 0 {35.0 - 20.0 * x / SIDE:.3f} 0.45 60.0" for x, end in ends[:-1]]
    boundary.append(f"{ends[-1][1]} 2 -1.0 0.45 20.0")
    lines = [
        "Bent capillaries, lengths in \xb5m",
        f"{SIDE} {SIDE} {SIDE} box dimensions in microns",
        "20 20 20 number of tissue points in x, y, z directions",
        "100.0 outer bound distance",
        "20.0 max. segment length",
        "8 max. number of segments per node",
        f"{len(rows)} total number of segments",
        "name type from to diam flow HD",
        *rows,
        f"{len(nodes)} total number of nodes",
        "name x y z",
        *(f"{node} {x:.4f} {y:.4f} {z:.4f}" for node, (x, y, z) in nodes.items()),
        f"{len(boundary)} number of boundary nodes",
        "name type pressure/flow HD PO2",
        *boundary,
    ]
    (folder / "capillaries.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")


def write_rhombus(folder: Path) -> None:
    """Write two vessels that part and meet again as .pts, in units of the side of a cube."""
    corners = {"in": (0.1, 0.5), "left": (0.3, 0.5), "right": (0.7, 0.5), "out": (0.9, 0.5)}
    corners |= {"top": (0.5, 0.7), "bottom": (0.5, 0.3)}
    conditions = {"in": "DIR 32.0", "out": "DIR 15.0"}
    arcs = "in left", "left top", "left bottom", "top right", "bottom right", "right out"
    lines = ["BEGIN_LIST"]
    for number, arc in enumerate(arcs):
        start, end = arc.split()
        t = np.array([0.0, 1.0, 0.25, 0.5, 0.75])[:, None]  # the end comes second
        points = (1 - t) * np.array(corners[start]) + t * np.array(corners[end])
        words = "start", "end", "point", "point", "point"
        lines += ["BEGIN_ARC", *(f"BC {conditions.get(corner, 'INT')}" for corner in (start, end))]
        lines += [
            f"{number} {x:.6f} {y:.6f} 0.5 {word}"
            for (x, y), word in zip(points, words, strict=True)
        ]
        lines.append("END_ARC")
    (folder / "rhombus.pts").write_text("\n".join([*lines, "END_LIST"]) + "\n", encoding="utf-8")
    radii = "0.04", "0.03", "0.02", "0.03", "0.02", "0.04"
    text = "\n".join(["BEGIN_LIST", *radii, "END_LIST"]) + "\n"
    (folder / "rhombus_radii.pts").write_text(text, encoding="utf-8")


def write_mesh(folder: Path) -> None:
    """Write a capillary mesh as GraphML: µm."""
    write_graphml(random_network(30, "capillary_mesh", seed=3), folder / "mesh.graphml")


def main(argv: Sequence[str] | None = None) -> None:
    """Write all networks to a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    folder = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    for write in (write_y, write_tree, write_bent, write_capillaries, write_rhombus, write_mesh):
        write(folder)


if __name__ == "__main__":
    main()

"""The pictures: each function draws one, and returns its plotter or writes it to a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal, overload

import numpy as np
import pyvista as pv
from numpy.typing import ArrayLike, NDArray

from mixeddim.fem.meshes import Network
from mixeddim.networks.graphs import edge_indices, node_positions
from mixeddim.results.output import network_dataset, tissue_dataset
from mixeddim.results.plotting.colours import (
    NETWORK_COLOURS,
    TISSUE_COLOURS,
    colour_scale,
)
from mixeddim.results.plotting.scene import (
    TissueView,
    add_frame,
    add_tissue,
    add_vessels,
    check_view,
)
from mixeddim.results.plotting.window import draw_once, finish, open_plotter
from mixeddim.solvers.stationary import Solution

__all__ = [
    "BARS",
    "TITLES",
    "check_titles",
    "plot",
    "plot_network",
]

type Picture = str | os.PathLike[str]

TITLES: Final = ("u_1d (network)", "u_3d (tissue)")
BARS: Final = (0.54, 0.08)  # heights at which the colour bars of the network and the tissue start


@overload
def plot(
    solution: Solution,
    filename: None = None,
    *,
    titles: tuple[str, str] = ...,
    tissue: TissueView = ...,
) -> pv.Plotter: ...
@overload
def plot(
    solution: Solution,
    filename: Picture,
    *,
    titles: tuple[str, str] = ...,
    tissue: TissueView = ...,
) -> Path: ...
def plot(
    solution: Solution,
    filename: Picture | None = None,
    *,
    titles: tuple[str, str] = TITLES,
    tissue: TissueView = "contours",
) -> pv.Plotter | Path:
    """Draw both fields: vessels coloured by u_1d in a tissue coloured by u_3d.

    Args:
        solution: A solution of the coupled problem, in any unit of length.
        filename: Picture to write, with or without a display. An older one is replaced once the
            new one is complete.
        titles: Titles of the colour bars of the network and of the tissue; what is not Latin, in
            LaTeX between dollars.
        tissue: How to show the tissue. "contours": on its walls behind the network, and on
            translucent contours. "slices": on three orthogonal planes through its centre.
            "clipped": all of it but the octant in front.

    Returns:
        The path of the picture; without `filename` the plotter, for `plot(solution).show()` or
        to draw more.

    Raises:
        ValueError: If the format of the picture or the view of the tissue is unknown, or both
            titles are the same.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    title_1d, title_3d = check_titles(titles)
    check_view(tissue)
    body, vessels = tissue_dataset(solution), network_dataset(solution)
    scale_1d = colour_scale(title_1d, vessels.point_data["u_1d"], NETWORK_COLOURS)
    scale_3d = colour_scale(title_3d, body.point_data["u_3d"], TISSUE_COLOURS)

    def draw() -> pv.Plotter | Path:
        plotter = open_plotter(filename)
        add_tissue(plotter, body, "u_3d", scale_3d, tissue, scale_3d.bar(BARS[1]))
        add_vessels(plotter, vessels, "u_1d", scale_1d, scale_1d.bar(BARS[0]))
        add_frame(plotter, body.bounds)
        return finish(plotter, filename)

    return draw_once(solution.system.processes, filename, draw)


@overload
def plot_network(
    network: Network | Solution,
    filename: None = None,
    *,
    title: str | None = ...,
    node_values: str | ArrayLike | None = ...,
    edge_values: str | ArrayLike | None = ...,
) -> pv.Plotter: ...
@overload
def plot_network(
    network: Network | Solution,
    filename: Picture,
    *,
    title: str | None = ...,
    node_values: str | ArrayLike | None = ...,
    edge_values: str | ArrayLike | None = ...,
) -> Path: ...
def plot_network(
    network: Network | Solution,
    filename: Picture | None = None,
    *,
    title: str | None = None,
    node_values: str | ArrayLike | None = None,
    edge_values: str | ArrayLike | None = None,
) -> pv.Plotter | Path:
    """Draw a network alone, as vessels coloured by their radius, by u_1d, or by other values.

    Args:
        network: The network, in any unit of length, coloured by radius; or a solution, whose
            network is coloured by u_1d.
        filename: Picture to write, as in `plot`.
        title: Title of the colour bar; by default what colours the vessels.
        node_values: What colours them instead, linear along each: an attribute of the nodes, or
            numbers in the order of `graph.nodes`, such as the pressures of `solve_flow`.
        edge_values: The same, constant on each: an attribute of the edges, or numbers in the
            order of `graph.edges`, such as the flows of `solve_flow` or a column of `edge_table`.

    Returns:
        The path of the picture, or without `filename` the plotter.

    Raises:
        ValueError: If the format of the picture is unknown, there are values of both kinds, or
            they are not a finite number for each node or edge.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    vessels = network_dataset(network)
    name, values = _vessel_values(network, vessels, node_values, edge_values)
    vessels.point_data["drawn"] = values
    scale = colour_scale(title or name, values, NETWORK_COLOURS)

    def draw() -> pv.Plotter | Path:
        plotter = open_plotter(filename)
        add_vessels(plotter, vessels, "drawn", scale, scale.bar(bottom=0.31))
        add_frame(plotter, plotter.bounds)
        return finish(plotter, filename)

    source = network if isinstance(network, Network) else network.system.network
    return draw_once(source.processes, filename, draw)


def check_titles(titles: tuple[str, str]) -> tuple[str, str]:
    """Return the titles of the colour bars of network and tissue.

    Raises:
        ValueError: If they are the same.
    """
    title_1d, title_3d = titles
    if title_1d == title_3d:
        raise ValueError(
            f"got the title {title_1d!r} for both colour bars; wanted two that tell the network "
            "from the tissue."
        )
    return title_1d, title_3d


def _vessel_values(
    source: Network | Solution,
    vessels: pv.PolyData,
    node_values: str | ArrayLike | None,
    edge_values: str | ArrayLike | None,
) -> tuple[str, NDArray[np.float64]]:
    """Return what colours the vessels and its values at the ends of their segments."""
    if node_values is not None and edge_values is not None:
        raise ValueError("got node_values and edge_values; wanted one of them. Draw two pictures.")
    network = source if isinstance(source, Network) else source.system.network
    graph, edge = network.graph, np.repeat(network.edge_of_cell, 2)
    if node_values is not None:
        name = node_values if isinstance(node_values, str) else "node values"
        values = _numbers(node_values, [data for _, data in graph.nodes(data=True)], "node")
        first, second = edge_indices(graph)[edge].T
        ends = node_positions(graph)
        length = np.linalg.norm(ends[second] - ends[first], axis=1)
        t = np.linalg.norm(vessels.points - ends[first], axis=1) / length
        return name, (1 - t) * values[first] + t * values[second]
    if edge_values is not None:
        name = edge_values if isinstance(edge_values, str) else "edge values"
        values = _numbers(edge_values, [data for *_, data in graph.edges(data=True)], "edge")
        return name, values[edge]
    name = "radius" if isinstance(source, Network) else "u_1d"
    return name, vessels.point_data[name]


def _numbers(
    values: str | ArrayLike, attributes: list[dict[str, Any]], kind: Literal["node", "edge"]
) -> NDArray[np.float64]:
    """Return a finite number for each node or edge, from an array or an attribute."""
    if isinstance(values, str):
        wanted, values = f"{values!r}", [data.get(values, np.nan) for data in attributes]
    else:
        wanted = "numbers"
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full(len(attributes), np.nan)  # words, or no array at all
    finite = np.isfinite(numbers).sum()
    if numbers.shape != (len(attributes),) or finite < len(attributes):
        raise ValueError(
            f"got {wanted} of shape {numbers.shape}, {finite} of them finite; wanted "
            f"{len(attributes)} finite ones, one a {kind}: an array in the order of "
            f"graph.{kind}s, or the name of an attribute that each {kind} of the graph carries."
        )
    return numbers

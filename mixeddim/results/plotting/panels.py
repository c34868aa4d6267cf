"""Pictures of several panels beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, overload

import numpy as np
import pyvista as pv
from numpy.typing import ArrayLike

from mixeddim.fem.meshes import StructuredBox
from mixeddim.processes import Processes
from mixeddim.results.output import grid_dataset, network_dataset, tissue_dataset
from mixeddim.results.plotting.colours import (
    NETWORK_COLOURS,
    SPREAD_COLOURS,
    TISSUE_COLOURS,
    colour_scale,
)
from mixeddim.results.plotting.pictures import BARS, TITLES, Picture, check_titles
from mixeddim.results.plotting.scene import (
    TissueView,
    add_frame,
    add_heading,
    add_tissue,
    add_vessels,
    check_view,
)
from mixeddim.results.plotting.window import draw_once, finish, open_plotter
from mixeddim.solvers.stationary import Solution

__all__ = ["plot_ensemble", "plot_side_by_side"]

PANEL: Final = 1000  # pixels, height and width of one of several panels
BAR_PANEL: Final = 500  # pixels, width of the panel of colour bars beside them
ENSEMBLE_SIZE: Final = (2800, 1050)


@overload
def plot_side_by_side(
    solutions: Mapping[str, Solution],
    filename: None = None,
    *,
    titles: tuple[str, str] = ...,
    tissue: TissueView = ...,
) -> pv.Plotter: ...
@overload
def plot_side_by_side(
    solutions: Mapping[str, Solution],
    filename: Picture,
    *,
    titles: tuple[str, str] = ...,
    tissue: TissueView = ...,
) -> Path: ...
def plot_side_by_side(
    solutions: Mapping[str, Solution],
    filename: Picture | None = None,
    *,
    titles: tuple[str, str] = TITLES,
    tissue: TissueView = "contours",
) -> pv.Plotter | Path:
    """Draw solutions beside each other, with the same colours and contours for the same values.

    Args:
        solutions: Name -> solution; the name is written above the panel.
        filename: Picture to write, as in `plot`.
        titles: Titles of the colour bars of the network and of the tissue.
        tissue: How to show the tissue, as in `plot`.

    Returns:
        The path of the picture, or without `filename` the plotter.

    Raises:
        ValueError: If there is no solution, and as in `plot`.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    if not solutions:
        raise ValueError("got no solution; wanted a name and a solution at least.")
    title_1d, title_3d = check_titles(titles)
    check_view(tissue)
    bodies = [tissue_dataset(solution) for solution in solutions.values()]
    networks = [network_dataset(solution) for solution in solutions.values()]
    all_1d = np.concatenate([vessels.point_data["u_1d"] for vessels in networks])
    all_3d = np.concatenate([body.point_data["u_3d"] for body in bodies])
    scale_1d = colour_scale(title_1d, all_1d, NETWORK_COLOURS)
    scale_3d = colour_scale(title_3d, all_3d, TISSUE_COLOURS)

    def draw() -> pv.Plotter | Path:
        widths = [*[PANEL] * len(bodies), BAR_PANEL]
        plotter = open_plotter(filename, window_size=(sum(widths), PANEL), columns=widths)
        for column, name in enumerate(solutions):
            plotter.subplot(0, column)
            add_tissue(plotter, bodies[column], "u_3d", scale_3d, tissue, None)
            add_vessels(plotter, networks[column], "u_1d", scale_1d, None)
            add_frame(plotter, bodies[column].bounds, zoom=0.8, shift=(0.0, 0.05))
            add_heading(plotter, name)
        mappers = [plotter.actors[name].mapper for name in ("network", "tissue")]
        plotter.subplot(0, len(bodies))
        for mapper, scale, bottom in zip(mappers, (scale_1d, scale_3d), BARS, strict=True):
            bar = plotter.add_scalar_bar(mapper=mapper, **scale.bar(bottom, left=0.42, width=0.06))
            scale.mark(bar)
        return finish(plotter, filename)

    processes = next(iter(solutions.values())).system.processes
    return draw_once(processes, filename, draw)


@overload
def plot_ensemble(
    box: StructuredBox, fields: ArrayLike, filename: None = None, *, title: str = ...
) -> pv.Plotter: ...
@overload
def plot_ensemble(
    box: StructuredBox, fields: ArrayLike, filename: Picture, *, title: str = ...
) -> Path: ...
def plot_ensemble(
    box: StructuredBox,
    fields: ArrayLike,
    filename: Picture | None = None,
    *,
    title: str = "u_3d",
) -> pv.Plotter | Path:
    """Draw mean and standard deviation of many tissue fields on planes through their box.

    Args:
        box: The box of all fields; the networks may differ.
        fields: One field per row in the order of the dofs of `box.P1`, such as `u_3d.x.array` or
            the `x` of `learning.solve`, shape (num_fields, num_dofs), at least two. The deviation
            is the estimate for the population, with num_fields - 1.
        filename: Picture to write, as in `plot`.
        title: What the fields are.

    Returns:
        The path of the picture, or without `filename` the plotter.

    Raises:
        ValueError: If the fields are not of that shape or not finite, or the format of the
            picture is unknown.
        NotImplementedError: If the box is distributed over several processes.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    Processes.of(box.mesh).refuse("plot_ensemble")
    grid = box.grid(box.P1)
    values = np.asarray(fields, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or values.shape[1] != len(grid.node_of_dof):
        raise ValueError(
            f"got fields of shape {values.shape}; wanted (num_fields, {len(grid.node_of_dof)}), "
            "two fields at least. Stack the tissue dofs of solutions on this box."
        )
    infinite = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(infinite) > 0:
        raise ValueError(
            f"got field {infinite[0]} with values that are not finite; wanted numbers. Leave out "
            "solves that failed."
        )
    plotter = open_plotter(filename, window_size=ENSEMBLE_SIZE, columns=(1, 1))
    statistics = {"mean": values.mean(axis=0), "std. dev.": values.std(axis=0, ddof=1)}
    colours = (TISSUE_COLOURS, SPREAD_COLOURS)
    for column, (name, field) in enumerate(statistics.items()):
        plotter.subplot(0, column)
        tissue = grid_dataset(grid, name, field)
        scale = colour_scale(f"{title}, {name}", field, colours[column])
        add_tissue(plotter, tissue, name, scale, "slices", scale.bar(bottom=0.31))
        add_frame(plotter, tissue.bounds)
    return finish(plotter, filename)

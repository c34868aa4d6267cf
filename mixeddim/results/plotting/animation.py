"""Animations of transport: one frame per time, all with the same colour scale."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyvista as pv
from numpy.typing import NDArray
from PIL import Image

from mixeddim.atomic import replacing
from mixeddim.processes import ALONE
from mixeddim.results.output import network_dataset, tissue_dataset
from mixeddim.results.plotting.colours import NETWORK_COLOURS, TISSUE_COLOURS, colour_scale
from mixeddim.results.plotting.pictures import BARS, TITLES, check_titles
from mixeddim.results.plotting.scene import (
    TissueView,
    add_frame,
    add_heading,
    add_tissue,
    add_vessels,
    check_view,
)
from mixeddim.results.plotting.window import draw_once, open_plotter
from mixeddim.solvers.transport import TransportState

__all__ = ["animate"]

MOVIES: Final = (".gif", ".mp4")
DRAWN_SIZE: Final = (1600, 1200)  # pixels, twice what is written: that smooths the edges


def animate(
    states: Iterable[TransportState],
    filename: str | os.PathLike[str],
    *,
    frames_per_second: float = 10.0,
    titles: tuple[str, str] = TITLES,
    tissue: TissueView = "contours",
    time_format: str = "t = {:.3g}",
) -> Path:
    """Draw states in time as `plot` does, with one range of colours, and write a movie of them.

    Args:
        states: Tissue and network at increasing times, such as `simulate_transport` gives; each
            becomes a frame.
        filename: Movie to write, `.gif`, or `.mp4` where the package imageio-ffmpeg is installed.
            An older one is replaced once the new one is complete.
        frames_per_second: How fast it runs.
        titles: Titles of the colour bars of the network and of the tissue.
        tissue: How to show the tissue, as in `plot`.
        time_format: How the time is written above, for `str.format`.

    Returns:
        The path of the movie.

    Raises:
        ValueError: If there is no state, the frame rate is not positive, or as in `plot`.
        TypeError: If a state has no time.
        ImportError: If the movie is MP4 and imageio-ffmpeg is missing.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    if not 0 < frames_per_second < np.inf:
        raise ValueError(f"got frames_per_second={frames_per_second}; wanted a positive number.")
    titles = check_titles(titles)
    check_view(tissue)
    data, processes = [], ALONE
    for state in states:
        data.append((_time(state), tissue_dataset(state), network_dataset(state)))
        processes = state.system.processes
    if not data:
        raise ValueError("got no state to animate; wanted one at least.")
    path = Path(filename)

    def draw() -> Path:
        plotter = open_plotter(path, window_size=DRAWN_SIZE, formats=MOVIES)
        plotter.disable_anti_aliasing()
        try:
            with replacing(path) as part:
                write = _write_gif if path.suffix == ".gif" else _write_mp4
                headings = (time_format.format(time) for time, *_ in data)
                write(part, _frames(plotter, data, headings, titles, tissue), frames_per_second)
        finally:
            plotter.close()
        return path

    return draw_once(processes, path, draw)


def _time(state: TransportState) -> float:
    if not hasattr(state, "time"):
        raise TypeError(
            f"got a {type(state).__name__}, which has no time; wanted states such as those of "
            "simulate_transport. Draw a stationary solution with plot."
        )
    return state.time


def _frames(
    plotter: pv.Plotter,
    data: list[tuple[float, pv.DataSet, pv.PolyData]],
    headings: Iterable[str],
    titles: tuple[str, str],
    view: TissueView,
) -> Iterator[Image.Image]:
    """Yield the picture of each state."""
    values_1d = np.concatenate([vessels.point_data["u_1d"] for _, _, vessels in data])
    values_3d = np.concatenate([body.point_data["u_3d"] for _, body, _ in data])
    scale_1d = colour_scale(titles[0], values_1d, NETWORK_COLOURS)
    scale_3d = colour_scale(titles[1], values_3d, TISSUE_COLOURS)
    for number, ((_, body, vessels), heading) in enumerate(zip(data, headings, strict=True)):
        is_first = number == 0
        plotter.suppress_rendering = True  # until all of the frame is in its place
        bars = (scale_3d.bar(BARS[1]), scale_1d.bar(BARS[0])) if is_first else (None, None)
        add_tissue(plotter, body, "u_3d", scale_3d, view, bars[0])
        add_vessels(plotter, vessels, "u_1d", scale_1d, bars[1])
        add_heading(plotter, heading)
        if is_first:
            add_frame(plotter, body.bounds)
        plotter.suppress_rendering = False
        plotter.render()
        pixels: NDArray[np.uint8] = plotter.screenshot(return_img=True)
        yield Image.fromarray(pixels).reduce(2)


def _write_gif(path: Path, frames: Iterator[Image.Image], frames_per_second: float) -> None:
    """Write a GIF that repeats; its frames share a palette, so that none flickers."""
    pictures = list(frames)
    width, height = pictures[0].size
    montage = Image.new("RGB", (width // 2, height // 2 * len(pictures)))
    for number, picture in enumerate(pictures):
        montage.paste(picture.reduce(2), (0, height // 2 * number))
    # Colours of all places and not only of many: vessels and colour bars are thin.
    palette = montage.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    first, *rest = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    first.save(path, save_all=True, append_images=rest, duration=1000 / frames_per_second, loop=0)


def _write_mp4(path: Path, frames: Iterator[Image.Image], frames_per_second: float) -> None:
    try:
        from imageio_ffmpeg import write_frames
    except ImportError as error:
        raise ImportError(
            "got a movie in MP4, and no imageio-ffmpeg to write it; wanted that package: "
            "`pip install imageio-ffmpeg`, or a filename that ends in .gif."
        ) from error
    width, height = (pixels // 2 for pixels in DRAWN_SIZE)
    writer = write_frames(str(path), (width, height), fps=frames_per_second, macro_block_size=2)
    writer.send(None)  # starts it
    try:
        for frame in frames:
            writer.send(frame.tobytes())
    finally:
        writer.close()

"""Pictures: the network as vessels of its own radius inside the tissue, each with its field.

The tissue's field lies on the walls behind the network and on translucent contours around it.
Of both only the side that faces away from the camera is drawn, from wherever one looks, so that
little veils the vessels and their colours stay those of the colour bar.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import pyvista as pv
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from mixeddim.atomic import replacing
from mixeddim.meshes import Network
from mixeddim.output import network_dataset, tissue_dataset
from mixeddim.solvers import Solution

__all__ = ["plot", "plot_network"]

FORMATS: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
WINDOW_SIZE: Final = (1800, 1350)  # pixels
FONT_SIZE: Final = 42  # 8 pt where the picture is as wide as an A4 page
NETWORK_COLOURS: Final = "plasma"
# White to blue in equal steps of CIELAB: light, so that the vessels stand out against it.
TISSUE_COLOURS: Final = LinearSegmentedColormap.from_list(
    "tissue",
    ["#f3f7fa", "#cfe3ef", "#accde4", "#8ab7d8", "#69a0cb", "#4a88ba", "#2c6ea6", "#12558d"],
)
CONTOUR_QUANTILES: Final = (0.5, 0.8, 0.95)
VIEW: Final = (1.3, -2.2, 1.2)  # from the centre to the camera
# Per axis its name, the edge of the box that carries it (the sides that edge lies on), and how
# the labels stand beside that edge, all as seen from VIEW.
AXES: Final = (("x", (0, -1, -1), "right"), ("y", (1, 0, -1), "left"), ("z", (-1, -1, 0), "right"))
SIDES_OF_TUBE: Final = 32
LABELS_PER_BAR: Final = 4


@overload
def plot(
    solution: Solution, filename: None = None, *, titles: tuple[str, str] = ...
) -> pv.Plotter: ...
@overload
def plot(
    solution: Solution, filename: str | os.PathLike[str], *, titles: tuple[str, str] = ...
) -> Path: ...
def plot(
    solution: Solution,
    filename: str | os.PathLike[str] | None = None,
    *,
    titles: tuple[str, str] = ("u_1d (network)", "u_3d (tissue)"),
) -> pv.Plotter | Path:
    """Draw both fields: vessels coloured by u_1d in a tissue coloured by u_3d.

    Args:
        solution: A solution of the coupled problem, in any unit of length.
        filename: Picture to write, with or without a display. An older one is replaced once the
            new one is complete.
        titles: Titles of the colour bars of the network and of the tissue.

    Returns:
        The path of the picture; without `filename` the plotter, for `plot(solution).show()` or
        to draw more.

    Raises:
        ValueError: If the format of the picture is unknown, or both titles are the same.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    title_1d, title_3d = titles
    if title_1d == title_3d:
        raise ValueError(
            f"got the title {title_1d!r} for both colour bars; wanted two that tell the network "
            "from the tissue."
        )
    plotter = _open_plotter(filename)
    tissue = tissue_dataset(solution)
    _add_tissue(plotter, tissue, _bar(title_3d, bottom=0.08))
    _add_vessels(plotter, network_dataset(solution), "u_1d", _bar(title_1d, bottom=0.54))
    _frame(plotter, tissue.bounds)
    return plotter if filename is None else _write(plotter, Path(filename))


@overload
def plot_network(network: Network, filename: None = None, *, title: str = ...) -> pv.Plotter: ...
@overload
def plot_network(
    network: Network, filename: str | os.PathLike[str], *, title: str = ...
) -> Path: ...
def plot_network(
    network: Network, filename: str | os.PathLike[str] | None = None, *, title: str = "radius"
) -> pv.Plotter | Path:
    """Draw a network as vessels coloured by their radius.

    Args:
        network: The network, in any unit of length.
        filename: Picture to write, as in `plot`.
        title: Title of the colour bar.

    Returns:
        The path of the picture, or without `filename` the plotter.

    Raises:
        ValueError: If the format of the picture is unknown.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    plotter = _open_plotter(filename)
    vessels = network_dataset(network)
    _add_vessels(plotter, vessels, "radius", _bar(title, bottom=0.31))
    _frame(plotter, plotter.bounds)
    return plotter if filename is None else _write(plotter, Path(filename))


# --- What is in the picture -------------------------------------------------------------------


def _add_tissue(plotter: pv.Plotter, tissue: pv.DataSet, bar: dict[str, Any]) -> None:
    u_3d = tissue.point_data["u_3d"]
    style: dict[str, Any] = {
        "scalars": "u_3d",
        "cmap": TISSUE_COLOURS,
        "clim": _colour_range(u_3d),
        "culling": "front",
    }
    plotter.add_mesh(
        tissue.extract_surface(algorithm="dataset_surface"),
        name="tissue",
        lighting=False,
        scalar_bar_args=bar | {"fmt": _number_format(u_3d)},
        **style,
    )
    if _is_constant(u_3d):
        return  # its contours would be those of rounding errors
    contours = tissue.contour(np.quantile(u_3d, CONTOUR_QUANTILES), scalars="u_3d")
    if contours.n_points > 0:
        plotter.add_mesh(
            contours,
            name="contours",
            opacity=0.4,
            smooth_shading=True,
            ambient=0.7,
            diffuse=0.4,
            show_scalar_bar=False,
            **style,
        )


def _add_vessels(
    plotter: pv.Plotter, vessels: pv.PolyData, field: str, bar: dict[str, Any]
) -> None:
    """Draw tubes around the segments, and balls that close the joints between them."""
    values = vessels.point_data[field]
    style: dict[str, Any] = {
        "scalars": field,
        "cmap": NETWORK_COLOURS,
        "clim": _colour_range(values),
        "smooth_shading": True,
        "ambient": 0.35,
        "specular": 0.2,
        "specular_power": 20,
    }
    tubes = vessels.tube(scalars="radius", absolute=True, n_sides=SIDES_OF_TUBE, capping=True)
    bar |= {
        "fmt": _number_format(values),
        "n_labels": 1 if _is_constant(values) else LABELS_PER_BAR,
    }
    plotter.add_mesh(tubes, name="network", scalar_bar_args=bar, **style)
    joints = _joints(vessels)
    if joints.n_points > 0:
        ball = pv.Sphere(radius=1.0, theta_resolution=SIDES_OF_TUBE, phi_resolution=SIDES_OF_TUBE)
        balls = joints.glyph(geom=ball, scale="radius", orient=False)
        plotter.add_mesh(balls, name="joints", show_scalar_bar=False, **style)


def _joints(vessels: pv.PolyData) -> pv.PolyData:
    """Return the points where segments meet at an angle, each with its largest radius."""
    ends = vessels.lines.reshape(-1, 3)[:, 1:]
    along = np.diff(vessels.points[ends], axis=1)[:, 0]
    along /= np.linalg.norm(along, axis=1, keepdims=True)

    # Segments copy their ends from the same mesh node, so that equal points are so to the bit.
    points, first, node = np.unique(vessels.points, axis=0, return_index=True, return_inverse=True)
    leaving = np.zeros_like(points)
    np.add.at(leaving, node[ends[:, 0]], along)
    np.add.at(leaving, node[ends[:, 1]], -along)
    radius = np.zeros(len(points))
    np.maximum.at(radius, node, vessels.point_data["radius"])

    degree = np.bincount(node)
    is_joint = (degree > 2) | ((degree == 2) & (np.linalg.norm(leaving, axis=1) > 1e-3))
    joints = pv.PolyData(points[is_joint])
    for name, values in vessels.point_data.items():
        joints.point_data[name] = values[first][is_joint]
    joints.point_data["radius"] = radius[is_joint]
    return joints


# --- The frame around it ----------------------------------------------------------------------


def _frame(plotter: pv.Plotter, bounds: Sequence[float]) -> None:
    """Draw the box with these bounds and its axes, and point the camera at it."""
    lower, upper = np.array(bounds).reshape(3, 2).T
    plotter.add_mesh(pv.Box(bounds).outline(), name="box", color="black", line_width=2)
    for axis, (name, edge, justification) in enumerate(AXES):
        side = np.array(edge)
        beside = np.where(side > 0, upper, lower) + 0.035 * np.linalg.norm(upper - lower) * side
        positions = np.tile(beside, (3, 1))
        positions[:, axis] = lower[axis], 0.5 * (lower[axis] + upper[axis]), upper[axis]
        plotter.add_point_labels(
            positions,
            [f"{lower[axis]:.3g}", name, f"{upper[axis]:.3g}"],
            name=f"axis {name}",
            justification_horizontal=justification,
            justification_vertical="center",
            font_size=FONT_SIZE,
            bold=False,
            text_color="black",
            shape=None,
            show_points=False,
            always_visible=True,
        )
    for bar in plotter.scalar_bars.values():
        bar.SetVerticalTitleSeparation(FONT_SIZE)
    centre = 0.5 * (lower + upper)
    plotter.camera_position = [centre + VIEW, centre, (0, 0, 1)]
    plotter.reset_camera(bounds=bounds)
    plotter.camera.zoom(0.87)
    plotter.camera.SetWindowCenter(0.18, -0.02)  # leaves the right-hand side to the colour bars


def _bar(title: str, bottom: float) -> dict[str, Any]:
    """Return how to draw a colour bar at the right-hand side, from a height in [0, 1] upwards."""
    return {
        "title": title,
        "vertical": True,
        "position_x": 0.84,
        "position_y": bottom,
        "width": 0.03,
        "height": 0.36,
        "n_labels": LABELS_PER_BAR,
        "color": "black",
        "title_font_size": FONT_SIZE,
        "label_font_size": FONT_SIZE,
        "unconstrained_font_size": True,
    }


def _colour_range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return least and largest value, set apart where the field is constant up to rounding."""
    low, high = float(values.min()), float(values.max())
    if not _is_constant(values):
        return low, high
    margin = 0.01 * max(abs(low), abs(high)) or 1.0
    return low - margin, high + margin


def _is_constant(values: NDArray[np.float64]) -> bool:
    """Tell whether a field is constant up to rounding."""
    return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def _number_format(values: NDArray[np.float64]) -> str:
    """Return the printf format that tells the labels of a colour bar apart."""
    low, high = _colour_range(values)
    if not 1e-3 <= max(abs(low), abs(high)) < 1e6:
        return " %.2e"
    step = (high - low) / (LABELS_PER_BAR - 1)
    return f" %.{max(0, 1 - int(np.floor(np.log10(step))))}f"


# --- Off-screen drawing and files -------------------------------------------------------------


def _open_plotter(filename: str | os.PathLike[str] | None) -> pv.Plotter:
    if filename is not None and Path(filename).suffix.lower() not in FORMATS:
        raise ValueError(
            f"got the picture file {os.fspath(filename)!r}; wanted one that ends in "
            f"{', '.join(FORMATS)}. Without a filename plot returns the plotter, which can "
            "export more."
        )
    _load_triton()
    has_display = _has_display()
    if not has_display:
        _use_offscreen_driver()
    plotter = pv.Plotter(
        off_screen=True if filename is not None or not has_display else None,
        window_size=list(WINDOW_SIZE),
    )
    plotter.set_background("white")
    plotter.enable_parallel_projection()
    plotter.enable_anti_aliasing("ssaa")
    plotter.enable_depth_peeling(8)
    return plotter


@cache
def _load_triton() -> None:
    """Load torch's compiler before Mesa: both bring LLVM, and loaded after it triton crashes."""
    with suppress(ImportError):
        importlib.import_module("triton._C.libtriton")


def _has_display() -> bool:
    variables = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform != "linux" or any(os.environ.get(name) for name in variables)


@cache
def _use_offscreen_driver() -> None:
    """Let VTK draw through EGL, after trying it in a process of its own: without it VTK crashes."""
    window = os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    if window != "vtkEGLRenderWindow":
        return
    trial = subprocess.run(
        [sys.executable, "-c", _TRIAL], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if trial.returncode != 0:
        raise RuntimeError(
            f"got exit status {trial.returncode} from a trial of VTK's EGL window, and there is no "
            "DISPLAY; wanted libEGL and a Mesa driver to draw without one. On Debian and Ubuntu "
            "run `apt install libegl1 libgl1-mesa-dri`."
        )


_TRIAL: Final = """
from vtkmodules.vtkRenderingOpenGL2 import vtkEGLRenderWindow
window = vtkEGLRenderWindow()
window.SetSize(8, 8)
window.OffScreenRenderingOn()
window.Render()
"""


def _write(plotter: pv.Plotter, path: Path) -> Path:
    try:
        with replacing(path) as part:
            plotter.screenshot(part, return_img=False)
    finally:
        plotter.close()
    return path

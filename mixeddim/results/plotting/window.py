"""Plotters, with or without a display, and the picture files they write."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import pyvista as pv

from mixeddim.atomic import replacing
from mixeddim.processes import Processes

__all__ = ["FORMATS", "WINDOW_SIZE", "draw_once", "finish", "open_plotter"]

FORMATS: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
WINDOW_SIZE: Final = (1800, 1350)  # pixels


def open_plotter(
    filename: str | os.PathLike[str] | None,
    *,
    window_size: tuple[int, int] = WINDOW_SIZE,
    columns: Sequence[float] = (1.0,),
    formats: Sequence[str] = FORMATS,
) -> pv.Plotter:
    """Return a white plotter that draws to a file, on a display, or else into memory.

    Args:
        filename: File that it will write; None where the plotter is for the user.
        window_size: Width and height of the picture in pixels.
        columns: Relative widths of the panels beside each other.
        formats: Allowed endings of the filename.

    Raises:
        ValueError: If the filename ends otherwise.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    if filename is not None and Path(filename).suffix not in formats:
        raise ValueError(
            f"got the file {os.fspath(filename)!r}; wanted one that ends in "
            f"{', '.join(formats)}. Without a filename a picture returns its plotter, which can "
            "export more."
        )
    _load_triton()
    has_display = _has_display()
    if not has_display:
        _use_offscreen_driver()
    plotter = pv.Plotter(
        shape=(1, len(columns)),
        col_weights=columns,
        border=False,
        off_screen=True if filename is not None or not has_display else None,
        window_size=list(window_size),
    )
    plotter.set_background("white")
    plotter.enable_anti_aliasing("ssaa", all_renderers=True)
    for renderer in plotter.renderers:
        renderer.enable_parallel_projection()
        renderer.enable_depth_peeling(8)
    return plotter


def draw_once[Result](
    processes: Processes, filename: str | os.PathLike[str] | None, draw: Callable[[], Result]
) -> Result:
    """Let the first process draw, and return what it returns on each; draw must not communicate.

    Raises:
        ValueError: If there are several processes and no filename: a plotter is for one.
    """
    if filename is None and processes.size > 1:
        raise ValueError(
            f"got no filename on {processes.size} processes; wanted one, since only the first "
            "process draws. Pass the picture to write, or show the plotter on one process."
        )
    return processes.on_first(draw)


def finish(plotter: pv.Plotter, filename: str | os.PathLike[str] | None) -> pv.Plotter | Path:
    """Return the plotter, or with a filename write its picture there and return the path."""
    if filename is None:
        return plotter
    try:
        with replacing(Path(filename)) as part:
            plotter.screenshot(part, return_img=False)
    finally:
        plotter.close()
    return Path(filename)


@cache
def _load_triton() -> None:
    """Load torch's compiler before Mesa: both include LLVM, and triton crashes if loaded second."""
    with suppress(ImportError):
        importlib.import_module("triton._C.libtriton")


def _has_display() -> bool:
    variables = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform != "linux" or any(os.environ.get(name) for name in variables)


@cache
def _use_offscreen_driver() -> None:
    """Let VTK draw through EGL, after a trial in a separate process: without EGL VTK crashes."""
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

"""A solution as an interactive web page that needs no server and no internet.

The viewer is vtk.js from the package trame-vtk, and the scene is that of `plot`. vtk.js draws two
colour bars over each other and leaves out the labels of the axes, so the page draws both itself.
"""

from __future__ import annotations

import html
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import pyvista as pv
from matplotlib.colors import to_hex

from mixeddim.atomic import replacing
from mixeddim.results.output import network_dataset, tissue_dataset
from mixeddim.results.plotting.colours import (
    NETWORK_COLOURS,
    TISSUE_COLOURS,
    ColourScale,
    colour_scale,
)
from mixeddim.results.plotting.pictures import TITLES, check_titles
from mixeddim.results.plotting.scene import VIEW, add_frame, add_tissue, add_vessels, axis_labels
from mixeddim.results.plotting.window import draw_once, open_plotter
from mixeddim.solvers.stationary import Solution

__all__ = ["export_html"]

COLOUR_STOPS: Final = 33
# Nothing may be loaded from anywhere: what tries to is refused, and reported in the console.
POLICY: Final = "default-src 'unsafe-inline' 'unsafe-eval' data: blob:"
ICONS: Final = "https://kitware.github.io/vtk-js/icon/"  # the one thing the viewer would load
STYLE: Final = """
.content { position: absolute; inset: 0; }
#legend { position: fixed; inset: 0; z-index: 1; pointer-events: none; font: 16px sans-serif; }
#legend h1 { margin: 16px 20px; font-size: 20px; font-weight: normal; }
#legend p { position: absolute; left: 20px; bottom: 16px; margin: 0; font-size: 14px; }
#legend section { position: absolute; right: 24px; top: 12%; width: 150px; }
#legend section + section { top: 55%; }
#legend .bar { display: flex; height: 26vh; margin-top: 18px; }
#legend .colours { width: 16px; margin-right: 10px; }
#legend .labels { display: flex; flex-direction: column-reverse; justify-content: space-between;
  margin: -0.6em 0; }
"""
HINT: Final = "Drag to turn, wheel to zoom, shift and drag to move."


def export_html(
    solution: Solution,
    filename: str | os.PathLike[str],
    *,
    titles: tuple[str, str] = TITLES,
    heading: str = "Network and tissue",
) -> Path:
    """Write a web page with both fields in 3D, to turn, move and zoom, in one file of its own.

    It opens in any browser with WebGL, from disk too, and loads nothing from elsewhere.

    Args:
        solution: A solution of the coupled problem, in any unit of length.
        filename: Page to write, `.html`. An older one is replaced once the new one is complete.
        titles: Titles of the colour bars of the network and of the tissue.
        heading: What is written above.

    Returns:
        The path of the page.

    Raises:
        ImportError: If the package trame-vtk is missing.
        ValueError: If the filename ends otherwise, or both titles are the same.
        RuntimeError: If there is neither a display nor a driver to draw without one.
    """
    title_1d, title_3d = check_titles(titles)
    tissue, vessels = tissue_dataset(solution), network_dataset(solution)
    scale_1d = colour_scale(title_1d, vessels.point_data["u_1d"], NETWORK_COLOURS)
    scale_3d = colour_scale(title_3d, tissue.point_data["u_3d"], TISSUE_COLOURS)

    def draw() -> Path:
        plotter = open_plotter(filename, formats=(".html",))
        try:
            add_tissue(plotter, tissue, "u_3d", scale_3d, "contours", None)
            add_vessels(plotter, vessels, "u_1d", scale_1d, None)
            add_frame(plotter, tissue.bounds)
            _add_solid_labels(plotter, tissue.bounds)
            plotter.reset_camera()  # of a camera vtk.js takes position and direction alone
            scene = _serialise(plotter)
        finally:
            plotter.close()
        with replacing(Path(filename)) as part:
            part.write_text(_page(scene, heading, [scale_1d, scale_3d]), encoding="utf-8")
        return Path(filename)

    return draw_once(solution.system.processes, filename, draw)


def _serialise(plotter: pv.Plotter) -> bytes:
    """Return the scene as the zipped JSON that vtk.js reads."""
    try:
        from trame_vtk.modules.vtk import serializers
    except ImportError as error:
        raise ImportError(
            "got no trame-vtk, which brings the viewer of the page; wanted that package: "
            "`pip install trame-vtk`."
        ) from error
    serializers.initialize_serializers()
    plotter.render()
    window, camera = plotter.render_window, plotter.camera
    context = serializers.SynchronizationContext()
    context.set_ignore_last_dependencies(True)
    name = serializers.reference_id(window)
    scene = serializers.serialize(None, window, name, context, 1)
    scene["extra"] = {
        "vtkRefId": name,
        "camera": serializers.reference_id(camera),
        "centerOfRotation": camera.focal_point,
    }
    arrays = {
        entry["hash"]: entry | {"content": context.get_cached_data_array(entry["hash"])}
        for entry in serializers.extract_array_hash(scene)
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.json", json.dumps({"scene": scene, "hashes": arrays}))
    return content.getvalue()


def _add_solid_labels(plotter: pv.Plotter, bounds: Sequence[float]) -> None:
    """Write the labels of the axes as solids, which the page can show, facing the first view."""
    towards = np.array(VIEW) / np.linalg.norm(VIEW)
    right = np.cross((0.0, 0.0, 1.0), towards)
    right /= np.linalg.norm(right)
    frame = np.stack([right, np.cross(towards, right), towards])
    height = 0.025 * float(np.linalg.norm(np.ptp(np.reshape(bounds, (3, 2)), axis=1)))
    for _, positions, labels, justification in axis_labels(bounds):
        for position, label in zip(positions, labels, strict=True):
            text = pv.Text3D(label, height=height, depth=0.0)
            left, width = text.bounds.x_min, text.bounds.x_max - text.bounds.x_min
            start = left + (width if justification == "right" else 0.0), 0.5 * height, 0.0
            text.points = (text.points - start) @ frame + position
            plotter.add_mesh(text, color="black", lighting=False)


def _page(scene: bytes, heading: str, scales: Sequence[ColourScale]) -> str:
    """Return the viewer of vtk.js with the scene, heading and colour bars."""
    from trame_vtk.tools.vtksz2html import write_html

    page = io.StringIO()
    write_html(scene, page)
    start, separator, rest = page.getvalue().replace(ICONS, "data:,").partition("<title>")
    _, _, rest = rest.partition("</title>")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />\n    '
    title = f"{policy}{separator}{html.escape(heading)}</title>\n    <style>{STYLE}</style>"
    before, body, viewer = rest.partition("<body>")
    bars = "".join(_colour_bar(scale) for scale in scales)
    legend = f'<div id="legend"><h1>{html.escape(heading)}</h1>{bars}<p>{HINT}</p></div>'
    # The viewer empties what it draws into: .content where there is one, else the body.
    return f'{start}{title}{before}{body}\n    <div class="content"></div>\n    {legend}{viewer}'


def _colour_bar(scale: ColourScale) -> str:
    colours = mpl.colormaps[scale.colours] if isinstance(scale.colours, str) else scale.colours
    stops = ", ".join(to_hex(colour) for colour in colours(np.linspace(0, 1, COLOUR_STOPS)))
    labels = "".join(f"<span>{label}</span>" for label in scale.labels)
    return (
        f"<section>{html.escape(scale.title)}"
        '<div class="bar">'
        f'<div class="colours" style="background: linear-gradient(to top, {stops})"></div>'
        f'<div class="labels">{labels}</div></div></section>'
    )

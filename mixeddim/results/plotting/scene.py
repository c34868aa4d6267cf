"""The contents of a picture: tissue, vessels, and the box with its axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
import pyvista as pv
from numpy.typing import NDArray

from mixeddim.results.plotting.colours import FONT_SIZE, ColourScale

__all__ = [
    "VIEW",
    "TissueView",
    "add_frame",
    "add_heading",
    "add_tissue",
    "add_vessels",
    "axis_labels",
    "check_view",
]

TissueView = Literal["contours", "slices", "clipped"]
VIEW: Final = (1.3, -2.2, 1.2)  # from the centre to the camera
# Per axis its name, the edge of the box that carries it (the sides that edge lies on), and how
# the labels stand beside that edge, all as seen from VIEW.
AXES: Final = (("x", (0, -1, -1), "right"), ("y", (1, 0, -1), "left"), ("z", (-1, -1, 0), "right"))
# How many sides a tube has, by the number of tubes up to which it has them: of many, each is but a
# few pixels wide. The last number is that of more tubes.
SIDES_OF_TUBES: Final = ((5_000, 32), (20_000, 12), (100_000, 6), (math.inf, 4))
# Up to so many tubes each has caps; balls close the ends of more.
FLAT_ENDS: Final = 20_000
NUM_CONTOURS: Final = 2  # of the levels: a third would lie on the vessels and blur them
SMOOTHING: Final = 40  # steps, which take the cells' corners off a contour
# Contours are clear where they face the camera and dense where they turn away, as glass is, so
# that their outlines read as those of bodies and the vessels show through; the hue stays blue.
RIM: Final = """//VTK::Light::Impl
  float turned = 1.0 - abs(normalVCVSOutput.z);
  fragOutput0.rgb *= mix(vec3(1.0), vec3(0.40, 0.70, 0.92), turned);
  fragOutput0.a = clamp(mix(0.08, 0.95, turned * turned), 0.0, 1.0);
"""


def check_view(view: str) -> None:
    """Check that a view of the tissue is known.

    Raises:
        ValueError: If it is not.
    """
    if view not in get_args(TissueView):
        raise ValueError(
            f"got tissue={view!r}; wanted one of {get_args(TissueView)}. Choose how to show it."
        )


def add_tissue(
    plotter: pv.Plotter,
    tissue: pv.DataSet,
    field: str,
    scale: ColourScale,
    view: TissueView,
    bar: dict[str, Any] | None,
) -> None:
    """Draw the tissue, in place of one that was drawn before.

    Args:
        plotter: Where to.
        tissue: The tissue.
        field: Which of its point data.
        scale: Its colours.
        view: "contours": on the walls behind, and on translucent contours. "slices": on three
            orthogonal planes through the centre. "clipped": all but the octant in front.
        bar: Its colour bar, if any.
    """
    style = {"scalars": field, **scale.style, "show_scalar_bar": False}
    with_bar = {"show_scalar_bar": bar is not None, "scalar_bar_args": bar}
    if view == "contours":
        walls = tissue.extract_surface(algorithm="dataset_surface")
        style["culling"] = "front"
        plotter.add_mesh(walls, name="tissue", lighting=False, **style | with_bar)
        del style["culling"]
        _mark(plotter, scale, bar)
        _add_contours(plotter, tissue, style, scale.levels[:NUM_CONTOURS])
        return
    if view == "slices":
        x, y, z = tissue.center
        shown = tissue.slice_orthogonal(x=x, y=y, z=z).combine()
    else:
        shown, octant = _without_octant(tissue)
        plotter.add_mesh(octant.outline(), name="octant", color="black", line_width=2)
    plotter.add_mesh(shown, name="tissue", lighting=False, **style | with_bar)
    _mark(plotter, scale, bar)


def _mark(plotter: pv.Plotter, scale: ColourScale, bar: dict[str, Any] | None) -> None:
    if bar is not None:
        scale.mark(plotter.scalar_bars[bar["title"]])


def _add_contours(
    plotter: pv.Plotter, tissue: pv.DataSet, style: dict[str, Any], levels: Sequence[float]
) -> None:
    plotter.renderer.remove_actor("contours", render=False)
    contours = tissue.contour(levels, scalars=style["scalars"]) if levels else pv.PolyData()
    if contours.n_points > 0:
        contours = contours.smooth_taubin(n_iter=SMOOTHING, pass_band=0.08)
        contours = contours.compute_normals(cell_normals=False, split_vertices=False)
        actor = plotter.add_mesh(
            contours,
            name="contours",
            opacity=0.4,
            smooth_shading=True,
            ambient=0.7,
            diffuse=0.4,
            specular=0.5,
            specular_power=30,
            **style,
        )
        actor.GetShaderProperty().AddFragmentShaderReplacement(
            "//VTK::Light::Impl", True, RIM, False
        )


def _without_octant(tissue: pv.DataSet) -> tuple[pv.DataSet, pv.PolyData]:
    """Return the surface of the tissue without the octant that faces the camera, and that."""
    lower, upper = np.array(tissue.bounds).reshape(3, 2).T
    facing, centre = np.array(VIEW) > 0, np.array(tissue.center)
    bounds = np.stack([np.where(facing, centre, lower), np.where(facing, upper, centre)], axis=1)
    walls = tissue.extract_surface(algorithm="dataset_surface")
    parts = [walls.clip_box(bounds.ravel(), invert=True)]
    for normal in range(3):
        part = tissue.slice(normal=np.eye(3)[normal], origin=centre)
        for axis in {0, 1, 2} - {normal}:
            part = part.clip(np.eye(3)[axis], origin=centre, invert=not facing[axis])
        parts.append(part)
    return pv.merge(parts), pv.Box(bounds.ravel())


def add_vessels(
    plotter: pv.Plotter,
    vessels: pv.PolyData,
    field: str,
    scale: ColourScale,
    bar: dict[str, Any] | None,
) -> None:
    """Draw tubes around the segments, and balls that close the joints between them.

    Args:
        plotter: Where to.
        vessels: Lines with point data `radius`.
        field: Which of its point data gives the colours.
        scale: These colours.
        bar: Their colour bar, if any.
    """
    style = {
        "scalars": field,
        **scale.style,
        "smooth_shading": True,
        "ambient": 0.35,
        "diffuse": 0.8,
        "specular": 0.35,
        "specular_power": 40,
    }
    sides = next(sides for most, sides in SIDES_OF_TUBES if vessels.n_lines <= most)
    has_caps = vessels.n_lines <= FLAT_ENDS
    style["culling"] = False if has_caps else "back"  # halves the time; nobody looks inside
    drawn = pv.PolyData(vessels.points, lines=vessels.lines)
    for name in {field, "radius"}:  # the filters copy all data
        drawn.point_data[name] = vessels.point_data[name]
    tubes = drawn.tube(scalars="radius", absolute=True, n_sides=sides, capping=has_caps)
    has_bar = bar is not None
    plotter.add_mesh(tubes, name="network", show_scalar_bar=has_bar, scalar_bar_args=bar, **style)
    _mark(plotter, scale, bar)
    joints = _joints(drawn, with_ends=not has_caps)
    if joints.n_points > 0:
        rings = sides if has_caps else sides - 1
        ball = pv.Sphere(radius=1.0, theta_resolution=sides, phi_resolution=rings)
        balls = joints.glyph(geom=ball, scale="radius", orient=False)
        plotter.add_mesh(balls, name="joints", show_scalar_bar=False, **style)


def _joints(vessels: pv.PolyData, with_ends: bool) -> pv.PolyData:
    """Return the points where segments meet at an angle, or end, each with its largest radius."""
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
    if with_ends:
        is_joint |= degree == 1
    joints = pv.PolyData(points[is_joint])
    for name, values in vessels.point_data.items():
        joints.point_data[name] = values[first][is_joint]
    joints.point_data["radius"] = radius[is_joint]
    return joints


def add_frame(
    plotter: pv.Plotter,
    bounds: Sequence[float],
    *,
    zoom: float = 0.87,
    shift: tuple[float, float] = (0.18, -0.02),
) -> None:
    """Draw the box with these bounds and its axes, and point the camera at it.

    Args:
        plotter: Where to, in its active panel.
        bounds: Of the box, (x_min, x_max, y_min, y_max, z_min, z_max).
        zoom: How much of the panel the box fills.
        shift: By how much the box is moved to the left and down, in half panels; by default it
            leaves the right-hand side to the colour bars.
    """
    lower, upper = np.array(bounds).reshape(3, 2).T
    plotter.add_mesh(pv.Box(bounds).outline(), name="box", color="#4d4d4d", line_width=2)
    for name, positions, labels, justification in axis_labels(bounds):
        plotter.add_point_labels(
            positions,
            labels,
            name=f"axis {name}{_panel(plotter)}",
            justification_horizontal=justification,
            justification_vertical="center",
            font_size=FONT_SIZE,
            bold=False,
            text_color="black",
            shape=None,
            show_points=False,
            always_visible=True,
        )
    centre = 0.5 * (lower + upper)
    plotter.camera_position = [centre + VIEW, centre, (0, 0, 1)]
    plotter.reset_camera(bounds=bounds)
    plotter.camera.zoom(zoom)
    plotter.camera.SetWindowCenter(*shift)


def axis_labels(
    bounds: Sequence[float],
) -> Iterator[tuple[str, NDArray[np.float64], list[str], str]]:
    """Yield for each axis its name, where its labels are, the labels, and their justification."""
    lower, upper = np.array(bounds).reshape(3, 2).T
    for axis, (name, edge, justification) in enumerate(AXES):
        side = np.array(edge)
        beside = np.where(side > 0, upper, lower) + 0.035 * np.linalg.norm(upper - lower) * side
        positions = np.tile(beside, (3, 1))
        positions[:, axis] = lower[axis], 0.5 * (lower[axis] + upper[axis]), upper[axis]
        labels = [f"{lower[axis]:.3g}", name, f"{upper[axis]:.3g}"]
        yield name, positions, labels, justification


def add_heading(plotter: pv.Plotter, text: str) -> None:
    """Write a line at the top of the active panel, in place of an earlier one."""
    name = f"heading{_panel(plotter)}"
    if name in plotter.renderer.actors:
        plotter.renderer.actors[name].input = text
        return
    heading = plotter.add_text(text, position=(0.5, 0.93), viewport=True, color="black", name=name)
    heading.prop.font_size = FONT_SIZE
    heading.prop.justification_horizontal = "center"


def _panel(plotter: pv.Plotter) -> str:
    """Return what tells names in the active panel from those in others, which they replace."""
    number = plotter.renderers.active_index
    return f" {number}" if number > 0 else ""

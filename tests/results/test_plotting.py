"""Pictures show vessels of their own radius and both fields, in any unit and on any machine."""

import re
import subprocess
import sys
from itertools import pairwise

import dolfinx
import networkx as nx
import numpy as np
import pytest
import pyvista as pv
from matplotlib.colors import to_rgb

import mixeddim as md
from mixeddim.results.plotting import colours, scene, window

SEGMENT = 0.2


@pytest.fixture(scope="module")
def solution(system):
    return md.solve(system)


@pytest.fixture
def plotter(solution):
    plotter = md.plot(solution)
    yield plotter
    plotter.close()


def _network(graph):
    return md.create_network(graph, SEGMENT)


def _pixels(path):
    """Return the red, green and blue of a picture, shape (height, width, 3), in [0, 255]."""
    image = pv.read(path)
    width, height, _ = image.dimensions
    return image.active_scalars.reshape(height, width, -1)[..., :3].astype(float)


# --- What is in the picture -------------------------------------------------------------------


def test_picture_is_white_around_colours_and_nothing_is_reported(solution, tmp_path, capfd):
    path = md.plot(solution, tmp_path / "new" / "picture.png")
    assert path == tmp_path / "new" / "picture.png"
    pixels = _pixels(path)
    assert pixels.shape == (1350, 1800, 3)
    edges = pixels[[0, -1]], pixels[:, [0, -1]]
    assert all(np.all(edge == 255) for edge in edges), "something is cut off"
    is_coloured = np.ptp(pixels, axis=2) > 20
    assert 0.1 < is_coloured[:, :1300].mean() < 0.7, "tissue and network"
    assert is_coloured[:, 1400:].mean() > 0.01, "colour bars"
    assert capfd.readouterr() == ("", "")


def test_picture_holds_tissue_network_box_and_axes(plotter):
    assert {"tissue", "contours", "network", "joints", "box"} < set(plotter.actors)
    assert {f"axis {name}-labels" for name in "xyz"} < set(plotter.actors)


def test_colour_bars_span_the_fields(plotter, solution):
    assert list(plotter.scalar_bars.keys()) == ["u_3d (tissue)", "u_1d (network)"]
    fields = {"tissue": solution.u_3d, "contours": solution.u_3d}
    fields |= {"network": solution.u_1d, "joints": solution.u_1d}
    for name, field in fields.items():
        values = field.x.array
        drawn = plotter.actors[name].mapper.scalar_range
        assert drawn == pytest.approx((values.min(), values.max()), rel=1e-12), name


def test_titles_of_the_colour_bars_are_the_callers(solution):
    plotter = md.plot(solution, titles=("blood [Pa]", "tissue [Pa]"))
    assert list(plotter.scalar_bars.keys()) == ["tissue [Pa]", "blood [Pa]"]
    plotter.close()


def test_long_title_is_broken_and_not_cut_off(fork, tmp_path):
    title = "partial pressure of oxygen in the blood [mmHg]"
    pixels = _pixels(md.plot_network(_network(fork), tmp_path / "title.png", title=title))
    assert np.all(pixels[:, [0, -1]] == 255)
    assert np.any(pixels[:, 1300:] == 0), "the title and the labels"


def test_formula_in_a_title_is_not_broken():
    scale = colours.colour_scale("$p_{1d}, \\; p_{3d}, \\; u$", np.array([0.0, 1.0]), "plasma")
    assert scale.bar(0.1)["title"] == scale.title


@pytest.mark.parametrize("length", [1.0, 200e-6])
def test_tubes_have_the_radius_of_their_vessel(length):
    graph = nx.Graph([(0, 1, {"radius": 0.1 * length})])
    graph.add_node(0, pos=(0.0, 0.0, 0.0), inlet=True)
    graph.add_node(1, pos=(0.0, 0.0, 0.7 * length))
    plotter = md.plot_network(md.create_network(graph, SEGMENT * length))
    tubes = plotter.actors["network"].mapper.dataset
    x, y, z = tubes.points.T / length
    np.testing.assert_allclose(np.hypot(x, y), 0.1, rtol=1e-6)
    assert (z.min(), z.max()) == pytest.approx((0.0, 0.7))
    assert "joints" not in plotter.actors, "the segments of a straight vessel need no joints"
    plotter.close()


def test_each_segment_is_a_tube_and_each_junction_and_bend_a_ball(graph):
    network = _network(graph)
    plotter = md.plot_network(network)
    num_segments = network.mesh.topology.index_map(1).size_local
    tubes = plotter.actors["network"].mapper.dataset
    assert tubes.connectivity().point_data["RegionId"].max() + 1 >= num_segments
    assert tubes.n_points % num_segments == 0

    radii = [
        max(graph.edges[edge]["radius"] for edge in graph.edges(node))
        for node, degree in graph.degree
        if degree > 1
    ]
    if radii:
        balls = plotter.actors["joints"].mapper.dataset.split_bodies().as_polydata_blocks()
        np.testing.assert_allclose(
            sorted(0.5 * np.ptp(ball.points, axis=0).max() for ball in balls),
            sorted(radii),
            rtol=1e-2,
        )
    else:
        assert "joints" not in plotter.actors
    plotter.close()


def test_many_tubes_have_fewer_sides(fork, monkeypatch):
    num_points = []
    for _, sides in scene.SIDES_OF_TUBES:
        monkeypatch.setattr(scene, "SIDES_OF_TUBES", ((10**9, sides),))
        plotter = md.plot_network(_network(fork))
        drawn = (plotter.actors[name].mapper.dataset for name in ("network", "joints"))
        num_points.append([mesh.n_points for mesh in drawn])
        plotter.close()
    for (tubes, balls), (light_tubes, light_balls) in pairwise(num_points):
        assert light_tubes < 0.8 * tubes
        assert light_balls < 0.5 * balls


def test_ends_without_caps_are_closed_by_balls(fork, monkeypatch):
    counts = []
    for most in (scene.FLAT_ENDS, 0):
        monkeypatch.setattr(scene, "FLAT_ENDS", most)
        plotter = md.plot_network(_network(fork))
        joints = plotter.actors["joints"].mapper.dataset
        counts.append(joints.connectivity()["RegionId"].max() + 1)
        plotter.close()
    assert counts[1] == counts[0] + 3  # the inlet and two ends


def test_bend_has_no_gap():
    """Around the corner of two thick vessels, the ball reaches their radius in every direction."""
    graph = nx.Graph([(0, 1, {"radius": 0.1}), (1, 2, {"radius": 0.1})])
    positions = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0)]
    nx.set_node_attributes(graph, dict(enumerate(positions)), "pos")
    graph.nodes[0]["inlet"] = True
    plotter = md.plot_network(md.create_network(graph, 0.5))
    drawn = pv.merge([plotter.actors[name].mapper.dataset for name in ("network", "joints")])
    surface = drawn.extract_surface(algorithm="dataset_surface")
    plotter.close()
    corner = np.array(positions[1])
    # The outer side, where the tubes part; a little above the plane, for rays to miss mesh edges.
    for angle in np.linspace(-np.pi / 2, 0.0, 31):
        outside = corner + 0.2 * np.array([np.cos(angle), np.sin(angle), 0.07])
        hits, _ = surface.ray_trace(outside, corner)
        assert np.linalg.norm(hits - corner, axis=1).max() == pytest.approx(0.1, rel=1e-2)


def test_contours_are_whole_and_lie_on_two_levels(plotter):
    contours = plotter.actors["contours"]
    assert contours.prop.culling == "none", "both sides are drawn"
    mesh = contours.mapper.dataset
    np.testing.assert_allclose(np.linalg.norm(mesh.point_data["Normals"], axis=1), 1, rtol=1e-5)
    assert len(np.unique(mesh["u_3d"].round(6))) == 2


def test_picture_does_not_depend_on_the_unit_of_length(fork, tmp_path):
    pictures = []
    for length in (1.0, 200e-6):
        scaled = md.Scaling(length).invert(fork)
        network = md.create_network(scaled, SEGMENT * length)
        pictures.append(_pixels(md.plot_network(network, tmp_path / "network.png")))
    vessels = np.s_[300:1000, 350:1000]
    difference = np.abs(pictures[0] - pictures[1])[vessels].max(axis=2)
    assert np.mean(difference > 10) < 1e-2
    assert np.mean(np.ptp(pictures[0][vessels], axis=2) > 20) > 0.05


def test_constant_fields_are_drawn(fork, tmp_path):
    network = _network(fork)
    solution = md.solve(md.assemble(md.create_box(4), network, md.Coefficients()))
    assert np.ptp(solution.u_3d.x.array) < 1e-9
    md.plot(solution, tmp_path / "constant.png")
    assert np.ptp(_pixels(tmp_path / "constant.png"), axis=2).max() > 100


def test_any_tetrahedral_mesh_is_drawn(fork, tmp_path):
    mesh = dolfinx.mesh.create_box(md.create_box(1).mesh.comm, [[0, 0, 0], [1, 1, 1]], [4, 4, 4])
    system = md.assemble(mesh, _network(fork), md.Coefficients(sigma_3d=1.0))
    md.plot(md.solve(system), tmp_path / "mesh.png")
    assert (np.ptp(_pixels(tmp_path / "mesh.png"), axis=2) > 20).mean() > 0.1


def test_tissue_colours_are_equal_steps_of_cielab():
    shades = _cielab(colours.TISSUE_COLOURS(np.linspace(0.0, 1.0, 16)))
    steps = np.linalg.norm(np.diff(shades, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.1)
    assert np.all(np.diff(shades[:, 0]) < 0), "darker and darker"


def _cielab(colours):
    """Convert sRGB under D65 to CIELAB, shape (n, 3)."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    x, y, z = np.cbrt(linear @ np.transpose(to_xyz) / (0.95047, 1.0, 1.08883)).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


# --- Colour bars ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.00", "0.33", "0.67", "1.00"]),
        (0.625, 0.716, ["0.625", "0.655", "0.686", "0.716"]),
        (2427.0, 4957.0, ["2427", "3270", "4114", "4957"]),
        (-1.0, 1e7, ["-1.00e+00", "3.33e+06", "6.67e+06", "1.00e+07"]),
        (1e7, 1e7 + 3, ["1.0000000e+07", "1.0000001e+07", "1.0000002e+07", "1.0000003e+07"]),
        (1e-6, 4e-6, ["1.00e-06", "2.00e-06", "3.00e-06", "4.00e-06"]),
        (2.0, 2.0, ["1.980", "1.993", "2.007", "2.020"]),
        (0.0, 0.0, ["-1.00", "-0.33", "0.33", "1.00"]),
    ],
)
def test_labels_of_a_colour_bar_differ_and_are_short(low, high, labels):
    scale = colours.colour_scale("u", np.array([low, high]), "plasma")
    assert scale.labels == labels


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.625, 0.716, ["0.64", "0.66", "0.68", "0.70"]),
        (2427.0, 4957.0, ["2500", "3000", "3500", "4000", "4500"]),
        (-1.0, 1e7, ["0e+00", "2e+06", "4e+06", "6e+06", "8e+06", "1e+07"]),
        (1e7, 1e7 + 5, [f"1.000000{digit}e+07" for digit in range(6)]),
        (2.0, 2.0, ["2"]),
        (0.05, 0.05, ["0.05"]),
        (0.0, 0.0, ["0"]),
    ],
)
def test_ticks_of_a_colour_bar_are_round_and_inside(low, high, ticks):
    scale = colours.colour_scale("u", np.array([low, high]), "plasma")
    assert [scale.tick_format % tick for tick in scale.ticks] == ticks
    assert all(scale.limits[0] <= tick <= scale.limits[1] for tick in scale.ticks)


def test_ticks_are_those_that_are_drawn(plotter, solution):
    scale = colours.colour_scale("u", solution.u_1d.x.array, colours.NETWORK_COLOURS)
    bar = plotter.scalar_bars["u_1d (network)"]
    assert bar.GetUseCustomLabels()
    np.testing.assert_allclose(pv.convert_array(bar.GetCustomLabels()), scale.ticks)


def test_colours_of_vessels_are_lighter_and_lighter_and_far_from_those_of_the_tissue():
    t = np.linspace(0.0, 1.0, 64)
    vessels, tissue = _cielab(colours.NETWORK_COLOURS(t)), _cielab(colours.TISSUE_COLOURS(t))
    assert np.all(np.diff(vessels[:, 0]) > 0)
    distance = np.linalg.norm(vessels[:, None] - tissue[None], axis=2)
    assert distance.min() > 25


def test_constant_field_has_one_label_and_no_contours():
    scale = colours.colour_scale("u", np.full(5, 2.0), "plasma")
    assert scale.levels == ()
    assert scale.bar(0.1)["n_labels"] == 1


def test_contours_lie_on_quantiles_or_where_these_coincide_on_parts_of_the_range():
    spread = colours.colour_scale("u", np.linspace(2.0, 3.0, 101), "plasma")
    assert spread.levels == pytest.approx((2.5, 2.8, 2.95))
    peak = np.append(np.linspace(0.0, 1e-9, 1000), 4.0)
    assert colours.colour_scale("u", peak, "plasma").levels == pytest.approx((1.0, 2.0, 3.0))


# --- Files and errors -------------------------------------------------------------------------


def test_interrupted_picture_keeps_the_earlier_one(fork, tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_text("earlier")

    def draw_half(_plotter, part, **_):
        part.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pv.Plotter, "screenshot", draw_half)
    with pytest.raises(KeyboardInterrupt):
        md.plot_network(_network(fork), path)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["picture.pdf", "picture", "picture.vtu", "picture.PNG"])
def test_unknown_format_is_refused(fork, name, tmp_path):
    with pytest.raises(ValueError, match=rf"{re.escape(name)}'; wanted .* \.png, .* returns its"):
        md.plot_network(_network(fork), tmp_path / name)


def test_what_is_no_solution_is_refused(fork, solution):
    with pytest.raises(TypeError, match=r"got a CoupledSystem; wanted a solution. Solve"):
        md.plot(solution.system)
    with pytest.raises(TypeError, match=r"got a Graph; wanted a network .* create_network\(graph"):
        md.plot_network(fork)


def test_equal_titles_are_refused(solution):
    with pytest.raises(ValueError, match=r"got the title 'p' for both .* wanted two that tell"):
        md.plot(solution, titles=("p", "p"))


@pytest.fixture
def no_display(monkeypatch):
    """A machine without a display on which nothing has been drawn yet."""
    monkeypatch.setattr("sys.platform", "linux")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "VTK_DEFAULT_OPENGL_WINDOW"):
        monkeypatch.delenv(variable, raising=False)
    window._use_offscreen_driver.cache_clear()
    yield
    window._use_offscreen_driver.cache_clear()


@pytest.mark.usefixtures("no_display")
def test_crash_of_the_driver_is_reported_with_the_remedy(fork, monkeypatch):
    monkeypatch.setattr(window, "_TRIAL", "import os; os.abort()")
    with pytest.raises(RuntimeError, match=r"status -6 .* `apt install libegl1 libgl1-mesa-dri`"):
        md.plot_network(_network(fork))


@pytest.mark.usefixtures("no_display")
def test_driver_is_tried_once(fork, monkeypatch):
    md.plot_network(_network(fork)).close()
    monkeypatch.setattr(window, "_TRIAL", "raise SystemExit(1)")
    md.plot_network(_network(fork)).close()


@pytest.mark.usefixtures("no_display")
def test_other_window_of_VTK_is_left_to_the_user(monkeypatch):
    monkeypatch.setenv("VTK_DEFAULT_OPENGL_WINDOW", "vtkOSOpenGLRenderWindow")
    monkeypatch.setattr(window, "_TRIAL", "raise SystemExit(1)")
    window._use_offscreen_driver()


def test_training_may_follow_a_picture_in_one_process(tmp_path):
    """Optimisers of torch load triton, whose LLVM crashes beside the one Mesa has loaded before."""
    program = f"""
import mixeddim as md, torch

box = md.create_box(2)
network = md.create_network(md.random_vascular_graph(4, 0.05, 0), 0.5)
md.plot_network(network, {str(tmp_path / "network.png")!r})
torch.optim.Adam([torch.zeros(1, requires_grad=True)])
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr

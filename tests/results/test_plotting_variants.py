"""Views of the tissue, values on the network, panels, ensembles and movies show what they say."""

import dataclasses
import re
import sys

import dolfinx
import numpy as np
import pytest
import pyvista as pv
from PIL import Image

import mixeddim as md


@pytest.fixture(scope="module")
def solution(system):
    return md.solve(system)


@pytest.fixture(scope="module")
def network(solution):
    return solution.system.network


def _is_coloured(path):
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    return np.ptp(pixels, axis=2) > 20


# --- Views of the tissue ----------------------------------------------------------------------


def test_slices_are_three_planes_through_the_centre(solution):
    plotter = md.plot(solution, tissue="slices")
    planes = plotter.actors["tissue"].mapper.dataset
    lower, upper = np.reshape(planes.bounds, (3, 2)).T
    np.testing.assert_allclose(upper, (1.0, 1.2, 0.9))
    is_on_plane = np.isclose(planes.points, 0.5 * (lower + upper), atol=1e-6)
    assert np.all(is_on_plane.any(axis=1))
    assert is_on_plane.any(axis=0).all()
    areas = 1.0 * 1.2 + 1.2 * 0.9 + 0.9 * 1.0
    assert planes.area == pytest.approx(areas, rel=1e-6)
    plotter.close()


def test_clipped_tissue_lacks_the_octant_in_front(solution):
    plotter = md.plot(solution, tissue="clipped")
    tissue = plotter.actors["tissue"].mapper.dataset
    x, y, z = tissue.points.T
    tolerance = 1e-5
    in_front = (x > 0.5 + tolerance) & (y < 0.6 - tolerance) & (z > 0.45 + tolerance)
    assert not in_front.any()
    # Cutting an octant out of a box replaces a quarter of three faces by as much inside.
    surface = 2 * (1.0 * 1.2 + 1.2 * 0.9 + 0.9 * 1.0)
    assert tissue.extract_surface(algorithm="dataset_surface").area == pytest.approx(surface)
    plotter.close()


@pytest.mark.parametrize("view", ["slices", "clipped"])
def test_cut_tissue_has_the_values_of_the_field(solution, view):
    u_3d = dolfinx.fem.Function(solution.u_3d.function_space)
    u_3d.interpolate(lambda x: x[0] - 2 * x[1] + 3 * x[2])
    plotter = md.plot(dataclasses.replace(solution, u_3d=u_3d), tissue=view)
    shown = plotter.actors["tissue"].mapper.dataset
    np.testing.assert_allclose(shown["u_3d"], shown.points @ [1, -2, 3], atol=1e-6)
    plotter.close()


def test_unknown_view_is_refused(solution):
    with pytest.raises(ValueError, match=r"got tissue='volume'; wanted .*'clipped'.* Choose"):
        md.plot(solution, tissue="volume")


# --- Values on the network --------------------------------------------------------------------


def _drawn(plotter):
    """Return points and values of the tubes, and the title of the colour bar."""
    tubes = plotter.actors["network"].mapper.dataset
    (title,) = plotter.scalar_bars.keys()
    points, values = np.array(tubes.points), np.array(tubes.point_data["drawn"])
    plotter.close()
    return points, values, title


def test_node_values_are_linear_along_each_edge(network):
    """A linear function of position, given at the nodes, has its value at each cross-section."""
    positions = np.array([position for _, position in network.graph.nodes(data="pos")])
    direction = np.array([1.0, -2.0, 3.0])
    points, values, title = _drawn(md.plot_network(network, node_values=positions @ direction))
    assert title == "node values"
    lines = md.network_dataset(network)
    axis = lines.points @ direction
    np.testing.assert_allclose(np.unique(values.round(5)), np.unique(axis.round(5)), atol=2e-5)
    assert len(points) > len(lines.points)


def test_edge_values_colour_each_edge_alone(network):
    given = [10.0, -5.0, 7.0]
    _, values, title = _drawn(md.plot_network(network, edge_values=given, title="flux"))
    assert title == "flux"
    shares = {value: np.mean(values == value) for value in given}
    cells = np.bincount(network.edge_of_cell) / len(network.edge_of_cell)
    assert list(shares.values()) == pytest.approx(cells)


def test_attributes_are_drawn_by_name(fork):
    graph = fork.copy()
    for number, node in enumerate(graph):
        graph.nodes[node]["pressure"] = 2.0 * number
    network = md.create_network(graph, 0.2)
    _, values, title = _drawn(md.plot_network(network, node_values="pressure"))
    assert title == "pressure"
    assert (values.min(), values.max()) == pytest.approx((0.0, 6.0))
    _, values, title = _drawn(md.plot_network(network, edge_values="radius"))
    assert title == "radius"
    assert set(values) == {0.1, 0.06, 0.03}


def test_network_of_a_solution_is_coloured_by_u_1d(solution):
    _, values, title = _drawn(md.plot_network(solution))
    assert title == "u_1d"
    u_1d = solution.u_1d.x.array
    assert (values.min(), values.max()) == pytest.approx((u_1d.min(), u_1d.max()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"node_values": [1, 2], "edge_values": [1]},
            "got node_values and edge_values; wanted one",
        ),
        ({"edge_values": [1, 2]}, r"shape \(2,\), 2 of them finite; wanted 3 .* graph.edges"),
        ({"node_values": [1, 2, np.nan, 3]}, r"shape \(4,\), 3 of them finite; wanted 4"),
        (
            {"edge_values": ["a", "b", "c"]},
            r"got numbers of shape \(3,\), 0 of them finite; wanted 3",
        ),
        ({"node_values": "p"}, r"got 'p' of shape \(4,\), 0 of them finite; .* each node"),
    ],
)
def test_values_that_do_not_fit_are_refused(network, values, message):
    with pytest.raises(ValueError, match=message):
        md.plot_network(network, **values)


# --- Panels -----------------------------------------------------------------------------------


def test_solutions_side_by_side_share_their_colours(solution, fork):
    box = md.create_box(4)
    other = md.solve(md.assemble(box, md.create_network(fork, 0.2), md.Coefficients(sigma_3d=9.0)))
    plotter = md.plot_side_by_side({"first": solution, "second": other})
    for actor, name in (("network", "u_1d"), ("tissue", "u_3d")):
        values = np.concatenate([getattr(s, name).x.array for s in (solution, other)])
        for panel in plotter.renderers[:2]:
            drawn = panel.actors[actor].mapper.scalar_range
            assert drawn == pytest.approx((values.min(), values.max()), rel=1e-12)
    assert all({"box", "contours"} <= set(panel.actors) for panel in plotter.renderers[:2])
    assert list(plotter.scalar_bars.keys()) == ["u_1d (network)", "u_3d (tissue)"]
    texts = [panel.actors[name].input for panel, name in zip(
        plotter.renderers, ("heading", "heading 1"), strict=False
    )]  # fmt: skip
    assert texts == ["first", "second"]
    plotter.close()


def test_each_panel_is_drawn_and_nothing_is_cut_off(solution, tmp_path):
    path = md.plot_side_by_side({"a": solution, "b": solution}, tmp_path / "panels.png")
    coloured = _is_coloured(path)
    assert coloured.shape == (1000, 2500)
    assert not coloured[[0, -1]].any()
    assert not coloured[:, [0, -1]].any()
    left, right = coloured[:, :1000], coloured[:, 1000:2000]
    assert 0.1 < left.mean() < 0.7
    assert np.mean(left != right) < 1e-3, "the same solution looks the same in both panels"
    assert coloured[:, 2000:].mean() > 0.01, "colour bars"


def test_no_solution_is_refused():
    with pytest.raises(ValueError, match=r"got no solution; wanted a name"):
        md.plot_side_by_side({})


def test_ensemble_shows_mean_and_standard_deviation():
    box = md.create_box((3, 2, 4))
    x = box.P1.tabulate_dof_coordinates()
    fields = np.array([[-1.0], [0.0], [4.0]]) * x[:, 2] + 5.0
    plotter = md.plot_ensemble(box, fields, title="u")
    assert list(plotter.scalar_bars.keys()) == ["u, mean", "u, std. dev."]
    deviation = np.sqrt(7.0)  # of -1, 0 and 4
    for panel, name, slope, at_zero in zip(
        plotter.renderers, ("mean", "std. dev."), (1.0, deviation), (5.0, 0.0), strict=True
    ):
        slices = panel.actors["tissue"].mapper.dataset
        exact = slope * slices.points[:, 2] + at_zero
        np.testing.assert_allclose(slices.point_data[name], exact, rtol=1e-6, atol=1e-6)
    plotter.close()


def test_picture_of_an_ensemble_has_nothing_cut_off(tmp_path):
    box = md.create_box(4)
    fields = np.random.default_rng(0).random((5, 125))
    coloured = _is_coloured(md.plot_ensemble(box, fields, tmp_path / "ensemble.png"))
    assert not coloured[[0, -1]].any()
    assert not coloured[:, [0, -1]].any()
    assert coloured[:, :1400].mean() > 0.05
    assert coloured[:, 1400:].mean() > 0.05


@pytest.mark.parametrize("shape", [(8,), (1, 8), (3, 9)])
def test_fields_of_another_box_are_refused(shape):
    message = rf"got fields of shape {re.escape(str(shape))}; wanted \(num_fields, 8\)"
    with pytest.raises(ValueError, match=message):
        md.plot_ensemble(md.create_box(1), np.zeros(shape))


def test_fields_of_failed_solves_are_refused():
    fields = np.ones((3, 8))
    fields[1, 4] = np.nan
    with pytest.raises(ValueError, match=r"got field 1 with values that are not finite; wanted"):
        md.plot_ensemble(md.create_box(1), fields)


# --- Movies -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def states(fork):
    """Three steps of a tracer that fills a network and its tissue."""
    box = md.create_box(4)
    network = md.create_network(fork, 0.2)
    system = md.assemble(box, network, md.Coefficients(k_1d=0.01), bcs_1d=[])
    flow = np.array([2.0, 1.0, 1.0])  # from the inlet, parted evenly at the junction
    return list(md.simulate_transport(system, flow, time_step=0.05, num_steps=3))


def test_movie_has_a_frame_for_each_state(states, tmp_path):
    path = md.animate(iter(states), tmp_path / "movie.gif", frames_per_second=5.0)
    with Image.open(path) as movie:
        assert movie.n_frames == len(states)
        assert movie.size == (800, 600)
        frames = []
        for number in range(movie.n_frames):
            movie.seek(number)
            assert movie.info["duration"] == 200
            frames.append(np.asarray(movie.convert("RGB"), dtype=float))
    assert not (np.ptp(frames[0][:, [0, -1]], axis=2) > 20).any()
    # What stays is the colour bars at the right, since the colours mean the same in all frames.
    bars, box = np.s_[:, 640:], np.s_[100:, :600]
    for frame in frames:
        yellow = (frame[..., :2].min(axis=2) > 200) & (frame[..., 2] < 120)
        assert yellow[bars].sum() > 20, "the palette has the top of the network's colours"
    for frame in frames[1:]:
        changed = abs(frame - frames[0]).max(axis=2) > 30
        assert changed[bars].mean() < 1e-3
        assert changed[box].mean() > 0.02
        assert changed[:60].any(), "the time above"


def test_movie_spans_the_range_of_all_times(states, tmp_path, monkeypatch):
    ranges = []

    def screenshot(plotter, *_args, **_options):
        ranges.append(plotter.actors["network"].mapper.scalar_range)
        return np.zeros((1200, 1600, 3), dtype=np.uint8)

    monkeypatch.setattr(pv.Plotter, "screenshot", screenshot)
    md.animate(states, tmp_path / "movie.gif")
    values = np.concatenate([state.u_1d.x.array for state in states])
    assert ranges == [pytest.approx((values.min(), values.max()))] * len(states)


def test_movie_in_mp4(states, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="MP4 needs imageio-ffmpeg")
    path = md.animate(states, tmp_path / "movie.mp4")
    count, _seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert count == len(states)


def test_movie_in_mp4_names_the_package_that_is_missing(states, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"got a movie in MP4, .* `pip install imageio-ffmpeg`"):
        md.animate(states, tmp_path / "movie.mp4")
    assert list(tmp_path.iterdir()) == []


def test_movies_that_cannot_be_are_refused(states, solution, tmp_path):
    with pytest.raises(ValueError, match=r"got no state to animate; wanted one"):
        md.animate([], tmp_path / "movie.gif")
    with pytest.raises(TypeError, match=r"got a Solution, which has no time; wanted .* with plot"):
        md.animate([solution], tmp_path / "movie.gif")
    with pytest.raises(ValueError, match=r"got frames_per_second=0; wanted a positive"):
        md.animate(states, tmp_path / "movie.gif", frames_per_second=0)
    with pytest.raises(ValueError, match=r"movie.avi'; wanted one that ends in \.gif, \.mp4"):
        md.animate(states, tmp_path / "movie.avi")

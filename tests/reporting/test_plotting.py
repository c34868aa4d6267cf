"""Pictures of Krylov solves show the residuals, sines and iterations they are given."""

import re

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.figure import Figure
from PIL import Image

import learning
import mixeddim as md
from learning.krylov.fgmres import Status
from learning.plotting import plot_convergence, plot_iterations, plot_sines


@pytest.fixture(scope="module")
def results():
    box = md.create_box((4, 3, 5))
    network = md.create_network(md.random_vascular_graph(8, 0.05, seed=0), 0.2)
    reduced = md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0)))
    preconditioners = {"none": learning.Identity(), "Jacobi": learning.Jacobi()}
    return {name: learning.solve(reduced, p, "fgmres") for name, p in preconditioners.items()}


def _lines(axes):
    """Return label -> points, shape (n, 2)."""
    return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_convergence_draws_relative_residuals_against_the_iteration(results):
    (axes,) = plot_convergence(results).axes
    lines = _lines(axes)
    assert list(lines) == ["none", "Jacobi"]
    for name, result in results.items():
        iterations, residuals = lines[name].T
        np.testing.assert_array_equal(iterations, np.arange(result.iterations + 1))
        np.testing.assert_allclose(residuals * result.residual_norms[0], result.residual_norms)
    assert axes.get_yscale() == "log"


def test_convergence_against_time_ends_when_the_solve_did(results):
    seconds = {"Jacobi": 0.25, "none": 2.0}
    by_iteration, by_time = plot_convergence(results, seconds=seconds).axes
    for line, name in zip(by_time.lines, results, strict=True):
        assert line.get_xdata()[-1] == pytest.approx(seconds[name])
        np.testing.assert_array_equal(line.get_ydata(), _lines(by_iteration)[name][:, 1])


def test_sines_are_the_ratios_of_residuals_and_those_of_fgmres(results):
    (axes,) = plot_sines(results).axes
    for name, result in results.items():
        steps, sines = _lines(axes)[name].T
        np.testing.assert_array_equal(steps, np.arange(1, result.iterations + 1))
        np.testing.assert_allclose(
            np.cumprod(sines), result.residual_norms[1:] / result.residual_norms[0]
        )
        assert sines.max() <= 1.0
    assert axes.get_ylabel().startswith("sine")
    assert axes.get_ylim() == pytest.approx((0.0, 1.02))


def test_ratios_of_conjugate_gradients_are_not_called_sines(results):
    growing = learning.SolveResult(
        np.zeros(2), 2, np.array([1.0, 1.5, 0.3]), Status.CONVERGED, "cg"
    )
    (axes,) = plot_sines({**results, "cg": growing}).axes
    assert "sine" not in axes.get_ylabel()
    assert axes.get_ylim()[1] == pytest.approx(1.02 * 1.5), "what grows is in the picture"


def test_histogram_holds_all_systems_and_each_mean():
    iterations = {"none": [150, 151, 160], "multigrid": [8, 8, 9, 9]}
    (axes,) = plot_iterations(iterations).axes
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["none, mean 153.7", "multigrid, mean 8.5"]
    filled = [patch for patch in axes.patches if patch.get_label() in labels]
    for patch, counts in zip(filled, iterations.values(), strict=True):
        shares, edges, _ = patch.get_data()
        assert shares.sum() == pytest.approx(100.0)
        mean = shares @ (edges[1:] + edges[:-1]) / 200
        assert mean == pytest.approx(np.mean(counts), rel=0.03), "within the width of a bar"


def test_lines_of_many_preconditioners_are_told_apart(results):
    many = {f"{number}": results["none"] for number in range(15)}
    (axes,) = plot_convergence(many).axes
    looks = {(colors.to_hex(line.get_color()), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == 15


@pytest.mark.parametrize("plot", [plot_convergence, plot_sines])
def test_picture_is_written_whole(results, plot, tmp_path):
    path = plot(results, tmp_path / "new" / "picture.png")
    assert path == tmp_path / "new" / "picture.png"
    assert list(path.parent.iterdir()) == [path]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert np.all(pixels[[0, -1]] == 255), "something is cut off"
    assert np.all(pixels[:, [0, -1]] == 255), "something is cut off"
    assert np.mean(np.ptp(pixels, axis=2) > 50) > 1e-3


def test_without_a_filename_there_is_a_figure(results):
    assert isinstance(plot_sines(results), Figure)


@pytest.mark.parametrize("plot", [plot_convergence, plot_sines, plot_iterations])
def test_nothing_to_draw_is_refused(plot):
    with pytest.raises(ValueError, match=r"got nothing to draw; wanted a name and a result"):
        plot({})


def test_times_of_other_solves_are_refused(results):
    message = r"got times of \['ilu'\] and results of \['Jacobi', 'none'\]; wanted a time for each"
    with pytest.raises(ValueError, match=message):
        plot_convergence(results, seconds={"ilu": 1.0})


def test_solve_without_iterations_has_no_sines():
    solved = learning.SolveResult(np.zeros(2), 0, np.zeros(1), Status.CONVERGED, "fgmres")
    with pytest.raises(ValueError, match=r"got no iteration of 'solved'; wanted one"):
        plot_sines({"solved": solved})


@pytest.mark.parametrize("counts", [[], [0, 3], [1.5], [[1, 2]]])
def test_iterations_that_are_no_counts_are_refused(counts):
    shape = re.escape(str(np.shape(counts)))
    with pytest.raises(ValueError, match=rf"got iterations of 'a' of shape {shape}.* positive"):
        plot_iterations({"a": counts})


@pytest.mark.parametrize("name", ["figure", "figure.docx"])
def test_unknown_format_is_refused(results, name, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}'; wanted one that ends in .*\.png.* its figure"):
        plot_sines(results, tmp_path / name)
    assert list(tmp_path.iterdir()) == []

"""Data sets: the same from any number of processes, true to mixeddim, resumable, never mixed up."""

import json
import multiprocessing
from dataclasses import fields, replace
from pathlib import Path

import dolfinx
import h5py
import numpy as np
import pytest

import mixeddim as md
from learning.problems import generation
from learning.problems.data import load_dataset
from learning.problems.distributions import DISTRIBUTIONS, GENERATORS, Draw, ProblemDistribution
from learning.problems.generation import draw, generate, in_tissue, inlet_loads
from mixeddim.networks.generators import METHODS

SMALL = ProblemDistribution(
    num_nodes=(20, 25), radius=(0.04, 0.08), sigma_3d=(0.5, 2.0), num_cells=4
)


def make(distribution, num_problems, seed, path, processes=1):
    return generate(distribution, num_problems, seed, path, processes=processes, progress=False)


def assembled(parameters, num_cells, values=None):
    """The system of a problem straight from mixeddim, with given values at its inlets."""
    box = md.create_box(num_cells)
    p = parameters
    graph = md.random_vascular_graph(p["num_nodes"], p["radius"], p["seed"], method=p["generator"])
    coefficients = md.Coefficients(
        **{name: p[name] for name in ("k_3d", "sigma_3d", "k_1d", "permeability")}
    )
    network = md.create_network(graph, box.spacing)
    if values is None:
        return md.assemble(box, network, coefficients)

    def near(x):
        return lambda y: np.linalg.norm(y - x[:, None], axis=0) < 1e-10

    dofs = md.assemble(box, network, coefficients).side_1d.dirichlet_dofs
    places = network.P1.tabulate_dof_coordinates()[dofs]
    bcs = [md.Dirichlet(near(x), v) for x, v in zip(places, values, strict=True)]
    return md.assemble(box, network, coefficients, bcs_1d=bcs)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make(SMALL, 3, 7, tmp_path_factory.mktemp("data") / "small.h5")


# --- Draws ------------------------------------------------------------------------------------


def test_generator_names_are_those_of_mixeddim():
    assert set(METHODS) == set(GENERATORS)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_stay_in_their_ranges_and_reach_across_them(name):
    distribution = DISTRIBUTIONS[name]
    draws = [draw(distribution, 3, i) for i in range(300)]
    assert {d.generator for d in draws} == set(distribution.generators)
    assert len({d.seed for d in draws}) == 300
    for field in fields(Draw)[2:]:
        low, high = getattr(distribution, field.name)
        drawn = np.array([getattr(d, field.name) for d in draws])
        assert low <= drawn.min() <= low * (high / low) ** 0.1
        assert low * (high / low) ** 0.9 <= drawn.max() <= high


def test_log_uniform_draws_have_the_geometric_mean_of_their_range():
    draws = [draw(DISTRIBUTIONS["wide"], 0, i).k_1d for i in range(2000)]
    decades = np.log10(draws)  # uniform in [-1, 2]: standard error 0.019
    assert decades.mean() == pytest.approx(0.5, abs=0.08)
    assert decades.std() == pytest.approx(3 / np.sqrt(12), abs=0.05)


def test_changing_one_range_changes_nothing_else():
    paper, other = (draw(DISTRIBUTIONS[name], 5, 2) for name in ("paper", "weak_reaction"))
    assert replace(other, sigma_3d=1.0) == paper


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_distribution_can_be_built(name, tmp_path):
    dataset = make(replace(DISTRIBUTIONS[name], num_cells=8), 2, 1, tmp_path / "data.h5")
    for problem in dataset:
        u = np.random.default_rng(0).standard_normal(len(problem.reduced.b_3))
        assert u @ (problem.reduced.S @ u) > 0


# --- Inlet loads ------------------------------------------------------------------------------


def test_inlet_loads_sum_to_the_right_hand_sides(dataset):
    system = assembled(dataset[0].parameters, SMALL.num_cells)
    loads = inlet_loads(system)
    assert loads[0].shape[1] == loads[1].shape[1] == len(system.side_1d.dirichlet_dofs) > 1
    for load, b in zip(loads, (system.b_3, system.b_1), strict=True):
        np.testing.assert_allclose(load.sum(axis=1), b, rtol=0, atol=1e-12 * np.abs(b).max())


def test_inlet_loads_are_linear_in_the_inlet_values(dataset):
    parameters = dataset[1].parameters
    loads = inlet_loads(assembled(parameters, SMALL.num_cells))
    values = np.random.default_rng(4).uniform(0, 2, loads[0].shape[1])
    system = assembled(parameters, SMALL.num_cells, values)
    for load, b in zip(loads, (system.b_3, system.b_1), strict=True):
        np.testing.assert_allclose(load @ values, b, rtol=0, atol=1e-12 * np.abs(b).max())


# --- Against mixeddim -------------------------------------------------------------------------


@pytest.mark.parametrize("i", range(3))
def test_a_loaded_system_is_the_assembled_one_to_single_precision(dataset, i):
    loaded = dataset[i].reduced
    expected = md.reduce(assembled(dataset[i].parameters, SMALL.num_cells))
    for name, eps in {"K": 1e-15, "M": 1e-15, "A_11": 1e-15, "N": 0.0, "Pi": 1e-7}.items():
        left, right = getattr(loaded, name), getattr(expected, name)
        assert abs(left - right).max() <= eps * abs(right).max(), name
    for name, eps in {"weights": 0.0, "beta": 0.0, "points": 0.0, "b_1": 1e-15, "b_3": 1e-6,
                      "g": 1e-6}.items():  # fmt: skip
        left, right = getattr(loaded, name), getattr(expected, name)
        np.testing.assert_allclose(left, right, rtol=0, atol=eps * np.abs(right).max())
    assert loaded.grid.shape == expected.grid.shape
    for name in ("lower", "cell_size", "node_of_dof"):
        np.testing.assert_array_equal(getattr(loaded.grid, name), getattr(expected.grid, name))


VARYING = replace(
    SMALL, contrast=(100.0, 1e4), anisotropy=(2.0, 50.0), fibres="oblique", k_3d=(0.1, 2.0)
)


@pytest.fixture(scope="module")
def varying(tmp_path_factory):
    return make(VARYING, 3, 7, tmp_path_factory.mktemp("varying") / "varying.h5")


def stored(dataset, i):
    """Return log k in the cells, and the direction of the fibres."""
    with h5py.File(dataset.path) as file:
        parts = [
            file[f"problems/{name}"][slice(*file[f"offsets/{name}"][i : i + 2])]
            for name in ("log_k", "fibres")
        ]
    return parts[0].reshape(3 * (dataset.distribution.num_cells,)), parts[1]


@pytest.mark.parametrize("i", range(3))
def test_varying_diffusion_is_what_dolfinx_assembles(varying, i):
    p, (log_k, fibres) = varying[i].parameters, stored(varying, i)
    box = md.create_box(VARYING.num_cells)
    DG0 = dolfinx.fem.functionspace(box.mesh, ("DG", 0))
    k = dolfinx.fem.Function(DG0)
    cells = np.floor(DG0.tabulate_dof_coordinates() / box.cell_size).astype(int)
    k.x.array[:] = p["k_3d"] * np.exp(log_k.astype(float))[tuple(cells.T)]
    across = p["anisotropy"] ** (-1 / 3)
    along = across * p["anisotropy"]
    tensor = across * np.eye(3) + (along - across) * np.outer(fibres, fibres)
    graph = md.random_vascular_graph(p["num_nodes"], p["radius"], p["seed"], method=p["generator"])
    coefficients = md.Coefficients(
        k_3d=k * dolfinx.fem.Constant(box.mesh, tensor),
        **{name: p[name] for name in ("sigma_3d", "k_1d", "permeability")},
    )
    expected = md.reduce(md.assemble(box, md.create_network(graph, box.spacing), coefficients))
    loaded = varying[i].reduced
    for name, eps in {"K": 1e-13, "M": 1e-14, "A_11": 1e-14, "Pi": 1e-7}.items():
        left, right = getattr(loaded, name), getattr(expected, name)
        assert abs(left - right).max() <= eps * abs(right).max(), name


@pytest.mark.parametrize("i", range(3))
def test_the_field_spans_the_contrast_around_k_3d(varying, i):
    log_k, fibres = stored(varying, i)
    contrast = varying[i].parameters["contrast"]
    assert log_k.max() == pytest.approx(np.log(contrast) / 2, rel=1e-6)
    assert log_k.min() == pytest.approx(-np.log(contrast) / 2, rel=1e-6)
    assert np.linalg.norm(fibres) == pytest.approx(1.0, abs=1e-14)


def test_fields_differ_between_problems_and_not_between_grids(varying, tmp_path):
    finer = make(replace(VARYING, num_cells=12), 2, 7, tmp_path / "finer.h5")
    (first, fibres), (second, others) = stored(varying, 0), stored(varying, 1)
    assert np.abs(fibres - others).max() > 0.1
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.9
    log_k, same_fibres = stored(finer, 0)
    np.testing.assert_array_equal(fibres, same_fibres)
    assert np.corrcoef(first.ravel(), log_k[1::3, 1::3, 1::3].ravel())[0, 1] > 1 - 1e-6
    assert finer[0].parameters == varying[0].parameters


@pytest.mark.parametrize(("fibres", "direction"), [
    ("x", [1, 0, 0]), ("y", [0, 1, 0]), ("z", [0, 0, 1]),
])  # fmt: skip
def test_fibres_run_along_their_axis(tmp_path, fibres, direction):
    """They conduct so many times better than what is across, and k_3d is the geometric mean."""
    distribution = replace(SMALL, anisotropy=(8.0, 8.0), fibres=fibres, k_3d=(3.0, 3.0))
    reduced = make(distribution, 1, 7, tmp_path / "data.h5")[0].reduced
    index = np.unravel_index(reduced.grid.node_of_dof, reduced.grid.shape)
    x = np.stack(index, axis=1) * reduced.grid.cell_size
    expected = np.where(direction, 3.0 * 4.0, 3.0 / 2.0)
    np.testing.assert_allclose(x.T @ (reduced.K @ x), np.diag(expected), atol=1e-12)


def test_varying_diffusion_leaves_everything_else_as_it_was(dataset, varying):
    """The networks above all: ranges of the other numbers keep their draws."""
    constant, other = dataset[0], varying[0]
    names = ("generator", "seed", "num_nodes", "radius", "sigma_3d", "k_1d", "permeability")
    assert [constant.parameters[n] for n in names] == [other.parameters[n] for n in names]
    for name in ("Pi", "N", "A_11", "M"):
        assert abs(getattr(constant.reduced, name) - getattr(other.reduced, name)).max() == 0.0
    with h5py.File(dataset.path) as file:
        names = {f"{group}/{name}" for group in file for name in file[group]}
    assert not any("log_k" in n or "fibres" in n or "contrast" in n for n in names)


def test_networks_in_another_tissue_are_those_generated_there(dataset, varying):
    for networks, wanted in ((dataset, varying), (varying, dataset)):
        found = in_tissue(networks, wanted.distribution)
        assert found.content_hash == wanted.content_hash
        for A, B in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(A.reduced.g, B.reduced.g)
            np.testing.assert_array_equal(A.reduced.K.data, B.reduced.K.data)
    with pytest.raises(
        ValueError, match=r"got radius=\(0.1, 0.1\) for networks of radius=\(0.04, 0"
    ):
        in_tissue(dataset, replace(SMALL, radius=(0.1, 0.1)))


def test_an_interrupted_run_of_varying_diffusion_goes_on(varying, tmp_path, monkeypatch):
    path, write_part = tmp_path / "data.h5", generation._write_part

    def stop_at_the_third(distribution, seed, parts, i):
        if i == 2:
            raise KeyboardInterrupt
        write_part(distribution, seed, parts, i)

    monkeypatch.setattr(generation, "_write_part", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        make(VARYING, 3, 7, path)
    monkeypatch.setattr(generation, "_write_part", write_part)
    with pytest.raises(ValueError, match=r"unfinished problems of .* wanted .* delete the folder"):
        make(replace(VARYING, fibres="x"), 3, 7, path)
    assert make(VARYING, 3, 7, path).content_hash == varying.content_hash
    with pytest.raises(ValueError, match=r"contrast=\(100.0, 10000.0\).*Choose another path"):
        make(replace(VARYING, contrast=(100.0, 1e3)), 3, 7, path)


# --- Runs -------------------------------------------------------------------------------------


def test_any_number_of_processes_gives_the_same_file(dataset, tmp_path):
    assert make(SMALL, 3, 7, tmp_path / "data.h5", processes=2).content_hash == dataset.content_hash
    assert multiprocessing.active_children() == []


def test_more_problems_begin_with_the_same_ones(dataset, tmp_path):
    fewer = make(SMALL, 2, 7, tmp_path / "data.h5")
    for left, right in zip(fewer, dataset, strict=False):
        assert left.parameters == right.parameters
        np.testing.assert_array_equal(left.reduced.g, right.reduced.g)


def test_other_seeds_give_other_problems(dataset, tmp_path):
    other = make(SMALL, 1, 8, tmp_path / "data.h5")
    assert other[0].parameters != dataset[0].parameters
    assert other.content_hash != dataset.content_hash


def test_a_process_has_room_for_many_problems(tmp_path):
    """MPI has communicators for some 150 meshes."""
    few_dofs = ProblemDistribution(num_nodes=(2, 2), num_cells=1)
    assert len(make(few_dofs, 200, 0, tmp_path / "data.h5")) == 200


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A path where generation of three problems stopped in the third."""
    path, assemble = tmp_path / "data.h5", generation._assemble

    def stop_at_the_third(drawn, num_cells):
        if drawn == draw(SMALL, 7, 2):
            raise KeyboardInterrupt
        return assemble(drawn, num_cells)

    monkeypatch.setattr(generation, "_assemble", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        make(SMALL, 3, 7, path)
    monkeypatch.setattr(generation, "_assemble", assemble)
    return path


def test_an_interrupted_run_goes_on_where_it_stopped(interrupted, dataset, monkeypatch):
    assert not interrupted.exists()
    built, assemble = [], generation._assemble
    monkeypatch.setattr(
        generation, "_assemble", lambda drawn, n: built.append(drawn) or assemble(drawn, n)
    )
    resumed = make(SMALL, 3, 7, interrupted)
    assert built == [draw(SMALL, 7, 2)]
    assert resumed.content_hash == dataset.content_hash
    assert [file.name for file in interrupted.parent.iterdir()] == ["data.h5"]


@pytest.mark.parametrize("change", ["distribution", "seed", "versions", "no configuration"])
def test_unfinished_problems_of_another_configuration_are_refused(interrupted, change):
    distribution, seed = SMALL, 7
    file = interrupted.with_name("data.h5.parts") / "configuration.json"
    if change == "distribution":
        distribution = replace(SMALL, k_1d=(2.0, 2.0))
    elif change == "seed":
        seed = 8
    elif change == "versions":
        configuration = json.loads(file.read_text())
        configuration["versions"]["dolfinx"] = "0.0"
        file.write_text(json.dumps(configuration))
    else:
        file.unlink()
    with pytest.raises(ValueError, match=r"unfinished problems of .* wanted .* delete the folder"):
        make(distribution, 3, seed, interrupted)


def test_a_finished_file_is_returned_without_work(dataset, monkeypatch):
    monkeypatch.setattr(generation, "_assemble", None)
    assert make(SMALL, 3, 7, str(dataset.path)).content_hash == dataset.content_hash


@pytest.mark.parametrize(
    ("distribution", "num_problems", "seed", "message"),
    [
        (SMALL, 3, 8, "holds seed=7; wanted seed=8. Choose another path"),
        (SMALL, 4, 9, "holds num_problems=3, seed=7; wanted num_problems=4, seed=9. Choose"),
        (replace(SMALL, num_cells=5), 3, 7, "holds num_cells=4; wanted num_cells=5. Choose"),
    ],
)
def test_a_file_of_other_problems_is_kept(dataset, distribution, num_problems, seed, message):
    before = dataset.path.read_bytes()
    with pytest.raises(ValueError, match=message):
        make(distribution, num_problems, seed, dataset.path)
    assert dataset.path.read_bytes() == before


def test_a_damaged_file_is_not_taken_for_finished(tmp_path):
    path = tmp_path / "data.h5"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no complete data set .* or generate the data set again"):
        make(SMALL, 3, 7, path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_problem_that_cannot_be_built_is_named(tmp_path, processes):
    too_thick = replace(SMALL, radius=(0.45, 0.45))
    with pytest.raises(ValueError, match=r"problem [01] of seed 0, Draw\(.*radius=0.45.*longer"):
        make(too_thick, 2, 0, tmp_path / "data.h5", processes)


@pytest.mark.parametrize("arguments", [(0, 0, 1), (1, -1, 1), (1, 0, 0)])
def test_numbers_out_of_range_are_refused(tmp_path, arguments):
    num_problems, seed, processes = arguments
    with pytest.raises(ValueError, match=r"got num_problems=.*Raise them"):
        make(SMALL, num_problems, seed, tmp_path / "data.h5", processes)


def test_the_progress_bar_counts_problems(tmp_path, capsys):
    generate(SMALL, 2, 0, tmp_path / "data.h5", processes=1)
    assert "2/2" in capsys.readouterr().err


def test_six_hundred_problems_of_the_paper_fit_in_60_megabytes(tmp_path):
    sizes = [
        make(DISTRIBUTIONS["paper"], n, 0, Path(tmp_path / f"{n}.h5")).path.stat().st_size
        for n in (2, 8)
    ]
    each = (sizes[1] - sizes[0]) / 6
    assert sizes[0] + 598 * each < 60e6


def test_the_file_names_what_wrote_it(dataset):
    read = load_dataset(dataset.path)
    assert (read.distribution, read.seed, len(read)) == (SMALL, 7, 3)
    assert read.versions["mixeddim"] == md.__version__
    assert set(read.versions) == {"Python", "dolfinx", "mixeddim", "networkx", "numpy", "scipy"}

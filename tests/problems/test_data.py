"""Data sets as read: exact structure, damage noticed, and the families of right-hand sides."""

import pickle
from dataclasses import replace

import h5py
import numpy as np
import pytest
from scipy.sparse.linalg import splu

from learning.problems.data import (
    FAMILIES,
    FORMAT,
    Problem,
    content_hash,
    load_dataset,
    right_hand_side,
)
from learning.problems.distributions import DISTRIBUTIONS, ProblemDistribution, from_json, to_json
from learning.problems.generation import generate

DISTRIBUTION = ProblemDistribution(
    num_nodes=(20, 25), radius=(0.04, 0.08), sigma_3d=(0.5, 2.0), num_cells=4
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.h5"
    generate(DISTRIBUTION, 4, 3, path, processes=1, progress=False)
    return path


@pytest.fixture(scope="module")
def dataset(path):
    return load_dataset(path)


# --- Distributions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generators": ("bush",)}, "got generators=.*wanted at least one of capillary_mesh"),
        ({"generators": ()}, "got generators=.*wanted at least one"),
        ({"num_nodes": (1, 5)}, "got num_nodes=.*at least 2"),
        ({"num_nodes": (9, 5)}, "got num_nodes=.*low <= high"),
        ({"num_nodes": (5.0, 9.0)}, "got num_nodes=.*wanted integers"),
        ({"radius": (0.0, 0.1)}, "got radius=.*positive"),
        ({"k_3d": (2.0, 1.0)}, "got k_3d=.*low <= high"),
        ({"sigma_3d": (1.0, np.nan)}, "got sigma_3d=.*finite"),
        ({"k_1d": (1.0, np.inf)}, "got k_1d=.*finite"),
        ({"permeability": (-1.0, 1.0)}, "got permeability=.*positive"),
        ({"num_cells": 0}, "num_cells=0; wanted integers, and at least one"),
        ({"num_cells": 8.0}, "num_cells=8.0; wanted integers"),
        ({"contrast": (0.5, 2.0)}, r"contrast=\(0.5, 2.0\).*wanted ratios of at least 1"),
        ({"anisotropy": (0.1, 1.0)}, r"anisotropy=\(0.1, 1.0\).*wanted ratios of at least 1"),
        ({"contrast": (9.0, 2.0)}, "got contrast=.*low <= high"),
        ({"anisotropy": (1.0, np.inf)}, "got anisotropy=.*finite"),
        ({"fibres": "radial"}, r"fibres='radial'; wanted .* of \('x', 'y', 'z', 'oblique'\)"),
    ],
)
def test_impossible_distributions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ProblemDistribution(**fields)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_survive_json(name):
    assert from_json(to_json(DISTRIBUTIONS[name])) == DISTRIBUTIONS[name]


def test_distributions_out_of_the_paper_change_one_thing():
    paper = vars(DISTRIBUTIONS["paper"])
    others = {"paper", "wide", "regimes", "regimes_varying", "regimes_fibres"}
    for name in DISTRIBUTIONS.keys() - others:
        assert len([k for k, v in vars(DISTRIBUTIONS[name]).items() if v != paper[k]]) == 1, name


def test_distributions_for_the_learned_multigrid_leave_a_generator_out():
    for name in ("regimes", "regimes_varying", "regimes_fibres"):
        assert "capillary_mesh" not in DISTRIBUTIONS[name].generators
    varying, fibres = DISTRIBUTIONS["regimes_varying"], DISTRIBUTIONS["regimes_fibres"]
    assert replace(varying, contrast=(1.0, 1.0)) == DISTRIBUTIONS["regimes"]
    assert replace(fibres, anisotropy=(1.0, 1.0), contrast=varying.contrast) == varying


PAPER = (
    '{"generators": ["spanning_tree"], "k_1d": [1.0, 1.0], "k_3d": [1.0, 1.0], "num_cells": 20, '
    '"num_nodes": [40, 40], "permeability": [1.0, 1.0], "radius": [0.05, 0.05], '
    '"sigma_3d": [1.0, 1.0]}'
)


def test_files_written_before_diffusion_varied_keep_their_text_and_hash():
    paper = DISTRIBUTIONS["paper"]
    assert to_json(paper) == PAPER
    assert from_json(PAPER) == paper
    assert content_hash({"problems/beta": np.arange(3.0)}, paper, 5) == (
        "77f5a834140ca5250c080471a98884bfe7e3d0a6e2262738c5be8bab59300831"
    )


@pytest.mark.parametrize(
    "changes",
    [{"contrast": (1.0, 9.0)}, {"anisotropy": (2.0, 2.0)}, {"fibres": "oblique"}],
    ids=str,
)
def test_distributions_of_varying_diffusion_have_a_text_of_their_own(changes):
    changed = replace(DISTRIBUTIONS["paper"], **changes)
    assert to_json(changed) != PAPER
    assert from_json(to_json(changed)) == changed


def test_distributions_cannot_be_changed():
    with pytest.raises(TypeError):
        DISTRIBUTIONS["paper"] = ProblemDistribution(num_cells=3)


# --- The sequence -----------------------------------------------------------------------------


def test_a_data_set_is_a_sequence(dataset):
    assert len(dataset) == len(list(dataset)) == 4
    assert dataset[-1] is dataset[3]
    assert dataset[np.int64(1)] is dataset[1]
    assert dataset[1:3] == [dataset[1], dataset[2]]
    assert dataset[::-2] == [dataset[3], dataset[1]]
    for i in (4, -5):
        with pytest.raises(IndexError, match="the data set has 4"):
            dataset[i]
    assert "4 problems" in repr(dataset)


def test_a_data_set_keeps_no_file_open(path, tmp_path):
    moved = tmp_path / "moved.h5"
    moved.write_bytes(path.read_bytes())
    dataset = load_dataset(moved)
    moved.unlink()
    assert len(dataset[2].reduced.g) == 125


def test_every_reading_is_the_same(path, dataset):
    again = load_dataset(path)
    assert again.content_hash == dataset.content_hash
    for left, right in zip(again, dataset, strict=True):
        np.testing.assert_array_equal(left.reduced.g, right.reduced.g)
        np.testing.assert_array_equal(left.reduced.Pi.data, right.reduced.Pi.data)


def test_problems_of_unit_coefficients_share_their_matrices(dataset):
    first, second = dataset[0].reduced, dataset[1].reduced
    assert first.K is second.K
    assert first.M is not second.M  # sigma_3d is drawn
    assert dataset[0].parameters["sigma_3d"] != 1.0


def test_problems_are_independent_otherwise(path):
    dataset = load_dataset(path)
    before = dataset[0].reduced.beta.copy()
    dataset[0].reduced.beta[:] = 0.0
    dataset._built.clear()
    np.testing.assert_array_equal(dataset[0].reduced.beta, before)


# --- The systems ------------------------------------------------------------------------------


@pytest.mark.parametrize("i", range(4))
def test_a_loaded_system_is_symmetric_and_positive_definite(dataset, i):
    reduced = dataset[i].reduced
    for name in ("K", "M", "A_11"):
        A = getattr(reduced, name)
        assert abs(A - A.T).max() == 0.0, name
    S = reduced.S @ np.eye(len(reduced.b_3))
    assert np.abs(S - S.T).max() < 1e-15 * np.abs(S).max()
    assert np.linalg.eigvalsh(S)[0] > 0
    assert np.linalg.eigvalsh(reduced.A_11.toarray())[0] > 0


@pytest.mark.parametrize("i", range(4))
def test_constants_are_kept_to_rounding(dataset, i):
    reduced, one = dataset[i].reduced, np.ones(125)
    np.testing.assert_allclose(reduced.Pi @ one, 1.0, rtol=0, atol=1e-15)
    reaction = reduced.M @ one
    assert reaction.sum() == pytest.approx(dataset[i].parameters["sigma_3d"])
    np.testing.assert_allclose(reduced.S @ one - reduced.g, reaction, rtol=0, atol=1e-14)


def test_right_hand_sides_are_those_of_all_inlets_at_one(dataset):
    for problem in dataset:
        values = np.ones(problem.inlet_loads_3.shape[1])
        np.testing.assert_allclose(
            problem.inlet_loads_3 @ values, problem.reduced.b_3, rtol=0, atol=1e-15
        )
        np.testing.assert_allclose(
            problem.inlet_loads_1 @ values, problem.reduced.b_1, rtol=1e-15, atol=0
        )


@pytest.fixture(scope="module")
def varying(tmp_path_factory):
    """Problems of varying diffusion along oblique fibres."""
    distribution = replace(
        DISTRIBUTION,
        contrast=(10.0, 1e3),
        anisotropy=(1.0, 50.0),
        fibres="oblique",
        k_3d=(0.1, 1.0),
    )
    path = tmp_path_factory.mktemp("varying") / "varying.h5"
    return generate(distribution, 3, 3, path, processes=1, progress=False)


def test_parameters_name_contrast_and_anisotropy(dataset, varying):
    assert {(p.parameters["contrast"], p.parameters["anisotropy"]) for p in dataset} == {(1.0, 1.0)}
    for problem in varying:
        assert 10.0 <= problem.parameters["contrast"] <= 1e3
        assert 1.0 <= problem.parameters["anisotropy"] <= 50.0
        assert list(problem.parameters) == list(dataset[0].parameters)


@pytest.mark.parametrize("i", range(3))
def test_a_system_of_varying_diffusion_is_symmetric_and_keeps_constants(varying, i):
    reduced, one = varying[i].reduced, np.ones(125)
    assert abs(reduced.K - reduced.K.T).max() == 0.0
    S = reduced.S @ np.eye(125)
    assert np.linalg.eigvalsh((S + S.T) / 2)[0] > 0
    scale = reduced.K.max()
    np.testing.assert_allclose(reduced.S @ one - reduced.g, reduced.M @ one, atol=1e-14 * scale)


def test_problems_of_varying_diffusion_survive_the_file(varying):
    again = load_dataset(varying.path)
    assert again.content_hash == varying.content_hash
    for left, right in zip(again, varying, strict=True):
        assert left.parameters == right.parameters
        np.testing.assert_array_equal(left.reduced.K.toarray(), right.reduced.K.toarray())
    assert again[0].reduced.K is not again[1].reduced.K
    assert abs(again[0].reduced.K - again[1].reduced.K).max() > 0.1 * again[0].reduced.K.max()


@pytest.mark.parametrize("name", ["problems/log_k", "problems/fibres", "parameters/contrast"])
def test_damaged_diffusion_is_noticed(varying, tmp_path, name):
    def change(file):
        file[name][0] += 1e-3

    copy = tmp_path / "copy.h5"
    copy.write_bytes(varying.path.read_bytes())
    write(copy, change)
    with pytest.raises(ValueError, match="does not match its hash"):
        load_dataset(copy)


# --- Damage -----------------------------------------------------------------------------------


def write(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def set_attribute(name, value):
    return lambda path: write(path, lambda file: file.attrs.__setitem__(name, value))


def flip_a_value(path):
    def change(file):
        file["problems/beta"][3] += 1e-6

    write(path, change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "no complete data set"),
        (lambda path: path.write_text("hello"), "no complete data set"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "no complete data set"),
        (lambda path: write(path, lambda file: file.attrs.clear()), "no complete data set"),
        (set_attribute("format", FORMAT + 1), f"has format {FORMAT + 1}, this version {FORMAT}"),
        (set_attribute("seed", 4), "does not match its hash"),
        (set_attribute("distribution", to_json(replace(DISTRIBUTION, k_1d=(2, 2)))), "its hash"),
        (set_attribute("versions", "{"), "no complete data set"),
        (flip_a_value, "does not match its hash"),
        (lambda path: write(path, lambda file: file.pop("problems/N.data")), "its hash"),
    ],
)
def test_damaged_files_are_noticed(path, tmp_path, damage, message):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    load_dataset(copy)
    damage(copy)
    with pytest.raises(ValueError, match=message):
        load_dataset(str(copy))


def test_a_file_that_claims_more_memory_than_there_is_is_refused(path, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    write(copy, lambda file: file.create_dataset("problems/zeros", (2**37,), "f8", chunks=(1024,)))
    assert copy.stat().st_size < 2 * path.stat().st_size
    with pytest.raises(ValueError, match=r"claim 1.02e\+03 GiB; wanted at most what is free"):
        load_dataset(copy)


@pytest.mark.parametrize("name", ["", "missing.h5"])
def test_a_data_set_is_a_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="is no file; wanted a data set"):
        load_dataset(tmp_path / name)


def test_a_data_set_can_be_sent_to_another_process(dataset):
    dataset = replace(dataset, _built={})
    again = pickle.loads(pickle.dumps(replace(dataset, versions={})))
    np.testing.assert_array_equal(again[0].reduced.g, dataset[0].reduced.g)


# --- Right-hand sides -------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_right_hand_sides_have_unit_norm_and_repeat(dataset, family):
    for problem in dataset:
        first, again = (
            right_hand_side(problem, family, np.random.default_rng(5)) for _ in range(2)
        )
        assert first.shape == (125,)
        assert first.dtype == np.float64
        assert np.linalg.norm(first) == pytest.approx(1.0, abs=1e-14)
        np.testing.assert_array_equal(first, again)
        other = right_hand_side(problem, family, np.random.default_rng(6))
        assert np.array_equal(first, other) == (family == "canonical")


def test_the_canonical_family_is_g(dataset):
    g = dataset[0].reduced.g
    b = right_hand_side(dataset[0], "canonical", np.random.default_rng(0))
    np.testing.assert_allclose(b, g / np.linalg.norm(g), rtol=1e-15)


def test_the_physical_family_is_inlets_and_a_smooth_source_of_equal_weight(dataset):
    problem = dataset[0]
    reduced, grid = problem.reduced, problem.reduced.grid
    b = right_hand_side(problem, "physical", np.random.default_rng(9))
    # The inlet parts span the columns of this matrix, and what is left is M s.
    A_11 = reduced.A_11.toarray()
    inlets = problem.inlet_loads_3.toarray() - reduced.A_31 @ np.linalg.solve(
        A_11, problem.inlet_loads_1.toarray()
    )
    values = np.random.default_rng(9).uniform(0, 2, inlets.shape[1])
    part = inlets @ values
    # ||c part + s|| = 1 and ||s|| = ||c part|| fix c: 1 = 2 c b.part.
    scale = 1 / (2 * (b @ part))
    source = b - scale * part
    assert np.linalg.norm(source) == pytest.approx(scale * np.linalg.norm(part))
    field = grid.to_grid(splu(reduced.M.tocsc()).solve(source))
    # Four waves in each direction, so that 4 cells per side hold all but the highest cosine.
    highest = np.cos(4 * np.pi * np.linspace(0, 1, 5))
    trapezoidal = np.array([0.5, 1, 1, 1, 0.5])
    for axis in range(3):
        component = np.tensordot(field, highest * trapezoidal, axes=(axis, 0))
        assert np.abs(component).max() < 1e-12 * np.abs(field).max()


def test_random_right_hand_sides_are_isotropic(dataset):
    rng = np.random.default_rng(0)
    draws = np.array([right_hand_side(dataset[0], "random", rng) for _ in range(400)])
    covariance = np.linalg.eigvalsh(draws.T @ draws / 400 * 125)
    assert covariance.max() < 3  # Marchenko-Pastur: (1 + sqrt(125 / 400))^2 = 2.43


def test_an_unknown_family_is_refused(dataset):
    with pytest.raises(ValueError, match="got family='canonic'; wanted one of canonical, physical"):
        right_hand_side(dataset[0], "canonic", np.random.default_rng(0))


def test_a_source_needs_a_grid(dataset):
    problem = dataset[0]
    without = Problem(
        replace(problem.reduced, grid=None), problem.inlet_loads_3, problem.inlet_loads_1, {}
    )
    with pytest.raises(ValueError, match="without a grid"):
        right_hand_side(without, "physical", np.random.default_rng(0))

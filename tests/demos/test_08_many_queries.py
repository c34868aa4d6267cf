"""Many networks: all solved, the mean that of direct solves, every solver of the same mind."""

import os

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

NUMBER = 24


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("08_many_queries")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("many_queries")


@pytest.fixture(scope="module")
def result(demo, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)  # for so few, processes of their own do not pay
        number = ["--num-networks", str(NUMBER)]
        return demo.main([*number, "--num-cells", "8", "--output", str(folder)])


def _solve_directly(reduced):
    A = sparse.block_array([[reduced.A_33, reduced.A_31], [reduced.A_13, reduced.A_11]])
    return spsolve(A.tocsc(), np.concatenate([reduced.b_3, reduced.b_1]))[: len(reduced.b_3)]


def test_mean_is_that_of_direct_solves(result):
    direct = np.array([_solve_directly(reduced) for reduced in result.systems[:5]])
    np.testing.assert_allclose(result.fields[:5].mean(axis=0), direct.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(result.fields[:5], direct, rtol=1e-6)


def test_all_problems_converged(demo, result):
    assert len(result.systems) == len(result.fields) == NUMBER
    for reduced, u_3d in zip(result.systems, result.fields, strict=True):
        residual = np.linalg.norm(reduced.g - reduced.S @ u_3d)
        assert residual <= 1.01 * demo.RTOL * np.linalg.norm(reduced.g)
    assert result.solves.keys() == demo.SOLVERS.keys()
    for solves in result.solves.values():
        expected = result.fields[: demo.NUM_TIMED]
        np.testing.assert_allclose(solves.fields, expected, rtol=1e-6)
        assert solves.iterations >= 1
        assert solves.seconds > 0


def test_field_is_oxygen_that_varies_from_network_to_network(result):
    assert 0 < result.fields.min() < result.fields.max() < 1, "between none and that at inlets"
    deviation = result.fields.std(axis=0, ddof=1)
    assert deviation.min() > 1e-3
    assert np.mean(deviation**2) > result.fields.mean(axis=0).var(), "more than over places"
    for reduced, u_3d in zip(result.systems, result.fields, strict=True):
        is_near = reduced.grid.to_dofs(reduced.distance_to_network) < 0.05
        assert u_3d[is_near].mean() > u_3d[~is_near].mean(), "vessels feed the tissue"


def test_files_of_many_queries(result, folder):
    assert {path.name for path in result.files} == {"ensemble.png", "times.png"}
    assert all(path.parent == folder and path.stat().st_size > 10_000 for path in result.files)


def test_solver_that_fails_is_noticed(demo, result, monkeypatch):
    monkeypatch.setattr(demo, "RTOL", 1e-30)
    with pytest.raises(RuntimeError, match="problems 0 to 1"):
        demo.in_batches(demo.LEARNED, result.systems[:2])


def test_help_of_many_queries_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    options = ("num-networks", "num-cells", "seed", "output")
    assert all(f"--{option}" in printed for option in options)

"""The spectrum of the reduced system: a matrix that is S, eigenvalues that are its own."""

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import eigsh

import learning


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("05_reduced_system")


@pytest.fixture(scope="module")
def small(demo):
    reduced = demo.reduced_problem(6, seed=7)
    return reduced, demo.dense_system(reduced)


def test_spectrum_foretells_the_iterations(demo, tmp_path, capsys):
    result = demo.main(["--num-cells", "11", "--output", str(tmp_path)])
    none, diagonal, multigrid, learned = (result.spectra[name] for name in demo.PRECONDITIONERS)
    assert none.condition > diagonal.condition > 200
    assert multigrid.condition < 3
    assert learned.condition < 1.1
    assert none.iterations > diagonal.iterations > 5 * multigrid.iterations
    assert 10 > multigrid.iterations > learned.iterations
    root_of_norms = np.sqrt(none.condition)  # largest ratio of the residual's and the energy norm
    for s in result.spectra.values():
        assert np.all(s.eigenvalues > 0)
        assert s.iterations <= demo.steps_foretold(s.condition) + 1
        factor = (np.sqrt(s.condition) - 1) / (np.sqrt(s.condition) + 1)
        bounds = 2 * root_of_norms * factor ** np.arange(s.iterations + 1)
        assert np.all(s.residuals <= bounds)

    printed = capsys.readouterr().out
    assert f"{none.condition:>9.4g}" in printed
    assert result.picture == tmp_path / "spectrum.png"
    assert result.picture.stat().st_size > 10_000
    assert str(result.picture) in printed


def test_dense_system_is_the_schur_complement_of_the_blocks(small):
    reduced, S = small
    A_31 = reduced.A_31.toarray()
    schur = reduced.A_33 - A_31 @ np.linalg.solve(reduced.A_11.toarray(), A_31.T)
    np.testing.assert_allclose(S, schur, atol=1e-14)
    np.testing.assert_allclose(S, S.T, atol=1e-14)


def test_extreme_eigenvalues_are_those_of_lanczos(demo, small):
    reduced, S = small
    M = demo.dense_preconditioner(learning.Jacobi(), reduced)
    D = reduced.A_33.diagonal()
    np.testing.assert_allclose(M, np.diag(1 / D), rtol=1e-14)
    eigenvalues = demo.spectrum(S, M)
    diagonal = sparse.diags_array(D).tocsc()
    (largest,) = eigsh(reduced.S, 1, M=diagonal, return_eigenvectors=False)
    assert eigenvalues[-1] == pytest.approx(largest, rel=1e-8)
    assert eigenvalues.sum() == pytest.approx(np.sum(np.diag(S) / D), rel=1e-12)


def test_help_of_the_reduced_system_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("num-cells", "seed", "output"))

"""The learned multigrid in PETSc: the same iterations as in torch, and the right solution."""

import numpy as np
import pytest

import learning


@pytest.fixture(scope="module")
def demo(load_demo):
    return load_demo("07_learned_multigrid_in_petsc")


@pytest.mark.parametrize("seed", ["7", "1"])
def test_learned_multigrid_in_petsc(demo, seed, tmp_path, capsys):
    result = demo.main(["--num-cells", "12", "--seed", seed, "--output", str(tmp_path)])
    assert result.runs.keys() == result.differences.keys() == demo.METHODS.keys()
    iterations = {name: run.iterations for name, run in result.runs.items()}
    *classical, learned, by_options = demo.METHODS
    assert max(iterations[learned], iterations[by_options]) < min(iterations[c] for c in classical)
    assert max(result.differences.values()) < 1e-5

    multigrid = learning.load_pretrained("multigrid")
    for name, method in ((learned, "cg"), (by_options, "fgmres")):
        ours = learning.solve(result.reduced, multigrid, method, rtol=demo.RTOL)
        assert iterations[name] == ours.iterations
        norms = ours.residual_norms / ours.residual_norms[0]
        # The network runs in float32.
        np.testing.assert_allclose(result.runs[name].residuals, norms, rtol=1e-3)

    printed = capsys.readouterr().out
    for name, run in result.runs.items():
        assert f"{name:<27}  {run.iterations:>10}" in printed
    assert str(result.picture) in printed
    assert result.picture == tmp_path / "convergence.png"
    assert result.picture.stat().st_size > 10_000


def test_help_of_the_learned_multigrid_names_every_option(demo, capsys):
    with pytest.raises(SystemExit, match="0"):
        demo.main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{option}" in printed for option in ("num-cells", "seed", "output"))

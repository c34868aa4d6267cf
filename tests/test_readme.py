"""What the README shows runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 9
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)

    assert names["solution"].mass_balance.error < 1e-9  # type: ignore[attr-defined]
    assert names["v"].grad.shape == names["v"].shape  # type: ignore[attr-defined]
    assert names["result"].converged  # type: ignore[attr-defined]
    assert names["ksp"].getConvergedReason() > 0  # type: ignore[attr-defined]
    assert 0 < names["loss"].item() < 1  # type: ignore[attr-defined]
    assert (tmp_path / "tissue.png").stat().st_size > 50_000
    assert names["consuming"].mass_balance.error < 1e-9  # type: ignore[attr-defined]
    assert max(state.mass_balance.error for state in names["states"]) < 1e-10  # type: ignore[attr-defined]
    assert names["states"][-1].mass_balance.amount_3d > 0  # type: ignore[attr-defined]
    for file in ("edges.csv", "tissue.html", "tracer.gif"):
        assert (tmp_path / file).stat().st_size > 1_000


def test_pictures_of_the_readme_exist() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())
    assert pictures
    for picture in pictures:
        assert (README.parent / picture).is_file()

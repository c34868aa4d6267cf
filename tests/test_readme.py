"""The README fits one sitting, and what it shows runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, str(README), "exec"), names)

    assert names["solution"].mass_balance.error < 1e-9  # type: ignore[attr-defined]
    assert names["result"].converged  # type: ignore[attr-defined]
    assert (tmp_path / "tissue.png").stat().st_size > 50_000


def test_the_readme_fits_one_sitting() -> None:
    assert len(README.read_text().splitlines()) <= 180


def test_links_and_pictures_of_the_readme_exist() -> None:
    """Links within the repository; tests/test_docs.py follows those of the site."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text())
    assert "demos/03_random_vascular_network.png" in targets
    for target in targets:
        assert (README.parent / target).is_file(), target

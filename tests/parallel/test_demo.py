"""The main demo and the page of the docs on two processes: the same results, printed once."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvista as pv
from PIL import Image

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demos/03_random_vascular_network.py"
ARGUMENTS = (str(DEMO), "--num-cells", "6", "--num-nodes", "12", "--output")


def test_the_main_demo_shows_the_same_on_two_processes(
    run_on_processes: Callable[..., str], tmp_path: Path
) -> None:
    folders = [tmp_path / str(number) for number in (1, 2)]
    one, two = (
        run_on_processes(number, *ARGUMENTS, str(folder))
        for number, folder in zip((1, 2), folders, strict=True)
    )
    assert len(one.splitlines()) == len(two.splitlines())
    assert one.splitlines()[:8] == two.splitlines()[:8]  # the network; then come rounding errors
    for name in ("network.png", "solution.png"):
        first, second = (np.asarray(Image.open(folder / name)) for folder in folders)
        assert np.array_equal(first, second), name
    for name, arrays in {"tissue.vti": ["u_3d"], "network.vtp": ["u_1d", "wall_flux"]}.items():
        first, second = (pv.read(folder / name) for folder in folders)
        for array in arrays:
            assert second[array] == pytest.approx(first[array], rel=0, abs=1e-10), array
    assert sorted(p.name for p in folders[0].iterdir()) == sorted(
        p.name for p in folders[1].iterdir()
    )


def test_the_page_of_the_docs_prints_what_it_says(
    run_on_processes: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/parallel.md").read_text()
    parts = {"python": "", "text": "", "bash": ""}
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL):
        parts[language] += text
    check = "\nassert found is None or [len(part) for part in found] == [2, 2]"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run_on_processes(2, "-c", parts["python"] + check) == parts["text"]
    assert (tmp_path / "output/tissue.vti").is_file()

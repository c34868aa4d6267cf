"""A page shows both fields in a real browser, and needs nothing but itself."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import mixeddim as md

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# What the viewer itself says on loading a scene: the two parts of it, in either order.
EXPECTED = {"scene,hashes", "hashes,scene"}


@pytest.fixture(scope="module")
def solution(system):
    return md.solve(system)


@pytest.fixture(scope="module")
def page(solution, tmp_path_factory):
    pytest.importorskip("trame_vtk", reason="the page needs the package trame-vtk")
    path = tmp_path_factory.mktemp("page") / "solution.html"
    titles = ("blood <Pa> & more", "tissue [Pa]")
    assert md.export_html(solution, path, titles=titles, heading="A <fork>") == path
    return path


@pytest.fixture(scope="module")
def open_in_browser(tmp_path_factory):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on the PATH, none of {', '.join(BROWSERS)}")

    def open_page(path):
        """Return a screenshot, shape (900, 1200, 3), and the messages of the console."""
        folder = tmp_path_factory.mktemp("browser")
        options = [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
            "--window-size=1200,900", "--virtual-time-budget=20000", "--enable-logging=stderr",
            f"--screenshot={folder / 'screen.png'}",
        ]  # fmt: skip
        run = subprocess.run(
            [browser, *options, path.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        messages = re.findall(r':CONSOLE[^\]]*\] "(.*?)", source: ', run.stderr, re.DOTALL)
        with Image.open(folder / "screen.png") as picture:
            return np.asarray(picture.convert("RGB"), dtype=float), messages

    return open_page


def test_browser_shows_both_fields_and_their_colour_bars(page, open_in_browser):
    pixels, messages = open_in_browser(page)
    assert set(messages) <= EXPECTED, "the console reports errors, and what the page may not load"
    red, _, blue = np.moveaxis(pixels, 2, 0)
    box, bars = np.s_[150:850, 200:950], np.s_[80:800, 1000:]
    for part, least in ((box, 0.005), (bars, 0.005)):
        assert np.mean((red - blue)[part] > 60) > least, "the warm half of the network's colours"
        assert np.mean((blue - red)[part] > 20) > 2 * least, "the tissue's blues"
    assert np.all(pixels[:, [0, -1]] == 255), "white around"
    for place in (np.s_[:60, :300], np.s_[850:, :400]):
        assert pixels[place].min() < 100, "heading and hint"


def test_an_error_on_a_page_is_noticed(tmp_path, open_in_browser):
    """The test above would not pass by overlooking them."""
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><script>undefinedFunction()</script>")
    _, messages = open_in_browser(bad)
    assert messages
    assert "undefinedFunction is not defined" in messages[0]


def test_page_holds_titles_and_labels(page):
    text = page.read_text(encoding="utf-8")
    assert "<title>A &lt;fork&gt;</title>" in text
    assert "blood &lt;Pa&gt; &amp; more" in text
    assert "tissue [Pa]" in text
    assert text.count('<div class="colours"') == 2
    assert "Content-Security-Policy" in text


def test_page_names_the_package_that_is_missing(solution, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trame_vtk.modules.vtk", None)
    with pytest.raises(ImportError, match=r"got no trame-vtk, .* `pip install trame-vtk`"):
        md.export_html(solution, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_other_endings_are_refused(solution, tmp_path):
    with pytest.raises(ValueError, match=r"page.png'; wanted one that ends in \.html"):
        md.export_html(solution, tmp_path / "page.png")

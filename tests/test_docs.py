"""The site builds without warnings or dead links, and its pages run and print what they say."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = (
    "getting_started",
    "your_own_problem",
    "blood",
    "leaky_vessels",
    "oxygen",
    "many_solves",
    "estimation",
    "parallel",
    "neural_preconditioners",
)
PAGES = [
    *(ROOT / "docs" / f"{chapter}.md" for chapter in CHAPTERS),
    *sorted((ROOT / "docs" / "how_to").glob("*.md")),
]
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_prints_what_it_says(page, tmp_path, monkeypatch):
    """Words are compared as they are, numbers to 0.3 per cent."""
    monkeypatch.chdir(tmp_path)
    names, printed, compared = {}, StringIO(), 0
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page.read_text(), flags=re.DOTALL):
        if language == "python":
            printed = StringIO()
            with redirect_stdout(printed):
                exec(compile(text, str(page), "exec"), names)
        elif language == "text":
            assert NUMBER.split(printed.getvalue()) == NUMBER.split(text)
            values = [float(number) for number in NUMBER.findall(printed.getvalue())]
            wanted = [float(number) for number in NUMBER.findall(text)]
            assert values == pytest.approx(wanted, rel=3e-3)
            compared += len(wanted)
    assert compared, "a page that states no number proves nothing"
    MORE.get(page.stem, lambda _: None)(names)


def _your_own_problem(names):
    assert names["solution"].mass_balance.error < 1e-9
    assert names["consuming"].mass_balance.error < 1e-9
    assert max(state.mass_balance.error for state in names["states"]) < 1e-10
    assert names["states"][-1].mass_balance.amount_3d > 0
    assert names["v"].grad.shape == names["v"].shape
    for file in ("edges.csv", "tissue.html", "tracer.gif"):
        assert Path(file).stat().st_size > 1_000


def _neural_preconditioners(names):
    assert names["result"].converged
    assert 0 < names["loss"].item() < 1
    assert names["ksp"].getConvergedReason() > 0


# What a page made, beyond what it prints; called in the folder where it ran.
MORE = {
    "your_own_problem": _your_own_problem,
    "neural_preconditioners": _neural_preconditioners,
}


def test_every_page_with_python_is_run():
    shown = {page for page in (ROOT / "docs").rglob("*.md") if "```python" in page.read_text()}
    assert shown == {*PAGES}


def test_tests_that_pages_name_exist():
    pages = [*(ROOT / "docs").rglob("*.md")]
    named = {
        match
        for page in pages
        for match in re.findall(r"tests/[\w/]+\.py(?:::\w+)?", page.read_text())
    }
    assert len(named) > 20
    for name in named:
        file, _, test = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert not test or f"def {test}(" in (ROOT / file).read_text(), name


@dataclass
class Page(HTMLParser):
    """What a page of the site links to, and what can be linked to on it."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, _tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site without runs of the demos, which have tests of their own."""
    pytest.importorskip("sphinx", reason="the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "-W", "--keep-going", "-n", "-q"]
    command += ["-D", "demo_size=none", "-d", str(folder / "doctrees"), ".", str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def _pages(site: Path) -> Iterator[tuple[Path, Page]]:
    for file in site.rglob("*.html"):
        page = Page()
        page.feed(file.read_text())
        yield file, page


def _leads_somewhere(link: str, file: Path, pages: dict[Path, Page]) -> bool:
    """Whether a link within the site has its target, and one out of it the form of an address."""
    parts = urlsplit(link)
    if parts.scheme:
        return parts.scheme in ("http", "https") and "." in parts.netloc
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if parts.fragment and target in pages:
        return unquote(parts.fragment) in pages[target].anchors
    return target.is_file()


def test_no_link_of_the_site_is_dead(site):
    pages = dict(_pages(site))
    dead = [
        f"{file.relative_to(site)}: {link}"
        for file, page in pages.items()
        for link in page.links
        if not _leads_somewhere(link, file, pages)
    ]
    assert not dead


def test_dead_links_would_be_noticed(tmp_path):
    file, other = tmp_path / "a.html", tmp_path / "b.html"
    other.touch()
    pages = {file: Page(anchors={"here"}), other: Page()}
    good = ["b.html", "#here", "https://example.org/x", "../" + tmp_path.name + "/b.html"]
    bad = ["c.html", "#there", "b.html#here", "https://nowhere", "file:///a.html"]
    assert [_leads_somewhere(link, file, pages) for link in good + bad] == [True] * 4 + [False] * 5


def test_the_site_needs_no_network(site):
    """Whatever a page loads (and not merely links to) lies in the site."""
    loaded = re.compile(
        r"""<(?:script|img|iframe)[^>]* src="(\w+:[^"]*)|<link[^>]* href="(\w+:[^"]*)"""
    )
    for file in site.rglob("*.html"):
        assert not loaded.findall(file.read_text()), file


def test_every_demo_and_public_name_has_a_place(site):
    for demo in (ROOT / "demos").glob("*.py"):
        assert (site / "demos" / f"{demo.stem}.html").is_file()
    reference = (site / "docs" / "reference" / "mixeddim.html").read_text()
    assert all(f'id="mixeddim.{name}"' in reference for name in ("assemble", "reduce", "solve"))


def test_formulas_are_drawn(site):
    page = (site / "demos" / "03_random_vascular_network.html").read_text()
    assert page.count('<svg xmlns="http://www.w3.org/2000/svg"') > 10
    assert "$$" not in page


DEMO = """# # A demo
#
# With $x^2$ in it.

import sys
from pathlib import Path

output = Path(sys.argv[-1])
(output / "square.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
(output / "scene.html").write_text("<p>a scene</p>")

# ## What it prints

print("in", output)
"""

CONF = """
import sys

sys.path.insert(0, {extensions!r})
extensions = ["myst_parser", "demo_pages", "svg_maths"]
myst_enable_extensions = ["dollarmath"]
include_patterns = ["demos/*.py"]
root_doc = "demos/01_demo"
"""


@pytest.fixture
def demo_site(tmp_path) -> Path:
    """Sources of a site of one demo."""
    pytest.importorskip("sphinx", reason="the site needs the extra docs")
    (tmp_path / "demos").mkdir()
    (tmp_path / "demos" / "01_demo.py").write_text(DEMO)
    (tmp_path / "conf.py").write_text(CONF.format(extensions=str(ROOT / "docs" / "extensions")))
    return tmp_path


def _build(source: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", str(source), str(source / "html")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_page_shows_what_its_demo_prints_and_draws(demo_site):
    first = _build(demo_site)
    assert first.returncode == 0, first.stderr
    page = demo_site / "html" / "demos" / "01_demo.html"
    text = re.sub("<[^>]*>", "", page.read_text())
    for said in ("With", "What it prints", "python demos/01_demo.py", "in output"):
        assert said in text
    assert str(demo_site) not in text
    assert 'src="../_images/square.svg"' in page.read_text()
    assert 'href="01_demo/scene.html"' in page.read_text()
    assert (page.parent / "01_demo" / "scene.html").is_file()


def test_a_demo_is_run_again_when_it_changed_and_not_before(demo_site):
    assert "running demos/01_demo.py" in _build(demo_site).stdout
    assert "running" not in _build(demo_site).stdout
    (demo_site / "demos" / "01_demo.py").write_text(DEMO.replace('"in"', '"within"'))
    assert "running demos/01_demo.py" in _build(demo_site).stdout
    page = (demo_site / "html" / "demos" / "01_demo.html").read_text()
    assert "within output" in re.sub("<[^>]*>", "", page)


@pytest.mark.parametrize(
    ("demo", "message"),
    [
        ("raise SystemExit('no such network')", "demos/01_demo.py failed.*no such network"),
        (DEMO.replace(".svg", ".txt"), "demos/01_demo.py wrote no picture"),
        (DEMO.replace("$x^2$", r"$\frac{1}$"), "cannot draw the formula"),
    ],
    ids=["failure", "no picture", "no formula"],
)
def test_what_fails_the_build(demo_site, demo, message):
    (demo_site / "demos" / "01_demo.py").write_text(demo)
    done = _build(demo_site)
    assert done.returncode != 0
    assert re.search(message, done.stderr, flags=re.DOTALL)

"""Pages made of the demos: their comments as text, their code, and what a run prints and draws.

The demos are in the light format of jupytext, in which a script is text and code without marks
between them. They are run as scripts, as their readers run them, and not cell by cell as notebooks,
since each is one program with a ``main``. What a run leaves is kept under a hash of the demo, and
made anew when the demo changes; after a change of the packages remove docs/_build/demos.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import jupytext
from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

logger = logging.getLogger(__name__)

SIZES = {"default": (), "small": ("--num-cells", "8")}  # and "none", which runs no demo
PICTURES = (".gif", ".png", ".svg")


class DemoParser(MystParser):
    """Parse a demo as the Markdown that it stands for."""

    supported = ("demo",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Turn the demo into Markdown, add what its run left, and parse that."""
        parts = [*_narrative(inputstring), "## The output", *_output(document.settings.env)]
        super().parse("\n\n".join(parts), document)


def _narrative(script: str) -> Iterator[str]:
    """Yield the text and the code between it, which the light format splits at blank lines."""
    cells = jupytext.reads(script, fmt="py:light").cells
    for kind, group in groupby(cells, key=lambda cell: cell.cell_type):
        text = "".join(
            cell.source + "\n" * (1 + cell.metadata.get("lines_to_next_cell", 1)) for cell in group
        ).rstrip()
        yield text if kind == "markdown" else f"```python\n{text}\n```"


def _output(env: BuildEnvironment) -> Iterator[str]:
    folder = env.demo_outputs.get(env.docname)
    if folder is None:
        yield "This copy of the site was built without running the demos."
        return
    command = " ".join(["python", f"{env.docname}.py", *SIZES[env.config.demo_size]])
    yield (
        f"`{command}` prints what follows; times are those of the machine that built this page, "
        "while it ran another demo too."
    )
    yield f"```\n{(folder / 'printed.txt').read_text()}```"
    for picture in _pictures(folder):
        yield f"![{picture.name}](/{picture.relative_to(env.srcdir)})"
    name = env.docname.rpartition("/")[2]
    for page in sorted(folder.rglob("*.html")):
        yield f'<p>To turn around: <a href="{name}/{page.name}">{page.name}</a></p>'


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in PICTURES)


class DemoGallery(SphinxDirective):
    """The directive ``demo-gallery``: how each demo begins, with a picture of it."""

    def run(self) -> list[nodes.Node]:
        """Return a link, an introduction and a picture for each demo."""
        parts = []
        for name in _demos(self.env):
            script = Path(self.env.doc2path(name))
            self.env.note_dependency(str(script))
            introduction = next(_narrative(script.read_text())).partition("\n## ")[0]
            title, _, text = introduction.removeprefix("# ").partition("\n")
            parts += [f"**[{title}](/{name}.py)**", text]
            if folder := self.env.demo_outputs.get(name):
                picture = _pictures(folder)[-1].relative_to(self.env.srcdir)
                parts.append(f"```{{image}} /{picture}\n:width: 70%\n:alt: {title}\n```")
        return self.parse_text_to_nodes("\n\n".join(parts))


def _demos(env: BuildEnvironment) -> list[str]:
    return sorted(name for name in env.found_docs if name.startswith("demos/"))


def run_demos(app: Sphinx, env: BuildEnvironment, _: list[str]) -> None:
    """Run the demos that have no output yet, two at a time, before pages are read."""
    demos = _demos(env)
    env.demo_outputs = {}
    if app.config.demo_size != "none":
        with ThreadPoolExecutor(max_workers=2) as pool:
            folders = pool.map(lambda name: _run(app, f"{name}.py"), demos)
            env.demo_outputs = dict(zip(demos, folders, strict=True))


def _run(app: Sphinx, demo: str) -> Path:
    """Return the folder of what a demo prints and writes, and run it if that is not there."""
    size = app.config.demo_size
    key = hashlib.sha256((app.srcdir / demo).read_bytes() + size.encode()).hexdigest()[:16]
    folder = app.srcdir / "docs" / "_build" / demo.removesuffix(".py") / key
    if folder.is_dir():
        return folder
    logger.info("running %s", demo)
    shutil.rmtree(folder.parent, ignore_errors=True)
    scratch = folder.parent / "unfinished"
    scratch.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, demo, *SIZES[size], "--output", str(scratch)],
        cwd=app.srcdir,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ExtensionError(f"{demo} failed, and with it its page: mend the demo.\n{done.stderr}")
    if not _pictures(scratch):
        raise ExtensionError(f"{demo} wrote no picture; wanted one of {PICTURES} in --output.")
    (scratch / "printed.txt").write_text(done.stdout.replace(str(scratch), "output"))
    scratch.rename(folder)
    return folder


def copy_interactive_pages(app: Sphinx, exception: Exception | None) -> None:
    """Put the HTML files that demos wrote beside their pages."""
    if exception is not None:
        return
    for name, folder in app.env.demo_outputs.items():
        for file in folder.rglob("*.html"):
            target = app.outdir / name / file.name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the parser, the option and the runs."""
    app.add_source_suffix(".py", "demo")
    app.add_source_parser(DemoParser)
    app.add_directive("demo-gallery", DemoGallery)
    app.add_config_value("demo_size", "default", "env", types=(str,))
    app.connect("env-before-read-docs", run_demos)
    app.connect("build-finished", copy_interactive_pages)
    return {"parallel_read_safe": True, "env_version": 1}

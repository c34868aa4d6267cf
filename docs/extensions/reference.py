"""The directive ``public-names``, which documents what a package exports from the modules named.

    ```{public-names} mixeddim.networks.graphs mixeddim.networks.generators
    ```

Names appear as a user writes them, ``mixeddim.assemble`` and not
``mixeddim.fem.assembly.assemble``. A public name that no page documents is a warning, and so fails
the build.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

logger = logging.getLogger(__name__)

PACKAGES = ("mixeddim", "learning")


def exports(package: str) -> dict[str, list[str]]:
    """Return the public names of a package by the module they come from."""
    init = Path(importlib.import_module(package).__file__)
    stub = init.with_suffix(".pyi")
    tree = ast.parse((stub if stub.is_file() else init).read_text())
    names: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}" if node.level else node.module
            names.setdefault(module, []).extend(alias.name for alias in node.names)
    return names


def _autodoc(package: str, name: str) -> str:
    thing = getattr(importlib.import_module(package), name)
    if inspect.isclass(thing):
        kind = "exception" if issubclass(thing, Exception) else "class"
        return f".. auto{kind}:: {package}.{name}\n   :members:\n"
    if callable(thing):
        return f".. autofunction:: {package}.{name}\n"
    entries = ", ".join(f"``{entry}``" for entry in thing)
    return f".. autodata:: {package}.{name}\n   :no-value:\n\n   Entries: {entries}.\n"


class PublicNames(SphinxDirective):
    """Document the public names of modules."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return what autodoc makes of each."""
        parts = []
        for module in self.arguments[0].split():
            package = module.partition(".")[0]
            if module not in (public := exports(package)):
                raise self.error(
                    f"{package} exports nothing from {module}: name one of {[*public]}"
                )
            parts += [_autodoc(package, name) for name in public[module]]
        return self.parse_text_to_nodes("```{eval-rst}\n" + "\n".join(parts) + "\n```")


def check_complete(_: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page documents."""
    documented = env.domains.python_domain.objects
    for package in PACKAGES:
        for module, names in exports(package).items():
            for name in names:
                if f"{package}.{name}" not in documented:
                    logger.warning("%s.%s is on no page: add {public-names} %s to docs/reference",
                                   package, name, module)  # fmt: skip


def read_as_plain_text(
    _app: Sphinx, what: str, _name: str, obj: object, _options: object, lines: list[str]
) -> None:
    """Keep markup from what docstrings mean literally: norms, and colons in those of properties."""
    if what == "property":  # where napoleon takes the words before a colon for a type
        lines[:] = [*(inspect.getdoc(obj) or "").splitlines(), ""]
    pieces = re.split(r"(`[^`]*`)", "\n".join(lines))
    pieces[::2] = [piece.replace("|", r"\|") for piece in pieces[::2]]
    lines[:] = "".join(pieces).split("\n")


def show_factories(*event: str | None) -> tuple[str, str | None] | None:
    """Write defaults that a dataclass makes anew as ..., which unlike <factory> is Python."""
    *_, signature, returns = event
    return (signature.replace("<factory>", "..."), returns) if signature else None


def drop_links_back(
    _app: Sphinx, page: str, _template: str, context: dict[str, str], _doctree: nodes.document
) -> None:
    """Take the links back to the reference out of listings.

    viewcode writes them as if all names of a module were documented under the same package.
    """
    if page.startswith("_modules/") and "body" in context:
        context["body"] = re.sub(r'<a class="viewcode-back".*?</a>', "", context["body"])


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive and the check."""
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", read_as_plain_text, priority=600)  # after napoleon
    app.connect("autodoc-process-signature", show_factories)
    app.connect("html-page-context", drop_links_back)
    app.connect("env-check-consistency", check_complete)
    return {"parallel_read_safe": True}

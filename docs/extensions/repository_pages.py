"""What files of the repository need to be pages of the site.

The README, the first page, gets the contents of the site. Tables without a heading get one. A link
to Python goes to its listing, made by sphinx.ext.viewcode; links to other files are downloads, as
MyST makes them by itself.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def link_to_listing(app: Sphinx, doctree: nodes.document) -> None:
    """Point links to Python files that are no demos at the pages of viewcode."""
    for link in list(doctree.findall(addnodes.pending_xref)):
        name = link["reftarget"]
        if link["reftype"] != "myst" or name in app.env.found_docs:
            continue
        if (app.srcdir / f"{name}.py").is_file():
            page = app.builder.get_relative_uri(app.env.docname, f"_modules/{name}")
            link.replace_self(nodes.reference("", "", *link.children, refuri=page))


def complete_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the contents of the site to the first page, and put a heading where none is."""
    if docname == app.config.root_doc:
        source[0] += (app.confdir / "contents.txt").read_text()
    elif not re.search(r"^# ", source[0], flags=re.MULTILINE):
        source[0] = f"# {docname.rpartition('/')[2].capitalize()}\n\n{source[0]}"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect both."""
    app.connect("source-read", complete_page)
    app.connect("doctree-read", link_to_listing)
    return {"parallel_read_safe": True}

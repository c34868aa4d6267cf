"""The site, built offline from the Markdown of the repository, the demos and the docstrings.

    python -m sphinx -c docs -W --keep-going -n . docs/_build/html

The sources are the repository itself, so that links between its files work on both. To leave the
demos out or run them small, add ``-D demo_size=none`` or ``-D demo_size=small``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

# The wheel of DOLFINx wants it before autodoc imports any module that loads MPI or PETSc.
import mixeddim

project = "mixeddim"
author = "The mixeddim developers"
project_copyright = "The mixeddim developers, MIT licence"
version = release = mixeddim.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "demo_pages",
    "reference",
    "repository_pages",
    "svg_maths",
]

root_doc = "README"
include_patterns = [
    "*.md",
    "demos/*.py",
    "docs/**.md",
    "learning/benchmarks/**.md",
    "learning/pretrained_weights/**.md",
    "meshes/*.md",
]
exclude_patterns = [".*", "docs/_build", "runs", "output"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

# A name between single backticks is a link where it is documented, and code elsewhere.
default_role = "py:obj"
highlight_language = "none"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 120
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # types are in the signature

nitpick_ignore_regex = [
    # A field that TransportState inherits, and whose alias its own module does not import.
    ("py:class", "Method"),
    # The annotation of a field with two arguments, which is cut at its comma.
    ("py:class", r"dict\[~collections\.abc\.Hashable"),
    # Single backticks, of which many are formulas: see default_role.
    ("py:obj", ".*"),
    # Other projects, whose inventories an offline build cannot fetch.
    ("py:.*", r"(?:collections|os|pathlib|types)\..*"),
    ("py:.*", r"(?:dolfinx|mpi4py|petsc4py|ufl)\..*"),
    ("py:.*", r"(?:h5py|matplotlib|networkx|numpy|pyvista|scipy|torch)\..*"),
]

html_theme = "furo"
html_title = "mixeddim"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_additional_pages = {"index": "index.html"}
templates_path = ["_templates"]

"""Formulas as SVG, drawn at build time by ziamath, so that no page needs scripts or fonts.

The drawing takes the colour of the text around it, and the LaTeX stays as its label.
"""

from html import escape

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

_SIZE = 20.0  # of the font that ziamath draws with: an em


def _draw(latex: str, inline: bool) -> str:
    """Return the formula as an element <svg>, measured in em and placed on the baseline."""
    try:
        formula = ziamath.Latex(latex, size=_SIZE, color="currentColor", inline=inline)
        svg = formula.svgxml()
    except Exception as error:
        raise SphinxError(f"ziamath cannot draw the formula {latex!r}: {error}") from error
    for length in ("width", "height"):
        svg.set(length, f"{float(svg.get(length)) / _SIZE:.3f}em")
    below = (formula.getyofst() - formula.margin) / _SIZE
    svg.set("style", f"vertical-align: {below:.3f}em")
    svg.set("role", "img")
    svg.set("aria-label", latex)
    return ziamath.zmath.ET.tostring(svg, encoding="unicode")


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(_draw(node.astext(), inline=True))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, with its number where it has one."""
    self.body.append(self.starttag(node, "div", CLASS="formula"))
    self.body.append(_draw(node.astext(), inline=False))
    if number := node["number"]:
        self.body.append(f'<span class="eqno">({escape(str(number))})</span>')
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer."""
    app.add_html_math_renderer("svg", (visit_math, None), (visit_math_block, None))
    app.config.html_math_renderer = "svg"
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The figure of a benchmark: time against size, drawn from results alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from learning.benchmark.methods import METHODS
from learning.benchmark.results import Cell
from learning.reporting.figures import STYLE, WIDTH

__all__ = ["time_by_size"]

# One colour a kind of method (Okabe & Ito), told apart within by dashes and marks.
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "jacobi": {"color": "#8c8c8c", "ls": ":", "marker": "."},
    "icc": {"color": "#8c8c8c", "ls": "--", "marker": "x"},
    "icc_ksp": {"color": "#8c8c8c", "ls": "-", "marker": "x"},
    "mumps": {"color": "#000000", "ls": "-", "marker": "s"},
    "gamg": {"color": "#E69F00", "ls": "--", "marker": "^"},
    "gamg_ksp": {"color": "#E69F00", "ls": "-", "marker": "^"},
    "ruge_stuben": {"color": "#E69F00", "ls": ":", "marker": "v"},
    "smoothed_aggregation": {"color": "#E69F00", "ls": "-.", "marker": "D"},
    "petsc_multigrid_chebyshev": {"color": "#56B4E9", "ls": "--", "marker": "o"},
    "petsc_multigrid_chebyshev_ksp": {"color": "#56B4E9", "ls": "-", "marker": "o"},
    "petsc_multigrid_sor": {"color": "#56B4E9", "ls": ":", "marker": "s"},
    "petsc_multigrid_sor_ksp": {"color": "#56B4E9", "ls": "-.", "marker": "s"},
    "geometric": {"color": "#009E73", "ls": "-", "marker": "o"},
    "geometric_2": {"color": "#009E73", "ls": "--", "marker": "o"},
    "geometric_3": {"color": "#009E73", "ls": ":", "marker": "o"},
    "geometric_fourth_kind": {"color": "#009E73", "ls": "-.", "marker": "o"},
    "geometric_factors": {"color": "#009E73", "ls": "-", "marker": "v"},
    "fast_diagonalisation": {"color": "#CC79A7", "ls": "-", "marker": "P"},
    "fast_diagonalisation_woodbury": {"color": "#CC79A7", "ls": "--", "marker": "P"},
    "unet": {"color": "#0072B2", "ls": "-", "marker": "*", "ms": 7},
    "multigrid": {"color": "#D55E00", "ls": "-", "marker": "*", "ms": 8, "lw": 2.4},
}
COLUMNS: Final = 3


@mpl.rc_context(STYLE)
def time_by_size(cells: Sequence[Cell]) -> Figure:
    """Draw set-up and solve against the number of unknowns, one panel per regime.

    Args:
        cells: Of one batch size, at least one; a method that failed in a cell leaves a gap there. A
            preconditioner of PETSc that also ran in PETSc's Krylov method is drawn only with that.
    """
    regimes = list(dict.fromkeys(cell.regime for cell in cells))
    measured = {name for cell in cells for name in cell.methods}
    names = [n for n in METHODS if n in measured and f"{n}_ksp" not in measured]
    columns = min(COLUMNS, len(regimes))
    rows = -(-len(regimes) // columns)
    figure = Figure(figsize=(WIDTH, 2.7 * rows + 1.2))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel in panels[len(regimes) :]:
        panel.set_visible(False)
    sizes = sorted({cell.num_cells for cell in cells})
    for number, (panel, regime) in enumerate(zip(panels, regimes, strict=False)):
        here = sorted((c for c in cells if c.regime == regime), key=lambda cell: cell.num_cells)
        for name in names:
            points = [
                (cell.num_cells**3, 1e3 * seconds)
                for cell in here
                if name in cell.methods and (seconds := cell.methods[name].seconds) is not None
            ]
            x, y = [p[0] for p in points], [p[1] for p in points]
            panel.plot(
                x, y, **{"ms": 3.5, "lw": 1.2, **LOOKS.get(name, {})}, label=METHODS[name].label
            )
        panel.set(xscale="log", yscale="log", title=regime.replace("_", " "))
        panel.grid(axis="y", color="#e5e5e5", lw=0.6)
        panel.xaxis.set_major_locator(FixedLocator([n**3 for n in sizes]))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x ** (1 / 3))}³"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_xlim(0.6 * sizes[0] ** 3, 1.6 * sizes[-1] ** 3)
        panel.tick_params(axis="x", labelbottom=number >= len(regimes) - columns, labelsize=7.5)
        if number % columns == 0:
            panel.set_ylabel("ms per system")
    for panel in panels[max(len(regimes) - columns, 0) : len(regimes)]:
        panel.set_xlabel("cells of the grid")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure

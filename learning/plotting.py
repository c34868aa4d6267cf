"""Pictures of Krylov solves: residuals, sines and numbers of iterations.

Each function draws its data in the style of the report (`learning.reporting`). It returns the
matplotlib figure, or writes it to a file if it gets a filename.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, overload

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from learning.reporting.figures import (
    DPI,
    STYLE,
    iteration_bins,
    label_counts,
    legend_above,
    new_figure,
)
from learning.solver import SolveResult
from mixeddim.tensors import replacing

__all__ = ["plot_convergence", "plot_iterations", "plot_sines"]

type Picture = str | os.PathLike[str]

# Distinct for every kind of colour vision (Okabe & Ito); once all are used, lines differ by dashes.
COLOURS: Final = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000"
)  # fmt: skip
DASHES: Final = ("-", "--", ":", "-.")
HEIGHT: Final = 3.0  # inches


@overload
def plot_convergence(
    results: Mapping[str, SolveResult],
    filename: None = None,
    *,
    seconds: Mapping[str, float] | None = ...,
) -> Figure: ...
@overload
def plot_convergence(
    results: Mapping[str, SolveResult],
    filename: Picture,
    *,
    seconds: Mapping[str, float] | None = ...,
) -> Path: ...
def plot_convergence(
    results: Mapping[str, SolveResult],
    filename: Picture | None = None,
    *,
    seconds: Mapping[str, float] | None = None,
) -> Figure | Path:
    """Draw residuals against iterations, and if times are given, also against time.

    Args:
        results: Name of the preconditioner -> its result of `learning.solve`.
        filename: Picture to write, in any format of matplotlib. An older one is replaced once the
            new one is complete.
        seconds: The same names -> time of each solve, for a second panel, in which each iteration
            of a solve takes the same time.

    Returns:
        The path of the picture, or without `filename` the figure.

    Raises:
        ValueError: If there is no result, the names of the times differ, or, as in all functions
            of this module, the format of the picture is unknown.
    """
    _check(results)
    if seconds is not None and set(seconds) != set(results):
        raise ValueError(
            f"got times of {sorted(seconds)} and results of {sorted(results)}; wanted a time for "
            "each result. Give both the same names."
        )
    with mpl.rc_context(STYLE):
        figure, panels = new_figure(1, 1 if seconds is None else 2, HEIGHT, sharey=True)
        for style, (name, result) in zip(_styles(len(results)), results.items(), strict=True):
            residuals = _relative(result)
            iterations = np.arange(len(residuals))
            panels[0].plot(iterations, residuals, **style, label=name)
            if seconds is not None:
                times = iterations * seconds[name] / max(result.iterations, 1)
                panels[1].plot(times, residuals, **style)
        for axes in panels:
            axes.set(yscale="log", xlim=(0, None))
            axes.yaxis.set_minor_locator(NullLocator())
        panels[0].set(xlabel="iteration k", ylabel="residual |rₖ| / |r₀|")
        panels[0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
        panels[-1].set_xlabel("iteration k" if seconds is None else "time (s)")
        legend_above(figure, panels[0])
    return _finish(figure, filename)


@overload
def plot_sines(results: Mapping[str, SolveResult], filename: None = None) -> Figure: ...
@overload
def plot_sines(results: Mapping[str, SolveResult], filename: Picture) -> Path: ...
def plot_sines(
    results: Mapping[str, SolveResult], filename: Picture | None = None
) -> Figure | Path:
    """Draw the factor by which each iteration reduces the residual.

    For FGMRES it is the sine of the angle between the residual and the Krylov image space (Eiermann
    & Ernst 2001, doi:10.1017/S0962492901000046), at most 1. Conjugate gradients reduce the error,
    so their residuals may grow.

    Args:
        results: Name of the preconditioner -> its result of `learning.solve`.
        filename: Picture to write, as in `plot_convergence`.

    Returns:
        The path of the picture, or without `filename` the figure.

    Raises:
        ValueError: If there is no result, or one without an iteration.
    """
    _check(results)
    for name, result in results.items():
        if result.iterations < 1:
            raise ValueError(f"got no iteration of {name!r}; wanted one at least. Leave it out.")
    with mpl.rc_context(STYLE):
        figure, (axes,) = new_figure(1, 1, HEIGHT)
        largest = 1.0
        for style, (name, result) in zip(_styles(len(results)), results.items(), strict=True):
            sines = result.residual_norms[1:] / result.residual_norms[:-1]
            largest = max(largest, float(sines.max()))
            axes.plot(np.arange(1, len(sines) + 1), sines, ".", **style, label=name)
        is_gmres = all(result.method == "fgmres" for result in results.values())
        ylabel = "sine sₖ = |rₖ| / |rₖ₋₁|" if is_gmres else "|rₖ| / |rₖ₋₁|"
        axes.set(xlabel="iteration k", ylabel=ylabel, ylim=(0, 1.02 * largest))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        legend_above(figure, axes)
    return _finish(figure, filename)


@overload
def plot_iterations(iterations: Mapping[str, Sequence[int]], filename: None = None) -> Figure: ...
@overload
def plot_iterations(iterations: Mapping[str, Sequence[int]], filename: Picture) -> Path: ...
def plot_iterations(
    iterations: Mapping[str, Sequence[int]], filename: Picture | None = None
) -> Figure | Path:
    """Draw how often each number of iterations occurs over many systems.

    Args:
        iterations: Name of the preconditioner -> iterations it took on each system.
        filename: Picture to write, as in `plot_convergence`.

    Returns:
        The path of the picture, or without `filename` the figure.

    Raises:
        ValueError: If there is nothing to draw, or iterations are not positive integers.
    """
    counts = {name: np.asarray(values) for name, values in iterations.items()}
    _check(counts)
    for name, values in counts.items():
        is_count = values.ndim == 1 and values.dtype.kind in "iu" and np.all(values >= 1)
        if not is_count or len(values) == 0:
            raise ValueError(
                f"got iterations of {name!r} of shape {values.shape} and type {values.dtype}; "
                "wanted positive integers, one at least: [result.iterations for result in results]."
            )
    with mpl.rc_context(STYLE):
        figure, (axes,) = new_figure(1, 1, HEIGHT)
        every = np.concatenate(list(counts.values()))
        edges = iteration_bins(int(every.min()), int(every.max()))
        for style, (name, values) in zip(_styles(len(counts)), counts.items(), strict=True):
            share = 100 * np.histogram(values, edges)[0] / len(values)
            label = f"{name}, mean {values.mean():.1f}"
            axes.stairs(share, edges, fill=True, alpha=0.6, color=style["color"], label=label)
            axes.stairs(share, edges, lw=1.0, **style)
        axes.set(xlabel="iterations", ylabel="systems (%)", xscale="log")
        axes.set_xlim(edges[0] / 1.2, edges[-1] * 1.2)
        label_counts(axes)
        legend_above(figure, axes)
    return _finish(figure, filename)


def _check(drawn: Mapping[str, object]) -> None:
    if not drawn:
        raise ValueError("got nothing to draw; wanted a name and a result at least.")


def _relative(result: SolveResult) -> NDArray[np.float64]:
    """Return residuals in units of the first, shape (iterations + 1,)."""
    return result.residual_norms / (result.residual_norms[0] or 1.0)


def _styles(count: int) -> list[dict[str, Any]]:
    """Return a colour and dashes for each line."""
    colours, dashes = len(COLOURS), len(DASHES)
    return [
        {"color": COLOURS[i % colours], "ls": DASHES[i // colours % dashes]} for i in range(count)
    ]


def _finish(figure: Figure, filename: Picture | None) -> Figure | Path:
    if filename is None:
        return figure
    formats = figure.canvas.get_supported_filetypes()
    if Path(filename).suffix[1:].lower() not in formats:
        raise ValueError(
            f"got the file {os.fspath(filename)!r}; wanted one that ends in .{', .'.join(formats)}."
            " Without a filename a picture returns its figure."
        )
    with replacing(Path(filename)) as part:
        figure.savefig(part, dpi=DPI)
    return Path(filename)

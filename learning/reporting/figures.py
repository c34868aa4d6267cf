"""The figures of the report: each function draws one, from results alone, and saves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from learning.evaluation.results import EpochResult, Evaluation, Measurement, SineProfile
from learning.reporting import paper

__all__ = [
    "DPI",
    "LABELS",
    "STYLE",
    "beyond_window",
    "convergence",
    "epoch_curves",
    "iteration_bins",
    "iteration_histograms",
    "label_counts",
    "legend_above",
    "loss_curves",
    "new_figure",
    "residuals_and_sines",
    "spread",
]

LABELS: Final = {
    "none": "none",
    "jacobi": "Jacobi",
    "multigrid": "geometric multigrid",
    "static": "U-Net, static",
    "dynamic": "U-Net, dynamic",
}
"""Labels of preconditioners."""

# Distinct for every kind of colour vision (Okabe & Ito), and by their dashes in grey.
COLOURS: Final = {
    "none": "#4d4d4d",
    "jacobi": "#E69F00",
    "multigrid": "#009E73",
    "static": "#0072B2",
    "dynamic": "#D55E00",
}
SPARE_COLOURS: Final = ("#CC79A7", "#56B4E9", "#000000")
DASHES: Final[Mapping[str, Any]] = {
    "none": (0, (1, 1)),
    "jacobi": (0, (4, 1, 1, 1)),
    "multigrid": (0, (4, 1.5)),
}
PAPER_GREY: Final = "#8c8c8c"
EPOCH_COLOURS: Final = LinearSegmentedColormap.from_list(
    "epochs", ["#9ecae1", "#2171b5", "#08214d"]
)
DPI: Final = 200
WIDTH: Final = 7.4  # inches: 9 pt stays readable where the picture is 800 pixels wide
STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
}


@mpl.rc_context(STYLE)
def iteration_histograms(evaluation: Evaluation) -> Figure:
    """Draw how often each number of iterations occurs; one row per family."""
    families = evaluation.measurements
    figure, rows = new_figure(len(families), 1, height=1.35 * len(families) + 0.5, sharex=True)
    counts = np.concatenate([m.iterations for ms in families.values() for m in ms.values()])
    edges = iteration_bins(int(counts.min()), int(counts.max()))
    for axes, (family, measurements) in zip(rows, families.items(), strict=True):
        for name, measurement in measurements.items():
            if name in ("jacobi", "multigrid") and "none" in measurements:
                continue  # they would hide those that the paper has
            share = np.histogram(measurement.iterations, edges)[0] / len(measurement.iterations)
            colour = _colour(name, measurements)
            axes.stairs(100 * share, edges, fill=True, color=colour, alpha=0.75)
            axes.text(
                measurement.mean,
                100 * share.max() + 3,
                f"{_label(name).removeprefix('U-Net, ')}\n{measurement.mean:.1f}",
                color=colour,
                ha="center",
                va="bottom",
                fontsize=8.5,
            )
            if family == "canonical" and name in paper.ITERATIONS:
                at = paper.ITERATIONS[name]
                axes.plot(at, 0, "v", color=colour, mec="white", ms=7, zorder=5, clip_on=False)
        axes.set(xscale="log", ylabel="graphs (%)", title=f"{family} right-hand sides")
        axes.set_ylim(0, max(1.45 * axes.dataLim.ymax, 1.0))
    label = f"iterations to a relative residual of {_tolerance(evaluation.rtol)}"
    marks = [paper.ITERATIONS[n] for n in families.get("canonical", {}) if n in paper.ITERATIONS]
    low, high = min([edges[0], *marks]) / 1.3, max([edges[-1], *marks]) * 1.3
    rows[-1].set_xlim(low, high)
    rows[-1].set_xlabel(f"{label}   (▼ mean in the paper)" if marks else label)
    label_counts(rows[-1])
    return figure


@mpl.rc_context(STYLE)
def convergence(evaluation: Evaluation) -> Figure:
    """Draw the mean residual against the iteration, to the tolerance; one panel per family."""
    families = evaluation.measurements
    figure, panels = new_figure(1, len(families), height=2.6, sharey=True)
    for axes, (family, measurements) in zip(panels, families.items(), strict=True):
        for name, measurement in measurements.items():
            residuals = 10**measurement.mean_log10_residuals
            axes.plot(np.arange(len(residuals)), residuals, **_line(name, measurements))
        axes.axhline(evaluation.rtol, color=PAPER_GREY, lw=0.8, zorder=0)
        axes.set(yscale="log", xlabel="iteration k (square-root scale)", title=family)
        axes.yaxis.set_minor_locator(NullLocator())
        last = max(len(m.mean_log10_residuals) for m in measurements.values()) - 1
        axes.set_xscale("function", functions=(_signed_sqrt, np.square))
        axes.set_xticks([k for k in (0, 10, 25, 50, 100, 200, 400, 800) if k <= last])
        axes.set_xlim(0, last)
    panels[0].set_ylabel("mean residual |rₖ| / |r₀|")
    panels[0].set_ylim(evaluation.rtol / 10, 2)
    legend_above(figure, panels[0])
    return figure


@mpl.rc_context(STYLE)
def loss_curves(
    histories: Mapping[str, Mapping[str, NDArray[np.float64]]], losses: Mapping[str, str]
) -> Figure:
    """Draw training and validation losses by epoch; one panel per stage.

    Args:
        histories: Stage, "static" or "dynamic" -> column of history.csv -> values.
        losses: Stage -> name of the loss it minimises.
    """
    figure, panels = new_figure(1, len(histories), height=2.6)
    for axes, (stage, history) in zip(panels, histories.items(), strict=True):
        loss = losses[stage]
        for kind, colour in (("training", "#56B4E9"), ("validation", "#D55E00")):
            axes.plot(
                history["epoch"], history[f"{kind}_loss"], color=colour, marker=".", label=kind
            )
        if loss in paper.LOSSES:
            label = "where the paper's validation settles"
            axes.axhline(paper.LOSSES[loss], color=PAPER_GREY, lw=1, ls="--", label=label)
        axes.set(xlabel="epoch", ylabel=f"{loss.replace('_', ' ')} loss", title=f"{stage} stage")
        axes.set_xlim(0, max(history["epoch"].max(), 2))
        if axes.dataLim.ymin >= 0:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend_above(figure, max(panels, key=lambda axes: len(axes.lines)))
    return figure


@mpl.rc_context(STYLE)
def residuals_and_sines(profiles: Mapping[str, SineProfile]) -> Figure:
    """Draw mean residuals and sines over the window, with their exponential and linear fits."""
    window = next(iter(profiles.values())).window
    figure, (left, right) = new_figure(1, 2, height=3.0)
    steps = np.arange(window + 1)
    for name, profile in profiles.items():
        line = _line(name, profiles) | {"ls": "", "marker": "o", "ms": 4}
        colour = line["color"]
        residuals = np.exp(profile.mean_log_residuals[: window + 1])
        left.plot(steps, residuals, **line)
        fit = profile.residual_fit
        left.plot(steps, np.exp(fit.slope * steps + fit.intercept), color=colour, lw=1.1)
        right.plot(steps[1:], profile.mean_sines[:window], **line)
        fit = profile.sine_fit
        right.plot(steps[1:], fit.slope * steps[1:] + fit.intercept, color=colour, lw=1.1)
    left.set(yscale="log", ylabel="mean residual |rₖ| / |r₀|", title="fit exp(αk + β)")
    left.yaxis.set_minor_locator(NullLocator())
    right.set(ylim=(0, 1.02), ylabel="mean sine sₖ", title="fit ak + b")
    for axes in (left, right):
        axes.set_xlabel("iteration k")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend_above(figure, left)
    return figure


@mpl.rc_context(STYLE)
def beyond_window(profiles: Mapping[str, SineProfile], window: int) -> Figure:
    """Draw mean sines beyond the window of the training, with the middle 80 % of systems.

    Args:
        profiles: Name of the preconditioner -> its sines.
        window: Krylov steps m of the dynamic stage.
    """
    figure, (axes,) = new_figure(1, 1, height=3.0)
    for name, profile in profiles.items():
        line = _line(name, profiles)
        known = np.isfinite(profile.mean_sines)
        steps, sines = profile.steps[known], profile.sines[:, known]
        low, high = np.nanquantile(sines, (0.1, 0.9), axis=0)
        axes.fill_between(steps, low, high, color=line["color"], alpha=0.15, lw=0)
        axes.plot(steps, profile.mean_sines[known], **line)
    axes.axvspan(1, window, color="#f0f0f0", zorder=0, lw=0)
    axes.axvline(window, color=PAPER_GREY, lw=0.8, zorder=0)
    axes.text(window, 0.02, f" trained on m = {window} ", color="#595959", ha="right", fontsize=8.5)
    last = max(profile.steps[-1] for profile in profiles.values())
    axes.set(xlim=(1, last), ylim=(0, 1.02), xlabel="iteration k", ylabel="sine sₖ")
    axes.set_xticks([1, *range(5, last + 1, 5)])
    legend_above(figure, axes)
    return figure


@mpl.rc_context(STYLE)
def epoch_curves(epochs: Sequence[EpochResult]) -> Figure:
    """Draw sines and residuals with their fits by epoch, and the iterations to the tolerance."""
    figure, (left, middle, right) = new_figure(1, 3, height=2.9)
    scale = Normalize(epochs[0].epoch, max(epochs[-1].epoch, epochs[0].epoch + 1))
    for result in spread(epochs, 8):
        profile, colour = result.profile, EPOCH_COLOURS(scale(result.epoch))
        steps = np.arange(profile.window + 1)
        left.plot(steps[1:], profile.mean_sines[: profile.window], ".", color=colour, ms=4)
        fit = profile.sine_fit
        left.plot(steps[1:], fit.slope * steps[1:] + fit.intercept, color=colour, lw=1.1)
        residuals = np.exp(profile.mean_log_residuals[: profile.window + 1])
        middle.plot(steps, residuals, ".", color=colour, ms=4)
        fit = profile.residual_fit
        middle.plot(steps, np.exp(fit.slope * steps + fit.intercept), color=colour, lw=1.1)
    left.set(xlabel="iteration k", ylabel="mean sine sₖ", title="fit ak + b")
    left.set_ylim(0, 1.02)
    middle.set(xlabel="iteration k", ylabel="mean residual |rₖ| / |r₀|", yscale="log")
    middle.set_title("fit exp(αk + β)")
    middle.yaxis.set_minor_locator(NullLocator())
    bar = figure.colorbar(ScalarMappable(scale, EPOCH_COLOURS), ax=middle, aspect=30, pad=0.02)
    bar.ax.set_title("epoch")
    bar.ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    bar.outline.set_visible(False)

    x = [result.epoch for result in epochs]
    measurements = [result.measurement for result in epochs]
    low, high = [m.min for m in measurements], [m.max for m in measurements]
    right.fill_between(x, low, high, color=COLOURS["dynamic"], alpha=0.15, lw=0)
    right.plot(x, [m.mean for m in measurements], color=COLOURS["dynamic"])
    right.axhline(paper.ITERATIONS["dynamic"], color=PAPER_GREY, lw=1, ls="--")
    right.annotate(
        "paper", (1, paper.ITERATIONS["dynamic"]), xycoords=("axes fraction", "data"),
        xytext=(0, 3), textcoords="offset points", ha="right", color="#595959", fontsize=8.5,
    )  # fmt: skip
    right.set(xlabel="epoch", ylabel="iterations", title="mean, min to max", ylim=(0, None))
    for axes in (left, middle, right):
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def spread(epochs: Sequence[EpochResult], most: int) -> list[EpochResult]:
    """Choose evenly spaced epochs, including the first and the last."""
    chosen = np.unique(np.linspace(0, len(epochs) - 1, min(most, len(epochs))).round().astype(int))
    return [epochs[i] for i in chosen]


# --- What they share --------------------------------------------------------------------------


def new_figure(
    rows: int, columns: int, height: float, *, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of page width and its axes, row by row; height in inches."""
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, list(grid.ravel())


def label_counts(axes: Axes) -> None:
    """Label a logarithmic axis of counts by 1, 2, 5, 10 and so on, within its limits."""
    low, high = axes.get_xlim()
    ticks = [t for d in (1, 10, 100, 1000) for t in (d, 2 * d, 5 * d)]
    axes.set_xticks([t for t in ticks if low <= t <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend_above(figure: Figure, axes: Axes) -> None:
    """Draw the legend of some axes above the whole figure, five entries per row."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(handles), 5))


def _line(name: str, among: Mapping[str, Measurement | SineProfile]) -> dict[str, Any]:
    style = DASHES.get(name, "-")
    return {"color": _colour(name, among), "label": _label(name), "ls": style}


def _label(name: str) -> str:
    return LABELS.get(name, name)


def _colour(name: str, among: Mapping[str, Measurement | SineProfile]) -> str:
    if name in COLOURS:
        return COLOURS[name]
    others = [other for other in among if other not in COLOURS]
    return SPARE_COLOURS[others.index(name) % len(SPARE_COLOURS)]


def _signed_sqrt(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the square root, extended to negative numbers, which an axis may need."""
    return np.sign(x) * np.sqrt(np.abs(x))


def _tolerance(rtol: float) -> str:
    exponent = np.log10(rtol)
    if exponent != round(exponent):
        return f"{rtol:g}"
    return "10" + f"{exponent:.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def iteration_bins(least: int, most: int) -> NDArray[np.float64]:
    """Return bin edges between integers; bins grow, so that bars are visible on a log axis."""
    edges = [least - 0.5]
    while edges[-1] < most:
        edges.append(edges[-1] + max(1, round(0.05 * edges[-1])))
    return np.array(edges)

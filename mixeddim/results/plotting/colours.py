"""From values to colours: colour maps, their ranges, and the labels of colour bars."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyvista as pv
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from vtkmodules.vtkRenderingAnnotation import vtkScalarBarActor

__all__ = [
    "FONT_SIZE",
    "LABELS_PER_BAR",
    "NETWORK_COLOURS",
    "SPREAD_COLOURS",
    "TISSUE_COLOURS",
    "ColourScale",
    "colour_scale",
]

FONT_SIZE: Final = 42  # 8 pt where the picture is as wide as an A4 page
LABELS_PER_BAR: Final = 4
LINE_LENGTH: Final = 20  # characters of a title that have room above a colour bar
# Perceptually uniform and warm, without the ends that look black or white: no shade of the tissue
# is among them, in print or to the colour-blind.
NETWORK_COLOURS: Final = ListedColormap(
    colormaps["inferno"](np.linspace(0.22, 0.94, 256)), "network"
)
# White to blue in equal steps of CIELAB: light, so that the vessels stand out against it.
TISSUE_COLOURS: Final = LinearSegmentedColormap.from_list(
    "tissue",
    ["#f3f7fa", "#cfe3ef", "#accde4", "#8ab7d8", "#69a0cb", "#4a88ba", "#2c6ea6", "#12558d"],
)
SPREAD_COLOURS: Final = "Oranges"
CONTOUR_QUANTILES: Final = (0.5, 0.8, 0.95)
CONTOUR_PARTS: Final = (0.25, 0.5, 0.75)  # of the range, where the quantiles nearly coincide


@dataclass(frozen=True)
class ColourScale:
    """How the values of a field become colours, in one picture or in several that share it.

    Attributes:
        title: Title of the colour bar.
        colours: The colour map.
        limits: Values at both ends of it.
        levels: Values on which contours lie; none where the field is constant up to rounding,
            since they would be those of rounding errors.
    """

    title: str
    colours: str | Colormap
    limits: tuple[float, float]
    levels: tuple[float, ...]

    @property
    def style(self) -> dict[str, Any]:
        """How PyVista is to colour a mesh."""
        return {"cmap": self.colours, "clim": self.limits}

    @property
    def number_format(self) -> str:
        """The printf format that tells the labels of the colour bar apart."""
        low, high = self.limits
        largest = max(abs(low), abs(high))
        step = (high - low) / (LABELS_PER_BAR - 1)
        if not 1e-3 <= largest < 1e6:
            digits = int(np.ceil(np.floor(np.log10(largest)) - np.log10(step)))
            return f"%.{max(2, digits)}e"
        return f"%.{max(0, 1 - int(np.floor(np.log10(step))))}f"

    @property
    def labels(self) -> list[str]:
        """The labels beside the colour bar, upwards."""
        values = np.linspace(*self.limits, LABELS_PER_BAR)
        return [self.number_format % value for value in values]

    @property
    def ticks(self) -> list[float]:
        """The round values that a picture writes beside the colour bar, upwards."""
        low, high = self.limits
        if not self.levels:
            return [0.5 * (low + high)]
        values = MaxNLocator(LABELS_PER_BAR + 2, steps=[1, 2, 5, 10]).tick_values(low, high)
        margin = 1e-9 * (high - low)
        return [float(t) for t in values if low - margin <= t <= high + margin]

    @property
    def tick_format(self) -> str:
        """The printf format with the fewest digits that writes each tick as it is."""
        ticks = np.array(self.ticks)
        largest = np.abs(ticks).max()
        kind = "f" if largest == 0 or 1e-3 <= largest < 1e6 else "e"
        tolerance = 1e-3 * (ticks[1] - ticks[0] if len(ticks) > 1 else abs(ticks[0]))
        formats = [f"%.{digits}{kind}" for digits in range(16)]
        exact = (f for f in formats if all(abs(float(f % t) - t) <= tolerance for t in ticks))
        return next(exact, self.number_format)

    def mark(self, bar: vtkScalarBarActor) -> None:
        """Write the ticks beside a colour bar that was drawn, and set its title apart."""
        bar.SetCustomLabels(pv.convert_array(np.array(self.ticks)))
        bar.UseCustomLabelsOn()
        bar.SetVerticalTitleSeparation(FONT_SIZE)

    def bar(self, bottom: float, left: float = 0.84, width: float = 0.03) -> dict[str, Any]:
        """Return how PyVista is to draw the colour bar, upwards from a height in [0, 1]."""
        return {
            "title": self.title if "$" in self.title else textwrap.fill(self.title, LINE_LENGTH),
            "vertical": True,
            "position_x": left,
            "position_y": bottom,
            "width": width,
            "height": 0.36,
            "n_labels": LABELS_PER_BAR if self.levels else 1,
            "fmt": f" {self.tick_format}",
            "color": "black",
            "title_font_size": FONT_SIZE,
            "label_font_size": FONT_SIZE,
            "unconstrained_font_size": True,
        }


def colour_scale(title: str, values: NDArray[np.float64], colours: str | Colormap) -> ColourScale:
    """Return the scale from the least value to the largest, set apart where they are the same."""
    low, high = float(values.min()), float(values.max())
    if high - low > 1e-9 * max(abs(low), abs(high)):
        levels = np.quantile(values, CONTOUR_QUANTILES)
        if levels[-1] - levels[0] < 0.05 * (high - low):  # as of a tracer that has just come in
            levels = low + (high - low) * np.array(CONTOUR_PARTS)
        return ColourScale(title, colours, (low, high), tuple(levels.tolist()))
    margin = 0.01 * max(abs(low), abs(high)) or 1.0
    return ColourScale(title, colours, (low - margin, high + margin), ())

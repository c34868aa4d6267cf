"""Resistance in series with the vessel wall, such as that of the blood itself to oxygen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["tabulated_resistance"]


def tabulated_resistance(
    diameter: ArrayLike, table: Sequence[tuple[float, float]]
) -> NDArray[np.float64]:
    """Return the resistance K(D) per length of vessels, linear between the rows of a table.

    Args:
        diameter: Inner diameter of the vessels, in the unit of the table.
        table: Rows (D, K) with rising D. Narrower and wider vessels get the first and the last K.

    Returns:
        In the unit of K, of the shape of the diameters.

    Raises:
        ValueError: If the table is missing or no such table, or a diameter is not positive.

    Example:
        For `Coefficients(series_resistance=network.edge_field("K"))`::

            K = tabulated_resistance(2e6 * edge_radii(graph), [(4, 2.45), (5, 2.0), (6, 1.74)])
            for edge, resistance in zip(graph.edges, K, strict=True):
                graph.edges[edge]["K"] = resistance
    """
    D = np.asarray(diameter, dtype=float)
    if not np.all((D > 0) & np.isfinite(D)):
        raise ValueError(
            f"got diameters from {D.min():.3g} to {D.max():.3g}; wanted finite positive ones, in "
            "the unit of the table."
        )
    try:
        rows = np.asarray(table, dtype=float)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or rows.shape[1] != 2 or len(rows) == 0:
        raise ValueError(
            f"got a table of type {type(table).__name__} and shape {rows.shape}; wanted one row "
            "(diameter, resistance) at least, such as [(4, 2.45), (5, 2.0)]."
        )
    at, K = rows.T
    if not (np.all(np.diff(at) > 0) and np.all(np.isfinite(rows)) and np.all(K >= 0)):
        raise ValueError(
            f"got a table of diameters {at.tolist()} and resistances {K.tolist()}; wanted rising "
            "diameters, and resistances that are not negative, all finite. Sort its rows."
        )
    resistance: NDArray[np.float64] = np.interp(D, at, K)
    return resistance

"""Markdown tables, and the text of measurements, fits and distributions in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from learning.evaluation.results import Measurement, SineProfile

__all__ = [
    "FIT_HEADER",
    "NOTHING",
    "difference",
    "distribution",
    "fits",
    "mean_and_most",
    "mean_and_spread",
    "power",
    "table",
    "value",
]

NOTHING: Final = "–"
FIT_HEADER: Final = ("mean sine", "a", "b", "bᵐ", "α", "β")
"""Columns of `fits`."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; all columns but the first are aligned to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def value(content: Any) -> str:
    """Write a number, text, or list of them."""
    match content:
        case None:
            return NOTHING
        case bool():
            return "yes" if content else "no"
        case list() | tuple():
            return ", ".join(value(entry) for entry in content)
        case float() if not np.isfinite(content):
            return NOTHING
        case float():
            return f"{content:.4g}"
        case str():
            return content.replace("_", " ")
        case _:
            return str(content)


def power(number: float) -> str:
    """Write a tolerance, without leading zeros in its exponent."""
    return f"{number:g}".replace("e-0", "e-")


def mean_and_spread(measurement: Measurement | None) -> str:
    """Write mean, standard deviation, range and failures."""
    if measurement is None:
        return NOTHING
    m = measurement
    return f"{m.mean:.2f} ± {m.std:.2f} ({m.min}–{m.max}){_failures(m)}"


def mean_and_most(measurement: Measurement | None) -> str:
    """Write mean, largest number and failures."""
    if measurement is None:
        return NOTHING
    return f"{measurement.mean:.1f} ({measurement.max}){_failures(measurement)}"


def fits(profile: SineProfile) -> list[str]:
    """Write the numbers of `FIT_HEADER`."""
    sine_fit, residual_fit = profile.sine_fit, profile.residual_fit
    numbers = (
        (profile.mean_sine, ".3f"),
        (sine_fit.slope, ".4f"),
        (sine_fit.intercept, ".3f"),
        (profile.convergence_estimate, ".1e"),
        (residual_fit.slope, ".3f"),
        (residual_fit.intercept, ".3f"),
    )
    return [format(number, form) if np.isfinite(number) else NOTHING for number, form in numbers]


def distribution(content: Mapping[str, Any]) -> str:
    """Write the fields of a distribution."""
    return ", ".join(f"{_words(name)} {_range(entry)}" for name, entry in content.items())


def difference(content: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """Write the fields of a distribution that differ from those of another."""
    changed = {name: entry for name, entry in content.items() if reference.get(name) != entry}
    return distribution(changed) or NOTHING


def _failures(measurement: Measurement) -> str:
    count = len(measurement.failures)
    return f", {count} failed" if count else ""


def _words(name: str) -> str:
    words = {"num_nodes": "nodes", "num_cells": "cells per side", "generators": "generator"}
    return words.get(name, name)


def _range(entry: Any) -> str:
    if isinstance(entry, (list, tuple)) and all(isinstance(e, (int, float)) for e in entry):
        low, high = entry
        return value(low) if low == high else f"{value(low)} to {value(high)}"
    return value(entry)

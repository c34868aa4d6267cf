"""The numbers that the paper reports: N. Dimola, A. Coclite, P. Zunino, arXiv:2507.15452 (2025)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = ["FITS", "ITERATIONS", "LOSSES", "TRAINING"]

ITERATIONS: Final = MappingProxyType({"none": 147.5, "static": 26.71, "dynamic": 12.86})
"""Mean FGMRES iterations on unseen graphs, of canonical right-hand sides."""

LOSSES: Final = MappingProxyType({"residual": 0.4, "sine": 0.3})
"""Where the validation losses of the static and the dynamic stage settle, by name of the loss."""

FITS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "epoch 0": ("0.593", "0.003 to 0.010", "0.490", "8.0e-04", "-0.490", "-0.1"),
        "epoch 150": ("0.318", "0.003 to 0.010", "0.301", "6.1e-06", "-1.134", "-0.1"),
    }
)
"""Dynamic stage: mean sine, slope a, intercept b, b^m (from b, with m = 10), alpha and beta."""

TRAINING: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "static": {
            "loss": "residual",
            "num_problems": 480,
            "num_validation": 120,
            "num_epochs": 250,
            "batch_size": 5,
        },
        "dynamic": {
            "loss": "sine",
            "num_problems": 100,
            "num_validation": 20,
            "num_epochs": 150,
            "batch_size": 20,
            "num_steps": 10,
        },
    }
)
"""Tables 2 and 3, by stage, under the names of `learning.training.stages.Stage`."""

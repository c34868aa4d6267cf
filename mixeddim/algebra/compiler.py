"""What compiles the loops over entries, nodes and edges. Where numba is missing they still run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["ARE_COMPILED", "compiled"]

try:
    from numba import njit

    ARE_COMPILED = True
    compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")
except ImportError:
    ARE_COMPILED = False

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is."""
        return function

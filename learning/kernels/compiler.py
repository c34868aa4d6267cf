"""What compiles the loops."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

__all__ = ["ARE_COMPILED", "Array", "Arrays", "compiled"]

try:
    from numba import njit

    ARE_COMPILED = True
    compiled: Callable[..., Any] = njit(
        cache=True, nogil=True, error_model="numpy", fastmath={"contract"}
    )
except ImportError:
    ARE_COMPILED = False
    warnings.warn(
        "got no package numba; wanted it for compiled kernels, without which multigrid takes "
        "several times the time. Install it with `pip install numba`.",
        stacklevel=2,
    )

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it is."""
        return function


type Array = NDArray[Any]
type Arrays = tuple[Array, ...]

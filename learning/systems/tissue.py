"""What is made of a tissue once, and kept for other networks in it and for later solves.

K and M of many systems are often the same objects: those of one data set, those that
`CoupledSystem.with_network` returns, those of time steps. Whatever depends on them alone (stencils,
coarse grids, coefficients that were read off) is kept as long as they live, for the tissues that
were used last. Values that were changed in place are noticed, and all is made anew. Solves in
several threads may share a tissue.
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, cast

import numpy as np
from scipy import sparse

from learning import kernels
from mixeddim.tensors import ReducedSystem

__all__ = ["kept", "parts_of_tissue", "share_tissue"]

MOST_TISSUES: Final = 4
"""So many are kept, those used last: each takes about as much memory as its K and M.

In far units (see `units`) a tissue counts twice, as given and in units of its own.
"""


def parts_of_tissue(systems: Sequence[ReducedSystem]) -> dict[Hashable, Any]:
    """Return what is kept of the tissue of one system on a box, by names; else nothing, anew.

    A part is made of K, M and the grid alone. It is shared, so nobody may write to it, and it must
    not hold K, M or the grid, which would then live for ever.
    """
    first = systems[0]
    if len(systems) > 1 or first.processes.size > 1 or first.grid is None:
        return {}
    sources = first.K, first.M, first.grid
    key, values = tuple(map(id, sources)), (_fingerprint(first.K), _fingerprint(first.A_0))

    def forget(_: object) -> None:  # without the lock, which this thread may hold
        _TISSUES.pop(key, None)

    with _LOCK:
        tissue = _TISSUES.pop(key, None)
        if tissue is None or tissue.values != values:
            tissue = _Tissue(tuple(weakref.ref(source, forget) for source in sources), values)
        _TISSUES[key] = tissue  # as the last
        for oldest in list(_TISSUES)[:-MOST_TISSUES]:
            _TISSUES.pop(oldest, None)
    return tissue.parts


def kept[Part](parts: dict[Hashable, Any], name: Hashable, make: Callable[[], Part]) -> Part:
    """Return the part of a name, which is made where there is none.

    Args:
        parts: What is kept.
        name: Different for each function that makes one and its arguments.
        make: Makes it.
    """
    if name not in parts:
        parts[name] = make()
    return cast(Part, parts[name])


def share_tissue(systems: Sequence[ReducedSystem]) -> bool:
    """Return whether systems hold the very same K, M and grid, as those of many data sets do."""
    first = systems[0]
    return first.grid is not None and all(
        s.K is first.K and s.M is first.M and s.grid is first.grid for s in systems
    )


@dataclass(frozen=True, eq=False)
class _Tissue:
    """What is kept of one tissue.

    Attributes:
        sources: K, M and the grid, held weakly.
        values: Fingerprints of K and of A_0 = K + M. A system makes its A_0 once, so that after a
            change in place that of an older system is not the sum any more.
        parts: What was made of them.
    """

    sources: tuple[weakref.ref[Any], ...]
    values: tuple[tuple[int, ...], ...]
    parts: dict[Hashable, Any] = field(default_factory=dict)


_TISSUES: Final[dict[tuple[int, ...], _Tissue]] = {}
"""By the identities of K, M and the grid; those used last come last."""

_LOCK: Final = Lock()


def _fingerprint(A: sparse.csr_array) -> tuple[int, ...]:
    """Return numbers that change with any one number of a matrix, and with their order."""
    parts = (np.ascontiguousarray(part) for part in (A.data, A.indices, A.indptr))
    if not kernels.ARE_COMPILED:
        return tuple(zlib.crc32(part) for part in parts)
    return tuple(int(kernels.mix_bits(part.view(f"u{part.itemsize}"))) for part in parts)

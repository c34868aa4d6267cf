"""Units in which the numbers of a system are near one, so that float32 holds their squares too."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from learning.systems.tissue import kept, parts_of_tissue
from mixeddim.tensors import ReducedSystem

__all__ = ["in_units_of_its_own", "unit_of"]

_FAR: Final = 30.0
"""Powers of two from one that float32 can do with, squares and products with others included."""


def in_units_of_its_own(reduced: ReducedSystem) -> tuple[ReducedSystem, float]:
    """Return a system with entries near one where they are far from it, and its matrices' unit.

    Preconditioners in float32 over- and underflow in extreme units. Powers of two round nothing.
    """
    if not isinstance(reduced, ReducedSystem):
        return reduced, 1.0  # `batch_systems` says what is wrong
    processes = reduced.processes
    diagonal = processes.sum(reduced.diagonal_33.sum()) / processes.sum(len(reduced.b_3))
    matrix_unit = unit_of(diagonal)
    load = processes.max(np.abs(reduced.g).max(initial=0.0))
    load_unit = matrix_unit * unit_of(load / matrix_unit)
    if matrix_unit == load_unit == 1.0:
        return reduced, 1.0
    K, M, A_0 = reduced.K, reduced.M, reduced.A_0
    if matrix_unit != 1.0:  # the same objects for all systems in one tissue
        K, M, A_0 = kept(
            parts_of_tissue([reduced]),
            ("in units", matrix_unit),
            lambda: tuple(A / matrix_unit for A in (reduced.K, reduced.M, reduced.A_0)),
        )
    scaled = replace(
        reduced,
        K=K,
        M=M,
        beta=reduced.beta / matrix_unit,
        A_11=reduced.A_11 / matrix_unit,
        b_3=reduced.b_3 / load_unit,
        b_1=reduced.b_1 / load_unit,
    )
    vars(scaled)["A_0"] = A_0
    return scaled, matrix_unit


def unit_of(size: float) -> float:
    """Return the power of two next to a number that is far from one, else 1."""
    if not 0.0 < size < np.inf or abs(np.log2(size)) <= _FAR:
        return 1.0
    return float(np.exp2(np.rint(np.log2(size))))

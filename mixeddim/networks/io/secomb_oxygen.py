"""Oxygen in the format of T. W. Secomb's programs: `SoluteParams.dat` and `IntravascRes.dat`."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from mixeddim.networks.io.places import Line, NetworkFileError, existing_file
from mixeddim.networks.io.secomb import lines_of, next_filled
from mixeddim.networks.oxygen import BloodOxygen, IntravascularResistance

__all__ = ["SoluteParameters", "read_intravascular_resistance", "read_solute_parameters"]


@dataclass(frozen=True)
class SoluteParameters:
    """Oxygen in blood and tissue.

    Attributes:
        blood: What blood carries.
        diffusion: D alpha of the tissue [m²/s/mmHg].
        consumption: Largest rate M0 [1/s].
        half_consumption: Michaelis constant [mmHg].
        flow_factor: What to multiply all flows by.
    """

    blood: BloodOxygen
    diffusion: float
    consumption: float
    half_consumption: float
    flow_factor: float


def read_solute_parameters(path: str | os.PathLike[str]) -> SoluteParameters:
    """Read `SoluteParams.dat`, whose first solute is oxygen.

    After the title each line holds its numbers first, then a comment: ten lines of settings (of
    which P50, Hill's n, C0, alpha and the factor on all flows count here), the name of the solute,
    whether it permeates, diffuses and is oxygen, a typical value, D alpha, M0 and the Michaelis
    constant. Files from before version 4 of the programs have the total inflow instead of the
    factor, and are refused.

    Args:
        path: The file.

    Raises:
        NetworkFileError: if the file does not hold such parameters, or its first solute is not
            oxygen.
        FileNotFoundError: if there is no such file.
    """
    path = existing_file(path)
    lines = lines_of(path)
    next(lines, None)  # the title, which may be blank, as may the name of the solute
    settings = [line for _ in range(10) if (line := next_filled(lines))]
    next(lines, None)
    solute = [line for _ in range(5) if (line := next_filled(lines))]
    if len(solute) < 5:
        raise NetworkFileError(
            f"{path}: got {len(settings) + len(solute)} lines of numbers; wanted at least 15: ten "
            "of settings, and five on oxygen. Pass a SoluteParams.dat; the file may be cut off."
        )
    settings[9].integer(1, "number of parameters of a solute, as from version 4 of the programs")
    numbers = [line.floats(slice(1))[0] for line in (*settings[4:9], *solute[2:5])]
    p50, hill, capacity, solubility, factor, diffusion, maximum, half = numbers
    flags = solute[0]
    if flags.integer(2, "flag for oxygen") != 1:
        raise flags.error(
            "got a first solute that is not oxygen; wanted oxygen first, with 1 in the third "
            "column. Move it to the front."
        )
    try:
        blood = BloodOxygen(p50, hill, capacity, solubility)
    except ValueError as error:
        raise NetworkFileError(f"{path}: {error}") from error
    return SoluteParameters(blood, 1e-4 * diffusion, maximum, half, factor)


def read_intravascular_resistance(path: str | os.PathLike[str]) -> IntravascularResistance:
    """Read the table of oxygen in `IntravascRes.dat`.

    A line with the number of rows, a line of titles, then a diameter [µm] and a resistance
    [mmHg s/µm²] on each; what follows, for other solutes, is left out. No rows mean no resistance.

    Args:
        path: The file.

    Raises:
        NetworkFileError: if the file does not hold such a table.
        FileNotFoundError: if there is no such file.
    """
    path = existing_file(path)
    lines = lines_of(path)
    head = next_filled(lines)
    if head is None:
        raise NetworkFileError(f"{path}: got no line; wanted a table. Pass an IntravascRes.dat.")
    num_rows = head.integer(0, "number of rows")
    if num_rows == 0:
        return IntravascularResistance(np.array([1e-6]), np.array([0.0]))
    next(lines, None)
    rows: list[Line] = [line for _ in range(num_rows) if (line := next_filled(lines))]
    if len(rows) < max(num_rows, 1):
        raise NetworkFileError(
            f"{path}: got {len(rows)} rows of {num_rows}; wanted all of them. Pass an "
            "IntravascRes.dat; the file may be cut off."
        )
    for row in rows:
        row.require(2, "a diameter and a resistance")
    D, K = np.array([row.floats(slice(2)) for row in rows]).T
    try:
        return IntravascularResistance(1e-6 * D, 1e12 * K)
    except ValueError as error:
        raise NetworkFileError(f"{path}: {error}") from error

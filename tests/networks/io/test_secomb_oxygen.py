"""SoluteParams.dat and IntravascRes.dat: units, and what is wrong with broken files."""

import numpy as np
import pytest

from mixeddim.networks.io import (
    NetworkFileError,
    read_intravascular_resistance,
    read_solute_parameters,
)

PARAMETERS = """\
Solute parameters of a test
1 2 3 \trungreens, g0method, linmethod
2 2 100 iteration limits
1.0E-04 tolerance
50 criterion for low flow
31\t\tP50 in mmHg
2.7 n in Hill equation
0.52 Oxygen binding capacity
3.20E-05 solubility
1.5 factor on flows
1 3 number of species, parameters of each
Solute 1 - oxygen
1 1 1 permsolute, diffsolute, oxygen
100. pref
5.0e-10 diff
0.002 tissparam
10.5 Michaelis constant
"""

TABLE = """\
 3 Solute 1
D (um)  K (mmHg.um.s/um3O2)
 4 2.45
 8 1.44 *
 50 0.730
2 Solute 2
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text: str):
        path = tmp_path / "file.dat"
        path.write_text(text)
        return path

    return write_file


def test_parameters_in_si_and_mmhg(write):
    read = read_solute_parameters(write(PARAMETERS))
    assert (read.blood.p50, read.blood.hill, read.blood.capacity) == (31.0, 2.7, 0.52)
    assert read.blood.solubility == 3.2e-5
    assert read.diffusion == pytest.approx(5e-14)  # cm²/s is 1e-4 m²/s
    assert (read.consumption, read.half_consumption, read.flow_factor) == (0.002, 10.5, 1.5)


def test_table_in_si_and_mmhg(write):
    table = read_intravascular_resistance(write(TABLE))
    np.testing.assert_allclose(table.diameter, [4e-6, 8e-6, 50e-6])
    np.testing.assert_allclose(table.resistance, [2.45e12, 1.44e12, 0.73e12])


def test_blank_lines_other_solutes_and_glued_comments(tmp_path, write):
    several = PARAMETERS.replace("1 3 number", "2 4 number").replace("10.5 Mich", "10.5* Mich")
    several = several.replace("Solute parameters of a test", "").replace("Solute 1 - oxygen", "")
    several = several.replace("50 crit", "\n\n50 crit")
    several += "0. extra\n\n0.2 g0\n1.0 g0fac\nDrug\n1 1 0\n"
    file = tmp_path / "windows.dat"
    file.write_bytes(several.replace("\n", "\r\n").encode())
    assert read_solute_parameters(file) == read_solute_parameters(write(PARAMETERS))


def test_a_table_without_rows_is_no_resistance(write):
    table = read_intravascular_resistance(write("0 Solute 1 - oxygen\n2 Solute 2\nD K\n4 1\n8 2\n"))
    np.testing.assert_array_equal(table([1e-6, 9e-6]), 0.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (PARAMETERS, "a title\n1 2\n", "got 1 lines of numbers; wanted at least 15: ten of"),
        (
            "1 3 number of",
            "1 number of",
            "line 11: got 'number' for the number .*version 4",
        ),
        ("31\t", "much\t", "line 6: got 'much'; wanted a finite number"),
        ("1 1 1 perm", "1 1 0 perm", "line 13: got a first solute that is not oxygen"),
        ("1 1 1 perm", "1 perm", "line 13: got '.*' for the flag for oxygen; wanted an integer"),
        ("31\t", "-1\t", "p50=-1.0; wanted a finite positive number"),
    ],
)
def test_parameters_that_are_none(write, old, new, message):
    with pytest.raises(NetworkFileError, match=message):
        read_solute_parameters(write(PARAMETERS.replace(old, new)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got no line; wanted a table. Pass an IntravascRes.dat"),
        (TABLE.replace(" 3 Sol", " -3 Sol"), "got 0 rows of -3; wanted all of them"),
        (TABLE.replace(" 3 Sol", " 9 Sol"), "got 4 rows of 9; wanted all of them"),
        (TABLE.replace(" 3 Sol", " many Sol"), "line 1: got 'many' for the number of rows"),
        (TABLE.replace(" 8 1.44", " 8"), "line 4: got 1 columns; wanted 2"),
        (TABLE.replace(" 8 1.44 *", " 8 wide"), "line 4: got 'wide'; wanted a finite number"),
        (TABLE.replace(" 8 1.44", " 2 1.44"), "diameters do not rise"),
    ],
)
def test_tables_that_are_none(write, text, message):
    with pytest.raises(NetworkFileError, match=message):
        read_intravascular_resistance(write(text))


def test_missing_file(tmp_path):
    for read in (read_intravascular_resistance, read_solute_parameters):
        with pytest.raises(FileNotFoundError, match=r"got .*none\.dat.*; wanted"):
            read(tmp_path / "none.dat")

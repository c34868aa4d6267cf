"""DGF: small files with every trap of the format, and the published networks."""

import os
from pathlib import Path

import numpy as np
import pytest

from mixeddim.networks.graphs import (
    edge_lengths,
    edge_radii,
    inlet_mask,
    mark_ends_as_inlets,
    network_statistics,
    node_positions,
    validate_graph,
)
from mixeddim.networks.io import NetworkFileError, read_dgf, write_dgf

DATA = Path(os.environ.get("MIXEDDIM_DATA", ""))
# Mixed case, comments everywhere, a colon after a number, blocks nobody asked for.
FORK = """\
DGF
% a fork
vErTeX
Parameters 2 % pressure, temperature
0 0 0 4.5e3 37 % the inlet

0 0 1 4.1e3 37 # as some write it
 0 1 2 4.0e3 37
0 -1 2\t4.0e3 37
# end of the block
BOUNDARYDOMAIN
default 1
#
Simplex
parameters 2: order, radius [m]
0 1 1 0.2
1 2 2 .1
3 1 2 1e-1
#
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text: str | bytes) -> Path:
        path = tmp_path / "network.dgf"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def test_named_columns_become_attributes(write):
    graph = read_dgf(
        write(FORK), node_parameters={"pressure": 0}, edge_parameters={"radius": 1, "order": 0}
    )
    assert list(graph) == [0, 1, 2, 3]
    np.testing.assert_array_equal(
        node_positions(graph), [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, -1, 2]]
    )
    assert [pressure for _, pressure in graph.nodes(data="pressure")] == [4500, 4100, 4000, 4000]
    assert list(graph.edges(data="radius")) == [(0, 1, 0.2), (1, 2, 0.1), (1, 3, 0.1)]
    assert [order for *_, order in graph.edges(data="order")] == [1, 2, 2]
    assert not inlet_mask(graph).any()
    validate_graph(mark_ends_as_inlets(graph))


def test_columns_without_a_name_are_dropped(write):
    graph = read_dgf(write(FORK))
    assert graph.nodes[0] == {"pos": (0.0, 0.0, 0.0), "inlet": False}
    assert graph.edges[0, 1] == {}


@pytest.mark.parametrize(
    "text",
    [
        "DGF\nVERTEX\nfirstindex 1\n0 0 0\n1 0 0\n#\nSIMPLEX\n1 2\n#\n",
        "DGF\nSIMPLEX\n1 2\n#\nVERTEX\n0 0 0\ndimension 3\n1 0 0\nFIRSTINDEX 1\n#\n",
        "\ufeffdgf\r\nVERTEX\r\nfirstindex 1\r\n0 0 0\r\n1 0 0\r\n#\r\nSIMPLEX\r\n1 2\r\n#",
        b"DGF\n% caf\xe9\nVERTEX\nfirstindex 1\n0 0 0\n1 0 0\n#\n\nSIMPLEX % edges\n1 2\n#\n#\n",
    ],
    ids=["plain", "SIMPLEX first", "Windows", "Latin-1 comment"],
)
def test_spellings_of_one_edge_from_1_to_2(write, text):
    graph = read_dgf(write(text))
    assert list(graph.nodes(data="pos")) == [(1, (0.0, 0.0, 0.0)), (2, (1.0, 0.0, 0.0))]
    assert list(graph.edges) == [(1, 2)]


def with_line(number: int, text: str) -> str:
    """Return the fork with one line changed, counted from 1."""
    lines = FORK.splitlines(keepends=True)
    lines[number - 1] = text + "\n"
    return "".join(lines)


MALFORMED = {
    "empty": ("", "line 1: got ''; wanted the keyword DGF. Pass a file in the Dune Grid Format"),
    "another format": ("<VTKFile>\n", "line 1: got '<VTKFile>'; wanted the keyword DGF"),
    "binary": (bytes(range(256)), "line 1: got .* wanted the keyword DGF"),
    "only a keyword": ("DGF\n", "got the blocks none; wanted a block VERTEX"),
    "no simplex": ("DGF\nVertex\n0 0 0\n#\n", "got the blocks VERTEX; wanted a block SIMPLEX"),
    "no vertex": ("DGF\nSimplex\n0 1\n#\n", "got the blocks SIMPLEX; wanted a block VERTEX"),
    "empty block": ("DGF\nVertex\n#\nSimplex\n0 1\n#\n", "line 2: got an empty block; wanted"),
    "second block": (with_line(11, "VERTEX"), "line 11: got a second block VERTEX; wanted one"),
    "missing coordinate": (
        with_line(8, "0 1 4.0e3 37"),
        "line 8: got 4 columns; wanted 3 and 2 parameters. Correct the line, or the number",
    ),
    "column too many": (with_line(16, "0 1 1 2 3"), "line 16: got 5 columns; wanted 2 and 2"),
    "word for a number": (
        with_line(8, "0 1 two 4.0e3 37"),
        "line 8: got 'two'; wanted a finite number. Correct it, or end the block above",
    ),
    "not a number": (with_line(8, "0 1 nan 4.0e3 37"), "line 8: got 'nan'; wanted a finite number"),
    "overflow": (with_line(17, "1 2 2 1e999"), "line 17: got '1e999'; wanted a finite number"),
    "unnamed word": (with_line(17, "1 2 two 0.1"), "line 17: got 'two'; wanted a finite number"),
    "block not ended": (with_line(10, "%"), "line 11: got 1 columns; wanted 3 and 2 parameters"),
    "dangling index": (
        with_line(17, "1 4 2 0.1"),
        "line 17: got the vertex index 4; wanted 0 to 3, .* Add the vertex, or set firstindex",
    ),
    "negative index": (
        with_line(17, "-1 2 2 0.1"),
        "line 17: got the vertex index '-1'; wanted a non-negative integer",
    ),
    "fractional index": (with_line(17, "1.0 2 2 0.1"), "line 17: got the vertex index '1.0'"),
    "endless index": (with_line(17, "1 " + "9" * 5000 + " 2 0.1"), "line 17: got the vertex index"),
    "repeated edge": (
        with_line(17, "1 0 2 0.1"),
        r"line 17: got the edge \(1, 0\) again; wanted it once. Delete the line",
    ),
    "self-loop": (
        with_line(17, "2 2 2 0.1"),
        "line 17: got an edge from the node 2 to itself; wanted two ends. Delete it",
    ),
    "no number of parameters": (
        with_line(15, "parameters radius"),
        "line 15: got 'parameters radius'; wanted a non-negative integer after 'parameters'",
    ),
    "negative number of parameters": (with_line(4, "parameters -2"), "line 4: got 'parameters -2'"),
    "bare setting": (with_line(4, "firstindex"), "line 4: got 'firstindex'; wanted"),
    "cut within a block": (
        FORK[: FORK.index("3 1 2")],
        "line 14: got a block Simplex without an end: the file may be cut off. Complete it",
    ),
    "cut within a line": (FORK[: FORK.index("0.2\n")], "line 14: got a block Simplex without an"),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_errors_name_file_and_line(write, text, message):
    path = write(text)
    with pytest.raises(NetworkFileError, match=rf"network\.dgf(, |: ){message}"):
        read_dgf(path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"edge_parameters": {"radius": 2}},
            "line 14: got column 2 for 'radius'; wanted less than the 2 parameters of the block",
        ),
        ({"edge_parameters": {"radius": -1}}, "line 14: got column -1 for 'radius'; wanted"),
        ({"node_parameters": {"pressure": "0"}}, "line 3: got column '0' for 'pressure'; wanted"),
        ({"edge_parameters": ["radius"]}, r"got the parameters \['radius'\]; wanted a dictionary"),
    ],
)
def test_columns_must_exist(write, parameters, message):
    with pytest.raises(NetworkFileError, match=message):
        read_dgf(write(FORK), **parameters)


@pytest.mark.parametrize("name", ["", "absent.dgf"])
def test_a_missing_file_is_explained(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"got '.*', which is no file; wanted a network"):
        read_dgf(tmp_path / name)


def test_lengths_are_in_the_unit_asked_for(write):
    graph = read_dgf(write(FORK), edge_parameters={"radius": 1, "order": 0}, length_unit=1e-3)
    np.testing.assert_allclose(node_positions(graph)[2], [0, 1e-3, 2e-3])
    assert graph.edges[0, 1] == {"radius": pytest.approx(2e-4), "order": 1}
    with pytest.raises(ValueError, match=r"got length_unit=0; wanted a finite positive number"):
        read_dgf(write(FORK), length_unit=0)


def test_an_inlet_is_read_as_a_bool(fork, tmp_path):
    path = write_dgf(fork, tmp_path / "fork.dgf", node_parameters=["inlet"])
    graph = read_dgf(path, node_parameters={"inlet": 0}, edge_parameters={"radius": 0})
    assert [inlet for _, inlet in graph.nodes(data="inlet")] == [True, False, False, False]
    validate_graph(graph)


def test_a_column_of_a_written_file_has_no_gaps(fork, tmp_path):
    graph = fork.copy()
    graph.nodes[2]["pressure"] = 3.0
    with pytest.raises(ValueError, match="got no number 'pressure' on the node 0; wanted one on"):
        write_dgf(graph, tmp_path / "gap.dgf")
    assert not any(tmp_path.iterdir())


# --- Published networks -----------------------------------------------------------------------


def published(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no file {path}; set MIXEDDIM_DATA to the folder of published networks")
    return path


def test_mouse_cortex_capillaries():
    graph = read_dgf(
        published("mouse_cortex/network.dgf"),
        node_parameters={"pressure": 0},
        edge_parameters={"radius": 0},
    )
    statistics = network_statistics(graph)
    assert (statistics.num_nodes, statistics.num_edges) == (1746, 1735)
    assert (statistics.num_components, statistics.num_loops) == (24, 13)
    assert statistics.num_ends == 126
    assert statistics.radius.minimum == pytest.approx(1.27e-6, abs=5e-9)
    assert statistics.radius.median == pytest.approx(1.71e-6, abs=5e-9)
    assert statistics.radius.maximum == pytest.approx(3.51e-6, abs=5e-9)
    assert statistics.length.minimum == pytest.approx(0.12e-6, abs=5e-9)
    assert statistics.total_length == pytest.approx(8.146e-3, abs=5e-7)
    assert np.mean(edge_lengths(graph) < 2 * edge_radii(graph)) == pytest.approx(0.57, abs=5e-3)
    assert graph.nodes[0]["pressure"] == 4400.37255859375
    validate_graph(mark_ends_as_inlets(graph))


def test_root_of_day_8_names_its_radius_in_column_4():
    graph = read_dgf(published("root_dap8/dap8_rootsys.dgf"), edge_parameters={"radius": 4})
    for edge, radius in zip(graph.edges, edge_radii(graph), strict=True):
        graph.edges[edge]["radius"] = 0.01 * radius  # cm to m, the unit of the coordinates
    statistics = network_statistics(graph)
    assert (statistics.num_nodes, statistics.num_edges, statistics.num_loops) == (586, 585, 0)
    assert statistics.radius.maximum == pytest.approx(1.68001e-3)
    validate_graph(mark_ends_as_inlets(graph))


def test_white_lupine_root_gets_its_radius_from_its_surface():
    graph = read_dgf(published("root_lupine/lupine.dgf"), edge_parameters={"surface": 2})
    for edge, length in zip(graph.edges, edge_lengths(graph), strict=True):
        graph.edges[edge]["radius"] = graph.edges[edge]["surface"] / (2 * np.pi * length)
    statistics = network_statistics(graph)
    assert (statistics.num_nodes, statistics.num_edges, statistics.num_loops) == (1739, 1738, 0)
    surface = sum(surface for *_, surface in graph.edges(data="surface"))
    assert statistics.wall_area == pytest.approx(surface)
    validate_graph(mark_ends_as_inlets(graph))

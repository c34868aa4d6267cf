"""Secomb's Network.dat: units, names, boundary data, and what is wrong with broken files."""

import numpy as np
import pytest

from mixeddim.networks.graphs import validate_graph
from mixeddim.networks.io import NetworkFileError, read_secomb

# A fork whose third vessel carries no blood; names with gaps, text after the numbers.
FORK = """\
A fork, lengths in µm
100.0 100.0 100.0 box dimensions in microns
10 10 10 number of tissue points
50. outer bound distance
10. max. segment length
 4   nodsegm
  4\t\ttotal number of segments
 name  type   from   to   diam. flow  hem.
12\t5\t70\t3\t12.0\t-30.0\t0.4 *
40 4 70 8 8.0 20.0 0.35 *
41 5 70 9 6.0 10 .3 *
50 3 9 11 6.0 0 0.3 *

 6 total number of nodes
 name    x       y      z
70 50 50 50 *
3 50 50 0 *
8 20. 50 90
9 80 50 9e1
11 90 50 95
99 1 1 1

 4  total number of boundary nodes
 node bctyp press/flow   HD    PO2
 3 0 40.0 0.45 100.
 8 2 -20.0 0.4 20.
 9 0 15 0.4 20.
 99 3 0 0.4
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text: str):
        path = tmp_path / "Network.dat"
        path.write_text(text, encoding="latin-1")
        return path

    return write_file


def with_line(number: int, text: str) -> str:
    lines = FORK.splitlines()
    lines[number - 1] = text
    return "\n".join(lines)


def test_a_fork_in_si_units(write):
    graph = read_secomb(write(FORK))
    assert list(graph) == [70, 3, 8, 9]
    np.testing.assert_allclose(graph.nodes[8]["pos"], [20e-6, 50e-6, 90e-6], rtol=1e-15)
    assert graph.edges[70, 8] == {
        "radius": pytest.approx(4e-6),
        "flow": pytest.approx(20e-12 / 60),  # 1 nl = 1e-12 m³
        "hematocrit": 0.35,
        "name": 40,
        "type": 4,
    }
    assert graph.nodes[3]["pressure"] == pytest.approx(40 / 760 * 101325, rel=1e-6)  # Torr
    assert graph.nodes[8]["inflow"] == pytest.approx(-20e-12 / 60)
    assert [node for node, inlet in graph.nodes(data="inlet") if inlet] == [3, 9]
    assert dict(graph.nodes(data="po2")) == {70: None, 3: 100.0, 8: 20.0, 9: 20.0}  # [mmHg]
    assert graph.nodes[70] == {"pos": graph.nodes[70]["pos"], "inlet": False}
    validate_graph(graph)


@pytest.mark.parametrize("rest", ["", " venule"])
def test_a_boundary_node_may_have_no_po2(write, rest):
    graph = read_secomb(write(FORK.replace(" 9 0 15 0.4 20.", f" 9 0 15 0.4{rest}")))
    assert "po2" not in graph.nodes[9]
    assert graph.nodes[9]["hematocrit"] == 0.4


def test_flow_goes_from_the_first_end_in_the_order_of_nodes(write):
    """Segment 12 says -30 from 70 to 3, or 30 from 3 to 70; graph.edges has (70, 3)."""
    for text in (FORK, with_line(9, "12 5 3 70 12.0 30.0 0.4")):
        graph = read_secomb(write(text))
        assert (70, 3) in list(graph.edges)
        assert graph.edges[70, 3]["flow"] == pytest.approx(-30e-12 / 60)
        leaving = sum(flow for *_, flow in graph.edges(70, data="flow"))
        assert leaving == pytest.approx(0.0, abs=1e-25), "node 70 comes first"


def test_the_header_says_what_the_tissue_is(write):
    tissue = read_secomb(write(FORK)).graph
    np.testing.assert_allclose(tissue["box"], [100e-6] * 3)
    assert tissue["tissue_points"] == (10, 10, 10)
    assert tissue["outer_bound"] == pytest.approx(50e-6)
    for line, text in ((2, "box 100 100 100"), (3, "10 10"), (4, "-1."), (2, "1 1 0")):
        assert read_secomb(write(with_line(line, text))).graph == {}


# The same fork as other programs and editors write it: Windows line ends, tabs, comments glued to
# numbers, scientific notation, names without titles, unused nodes and boundary nodes of all types.
VARIANT = """

1.0E+02\t100.\t1.e2\tbox* in microns

10\t10\t10
5.E+01* outer bound
10.
4
4
\x20
12\t5\t70\t3\t1.2E+01\t-3.0e1\t0.4*
40\t4.\t70\t8\t8\t20.\t0.35* vein, type 5?

41\t5\t70\t9\t6.\t+10\t.3
50\t3\t9\t11\t6.\t0\t0.3

6
names of nodes
70\t50\t50\t50
3\t50\t50\t-0.
8\t20.\t50\t90
9\t80\t50\t90*
11\t9.E+01\t50\t95
99\t1\t1\t1

4

3\t0\t40.\t0.45\t1.0E+02\t7.\t8.*
8\t1\t-20.\t0.4\t20.
9\t2\t-10\t0.4\t20.
11\t3\t0\t0.4"""


def test_another_spelling_of_the_same_network(tmp_path, write):
    file = tmp_path / "variant.dat"
    file.write_bytes(VARIANT.replace("\n", "\r\n").encode())
    graph, expected = read_secomb(file), read_secomb(write(FORK))
    assert list(graph.edges(data=True)) == list(expected.edges(data=True))
    assert graph.graph == expected.graph
    assert dict(graph.nodes(data="pos")) == dict(expected.nodes(data="pos"))
    assert dict(graph.nodes(data="po2")) == dict(expected.nodes(data="po2"))
    assert graph.nodes[9]["inflow"] == pytest.approx(-10e-12 / 60)
    assert graph.nodes[8] == {
        "pos": graph.nodes[8]["pos"],
        "inlet": False,
        "hematocrit": 0.4,
        "po2": 20.0,
    }


def test_parallel_segments_get_a_node_between(write):
    graph = read_secomb(write(with_line(11, "41 5 8 70 6.0 10 .3")))
    assert list(graph) == [70, 3, 8, 100]  # 99 is the highest name in the file
    np.testing.assert_allclose(graph.nodes[100]["pos"], [35e-6, 50e-6, 70e-6])
    assert graph.edges[8, 100]["flow"] == pytest.approx(10e-12 / 60)  # from 8
    assert graph.edges[70, 100]["flow"] == pytest.approx(-10e-12 / 60)  # on to 70
    assert graph.edges[70, 8]["flow"] == pytest.approx(20e-12 / 60)
    assert {graph.edges[edge]["radius"] for edge in ((8, 100), (70, 100))} == {3e-6}
    validate_graph(graph)


MALFORMED = {
    "one line": ("a title", "got fewer than the 6 lines of header; wanted a Network.dat"),
    "no count": (
        with_line(7, "many"),
        "line 7: got 'many' for the number of segments; wanted",
    ),
    "count too large": (
        with_line(7, "900"),
        "line 7: got 18 rows of 900 segments; wanted all of them, and at least one: the file may",
    ),
    "cut off": (FORK[: FORK.index("8 20.")], "line 14: got 2 rows of 6 nodes; wanted all of them"),
    "no boundary nodes": (
        FORK[: FORK.index(" 4  total")],
        "got the end of the file before the table of boundary nodes: it may be cut off",
    ),
    "missing column": (
        with_line(10, "40 4 70 8 8.0 20.0"),
        "line 10: got 6 columns; wanted 7: .* Complete the line",
    ),
    "word for a number": (
        with_line(10, "40 4 70 8 wide 20 0.4"),
        "line 10: got 'wide'; wanted a fi",
    ),
    "word for a name": (
        with_line(16, "a 50 50 50"),
        "line 16: got 'a' for the name of a node; wan",
    ),
    "not a number": (with_line(16, "70 50 nan 50"), "line 16: got 'nan'; wanted a finite number"),
    "dangling name": (
        with_line(10, "40 4 70 5 8.0 20.0 0.35"),
        "line 10, segment 40: got an edge to the node 5, which the file does not have; wanted one",
    ),
    "dangling boundary node": (
        with_line(26, "5 2 -20.0 0.4"),
        "line 26: got the boundary node 5, which the file does not have",
    ),
    "node twice": (with_line(17, "70 1 1 1"), "line 17: got the node 70 again; wanted it once"),
    "self-loop": (with_line(10, "40 4 8 8 8 20 0.35"), "line 10, .* from the node 8 to itself"),
    "no blood": (
        FORK.replace(" 5 70", " 1 70").replace("\t5\t", "\t1\t").replace(" 4 70", " 1 70"),
        r"line 9: got no segment of the types \(4, 5\), which carry blood",
    ),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_errors_name_file_and_line(write, text, message):
    with pytest.raises(NetworkFileError, match=rf"Network\.dat(, |: ){message}"):
        read_secomb(write(text))

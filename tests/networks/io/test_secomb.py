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
    "parallel segments": (
        with_line(11, "41 5 8 70 6.0 10 .3"),
        r"line 11, segment 41: got the edge \(8, 70\) again; .* put a node into one of two",
    ),
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

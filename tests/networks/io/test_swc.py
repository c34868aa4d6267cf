"""SWC: links to parents, µm, radii of points."""

import numpy as np
import pytest

from mixeddim.networks.graphs import validate_graph
from mixeddim.networks.io import NetworkFileError, read_swc

TREE = """\
# SCALE 1 1 1
7 2 10 0 0 2.0 3   # a child before its parent
3 1 0 0 0 4.0 -1
 8 2 20 5.5 0 1e0 7 0.25
12\t2\t20\t-5\t0\t1.0\t7
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text: str):
        path = tmp_path / "tree.swc"
        path.write_text(text)
        return path

    return write_file


def with_line(number: int, text: str) -> str:
    lines = TREE.splitlines()
    lines[number - 1] = text
    return "\n".join(lines)


def test_a_tree_in_metres(write):
    graph = read_swc(write(TREE))
    assert list(graph) == [7, 3, 8, 12]
    assert {frozenset(edge) for edge in graph.edges} == {*map(frozenset, [(3, 7), (7, 8), (7, 12)])}
    np.testing.assert_allclose(graph.nodes[8]["pos"], [20e-6, 5.5e-6, 0])
    assert graph.edges[3, 7] == {"radius": pytest.approx(3e-6)}
    assert graph.nodes[3]["radius"] == pytest.approx(4e-6)
    assert [node for node, inlet in graph.nodes(data="inlet") if inlet] == [3]
    assert graph.nodes[12]["type"] == 2
    validate_graph(graph)
    assert read_swc(write(TREE), length_unit=1.0).edges[7, 8]["radius"] == 1.5


MALFORMED = {
    "empty": (
        "# nothing\n",
        ": got 0 samples and no link between them; wanted lines of sample, type",
    ),
    "roots only": ("1 1 0 0 0 1 -1\n", ": got 1 samples and no link between them"),
    "missing column": (
        with_line(3, "3 1 0 0 0 -1"),
        ", line 3: got 6 columns; wanted 7: sample, ty",
    ),
    "word": (with_line(3, "3 1 0 0 0 wide -1"), ", line 3: got 'wide'; wanted a finite number"),
    "not a number": (
        with_line(3, "3 1 nan 0 0 1 -1"),
        ", line 3: got 'nan'; wanted a finite number",
    ),
    "fractional sample": (
        with_line(3, "3.5 1 0 0 0 1 -1"),
        ", line 3: got '3.5' for the sample; wa",
    ),
    "underscore": (with_line(3, "3_0 1 0 0 0 4 -1"), ", line 3: got '3_0' for the sample; wanted"),
    "underscore in a number": (
        with_line(3, "3 1 1_0 0 0 4 -1"),
        ", line 3: got '1_0'; wanted a finite number",
    ),
    "no parent": (
        with_line(4, "8 2 20 5 0 1 9"),
        ", line 4: got the parent 9, which is no sample of",
    ),
    "twice": (with_line(4, "7 2 20 5 0 1 3"), ", line 4: got the node 7 again; wanted it once"),
    "own parent": (
        with_line(4, "8 2 20 5 0 1 8"),
        ", line 4: got an edge from the node 8 to itself",
    ),
    "each other's": (
        with_line(3, "3 1 0 0 0 4 7"),
        r", line 3: got the edge \(7, 3\) again; wanted",
    ),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_errors_name_file_and_line(write, text, message):
    with pytest.raises(NetworkFileError, match=rf"tree\.swc{message}"):
        read_swc(write(text))

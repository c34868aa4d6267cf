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


def test_integers_may_be_written_as_floats(write):
    text = TREE.replace("7 2 10 0 0 2.0 3 ", "7.000 2.0 10 0 0 2.0 3. ")
    graph = read_swc(write(text))
    assert list(graph) == [7, 3, 8, 12]
    assert graph.nodes[7]["type"] == 2
    assert graph.edges == read_swc(write(TREE)).edges


@pytest.mark.parametrize("separator", [",", ";", ", ", " ;\t"])
def test_columns_may_be_separated_by_commas_or_semicolons(write, separator):
    lines = [line.partition("#")[0].split() for line in TREE.splitlines()[1:]]
    text = "\n".join(separator.join(words) for words in lines)
    expected = read_swc(write(TREE))
    for graph in (read_swc(write(text)), read_swc(write(text.replace("\n", f"{separator}\n")))):
        assert dict(graph.nodes) == dict(expected.nodes)
        assert graph.edges == expected.edges


SOMA = """\
1 1 0 0 0 0 -1
2 1 0 5 0 5 1
3 1 0 -5 0 5 1
4 3 10 0 0 2 1
5 3 20 0 0 1 4
6 2 -10 0 0 1 3
7 2 -20 0 0 1 6
"""


def test_samples_of_a_type_are_left_out(write):
    """The soma's three points, one of radius 0, are no vessels; what grew from them has roots."""
    graph = read_swc(write(SOMA), omit_types=(1,), length_unit=1.0)
    assert {*graph.edges} == {(4, 5), (6, 7)}
    assert [node for node, inlet in graph.nodes(data="inlet") if inlet] == [4, 6]
    assert graph.edges[4, 5]["radius"] == 1.5
    validate_graph(graph)


def test_everything_left_out_is_no_network(write):
    with pytest.raises(NetworkFileError, match="got 0 samples and no link"):
        read_swc(write(SOMA), omit_types=(1, 2, 3))


MALFORMED = {
    "radius zero": (
        SOMA,
        r", line 1: got the radius 0.0; wanted a positive one. Correct it, or leave out the samples"
        r" of its type: omit_types=\(1,\)",
    ),
    "decimal comma": (
        with_line(3, "3 1 0 0 0 4,5 -1"),
        ", line 3: got '4,5'; wanted a finite number",
    ),
    "decimal comma between semicolons": (
        with_line(3, "3;1;0;0;0;4,5;-1"),
        ", line 3: got '4,5'; wanted a finite number",
    ),
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

"""MANworks' .pts: the order of points, joints, conditions, radii."""

import numpy as np
import pytest

from mixeddim.networks.graphs import node_positions, validate_graph
from mixeddim.networks.io import NetworkFileError, read_manworks

# A vessel of three edges that parts in two.
FORK = """\
BEGIN_LIST
BEGIN_ARC
BC DIR 32.0
BC INT
 0 0.0 0.5 0.5 start
 0 0.6 0.5 0.5 end
 0 0.2 0.5 0.5 point
 0 0.4 0.5 0.5 point
END_ARC

BEGIN_ARC
BC INT
BC DIR 15
 1 0.6 0.50 5e-1 start
 1 0.9 0.9 0.5 end
END_ARC
BEGIN_ARC
BC INT
BC MIX -1.5
 2 0.6 0.5 0.5 start
 2 0.9 0.1 0.5 end
END_ARC
END_LIST
"""
RADII = "BEGIN_LIST\n0.03\n2e-2\n0.02\nEND_LIST\n"


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "network.pts"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_file


def with_line(number: int, text: str) -> str:
    lines = FORK.splitlines()
    lines[number - 1] = text
    return "\n".join(lines)


def test_the_end_comes_before_the_points_between(write):
    graph = read_manworks(write(FORK), write(RADII, "radii.pts"), length_unit=1e-3)
    x = node_positions(graph)[:, 0]
    np.testing.assert_allclose(x, [0, 0.2e-3, 0.4e-3, 0.6e-3, 0.9e-3, 0.9e-3], rtol=1e-14)
    assert list(graph.edges) == [(0, 1), (1, 2), (2, 3), (3, 4), (3, 5)]
    assert [arc for *_, arc in graph.edges(data="arc")] == [0, 0, 0, 1, 2]
    radii = [radius for *_, radius in graph.edges(data="radius")]
    np.testing.assert_allclose(radii, [3e-5, 3e-5, 3e-5, 2e-5, 2e-5])
    assert [node for node, inlet in graph.nodes(data="inlet") if inlet] == [0, 4]
    assert [graph.nodes[node]["pressure"] for node in (0, 4)] == [32.0, 15.0]
    assert graph.nodes[5]["mixed"] == -1.5
    validate_graph(graph)


def test_radii_are_one_number_or_left_to_the_user(write):
    assert read_manworks(write(FORK), 0.1).edges[3, 4] == {"arc": 1, "radius": 0.1}
    assert read_manworks(write(FORK)).edges[3, 4] == {"arc": 1}


MALFORMED = {
    "empty list": ("BEGIN_LIST\nEND_LIST\n", "got no BEGIN_ARC; wanted arcs of points. Pass the"),
    "radii": (
        RADII,
        "line 2: got '0.03' outside an arc; .* radii have a file of their own, radii=",
    ),
    "cut off": (
        FORK[:150],
        "got the end of the file within an arc: it may be cut off. Complete it",
    ),
    "cut off between arcs": (
        FORK[: FORK.index("END_ARC") + 8],
        "got the end of the file without END_LIST: it may be cut off",
    ),
    "no end of an arc": (
        with_line(9, ""),
        "line 11: got 'BEGIN_ARC' within an arc; wanted each arc",
    ),
    "no begin of an arc": (
        with_line(11, ""),
        "line 12: got 'BC' outside an arc; wanted each arc bet",
    ),
    "one point": (
        with_line(15, ""),
        "line 11: got an arc of 1 points and 2 conditions BC; wanted 2",
    ),
    "one condition": (
        with_line(3, ""),
        "line 2: got an arc of 4 points and 1 conditions BC; wanted",
    ),
    "no value": (
        with_line(3, "BC DIR"),
        "line 3: got 'BC DIR'; wanted 'BC DIR' or 'BC MIX' and a p",
    ),
    "another word": (with_line(3, "BC NEU 1"), "line 3: got 'BC NEU 1'; wanted 'BC DIR' or"),
    "missing coordinate": (
        with_line(7, "0 0.2 0.5 "),
        "line 7: got 3 columns; wanted 4: index, x,",
    ),
    "word for a number": (
        with_line(7, "0 0.2 half 0.5 point"),
        "line 7: got 'half'; wanted a finite",
    ),
    "not a number": (with_line(7, "0 0.2 inf 0.5 point"), "line 7: got 'inf'; wanted a finite"),
    "a point twice": (
        with_line(8, " 0 0.2 0.5 0.5 point"),
        "line 8: got an edge from the node 1 to",
    ),
    "an arc twice": (with_line(21, "2 0.9 0.9 0.5 end"), r"line 21: got the edge \(3, 4\) again"),
    "two pressures": (
        FORK.replace("MIX -1.5", "DIR 3").replace("0.9 0.1", "0.0 0.5"),
        "line 19: got the pressure 3.0 at a point that has 32.0 from another arc; wanted one",
    ),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_errors_name_file_and_line(write, text, message):
    with pytest.raises(NetworkFileError, match=rf"network\.pts(, |: ){message}"):
        read_manworks(write(text))


def test_radii_belong_to_arcs(write):
    with pytest.raises(
        NetworkFileError, match=r"radii\.pts: got 2 radii; wanted 3, one for each arc"
    ):
        read_manworks(write(FORK), write("0.1\n0.2", "radii.pts"))
    with pytest.raises(NetworkFileError, match=r"radii\.pts, line 1: got 'wide'; wanted a finite"):
        read_manworks(write(FORK), write("wide\n", "radii.pts"))

"""CSV tables: columns and delimiters of one's own, and what is wrong with broken ones."""

import pytest

from mixeddim.networks.graphs import validate_graph
from mixeddim.networks.io import NetworkFileError, read_csv, write_csv

NODES = "node,x,y,z,inlet,pressure\n4,0,0,0,true,4.5e3\n7,0,0,1,False,\n2, 1,1,2,,3000\n"
EDGES = "start,end,radius,kind\n4,7,0.2,artery\n7,2,0.1,\n"


@pytest.fixture
def read(tmp_path):
    def read_texts(nodes: str = NODES, edges: str = EDGES, **options):
        (tmp_path / "nodes.csv").write_text(nodes, encoding="utf-8")
        (tmp_path / "edges.csv").write_text(edges, encoding="utf-8")
        return read_csv(tmp_path / "nodes.csv", **options)

    return read_texts


def test_columns_become_attributes(read):
    graph = read(length_unit=1e-3)
    assert dict(graph.nodes) == {
        4: {"pos": (0.0, 0.0, 0.0), "inlet": True, "pressure": 4500.0},
        7: {"pos": (0.0, 0.0, 1e-3), "inlet": False},
        2: {"pos": (1e-3, 1e-3, 2e-3), "inlet": False, "pressure": 3000},
    }
    assert graph.edges[4, 7] == {"radius": pytest.approx(2e-4), "kind": "artery"}
    assert graph.edges[7, 2] == {"radius": pytest.approx(1e-4)}
    validate_graph(graph)


def test_columns_delimiter_and_files_can_be_chosen(tmp_path):
    (tmp_path / "points.txt").write_text("\ufeffid; px; py; pz\r\na;0;0;0\r\nb;1;0;0\r\n")
    (tmp_path / "vessels.txt").write_text('"from";to;d\r\n"a";b;0.5\r\n')
    graph = read_csv(
        tmp_path / "points.txt",
        tmp_path / "vessels.txt",
        delimiter=";",
        node="id",
        position=("px", "py", "pz"),
        ends=("from", "to"),
        radius="d",
    )
    assert list(graph.edges(data=True)) == [("a", "b", {"radius": 0.5})]


def test_columns_may_have_any_name(read):
    """Not even words that the code uses for something else are in the way."""
    graph = read(
        nodes="node,x,y,z,graph,pos,radius\n1,0,0,0,1,2,a\n2,0,0,1,3,4,b\n",
        edges="start,end,radius,u,self\n1,2,1,5,6\n",
        length_unit=2.0,
    )
    pos = {"pos": (0.0, 0.0, 2.0), "inlet": False}
    assert graph.nodes[2] == pos | {"graph": 3, "radius": "b"}
    assert graph.edges[1, 2] == {"radius": 2.0, "u": 5, "self": 6}


def test_a_table_without_radii(read):
    assert read(radius=None).edges[4, 7] == {"radius": 0.2, "kind": "artery"}
    assert read(edges="start,end\n4,7\n", radius=None).edges[4, 7] == {}


VOREEN_NODES = "\ufeffid;pos_x;pos_y;pos_z;degree\n0;0;0;0;1\n1;0;0;1,5;1\n"
VOREEN_EDGES = "id;node1id;node2id;length;avgRadiusAvg\n7;0;1;1,5;0,25\n"


def test_columns_of_voreen_and_decimal_commas(read):
    graph = read(VOREEN_NODES, VOREEN_EDGES, delimiter=";", decimal=",", length_unit=2.0)
    assert graph.nodes[1] == {"pos": (0.0, 0.0, 3.0), "inlet": False, "degree": 1}
    assert graph.edges[0, 1] == {"radius": 0.5, "id": 7, "length": 1.5}


def test_a_column_of_ones_own_name_has_priority(read):
    graph = read(nodes="id,node,x,y,z\n8,4,0,0,0\n9,7,0,0,1\n", edges="start,end,radius\n4,7,1\n")
    assert graph.nodes[7]["id"] == 9


def test_diameters(read):
    edges = EDGES.replace("radius", "diameter")
    assert read(edges=edges, diameter="diameter").edges[4, 7]["radius"] == 0.1
    both = "start,end,radius,d\n4,7,0.3,0.2\n"
    assert read(edges=both).edges[4, 7] == {"radius": 0.3, "d": 0.2}
    assert read(edges=both, diameter="d").edges[4, 7] == {"radius": 0.1}


@pytest.mark.parametrize(
    ("decimal", "cell", "advice"),
    [(".", "0,5", "','"), (",", "0.5", "'.'"), (",", "1.000,5", "'.'")],
)
def test_another_decimal_sign_is_named(read, decimal, cell, advice):
    edges = f"start;end;radius\n4;7;{cell}\n"
    with pytest.raises(
        NetworkFileError,
        match=rf"got '{cell}.*Correct the column 'radius', or pass decimal={advice}",
    ):
        read(NODES.replace(",", ";").replace("4.5e3", "4"), edges, delimiter=";", decimal=decimal)


def test_signs_that_cannot_be_told_apart(read):
    with pytest.raises(ValueError, match="got ',' as decimal sign and as delimiter; wanted two"):
        read(decimal=",")
    with pytest.raises(ValueError, match=r"got decimal='·'; wanted '\.' or ','"):
        read(decimal="·")


def test_a_column_of_diameters_is_named(read):
    with pytest.raises(
        NetworkFileError, match=r"columns start, end, diam, kind; .*pass diameter='diam'\. Add it"
    ):
        read(edges=EDGES.replace("radius", "diam"))


def test_columns_are_named_as_in_the_file(read):
    with pytest.raises(NetworkFileError, match="columns node1id, node2id, r; wanted one 'radius'"):
        read(edges="node1id,node2id,r\n4,7,1\n")


@pytest.mark.parametrize("sign", [";", "\t"])
def test_another_separator_is_named(read, sign):
    with pytest.raises(NetworkFileError) as error:
        read(NODES.replace(",", sign))
    assert f"seem to be separated by {sign!r}: pass it as delimiter=" in str(error.value)


@pytest.mark.parametrize(
    ("title", "found"), [("Radius [um]", "Radius [um]"), ("raduis", "raduis"), ("mean_radius",) * 2]
)
def test_a_column_that_looks_like_a_missing_one_is_named(read, title, found):
    with pytest.raises(NetworkFileError) as error:
        read(edges=EDGES.replace("radius", title))
    assert f"wanted one 'radius'. The column {found!r} looks like it. Add it" in str(error.value)


MALFORMED_NODES = {
    "empty": ("", r": got 0 lines; wanted one with the names of the columns and others below"),
    "titles only": ("node,x,y,z\n", r": got 1 lines; wanted one with the names"),
    "missing column": (
        "node,x,z\n1,0,0\n",
        r", line 1: got the columns node, x, z; wanted one 'y'. Add it, pass the name it has here",
    ),
    "another delimiter": (
        NODES.replace(",", ";"),
        r", line 1: got the columns node;x;.* another del",
    ),
    "column twice": (NODES.replace("pressure", "x"), ", line 1: got the columns .* wanted one 'x'"),
    "attribute twice": (
        NODES.replace("pressure", "inlet"),
        ", line 1: got the columns .* wanted each name once",
    ),
    "cell missing": (
        NODES.replace(",,3000", ",3000"),
        ", line 4: got 5 cells; wanted 6, one for eac",
    ),
    "word for a number": (
        NODES.replace("4,0,0,0", "4,0,a,0"),
        ", line 2: got 'a'; wanted a finite",
    ),
    "no number": (
        NODES.replace("4,0,0,0", "4,0,,0"),
        r", line 2: got ''; .* Correct the column 'y'",
    ),
    "not a number": (
        NODES.replace("4,0,0,0", "4,0,nan,0"),
        ", line 2: got 'nan'; wanted a finite nu",
    ),
    "word among numbers": (
        NODES.replace("3000", "low"),
        ", line 4: got 'low'; wanted a finite number. Correct the column 'pressure'",
    ),
    "infinite attribute": (
        NODES.replace("3000", "-inf"),
        ", line 4: got -inf; wanted a finite number",
    ),
    "doubtful inlet": (
        NODES.replace("False", "no"),
        ", line 3: got the inlet 'no'; wanted true or fa",
    ),
    "node twice": (NODES.replace("2, 1", "4, 1"), ", line 4: got the node 4 again; wanted it once"),
    "open quotation": (NODES + '"3,1,2', ", line 5: got cells that cannot be told apart"),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED_NODES.values(), ids=MALFORMED_NODES)
def test_errors_name_the_line_of_a_node(read, text, message):
    with pytest.raises(NetworkFileError, match=rf"nodes\.csv{message}"):
        read(nodes=text)


MALFORMED_EDGES = {
    "missing column": (
        "start,end\n4,7\n",
        ", line 1: got the columns start, end; wanted one 'radius",
    ),
    "dangling node": (
        EDGES.replace("7,2", "7,5"),
        ", line 3: got an edge to the node 5, which the file does not have; wanted one of its",
    ),
    "dangling word": (EDGES.replace("7,2", "7,x"), ", line 3: got an edge to the node 'x', which"),
    "self-loop": (EDGES.replace("7,2", "7,7"), ", line 3: got an edge from the node 7 to itself"),
    "edge twice": (
        EDGES.replace("7,2", "7,4"),
        r", line 3: got the edge \(7, 4\) again; wanted it",
    ),
    "no radius": (EDGES.replace("0.1", ""), r", line 3: got ''; .* Correct the column 'radius'"),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED_EDGES.values(), ids=MALFORMED_EDGES)
def test_errors_name_the_line_of_an_edge(read, text, message):
    with pytest.raises(NetworkFileError, match=rf"edges\.csv{message}"):
        read(edges=text)


def test_numbers_have_no_underscores(read):
    """Python reads 1_2 as 12; in a table it is the name of something."""
    nodes = read(nodes="node,x,y,z,name\n4,0,0,0,1_2\n7,0,0,1,1_3\n2,0,1,2,2_1\n").nodes
    assert [name for _, name in nodes(data="name")] == ["1_2", "1_3", "2_1"]
    with pytest.raises(NetworkFileError, match=r"edges\.csv, line 2: got '0_2'; wanted a finite"):
        read(edges=EDGES.replace("0.2", "0_2"))


def test_both_tables_are_replaced_or_none(fork, tmp_path):
    path = write_csv(fork, tmp_path / "nodes.csv")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    graph = fork.copy()
    graph.nodes[0]["pressure"] = 1.0
    graph.edges[0, 1]["start"] = 1.0
    with pytest.raises(ValueError, match=r"got an attribute 'start'; wanted other names than star"):
        write_csv(graph, path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_two_tables_need_two_files(fork, tmp_path):
    with pytest.raises(ValueError, match=r"got the file 'a\.csv' for both tables; wanted two"):
        write_csv(fork, tmp_path / "a.csv", tmp_path / "a.csv")


def test_positions_in_a_plane_are_refused(read):
    with pytest.raises(ValueError, match=r"got position=\('x', 'y'\); wanted three names. Give"):
        read(position=("x", "y"))


def test_a_table_of_edges_needs_a_name(tmp_path, fork):
    (tmp_path / "points.csv").write_text(NODES)
    for call in (lambda: read_csv(tmp_path / "points.csv"), lambda: write_csv(fork, "points.csv")):
        with pytest.raises(
            ValueError, match=r"got the table of nodes 'points\.csv' and none of edg"
        ):
            call()

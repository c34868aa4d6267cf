"""What is written comes back: positions, radii, topology, attributes, to the last bit."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mixeddim.networks.graphs import NetworkError
from mixeddim.networks.io import read_network, write_network

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
COORDINATES = st.floats(-1e150, 1e150)  # VTK computes norms of them
NUMBERS = st.one_of(st.booleans(), st.integers(-(2**63) + 1, 2**63 - 1), FLOATS)
NAMES = ("pressure", "flow", "type", "hematocrit", "blanks, commas", "µ'")
MARKUP = ('R<µ & "wide"', "R>µ")
LABELS = {
    "numbers": st.integers(-(10**12), 10**12),
    "words": st.text(st.characters(codec="utf-8", categories=["L", "P", "S"]), min_size=1),
}


@st.composite
def networks(draw, labels=LABELS["numbers"], *, names=NAMES, gaps=True):
    """Draw a graph of distinct points; with `gaps` some attributes are missing on some elements."""
    nodes = draw(st.lists(labels, min_size=2, max_size=6, unique_by=str))
    pairs = [(u, v) for i, u in enumerate(nodes) for v in nodes[:i]]
    edges = draw(st.lists(st.sampled_from(pairs), min_size=1, unique=True))
    common = draw(st.lists(st.sampled_from(names), unique=True, max_size=3))

    def attributes():
        return {name: draw(NUMBERS) for name in common if not gaps or draw(st.booleans())}

    graph = nx.Graph()
    for node in nodes:
        pos = tuple(draw(COORDINATES) for _ in range(3))
        graph.add_node(node, **attributes(), pos=pos, inlet=draw(st.booleans()))
    for u, v in edges:
        graph.add_edge(u, v, **attributes(), radius=draw(st.floats(1e-9, 1e9)))
    return graph


def assert_same(graph, expected, labels=None):
    """Compare nodes, edges, their order and what they carry; `labels` maps old labels to new."""
    names = {node: node for node in expected} if labels is None else labels
    assert list(graph) == [names[node] for node in expected]
    assert list(graph.edges) == [(names[u], names[v]) for u, v in expected.edges]
    for (node, found), (_, wanted) in zip(
        graph.nodes(data=True), expected.nodes(data=True), strict=True
    ):
        assert found == wanted, node
        assert type(found["inlet"]) is bool
    assert list(graph.edges.values()) == list(expected.edges.values())


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("name", ["network.graphml", "nodes.csv"])
def test_text_keeps_labels_types_and_gaps(name, labels, tmp_path_factory):
    path = tmp_path_factory.mktemp("round_trip") / name

    @given(networks(labels, names=NAMES + MARKUP))
    @settings(max_examples=60, deadline=None)
    def check(graph):
        found = read_network(write_network(graph, path))
        assert_same(found, graph)
        for elements in (found.nodes, found.edges):
            expected = graph.nodes if elements is found.nodes else graph.edges
            for key, attributes in elements.items():
                for attribute, value in attributes.items():
                    assert type(value) is type(expected[key][attribute])

    check()


def test_vtp_numbers_its_points(tmp_path):
    """One of many: a process of its own reads each file."""
    path = tmp_path / "network.vtp"

    @given(networks())
    @settings(max_examples=8, deadline=None, phases=[Phase.generate])
    def check(graph):
        ordinals = {node: ordinal for ordinal, node in enumerate(graph)}
        assert_same(read_network(write_network(graph, path)), _as_columns(graph), ordinals)

    check()


@pytest.mark.parametrize("name", ["network.graphml", "nodes.csv"])
@pytest.mark.parametrize("labels", [("1", "01", "2", "3"), ("1_0", "10", "2", "3")])
def test_strings_that_python_would_read_as_one_integer_stay_apart(name, labels, fork, tmp_path):
    graph = nx.relabel_nodes(fork, dict(zip(fork, labels, strict=True)))
    assert_same(read_network(write_network(graph, tmp_path / name)), graph)


@pytest.mark.parametrize("name", ["network.graphml", "nodes.csv", "network.vtp", "network.dgf"])
def test_positions_may_be_arrays_and_inlets_be_set_where_they_are(name, fork, tmp_path):
    graph = fork.copy()
    for node, attributes in graph.nodes(data=True):
        attributes["pos"] = np.reshape(attributes["pos"], (1, 3))
        if node > 0:
            del attributes["inlet"]
    graph.nodes[0]["inlet"] = np.True_
    options = {"node_parameters": {"inlet": 0}, "edge_parameters": {"radius": 0}}
    path = write_network(graph, tmp_path / name)
    assert_same(read_network(path, **(options if name == "network.dgf" else {})), fork)


@pytest.mark.parametrize("name", [*MARKUP, "", "R\nS"])
def test_names_that_vtk_cannot_read_back_are_refused(name, fork, tmp_path):
    graph = fork.copy()
    graph.nodes[0][name] = 1.0
    with pytest.raises(ValueError, match=r"got the attribute '(R.*)?'; wanted a name without <, >"):
        write_network(graph, tmp_path / "network.vtp")


def _as_columns(graph):
    """Return the graph with each attribute of the one type that a VTK array has."""
    copy = graph.copy()
    for elements in (copy.nodes, copy.edges):
        for name in {name for attributes in elements.values() for name in attributes} - {
            "pos",
            "inlet",
        }:
            column = np.array([attributes.get(name, np.nan) for attributes in elements.values()])
            for attributes, value in zip(elements.values(), column.tolist(), strict=True):
                if name in attributes:
                    attributes[name] = value
    return copy


@given(networks(gaps=False))
@settings(max_examples=60, deadline=None)
def test_dgf_numbers_its_vertices(tmp_path_factory, graph):
    path = tmp_path_factory.getbasetemp() / "network.dgf"
    columns = {}
    for kind, elements in (("node", graph.nodes), ("edge", graph.edges)):
        first = next(iter(elements.values()))
        columns[f"{kind}_parameters"] = sorted(first.keys() - {"pos"})
    write_network(graph, path, **columns)
    found = read_network(
        path, **{kind: {name: i for i, name in enumerate(names)} for kind, names in columns.items()}
    )
    ordinals = {node: ordinal for ordinal, node in enumerate(graph)}
    for attributes in (*graph.nodes.values(), *graph.edges.values()):
        for name in attributes.keys() - {"pos", "inlet"}:
            attributes[name] = float(attributes[name])
    assert_same(found, graph, ordinals)


NOT_WRITABLE = {
    "no edge": (lambda graph: graph.remove_edges_from(list(graph.edges)), "Graph of 0 edges; wan"),
    "a tuple as a label": (
        lambda graph: nx.relabel_nodes(graph, {0: (0, 0)}, copy=False),
        r"got the label \(0, 0\) of a node; wanted integers or strings .*convert_node_labels_to",
    ),
    "labels of one spelling": (
        lambda graph: nx.relabel_nodes(graph, {0: "1"}, copy=False),
        "got the label '?1'? of a node",
    ),
    "a label of two lines": (
        lambda graph: nx.relabel_nodes(graph, {0: "a\rb"}, copy=False),
        r"got the label 'a\\rb' of a node; wanted integers or strings of one line",
    ),
    "a name in use": (
        lambda graph: graph.nodes[0].update(x=1.0),
        "got an attribute 'x'; wanted other names than .*x, y, z, which the file has for",
    ),
}


@pytest.mark.parametrize("name", ["network.graphml", "nodes.csv"])
@pytest.mark.parametrize(("spoil", "message"), NOT_WRITABLE.values(), ids=NOT_WRITABLE)
def test_what_a_file_cannot_hold_is_refused(name, spoil, message, fork, tmp_path):
    graph = fork.copy()
    spoil(graph)
    with pytest.raises(ValueError, match=message):
        write_network(graph, tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["network.graphml", "nodes.csv", "network.vtp", "network.dgf"])
def test_a_file_stays_whole_where_writing_fails(name, fork, tmp_path):
    path = write_network(fork, tmp_path / name)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    graph = fork.copy()
    del graph.nodes[2]["pos"]
    with pytest.raises(NetworkError, match="node 2 has position None; wanted three numbers"):
        write_network(graph, path)
    graph = fork.copy()
    graph.nodes[2]["inlet"] = "yes"  # a string, which would be left out
    with pytest.raises(NetworkError, match="node 2 has inlet 'yes'; wanted True or False"):
        write_network(graph, path)
    with pytest.raises(ValueError, match="got a DiGraph; wanted an undirected"):
        write_network(nx.DiGraph(fork.edges), path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files


def test_attributes_that_are_no_finite_numbers_are_left_out(fork, tmp_path):
    graph = fork.copy()
    graph.nodes[0].update(kind="artery", pressure=float("nan"), ratio=np.float64(0.5), many=2**70)
    for name in ("network.graphml", "nodes.csv", "network.vtp"):
        found = read_network(write_network(graph, tmp_path / name))
        assert found.nodes[0] == {"pos": (0.5, 0.5, 0.2), "inlet": True, "ratio": 0.5}


def test_unknown_suffixes_are_explained(fork):
    with pytest.raises(ValueError, match=r"got the file 'a\.stl'; wanted one that ends in \.csv, "):
        read_network("a.stl")
    with pytest.raises(ValueError, match=r"got the file 'a\.swc'; wanted one that ends in \.csv, "):
        write_network(fork, "a.swc")


@pytest.mark.parametrize("name", ["a.dat", "a.pts", "a.swc", "a.vtk", "a.graphml", "nodes.csv"])
def test_missing_files_are_explained(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got '.*', which is no file; wanted a network"):
        read_network(tmp_path / name)

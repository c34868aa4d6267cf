"""Damaged files end in a graph or in a NetworkFileError, whatever was done to them."""

import random
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pyvista as pv

from mixeddim.networks.graphs import node_positions
from mixeddim.networks.io import (
    NetworkFileError,
    polylines,
    read_csv,
    read_dgf,
    read_graphml,
    read_manworks,
    read_network,
    read_secomb,
    read_swc,
    read_vtk,
)

MESHES = Path(__file__).resolve().parents[3] / "meshes"
NUMBERS = b"-1", b"0", b"7", b"1e999", b"nan", b"99999999999", b"9" * 30, b"", b"1.5", b"x"


def flip_bytes(rng: random.Random, data: bytes) -> bytes:
    flipped = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        flipped[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(flipped)


def cut_off(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def delete_or_repeat_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    start = rng.randrange(len(lines))
    some = lines[start : start + rng.randint(1, 3)]
    return b"\n".join(lines[:start] + some * rng.choice([0, 0, 2]) + lines[start + len(some) :])


def delete_column(rng: random.Random, data: bytes) -> bytes:
    column, lines = rng.randrange(6), data.split(b"\n")
    start = rng.randrange(len(lines))
    for row in range(start, min(start + rng.choice([1, 2, len(lines)]), len(lines))):
        cells = re.split(rb"([ ,\t]+)", lines[row])
        lines[row] = b"".join(cells[: 2 * column] + cells[2 * column + 2 :])
    return b"\n".join(lines)


def swap_words(rng: random.Random, data: bytes) -> bytes:
    words = re.split(rb"([\s,<>\"=]+)", data)
    one, other = (2 * rng.randrange(len(words) // 2) for _ in range(2))
    words[one], words[other] = words[other], words[one]
    return b"".join(words)


def replace_number(rng: random.Random, data: bytes) -> bytes:
    number = rng.choice(list(re.finditer(rb"[-+.\de]*\d", data)))
    return data[: number.start()] + rng.choice(NUMBERS) + data[number.end() :]


MUTATIONS = flip_bytes, cut_off, delete_or_repeat_lines, delete_column, swap_words, replace_number


def mutations(data: bytes, number: int):
    """Yield damaged versions of a file, one kind of damage after the other."""
    for seed in range(number):
        yield MUTATIONS[seed % len(MUTATIONS)](random.Random(seed), data)


def is_read(reader, path: Path, data: bytes) -> bool:
    """Tell whether a file is read; any error but NetworkFileError is the test's."""
    path.write_bytes(data)
    try:
        graph = reader(path)
    except NetworkFileError:
        return False
    assert np.isfinite(node_positions(graph)).all()
    assert graph.number_of_edges() > 0
    return True


def with_semicolons(source: Path, target: Path) -> Path:
    """Write a table anew, with semicolons between its columns and decimal commas."""
    target.write_bytes(source.read_bytes().replace(b",", b";").replace(b".", b","))
    return target


TEXTS = {
    "dgf": (
        "capillaries.dgf",
        lambda path: read_dgf(path, node_parameters={"pressure": 0}, edge_parameters={"radius": 0}),
    ),
    "graphml": ("mesh.graphml", read_graphml),
    "csv, nodes": ("y_nodes.csv", lambda path: read_csv(path, MESHES / "y_edges.csv")),
    "csv, edges": ("y_edges.csv", lambda path: read_csv(MESHES / "y_nodes.csv", path)),
    "csv, diameters": (
        "y_edges.csv",
        lambda path: read_csv(MESHES / "y_nodes.csv", path, diameter="radius"),
    ),
    "csv, decimal commas": (
        "y_edges.csv",
        lambda path: read_csv(
            with_semicolons(MESHES / "y_nodes.csv", path.parent / "semicolons_nodes.csv"),
            with_semicolons(path, path.parent / "semicolons_edges.csv"),
            delimiter=";",
            decimal=",",
        ),
    ),
    "swc": ("tree.swc", read_swc),
    "swc, types": ("tree.swc", lambda path: read_swc(path, omit_types=(1, 5))),
    "graphml, diameters": ("mesh.graphml", lambda path: read_graphml(path, diameter="radius")),
    "secomb": ("capillaries.dat", read_secomb),
    "manworks": ("rhombus.pts", read_manworks),
    "manworks, radii": (
        "rhombus_radii.pts",
        lambda path: read_manworks(MESHES / "rhombus.pts", path),
    ),
}


@pytest.mark.parametrize(("name", "reader"), TEXTS.values(), ids=TEXTS)
@pytest.mark.filterwarnings("default")  # networkx warns where GraphML leaves its types open
def test_damaged_text(name, reader, tmp_path):
    damaged = mutations((MESHES / name).read_bytes(), 300)
    read = [is_read(reader, tmp_path / name, data) for data in damaged]
    assert any(read)
    assert not all(read)


# Forks a process for each file from one that has loaded VTK, to be quick.
VTK_SERVER = """
import os, sys
import vtk_arrays
for line in sys.stdin:
    source, target, errors = line.rstrip().split("\\t")
    child = os.fork()
    if child == 0:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        try:
            vtk_arrays.main(source, target)
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def many_processes(tmp_path, monkeypatch):
    """Let `read_vtk` start its processes quickly; return the exit codes that they had."""
    codes = []
    with subprocess.Popen(
        [sys.executable, "-c", VTK_SERVER],
        cwd=Path(polylines.__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:

        def run(command, **_):
            errors = tmp_path / "errors"
            print(*command[-2:], errors, sep="\t", file=server.stdin, flush=True)
            codes.append(int(server.stdout.readline()))
            return subprocess.CompletedProcess(command, codes[-1], b"", errors.read_bytes())

        monkeypatch.setattr(polylines.subprocess, "run", run)
        yield codes
        server.stdin.close()


@pytest.mark.parametrize("suffix", [".vtp", ".vtk"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
def test_damaged_polylines(suffix, binary, many_processes, tmp_path):
    whole = tmp_path / f"whole{suffix}"
    pv.read(MESHES / "bent.vtp").save(whole, binary=binary)
    damaged = tmp_path / f"damaged{suffix}"
    reader = partial(read_vtk, diameter="radius") if binary else read_vtk
    assert is_read(reader, damaged, whole.read_bytes())
    read = [is_read(reader, damaged, data) for data in mutations(whole.read_bytes(), 90)]
    assert not all(read)
    assert len(many_processes) == 1 + len(read)


def test_a_file_that_crashes_vtk_is_refused(tmp_path):
    path = tmp_path / "huge.vtp"
    mesh = pv.read(MESHES / "bent.vtp")
    mesh.save(path, binary=False)
    count = f'NumberOfPoints="{mesh.n_points}"'
    path.write_text(path.read_text().replace(count, 'NumberOfPoints="1000000000000000000"'))
    with pytest.raises(NetworkFileError, match=r"huge\.vtp: got a file that VTK does not read"):
        read_vtk(path)


@pytest.mark.parametrize(
    "name", ["nodes.csv", "a.dat", "a.dgf", "a.graphml", "a.pts", "a.swc", "a.vtk", "a.vtp"]
)
@pytest.mark.parametrize("data", [b"", b"\n", bytes(range(256)) * 4, b"\0" * 100, b"1 2 3\n"])
def test_what_is_no_network_is_refused(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    (tmp_path / "edges.csv").write_bytes(data)
    with pytest.raises(NetworkFileError, match=path.stem):
        read_network(path)

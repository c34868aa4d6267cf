"""The Schur complement against its dense twin and the whole system; its file."""

import dataclasses
import os
import re
import stat
import zipfile

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

from mixeddim import (
    Coefficients,
    Grid,
    assemble,
    create_box,
    create_network,
    load_reduced,
    random_vascular_graph,
    reduce,
    save_reduced,
    solve,
)
from mixeddim.networks.generators import METHODS


@pytest.fixture(scope="module")
def reduced(system):
    return reduce(system)


def dense_twin(reduced):
    A_11 = reduced.A_11.toarray()
    A_31 = reduced.A_31.toarray()
    return reduced.A_33.toarray() - A_31 @ np.linalg.solve(A_11, A_31.T)


# --- The operator -----------------------------------------------------------------------------


@pytest.mark.parametrize("permeability", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    ("method", "cell_type"),
    [*((method, "tetrahedron") for method in sorted(METHODS)), ("capillary_mesh", "hexahedron")],
)
def test_back_substituted_solution_equals_the_monolithic_one(method, cell_type, permeability):
    box = create_box(6, cell_type=cell_type)
    graph = random_vascular_graph(25, 0.05, seed=4, method=method)
    coefficients = Coefficients(sigma_3d=1.0, permeability=permeability, f_1d=2.0)
    system = assemble(box, create_network(graph, box.spacing), coefficients)
    monolithic, reduced = solve(system), reduce(system)
    u_3d = np.linalg.solve(dense_twin(reduced), reduced.g)
    np.testing.assert_allclose(u_3d, monolithic.u_3d.x.array, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        reduced.back_substitute(u_3d), monolithic.u_1d.x.array, rtol=0, atol=1e-10
    )
    by_krylov = solve(system, "reduced", rtol=1e-12)
    for name in ("u_3d", "u_1d"):
        fields = (getattr(solution, name).x.array for solution in (by_krylov, monolithic))
        np.testing.assert_allclose(*fields, rtol=0, atol=1e-10)


def test_S_equals_its_dense_twin(reduced):
    S = dense_twin(reduced)
    rng = np.random.default_rng(0)
    v, V = rng.normal(size=len(S)), rng.normal(size=(len(S), 4))
    assert isinstance(reduced.S, LinearOperator)
    assert reduced.S.shape == S.shape
    np.testing.assert_allclose(reduced.S @ v, S @ v, rtol=0, atol=1e-13 * np.abs(S).sum(1).max())
    np.testing.assert_allclose(reduced.S @ V, S @ V, rtol=0, atol=1e-13 * np.abs(S).sum(1).max())
    np.testing.assert_array_equal(reduced.S.T @ v, reduced.S @ v)


def test_S_passes_the_dot_test(reduced):
    rng = np.random.default_rng(1)
    for _ in range(5):
        u, v = rng.normal(size=(2, len(reduced.b_3)))
        left, right = u @ (reduced.S @ v), (reduced.S @ u) @ v
        assert left == pytest.approx(right, abs=1e-13 * np.linalg.norm(reduced.S @ u))


def test_S_is_positive_definite_and_below_A_33(reduced):
    S = dense_twin(reduced)
    assert np.linalg.eigvalsh(S)[0] > 0
    # Eliminating the network only removes energy: A_33 - S is positive semidefinite.
    removed = np.linalg.eigvalsh(reduced.A_33.toarray() - S)
    assert removed[0] > -1e-13 * removed[-1]


def test_right_hand_side_is_that_of_block_elimination(reduced):
    expected = reduced.b_3 - reduced.A_31.toarray() @ np.linalg.solve(
        reduced.A_11.toarray(), reduced.b_1
    )
    np.testing.assert_allclose(reduced.g, expected, rtol=0, atol=1e-14 * np.abs(expected).max())


def test_parts_are_those_of_the_system(system, reduced):
    for name in ("K", "M", "Pi", "N", "A_11"):
        assert getattr(reduced, name) is getattr(system, name)
    for name in ("A_33", "A_31", "A_13", "W", "B"):
        assert abs(getattr(reduced, name) - getattr(system, name)).sum() == 0.0
    np.testing.assert_array_equal(reduced.b_3, system.b_3)
    np.testing.assert_array_equal(reduced.b_1, system.b_1)


def test_parts_own_their_memory(fork):
    """An array that views DOLFINx memory keeps its mesh, and MPI has communicators for 150 only."""
    box = create_box(2)
    reduced = reduce(assemble(box, create_network(fork, 0.5), Coefficients(), bcs_1d=[]))
    for name in ("K", "M", "Pi", "N", "A_11"):
        A = getattr(reduced, name)
        for array in (A.data, A.indices, A.indptr):
            while array.base is not None:
                assert isinstance(array.base, np.ndarray), f"{name} views a {type(array.base)}"
                array = array.base


def test_grid_belongs_to_boxes_alone(system, reduced, fork):
    assert reduced.grid.shape == (5, 6, 4)
    on_mesh = assemble(system.tissue.mesh, create_network(fork, 0.3), Coefficients())
    assert reduce(on_mesh).grid is None


# --- The file ---------------------------------------------------------------------------------


def assert_equal(actual, expected):
    for field in dataclasses.fields(expected):
        left, right = getattr(actual, field.name), getattr(expected, field.name)
        if isinstance(right, Grid):
            assert (left.shape, left.cell_type) == (right.shape, right.cell_type)
            for name in ("lower", "cell_size", "node_of_dof"):
                np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        elif sparse.issparse(right):
            assert left.shape == right.shape
            assert abs(left - right).max() == 0.0
        else:
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", ["system.npz", "system", "with.dots.data"])
def test_a_saved_system_reads_back(reduced, tmp_path, name):
    save_reduced(reduced, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    read = load_reduced(str(tmp_path / name))
    assert_equal(read, reduced)
    v = np.random.default_rng(2).normal(size=len(reduced.b_3))
    np.testing.assert_array_equal(read.S @ v, reduced.S @ v)
    np.testing.assert_array_equal(read.g, reduced.g)


def test_the_cell_type_reads_back_and_older_files_have_tetrahedra(reduced, tmp_path):
    path = tmp_path / "system.npz"
    grid = dataclasses.replace(reduced.grid, cell_type="hexahedron")
    hexahedra = dataclasses.replace(reduced, grid=grid)
    save_reduced(hexahedra, path)
    assert_equal(load_reduced(path), hexahedra)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"grid.cell_type": "prism"})
    with pytest.raises(ValueError, match="its cells are 'prism' instead of one of"):
        load_reduced(path)
    del arrays["grid.cell_type"]
    np.savez(path, **arrays)
    assert_equal(load_reduced(path), reduced)


def test_a_system_without_a_grid_reads_back(reduced, tmp_path):
    bare = dataclasses.replace(reduced, grid=None)
    save_reduced(bare, tmp_path / "system.npz")
    assert load_reduced(tmp_path / "system.npz").grid is None


def test_a_failing_write_leaves_the_old_file_whole(reduced, tmp_path, monkeypatch):
    path = tmp_path / "system.npz"
    save_reduced(reduced, path)
    before = path.read_bytes()

    def write_half_of_it(file, **_):
        file.write(before[: len(before) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", write_half_of_it)
    with pytest.raises(OSError, match="No space left"):
        save_reduced(reduced, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_readable_by_whom_the_umask_allows(reduced, tmp_path):
    path = tmp_path / "system.npz"
    mask = os.umask(0o022)
    try:
        save_reduced(reduced, path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def flip_a_byte(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [
    lambda _: b"",
    lambda _: b"no such thing",
    lambda data: data[:100],
    lambda data: data[: len(data) // 2],
    lambda data: data[:-1],
    lambda data: b"\0" * len(data),
    flip_a_byte,
], ids=["empty", "garbage", "head", "half", "all but a byte", "zeros", "flipped byte"])  # fmt: skip
def test_a_damaged_file_is_an_error(reduced, tmp_path, damage):
    path = tmp_path / "system.npz"
    save_reduced(reduced, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=(
        r"got '.*system\.npz', which holds no complete reduced system \(.*\); wanted a file "
        r"written by mixeddim\.save_reduced\. Write it again\."
    )):  # fmt: skip
        load_reduced(path)


def test_no_bytes_of_a_file_are_trusted(reduced, tmp_path):
    """Whatever byte is flipped, reading gives the documented error or an equal system."""
    path = tmp_path / "system.npz"
    save_reduced(reduced, path)
    data = path.read_bytes()
    for position in np.random.default_rng(0).integers(0, len(data), size=60):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        try:
            assert_equal(load_reduced(path), reduced)
        except ValueError as error:
            refused = str(error)
        else:
            refused = None
        assert refused is None or "holds no complete reduced system" in refused


@pytest.mark.parametrize("change", [
    lambda arrays: arrays.pop("A_11.data"),
    lambda arrays: arrays.pop("b_1"),
    lambda arrays: arrays.pop("grid.lower"),
    lambda arrays: arrays.update({"K.indptr": arrays["K.indptr"][:-1]}),
    lambda arrays: arrays.update({"K.indices": arrays["K.indices"] + 10**6}),
    lambda arrays: arrays.update({"weights": arrays["weights"][:-1]}),
    lambda arrays: arrays.update({"b_3": arrays["b_3"][:-1]}),
    lambda arrays: arrays.update({"grid.shape": 10**6 * arrays["grid.shape"]}),
], ids=["matrix part missing", "vector missing", "grid part missing", "short indptr",
        "indices out of range", "short weights", "short b_3", "large grid"])  # fmt: skip
def test_a_file_of_parts_that_do_not_fit_is_an_error(reduced, tmp_path, change):
    path = tmp_path / "system.npz"
    save_reduced(reduced, path)
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match="holds no complete reduced system"):
        load_reduced(path)


@pytest.mark.parametrize(("shape", "claim"), [
    ((2**37,), "1.02e+03"),
    ((2**18, 2**19), "1.02e+03"),
    ((-(2**32), 2**32 - 2**10), "1.37e+11"),
], ids=["1 TiB", "1 TiB in rows", "a product that overflows"])  # fmt: skip
def test_a_file_that_claims_more_memory_than_there_is_is_refused(tmp_path, shape, claim):
    """The file is a few hundred bytes; numpy would allocate what its header claims."""
    path = tmp_path / "system.npz"
    np.savez_compressed(path, format=1)
    with zipfile.ZipFile(path, "a") as archive, archive.open("b_3.npy", "w") as member:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
    message = f"claim {re.escape(claim)} GiB; wanted at most what is free \\(.* GiB\\)"
    with pytest.raises(ValueError, match=message):
        load_reduced(path)


def test_the_arrays_of_a_file_are_added_up(reduced, tmp_path, monkeypatch):
    path = tmp_path / "system.npz"
    save_reduced(reduced, path)
    with np.load(path) as file:
        size = sum(array.nbytes for array in file.values())
    monkeypatch.setattr("mixeddim.memory.free_memory", lambda: size)
    assert_equal(load_reduced(path), reduced)
    monkeypatch.setattr("mixeddim.memory.free_memory", lambda: size - 1)
    with pytest.raises(ValueError, match="wanted at most what is free"):
        load_reduced(path)


def test_an_array_is_no_reduced_system(tmp_path):
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(ValueError, match="holds no complete reduced system"):
        load_reduced(tmp_path / "array.npy")


@pytest.mark.parametrize("name", ["", "nowhere.npz"])
def test_a_missing_file_is_explained(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"got '.*', which is no file; wanted a reduced"):
        load_reduced(tmp_path / name)

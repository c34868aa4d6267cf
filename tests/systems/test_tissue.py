"""What is made of a tissue once serves all networks in it, and nothing else."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import learning
import mixeddim as md
from learning.preconditioners.multigrid import geometric, tissue
from learning.preconditioners.multigrid.tissue import tissue_grids
from learning.systems import operators
from learning.systems.operators import batch_systems
from learning.systems.tissue import _TISSUES, MOST_TISSUES, _fingerprint, parts_of_tissue

PRECONDITIONERS = {
    "multigrid": learning.GeometricMultigrid(),
    "multigrid, degree 3, float32": learning.GeometricMultigrid(degree=3, dtype=torch.float32),
    "multigrid, cholesky": learning.GeometricMultigrid(smoother="cholesky"),
    "learned multigrid": learning.load_pretrained("multigrid"),
    "fast diagonalisation": learning.FastDiagonalisation(),
}


def assemble(num_cells=8, seed=0, **coefficients):
    box = md.create_box(num_cells)
    network = md.create_network(md.random_vascular_graph(8, 0.05, seed=seed), box.spacing)
    return md.assemble(box, network, md.Coefficients(sigma_3d=1.0, **coefficients))


@pytest.fixture(scope="module")
def systems():
    """Three networks in one tissue."""
    first, graphs = assemble(), [md.random_vascular_graph(8, 0.05, seed=i) for i in (1, 2)]
    others = [first.with_network(md.create_network(graph, 0.2)) for graph in graphs]
    return [md.reduce(system) for system in (first, *others)]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", 30)
    _TISSUES.clear()


def apply(preconditioner, system, dtype=torch.float64):
    batch = batch_systems([system], dtype)
    rng = np.random.default_rng(0)
    r = torch.tensor(rng.standard_normal((1, len(system.b_3))), dtype=dtype)
    with torch.no_grad():
        return batch.apply(r), preconditioner.setup([system], batch)(r)


def grids(system, dtype=torch.float64):
    batch = batch_systems([system], dtype)
    return tissue_grids([system], batch, dtype, 30, is_uniform=False)


@pytest.mark.parametrize("name", PRECONDITIONERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_was_kept_gives_the_same_bits(systems, name, dtype):
    preconditioner = PRECONDITIONERS[name]
    alone = []
    for system in systems:
        _TISSUES.clear()
        alone.append(apply(preconditioner, system, dtype))
    _TISSUES.clear()
    for system, (product, correction) in zip(systems, alone, strict=True):
        again, corrected = apply(preconditioner, system, dtype)
        assert torch.equal(again, product)
        assert torch.equal(corrected, correction)
    assert len(_TISSUES) == 1


def test_a_solve_for_another_network_makes_no_grids_of_its_own(systems, monkeypatch):
    made = []
    monkeypatch.setattr(tissue, "finest", lambda *args: made.append(1) or finest(*args))
    monkeypatch.setattr(operators, "stencils_of", lambda *args: made.append(2) or stencils(*args))
    M = PRECONDITIONERS["learned multigrid"]
    solutions = [learning.solve(system, M) for system in systems]
    other_loads = replace(systems[0], b_3=2.0 * systems[0].b_3, b_1=2.0 * systems[0].b_1)
    doubled = learning.solve(other_loads, M)
    assert sorted(made) in ([1, 2], [1])  # without compiled kernels there is one way to stencils
    np.testing.assert_allclose(doubled.x, 2.0 * solutions[0].x, rtol=1e-5)


@pytest.mark.parametrize("matrices", [1.0, 1e-15])
@pytest.mark.parametrize("loads", [1.0, 1e15])
def test_the_tissue_is_shared_in_any_unit(systems, monkeypatch, matrices, loads):
    made = []
    monkeypatch.setattr(tissue, "finest", lambda *args: made.append(1) or finest(*args))
    M, first = PRECONDITIONERS["learned multigrid"], systems[0]
    K_in_units, M_in_units = matrices * first.K, matrices * first.M
    for system in systems:
        plain = learning.solve(system, M)
        made.clear()
        scaled = replace(
            system, K=K_in_units, M=M_in_units,
            beta=matrices * system.beta, A_11=matrices * system.A_11,
            b_3=loads * system.b_3, b_1=loads * system.b_1,
        )  # fmt: skip
        found = learning.solve(scaled, M)
        assert len(made) == (system is first)
        np.testing.assert_allclose(found.x * (matrices / loads), plain.x, rtol=1e-5)


finest, stencils = tissue.finest, operators.stencils_of


def test_another_tissue_has_grids_of_its_own(systems):
    kept = grids(systems[0])
    assert grids(systems[1]) is kept
    for other in (
        assemble(),  # equal, but not the same matrices
        assemble(k_3d=2.0),
        assemble(num_cells=7),
    ):
        assert grids(md.reduce(other)) is not kept
    assert grids(systems[0], torch.float32) is not kept
    assert grids(systems[2]) is kept


@pytest.mark.parametrize("name", ["K", "M"])
@pytest.mark.parametrize("entry", [0, -1, slice(None)])
def test_values_changed_in_place_are_noticed(name, entry):
    system = md.reduce(assemble())
    M = learning.GeometricMultigrid()
    before, _ = apply(M, system)
    getattr(system, name).data[entry] *= 1.5
    changed = replace(system)  # A_0 is that of the new values
    product, correction = apply(M, changed)
    _TISSUES.clear()
    expected, corrected = apply(M, changed)
    assert torch.equal(product, expected)
    assert torch.equal(correction, corrected)
    assert not torch.equal(product, before)


ARRANGED = {
    "two neighbours swapped": lambda values: values[[1, 0, *range(2, len(values))]],
    "reversed": lambda values: values[::-1],
    "of the other sign": lambda values: -values,
    "a power of two larger": lambda values: 2.0**16 * values,
}


@pytest.mark.parametrize("part", ["data", "indices"])
@pytest.mark.parametrize("name", ARRANGED)
def test_numbers_in_another_order_are_noticed(name, part):
    """These change no sum, or only bits that get lost in the sum of many numbers."""
    K = sparse.random_array((64, 64), density=0.5, format="csr", rng=np.random.default_rng(0))
    K.data[1::2] *= -1.0
    before = _fingerprint(K)
    numbers = getattr(K, part)
    numbers[:] = ARRANGED[name](numbers.copy()).astype(numbers.dtype)
    assert _fingerprint(K) != before


def test_blocks_from_before_a_change_serve_no_other_system():
    """A system makes A_0 once; what was changed since is in the A_0 of systems made later."""
    first = md.reduce(assemble())
    M = learning.GeometricMultigrid()
    first.K.data[:] *= 1.5
    apply(M, first)
    later = replace(first)
    product, correction = apply(M, later)
    _TISSUES.clear()
    expected, corrected = apply(M, later)
    assert torch.equal(product, expected)
    assert torch.equal(correction, corrected)


def test_threads_share_a_tissue(systems):
    """While others take their turns among the tissues that are kept."""
    M = PRECONDITIONERS["learned multigrid"]
    alone = [learning.solve(system, M).x for system in systems]
    _TISSUES.clear()

    def solve(number):
        system = systems[number % 3]
        learning.solve(replace(system, K=system.K.copy()), M)
        return learning.solve(system, M).x

    with ThreadPoolExecutor(6) as threads:
        for number, x in enumerate(threads.map(solve, range(18))):
            np.testing.assert_array_equal(x, alone[number % 3])


def test_nothing_outlives_the_tissue():
    system = assemble()
    reduced = md.reduce(system)
    for preconditioner in PRECONDITIONERS.values():
        learning.solve(reduced, preconditioner)
    kept = weakref.ref(grids(reduced))
    assert len(_TISSUES) == 1
    assert kept() is not None
    del system, reduced
    gc.collect()
    assert len(_TISSUES) == 0
    assert kept() is None


def test_only_the_tissues_used_last_are_kept(systems):
    first = grids(systems[0])
    others = [replace(systems[0], K=systems[0].K.copy()) for _ in range(MOST_TISSUES)]
    for other in others[:-1]:
        grids(other)
        assert grids(systems[0]) is first
    for other in others:
        grids(other)
    assert len(_TISSUES) == MOST_TISSUES
    assert grids(systems[0]) is not first


def test_a_batch_of_many_keeps_for_itself(systems):
    assert parts_of_tissue(systems) == {}
    batch = batch_systems(systems)
    made = tissue_grids(systems, batch, torch.float64, 30, is_uniform=False)
    again = tissue_grids(systems, batch, torch.float64, 30, is_uniform=False)
    assert made is again
    assert len(_TISSUES) == 0

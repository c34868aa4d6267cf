"""The block system: its formulas, the elimination, and what holds whatever the problem."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mixeddim import (
    CircleMean,
    Coefficients,
    Dirichlet,
    PointTrace,
    Robin,
    assemble,
    create_box,
    create_network,
    random_vascular_graph,
    solve,
)
from mixeddim.networks.generators import METHODS

METHODS_OF_SOLUTION = ["direct", "krylov", "reduced"]


def block_matrix(system):
    blocks = [[system.A_33, system.A_31], [system.A_13, system.A_11]]
    return sparse.block_array(blocks).toarray()


def unconstrained(system):
    """Return the block matrix and right-hand side before elimination, dense, term by term."""
    tissue, network, coupling = system.side_3d, system.side_1d, system.coupling
    Pi, N = coupling.Pi.toarray(), coupling.N.toarray()
    WB = np.diag(coupling.weights * coupling.beta)
    A_33 = (tissue.K + tissue.M + tissue.R).toarray() + Pi.T @ WB @ Pi
    A_11 = (network.K + network.M + network.R).toarray() + N.T @ WB @ N
    A_31 = -Pi.T @ WB @ N
    A = np.block([[A_33, A_31], [A_31.T, A_11]])
    return A, np.concatenate([tissue.f + tissue.h, network.f + network.h])


def dirichlet(system):
    """Return which dofs of the block system are given, and the values."""
    free = np.concatenate([system.side_3d.is_free, system.side_1d.is_free])
    values = np.concatenate([system.side_3d.given_values, system.side_1d.given_values])
    return ~free, values


def diagonal(system):
    """Return what stands on the diagonal where a value is given: the mean of K on its side."""
    means = [side.K.diagonal().mean() for side in (system.side_3d, system.side_1d)]
    return np.repeat(means, [len(system.b_3), len(system.b_1)])


# --- Blocks -----------------------------------------------------------------------------------


def test_blocks_are_the_sums_of_their_parts(system):
    exchange = system.W @ system.B
    for block, parts in {
        "A_33": system.K + system.M + system.Pi.T @ exchange @ system.Pi,
        "A_31": -system.Pi.T @ exchange @ system.N,
        "A_11": system.K_1d + system.N.T @ exchange @ system.N,
    }.items():
        assert abs(getattr(system, block) - parts).max() < 1e-14 * abs(parts).max()
    assert abs(system.A_13 - system.A_31.T).max() == 0.0


def test_blocks_are_scipy_csr_of_matching_shapes(system):
    n_3, n_1 = len(system.b_3), len(system.b_1)
    shapes = {"A_33": (n_3, n_3), "A_31": (n_3, n_1), "A_13": (n_1, n_3), "A_11": (n_1, n_1)}
    for block, shape in shapes.items():
        assert isinstance(getattr(system, block), sparse.csr_array)
        assert getattr(system, block).shape == shape
    assert system.Pi.shape == (len(system.coupling.weights), n_3)
    assert system.N.shape == (len(system.coupling.weights), n_1)


def test_quadrature_points_measure_the_network(system, graph):
    network = create_network(graph, 0.2)
    coupling = assemble(system.tissue, network, Coefficients(permeability=3.0)).coupling
    edges = network.edge_of_cell[coupling.cells]
    for ordinal, (u, v, radius) in enumerate(graph.edges(data="radius")):
        here, ends = edges == ordinal, [np.array(graph.nodes[n]["pos"]) for n in (u, v)]
        length = np.linalg.norm(ends[1] - ends[0])
        assert coupling.weights[here].sum() == pytest.approx(length, rel=1e-13)
        np.testing.assert_allclose(coupling.beta[here], 2 * np.pi * radius * 3.0, rtol=1e-14)
        off = np.cross(coupling.points[here] - ends[0], ends[1] - ends[0])
        np.testing.assert_allclose(off, 0.0, atol=1e-15)
    # The basis of the network reproduces position at those points.
    x = network.P1.tabulate_dof_coordinates()
    np.testing.assert_allclose(coupling.N @ x, coupling.points, atol=1e-15)


def test_exchange_of_linear_fields_is_integrated_exactly(vessel, system):
    """<u, N'WBN u> is the integral of beta s^2 for u = s, the distance along the vessel."""
    network = create_network(vessel, 0.2)
    A = assemble(system.tissue, network, Coefficients(permeability=2.0)).coupling
    start, end = (np.array(vessel.nodes[n]["pos"]) for n in (0, 1))
    s = np.linalg.norm(network.P1.tabulate_dof_coordinates() - start, axis=1)
    length = np.linalg.norm(end - start)
    exchanged = A.weights * A.beta @ (A.N @ s) ** 2
    assert exchanged == pytest.approx(2 * np.pi * 0.08 * 2.0 * length**3 / 3, rel=1e-13)


def test_an_impermeable_wall_decouples(system, graph):
    network = create_network(graph, 0.25)
    decoupled = assemble(system.tissue, network, Coefficients(sigma_3d=1.0, permeability=0.0))
    assert abs(decoupled.A_31).max() == 0.0
    assert abs(decoupled.A_33 - (decoupled.K + decoupled.M)).max() == 0.0
    assert abs(decoupled.A_11 - decoupled.K_1d).max() == 0.0
    solution = solve(decoupled)
    np.testing.assert_allclose(solution.u_3d.x.array, 0.0, atol=1e-15)
    np.testing.assert_allclose(solution.u_1d.x.array, 1.0, rtol=1e-13)


@pytest.mark.parametrize("averaging", [None, CircleMean(7), PointTrace()], ids=str)
def test_any_mesh_gives_the_system_of_the_box(system, fork, averaging):
    box, network = system.tissue, create_network(fork, 0.2)
    on_box, on_mesh = (
        assemble(tissue, network, Coefficients(sigma_3d=1.0), averaging=averaging)
        for tissue in (box, box.mesh)
    )
    np.testing.assert_allclose(block_matrix(on_mesh), block_matrix(on_box), atol=1e-14)


# --- Elimination ------------------------------------------------------------------------------


def test_elimination_keeps_the_free_part_and_fills_the_diagonal(system):
    A, _ = unconstrained(system)
    given, _ = dirichlet(system)
    assert 0 < given.sum() < len(given)
    expected = np.where(np.outer(~given, ~given), A, 0.0) + np.diag(given * diagonal(system))
    np.testing.assert_allclose(block_matrix(system), expected, rtol=0, atol=1e-14 * np.abs(A).max())


def test_blocks_follow_sides_that_are_replaced(system):
    """As time steps and linearisations do, with any matrix of either side."""
    sides = {}
    for name in ("side_3d", "side_1d"):
        side = getattr(system, name)
        sides[name] = replace(side, M=side.M + 3.0 * side.K, R=side.R + 2.0 * side.K)
    changed = replace(system, **sides)
    u_3d, u_1d = (np.arange(len(b)) * 0.1 for b in (system.b_3, system.b_1))
    u = np.concatenate([u_3d, u_1d])
    given, values = dirichlet(changed)
    u[given] = values[given]
    b = np.concatenate([changed.b_3, changed.b_1])
    residual = block_matrix(changed) @ u - b
    split = len(u_3d)
    wanted = np.concatenate(changed.unconstrained_residual(u[:split], u[split:]))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(residual[~given], wanted[~given], rtol=0, atol=1e-12 * scale)


def test_elimination_lifts_the_given_values(system):
    A, b = unconstrained(system)
    given, values = dirichlet(system)
    expected = np.where(given, diagonal(system) * values, b - A @ values)
    np.testing.assert_allclose(
        np.concatenate([system.b_3, system.b_1]), expected, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("method", METHODS_OF_SOLUTION)
def test_solution_equals_that_of_the_free_dofs_by_hand(system, method):
    A, b = unconstrained(system)
    given, values = dirichlet(system)
    expected = values.copy()
    expected[~given] = np.linalg.solve(A[~given][:, ~given], (b - A @ values)[~given])
    solution = solve(system, method, rtol=1e-12)
    u = np.concatenate([solution.u_3d.x.array, solution.u_1d.x.array])
    np.testing.assert_allclose(u, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_given_values_are_reproduced_to_rounding(system):
    solution = solve(system)
    for u, side in ((solution.u_3d, system.side_3d), (solution.u_1d, system.side_1d)):
        assert len(side.dirichlet_dofs) > 0
        given = u.x.array[side.dirichlet_dofs]
        np.testing.assert_allclose(given, side.dirichlet_values, rtol=1e-15, atol=0)


def test_block_matrix_is_symmetric_positive_definite(system):
    A = block_matrix(system)
    assert np.abs(A - A.T).max() < 1e-15 * np.abs(A).max()
    eigenvalues = np.linalg.eigvalsh(A)
    assert eigenvalues[0] > 1e-6 * eigenvalues[-1]


def test_no_dirichlet_condition_leaves_the_operator_alone(fork):
    box = create_box(3)
    network = create_network(fork, 0.3)
    free = assemble(box, network, Coefficients(sigma_3d=1.0), bcs_1d=[])
    A, b = unconstrained(free)
    np.testing.assert_allclose(block_matrix(free), A, atol=1e-15)
    np.testing.assert_array_equal(np.concatenate([free.b_3, free.b_1]), b)


# --- Whatever the problem ---------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS_OF_SOLUTION)
def test_a_constant_is_the_solution_without_uptake(graph, method):
    network = create_network(graph, 0.25)
    system = assemble(create_box((4, 3, 5)), network, Coefficients(k_3d=2.0, permeability=5.0))
    solution = solve(system, method, rtol=1e-12)
    np.testing.assert_allclose(solution.u_3d.x.array, 1.0, rtol=0, atol=1e-10)
    np.testing.assert_allclose(solution.u_1d.x.array, 1.0, rtol=0, atol=1e-10)
    np.testing.assert_allclose(solution.wall_flux, 0.0, atol=1e-10)


@pytest.mark.parametrize("method", METHODS_OF_SOLUTION)
@pytest.mark.parametrize("coefficients", [
    Coefficients(), Coefficients(sigma_3d=1.0, permeability=0.0),
], ids=["constant state", "impermeable"])  # fmt: skip
def test_mass_balance_closes_where_nothing_flows(fork, coefficients, method):
    """All amounts are rounding errors then: their sum must not be compared with themselves."""
    system = assemble(create_box(4), create_network(fork, 0.25), coefficients)
    assert solve(system, method, rtol=1e-12).mass_balance.error < 1e-9


# Over four decades: beyond, rounding in a nearly singular system outweighs the smallest amounts.
positive = st.floats(-2.0, 2.0).map(lambda exponent: 10.0**exponent)
problems = given(
    num_cells=st.tuples(*3 * [st.integers(1, 4)]),
    size=st.tuples(*3 * [st.floats(0.5, 3.0)]),
    method=st.sampled_from(sorted(METHODS)),
    num_nodes=st.integers(2, 12),
    seed=st.integers(0, 10_000),
    k_3d=positive,
    sigma_3d=positive,
    k_1d=positive,
    permeability=positive,
    sources=st.tuples(st.floats(-2.0, 2.0), st.floats(-2.0, 2.0)),
    cell_type=st.sampled_from(["tetrahedron", "hexahedron"]),
    condition=st.sampled_from([
        [], [Dirichlet("x_min", 0.5)], [Robin("boundary", 0.3, -1.0)],
    ]),
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@problems
def test_laws_that_hold_for_every_problem(
    num_cells, size, method, num_nodes, seed, k_3d, sigma_3d, k_1d, permeability, sources,
    cell_type, condition,
):  # fmt: skip
    box = create_box(num_cells, upper=size, cell_type=cell_type)
    graph = random_vascular_graph(num_nodes, 0.05, seed, method, upper=size)
    network = create_network(graph, 0.5)
    coefficients = Coefficients(
        k_3d=k_3d, sigma_3d=sigma_3d, k_1d=k_1d, permeability=permeability,
        f_3d=sources[0], f_1d=sources[1],
    )  # fmt: skip
    system = assemble(box, network, coefficients, bcs_3d=condition)

    A = block_matrix(system)
    assert np.abs(A - A.T).max() <= 1e-14 * np.abs(A).max()
    np.linalg.cholesky(A)

    # Diffusion and exchange take nothing from a constant; the rest is uptake and Robin loss.
    ones_3d, ones_1d = np.ones_like(system.b_3), np.ones_like(system.b_1)
    volume, surface = np.prod(size), 2 * (np.prod(size) / np.array(size)).sum()
    scale = np.abs(A).max() * len(A)
    assert np.abs(system.side_3d.K @ ones_3d).max() < 1e-14 * scale
    assert np.abs(system.side_1d.K @ ones_1d).max() < 1e-14 * scale
    assert np.abs(system.coupling.flux(ones_3d, ones_1d)).max() < 1e-14 * scale
    assert ones_3d @ system.side_3d.M @ ones_3d == pytest.approx(sigma_3d * volume)
    robin = 0.3 * surface if condition and isinstance(condition[0], Robin) else 0.0
    assert ones_3d @ system.side_3d.R @ ones_3d == pytest.approx(robin)
    assert system.side_3d.f.sum() == pytest.approx(sources[0] * volume)

    for method_of_solution in METHODS_OF_SOLUTION:
        solution = solve(system, method_of_solution, rtol=1e-12)
        assert solution.relative_residual < 1e-10
        assert solution.mass_balance.error < 1e-9, method_of_solution


# --- Messages ---------------------------------------------------------------------------------


def test_a_graph_is_no_network(vessel):
    with pytest.raises(TypeError, match=r"got a network of type Graph; .* create_network\(graph"):
        assemble(create_box(2), vessel, Coefficients())


def test_a_condition_outside_of_a_list_is_an_error(vessel):
    network = create_network(vessel, 0.2)
    with pytest.raises(TypeError, match=r"got a Robin alone; wanted a sequence .* in a list"):
        assemble(create_box(2), network, Coefficients(), bcs_3d=Robin("z_max", coefficient=1.0))


def test_a_network_outside_the_tissue_is_an_error(vessel):
    network = create_network(vessel, 0.2)
    with pytest.raises(ValueError, match=r"of \d+ circles leave the tissue"):
        assemble(create_box(2, upper=(0.5, 1, 1)), network, Coefficients())


@pytest.mark.parametrize(("lower", "upper"), [((0, 0, 0), (0.5, 1, 1)), ((0.5, 0, 0), (1, 1, 1))])
def test_exchange_stops_where_points_are_dropped(vessel, lower, upper):
    box, network = create_box(2, lower, upper), create_network(vessel, 0.1)
    system = assemble(box, network, Coefficients(sigma_3d=1.0), outside="drop")
    coupling = system.coupling
    assert coupling.num_leaving > 0
    assert np.all((coupling.points > box.lower) & (coupling.points < box.upper))
    ends = network.mesh.geometry.x[network.mesh.geometry.dofmaps[0][coupling.cells]]
    between = np.linalg.norm(ends - coupling.points[:, None], axis=2).sum(axis=1)
    np.testing.assert_allclose(between, np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1))
    num_points = 2 * len(network.edge_of_cell) - coupling.num_leaving
    assert coupling.Pi.shape[0] == coupling.N.shape[0] == num_points
    assert len(coupling.weights) == len(coupling.beta) == len(coupling.cells) == num_points
    assert solve(system).mass_balance.error < 1e-9

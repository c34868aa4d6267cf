"""Leaky vessels: rates, the tight limit, what leaves the vessels enters the tissue, refusals."""

import dolfinx
import networkx as nx
import numpy as np
import pytest
import ufl
from scipy import special

import mixeddim as md
from mixeddim.verification.convergence import _distance

BOX = md.create_box(6)
PRESSURES = {0: 30.0, 2: 2.0}  # at the third end, 3, flow is given
VISCOSITY = 1e-4
BAXTER = {"mobility": 2.0, "oncotic_1d": 20.0, "oncotic_3d": 10.0, "reflection": 0.9}


def solve(graph: nx.Graph, L_p: float, **others: object) -> md.LeakyFlow:
    filtration = md.Filtration(
        **{"hydraulic_conductivity": L_p, "drainage": 0.5, "drainage_pressure": -1.0}
        | BAXTER
        | others
    )
    network = md.create_network(graph, BOX.spacing)
    return md.solve_leaky_flow(BOX, network, VISCOSITY, PRESSURES, {3: -0.5}, filtration=filtration)


def test_tight_walls_give_the_flow_of_today(fork: nx.Graph) -> None:
    leaky = solve(fork, 0.0)
    tight = md.solve_flow(fork, VISCOSITY, PRESSURES, {3: -0.5})
    np.testing.assert_array_equal(leaky.segment_flow, tight.flow[leaky.network.edge_of_cell])
    np.testing.assert_array_equal(
        leaky.pressure_1d.x.array[leaky.network.dof_of_node], tight.pressure
    )
    np.testing.assert_allclose(leaky.node_inflow, tight.node_inflow, rtol=1e-12, atol=1e-12)
    assert leaky.balance.net_filtration == 0.0


def test_walls_that_become_tight_approach_it_linearly(fork: nx.Graph) -> None:
    tight = solve(fork, 0.0).segment_flow
    changes = [abs(solve(fork, L_p).segment_flow - tight).max() for L_p in (1e-6, 1e-7)]
    assert changes[0] / changes[1] == pytest.approx(10.0, rel=1e-3)


def test_what_leaves_the_vessels_enters_the_tissue(fork: nx.Graph) -> None:
    leaky = solve(fork, 0.1)
    balance = leaky.balance
    assert balance.filtered > 0.1
    assert balance.reabsorbed > 0.0
    assert balance.error < 1e-10
    scale = balance.filtered + balance.reabsorbed
    assert balance.inflow - balance.outflow == pytest.approx(
        balance.net_filtration, abs=1e-10 * balance.inflow
    )
    assert balance.drained == pytest.approx(balance.net_filtration, abs=1e-10 * scale)
    assert balance.boundary_3d == 0.0
    assert leaky.edge_filtration.sum() == pytest.approx(balance.net_filtration, abs=1e-12 * scale)
    assert leaky.node_inflow[list(fork).index(3)] == -0.5


def test_fluid_may_leave_through_the_faces(fork: nx.Graph) -> None:
    network = md.create_network(fork, BOX.spacing)
    leaky = md.solve_leaky_flow(
        BOX,
        network,
        VISCOSITY,
        PRESSURES,
        filtration=md.Filtration(hydraulic_conductivity=0.1, **BAXTER),
        bcs_3d=[md.Dirichlet("z_max", 0.0)],
    )
    balance = leaky.balance
    assert balance.boundary_3d == pytest.approx(-balance.net_filtration, rel=1e-9)
    assert balance.error < 1e-10


def straight(radius: float, n: int, z: tuple[float, float] = (0.0, 1.0)) -> md.Network:
    graph = nx.Graph([(0, 1, {"radius": radius})])
    for node in (0, 1):
        graph.nodes[node]["pos"] = (0.3, 0.4, z[node])
    return md.create_network(graph, 1 / n)


def test_a_leaking_vessel_in_tissue_at_a_held_pressure_is_second_order() -> None:
    """G p'' = beta p: p is a hyperbolic sine, and the flow falls along the vessel."""
    radius, L_p, viscosity = 0.1, 1e-3, 1e-2
    G, beta = np.pi * radius**4 / (8 * viscosity), 2 * np.pi * radius * L_p
    m = np.sqrt(beta / G)
    assert 0.3 < m < 3.0
    pressure, flow, sizes = [], [], (8, 16, 32)
    for n in sizes:
        network = straight(radius, n)
        leaky = md.solve_leaky_flow(
            md.create_box(3),
            network,
            viscosity,
            {0: 1.0, 1: 0.0},
            filtration=md.Filtration(hydraulic_conductivity=L_p, mobility=1e9, drainage=1e6),
        )
        z = network.P1.tabulate_dof_coordinates()[:, 2]
        exact = np.sinh(m * (1 - z)) / np.sinh(m)
        pressure.append(abs(leaky.pressure_1d.x.array - exact).max())
        start, end, *_ = network.segments
        middle = 0.5 * (z[start] + z[end])
        exact_flow = G * m * np.cosh(m * (1 - middle)) / np.sinh(m)
        flow.append(abs(leaky.segment_flow - exact_flow).max() / exact_flow.max())
    for errors in (pressure, flow):
        assert -np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.1)


def test_a_manufactured_tissue_pressure_is_second_order() -> None:
    """The oncotic pressure balances a wave's mean, p_lymph is the wave's source."""
    radius, wave, mobility, drainage = 0.1, np.pi * np.array([1.0, -0.5, 0.75]), 2.0, 3.0
    mean = special.j0(radius * np.hypot(wave[0], wave[1]))
    q = ufl.as_vector(wave.tolist())

    def p_3d(x: np.ndarray) -> np.ndarray:
        return np.cos(np.tensordot(wave, x, 1))

    def source(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
        return (mobility * float(wave @ wave) / drainage + 1) * ufl.cos(ufl.dot(q, x))

    def oncotic(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
        return 3.0 - 2.0 * x[2] - mean * ufl.cos(ufl.dot(q, x))

    sizes, errors = (5, 10, 20), []
    for n in sizes:
        box, network = md.create_box(n), straight(radius, n)
        given = dolfinx.fem.Function(box.P1)
        given.interpolate(p_3d)
        leaky = md.solve_leaky_flow(
            box,
            network,
            0.01,
            {0: 3.0, 1: 1.0},
            filtration=md.Filtration(
                hydraulic_conductivity=1.0,
                mobility=mobility,
                oncotic_1d=oncotic,
                drainage=drainage,
                drainage_pressure=source,
            ),
            bcs_3d=[md.Dirichlet("boundary", given)],
        )
        z = network.P1.tabulate_dof_coordinates()[:, 2]
        errors.append(
            [
                _distance(box.mesh, leaky.pressure_3d, p_3d, 6),
                np.sqrt(np.mean((leaky.pressure_1d.x.array - (3.0 - 2.0 * z)) ** 2)),
                np.sqrt(leaky.system.coupling.weights @ leaky.filtration**2),
            ]
        )
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert rates[-1] == pytest.approx([2.0, 2.0, 2.0], abs=0.1)


def test_sigma_beyond_one_and_other_data_are_refused(fork: nx.Graph) -> None:
    with pytest.raises(ValueError, match=r"got a reflection from 1\.2 to 1\.2; wanted values"):
        solve(fork, 0.1, reflection=1.2)
    with pytest.raises(ValueError, match="got oncotic pressures that are NaN or infinite"):
        solve(fork, 0.1, oncotic_1d=lambda x: ufl.ln(x[0] - 10.0))
    with pytest.raises(ValueError, match=r"got hydraulic_conductivity=-0\.1; wanted a non-neg"):
        solve(fork, -0.1)
    with pytest.raises(ValueError, match=r"got mobility=0\.0; wanted a positive number"):
        solve(fork, 0.1, mobility=0.0)
    with pytest.raises(ValueError, match=r"got drainage=-1\.0; wanted a non-negative number"):
        solve(fork, 0.1, drainage=-1.0)


def test_a_component_without_pressure_is_named(fork: nx.Graph) -> None:
    network = md.create_network(fork, BOX.spacing)
    filtration = md.Filtration(hydraulic_conductivity=0.1, mobility=1.0)
    with pytest.raises(md.NetworkError, match="got no pressure in 1 connected components"):
        md.solve_leaky_flow(BOX, network, VISCOSITY, {}, filtration=filtration)


def test_a_pressure_that_nothing_holds_is_an_error(fork: nx.Graph) -> None:
    with pytest.raises(ValueError, match="got tight walls, no drainage and no condition on"):
        solve(fork, 0.0, drainage=0.0)

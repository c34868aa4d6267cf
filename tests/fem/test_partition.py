"""A partition coefficient and a resistance in series: scaling, equilibrium, rates, balances."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

import mixeddim as md
from mixeddim.verification import study_convergence as study
from mixeddim.verification.manufactured import bessel_mode, smooth_coupled

BOX = md.create_box(6)
S = 2.5


@pytest.fixture(scope="module")
def network(fork: nx.Graph) -> md.Network:
    return md.create_network(fork, BOX.spacing)


def assemble(network: md.Network, **coefficients: object) -> md.CoupledSystem:
    base = {"k_3d": 0.5, "sigma_3d": 0.7, "permeability": 4.0, "f_3d": 0.2, "f_1d": 0.1}
    return md.assemble(
        BOX,
        network,
        md.Coefficients(**base | coefficients),
        bcs_3d=[md.Dirichlet("x_min", 0.3), md.Robin("y_max", 2.0, 0.4), md.Neumann("z_max", 0.1)],
    )


@pytest.mark.parametrize("method", ["direct", "krylov", "reduced"])
def test_balances_close_with_partition_and_resistance(network: md.Network, method: str) -> None:
    system = assemble(network, partition=S, series_resistance=0.3)
    solution = md.solve(system, method, rtol=1e-13)
    assert abs(solution.mass_balance.exchange) > 1e-3
    assert solution.mass_balance.error < 1e-10


def test_the_fields_are_those_of_the_scaled_problem(network: md.Network) -> None:
    """With u_3d = s w the unknown w has s k_3d, s sigma_3d and values divided by s."""
    found = md.solve(assemble(network, partition=S))
    coefficients = md.Coefficients(
        k_3d=0.5 * S, sigma_3d=0.7 * S, permeability=4.0, f_3d=0.2, f_1d=0.1
    )
    bcs = [md.Dirichlet("x_min", 0.3 / S), md.Robin("y_max", 2.0 * S, 0.4 / S)]
    scaled = md.solve(
        md.assemble(BOX, network, coefficients, bcs_3d=[*bcs, md.Neumann("z_max", 0.1)])
    )
    np.testing.assert_allclose(found.u_3d.x.array, S * scaled.u_3d.x.array, rtol=1e-9)
    np.testing.assert_allclose(found.u_1d.x.array, scaled.u_1d.x.array, rtol=1e-9)
    np.testing.assert_allclose(found.wall_flux, scaled.wall_flux, atol=1e-9)


def test_equilibrium_has_the_ratio(network: md.Network) -> None:
    system = md.assemble(BOX, network, md.Coefficients(partition=S))
    solution = md.solve(system)
    np.testing.assert_allclose(solution.u_3d.x.array, S, rtol=1e-8)
    np.testing.assert_allclose(solution.u_1d.x.array, 1.0, rtol=1e-8)


def test_the_matrix_stays_symmetric_and_the_reduced_one_too(network: md.Network) -> None:
    system = assemble(network, partition=S)
    assert abs(system.A_31 - system.A_13.T).max() == 0.0
    assert abs(system.A_33 - system.A_33.T).max() < 1e-15
    reduced = md.reduce(system)
    u = md.solve(system).u_3d.x.array
    np.testing.assert_allclose(reduced.S @ u, reduced.g, atol=1e-10)


@pytest.mark.parametrize(
    "changed", [{"partition": S}, {"series_resistance": 0.3}, {"partition": S, "k_3d": 2.0}]
)
def test_changed_coefficients_give_the_system_of_a_new_assembly(
    network: md.Network, changed: dict[str, float]
) -> None:
    system = assemble(network)
    system.A_33, system.b_3  # noqa: B018 - what is cached must not be taken for the new
    found, fresh = system.with_coefficients(**changed), assemble(network, **changed)
    for name in ("K", "M", "Pi", "A_33", "A_31", "A_11", "b_3", "b_1"):
        assert abs(getattr(found, name) - getattr(fresh, name)).max() < 1e-14


def test_a_smooth_field_with_partition_is_second_order() -> None:
    """With s times the mean as the tissue's, u_3d / s and u_1d balance at every point."""
    exact = smooth_coupled()
    coefficients = replace(exact.coefficients, partition=S)
    scaled = replace(
        exact,
        coefficients=replace(coefficients, f_3d=lambda x: S * exact.coefficients.f_3d(x)),
        u_3d=lambda x: S * exact.u_3d(x),
        grad_u_3d=lambda x: S * exact.grad_u_3d(x),
    )
    rates = study(scaled, (8, 12, 16))
    assert rates.rate("L2_3d") == pytest.approx(2.0, abs=0.1)
    assert rates.rate("L2_1d") == pytest.approx(2.0, abs=0.15)


def test_a_resistance_in_series_is_a_less_permeable_wall() -> None:
    """K in series with the exact mode's wall: kappa / (1 + K beta) alone gives the same blocks."""
    exact, K = bessel_mode(), 0.8
    beta = 2 * np.pi * exact.radius * exact.coefficients.permeability
    in_series = replace(exact, coefficients=replace(exact.coefficients, series_resistance=K))
    lower = replace(exact.coefficients, permeability=1.0 / (1.0 + K * beta))
    found, wanted = (e.assemble(6) for e in (in_series, replace(exact, coefficients=lower)))
    np.testing.assert_allclose(found.coupling.beta, 1.0 / (1.0 / beta + K), rtol=1e-13)
    assert abs(found.A_33 - wanted.A_33).max() < 1e-14


def test_transport_reaches_the_ratio(fork: nx.Graph) -> None:
    network = md.create_network(fork, BOX.spacing)
    flow = 1e3 * md.solve_flow(fork, 1.0, {0: 1.0, 2: 0.2, 3: 0.0}).flow
    coefficients = md.Coefficients(k_1d=1e-3, permeability=10.0, partition=S, series_resistance=0.1)
    system = md.assemble(BOX, network, coefficients, bcs_1d=[])
    states = list(
        md.simulate_transport(system, flow, time_step=200.0, num_steps=20, storage_3d=0.4)
    )
    assert max(state.mass_balance.error for state in states) < 1e-10
    np.testing.assert_allclose(states[-1].u_3d.x.array, S, rtol=1e-3)


def test_nonlinear_uptake_balances(network: md.Network) -> None:
    solution = md.solve_nonlinear(assemble(network, partition=S), md.MichaelisMenten(2.0, 0.5))
    assert solution.mass_balance.error < 1e-10


@pytest.mark.parametrize("partition", [0.0, -1.0, float("nan"), float("inf"), "two", [1.0, 2.0]])
def test_what_is_no_partition_is_refused(partition: object) -> None:
    with pytest.raises(ValueError, match="wanted a finite positive number, the ratio of u_3d"):
        md.Coefficients(partition=partition)


def test_negative_resistances_are_refused(network: md.Network) -> None:
    with pytest.raises(ValueError, match=r"got series_resistance=-1\.0; wanted a non-negative"):
        md.Coefficients(series_resistance=-1.0)
    with pytest.raises(ValueError, match=r"got a series_resistance from -\S+ to .*; wanted finite"):
        assemble(network, series_resistance=lambda x: x[2] - 10.0)

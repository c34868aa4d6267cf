"""Transport with leaky vessels: drag through the wall, conservation, bounds, refusals."""

import networkx as nx
import numpy as np
import pytest

import mixeddim as md
from mixeddim.solvers.advection import discretise_advection

BOX = md.create_box(6)
PRESSURES = {0: 30.0, 2: 2.0, 3: 4.0}


@pytest.fixture(scope="module")
def network(fork: nx.Graph) -> md.Network:
    return md.create_network(fork, BOX.spacing)


@pytest.fixture(scope="module")
def flow(network: md.Network) -> md.LeakyFlow:
    """A flow that filters near the inlet and comes back near the ends."""
    filtration = md.Filtration(
        hydraulic_conductivity=0.1, mobility=2.0, oncotic_1d=12.0, drainage=0.05
    )
    return md.solve_leaky_flow(BOX, network, 1e-4, PRESSURES, filtration=filtration)


def assemble(network: md.Network, **coefficients: float) -> md.CoupledSystem:
    values = {"k_3d": 0.1, "k_1d": 1e-3, "permeability": 0.5} | coefficients
    return md.assemble(BOX, network, md.Coefficients(**values), bcs_1d=[])


def simulate(system: md.CoupledSystem, flow: object, **others: object) -> list[md.TransportState]:
    return list(md.simulate_transport(system, flow, time_step=0.05, num_steps=10, **others))


def test_the_flow_filters_and_comes_back(flow: md.LeakyFlow) -> None:
    assert flow.balance.filtered > 0.1
    assert flow.balance.reabsorbed > 0.05
    change = flow.segment_flow - flow.tight.flow[flow.network.edge_of_cell]
    assert abs(change).max() > 0.01 * abs(flow.segment_flow).max()


@pytest.mark.parametrize("reflection", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("partition", [1.0, 2.5])
def test_mass_balances(
    network: md.Network, flow: md.LeakyFlow, reflection: float, partition: float
) -> None:
    system = assemble(network, sigma_3d=0.2, partition=partition)
    states = simulate(
        system, flow, initial_3d=lambda x: x[0], solvent_reflection=reflection, storage_3d=0.3
    )
    assert max(state.mass_balance.error for state in states) < 1e-10
    growth = states[-1].mass_balance.amount_3d - states[-2].mass_balance.amount_3d
    last = states[-1].mass_balance
    assert growth / 0.05 == pytest.approx(last.exchange - last.reaction_3d, rel=1e-9)


def test_without_diffusion_the_wall_flux_is_the_drag(
    network: md.Network, flow: md.LeakyFlow
) -> None:
    system = assemble(network, permeability=0.0)
    last = simulate(system, flow, initial_3d=0.4, solvent_reflection=0.25)[-1]
    J, coupling = flow.filtration, system.coupling
    inside, outside = coupling.N @ last.u_1d.x.array, coupling.Pi @ last.u_3d.x.array
    np.testing.assert_allclose(last.wall_flux, 0.75 * J * np.where(J > 0, inside, outside))


def test_a_uniform_concentration_stays_in_the_vessels(
    network: md.Network, flow: md.LeakyFlow
) -> None:
    """With equal concentrations on both sides and full drag the changing flow carries 1 along."""
    system = assemble(network, permeability=0.0)
    first = simulate(system, flow, initial_3d=1.0, initial_1d=1.0, storage_3d=1e9)[-1]
    np.testing.assert_allclose(first.u_1d.x.array, 1.0, rtol=1e-7)


def test_a_reflecting_wall_concentrates_the_tracer(network: md.Network, flow: md.LeakyFlow) -> None:
    system = assemble(network, permeability=0.0, k_1d=1e-9)
    held = simulate(system, flow, solvent_reflection=1.0)
    assert held[-1].u_1d.x.array.max() > 1.01
    assert held[-1].mass_balance.exchange == 0.0


def test_a_flow_that_does_not_leak_is_that_of_the_edges(network: md.Network) -> None:
    filtration = md.Filtration(hydraulic_conductivity=0.0, mobility=1.0, drainage=1.0)
    leaky = md.solve_leaky_flow(BOX, network, 1e-4, PRESSURES, filtration=filtration)
    found = discretise_advection(network, leaky)
    wanted = discretise_advection(network, leaky.tight.flow)
    assert abs(found.U - wanted.U).max() < 1e-12 * abs(wanted.U).max()
    np.testing.assert_allclose(found.inflow, wanted.inflow, atol=1e-12 * wanted.inflow.max())
    np.testing.assert_array_equal(found.volume, wanted.volume)


@pytest.mark.parametrize("use", [md.reduce, md.solve], ids=["reduce", "solve"])
def test_the_system_of_a_state_is_not_taken_for_a_symmetric_one(
    network: md.Network, flow: md.LeakyFlow, use: object
) -> None:
    state = next(md.simulate_transport(assemble(network), flow, time_step=0.1, num_steps=1))
    with pytest.raises(ValueError, match=r"got a system in which fluid drags u .* Pass the system"):
        use(state.system)


@pytest.mark.parametrize("reflection", [-0.1, 1.1, float("nan"), "half"])
def test_what_is_no_reflection_is_refused(
    network: md.Network, flow: md.LeakyFlow, reflection: object
) -> None:
    with pytest.raises(ValueError, match=r"got solvent_reflection=.*; wanted a number from 0"):
        simulate(assemble(network), flow, solvent_reflection=reflection)


def test_a_reflection_without_filtration_is_refused(
    network: md.Network, flow: md.LeakyFlow
) -> None:
    with pytest.raises(ValueError, match=r"got solvent_reflection=0\.5 and a flow through tight"):
        simulate(assemble(network), flow.tight.flow, solvent_reflection=0.5)


def test_the_flow_of_another_network_is_refused(fork: nx.Graph, flow: md.LeakyFlow) -> None:
    other = assemble(md.create_network(fork, BOX.spacing))
    with pytest.raises(ValueError, match=r"got the flow of another network.*Pass the same network"):
        simulate(other, flow)

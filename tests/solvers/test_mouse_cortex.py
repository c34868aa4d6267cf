"""What a physiologist computes on a measured network: filtration, and a tracer that is washed out.

The network is that of the mouse's cortex (Blinder et al. 2013, doi:10.1038/nn.3426), which is not
part of this project: MIXEDDIM_DATA is the folder that holds `mouse_cortex`. All is in SI units.
"""

import os
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

import mixeddim as md

MOUSE_CORTEX = Path(os.environ.get("MIXEDDIM_DATA", "")) / "mouse_cortex" / "network.dgf"
SIDE, POROSITY = 2e-4, 0.2

pytestmark = pytest.mark.skipif(
    not MOUSE_CORTEX.is_file(),
    reason=f"no file {MOUSE_CORTEX}; set MIXEDDIM_DATA to the folder that holds mouse_cortex",
)


@pytest.fixture(scope="module")
def graph():
    graph = md.read_dgf(
        MOUSE_CORTEX, node_parameters={"pressure": 0}, edge_parameters={"radius": 0}
    )
    for *_, data in graph.edges(data=True):
        data["outer_radius"] = data["radius"] + 0.5e-6
    return graph


@pytest.fixture(scope="module")
def ends(graph):
    return {node: graph.nodes[node]["pressure"] for node, degree in graph.degree if degree == 1}


@pytest.fixture(scope="module")
def blood(graph, ends):
    return md.solve_blood(graph, ends)


def meshes(graph, num_cells):
    box = md.create_box(num_cells, upper=(SIDE,) * 3)
    return box, md.create_network(graph, max_segment_length=box.spacing)


def tracer_system(graph, num_cells):
    box, network = meshes(graph, num_cells)
    coefficients = md.Coefficients(
        k_3d=1e-10, k_1d=1e-9 * np.pi * network.radius**2, permeability=1e-6
    )
    return md.assemble(box, network, coefficients, bcs_1d=[], outside="clip")


def simulate(system, flow, time_step, end, **options):
    states = md.simulate_transport(
        system,
        flow,
        time_step=time_step,
        num_steps=round(end / time_step),
        storage_3d=POROSITY,
        **options,
    )
    balances = [state.mass_balance for state in states]
    assert max(balance.error for balance in balances) < 1e-10
    return balances


def test_a_tracer_is_washed_out_of_the_tissue(graph, blood):
    clean = {"initial_3d": 1.0, "inlet_concentration": 0.0}
    system = tracer_system(graph, 12)
    assert 0 < (system.coupling.share < 1).mean() < 0.2
    balances = simulate(system, blood.flow, 0.5, 30.0, **clean)
    left = np.array([balance.amount_3d for balance in balances])
    assert np.all(np.diff(left) < 0)
    start = POROSITY * SIDE**3
    assert 0 < left[-1] < left[0] < start
    # What has left is in the vessels, or was carried off.
    carried_off = 0.5 * sum(balance.outflow for balance in balances)
    assert left[-1] + balances[-1].amount_1d + carried_off == pytest.approx(start, rel=1e-10)
    # Halving h, and halving dt, changes what is left after 30 s by less than one per cent.
    finer = simulate(tracer_system(graph, 24), blood.flow, 0.5, 30.0, **clean)
    assert finer[-1].amount_3d == pytest.approx(left[-1], rel=0.01)
    shorter = simulate(system, blood.flow, 0.25, 30.0, **clean)
    assert shorter[-1].amount_3d == pytest.approx(left[-1], rel=0.01)


def test_a_tracer_injected_at_the_inlets_enters_the_tissue(graph, blood):
    system = tracer_system(graph, 12)
    balances = simulate(
        system, blood.flow, 0.5, 15.0, inlet_concentration=lambda time: 1.0 if time <= 5 else 0.0
    )
    entered = 0.5 * sum(balance.inflow for balance in balances)
    assert entered == pytest.approx(5.0 * blood.inflow, rel=1e-10)
    in_tissue = np.array([balance.amount_3d for balance in balances])
    assert 0.05 * entered < in_tissue.max() < entered
    carried_off = 0.5 * sum(balance.outflow for balance in balances)
    last = balances[-1]
    assert last.amount_3d + last.amount_1d + carried_off == pytest.approx(entered, rel=1e-10)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_leaky_vessels_with_pressures_and_flows_at_the_ends(graph, ends, blood, every):
    """A pressure at every so many ends and at one of each component, a flow at the others."""
    at_ends = dict(zip(graph, blood.node_inflow, strict=True))
    pressures = dict([*ends.items()][::every])
    for component in nx.connected_components(graph):
        if pressures.keys().isdisjoint(component):
            node = next(node for node in ends if node in component)
            pressures[node] = ends[node]
    inflows = {node: at_ends[node] for node in ends if node not in pressures}
    assert bool(inflows) == (every > 1)
    box, network = meshes(graph, 8)
    filtration = md.Filtration(
        hydraulic_conductivity=1e-11,
        mobility=1e-12,
        oncotic_1d=3300.0,
        oncotic_3d=700.0,
        reflection=0.9,
        drainage=1e-7,
    )
    flow = md.solve_leaky_flow(
        box, network, blood.viscosity, pressures, inflows, filtration=filtration, outside="clip"
    )
    balance = flow.balance
    assert balance.error < 1e-10
    assert balance.drained == pytest.approx(balance.net_filtration, rel=1e-9)
    assert 0 < balance.net_filtration < 0.02 * balance.inflow
    assert balance.inflow - balance.outflow == pytest.approx(balance.net_filtration, rel=1e-6)
    got = dict(zip(graph, flow.node_inflow, strict=True))
    assert [got[node] for node in inflows] == [*inflows.values()]
    most = abs(blood.flow).max()
    np.testing.assert_allclose(flow.tight.flow, blood.flow, atol=1e-7 * most)
    tracer = md.Coefficients(k_3d=1e-10, k_1d=1e-20, permeability=1e-6)
    system = md.assemble(box, network, tracer, bcs_1d=[], outside="clip")
    dragged = simulate(system, flow, 0.5, 5.0, solvent_reflection=0.1)
    assert dragged[-1].amount_3d > 0

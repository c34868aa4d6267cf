"""Transport: rates in space and time, mixing at junctions, bounds, conservation, refusals."""

from dataclasses import replace

import dolfinx
import networkx as nx
import numpy as np
import pytest
import ufl
from hypothesis import given, settings
from hypothesis import strategies as st

import mixeddim as md
from mixeddim.fem.grid import CellType
from mixeddim.networks.graphs import edge_lengths, edge_radii
from mixeddim.solvers.advection import discretise_advection
from mixeddim.verification import study_transport
from mixeddim.verification.manufactured_transport import advected_wave, decaying_mode

TIGHT = md.Coefficients(k_1d=1e-15, permeability=0.0)


def merging(radii: tuple[float, float, float], flows: tuple[float, float]) -> nx.Graph:
    """Vessels from the inlets 0 and 1 that join at 2 and leave at 3, with their flow."""
    graph = nx.Graph([(2, 0), (1, 2), (2, 3)])  # the first edge runs against its flow
    for node, pos in enumerate(
        [(0.2, 0.3, 0.5), (0.2, 0.7, 0.5), (0.5, 0.5, 0.5), (0.8, 0.5, 0.5)]
    ):
        graph.nodes[node].update(pos=pos, inlet=node < 2)
    edges = [(0, 2), (1, 2), (2, 3)]
    for edge, radius, flow in zip(edges, radii, (*flows, sum(flows)), strict=True):
        graph.edges[edge].update(radius=radius, flow=flow)
    return graph


def flows_of(graph: nx.Graph) -> np.ndarray:
    """The flow of each edge from its first node to its second; downstream is 0, 1, 2, 3."""
    return np.array([data["flow"] * (1 if u < v else -1) for u, v, data in graph.edges(data=True)])


def at_node(state: md.TransportState, node: int) -> float:
    network = state.system.network
    x = network.P1.tabulate_dof_coordinates()
    dof = np.argmin(np.linalg.norm(x - network.graph.nodes[node]["pos"], axis=1))
    return float(state.u_1d.x.array[dof])


def assemble(graph: nx.Graph, h: float, coefficients=TIGHT, num_cells: int = 2):
    box = md.create_box(num_cells)
    return md.assemble(box, md.create_network(graph, h), coefficients, bcs_1d=[])


# --- Rates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell_type", ["tetrahedron", "hexahedron"])
def test_diffusion_and_exchange_are_second_order_in_h(cell_type: CellType) -> None:
    mode = decaying_mode()
    exact = replace(mode, at=lambda time: replace(mode.at(time), cell_type=cell_type))
    # Time steps as h^2, so that implicit Euler's error falls as fast.
    study = study_transport(exact, (8, 12, 16), (4, 9, 16), end=0.05)
    assert study.rate("L2_3d") == pytest.approx(2.0, abs=0.1)
    assert study.rate("H1_3d") == pytest.approx(1.0, abs=0.1)
    if cell_type == "tetrahedron":
        assert study.rate("L2_1d") == pytest.approx(2.0, abs=0.1)
    else:  # where parts of the error cancel
        assert study.rate("L2_1d") > 1.9
    assert study.rate("L2_flux") > 1.9


def test_upwinding_is_first_order_in_h() -> None:
    study = study_transport(advected_wave(), (32, 64, 128), (64, 128, 256), end=1.0)
    assert study.rate("L2_1d") == pytest.approx(1.0, abs=0.1)


def test_implicit_euler_is_first_order_in_time() -> None:
    """From one number of steps to twice as many, on the same mesh, the change halves."""
    ends = [decaying_mode().simulate(6, steps, end=0.5) for steps in (8, 16, 32, 64)]
    for field in ("u_3d", "u_1d"):
        values = np.array([getattr(end, field).x.array for end in ends])
        changes = np.linalg.norm(np.diff(values, axis=0), axis=1)
        rate = -np.polyfit(np.log([8, 16, 32]), np.log(changes), 1)[0]
        assert rate == pytest.approx(1.0, abs=0.1)


def test_a_wave_passes_a_junction_at_the_speed_of_each_vessel(fork: nx.Graph) -> None:
    """Against the travel times along the vessels of a fork, first order in h and time step."""
    flow = md.solve_flow(fork, 1.0, {0: 1.0, 2: 0.2, 3: 0.0}).flow
    times = edge_lengths(fork) * np.pi * edge_radii(fork) ** 2 / abs(flow)
    along = {frozenset(edge): time for edge, time in zip(fork.edges, times, strict=True)}
    arrivals = {end: along[frozenset((0, 1))] + along[frozenset((1, end))] for end in (2, 3)}
    unit = max(arrivals.values())

    def wave(time: float) -> float:
        return (max(time, 0.0) / unit) ** 2

    errors, sizes = [], (32, 64, 128)
    for n in sizes:
        states = md.simulate_transport(
            assemble(fork, 1 / n),
            flow,
            time_step=1.5 * unit / n,
            num_steps=n,
            inlet_concentration=wave,
        )
        *_, last = states
        errors.append([at_node(last, end) - wave(last.time - arrivals[end]) for end in (2, 3)])
    for error in abs(np.transpose(errors)):
        assert -np.polyfit(np.log(sizes), np.log(error), 1)[0] == pytest.approx(1.0, abs=0.1)


# --- Junctions, bounds ------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    flows=st.tuples(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0)),
    concentrations=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
)
def test_junctions_mix_perfectly(
    flows: tuple[float, float], concentrations: tuple[float, float]
) -> None:
    """At rest a junction holds the mean of what arrives, weighted by the flows."""
    graph = merging((0.05, 0.03, 0.06), flows)
    for node in graph:
        graph.nodes[node]["c"] = concentrations[node] if node < 2 else 0.0
    system = assemble(graph, 0.1)
    (rest,) = md.simulate_transport(
        system,
        flows_of(graph),
        time_step=1e12,
        num_steps=1,
        inlet_concentration=system.network.node_field("c"),
    )
    mean = np.dot(flows, concentrations) / sum(flows)
    for node, expected in enumerate((*concentrations, mean, mean)):
        assert at_node(rest, node) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("speed", [1e-6, 1.0, 1e6])
def test_no_over_or_undershoot_at_any_peclet_number(fork: nx.Graph, speed: float) -> None:
    """A sharp front, steps far longer than a vessel takes to be passed, and shorter."""
    flow = speed * md.solve_flow(fork, 1.0, {0: 1.0, 2: 0.2, 3: 0.0}).flow
    system = assemble(fork, 0.02, md.Coefficients(k_1d=1e-4, permeability=0.0))
    states = md.simulate_transport(system, flow, time_step=0.1, num_steps=5)
    for state in states:
        assert state.u_1d.x.array.min() >= -1e-12
        assert state.u_1d.x.array.max() <= 1 + 1e-12


# --- The matrix of upwinding ------------------------------------------------------------------


def test_advection_loses_nothing(graph: nx.Graph) -> None:
    """Columns of U add up to what leaves, rows to what enters: any flow, any direction of edges."""
    ends = {node: float(i) for i, node in enumerate(graph) if graph.degree[node] == 1}
    held = ends or {0: 1.0, 2: 0.0}
    marked = graph.copy()
    for component in nx.connected_components(graph):
        if not held.keys() & component:
            held[next(iter(component))] = 0.0
    for node in held:
        marked.nodes[node]["inlet"] = True
    flow = md.solve_flow(marked, 1.0, held)
    advection = discretise_advection(md.create_network(marked, 0.1), flow.flow)
    scale = abs(flow.flow).max()
    assert advection.U.sum(axis=0) == pytest.approx(advection.outflow, abs=1e-13 * scale)
    assert advection.U.sum(axis=1) == pytest.approx(advection.inflow, abs=1e-13 * scale)
    assert advection.inflow.sum() == pytest.approx(flow.inflow, rel=1e-12)
    off = advection.U - np.diag(advection.U.diagonal())
    assert off.max() <= 0
    volume = np.pi * edge_radii(graph) ** 2 @ edge_lengths(graph)
    assert advection.volume.sum() == pytest.approx(volume, rel=1e-13)


# --- Conservation -----------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1.0, 2e-4], ids=["nondimensional", "SI"])
def test_mass_is_conserved_in_every_step(unit: float) -> None:
    graph = md.random_vascular_graph(30, 0.03, seed=5, method="capillary_mesh")
    held = [n for n in graph if graph.degree[n] == 1 or graph.nodes[n]["inlet"]]
    for node in held:
        graph.nodes[node]["inlet"] = True
    graph = md.Scaling(unit).invert(graph)
    flow = md.solve_flow(graph, 4e-3, {n: 100.0 * graph.nodes[n]["pos"][0] / unit for n in held})
    box = md.create_box(6, upper=(unit,) * 3)
    network = md.create_network(graph, box.spacing)
    D = 1e-2 * unit**2
    coefficients = md.Coefficients(
        k_3d=D, k_1d=np.pi * D * network.radius**2, permeability=0.5 * unit, sigma_3d=0.2
    )
    system = md.assemble(box, network, coefficients, bcs_1d=[])
    dt, held_before, total_in, total_out = 0.05, 0.0, 0.0, 0.0
    states = list(
        md.simulate_transport(
            system,
            flow.flow,
            time_step=dt,
            num_steps=12,
            inlet_concentration=lambda t: 1.0 if t < 0.3 else 0.0,
        )
    )
    for number, state in enumerate(states, start=1):
        balance = state.mass_balance
        assert state.time == pytest.approx(number * dt)
        assert balance.error < 1e-10
        assert balance.inflow == pytest.approx(flow.inflow * (number * dt < 0.3), rel=1e-12)
        # From the fields themselves: all that came in is there, or left, or was taken up.
        total_in += dt * balance.inflow
        total_out += dt * (balance.outflow + balance.reaction_3d)
        held_now = balance.amount_3d + balance.amount_1d
        assert held_now == pytest.approx(total_in - total_out, rel=1e-10)
        assert held_now - held_before == pytest.approx(
            dt * (balance.storage_3d + balance.storage_1d), abs=1e-12 * total_in
        )
        held_before = held_now
        assert balance.amount_3d == pytest.approx(integral(state.u_3d * ufl.dx), rel=1e-10)
    assert total_out > 0.01 * total_in
    printed = str(states[-1].mass_balance)
    assert [line.split()[0] for line in printed.splitlines()[1:]] == [
        "sources", "boundary", "uptake", "through", "stored", "error"
    ]  # fmt: skip


def integral(form: ufl.Form) -> float:
    return dolfinx.fem.assemble_scalar(dolfinx.fem.form(form))


def test_conditions_and_sources_of_the_tissue_are_in_the_balance(fork: nx.Graph) -> None:
    box = md.create_box(4)
    flow = md.solve_flow(fork, 1.0, {0: 1.0, 2: 0.2, 3: 0.0}).flow
    system = md.assemble(
        box,
        md.create_network(fork, box.spacing),
        md.Coefficients(f_3d=0.3, f_1d=0.2, sigma_3d=0.4),
        bcs_3d=[md.Robin("y_max", 2.0, 0.1), md.Neumann("z_max", 0.7)],
        bcs_1d=[],
    )
    facets = dolfinx.mesh.locate_entities_boundary(box.mesh, 2, lambda x: np.isclose(x[1], 1.0))
    tags = dolfinx.mesh.meshtags(box.mesh, 2, facets, 1)
    on_y_max = ufl.Measure("ds", domain=box.mesh, subdomain_data=tags, subdomain_id=1)
    for state in md.simulate_transport(system, flow, time_step=0.1, num_steps=3, initial_3d=0.5):
        balance = state.mass_balance
        assert balance.error < 1e-12
        assert balance.source_3d == pytest.approx(0.3)
        assert balance.reaction_3d == pytest.approx(0.4 * integral(state.u_3d * ufl.dx))
        through_y_max = integral(2 * (0.1 - state.u_3d) * on_y_max)
        assert balance.boundary_3d == pytest.approx(0.7 + through_y_max)
        assert balance.boundary_1d == pytest.approx(balance.inflow - balance.outflow)


def test_given_values_in_the_tissue_are_in_the_balance(fork: nx.Graph) -> None:
    box = md.create_box(4)
    network = md.create_network(fork, box.spacing)
    face = md.Dirichlet("x_min", lambda x: x[1])
    system = md.assemble(box, network, md.Coefficients(), bcs_3d=[face], bcs_1d=[])
    for state in md.simulate_transport(system, 0.0, time_step=0.1, num_steps=3):
        values = state.u_3d.x.array[system.side_3d.dirichlet_dofs]
        np.testing.assert_allclose(values, system.side_3d.dirichlet_values, atol=1e-14)
        assert state.mass_balance.error < 1e-12
        assert state.mass_balance.boundary_3d > 0
        assert state.relative_residual < 1e-13


def test_a_network_without_inlets_needs_none(fork: nx.Graph) -> None:
    """A closed one: what is in it at the start is in it or in the tissue at the end."""
    graph = fork.copy()
    nx.set_node_attributes(graph, values=False, name="inlet")
    system = assemble(graph, 0.25, md.Coefficients(k_1d=0.1, permeability=0.5))
    states = list(
        md.simulate_transport(
            system, 0.0, time_step=0.1, num_steps=5, initial_1d=lambda x: 1 + x[0]
        )
    )
    volume = discretise_advection(system.network, 0.0).volume
    x = system.network.P1.tabulate_dof_coordinates()
    before = volume @ (1 + x[:, 0])
    for state in states:
        balance = state.mass_balance
        assert balance.inflow == balance.outflow == 0.0
        assert balance.amount_3d + balance.amount_1d == pytest.approx(before, rel=1e-11)
    assert balance.amount_3d > 0.01 * before
    with pytest.raises(md.NetworkError, match=r"has no inlet; .*bcs_1d without Dirichlet"):
        md.assemble(system.tissue, system.network, md.Coefficients())


def test_a_long_step_ends_in_the_stationary_solution(fork: nx.Graph) -> None:
    """Without flow: with u_1d held by a source, as `solve` finds it."""
    box = md.create_box(4)
    network = md.create_network(fork, box.spacing)
    coefficients = md.Coefficients(sigma_3d=1.0, f_1d=1.0)
    system = md.assemble(box, network, coefficients, bcs_1d=[])
    (state,) = md.simulate_transport(system, 0.0, time_step=1e13, num_steps=1)
    stationary = md.solve(system)
    np.testing.assert_allclose(state.u_3d.x.array, stationary.u_3d.x.array, rtol=1e-9)
    np.testing.assert_allclose(state.u_1d.x.array, stationary.u_1d.x.array, rtol=1e-9)
    np.testing.assert_allclose(state.wall_flux, stationary.wall_flux, rtol=1e-8)


def test_goes_on_from_a_state(fork: nx.Graph) -> None:
    system = assemble(fork, 0.1, md.Coefficients(sigma_3d=0.1), num_cells=4)
    flow = md.solve_flow(fork, 1.0, {0: 1.0, 2: 0.2, 3: 0.0}).flow
    *_, whole = md.simulate_transport(system, flow, time_step=0.1, num_steps=4)
    *_, half = md.simulate_transport(system, flow, time_step=0.1, num_steps=2)
    *_, rest = md.simulate_transport(
        system, flow, time_step=0.1, num_steps=2, initial_3d=half.u_3d, initial_1d=half.u_1d
    )
    np.testing.assert_allclose(rest.u_3d.x.array, whole.u_3d.x.array, rtol=1e-12)
    np.testing.assert_allclose(rest.u_1d.x.array, whole.u_1d.x.array, rtol=1e-12)


def test_numbers_of_numpy_serve(fork: nx.Graph) -> None:
    """Times are in double precision, whatever the step is given in."""
    system = assemble(fork, 0.1)
    *_, last = md.simulate_transport(
        system,
        np.float32(0.0),
        time_step=np.float32(0.1),
        num_steps=np.int64(3),
        inlet_concentration=lambda t: np.interp(t, [0.0, 1.0], [0.0, 1.0]),
    )
    assert isinstance(last.time, float)
    assert last.time == pytest.approx(0.3)


def test_a_state_serves_wherever_a_solution_does(fork: nx.Graph) -> None:
    system = assemble(fork, 0.1, md.Coefficients(), num_cells=4)
    (state,) = md.simulate_transport(system, 0.0, time_step=0.1, num_steps=1, initial_1d=1.0)
    assert isinstance(state, md.Solution)
    assert "time 0.1" in repr(state)
    assert md.tissue_dataset(state).point_data["u_3d"].max() == state.u_3d.x.array.max()
    assert "u_1d" in md.network_dataset(state).point_data


# --- Refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_step": 0.0}, "got time_step=0.0; wanted a finite positive number"),
        ({"num_steps": 1.5}, "got num_steps=1.5; wanted a positive integer"),
        ({"flow": [1.0]}, r"shape \(1,\); wanted a finite number for each of the 3 edges"),
        ({"flow": np.nan}, "wanted a finite number for each"),
        ({"flow": "fast"}, "got a str .*wanted a finite number for each"),
        ({"flow": [1.0, 2.0, 3.0]}, "from outside into node 1, which is neither an end"),
        ({"inlet_concentration": np.inf}, "got the inlet concentration inf; wanted a finite"),
        ({"inlet_concentration": lambda _: "much"}, "got the inlet concentration 'much'"),
        ({"initial_3d": "none"}, "initial_3d"),
    ],
)
def test_refuses_before_the_first_step(fork: nx.Graph, changes: dict, message: str) -> None:
    arguments = {"flow": 0.0, "time_step": 0.1, "num_steps": 1} | changes
    with pytest.raises((ValueError, TypeError), match=message):
        md.simulate_transport(assemble(fork, 0.1), **arguments)


def test_refuses_given_values_in_the_network(fork: nx.Graph) -> None:
    box = md.create_box(2)
    system = md.assemble(box, md.create_network(fork, 0.1), md.Coefficients())
    with pytest.raises(ValueError, match=r"u_1d given at 1 nodes.*Assemble it with bcs_1d"):
        md.simulate_transport(system, 0.0, time_step=0.1, num_steps=1)


def test_refuses_a_concentration_of_another_mesh(fork: nx.Graph) -> None:
    system, other = assemble(fork, 0.1), assemble(fork, 0.1)
    with pytest.raises(ValueError, match="on the mesh of the network"):
        md.simulate_transport(
            system,
            0.0,
            time_step=0.1,
            num_steps=1,
            inlet_concentration=dolfinx.fem.Function(other.network.P1),
        )


def test_what_rounding_does_not_determine_is_an_error(fork: nx.Graph) -> None:
    """Nothing but storage holds the level, and a step is so long that it is lost in diffusion."""
    system = assemble(fork, 0.25, md.Coefficients())
    flow = np.zeros(fork.number_of_edges())
    states = md.simulate_transport(system, flow, time_step=1e14, num_steps=1, initial_1d=1.0)
    with pytest.raises(
        md.SolverError, match=r"got fields at time 1e\+14 that may be off by .* of u_3d"
    ):
        next(states)

"""Tables of the vessels balance edge by edge, and statistics of the tissue are exact."""

import csv
import dataclasses

import dolfinx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mixeddim as md
from mixeddim.networks.graphs import edge_lengths
from mixeddim.results import statistics

# --- Vessels ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solution(graph):
    """Sources, varying conductance and every kind of end, on each of the small networks."""
    box = md.create_box(4)
    coefficients = md.Coefficients(
        sigma_3d=1.0, k_1d=lambda x: 1.0 + x[0], f_1d=0.4, permeability=lambda x: 2.0 + x[2]
    )
    ends = [md.Dirichlet("inlets", 1.5)]
    if any(d == 1 and not graph.nodes[n].get("inlet") for n, d in graph.degree):
        ends.append(md.Robin("ends", 0.8, 0.2))
    network = md.create_network(graph, 0.2)
    return md.solve(md.assemble(box, network, coefficients, bcs_1d=ends))


def test_exchange_and_sources_add_up_to_the_mass_balance(solution):
    table, balance = md.edge_table(solution), solution.mass_balance
    assert table.exchange.sum() == pytest.approx(balance.exchange, rel=1e-10)
    assert table.source.sum() == pytest.approx(balance.source_1d, rel=1e-10)
    assert md.node_inflow(solution).sum() == pytest.approx(balance.boundary_1d, rel=1e-10)


def test_each_edge_balances(solution):
    table = md.edge_table(solution)
    missing = table.flux_start + table.source - table.flux_end - table.exchange
    assert abs(missing).max() <= 1e-10 * abs(table.exchange).max()


def test_flux_through_the_ends_is_that_of_the_boundary_conditions(solution):
    """Kirchhoff's law at inner nodes; what Robin's condition says at ends; any at inlets."""
    network, inflow = solution.system.network, md.node_inflow(solution)
    graph, scale = network.graph, abs(inflow).max()
    at_nodes = _values_at_nodes(solution)
    for number, node in enumerate(graph):
        if graph.nodes[node].get("inlet"):
            continue
        expected = 0.8 * (0.2 - at_nodes[number]) if graph.degree[node] == 1 else 0.0
        assert inflow[number] == pytest.approx(expected, abs=1e-10 * scale)


def _values_at_nodes(solution):
    """Return u_1d at the nodes of the graph."""
    network = solution.system.network
    vertices = network.P1.tabulate_dof_coordinates()
    positions = np.array([position for _, position in network.graph.nodes(data="pos")])
    dofs = np.linalg.norm(vertices[None] - positions[:, None], axis=2).argmin(axis=1)
    return solution.u_1d.x.array[dofs]


def test_means_of_linear_fields_are_those_at_the_middle(solution):
    """T u of a linear u is its value on the axis, where the circle lies in the tissue."""
    graph = solution.system.network.graph
    positions = dict(graph.nodes(data="pos"))
    middle = np.array([np.add(positions[u], positions[v]) / 2 for u, v in graph.edges])
    fields = {}
    for name in ("u_3d", "u_1d"):
        fields[name] = dolfinx.fem.Function(getattr(solution, name).function_space)
        fields[name].interpolate(lambda x: x[0] - 2 * x[1] + 3 * x[2])
    # With a source that makes them solve the equations of the network.
    system = solution.system
    _, residual = system.unconstrained_residual(fields["u_3d"].x.array, fields["u_1d"].x.array)
    side = dataclasses.replace(system.side_1d, f=system.side_1d.f + residual)
    system = dataclasses.replace(system, side_1d=side)
    table = md.edge_table(dataclasses.replace(solution, system=system, **fields))
    np.testing.assert_allclose(table.mean_u_1d, middle @ [1, -2, 3], atol=1e-12)
    np.testing.assert_allclose(table.mean_wall_u_3d, middle @ [1, -2, 3], atol=1e-12)


def test_table_describes_the_graph(solution):
    table, graph = md.edge_table(solution), solution.system.network.graph
    assert table.ends == tuple(graph.edges)
    np.testing.assert_allclose(table.length, edge_lengths(graph), rtol=1e-12)
    np.testing.assert_array_equal(table.radius, [r for *_, r in graph.edges(data="radius")])


def test_axial_flux_of_a_vessel_is_the_exact_one(vessel):
    """Without exchange u_1d is linear, and the flux is the conductance times its slope."""
    network = md.create_network(vessel, 0.2)
    coefficients = md.Coefficients(sigma_3d=1.0, k_1d=3.0, permeability=0.0)
    ends = [md.Dirichlet("inlets", 5.0), md.Dirichlet("ends", 1.0)]
    solution = md.solve(md.assemble(md.create_box(3), network, coefficients, bcs_1d=ends))
    table, (length,) = md.edge_table(solution), edge_lengths(vessel)
    assert table.flux_start == pytest.approx(3.0 * 4.0 / length)
    assert table.flux_end == pytest.approx(3.0 * 4.0 / length)
    assert md.node_inflow(solution) == pytest.approx([12.0 / length, -12.0 / length])
    assert table.mean_u_1d == pytest.approx(3.0)


def test_edge_without_wall_in_the_tissue_has_no_mean_there(vessel):
    network = md.create_network(vessel, 0.2)
    box = md.create_box(2, lower=(5, 5, 5), upper=(6, 6, 6))
    system = md.assemble(box, network, md.Coefficients(sigma_3d=1.0), outside="drop")
    table = md.edge_table(md.solve(system))
    assert np.isnan(table.mean_wall_u_3d).all()
    np.testing.assert_array_equal(table.exchange, 0.0)


def test_file_reads_back_as_the_table(solution, tmp_path):
    path = md.write_edge_table(solution, tmp_path / "new" / "edges.csv")
    table = md.edge_table(solution)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["first"], row["second"]) for row in rows] == [
        (str(first), str(second)) for first, second in table.ends
    ]
    assert list(rows[0]) == [
        "first", "second", "length", "radius", "mean_u_1d", "mean_wall_u_3d", "exchange",
        "source", "flux_start", "flux_end",
    ]  # fmt: skip
    for name in list(rows[0])[2:]:
        np.testing.assert_array_equal([float(row[name]) for row in rows], getattr(table, name))


def test_fields_that_do_not_solve_the_network_are_refused(solution):
    u_1d = dolfinx.fem.Function(solution.u_1d.function_space)
    u_1d.interpolate(lambda x: x[0] ** 2)
    with pytest.raises(ValueError, match=r"got fields that solve .* wanted a stationary solution"):
        md.edge_table(dataclasses.replace(solution, u_1d=u_1d))


def test_state_of_transport_has_no_table(fork):
    network = md.create_network(fork, 0.2)
    system = md.assemble(md.create_box(3), network, md.Coefficients(), bcs_1d=[])
    (state,) = md.simulate_transport(system, [2.0, 1.0, 1.0], time_step=0.1, num_steps=1)
    with pytest.raises(ValueError, match=r"a state of transport has axial fluxes of its own"):
        md.edge_table(state)


# --- Tissue -----------------------------------------------------------------------------------


def _with_field(system, values):
    """Return something with u_3d of these values at the dofs."""
    u_3d = dolfinx.fem.Function(system.side_3d.V)
    u_3d.x.array[:] = values
    solution = md.solve(system)
    return dataclasses.replace(solution, u_3d=u_3d)


@pytest.fixture(scope="module")
def linear(system):
    """u_3d = 3 z on the box of 1 x 1.2 x 0.9."""
    return _with_field(system, 3.0 * system.side_3d.V.tabulate_dof_coordinates()[:, 2])


@pytest.mark.parametrize("part", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.77, 1.0])
def test_statistics_of_a_linear_field_are_exact(linear, part):
    found = md.tissue_statistics(linear, hypoxic_below=2.7 * part, quantiles=[part])
    assert found.volume == pytest.approx(1.08, rel=1e-12)
    assert found.mean == pytest.approx(1.35, rel=1e-12)
    assert (found.minimum, found.maximum) == pytest.approx((0.0, 2.7))
    assert found.hypoxic_fraction == pytest.approx(part, rel=1e-12, abs=1e-14)
    assert found.quantiles[part] == pytest.approx(2.7 * part, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("cell_type", ["tetrahedron", "hexahedron"])
def test_oblique_linear_field_splits_the_cube_as_a_plane_does(cell_type):
    """x + y + z < c on the unit cube: c^3 / 6 up to 1, and one half at 3/2."""
    box = md.create_box((2, 3, 4), cell_type=cell_type)
    network = md.create_network(md.random_vascular_graph(4, 0.05, 0), 0.5)
    system = md.assemble(box, network, md.Coefficients(sigma_3d=1.0))
    oblique = _with_field(system, system.side_3d.V.tabulate_dof_coordinates().sum(axis=1))
    for below, part in ((0.3, 0.3**3 / 6), (1.0, 1 / 6), (1.5, 0.5), (2.0, 5 / 6), (9.0, 1.0)):
        found = md.tissue_statistics(oblique, hypoxic_below=below)
        assert found.hypoxic_fraction == pytest.approx(part, rel=1e-12)
    assert found.quantiles[0.5] == pytest.approx(1.5, rel=1e-9)
    assert list(found.quantiles) == [0.05, 0.25, 0.5, 0.75, 0.95]


def test_mean_of_a_trilinear_field_is_exact():
    """x y z on the unit cube has the mean 1/8, and is below c in c (1 - ln c + ln² c / 2) of it."""
    box = md.create_box(12, cell_type="hexahedron")
    network = md.create_network(md.random_vascular_graph(4, 0.05, 0), 0.5)
    system = md.assemble(box, network, md.Coefficients(sigma_3d=1.0))
    values = system.side_3d.V.tabulate_dof_coordinates().prod(axis=1)
    found = md.tissue_statistics(_with_field(system, values), hypoxic_below=0.1)
    assert found.volume == pytest.approx(1.0, rel=1e-12)
    assert found.mean == pytest.approx(0.125, rel=1e-12)
    part = 0.1 * (1 - np.log(0.1) + np.log(0.1) ** 2 / 2)
    assert found.hypoxic_fraction == pytest.approx(part, abs=5e-3)


def test_printed_table_keeps_names_and_numbers_apart(linear):
    found = md.tissue_statistics(linear, hypoxic_below=0.27, quantiles=[0.025, 1 / 3, 0.5])
    rows = dict(row.rsplit(maxsplit=1) for row in str(found).splitlines())
    assert list(rows) == [
        "volume", "mean", "minimum", "0.025 quantile", "0.3333 quantile", "0.5 quantile",
        "maximum", "hypoxic part",
    ]  # fmt: skip
    assert float(rows["0.3333 quantile"]) == pytest.approx(0.9, rel=1e-3)


def test_constant_field(system):
    found = md.tissue_statistics(_with_field(system, 2.0), hypoxic_below=2.0)
    assert set(found.quantiles.values()) == {2.0}
    assert found.hypoxic_fraction == 0.0
    assert md.tissue_statistics(_with_field(system, 2.0)).hypoxic_fraction is None


corners = hnp.arrays(np.float64, 4, elements=st.floats(-1.0, 1.0, width=16)).map(np.sort)


@settings(max_examples=300, deadline=None)
@given(corners, st.floats(-1.25, 1.25, width=32))
def test_part_of_a_tetrahedron_is_the_share_of_samples(values, threshold):
    (part,) = statistics._fraction_below(values[None], threshold)
    assert 0.0 <= part <= 1.0
    assume(abs(values - threshold).max() > 1e-6)  # there the samples are rounded to either side
    samples = _BARYCENTRIC @ values
    assert part == pytest.approx(np.mean(samples < threshold), abs=0.05)


@settings(max_examples=200, deadline=None)
@given(corners, st.floats(-1.0, 1.0), st.floats(0.0, 0.5))
def test_part_of_a_tetrahedron_grows_with_the_threshold(values, threshold, step):
    (low,) = statistics._fraction_below(values[None], threshold)
    (high,) = statistics._fraction_below(values[None], threshold + step)
    assert low <= high + 1e-9


def _uniform_in_a_tetrahedron(count):
    """Return barycentric coordinates spread evenly over a tetrahedron, shape (count, 4)."""
    cuts = np.sort(np.random.default_rng(0).random((count, 3)), axis=1)
    return np.diff(cuts, axis=1, prepend=0.0, append=1.0)


_BARYCENTRIC = _uniform_in_a_tetrahedron(4000)


@pytest.mark.parametrize("part", [-0.1, 1.5, np.nan])
def test_quantiles_outside_of_the_volume_are_refused(linear, part):
    with pytest.raises(ValueError, match=r"got the quantile .*; wanted parts of the volume"):
        md.tissue_statistics(linear, quantiles=[0.5, part])


def test_threshold_that_is_no_number_is_refused(linear):
    with pytest.raises(ValueError, match=r"got hypoxic_below=nan; wanted a finite threshold"):
        md.tissue_statistics(linear, hypoxic_below=np.nan)

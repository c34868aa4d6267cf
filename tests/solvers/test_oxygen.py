"""Oxygen: Krogh's cylinder, budgets, Newton's rate, dry and stagnant vessels."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import ufl

import mixeddim as md

DIFFUSION = 6e-14  # D alpha of tissue [m²/s/mmHg]
RESISTANCE = 2e12  # of blood [mmHg s/m²]
SIDE = 100e-6  # of the cube [m]


def assemble(graph: nx.Graph, num_cells, side=(SIDE,) * 3, resistance=RESISTANCE, **options):
    """The system of a network in a box, whose blood and unresolved tissue resist in series."""
    cell_type = options.pop("cell_type", "tetrahedron")
    box = md.create_box(num_cells, upper=side, cell_type=cell_type)
    radius = md.edge_radii(graph)
    total = resistance + md.unresolved_resistance(box, radius, DIFFUSION)
    kappa = 1 / (2 * np.pi * radius * total)
    nx.set_edge_attributes(graph, dict(zip(graph.edges, kappa, strict=True)), "permeability")
    network = md.create_network(graph, options.pop("segment", box.spacing))
    coefficients = md.Coefficients(
        k_3d=DIFFUSION, k_1d=1e-30, permeability=network.edge_field("permeability")
    )
    return md.assemble(box, network, coefficients, **({"bcs_1d": []} | options))


def straight(side=(SIDE,) * 3, radius=4e-6) -> nx.Graph:
    """One vessel in the middle, from node 0 at the bottom to node 1 at the top."""
    graph = nx.Graph([(0, 1)])
    graph.nodes[0]["pos"] = (side[0] / 2, side[1] / 2, 0.0)
    graph.nodes[1]["pos"] = (side[0] / 2, side[1] / 2, side[2])
    graph.edges[0, 1]["radius"] = radius
    return graph


def capillaries(seed: int = 4) -> tuple[nx.Graph, md.Blood]:
    """Capillaries in the cube, with blood that flows along x."""
    graph = md.random_vascular_graph(
        30, 3e-6, seed, "capillary_mesh", upper=(SIDE,) * 3, margin=8e-6
    )
    ends = [node for node in graph if graph.degree[node] == 1 or graph.nodes[node]["inlet"]]
    for node in ends:
        graph.nodes[node]["inlet"] = True
    pressures = {node: 3000.0 - 1e7 * graph.nodes[node]["pos"][0] for node in ends}
    return graph, md.solve_blood(graph, pressures)


STANDARD = {"inlet_po2": 80.0, "consumption": 1e-3, "half_consumption": 5.0}


def test_krogh_cylinder():
    """Where consumption is constant the profiles are Krogh's, around a vessel in a square.

    The tissue of a square of side s around a vessel is that of a doubly periodic lattice, whose
    Green's function near the vessel is -(ln(2 pi eta² r / s) - pi r² / (2 s²)) / (2 pi),
    eta = 0.7682254 that of Dedekind at i.
    """
    side, R, Q, H, M0 = 60e-6, 4e-6, 2e-13, 0.4, 5e-4
    box = (side, side, 300e-6)
    system = assemble(straight(box, R), (15, 15, 40), box, segment=2e-6)
    blood = md.BloodOxygen()
    solution = md.solve_oxygen(
        system, Q, H, inlet_po2=90.0, consumption=M0, half_consumption=1e-6, blood=blood
    )
    z = system.network.mesh.geometry.x[:, 2]
    dofs = np.empty(len(z), dtype=int)
    dofs[system.network.mesh.geometry.dofmaps[0].ravel()] = system.network.P1.dofmap.list.ravel()
    p = solution.u_1d.x.array[dofs]
    q = M0 * side**2
    lost = blood.content(90.0, H) - blood.content(p, H)
    np.testing.assert_allclose(lost, q * z / Q, atol=0.02 * q * box[2] / Q)

    eta_squared, nodes = 0.7682254223**2, system.grid.to_grid(solution.u_3d.x.array)
    middle = nodes[:, :, 20]
    at_middle = np.interp(150e-6, np.sort(z), p[np.argsort(z)])
    wall = at_middle - q * RESISTANCE
    green = (-np.log(2 * np.pi * eta_squared * R / side) + np.pi * R**2 / side**2) / (2 * np.pi)
    assert middle[1:-1, 1:-1].mean() == pytest.approx(wall - q / DIFFUSION * green, abs=1.0)
    # Krogh and Erlang (1919) take a cylinder of the square's cross-section instead.
    outer = side / np.sqrt(np.pi)
    r = side / 15 * np.hypot(*(np.indices((16, 16)) - 7.5))
    krogh = wall + M0 / DIFFUSION * ((r**2 - R**2) / 4 - 0.5 * outer**2 * np.log(r / R))
    near = (r > 2 * R) & (r < 0.8 * outer)
    assert near.sum() > 50
    np.testing.assert_allclose(middle[near], krogh[near], atol=0.02 * np.ptp(krogh[near]) + 0.5)


def test_capillaries_keep_their_budget_and_newton_is_quadratic():
    graph, blood = capillaries()
    system = assemble(graph, 12)
    solution = md.solve_oxygen(system, blood.flow, blood.hematocrit, **STANDARD)
    budget = solution.budget
    assert budget.error < 1e-10
    assert budget.inflow > budget.outflow > 0
    assert budget.consumption > 0
    assert budget.exchange == pytest.approx(budget.consumption, rel=1e-9)
    assert solution.extraction == pytest.approx(1 - budget.outflow / budget.inflow, rel=1e-12)
    entering = (blood.node_inflow.clip(min=0) * solution.blood.content(80.0, 0.45)).sum()
    assert budget.inflow == pytest.approx(entering, rel=1e-9)
    norms = solution.residual_norms[solution.residual_norms > 1e-14]
    assert len(norms) < 10
    before, last = np.log(norms[-3:-1] / norms[0])
    assert np.log(norms[-1] / norms[0]) < 1.6 * last < 0 > before
    assert f"{solution.iterations} iterations" in repr(solution)
    assert "consumed" in str(budget)


def test_fields_and_averages():
    graph, blood = capillaries()
    solution = md.solve_oxygen(assemble(graph, 12), blood.flow, blood.hematocrit, **STANDARD)
    assert 0 < solution.u_3d.x.array.min() < solution.tissue_mean < solution.vessel_mean < 80
    assert solution.u_1d.x.array.max() <= 80 + 1e-9
    assert np.mean(solution.wall_po2 < solution.blood_po2) > 0.9
    beta = solution.system.coupling.beta
    np.testing.assert_allclose(
        beta * (solution.blood_po2 - solution.wall_po2), solution.wall_flux, rtol=1e-12
    )
    p = solution.u_1d.x.array
    np.testing.assert_allclose(solution.saturation, p**3 / (p**3 + 38**3), rtol=1e-12)
    statistics = md.tissue_statistics(solution, hypoxic_below=solution.tissue_mean)
    assert solution.tissue_mean == pytest.approx(statistics.mean, rel=1e-10)
    below = solution.hypoxic_fraction(solution.tissue_mean)
    assert below == pytest.approx(statistics.hypoxic_fraction, abs=0.03)
    assert solution.hypoxic_fraction(0.0) == 0.0
    assert solution.hypoxic_fraction(100.0) == pytest.approx(1.0)


@pytest.mark.parametrize("cell_type", ["tetrahedron", "hexahedron"])
def test_unresolved_resistance_makes_coarse_grids_agree(cell_type):
    graph, blood = capillaries()

    def mean(num_cells: int, *, corrected: bool) -> float:
        system = assemble(graph, num_cells, cell_type=cell_type)
        if not corrected:
            bare = 1 / (2 * np.pi * system.network.radius * RESISTANCE)
            system = system.with_coefficients(permeability=bare)
        options = STANDARD | {"consumption": 4e-3}
        return md.solve_oxygen(system, blood.flow, blood.hematocrit, **options).tissue_mean

    bare, coarse, fine = (mean(*a, corrected=c) for *a, c in ((6, False), (6, True), (24, True)))
    assert coarse == pytest.approx(fine, rel=0.04)
    assert abs(bare - fine) > 4 * abs(coarse - fine)


@pytest.mark.parametrize(
    ("cell_type", "effective"),
    [
        ("tetrahedron", [0.0485, 0.0740, 0.1204, 1.0182]),
        ("hexahedron", [0.0386, 0.0655, 0.1146, 1.0136]),
    ],
)
def test_unresolved_resistance_is_the_logarithm_of_the_effective_radius(cell_type, effective):
    box = md.create_box(10, cell_type=cell_type)
    resistance = md.unresolved_resistance(box, [1e-6, 0.05, 0.1, 1.0], 2.0)
    expected = np.log(np.array(effective) / [1e-6, 0.05, 0.1, 1.0]) / (4 * np.pi)
    np.testing.assert_allclose(resistance, expected, rtol=2e-4)
    with pytest.raises(ValueError, match="got k_3d=-1 and radii from 1; wanted a finite positive"):
        md.unresolved_resistance(box, 1.0, -1)


def test_pascal_throughout_gives_the_same():
    graph, flow = capillaries()
    system = assemble(graph, 8, bcs_3d=[md.Dirichlet("x_min", 40.0)])
    in_mmhg = md.solve_oxygen(system, flow.flow, flow.hematocrit, **STANDARD)

    pascal = 133.322387415  # per mmHg
    system = assemble(graph, 8, bcs_3d=[md.Dirichlet("x_min", 40.0 * pascal)])
    permeability = system.network.edge_field("permeability") / pascal
    system = system.with_coefficients(
        k_3d=DIFFUSION / pascal, k_1d=1e-30 / pascal, permeability=permeability
    )
    options = {"inlet_po2": 80.0 * pascal, "consumption": 1e-3, "half_consumption": 5.0 * pascal}
    blood = md.BloodOxygen().in_pascal()
    in_pascal = md.solve_oxygen(system, flow.flow, flow.hematocrit, blood=blood, **options)
    for name in ("u_3d", "u_1d"):
        p, P = (getattr(solution, name).x.array for solution in (in_mmhg, in_pascal))
        np.testing.assert_allclose(P, pascal * p, rtol=1e-8)
    np.testing.assert_allclose(in_pascal.saturation, in_mmhg.saturation, rtol=1e-8)
    assert in_pascal.tissue_mean == pytest.approx(pascal * in_mmhg.tissue_mean)
    assert in_pascal.budget.consumption == pytest.approx(in_mmhg.budget.consumption)
    assert in_pascal.budget.error < 1e-10


def test_consumption_in_a_part_of_the_tissue():
    graph, blood = capillaries()
    system = assemble(graph, 10)
    half = {"consumption": lambda x: ufl.conditional(ufl.lt(x[0], SIDE / 2), 2e-3, 0.0)}
    solution = md.solve_oxygen(system, blood.flow, blood.hematocrit, **(STANDARD | half))
    po2 = system.grid.to_grid(solution.u_3d.x.array)
    assert po2[:4].mean() < po2[-4:].mean()
    assert solution.budget.consumption < 2e-3 * SIDE**3 / 2
    assert solution.budget.error < 1e-10


def test_given_pressure_at_a_face_counts_in_the_budget():
    graph, blood = capillaries()
    system = assemble(graph, 10, bcs_3d=[md.Dirichlet("x_min", 40.0)])
    solution = md.solve_oxygen(system, blood.flow, blood.hematocrit, **STANDARD)
    np.testing.assert_allclose(system.grid.to_grid(solution.u_3d.x.array)[0], 40.0)
    assert abs(solution.budget.boundary) > 1e-3 * solution.budget.inflow
    assert solution.budget.error < 1e-10


@pytest.mark.parametrize("bcs_3d", [[], [md.Dirichlet("x_min", 40.0)]], ids=["closed", "given"])
def test_all_that_enters_counts_in_both_balances(bcs_3d):
    graph, blood = capillaries()
    system = assemble(graph, 8, bcs_3d=bcs_3d).with_coefficients(
        f_1d=3e-11, f_3d=1e-4, sigma_3d=1e-6
    )
    solution = md.solve_oxygen(system, blood.flow, blood.hematocrit, **STANDARD)
    balance, budget = solution.mass_balance, solution.budget
    assert budget.error < 1e-10
    assert balance.source_1d > 1e-3 * budget.inflow
    assert balance.error < 1e-10
    assert balance.exchange == pytest.approx(budget.exchange, rel=1e-12)
    assert balance.reaction_3d > budget.consumption


def test_without_consumption_all_is_as_it_enters():
    graph, blood = capillaries()
    options = STANDARD | {"consumption": 0.0}
    solution = md.solve_oxygen(assemble(graph, 8), blood.flow, blood.hematocrit, **options)
    np.testing.assert_allclose(solution.u_3d.x.array, 80.0, rtol=1e-6)
    assert solution.extraction == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("factor", [1e-3, 1e-9, 0.0])
def test_vessels_run_dry_and_stagnate(factor):
    """With hardly any flow the tissue takes all oxygen: PO2 falls to zero, and not below."""
    graph, blood = capillaries()
    hungry = STANDARD | {"consumption": 2e-2, "half_consumption": 1.0}
    solution = md.solve_oxygen(assemble(graph, 10), factor * blood.flow, blood.hematocrit, **hungry)
    assert solution.u_3d.x.array.min() > -0.1
    assert solution.u_1d.x.array.min() > -0.1
    assert solution.hypoxic_fraction(1.0) > 0.9
    assert solution.budget.error < 1e-8


def test_dead_ends_loops_a_stagnant_vessel_and_an_anoxic_corner():
    graph = nx.Graph([(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (2, 3), (2, 6)])
    places = [(5, 30, 50), (25, 30, 50), (50, 15, 50), (50, 45, 50), (75, 30, 50), (95, 30, 50)]
    for node, place in enumerate([*places, (50, 15, 20)]):
        graph.nodes[node]["pos"] = tuple(1e-6 * x for x in place)
    nx.set_edge_attributes(graph, 3e-6, "radius")
    blood = md.solve_blood(graph, {0: 3000.0, 5: 2900.0})
    still = abs(blood.flow) < 1e-10 * abs(blood.flow).max()
    assert still.sum() == 2  # the bridge between equal pressures, and the dead end
    hungry = STANDARD | {"consumption": 5e-3}
    solution = md.solve_oxygen(assemble(graph, 20), blood.flow, blood.hematocrit, **hungry)
    assert solution.budget.error < 1e-10
    assert system_corner(solution) < 0.5 < solution.vessel_mean
    dead_end = solution.system.network.dof_of_node[list(graph).index(6)]
    wall = solution.wall_po2[np.argmin(solution.system.coupling.points[:, 2])]
    assert solution.u_1d.x.array[dead_end] == pytest.approx(wall, abs=2.0)


def system_corner(solution: md.OxygenSolution) -> float:
    return solution.system.grid.to_grid(solution.u_3d.x.array)[-1, -1, -1]


MESSAGES = [
    ({"flow": [np.nan]}, r"got no flow on edge \(0, 1\); wanted a finite number"),
    ({"flow": None}, r"got no flow on edge \(0, 1\)"),
    ({"flow": [1.0, 2.0]}, r"flow of shape \(2,\); wanted a number for each of the 1 edges"),
    ({"hematocrit": 45.0}, "hematocrits from 45 to 45; wanted them from 0 to 1. Give shares"),
    ({"inlet_po2": 10_000.0}, "inlet_po2 from 1e.04 to 1e.04; wanted mmHg.*Divide Pa by 133"),
    ({"inlet_po2": -1.0}, "inlet_po2 from -1 to -1; wanted mmHg, from 0"),
    ({"inlet_po2": "high"}, "inlet_po2='high'; wanted a number, or a dictionary"),
    ({"inlet_po2": {1: 80.0}}, "no PO2 of the blood that enters at node 0"),
    ({"inlet_po2": {7: 80.0}}, "PO2 at 7; wanted a node of the graph"),
    ({"inlet_po2": {0: "high"}}, "PO2 'high' at node 0; wanted a number in mmHg"),
    ({"inlet_po2": {0: 10_000.0}}, "inlet_po2 from 1e.04 to 1e.04; wanted mmHg"),
    ({"flow": [3.0]}, r"velocity up to .* m/s; wanted those of blood, in m³/s\. Multiply nl/min"),
    ({"consumption": -1.0}, "consumption that is negative, or no number"),
    ({"half_consumption": 0.0}, "half_consumption=0.0; wanted a positive pressure in mmHg"),
    ({"half_consumption": "low"}, "half_consumption='low'; wanted a positive pressure in mmHg"),
    ({"half_consumption": 1400.0}, "half_consumption=1400.0; wanted mmHg.*Divide Pa by 133.322"),
    ({"hematocrit": 1.1}, "hematocrits from 1.1 to 1.1; wanted them from 0 to 1"),
    ({"hematocrit": -0.1}, "hematocrits from -0.1 to -0.1; wanted them from 0 to 1"),
    ({"rtol": 2.0}, "rtol=2.0; wanted a number between 0 and 1"),
]


@pytest.mark.parametrize(("changes", "message"), MESSAGES)
def test_refuses(changes, message):
    arguments = {"flow": [1e-14], "hematocrit": 0.4, **STANDARD} | changes
    flow, hematocrit = arguments.pop("flow"), arguments.pop("hematocrit")
    with pytest.raises(ValueError, match=message):
        md.solve_oxygen(assemble(straight(), 4), flow, hematocrit, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inlet_po2": 2e5},
            "inlet_po2 from 2e.05 to 2e.05; wanted Pa, from 0 to 101325. Multiply",
        ),
        ({"half_consumption": 2e5}, "half_consumption=200000.0; wanted Pa, from 0 to 101325"),
        ({"half_consumption": "low"}, "half_consumption='low'; wanted a positive pressure in Pa"),
    ],
)
def test_refuses_other_units_than_pascal(changes, message):
    arguments = {"blood": md.BloodOxygen().in_pascal()} | STANDARD | changes
    with pytest.raises(ValueError, match=message):
        md.solve_oxygen(assemble(straight(), 4), [1e-14], 0.4, **arguments)


def test_refuses_given_values_on_the_network():
    system = assemble(straight(), 4, bcs_1d=[md.Dirichlet("ends", 1.0)])
    with pytest.raises(ValueError, match=r"u_1d given at 2 nodes; wanted none.*bcs_1d="):
        md.solve_oxygen(system, 1e-14, 0.4, **STANDARD)


def test_refuses_exchange_that_is_not_driven_by_pressures():
    system = assemble(straight(), 4)
    with pytest.raises(ValueError, match=r"partition=2\.0; wanted 1, since partial pressures"):
        md.solve_oxygen(system.with_coefficients(partition=2.0), 1e-14, 0.4, **STANDARD)
    coupling = replace(system.coupling, drag=system.coupling.beta)
    with pytest.raises(ValueError, match=r"fluid drags .* Pass the system that was passed"):
        md.solve_oxygen(replace(system, coupling=coupling), 1e-14, 0.4, **STANDARD)


def test_refuses_given_pressures_in_another_unit():
    system = assemble(straight(), 4, bcs_3d=[md.Dirichlet("x_min", 5300.0)])
    with pytest.raises(ValueError, match="bcs_3d with values up to 5300; wanted mmHg, from 0 to"):
        md.solve_oxygen(system, 1e-14, 0.4, **STANDARD)


def test_refuses_red_cells_that_appear():
    graph, blood = capillaries()
    hematocrit = blood.hematocrit * np.linspace(0.5, 1.0, len(blood.flow))
    with pytest.raises(ValueError, match="hematocrit with which red cells get lost or appear"):
        md.solve_oxygen(assemble(graph, 6), blood.flow, hematocrit, **STANDARD)


def test_says_when_newton_does_not_converge():
    graph, blood = capillaries()
    with pytest.raises(md.SolverError, match=r"stopped after 1 iterations.*units are m, m³/s"):
        md.solve_oxygen(
            assemble(graph, 6), blood.flow, blood.hematocrit, **STANDARD, max_iterations=1
        )

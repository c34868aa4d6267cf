"""Storage: rates of a mode on varying storage, what the balance counts, refusals."""

from dataclasses import replace

import dolfinx
import networkx as nx
import numpy as np
import pytest
import ufl

import mixeddim as md
from mixeddim.verification import study_transport
from mixeddim.verification.manufactured_transport import decaying_mode

BOX = md.create_box(4)


def system(graph: nx.Graph) -> md.CoupledSystem:
    network = md.create_network(graph, BOX.spacing)
    coefficients = md.Coefficients(
        k_3d=0.1, sigma_3d=0.2, k_1d=1e-3, permeability=2.0, f_3d=0.3, f_1d=0.1
    )
    return md.assemble(BOX, network, coefficients, bcs_1d=[])


def simulate(system: md.CoupledSystem, **storage: object) -> list[md.TransportState]:
    flow = md.solve_flow(system.network.graph, 1.0, {0: 1.0, 2: 0.2, 3: 0.0}).flow
    return list(
        md.simulate_transport(
            system, flow, time_step=0.3, num_steps=5, initial_3d=lambda x: x[0], **storage
        )
    )


def porosity(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
    return 0.2 + 0.1 * x[0] * x[2]


def test_a_mode_on_varying_storage_is_second_order_in_h() -> None:
    study = study_transport(decaying_mode(contrast=0.8), (8, 12, 16), (4, 9, 16), end=0.05)
    assert study.rate("L2_3d") == pytest.approx(2.0, abs=0.1)
    assert study.rate("H1_3d") == pytest.approx(1.0, abs=0.1)
    assert study.rate("L2_1d") == pytest.approx(2.0, abs=0.1)


def test_the_rates_notice_a_wrong_storage() -> None:
    wrong = replace(decaying_mode(contrast=0.8), storage_3d=1.0)
    assert study_transport(wrong, (8, 12, 16), (4, 9, 16), end=0.05).rate("L2_3d") < 1.5


def test_a_mode_on_varying_storage_is_first_order_in_time() -> None:
    mode = decaying_mode(contrast=0.8)
    ends = [mode.simulate(6, steps, end=0.5).u_3d.x.array for steps in (8, 16, 32, 64)]
    changes = np.linalg.norm(np.diff(ends, axis=0), axis=1)
    rate = -np.polyfit(np.log([8, 16, 32]), np.log(changes), 1)[0]
    assert rate == pytest.approx(1.0, abs=0.1)


def test_the_balance_counts_what_is_stored(fork: nx.Graph) -> None:
    problem = system(fork)
    per_vessel = dolfinx.fem.Function(problem.network.radius.function_space)
    per_vessel.x.array[:] = np.linspace(0.5, 2.0, len(per_vessel.x.array))
    states = simulate(problem, storage_3d=porosity, storage_1d=per_vessel)
    assert max(state.mass_balance.error for state in states) < 1e-10
    before, after = states[-2:]
    phi = porosity(ufl.SpatialCoordinate(BOX.mesh))
    stored = dolfinx.fem.assemble_scalar(dolfinx.fem.form(phi * after.u_3d * ufl.dx))
    assert after.mass_balance.amount_3d == pytest.approx(stored, rel=1e-12)
    section = ufl.pi * problem.network.radius**2
    held = dolfinx.fem.form(per_vessel * section * after.u_1d * ufl.dx)
    assert after.mass_balance.amount_1d == pytest.approx(
        dolfinx.fem.assemble_scalar(held), rel=1e-12
    )
    for side in ("3d", "1d"):
        growth = getattr(after.mass_balance, f"amount_{side}") - getattr(
            before.mass_balance, f"amount_{side}"
        )
        assert getattr(after.mass_balance, f"storage_{side}") == pytest.approx(growth / 0.3)


def test_numbers_expressions_and_functions_store_alike(fork: nx.Graph) -> None:
    problem = system(fork)
    constant = dolfinx.fem.Function(problem.side_3d.V)
    constant.x.array[:] = 0.3
    [by_number, by_expression, by_function] = (
        simulate(problem, storage_3d=storage, storage_1d=0.7)[-1].u_3d.x.array
        for storage in (0.3, lambda x: 0.3 + 0 * x[0], constant)
    )
    np.testing.assert_allclose(by_expression, by_number, rtol=1e-12)
    np.testing.assert_allclose(by_function, by_number, rtol=1e-12)


def test_storing_as_much_more_slows_all_down_as_much(fork: nx.Graph) -> None:
    """With phi on both sides and time steps phi times as long the fields are the same."""
    problem = system(fork)
    flow = md.solve_flow(fork, 1.0, {0: 1.0, 2: 0.2, 3: 0.0}).flow
    [slow, fast] = (
        list(
            md.simulate_transport(
                problem, flow, time_step=dt, num_steps=4, storage_3d=phi, storage_1d=phi
            )
        )[-1]
        for phi, dt in ((1.0, 0.2), (4.0, 0.8))
    )
    np.testing.assert_allclose(slow.u_3d.x.array, fast.u_3d.x.array, rtol=1e-12)


def test_without_storage_a_step_is_the_stationary_state(fork: nx.Graph) -> None:
    first, *_, last = simulate(system(fork), storage_3d=0.0, storage_1d=0.0)
    np.testing.assert_allclose(first.u_3d.x.array, last.u_3d.x.array, rtol=1e-10)
    assert last.mass_balance.amount_3d == 0.0


@pytest.mark.parametrize("side", ["storage_3d", "storage_1d"])
@pytest.mark.parametrize(("storage", "message"), [
    (-0.1, r"=-0\.1; wanted a non-negative number"),
    (float("nan"), "=nan; wanted a non-negative number"),
    (lambda x: x[2] - 0.5, r" from -0\.\d+ on; wanted finite, non-negative values everywhere"),
    (lambda x: ufl.ln(x[2] - 0.5), " from -inf on; wanted finite"),
])  # fmt: skip
def test_negative_storage_is_refused(
    fork: nx.Graph, side: str, storage: object, message: str
) -> None:
    with pytest.raises(ValueError, match=f"got {side}{message}"):
        simulate(system(fork), **{side: storage})

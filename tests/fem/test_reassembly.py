"""Systems with a changed coefficient or network: equal to new ones, what did not change shared."""

from dataclasses import fields

import dolfinx
import numpy as np
import pytest
import ufl

import mixeddim as md
from mixeddim.networks.graphs import NetworkError

BLOCKS = ["K", "M", "K_1d", "Pi", "N", "A_33", "A_31", "A_13", "A_11", "b_3", "b_1"]

CHANGES = {
    "k_3d": {"k_3d": lambda x: 2.0 + x[2]},
    "a tensor": {"k_3d": [[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]]},
    "sigma_3d": {"sigma_3d": lambda x: 1.0 + ufl.sin(x[0])},
    "k_1d": {"k_1d": lambda x: 1.0 + x[0]},
    "permeability": {"permeability": lambda x: 3.0 + x[1]},
    "series_resistance": {"series_resistance": lambda x: 0.3 + x[1]},
    "partition": {"partition": 2.5},
    "f_3d": {"f_3d": lambda x: x[0]},
    "f_1d": {"f_1d": 0.7},
    "both sides": {"k_3d": 0.3, "sigma_3d": 0.2, "k_1d": 4.0, "permeability": 0.0, "f_3d": 1.0},
    "nothing": {},
}

BASE = {"k_3d": 1.5, "sigma_3d": lambda x: 0.5 + x[0], "k_1d": 0.7, "f_3d": 0.1, "f_1d": 0.2}


@pytest.fixture(scope="module")
def box():
    return md.create_box((4, 5, 3), upper=(1.0, 1.2, 0.9))


def network_of(box, seed=0, radius=0.05):
    graph = md.random_vascular_graph(8, radius, seed=seed)
    return md.create_network(graph, box.spacing)


def assemble(box, network, coefficients, **others):
    conditions = {
        "bcs_3d": [
            md.Dirichlet(lambda x: x[2] < box.lower[2] + 1e-9, lambda x: x[0]),
            md.Robin(lambda x: x[0] < box.lower[0] + 1e-9, 2.0, 0.3),
        ],
        "bcs_1d": [md.Dirichlet("inlets", 1.3), md.Robin("ends", 0.4, 0.1)],
    }
    return md.assemble(
        box, network, md.Coefficients(**coefficients), **(conditions | {"outside": "drop"} | others)
    )


def assert_equal(system, fresh):
    for name in BLOCKS:
        found, wanted = getattr(system, name), getattr(fresh, name)
        assert found.shape == wanted.shape, name
        assert abs(found - wanted).max() <= 1e-14 * abs(wanted).max(), name
    np.testing.assert_array_equal(system.grid.node_of_dof, fresh.grid.node_of_dof)


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_coefficient_gives_the_system_of_a_new_assembly(box, name):
    network, changed = network_of(box), CHANGES[name]
    system = assemble(box, network, BASE)
    system.A_33, system.b_3  # noqa: B018 - what is cached must not be taken for the new
    assert_equal(system.with_coefficients(**changed), assemble(box, network, BASE | changed))
    assert_equal(system, assemble(box, network, BASE))


@pytest.mark.parametrize("outside", ["raise", "clip", "renormalise", "drop"])
def test_a_changed_network_gives_the_system_of_a_new_assembly(outside):
    away = 0.5 if outside == "raise" else -0.1  # of the box's faces from the unit cube
    box = md.create_box((4, 5, 3), (-away,) * 3, (1.0 + away,) * 3)
    first, second = (network_of(box, seed, radius=0.3) for seed in (0, 1))
    averaging = md.CircleMean(num_points=12)
    system = assemble(box, first, BASE, outside=outside, averaging=averaging)
    fresh = assemble(box, second, BASE, outside=outside, averaging=averaging)
    assert (fresh.coupling.num_leaving > 0) is (outside != "raise")
    assert_equal(system.with_network(second), fresh)
    # And back, with other coefficients on the way.
    other = system.with_network(second, permeability=2.0, sigma_3d=3.0)
    assert_equal(other, fresh.with_coefficients(permeability=2.0, sigma_3d=3.0))
    assert_equal(other.with_network(first).with_coefficients(permeability=1.0, **BASE), system)


def test_a_network_may_come_with_its_own_fields_and_conditions(box):
    first, second = network_of(box), network_of(box, seed=1)
    fields_of = lambda network: {"k_1d": network.radius, "permeability": network.radius}  # noqa: E731
    conditions = [md.Dirichlet("inlets", 0.4)]
    system = assemble(box, first, BASE | fields_of(first))
    found = system.with_network(second, bcs_1d=conditions, **fields_of(second))
    assert_equal(found, assemble(box, second, BASE | fields_of(second), bcs_1d=conditions))
    with pytest.raises(ValueError, match="got k_1d on a mesh of topological dimension 1"):
        system.with_network(second)


def test_what_did_not_change_is_the_same_object(box):
    system = assemble(box, network_of(box), BASE)
    other = system.with_network(network_of(box, seed=1))
    for name in ("K", "M", "A_0", "grid"):
        assert getattr(other, name) is getattr(system, name), name
        assert getattr(md.reduce(other), name) is getattr(md.reduce(system), name), name
    assert other.Pi is not system.Pi
    leaky = system.with_coefficients(permeability=2.0)
    for name in ("K", "M", "A_0", "Pi", "N", "K_1d"):
        assert getattr(leaky, name) is getattr(system, name), name
    assert leaky.A_11 is not system.A_11
    hungry = system.with_coefficients(sigma_3d=2.0)
    for name in ("K", "Pi", "N", "K_1d", "A_11"):
        assert getattr(hungry, name) is getattr(system, name), name
    assert hungry.A_0 is not system.A_0


def test_a_function_that_changed_in_place_counts_where_it_is_named(box):
    k = dolfinx.fem.Function(box.P1)
    k.x.array[:] = 1.0
    network = network_of(box)
    system = assemble(box, network, BASE | {"k_3d": k})
    k.x.array[:] = 2.0
    kept, named = system.with_coefficients(f_3d=1.0), system.with_coefficients(k_3d=k)
    assert kept.K is system.K
    assert_equal(named, assemble(box, network, BASE | {"k_3d": k}))


def test_every_coefficient_is_one_that_can_be_changed():
    names = {name for changed in CHANGES.values() for name in changed}
    assert names == {field.name for field in fields(md.Coefficients)}


@pytest.mark.parametrize(("change", "kind", "message"), [
    (lambda s, _: s.with_coefficients(sigma=1.0), TypeError,
     r"got the coefficients \['sigma'\]; wanted some of \['f_1d', .*Correct the name"),
    (lambda s, _: s.with_coefficients(k_3d=-1.0), ValueError, "got k_3d=-1.0"),
    (lambda s, _: s.with_coefficients(permeability=lambda x: -x[0]), ValueError,
     "got a permeability from"),
    (lambda s, _: s.with_coefficients(k_3d=lambda x: ufl.ln(x[0] - 9)), ValueError,
     "got a stiffness of the tissue that is NaN"),
    (lambda s, _: s.with_network(s.network.graph), TypeError, "got a network of type Graph"),
    (lambda s, box: s.with_network(network_of(box), bcs_1d=md.Dirichlet("inlets")), TypeError,
     "alone; wanted a sequence of conditions|not iterable"),
])  # fmt: skip
def test_what_does_not_fit_is_explained(box, change, kind, message):
    system = assemble(box, network_of(box), BASE)
    with pytest.raises(kind, match=message):
        change(system, box)


def test_a_network_without_inlets_is_refused(box):
    graph = md.random_vascular_graph(8, 0.05, seed=1)
    for node in graph:
        graph.nodes[node]["inlet"] = False
    system = assemble(box, network_of(box), BASE)
    with pytest.raises(NetworkError, match="inlet"):
        system.with_network(md.create_network(graph, box.spacing))

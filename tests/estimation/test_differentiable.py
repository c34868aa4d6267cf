"""Derivatives of solves: against finite differences, by Taylor's expansion, and their cost."""

import numpy as np
import pytest
import torch

import learning
import mixeddim as md
from mixeddim import Dirichlet, Neumann, Robin

NAMES = ("permeability", "k_1d", "f_1d", "k_3d", "sigma_3d", "f_3d", "given_3d", "given_1d")


@pytest.fixture(scope="module", params=["tetrahedron", "hexahedron"])
def system(request, fork):
    box = md.create_box((3, 2, 2), cell_type=request.param)
    return md.assemble(
        box,
        md.create_network(fork, 0.4),
        md.Coefficients(sigma_3d=0.7, k_3d=0.3, k_1d=0.4, permeability=2.0, f_3d=0.5, f_1d=0.1),
        bcs_3d=[
            Dirichlet("x_min", lambda x: x[1]),
            Neumann("y_max", 0.3),
            Robin("z_min", 2.0, 0.5),
        ],
        bcs_1d=[Dirichlet("inlets", 1.5), Robin("ends", 0.8, 0.2)],
    )


def differentiable(system, *names):
    return learning.DifferentiableSolve(
        md.parametrise(system, *names), learning.Jacobi(), rtol=1e-13
    )


def some_values(solve, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: torch.tensor(rng.uniform(0.5, 1.5, size), requires_grad=True)
        for name, size in solve.system.sizes.items()
    }


def values_of(system, name):
    number = getattr(system.inputs.coefficients, name, None)
    side = system.side_3d if name == "given_3d" else system.side_1d
    return number if number is not None else torch.tensor(side.dirichlet_values)


@pytest.mark.parametrize("names", [*((n,) for n in NAMES), NAMES], ids="-".join)
def test_fields_are_those_of_the_assembled_system(system, names):
    solve = differentiable(system, *names)
    parameters = {
        name: torch.as_tensor(values_of(system, name), dtype=torch.float64).expand(size)
        for name, size in solve.system.sizes.items()
    }
    exact = md.solve(system)
    for field, wanted in zip(solve(parameters), (exact.u_3d, exact.u_1d), strict=True):
        np.testing.assert_allclose(field, wanted.x.array, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_first_and_second_derivatives_equal_differences(system, name):
    solve = differentiable(system, name)
    [value] = some_values(solve).values()
    value = value.detach()[:4].requires_grad_()
    rest = torch.ones(solve.system.sizes[name] - len(value), dtype=torch.float64)
    weights = [
        torch.randn(4, n, dtype=torch.float64, generator=torch.manual_seed(0))
        for n in (solve.system.num_tissue,)
    ]

    def observe(v):
        u_3d, u_1d = solve({name: torch.cat([v, rest])})
        return torch.cat([weights[0] @ u_3d, u_1d[:3] ** 2])

    assert torch.autograd.gradcheck(observe, value, atol=1e-6, rtol=1e-6)
    assert torch.autograd.gradgradcheck(observe, value, atol=1e-5, rtol=1e-5)

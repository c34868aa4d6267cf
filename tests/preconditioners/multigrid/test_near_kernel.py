"""Nearly singular systems, and cycles in float32."""

import pytest
import torch

import learning
from learning.preconditioners.multigrid.near_kernel import NearKernel
from learning.systems.operators import batch_systems


def float32(kind, network):
    if kind == "geometric":
        return learning.GeometricMultigrid(dtype=torch.float32)
    return learning.LearnedMultigrid(network(dtype=torch.float32))


@pytest.fixture
def weak(problem):
    """Systems whose S1 is 1e-5 to 1e-10 of |A_0|1."""
    return {size: problem(sigma=size, permeability=size) for size in (1e-3, 1e-5, 1e-8)}


@pytest.mark.parametrize("kind", ["geometric", "learned"])
@pytest.mark.parametrize("size", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("method", ["cg", "fgmres"])
def test_iterations_do_not_depend_on_how_little_holds_the_constants(
    kind, size, method, weak, network, small_grids
):
    with small_grids():
        result = learning.solve(weak[size], float32(kind, network), method, check=False)
    assert result.converged
    assert result.iterations <= 9


def test_cycles_in_float32_are_symmetric_and_positive(weak, network, small_grids):
    system = weak[1e-5]
    batch = batch_systems([system], torch.float64)
    with small_grids():
        M = float32("geometric", network).setup([system], batch)
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 1, batch.g.shape[1], generator=generator, dtype=torch.float64)
    assert float((u * M(v)).sum()) == pytest.approx(float((v * M(u)).sum()), rel=1e-4)
    assert float((u * M(u)).sum()) > 0


def test_constants_come_out_exactly(weak, network, small_grids):
    """M S 1 = 1, though S 1 is lost in float32."""
    system = weak[1e-8]
    batch = batch_systems([system], torch.float64)
    ones = torch.ones_like(batch.g)
    with small_grids():
        x = float32("geometric", network).setup([system], batch)(batch.apply(ones))
    torch.testing.assert_close(x, ones, rtol=1e-5, atol=0)


def test_only_systems_that_need_it_are_corrected(problem, weak):
    batch = batch_systems([weak[1e-5], problem()], torch.float64)
    size = torch.ones_like(batch.g).flatten().numpy()
    kernel = NearKernel.of(batch, size)
    assert kernel is not None
    assert kernel.inverse[0] > 0
    assert kernel.inverse[1] == 0
    assert NearKernel.of(batch_systems([problem()], torch.float64), size[: len(size) // 2]) is None

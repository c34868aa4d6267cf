"""The learned multigrid: definite whatever its weights, equal to its dense definition, local."""

from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import learning
import mixeddim as md
from learning.preconditioners.multigrid import geometric
from learning.preconditioners.multigrid.geometric import create_hierarchy
from learning.preconditioners.multigrid.learned import (
    AT_NODE,
    LARGEST,
    RELAXATION,
    TOWARDS,
    LearnedMultigrid,
    MultigridNetwork,
)
from learning.preconditioners.multigrid.stencils import CENTRE, OFFSETS, StencilMatrix, stencils_of
from learning.preconditioners.multigrid.transfer import (
    axes_of,
    coarsened,
    coupling_along_axes,
    interpolation,
)
from learning.problems.stiffness import diffusion_tensor, smooth_field, stiffness
from learning.training.weights import load_weights, save_weights

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
KINDS = ["spanning_tree", "murray_tree", "capillary_mesh"]


@pytest.fixture(autouse=True)
def more_grids(monkeypatch):
    """Solve on coarse grids as small as on an accelerator, lest small problems have but one."""
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", geometric.MOST_DENSE_NODES)


@cache
def geometry(num_cells, kind, seed):
    """Return a system of unit coefficients; meshes are few, for each costs MPI communicators."""
    network = md.create_network(md.random_vascular_graph(12, 0.05, seed, method=kind), 0.15)
    box = md.create_box(num_cells)
    return md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0)))


def problem(
    num_cells=(4, 5, 4), kind="spanning_tree", seed=0, *, k=1.0, sigma=1.0, k_1d=1.0,
    permeability=1.0, contrast=1.0, anisotropy=1.0, direction=(1.0, 0.0, 0.0),
):  # fmt: skip
    """Return a system of a small grid, its coefficients put in without DOLFINx."""
    system = geometry(num_cells, kind, seed)
    n = max(num_cells)
    field = smooth_field(n, np.random.default_rng(seed))[tuple(map(slice, num_cells))]
    fibres = np.array(direction) / np.linalg.norm(direction)
    K = stiffness(system.grid, k * contrast**field, diffusion_tensor(anisotropy, fibres))
    exchange = (system.N.T @ system.W @ system.B @ system.N).tocsr()
    A_11 = (k_1d * (system.A_11 - exchange) + permeability * exchange).tocsr()
    return replace(system, K=K, M=sigma * system.M, beta=permeability * system.beta, A_11=A_11)


def network(scale=0.0, seed=0, dtype=torch.float64):
    """Return an untrained network, or one of normal weights of a scale."""
    model = MultigridNetwork()
    if scale > 0:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model.to(dtype)


@contextmanager
def small_grids():
    """Coarsen down to 30 nodes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MOST_COARSE_NODES", "MOST_DENSE_NODES"):
            patch.setattr(geometric, name, 30)
        yield


def setup(model, systems):
    """Set a cycle of several grids up, small as these are."""
    with small_grids():
        return LearnedMultigrid(model).setup(systems, learning.batch_systems(systems))


def dense(system):
    """Return S, exactly symmetric."""
    S = system.S @ np.eye(len(system.b_3))
    return (S + S.T) / 2


@torch.no_grad()
def matrix_of(M, n):
    return torch.stack([M(e[None])[0] for e in torch.eye(n, dtype=torch.float64)], dim=1).numpy()


def eigenvalues(M, S):
    """Return those of M S, where M is symmetric positive definite; the Cholesky factor tells."""
    L = np.linalg.cholesky((M + M.T) / 2)
    return np.linalg.eigvalsh(L.T @ S @ L)


def exponents(low, high):
    return st.floats(low, high).map(lambda x: 10.0**x)


coefficients = st.fixed_dictionaries(
    {
        "num_cells": st.sampled_from([(4, 5, 4), (3, 6, 5), (2, 2, 12), (7, 4, 1)]),
        "kind": st.sampled_from(KINDS),
        "seed": st.integers(0, 1),
        "k": exponents(-6, 1),
        "sigma": exponents(-6, 2),
        "k_1d": exponents(-2, 4),
        "permeability": exponents(-2, 3),
        "contrast": exponents(0, 6),
        "anisotropy": exponents(0, 4),
        "direction": st.sampled_from([(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, -2.0, 0.5)]),
    }
)
weights = st.tuples(st.sampled_from([0.0, 0.3, 1.0, 10.0, 100.0]), st.integers(0, 2**31))


# --- What conjugate gradients need ------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(options=coefficients, weights=weights, probe=st.integers(0, 2**32 - 1))
def test_the_cycle_is_linear_symmetric_and_positive(options, weights, probe):
    preconditioner = LearnedMultigrid(network(*weights))
    assert preconditioner.is_linear
    assert preconditioner.is_symmetric
    system = problem(**options)
    with torch.no_grad():
        M = setup(preconditioner.model, [system])
        rng = np.random.default_rng(probe)
        u, v = (torch.tensor(rng.standard_normal((1, len(system.g)))) for _ in range(2))
        Mu, Mv = M(u), M(v)
        energy = ((u * Mu).sum() * (v * Mv).sum()).sqrt()
        assert (u * Mu).sum() > 0
        assert (v * Mv).sum() > 0
        assert (v * Mu).sum() == pytest.approx((u * Mv).sum().item(), abs=1e-9 * energy.item())
        combined = M(2.0 * u - 3.0 * v)
        error = combined - 2.0 * Mu + 3.0 * Mv
        assert error.norm() <= 1e-9 * (Mu.norm() + Mv.norm())
        assert torch.all(M(torch.zeros_like(u)) == 0)


@settings(max_examples=12, deadline=None)
@given(options=coefficients, weights=weights)
def test_the_cycle_converges_whatever_its_weights_and_the_coefficients(options, weights):
    """The eigenvalues of M S lie in (0, 1], for those of X S stay below 2."""
    system = problem(**options)
    S = dense(system)
    values = eigenvalues(matrix_of(setup(network(*weights), [system]), len(S)), S)
    assert values[0] > 0
    assert values[-1] <= 1 + 1e-6


def on_one_cell(amplitude):
    """Return weights that raise F by factors up to exp(2) at the corners of a cell that conducts.

    There the weakest strength, 1/12 elsewhere inside, is nearly an eighth.
    """
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.hidden[0].weight[0, 2], model.hidden[0].bias[0] = 8.0, -8.0 * 0.51
        model.hidden[1].weight[0, 0] = 1.0
        model.output.weight[:4, 0] = amplitude
    return model


@pytest.mark.parametrize("amplitude", [0.7, 1.0, 1.4])
def test_the_cycle_converges_where_weights_pick_out_few_nodes(amplitude):
    """A single eigenvalue of X S that stands out is the hardest to notice."""
    k = np.ones((12, 12, 12))
    k[6, 6, 6] = 1e3
    system = geometry((12, 12, 12), "spanning_tree", 0)
    system = replace(system, K=stiffness(system.grid, k, np.eye(3)))
    batch, M = learning.batch_systems([system]), setup(on_one_cell(amplitude), [system])
    error = torch.tensor(np.random.default_rng(0).standard_normal(batch.g.shape))
    energy = (error * batch.apply(error)).sum()
    with torch.no_grad():
        for _ in range(25):
            error = error - M(batch.apply(error))
            before, energy = energy, (error * batch.apply(error)).sum()
            assert energy <= before


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
def test_single_precision_is_symmetric_and_close(scale, seed):
    system = problem((6, 5, 4), KINDS[seed], k=0.01**seed, contrast=100.0)
    exact = setup(network(scale, seed), [system])
    M = setup(network(scale, seed, torch.float32), [system])
    generator = torch.Generator().manual_seed(seed)
    for size in (1.0, 1e-60):
        u, v = torch.randn(2, 1, len(system.g), generator=generator, dtype=torch.float64)
        with torch.no_grad():
            Mu, Mv, wanted = M(size * u), M(v), exact(size * u)
        assert Mu.dtype == torch.float64
        assert (Mu - wanted).norm() <= 1e-4 * wanted.norm()
        energy = ((size * u * Mu).sum() * (v * Mv).sum()).sqrt()
        assert ((v * Mu).sum() - (size * u * Mv).sum()).abs() <= 1e-5 * energy


# --- The definition ---------------------------------------------------------------------------


def dense_stencils(stencils):
    """Return the matrix of stencils (27, nx, ny, nz), entry by entry."""
    shape = stencils.shape[1:]
    A = np.zeros(2 * (int(np.prod(shape)),))
    for node in np.ndindex(shape):
        for o, offset in enumerate(OFFSETS):
            there = np.add(node, offset)
            if np.all((there >= 0) & (there < shape)):
                row, column = (np.ravel_multi_index(tuple(x), shape) for x in (node, there))
                A[row, column] = stencils[o, *node]
    return A


def dense_smoother(model, A_0, Pi, shape, is_coarsened):
    """Return X by its definition, before it is scaled."""
    grid = md.Grid(shape, np.zeros(3), np.ones(3), np.arange(len(A_0)))
    stencils = torch.tensor(stencils_of([sparse.csr_array(A_0)], [grid]))
    coupling = torch.tensor(np.diag(Pi.T @ Pi).reshape(1, *shape).copy())
    with torch.no_grad():
        F = dense_stencils(model(stencils, coupling, is_coarsened)[0].numpy())
    np.testing.assert_allclose(F, F.T, atol=1e-14)
    D = np.abs(A_0).sum(axis=1)
    S_0 = np.linalg.inv(np.diag(D) / RELAXATION + Pi.T @ Pi)
    root = np.diag(np.sqrt(D))
    return S_0 + S_0 @ root @ F @ F @ root @ S_0


@pytest.mark.parametrize("scale", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("options", [
    {}, {"k": 1e-4, "kind": "murray_tree"}, {"contrast": 100.0, "kind": "capillary_mesh"},
    {"anisotropy": 10.0, "direction": (0.0, 1.0, 0.0)},
], ids=str)  # fmt: skip
def test_the_cycle_equals_its_dense_definition(options, scale):
    """X = S_0 + S_0 D^(1/2) F² D^(1/2) S_0, scaled where X S has an eigenvalue near 2."""
    model, system = network(scale), problem((5, 6, 5), **options)
    axes, coupling = axes_of(system.grid), coupling_along_axes(system.K, system.grid)[None]
    order = np.argsort(system.grid.node_of_dof)
    A_0 = (system.K + system.M).toarray()[np.ix_(order, order)]
    S = dense(system)[np.ix_(order, order)]
    Pi = (np.sqrt(system.weights * system.beta)[:, None] * system.Pi.toarray())[:, order]
    with small_grids():
        hierarchy = create_hierarchy([system], learning.batch_systems([system]), torch.float64)
    parts = []
    for level in hierarchy.levels:
        fine, axes = axes, coarsened(axes, coupling)
        shape = tuple(len(x) for x in fine)
        is_coarsened = tuple(len(a) < len(b) for a, b in zip(axes, fine, strict=True))
        X = dense_smoother(model, A_0, Pi, shape, is_coarsened)
        scaled = matrix_of(LearnedMultigrid(model)._smoother(level), len(S))
        factor = np.trace(scaled) / np.trace(X)
        np.testing.assert_allclose(scaled, factor * X, rtol=0, atol=1e-12 * X.max())
        largest = eigenvalues(X, S)[-1]
        assert factor <= 1 + 1e-12
        assert factor * largest < 2
        assert factor == pytest.approx(1) or largest > LARGEST
        P = interpolation(axes, fine).toarray()
        parts.append((S, P, scaled))
        A_0, S, Pi = P.T @ A_0 @ P, P.T @ S @ P, Pi @ P
    assert len(parts) >= 2
    M = np.linalg.inv(S)
    for S, P, X in reversed(parts):
        one = np.eye(len(S))
        error = (one - X @ S) @ (one - P @ M @ P.T @ S) @ (one - X @ S)
        M = (one - error) @ np.linalg.inv(S)
    found = matrix_of(setup(model, [system]), len(M))[np.ix_(order, order)]
    np.testing.assert_allclose(found, M, rtol=0, atol=1e-9 * np.abs(M).max())


# --- The network ------------------------------------------------------------------------------


def fields(num_cells=(5, 4, 6), **options):
    """Return what the network sees of a system: stencils, and the diagonal of Pi' Pi."""
    system = problem(num_cells, **{"contrast": 1e3, "anisotropy": 5.0, **options})
    stencils = torch.tensor(stencils_of([system.K + system.M], [system.grid]))
    squares = system.Pi.multiply(system.Pi).T @ (system.weights * system.beta)
    coupling = torch.tensor(system.grid.to_grid(squares))[None]
    return stencils, coupling


def permuted(stencils, axes):
    on_axes = stencils.unflatten(1, (3, 3, 3))
    return on_axes.permute(0, *(1 + a for a in axes), *(4 + a for a in axes)).flatten(1, 3)


def reflected(stencils, axes):
    on_axes = stencils.unflatten(1, (3, 3, 3))
    return on_axes.flip([1 + a for a in axes] + [4 + a for a in axes]).flatten(1, 3)


@pytest.mark.parametrize("scale", [0.0, 0.5])
@pytest.mark.parametrize("axes", [*permutations(range(3))][1:], ids=str)
def test_the_network_does_not_care_which_axis_is_which(axes, scale):
    model, (stencils, coupling) = network(scale), fields(direction=(1.0, -2.0, 0.5))
    is_coarsened = (True, False, True)
    with torch.no_grad():
        wanted = permuted(model(stencils, coupling, is_coarsened), axes)
        found = model(
            permuted(stencils, axes),
            coupling.permute(0, *(1 + a for a in axes)),
            tuple(is_coarsened[a] for a in axes),
        )
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.5])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)], ids=str)
def test_the_network_does_not_care_where_axes_point_to(axes, scale):
    model, (stencils, coupling) = network(scale), fields(direction=(1.0, -2.0, 0.5))
    is_coarsened = (True, True, False)
    with torch.no_grad():
        wanted = reflected(model(stencils, coupling, is_coarsened), axes)
        flipped = coupling.flip([1 + a for a in axes])
        found = model(reflected(stencils, axes), flipped, is_coarsened)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(factor=exponents(-12, 12), weights=st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 9)))
def test_the_network_does_not_care_about_units(factor, weights):
    model, (stencils, coupling) = network(*weights), fields()
    with torch.no_grad():
        found = model(factor * stencils, factor * coupling, (True, True, True))
        wanted = model(stencils, coupling, (True, True, True))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_a_change_of_units_changes_corrections_by_its_factor(factor, dtype):
    system = problem(contrast=100.0)
    scaled = replace(
        system, K=factor * system.K, M=factor * system.M, beta=factor * system.beta,
        A_11=factor * system.A_11,
    )  # fmt: skip
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        wanted, found = (setup(network(0.3, 0, dtype), [s])(r) for s in (system, scaled))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert (factor * found - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_the_network_sees_and_ties_neighbours_alone(scale):
    """A change of the coefficients in a cell changes F no farther away than three nodes."""
    model, (stencils, coupling) = network(scale), fields((9, 3, 3))
    changed = stencils.clone()
    changed[:, CENTRE, 0] *= 2.0
    with torch.no_grad():
        before, after = (model(s, coupling, (True, True, True)) for s in (stencils, changed))
    is_changed = (before != after).any(dim=1).flatten(2).any(dim=2)[0]
    assert is_changed[0]
    assert not is_changed[3:].any()
    inside = dense_stencils(before[0].numpy())
    wanted = StencilMatrix(before).to_scipy().toarray()
    np.testing.assert_array_equal(inside, wanted)
    np.testing.assert_array_equal(inside, inside.T)


def test_before_training_the_network_is_the_smoother_of_the_laplacian():
    n = 6
    grid = geometry((n, n, n), "spanning_tree", 0).grid
    K = stiffness(grid, np.ones((n, n, n)), np.eye(3))
    with torch.no_grad():
        zeros = torch.zeros(1, n + 1, n + 1, n + 1, dtype=torch.float64)
        F = network()(torch.tensor(stencils_of([K], [grid])), zeros, (True, True, True))
    wanted = {0: 1.2256, 1: 3.37 / 12, 2: 6.6 / 12**2, 3: 25 / 12**3}
    for o, offset in enumerate(OFFSETS):
        centre = F[0, o, 3, 3, 3].item()
        assert centre == pytest.approx(wanted[sum(map(abs, offset))], rel=1e-12), offset


# --- Gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_reach_every_parameter(dtype):
    systems = [problem(contrast=100.0), problem(k=1e-4, seed=1)]
    for model, trained in ((network(0.3, 0, dtype), True), (network(dtype=dtype), False)):
        M = setup(model, systems)
        r = torch.randn(2, len(systems[0].g), generator=torch.Generator().manual_seed(0)).double()
        (r * M(r)).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.all(torch.isfinite(parameter.grad)), name
            # Before training the last layer is zero, and hides the others.
            assert parameter.grad.any() == (trained or name.startswith("output")), name


def test_the_derivative_in_a_weight_is_that_of_finite_differences():
    system, model = problem((4, 3, 3), contrast=10.0), network(0.05)
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    parameter = model.output.bias

    def energy():
        return (r * setup(model, [system])(r)).sum()

    energy().backward()
    for i, step in product(range(len(parameter)), [1e-5]):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[i] += sign * step
                values.append(energy().item())
                parameter[i] -= sign * step
        difference = (values[0] - values[1]) / (2 * step)
        assert parameter.grad[i].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_the_cycle_is_differentiable_in_the_residual():
    system = problem((3, 3, 3))
    M = setup(network(0.3), [system])
    r = torch.randn(1, len(system.g), generator=torch.Generator().manual_seed(0)).double()
    r.requires_grad_()
    w = torch.randn_like(r)
    [gradient] = torch.autograd.grad(M(r), r, w)
    with torch.no_grad():
        torch.testing.assert_close(gradient, M(w))


# --- Use --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "most"), [
    ({}, 6), ({"k": 1e-3}, 6), ({"k": 1e-6}, 8), ({"sigma": 1e-3}, 6), ({"k_1d": 100.0}, 6),
    ({"contrast": 1e4}, 9), ({"anisotropy": 100.0}, 9),
    ({"kind": "capillary_mesh", "permeability": 100.0}, 6),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("num_cells", [8, 13])
def test_few_iterations_before_training(num_cells, options, most):
    system = problem(3 * (num_cells,), **options)
    for method in ("cg", "fgmres"):
        result = learning.solve(system, LearnedMultigrid(network(dtype=torch.float32)), method)
        assert result.converged
        assert result.iterations <= most


def test_iterations_do_not_depend_on_the_mesh():
    counts = [
        learning.solve(problem(3 * (n,)), LearnedMultigrid(network())).iterations
        for n in (8, 10, 16)
    ]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_wild_weights_still_converge(seed):
    system = problem((8, 8, 8), KINDS[seed % 3], k=0.01**seed, contrast=1e4)
    result = learning.solve(system, LearnedMultigrid(network(10.0, seed)), "cg")
    assert result.converged


def test_a_network_that_returns_nan_says_so():
    model = network()
    torch.nn.init.constant_(model.output.bias, torch.nan)
    result = learning.solve(problem((8, 8, 8)), LearnedMultigrid(model))
    assert result.status is learning.Status.NOT_FINITE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_batch_equals_its_systems_one_by_one(dtype):
    systems = [
        problem(), problem(kind="murray_tree", k=1e-4), problem(seed=1, contrast=1e4),
        problem(kind="capillary_mesh", permeability=0.01, sigma=10.0),
    ]  # fmt: skip
    model = network(1.0, 0, dtype)
    r = torch.randn(4, len(systems[0].g), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        together = setup(model, systems)(r)
        for i, system in enumerate(systems):
            alone = setup(model, [system])(r[i : i + 1])[0]
            tolerance = 1e-10 if dtype == torch.float64 else 1e-4
            assert (alone - together[i]).norm() <= tolerance * alone.norm()


def test_setting_up_is_deterministic_and_leaves_random_numbers_alone():
    system, model = problem(), network(1.0)
    r = torch.tensor(system.g[None])
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    with torch.no_grad():
        first, again = (setup(model, [system])(r) for _ in range(2))
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(first, again)


def test_weights_come_back_from_a_file(tmp_path):
    model, system = network(0.5, 3, torch.float32), problem()
    save_weights(model, tmp_path / "multigrid.safetensors")
    loaded = load_weights(tmp_path / "multigrid.safetensors")
    assert loaded.architecture == "multigrid"
    r = torch.tensor(system.g[None])
    with torch.no_grad():
        assert torch.equal(setup(loaded.model, [system])(r), setup(model, [system])(r))


def test_systems_and_devices_are_checked():
    def wants(message, model, *systems):
        with pytest.raises(ValueError, match=message):
            setup(model, systems)

    system, model = problem(), network()
    wants(
        "got a system on a mesh without a grid.*Use create_box", model, replace(system, grid=None)
    )
    wants(r"grids of \[\(4, 7, 6\), \(6, 7, 4\)\] nodes; wanted one shape", model,
          problem((3, 6, 5)), problem((5, 6, 3)))  # fmt: skip
    wants("got a system that is singular", model, replace(system, M=-100.0 * system.M))
    wants("got a model on meta and systems on cpu; wanted one device", network().to("meta"), system)


@needs_cuda
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_an_accelerator_gives_the_same(scale):
    systems = [problem((8, 8, 8)), problem((8, 8, 8), seed=1, k=1e-4, contrast=100.0)]
    here, there = (learning.batch_systems(systems, device=d) for d in ("cpu", "cuda"))
    model = network(scale)
    with torch.no_grad():
        expected = LearnedMultigrid(model).setup(systems, here)(here.g)
        found = LearnedMultigrid(model.cuda()).setup(systems, there)(there.g).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_in_training_small_grids_have_coarse_ones_too(monkeypatch):
    """Or else the network would learn the smoother of the finest grid alone."""
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", 1400)
    system = problem((8, 8, 8))
    batch = learning.batch_systems([system])
    model = network()
    depths = []
    for _ in range(2):
        seen = []
        handle = model.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        LearnedMultigrid(model).setup([system], batch)
        handle.remove()
        depths.append(len(seen))
        model.eval()
    assert depths == [1, 0]


# --- Fourier analysis -------------------------------------------------------------------------


def condition_number(F):
    """Return that of M A for the Laplacian, M of two grids, by Fourier analysis (8 modes at once).

    F holds its entries at a node and towards neighbours along one, two and three axes; A has the
    7-point stencil, of row sums 1 in absolute value, and the interpolation is trilinear.
    """
    angles = (np.arange(10) + 0.5) * np.pi / 20
    low = np.stack(np.meshgrid(angles, angles, angles), axis=-1).reshape(-1, 1, 3)
    x, y, z = np.moveaxis(np.cos(low + np.pi * np.array(list(product((0, 1), repeat=3)))), -1, 0)
    A = (6 - 2 * (x + y + z)) / 12
    P = (1 + x) * (1 + y) * (1 + z) / 8
    symbol = (
        F[0] + 2 * F[1] * (x + y + z) + 4 * F[2] * (x * y + y * z + z * x) + 8 * F[3] * x * y * z
    )
    smooth = 1 - (RELAXATION + RELAXATION**2 * symbol**2) * A
    coarse = np.eye(8) - P[:, :, None] * (P * A)[:, None] / (P**2 * A).sum(axis=1)[:, None, None]
    error = smooth[:, :, None] * coarse * smooth[:, None]
    in_energy = np.sqrt(A)[:, :, None] * error / np.sqrt(A)[:, None]
    eigenvalues = 1 - np.linalg.eigvalsh(in_energy)
    return eigenvalues.max() / eigenvalues.min()


def test_f_before_training_is_the_best_for_the_laplacian_by_fourier_analysis():
    entries = np.array([AT_NODE, *np.array(TOWARDS) / 12.0 ** np.arange(1, 4)])
    best = condition_number(entries)
    assert best < 1.05
    for change in np.vstack([np.eye(4), -np.eye(4)]):
        assert condition_number(entries * (1 + 0.1 * change)) > best - 2e-3
    jacobi = condition_number(np.zeros(4))
    assert jacobi > 2

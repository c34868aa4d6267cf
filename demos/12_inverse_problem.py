# # Estimate wall permeabilities from measurements
#
# Nobody can measure how permeable the wall of each vessel is, but concentrations in the tissue can
# be measured. This demo estimates the permeabilities of all vessels of a network from noisy values
# of $u_{3d}$ at points of the tissue. It shows how to
#
# - make a solve a differentiable function of a coefficient,
# - check its gradient by Taylor's expansion,
# - minimise a misfit with an optimiser of torch, here L-BFGS.
#
# ## The problem
#
# The problem is that of `03_random_vascular_network.py`, $A(\kappa)\, u = b$ for both sides, with a
# permeability $\kappa_e$ for each of 60 vessels $e$. The measurements $d_i$ are values of $u_{3d}$
# at 200 points $x_i$, with an error of 1 %. We write $\kappa_e = \kappa_0 \exp(m_e)$ with a typical
# value $\kappa_0$, which keeps $\kappa$ positive. With independent normal distributions of the
# errors and of $m$, the most probable $m$ minimises
#
# $$ J(m) = \frac{1}{2} \sum_i \left(\frac{u_{3d}(x_i) - d_i}{0.01\, d_i}\right)^2
#         + \frac{1}{2} \sum_e \left(\frac{m_e}{s}\right)^2, \qquad s = 0.5. $$
#
# The second sum is the prior (Tikhonov's regularisation): it holds the vessels that the
# measurements say little about. The true permeabilities of this demo are drawn from the same prior.
#
# ## The gradient
#
# The adjoint $\lambda$ solves $A \lambda = \partial J / \partial u$: one more solve with the same
# matrix and preconditioner. At each quadrature point $i$ of the network, of weight $w_i$,
#
# $$ \frac{\partial J}{\partial \kappa_i} = -2 \pi \varepsilon_i\, w_i\,
#    (\Pi \lambda_{3d} - N \lambda_{1d})_i\, (\Pi u_{3d} - N u_{1d})_i, $$
#
# and the points of a vessel add up. However many vessels there are, the gradient costs one solve.

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import learning
import mixeddim as md
from mixeddim.fem.averaging import average
from mixeddim.tensors import sparse_csr

NOISE = 0.01  # standard deviation of the measurements, in units of their values
TYPICAL = 0.3  # kappa_0
SPREAD = 0.5  # standard deviation of log kappa, s

# ## The data
#
# The tissue consumes what the vessels bring, so that a field decays over
# $\sqrt{k_{3d} / \sigma_{3d}} \approx 0.14$. Along the vessels it hardly changes. Each vessel gets
# three points or more, at a distance of one to two radii from its axis: what is measured far from
# all vessels says little about any of them.


def assemble(num_nodes: int, num_cells: int, seed: int) -> md.CoupledSystem:
    graph = md.random_vascular_graph(num_nodes=num_nodes, radius=0.03, seed=seed)
    box = md.create_box(num_cells)
    network = md.create_network(graph, max_segment_length=box.spacing)
    coefficients = md.Coefficients(k_3d=0.02, sigma_3d=1.0, k_1d=10.0)
    return md.assemble(box, network, coefficients)


def draw_points(
    graph: object, number: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points beside vessels, and the direction of their vessel, shapes (number, 3)."""
    nodes, edges = md.node_positions(graph), md.edge_indices(graph)
    edge = rng.permutation(np.arange(number) % len(edges))
    start, end = nodes[edges[edge]].transpose(1, 0, 2)
    along = (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
    across = np.cross(along, rng.standard_normal((number, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    radius = md.edge_radii(graph)[edge, None]
    axis = start + rng.uniform(0.15, 0.85, (number, 1)) * (end - start)
    return np.clip(axis + rng.uniform(1.0, 2.0, (number, 1)) * radius * across, 0, 1), along


# `md.PointTrace` is the average that takes the value at a point. Its matrix maps $u_{3d}$ to the
# values at all points.


@dataclass(frozen=True)
class Problem:
    solve: learning.DifferentiableSolve
    truth: NDArray[np.float64]  # kappa, shape (num_vessels,)
    observe: torch.Tensor  # from u_3d to its values at the points, sparse
    measured: torch.Tensor  # shape (num_points,)

    def misfit(self, m: torch.Tensor) -> torch.Tensor:
        u_3d, _ = self.solve({"permeability": TYPICAL * m.exp()})
        error = (self.observe @ u_3d - self.measured) / (NOISE * self.measured)
        return 0.5 * (error**2).sum() + 0.5 * ((m / SPREAD) ** 2).sum()


def measure(system: md.CoupledSystem, num_points: int, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    graph = system.network.graph
    points, along = draw_points(graph, num_points, rng)
    radii = np.full(num_points, 0.03)
    trace = average(system.tissue, system.side_3d.V, points, along, radii, md.PointTrace())
    observe = sparse_csr(trace.Pi, torch.float64, "cpu")

    solve = learning.DifferentiableSolve(
        md.parametrise(system, "permeability"), learning.load_pretrained("multigrid")
    )
    truth = TYPICAL * np.exp(SPREAD * rng.standard_normal(graph.number_of_edges()))
    u_3d, _ = solve({"permeability": torch.tensor(truth)})
    noise = 1.0 + NOISE * torch.tensor(rng.standard_normal(num_points))
    return Problem(solve, truth, observe, noise * (observe @ u_3d))


# ## Is the gradient right, and what does it cost?
#
# $J(m + h v) - J(m) - h\, v \cdot \nabla J(m)$ must be of order $h^2$. The cost is the processor
# time of the backward pass over that of the solve before it, whose set-up was already there.


def taylor_order(misfit: Callable[[torch.Tensor], torch.Tensor], m: torch.Tensor) -> float:
    v = torch.tensor(np.random.default_rng(0).standard_normal(len(m)))
    steps = 0.1 * 0.5 ** np.arange(5)
    at = misfit(m)
    [gradient] = torch.autograd.grad(at, m)
    with torch.no_grad():
        remainders = [float(abs(misfit(m + h * v) - at - h * (gradient @ v))) for h in steps]
    return float(np.polyfit(np.log(steps), np.log(remainders), 1)[0])


def gradient_cost(problem: Problem, m: torch.Tensor, repetitions: int = 7) -> float:
    problem.misfit(m).backward()  # sets up
    ratios = []
    for _ in range(repetitions):
        start = time.process_time()
        J = problem.misfit(m)
        between = time.process_time()
        J.backward()
        ratios.append((time.process_time() - between) / (between - start))
    m.grad = None
    return float(np.median(ratios))


# ## Minimisation
#
# L-BFGS takes a function that returns $J$ and leaves its gradient in `m.grad`. It starts from
# $m = 0$.


def minimise(problem: Problem, m: torch.Tensor) -> list[float]:
    optimiser = torch.optim.LBFGS(
        [m],
        max_iter=100,
        history_size=50,
        tolerance_grad=1e-3,
        tolerance_change=1e-4,
        line_search_fn="strong_wolfe",
    )
    misfits = []

    def evaluate() -> torch.Tensor:
        optimiser.zero_grad()
        J = problem.misfit(m)
        J.backward()
        misfits.append(J.item())
        return J

    optimiser.step(evaluate)
    return misfits


# ## The picture


def draw(
    truth: NDArray[np.float64], estimate: NDArray[np.float64], J: list[float], file: Path
) -> Path:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    ends = (0.0, 1.1 * max(truth.max(), estimate.max()))
    left.plot(ends, ends, color="#8c8c8c", linewidth=1)
    left.plot(truth, estimate, "o", color="#D55E00", markersize=4)
    left.set(xlabel="true permeability", ylabel="estimate", xlim=ends, ylim=ends, aspect="equal")
    right.semilogy(np.arange(1, len(J) + 1), J, color="#0072B2")
    right.set(xlabel="evaluations of misfit and gradient", ylabel="misfit J")
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file


# ## What came out
#
# The estimates are off by a few per cent, not much more than the measurements themselves. Without
# measurements the best guess would be the prior's, $\kappa = \kappa_0$, which is off by 40 % or so.
# Where walls are so permeable that the tissue is the larger resistance, estimates are worse: the
# field then hardly depends on $\kappa$.
#
# Such a test flatters: data and estimates come from the same mesh and the same model (an "inverse
# crime"). Real measurements also contain what the model leaves out.


@dataclass(frozen=True)
class Result:
    truth: NDArray[np.float64]  # kappa, shape (num_vessels,)
    estimate: NDArray[np.float64]
    misfits: list[float]
    taylor_order: float
    relative_error: float  # of all permeabilities
    gradient_cost: float  # in solves
    files: tuple[Path, ...]


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(
        description="Estimate the wall permeabilities of a network from values in the tissue."
    )
    add = parser.add_argument
    add("--num-nodes", type=int, default=56, help="nodes of the network (56, for 60 vessels)")
    add("--num-points", type=int, default=200, help="measurements in the tissue (200)")
    add("--num-cells", type=int, default=16, help="cells along each side of the box (16)")
    add("--seed", type=int, default=0, help="seed of network, truth and noise (0)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    system = assemble(args.num_nodes, args.num_cells, args.seed)
    problem = measure(system, args.num_points, args.seed)
    truth = problem.truth
    m = torch.zeros(len(truth), dtype=torch.float64, requires_grad=True)
    order, cost = taylor_order(problem.misfit, m), gradient_cost(problem, m)

    start, solves = time.perf_counter(), problem.solve.num_solves
    misfits = minimise(problem, m)
    seconds, solves = time.perf_counter() - start, problem.solve.num_solves - solves
    estimate = TYPICAL * m.detach().exp().numpy()
    error, prior_error = (
        float(np.linalg.norm(kappa - truth) / np.linalg.norm(truth))
        for kappa in (estimate, TYPICAL)
    )
    numbers = {"taylor_order": order, "relative_error": error, "gradient_cost": cost}
    picture = draw(truth, estimate, misfits, args.output / "inverse.png")
    data = args.output / "inverse.json"
    data.write_text(json.dumps(numbers, indent=2) + "\n")

    print(f"{len(truth)} vessels, {args.num_points} measurements, {len(system.b_3):,} unknowns")
    print(f"order of Taylor's remainder   {order:.2f}")
    print(f"gradient, in solves           {cost:.2f}")
    print(f"misfit                        {misfits[0]:.1f} -> {min(misfits):.1f}")
    print(f"evaluations, solves, seconds  {len(misfits)}, {solves}, {seconds:.1f}")
    print(f"relative error                {error:.3f}, of the prior {prior_error:.3f}")
    print("\nwritten:", picture, data, sep="\n  ")
    return Result(truth, estimate, misfits, order, error, cost, (picture, data))


if __name__ == "__main__":
    main()

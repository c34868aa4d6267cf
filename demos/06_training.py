# # Training a preconditioner from scratch
#
# A neural network that maps residuals to corrections can make FGMRES converge in fewer steps. This
# demo builds a small one and trains it in a minute on a CPU. It
#
# - generates random networks and keeps some of them for the test,
# - defines the neural network and its preconditioner,
# - trains in two stages, first by the residual of one correction, then through FGMRES itself,
# - counts iterations on the unseen problems, and compares preconditioners without training.
#
# The method is that of N. Dimola, A. Coclite, P. Zunino, *Neural Preconditioning via Krylov
# Subspace Geometry* (arXiv:2507.15452), on a smaller grid and with a network of a sixteenth of the
# size.

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

import learning
import mixeddim as md

NUM_TRAINING, NUM_UNSEEN = 32, 10
BATCH_SIZE = 8

# ## The data
#
# Every problem is a random vascular network in the unit cube, coupled to the tissue and reduced to
# $S u_{3d} = g$. `learning.generate` generates and assembles the problems and writes one file; only
# this step needs FEniCSx.


def draw_problems(num_cells: int, seed: int, output: Path) -> learning.Dataset:
    distribution = replace(learning.DISTRIBUTIONS["paper"], num_cells=num_cells)
    path = output / f"problems-{num_cells}-{seed}.h5"
    number = NUM_TRAINING + NUM_UNSEEN
    return learning.generate(distribution, number, seed, path, processes=1, progress=False)


# ## The network
#
# The network has two input channels on the grid of nodes, the residual and the distance to the
# vessels, and one output channel, the correction. Two coarser grids treat the smooth part, as in a
# U-Net or a V-cycle. The last layer starts at zero.


class SmallUNet(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        conv = partial(nn.Conv3d, kernel_size=3, padding=1)
        self.first = conv(2, width)
        self.down = conv(width, 2 * width)
        self.bottom = conv(2 * width, 2 * width)
        self.up = conv(2 * width, width)
        self.last = conv(width, width)
        self.head = nn.Conv3d(width, 1, kernel_size=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """From shape (batch, 2, nx, ny, nz) to (batch, 1, nx, ny, nz)."""
        fine = torch.relu(self.first(inputs))
        coarse = torch.relu(self.down(_halve(fine)))
        coarsest = torch.relu(self.bottom(_halve(coarse)))
        coarse = torch.relu(self.up(coarse + _resize(coarsest, coarse)))
        fine = torch.relu(self.last(fine + _resize(coarse, fine)))
        return self.head(fine)


def _halve(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.avg_pool3d(x, 2, ceil_mode=True)


def _resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, size=like.shape[2:], mode="trilinear")


def create_model(seed: int) -> SmallUNet:
    with torch.random.fork_rng(devices=[]):  # leaves torch's own random numbers as they are
        torch.manual_seed(seed)
        return SmallUNet()


# ## The preconditioner
#
# A preconditioner of `learning` has a method `setup`, which does the work per batch of systems and
# returns the map from residuals to corrections,
#
# $$ M(r) = \frac{1}{a} \left( r + |r|\, N\!\left(\frac{r}{|r|}, d\right) \right), $$
#
# with N the network, d the distance to the vessels, a the mean diagonal entry of $A_{33}$ and |r|
# the root mean square of r. So M scales with r and with 1 / S. Before training N is zero, and M
# only divides by a. M is not linear in r, which FGMRES permits.


class NeuralPreconditioner:
    is_linear = is_symmetric = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def setup(
        self, systems: Sequence[md.ReducedSystem], batch: learning.SystemBatch
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        node_of_dof = torch.tensor(batch.grid.node_of_dof)
        dof_of_node = torch.argsort(node_of_dof)
        distances = [system.distance_to_network for system in systems]
        distance = torch.tensor(np.stack(distances), dtype=torch.float32)[:, None]
        means = [system.A_33.diagonal().mean() for system in systems]
        a = torch.tensor(means, dtype=batch.g.dtype)[:, None]

        def apply(r: torch.Tensor) -> torch.Tensor:
            size = r.square().mean(dim=1, keepdim=True).sqrt()
            unit = r / size.clamp_min(torch.finfo(r.dtype).tiny)
            residual = unit[:, dof_of_node].reshape(distance.shape)
            output = self.model(torch.cat([residual.to(distance), distance], dim=1))
            return (r + size * output.reshape(r.shape)[:, node_of_dof].to(r)) / a

        return apply


# ## Two stages, one loop
#
# The static stage lowers the residual after one correction, the mean of $|f - S M(f)| / |f|$. The
# dynamic stage runs m steps of FGMRES, lowers the mean of the sines $s_k$, with
# $|r_k| = s_k |r_{k-1}|$, and differentiates through every step. So it trains on the residuals that
# occur in the solver, and on the combined effect of all corrections.
#
# Each step draws right-hand sides from one of three families: that of the problem, physical ones
# with other data, and noise.

STEPS_OF_FGMRES = 6

Loss = Callable[..., torch.Tensor]  # of a batch, right-hand sides, and a map r -> M r


def train(
    model: nn.Module,
    problems: Sequence[learning.Problem],
    loss_of: Loss,
    num_steps: int,
    rng: np.random.Generator,
) -> list[float]:
    """Train the model in place, and return the loss at each step."""
    batches = []
    for start in range(0, len(problems), BATCH_SIZE):
        part = problems[start : start + BATCH_SIZE]
        systems = [problem.reduced for problem in part]
        batch = learning.batch_systems(systems, torch.float32)
        batches.append((part, batch, NeuralPreconditioner(model).setup(systems, batch)))

    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    losses = []
    for step in range(num_steps):
        part, batch, precondition = batches[step % len(batches)]
        family = rng.choice(learning.FAMILIES)
        f = np.stack([learning.right_hand_side(problem, family, rng) for problem in part])
        loss = loss_of(batch, torch.tensor(f).to(batch.g), precondition)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


# ## Iterations on unseen problems
#
# FGMRES to a relative residual of 1e-6 in double precision, all families of right-hand sides.


def count_iterations(
    preconditioner: learning.Preconditioner, problems: Sequence[learning.Problem]
) -> NDArray[np.int64]:
    evaluation = learning.evaluate({"it": preconditioner}, problems, progress=False)
    return np.concatenate([row["it"].iterations for row in evaluation.measurements.values()])


# ## The picture

LOOKS = ("#8c8c8c", "#E69F00", "#8c8c8c", "#0072B2", "#D55E00", "#009E73")


def draw(
    losses: dict[str, list[float]], iterations: dict[str, NDArray[np.int64]], file: Path
) -> Path:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    *curves, counts = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    for panel, (stage, values), colour in zip(curves, losses.items(), LOOKS[3:5], strict=True):
        smooth = np.convolve(values, np.ones(10) / 10, mode="valid")
        panel.plot(values, color=colour, alpha=0.35, linewidth=1)
        panel.plot(np.arange(9, len(values)), smooth, color=colour, linewidth=2)
        panel.set(xlabel="step", ylabel=f"loss of the {stage} stage", ylim=(0, None))
    rng = np.random.default_rng(0)
    for row, (values, colour) in enumerate(zip(iterations.values(), LOOKS, strict=True)):
        heights = row + rng.uniform(-0.2, 0.2, len(values))
        counts.plot(values, heights, ".", color=colour, alpha=0.7)
        counts.text(values.max() + 3, row, f"{values.mean():.1f}", va="center")
    counts.set_yticks(range(len(iterations)), iterations)
    counts.invert_yaxis()
    counts.set(
        xlabel="iterations on unseen problems",
        xlim=(0, 1.2 * max(map(np.max, iterations.values()))),
    )
    for panel in (*curves, counts):
        panel.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file


# ## What came out
#
# The static stage saves most of the iterations, the dynamic stage a quarter of the rest. After one
# minute the result is still worse than multigrid, which needs no training. The networks shipped
# with `learning` were trained for half an hour or so per stage. The learned multigrid, which learns
# only its smoother, needs half the iterations of the plain one. `learning.train` is this loop with
# validation, checkpoints, mixed precision and several processes; its command is
# `python -m learning train`.


@dataclass(frozen=True)
class Result:
    losses: dict[str, list[float]]  # by stage
    iterations: dict[str, NDArray[np.int64]]  # on unseen problems, by preconditioner
    picture: Path


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(description="Train a small neural preconditioner.")
    add = parser.add_argument
    add("--num-cells", type=int, default=11, help="cells along each side of the box (11)")
    add("--num-steps", type=int, default=200, help="of the static stage; a third dynamic (200)")
    add("--seed", type=int, default=0, help="seed of problems and weights (0)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    problems = draw_problems(args.num_cells, args.seed, args.output)
    seen, unseen = problems[:NUM_TRAINING], problems[NUM_TRAINING:]
    rng = np.random.default_rng(args.seed)
    model = create_model(args.seed)
    preconditioner = NeuralPreconditioner(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(seen)} problems\n")

    iterations = {
        "none": count_iterations(learning.Identity(), unseen),
        "Jacobi": count_iterations(learning.Jacobi(), unseen),
        "untrained": count_iterations(preconditioner, unseen),
    }
    stages = {
        "static": (learning.residual_loss, args.num_steps),
        "dynamic": (partial(learning.sine_loss, num_steps=STEPS_OF_FGMRES), args.num_steps // 3),
    }
    losses = {}
    for stage, (loss, num_steps) in stages.items():
        losses[stage] = train(model, seen, loss, num_steps, rng)
        iterations[stage] = count_iterations(preconditioner, unseen)
    iterations["multigrid"] = count_iterations(learning.GeometricMultigrid(), unseen)

    print("iterations   mean  most")
    for name, values in iterations.items():
        print(f"{name:<10}  {values.mean():>5.1f}  {values.max():>4}")
    picture = draw(losses, iterations, args.output / "training.png")
    print(f"\nwritten:\n  {problems.path}\n  {picture}")
    return Result(losses, iterations, picture)


if __name__ == "__main__":
    main()

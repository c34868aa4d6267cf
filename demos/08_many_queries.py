# # Many networks: mean and deviation of the tissue's field
#
# In real tissue the single vessels are rarely known, only the kind of network. The question is then
# what field to expect in the tissue, and how much it varies from network to network. So the same
# problem is solved for many random networks. This demo
#
# - generates 200 networks and assembles their problems, on all cores,
# - solves them in batches with the learned multigrid,
# - plots mean and standard deviation of the tissue's field,
# - measures the effect of batches and of learning on the time, and compares classical solvers.
#
# ## The problem
#
# The problem is that of `03_random_vascular_network.py`, reduced to the tissue,
#
# $$ S_i\, u_i = g_i, \qquad i = 1, \dots, N. $$
#
# Each has its own network $\Lambda_i$. All have the same grid, so that fields can be averaged node
# by node. Think of oxygen, with $u_{1d} = 1$ at the inlets, which the tissue consumes. With
# $k_{3d} = 0.1$ and $\sigma_{3d} = 1$ it diffuses over $\sqrt{k_{3d} / \sigma_{3d}} \approx 0.3$.

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import learning
import mixeddim as md
from learning.petsc.ksp import Kind, petsc_cg

RTOL = 1e-8
BATCH_SIZE = 20
NUM_TIMED = 20  # problems that every solver solves


# ## The problems
#
# A coupled system keeps its meshes, and a process has room for some 150 of them. Reduced systems
# contain only matrices, so keep these and share the box. `learning.generate` generates and
# assembles the problems with one process per core, and writes one file, which the next run reads.


def draw_problems(num_networks: int, num_cells: int, seed: int, output: Path) -> learning.Dataset:
    paper = learning.DISTRIBUTIONS["paper"]  # 40 nodes, vessels of radius 0.05, all else 1
    distribution = replace(paper, k_3d=(0.1, 0.1), num_cells=num_cells)
    path = output / f"networks-{num_networks}-{num_cells}-{seed}.h5"
    return learning.generate(distribution, num_networks, seed, path, progress=False)


# ## Solving in batches
#
# On a small grid a product with one system is so cheap that most of the time is the overhead of
# calls. In a batch the matrices of several systems are the diagonal blocks of one matrix, so that
# each call works on all of them.


@dataclass(frozen=True)
class Solves:
    fields: NDArray[np.float64]  # u_3d of each problem, shape (number, num_dofs)
    iterations: float  # mean
    seconds: float  # per problem, set-up included


def in_batches(
    preconditioner: learning.Preconditioner,
    systems: Sequence[md.ReducedSystem],
    batch_size: int = BATCH_SIZE,
) -> Solves:
    fields, iterations = [], []
    start = time.perf_counter()
    for first in range(0, len(systems), batch_size):
        part = systems[first : first + batch_size]
        batch = learning.batch_systems(part)
        with torch.no_grad():
            precondition = preconditioner.setup(part, batch)
            result = learning.cg(batch.apply, batch.g, precondition, rtol=RTOL)
        for status in result.status:
            if status is not learning.Status.CONVERGED:
                raise RuntimeError(
                    f"of problems {first} to {first + len(part) - 1} one ended: {status}"
                )
        fields.append(result.x.numpy())
        iterations += result.iterations.tolist()
    seconds = (time.perf_counter() - start) / len(systems)
    return Solves(np.concatenate(fields), float(np.mean(iterations)), seconds)


# For comparison: PETSc's compiled conjugate gradients, one problem at a time.


def by_petsc(kind: Kind, systems: Sequence[md.ReducedSystem]) -> Solves:
    start = time.perf_counter()
    solves = [petsc_cg(s, kind, rtol=RTOL, max_iterations=500)(s.g) for s in systems]
    seconds = (time.perf_counter() - start) / len(systems)
    fields, iterations = zip(*solves, strict=True)
    return Solves(np.stack(fields), float(np.mean(iterations)), seconds)


LEARNED = learning.load_pretrained("multigrid")
SOLVERS: dict[str, Callable[[Sequence[md.ReducedSystem]], Solves]] = {
    "GAMG (PETSc)": lambda systems: by_petsc("gamg", systems),
    "incomplete Cholesky (PETSc)": lambda systems: by_petsc("icc", systems),
    "multigrid (PETSc)": lambda systems: by_petsc("sor", systems),
    "fast diagonalisation, batches": lambda s: in_batches(learning.FastDiagonalisation(), s),
    "multigrid, batches": lambda s: in_batches(learning.GeometricMultigrid(), s),
    "learned multigrid, batches": lambda s: in_batches(LEARNED, s),
    "learned multigrid, one by one": lambda s: in_batches(LEARNED, s, batch_size=1),
}


# ## The pictures
#
# `md.plot_ensemble` draws mean and standard deviation on planes through the box; times are bars.


def draw_times(solves: dict[str, Solves], file: Path) -> Path:
    figure = Figure(figsize=(7.5, 3), layout="constrained")
    panel = figure.subplots()
    times = [1e3 * s.seconds for s in solves.values()]
    colours = ["#8c8c8c" if "learned" not in name else "#D55E00" for name in solves]
    bars = panel.barh([*solves], times, color=colours)
    panel.bar_label(bars, [f" {s.iterations:.3g} iterations" for s in solves.values()])
    panel.invert_yaxis()
    panel.set(xlabel="ms per problem, set-up included", xlim=(0, 1.3 * max(times)))
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    return file


# ## What came out
#
# For a single network the field is higher around its vessels. The mean is smooth: highest in the
# middle and lower towards the faces. The mean varies less from place to place than the field at one
# place varies from network to network: the positions of the vessels matter more than the place in
# the box. Nevertheless 200 networks determine the mean to the standard deviation over $\sqrt{200}$,
# less than 0.01 at every node.
#
# Batches save about half of the time of the learned multigrid, which takes the fewest iterations of
# all. But on grids so small the fastest are incomplete Cholesky, which has a cheap set-up, and fast
# diagonalisation, which is made for constant coefficients. With each refinement the iterations of
# incomplete Cholesky grow while those of multigrid stay. For larger grids and varying coefficients
# see the tables of `learning/benchmarks`; `learning.recommend(reduced)` chooses a method.


@dataclass(frozen=True)
class Result:
    systems: list[md.ReducedSystem]
    fields: NDArray[np.float64]  # u_3d, shape (num_networks, num_dofs)
    solves: dict[str, Solves]  # of the first problems, by solver
    files: tuple[Path, ...]


def report_statistics(fields: NDArray[np.float64]) -> None:
    mean, deviation = fields.mean(axis=0), fields.std(axis=0, ddof=1)
    print(f"mean over networks            {mean.min():.3f} to {mean.max():.3f}")
    print(f"standard deviation            {deviation.min():.3f} to {deviation.max():.3f}")
    print(f"variance at a place, mean     {np.mean(deviation**2):.4f}")
    print(f"variance of the mean in space {mean.var():.4f}\n")


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(
        description="Solve for many random networks; draw mean and deviation of the tissue's field."
    )
    add = parser.add_argument
    add("--num-networks", type=int, default=200, help="how many networks (200)")
    add("--num-cells", type=int, default=12, help="cells along each side of the box (12)")
    add("--seed", type=int, default=0, help="seed of the networks (0)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    start = time.perf_counter()
    problems = draw_problems(args.num_networks, args.num_cells, args.seed, args.output)
    systems = [problem.reduced for problem in problems]
    drawn = time.perf_counter()
    fields = in_batches(LEARNED, systems).fields
    end = time.perf_counter()
    num_dofs = fields.shape[1]
    print(f"{len(systems)} problems of {num_dofs:,} unknowns: drawn in {drawn - start:.1f} s")
    print(f"solved in {end - drawn:.1f} s, with the learned multigrid, {BATCH_SIZE} at a time\n")
    report_statistics(fields)

    print(f"{'of the first ' + str(len(systems[:NUM_TIMED])):<29}  iterations  ms per problem")
    solves = {}
    for name, solve in SOLVERS.items():
        solve(systems[:2])  # the first time pays for loading libraries
        s = solves[name] = solve(systems[:NUM_TIMED])
        print(f"{name:<29}  {s.iterations:>10.1f}  {1e3 * s.seconds:>12.1f}")
    box = md.create_box(args.num_cells)  # whose dofs are in the order of those of all problems
    files = (
        md.plot_ensemble(box, fields, args.output / "ensemble.png", title="oxygen"),
        draw_times(solves, args.output / "times.png"),
    )
    print("\nwritten:", problems.path, *files, sep="\n  ")
    return Result(systems, fields, solves, files)


if __name__ == "__main__":
    main()

"""Time of the learned multigrid beside its peers: set-up and one solve, all in turns.

    python tests/benchmarks/fastest.py DATA [--num-cells 20 40 64] [--regimes ...] [--repeat 5]

CPU milliseconds on one thread, medians over the turns and then over the problems, conjugate
gradients to a true residual of 1e-6, the system's own right-hand side, unseen networks. "KSP" is
PETSc's compiled conjugate gradients. S itself is there before the clock starts, for all. Draws the
problems into DATA where they are not there yet. Prints a Markdown table.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import learning
from learning.benchmark.regimes import REGIMES, regime
from learning.petsc.ksp import petsc_cg
from learning.problems.data import Dataset, load_dataset
from learning.problems.generation import generate
from mixeddim.tensors import ReducedSystem

SEED = 2  # training drew from 0
DEFAULT = ("heterogeneous_1e2", "heterogeneous_1e4", "strong_1e-3", "anisotropic")
KSP = {"IC(0), KSP": "icc", "GAMG, KSP": "gamg", "PCMG, KSP": "chebyshev"}
type Run = Callable[[], tuple[float, float, int]]
"""Returns seconds of set-up and of the solve, and iterations."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="where problems are, or go")
    parser.add_argument("--num-cells", type=int, nargs="+", default=[20, 40, 64])
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=DEFAULT)
    parser.add_argument("--problems", type=int, default=2, help="of each kind (2)")
    parser.add_argument("--repeat", type=int, default=5, help="turns (5)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    names: list[str] = []
    for num_cells in arguments.num_cells:
        for name in arguments.regimes:
            problems = drawn(name, num_cells, arguments.problems, arguments.data)
            cells = defaultdict[str, list[tuple[float, float, float]]](list)
            for problem in list(problems)[: arguments.problems]:
                for method, seen in in_turns(runs(problem.reduced), arguments.repeat).items():
                    cells[method].append(tuple(np.median(seen, axis=0)))
            if not names:
                names = list(cells)
                print("| regime, n |", " | ".join(names), "| best of the others |")
                print("| --- " * (len(names) + 2) + "|")
            shown = {method: np.median(seen, axis=0) for method, seen in cells.items()}
            total = {method: 1e3 * (setup + solve) for method, (setup, solve, _) in shown.items()}
            best = min((t, method) for method, t in total.items() if method != "learned")
            print(
                f"| {name}, {num_cells} |",
                " | ".join(
                    f"{1e3 * setup:.0f} + {1e3 * solve:.0f} ({steps:.1f})"
                    for setup, solve, steps in shown.values()
                ),
                f"| {total['learned'] / best[0]:.2f} of {best[1]} |",
                flush=True,
            )


def drawn(name: str, num_cells: int, count: int, folder: Path) -> Dataset:
    """Return problems of a file, or draw them into it."""
    path = folder / f"{name}-{num_cells}.h5"
    if path.exists():
        return load_dataset(path)
    return generate(regime(name, num_cells), count, SEED, path, processes=1, progress=False)


def runs(system: ReducedSystem) -> Mapping[str, Run]:
    """Return what to time, by name, each the first time untimed."""
    _ = system.A_0, system.A_33, system.A_31, system.solve_11, system.g, system.S
    batch = learning.batch_systems([system])
    preconditioners: dict[str, learning.Preconditioner] = {
        "learned": learning.load_pretrained("multigrid"),
        "degree 2": learning.GeometricMultigrid(degree=2, dtype=torch.float32),
        "degree 3": learning.GeometricMultigrid(degree=3, dtype=torch.float32),
        "fourth kind, 3": learning.GeometricMultigrid(
            degree=3, dtype=torch.float32, polynomial="fourth_kind"
        ),
        "factors": learning.GeometricMultigrid("cholesky", dtype=torch.float32),
        "fast diag.": learning.FastDiagonalisation(),
    }

    def ours(preconditioner: learning.Preconditioner) -> Run:
        def run() -> tuple[float, float, int]:
            began = time.process_time()
            M = preconditioner.setup([system], replace(batch, kept={}))
            between = time.process_time()
            result = learning.cg(batch.apply, batch.g, M, max_iterations=500)
            return between - began, time.process_time() - between, int(result.iterations[0])

        return run

    def petsc(kind: str) -> Run:
        def run() -> tuple[float, float, int]:
            began = time.process_time()
            solve = petsc_cg(system, kind, rtol=1e-6, max_iterations=500)
            between = time.process_time()
            _, steps = solve(system.g)
            return between - began, time.process_time() - between, steps

        return run

    all_runs = {name: ours(M) for name, M in preconditioners.items()}
    all_runs |= {name: petsc(kind) for name, kind in KSP.items()}
    for run in all_runs.values():
        run()
    return all_runs


def in_turns(
    all_runs: Mapping[str, Run], repeat: int
) -> Mapping[str, list[tuple[float, float, int]]]:
    """Return what each run took in every turn."""
    seen = defaultdict[str, list[tuple[float, float, int]]](list)
    for name, run in turns(all_runs, repeat):
        seen[name].append(run())
    return seen


def turns(all_runs: Mapping[str, Run], repeat: int) -> Iterator[tuple[str, Run]]:
    for _ in range(repeat):
        yield from all_runs.items()


if __name__ == "__main__":
    main()

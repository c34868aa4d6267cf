"""Every solver against the direct solution of random legal problems: right, or an error by name.

    python tests/benchmarks/random_problems.py                     (md.solve)
    python tests/benchmarks/random_problems.py --solvers learning  (half of the time: U-Nets)

A solver is right where u_3d and u_1d are each within 1e-5 of their own largest value, and in the
mean square; all else that it may do is raise, or return a status that is not CONVERGED. Multigrid
is kept from solving such small boxes directly. Prints a table, and what was wrong.
"""

import argparse
import multiprocessing
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch

import learning
import mixeddim as md
from learning.petsc import PetscMultigrid, PetscPreconditioner
from learning.preconditioners.multigrid import geometric
from mixeddim.solvers import coarsening
from mixeddim.verification.random_problems import draw_problem, reference_solution

TOLERANCE = 1e-5

MIXEDDIM = ("direct", "krylov", "reduced")
UNETS = ("unet-static", "unet-dynamic")
PRECONDITIONERS = {
    "none": learning.Identity,
    "Jacobi": learning.Jacobi,
    "geometric": learning.GeometricMultigrid,
    "geometric, degree 2": lambda: learning.GeometricMultigrid(degree=2),
    "geometric, l1-Jacobi": lambda: learning.GeometricMultigrid("l1_jacobi"),
    "geometric, float32": lambda: learning.GeometricMultigrid(dtype=torch.float32),
    "fast diagonalisation": learning.FastDiagonalisation,
    "fast diagonalisation, coupling": lambda: learning.FastDiagonalisation(True),
    "Ruge-Stüben": learning.RugeStuben,
    "smoothed aggregation": learning.SmoothedAggregation,
    "PETSc icc": lambda: PetscPreconditioner("icc"),
    "PETSc gamg": lambda: PetscPreconditioner("gamg"),
    "PETSc mumps": lambda: PetscPreconditioner("mumps"),
    "PETSc multigrid, Chebyshev": PetscMultigrid,
    "PETSc multigrid, SOR": lambda: PetscMultigrid("sor"),
    "multigrid": lambda: learning.load_pretrained("multigrid"),
    **{name: lambda name=name: learning.load_pretrained(name) for name in UNETS},
}
SOLVERS = (*MIXEDDIM, *PRECONDITIONERS)
GROUPS = {
    "mixeddim": MIXEDDIM,
    "classical": tuple(name for name in PRECONDITIONERS if name not in UNETS),
    "unets": UNETS,
    "learning": tuple(PRECONDITIONERS),
    "all": SOLVERS,
}


@dataclass(frozen=True)
class Outcome:
    """What one solver made of one problem.

    Attributes:
        verdict: "right", "wrong", or the name of the error or status.
        error: Larger relative error of both sides; 0 where there is no solution.
        iterations: Of the solve.
    """

    verdict: str
    error: float = 0.0
    iterations: int = 0


@contextmanager
def several_grids() -> Iterator[None]:
    """Make multigrid coarsen boxes of a few cells, which it would solve directly."""
    limit = {"pc_gamg_coarse_eq_limit": "40"}
    with (
        mock.patch.object(geometric, "MOST_COARSE_NODES", 60),
        mock.patch.dict(coarsening._COARSENING, limit),
    ):
        yield


def outcomes(seed: int, solvers: tuple[str, ...]) -> dict[str, Outcome]:
    """Return what each solver makes of a problem."""
    system = draw_problem(seed).assemble()
    reduced = md.reduce(system)
    try:
        expected = reference_solution(system)
    except ValueError:
        expected = None  # then nothing is right but an error
    with several_grids():
        return {name: _outcome(_run(name, system, reduced, seed), expected) for name in solvers}


type Fields = tuple[np.ndarray, np.ndarray]


def _run(
    name: str, system: md.CoupledSystem, reduced: md.ReducedSystem, seed: int
) -> tuple[str, Fields | None, int]:
    """Return verdict, fields and iterations of a solver."""
    if name in MIXEDDIM:
        try:
            solution = md.solve(system, name)
        except md.SolverError:
            return "SolverError", None, 0
        fields = solution.u_3d.x.array, solution.u_1d.x.array
        return "", fields, solution.iterations
    method = ("auto", "fgmres", "flexible_cg")[seed % 3]
    try:
        result = learning.solve(reduced, PRECONDITIONERS[name](), method)
    except ValueError:  # of its set-up
        return "ValueError", None, 0
    if not result.converged:
        return result.status.name, None, result.iterations
    return "", (result.x, reduced.back_substitute(result.x)), result.iterations


def _outcome(run: tuple[str, Fields | None, int], expected: Fields | None) -> Outcome:
    verdict, fields, iterations = run
    if fields is None:
        return Outcome(verdict, iterations=iterations)
    error = np.inf
    if expected is not None:
        error = max(relative_error(*sides) for sides in zip(fields, expected, strict=True))
    return Outcome("right" if error <= TOLERANCE else "wrong", error, iterations)


def relative_error(field: np.ndarray, expected: np.ndarray) -> float:
    """Return the larger of the errors in the largest value and in the mean square."""
    size = abs(expected).max()
    if size == 0:
        return float(abs(field).max() > 0)
    error, unit = (field - expected) / size, expected / size
    return float(max(abs(error).max(), np.linalg.norm(error) / np.linalg.norm(unit)))


def _work(task: tuple[int, tuple[str, ...]]) -> tuple[int, dict[str, Outcome]]:
    torch.set_num_threads(1)
    return task[0], outcomes(*task)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--solvers", default="mixeddim", choices=[*GROUPS, *SOLVERS])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    solvers = GROUPS.get(arguments.solvers, (arguments.solvers,))
    found: dict[str, list[Outcome]] = defaultdict(list)
    seeds = range(arguments.first, arguments.first + arguments.problems)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for seed, of_seed in pool.imap_unordered(_work, [(seed, solvers) for seed in seeds]):
            for name, outcome in of_seed.items():
                found[name].append(outcome)
                if outcome.verdict == "wrong":
                    print(f"seed {seed}, {name}: off by {outcome.error:.0e}", flush=True)
        pool.close()  # PETSc takes a terminated process for a crash
        pool.join()
    print("solver | right | wrong | errors by name | largest error | iterations: median, most")
    print("--- | --- | --- | --- | --- | ---")
    for name, of_solver in found.items():
        counts = Counter(outcome.verdict for outcome in of_solver)
        named = {v: n for v, n in sorted(counts.items()) if v not in ("right", "wrong")}
        right = [outcome for outcome in of_solver if outcome.verdict == "right"]
        steps = [outcome.iterations for outcome in right]
        print(
            f"{name} | {counts['right']} | {counts['wrong']} | {named or '-'} | "
            f"{max((o.error for o in right), default=0):.0e} | "
            f"{statistics.median(steps or [0]):.0f}, {max(steps, default=0)}"
        )


if __name__ == "__main__":
    main()

"""Iterations of the learned multigrid beside the unlearned one, on problems that it has not seen.

    python tests/benchmarks/learned_multigrid.py FOLDER DATA [--weights FILE]   (twenty minutes)

Every regime of the benchmark, what lies outside of its training, and some regimes on finer grids:
conjugate gradients, vectors in float64, to a true residual of 1e-6. Writes iterations.json and
iterations.md to FOLDER, and problems to DATA. Whatever is there is kept: run it again to go on.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learning.benchmark.memory import free_memory
from learning.benchmark.regimes import REGIMES, regime
from learning.benchmark.results import Measured
from learning.evaluation.measures import RIGHT_HAND_SIDES
from learning.krylov.conjugate_gradients import cg
from learning.krylov.cycles import Status
from learning.krylov.preconditioner import Preconditioner
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.pretrained import PRETRAINED, load_preconditioner, load_pretrained
from learning.problems.data import FAMILIES, Dataset, Problem, load_dataset, right_hand_side
from learning.problems.distributions import ProblemDistribution, to_json
from learning.problems.generation import generate
from learning.systems.operators import batch_systems
from learning.training.weights import load_weights
from mixeddim.tensors import replacing

SEED = 2  # training drew from 0
RTOL, MAX_ITERATIONS = 1e-6, 250
BATCH = 10 * 21**3  # unknowns solved together
NUM_CELLS = 20
FINER = {32: 4, 40: 4, 64: 4, 128: 1}  # cells per side, and how many problems
ON_FINER = ("paper", "heterogeneous_1e2", "strong_1e-4")
BYTES = 6000  # for an unknown of one system, meshing and assembly included

# Nothing in training is like the first four; the last have two extremes at a time.
OUTSIDE = {
    "capillary_mesh": ProblemDistribution(generators=("capillary_mesh",)),
    "radius_0.25": ProblemDistribution(radius=(0.25, 0.25)),
    "contrast_1e6": ProblemDistribution(contrast=(1e6, 1e6)),
    "oblique": ProblemDistribution(anisotropy=(100.0, 100.0), fibres="oblique"),
} | {
    f"{name}_weak": replace(REGIMES[name], sigma_3d=(0.01, 0.01))
    for name in REGIMES
    if name.startswith("strong")
}

UNLEARNED: Mapping[str, Preconditioner] = {
    "unlearned": GeometricMultigrid("low_rank", 1, torch.float32),
    "unlearned, degree 2": GeometricMultigrid("low_rank", 2, torch.float32),
    "unlearned, factors": GeometricMultigrid("cholesky", 1, torch.float32),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where results go")
    parser.add_argument("data", type=Path, help="where problems are, or go")
    parser.add_argument("--weights", type=Path, help="of a run; the pretrained ones if none")
    parser.add_argument("--problems", type=int, default=42, help="in each row on 20 cells per side")
    parser.add_argument("--grids", type=int, nargs="*", choices=FINER, default=[*FINER])
    arguments = parser.parse_args()
    if arguments.weights is None:
        learned, sha256 = load_pretrained("multigrid"), PRETRAINED["multigrid"]
    else:
        learned = load_preconditioner(arguments.weights)
        sha256 = load_weights(arguments.weights).sha256

    path = arguments.folder / "iterations.json"
    results = opened(path, {"weights": sha256, "seed": SEED, "rtol": RTOL})
    results["command"] = " ".join(["python", *sys.argv])
    rows = results.setdefault("rows", {})
    for name, (distribution, count) in rows_of(arguments.problems, arguments.grids).items():
        origin = {"distribution": to_json(distribution), "num_problems": count}
        needed = BYTES * (distribution.num_cells + 1) ** 3
        if rows.get(name, {}).items() >= origin.items():
            continue
        if needed > free_memory(torch.device("cpu")):
            print(f"{name} skipped: it needs {needed / 1e9:.0f} GB", flush=True)
            continue
        problems = drawn(distribution, count, SEED, arguments.data / f"{name}.h5")[:count]
        measured = measure({"learned": learned, **UNLEARNED}, problems)
        rows[name] = origin | {"methods": {key: asdict(m) for key, m in measured.items()}}
        print(name, *map(cell, measured.values()), sep=" | ", flush=True)
        save(results, path)
    save(results, path)
    with replacing(arguments.folder / "iterations.md") as part:
        part.write_text(table(results))


def rows_of(count: int, grids: Sequence[int]) -> dict[str, tuple[ProblemDistribution, int]]:
    """Return what to draw from and how many problems, by name of the row."""
    coarse = {name: regime(name, NUM_CELLS) for name in REGIMES} | OUTSIDE
    rows = {name: (distribution, count) for name, distribution in coarse.items()}
    for n in grids:
        for name in ON_FINER:
            rows[f"{name}-{n}"] = regime(name, n), min(FINER[n], count)
    return rows


def drawn(distribution: ProblemDistribution, count: int, seed: int, path: Path) -> Dataset:
    """Return problems of a file, which may hold more of the same, or draw them into it."""
    if path.exists():
        found = load_dataset(path)
        if (found.distribution, found.seed) == (distribution, seed) and len(found) >= count:
            return found
    return generate(distribution, count, seed, path, processes=1)


def measure(
    preconditioners: Mapping[str, Preconditioner], problems: Sequence[Problem]
) -> dict[str, Measured]:
    """Solve problems on one grid for all families of right-hand sides by conjugate gradients."""
    counts = defaultdict[tuple[str, str], list[int]](list)
    failures = defaultdict[str, Counter[str]](Counter)
    size = max(1, BATCH // len(problems[0].reduced.b_3))
    for start in range(0, len(problems), size):
        chosen = problems[start : start + size]
        systems = [problem.reduced for problem in chosen]
        batch = batch_systems(systems, torch.float64)
        with torch.no_grad():
            maps = {name: p.setup(systems, batch) for name, p in preconditioners.items()}
        for number, family in enumerate(FAMILIES):
            rows = []
            for i, problem in enumerate(chosen, start):
                rng = np.random.default_rng([RIGHT_HAND_SIDES, SEED, i, number])
                rows.append(right_hand_side(problem, family, rng))
            b = torch.tensor(np.stack(rows))
            for name, M in maps.items():
                with torch.no_grad():
                    result = cg(batch.apply, b, M, rtol=RTOL, max_iterations=MAX_ITERATIONS)
                solved = [status is Status.CONVERGED for status in result.status]
                counts[name, family] += np.where(solved, result.iterations, MAX_ITERATIONS).tolist()
                failures[name].update(s.name for s in result.status if s is not Status.CONVERGED)
    return {
        name: Measured(
            is_learned=name not in UNLEARNED,
            num_systems=len(problems),
            mean_iterations={f: round(float(np.mean(counts[name, f])), 3) for f in FAMILIES},
            most_iterations={f: max(counts[name, f]) for f in FAMILIES},
            failures=dict(failures[name]),
        )
        for name in preconditioners
    }


# --- The file, and the page -------------------------------------------------------------------


def opened(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a file, or empty ones; raises ValueError if settings differ."""
    found = json.loads(path.read_text()) if path.exists() else {**settings}
    if not found.items() >= settings.items():
        raise ValueError(
            f"got {path}, which holds results of other settings; wanted {settings}. Name another "
            "folder, or remove the file."
        )
    return found


def save(results: dict[str, Any], path: Path) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(results, indent=1) + "\n")


def cell(measured: Measured) -> str:
    """Return the mean of the worst family, the most iterations of all, and how many failed."""
    failed = f", {measured.num_failures} failed" if measured.num_failures else ""
    return f"{measured.mean:.2f} ({measured.most}{failed})"


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    names, rows = ["learned", *UNLEARNED], results["rows"]
    lines = [
        f"Iterations to {RTOL:g}: mean of the worst family (most of all), by\n",
        f"    {results['command']}\n",
        f"| | problems | {' | '.join(names)} |\n|---|{'---|' * (len(names) + 1)}",
    ]
    for row, content in rows.items():
        cells = [cell(Measured(**content["methods"][name])) for name in names]
        lines.append(f"| {row} | {content['num_problems']} | {' | '.join(cells)} |")
    regimes = [Measured(**rows[name]["methods"]["learned"]) for name in REGIMES if name in rows]
    lines.append(
        f"\nLearned, all regimes on {NUM_CELLS} cells: {sum(m.num_systems for m in regimes)} "
        f"problems, at most {max(m.most for m in regimes)} iterations, "
        f"{sum(m.num_failures for m in regimes)} failures."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

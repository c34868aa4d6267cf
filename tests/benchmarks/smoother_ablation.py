"""What each smoother of the multigrid costs and saves: iterations, ms of set-up and cycle, total.

    python tests/benchmarks/smoother_ablation.py FOLDER DATA [--num-cells 40]    (ten minutes)

Conjugate gradients to a true residual of 1e-6 on problems that no training saw, random right-hand
sides, one thread, all variants in turns. Iterations are interpolated between steps, on the scale of
the logarithm of the residual; the total is that of whole steps. Writes ablation.json and
ablation.md to FOLDER, problems to DATA.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from learned_multigrid import RTOL, SEED, drawn
from numpy.typing import NDArray

from learning.benchmark.regimes import regime
from learning.krylov.conjugate_gradients import cg
from learning.krylov.preconditioner import Preconditioner
from learning.preconditioners.multigrid import geometric, learned, transfer
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.preconditioners.multigrid.learned import LearnedMultigrid, MultigridBounds
from learning.pretrained import load_pretrained
from learning.problems.data import Problem, right_hand_side
from learning.systems.operators import batch_systems
from mixeddim.tensors import replacing

REGIMES = (
    "paper", "weak", "heterogeneous_1e2", "heterogeneous_1e4", "anisotropic", "strong_1e-2",
    "strong_1e-3",
)  # fmt: skip
REPEATS = 5


def unlearned(degree: int, polynomial: geometric.PolynomialKind = "chebyshev") -> Preconditioner:
    return GeometricMultigrid(degree=degree, dtype=torch.float32, polynomial=polynomial)


# The last four change the cycle while it is set up and applied.
VARIANTS: Mapping[str, Preconditioner] = {
    **{f"unlearned, degree {degree}": unlearned(degree) for degree in (1, 2, 3, 4)},
    **{f"unlearned, fourth kind {degree}": unlearned(degree, "fourth_kind") for degree in (2, 3)},
    "learned": load_pretrained("multigrid"),
    "before training": LearnedMultigrid(MultigridBounds()),
    "learned, degrees 5 and 6": load_pretrained("multigrid"),
    "learned, by four on small grids too": load_pretrained("multigrid"),
    "learned, by two": load_pretrained("multigrid"),
    "unlearned, degree 3, no second visit": unlearned(3),
}
CHANGES = {
    "learned, degrees 5 and 6": (learned, "DEGREES", (5, 6)),
    "learned, by four on small grids too": (transfer, "FEW_NODES", 1000),
    "learned, by two": (transfer, "FEW_NODES", 10**9),
    "unlearned, degree 3, no second visit": (geometric, "MOST_TWICE_NODES", 0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where results go")
    parser.add_argument("data", type=Path, help="where problems are, or go")
    parser.add_argument("--num-cells", type=int, default=40, help="along each side of the cube")
    parser.add_argument("--problems", type=int, default=2, help="of each regime")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name in REGIMES:
        distribution = regime(name, arguments.num_cells)
        path = arguments.data / f"{name}-{arguments.num_cells}.h5"
        problems = drawn(distribution, arguments.problems, SEED, path)[: arguments.problems]
        rows[name] = measured(problems)
        print(name, json.dumps(rows[name]), flush=True)
    command = " ".join(["python", *sys.argv])
    with replacing(arguments.folder / "ablation.json") as part:
        part.write_text(json.dumps({"command": command, "rows": rows}, indent=1) + "\n")
    page = table(rows, command)
    with replacing(arguments.folder / "ablation.md") as part:
        part.write_text(page)
    print(page)


@torch.no_grad()
def measured(problems: Sequence[Problem]) -> dict[str, dict[str, float]]:
    """Return means over the problems, by variant; times are medians of some repetitions."""
    sums = {name: np.zeros(4) for name in VARIANTS}
    for i, problem in enumerate(problems):
        systems = [problem.reduced]
        batch = batch_systems(systems)
        b = torch.tensor(right_hand_side(problem, "random", np.random.default_rng([SEED, i]))[None])
        times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in VARIANTS}
        for _ in range(REPEATS):
            for name, preconditioner in VARIANTS.items():
                where, what, value = CHANGES.get(name, (geometric, "MOST_TWICE_NODES", None))
                value = getattr(where, what) if value is None else value
                with mock.patch.object(where, what, value):
                    start = time.perf_counter()
                    M = preconditioner.setup(systems, replace(batch, kept={}))
                    ready = time.perf_counter()
                    result = cg(batch.apply, b, M, rtol=RTOL)
                    solved = time.perf_counter()
                    M(b)
                    applied = time.perf_counter()
                times[name].append((ready - start, applied - solved, solved - start))
                steps = interpolated(result.residual_norms[:, 0].numpy())
                if len(times[name]) == 1:
                    sums[name][0] += steps
        for name in VARIANTS:
            sums[name][1:] += 1e3 * np.median(times[name], axis=0)
    keys = ("iterations", "setup_ms", "cycle_ms", "total_ms")
    return {
        name: dict(zip(keys, np.round(values / len(problems), 2).tolist(), strict=True))
        for name, values in sums.items()
    }


def interpolated(norms: NDArray[np.float64]) -> float:
    """Return at which fraction of a step the residual's norm passes the tolerance."""
    logs = np.log10(norms / norms[0] / RTOL)
    step = int(np.argmax(logs <= 0))
    return float(step - 1 + logs[step - 1] / (logs[step - 1] - logs[step]))


def table(rows: Mapping[str, Mapping[str, Mapping[str, float]]], command: str) -> str:
    """Return the results as Markdown."""
    lines = [
        "Iterations (interpolated), ms of set-up, of a cycle, and of both with all else, by\n",
        f"    {command}\n",
        f"| | {' | '.join(rows)} |\n|---|{'---|' * len(rows)}",
    ]
    for name in VARIANTS:
        cells = [
            "{iterations:.2f}, {setup_ms:.0f}, {cycle_ms:.1f}, {total_ms:.0f}".format(**row[name])
            for row in rows.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

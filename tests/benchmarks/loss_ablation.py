"""Train the learned multigrid with each loss, shortened, and count iterations on unseen problems.

    python tests/benchmarks/loss_ablation.py FOLDER DATA TEST    (twenty minutes, one core)

DATA holds the data sets of the stage "multigrid" by name, TEST the problems of `learned_multigrid`;
what is missing there is drawn. Writes a run for each loss, ablation.json and ablation.md to FOLDER.
Whatever is there is kept: run it again to go on.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from learned_multigrid import NUM_CELLS, SEED, UNLEARNED, cell, drawn, measure, opened, save

from learning.benchmark.regimes import regime
from learning.benchmark.results import Measured
from learning.krylov.preconditioner import Preconditioner
from learning.preconditioners.multigrid.learned import LearnedMultigrid, MultigridBounds
from learning.pretrained import load_preconditioner
from learning.problems.data import Problem
from learning.problems.distributions import DISTRIBUTIONS
from learning.training.loop import train
from learning.training.runs import RunFolder
from learning.training.stages import STAGES
from mixeddim.tensors import replacing

DATA_SETS, SEED_TRAINING = ("regimes", "regimes_varying", "regimes_fibres"), 0
TESTED = ("paper", "heterogeneous_1e4", "anisotropic", "strong_1e-4")

# Losses by name of the run; the static one runs no Krylov method.
LOSSES: Mapping[str, dict[str, Any]] = {
    "residual": {"loss": "residual"},
    "sine_5": {"loss": "sine", "num_steps": 5},
    **{f"log_sine_{m}": {"loss": "log_sine", "num_steps": m} for m in (3, 5, 8, 10)},
    "hybrid_5": {"loss": "hybrid", "num_steps": 5},
    "energy_5": {"loss": "energy", "num_steps": 5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where runs and results go")
    parser.add_argument("data", type=Path, help="where problems to train on are, or go")
    parser.add_argument("test", type=Path, help="where problems to test on are, or go")
    parser.add_argument("--problems", type=int, default=40, help="to train on, of each data set")
    parser.add_argument("--validation", type=int, default=5, help="problems to validate on")
    parser.add_argument("--epochs", type=int, default=3, help="of each training")
    parser.add_argument("--tested", type=int, default=10, help="problems of each regime")
    arguments = parser.parse_args()
    count, tested = arguments.problems + arguments.validation, arguments.tested
    data = [
        drawn(DISTRIBUTIONS[name], count, SEED_TRAINING, arguments.data / f"{name}.h5")
        for name in DATA_SETS
    ]
    tests = {
        name: drawn(regime(name, NUM_CELLS), tested, SEED, arguments.test / f"{name}.h5")[:tested]
        for name in TESTED
    }
    path = arguments.folder / "ablation.json"
    results = opened(path, {"num_tested": tested})
    results["command"] = " ".join(["python", *sys.argv])
    rows = results.setdefault("rows", {})

    untrained = {**UNLEARNED, "before training": LearnedMultigrid(MultigridBounds())}
    for name, preconditioner in untrained.items():
        if name not in rows:
            rows[name] = {"seconds": None, "regimes": iterations(preconditioner, tests)}
            save(results, path)
    shortened = replace(
        STAGES["multigrid"],
        num_problems=arguments.problems,
        num_validation=arguments.validation,
        num_epochs=arguments.epochs,
    )
    for name, loss in LOSSES.items():
        run = train(replace(shortened, **loss), data, arguments.folder / name, progress=False)
        if name not in rows:
            measured = iterations(load_preconditioner(run.best), tests)
            rows[name] = {"seconds": seconds(run), "regimes": measured}
            save(results, path)
            print(line(name, rows[name]), flush=True)
    save(results, path)
    page = arguments.folder / "ablation.md"
    with replacing(page) as part:
        part.write_text(table(results))
    print(page.read_text())


def iterations(
    preconditioner: Preconditioner, tests: Mapping[str, Sequence[Problem]]
) -> dict[str, Any]:
    """Return what was measured, by regime."""
    one = {"": preconditioner}
    return {name: asdict(measure(one, problems)[""]) for name, problems in tests.items()}


def seconds(run: RunFolder) -> float:
    """Return the time of a training."""
    with (run.path / "history.csv").open() as file:
        return round(sum(float(row["seconds"]) for row in csv.DictReader(file)))


def line(name: str, row: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [cell(Measured(**row["regimes"][tested])) for tested in TESTED]
    time = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
    return f"| {name} | {' | '.join(cells)} | {time} |"


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"Mean iterations of the worst family (most of all), {results['num_tested']} problems of "
        "each regime, and seconds of training; losses with their Krylov steps m. By\n",
        f"    {results['command']}\n",
        f"| | {' | '.join(TESTED)} | training, s |\n|---|{'---|' * (len(TESTED) + 1)}",
        *(line(name, row) for name, row in results["rows"].items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

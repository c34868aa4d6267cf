"""Train the learned multigrid with each loss, shortened, and count iterations on unseen problems.

    python tests/benchmarks/loss_ablation.py FOLDER DATA TEST             (some 25 minutes, one core)

DATA holds the data sets of the stage "multigrid" by name, TEST the problems of `learned_multigrid`;
what is missing there is drawn. Writes a run for each loss, ablation.json and ablation.md to FOLDER.
Whatever is there is kept: run it again to go on.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from learned_multigrid import NUM_CELLS, SEED, UNLEARNED, drawn, measure, opened, save

from learning.benchmark_results import Measured
from learning.data import Dataset
from learning.distributions import DISTRIBUTIONS
from learning.multigrid import LearnedMultigrid, MultigridNetwork
from learning.pretrained import load_preconditioner
from learning.regimes import regime
from learning.runs import RunFolder
from learning.stages import STAGES, Stage
from learning.training import train
from mixeddim.tensors import replacing

DATA_SETS, SEED_TRAINING = ("regimes", "regimes_varying", "regimes_fibres"), 0
TESTED = ("paper", "heterogeneous_1e4", "anisotropic", "strong_1e-4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where runs and results go")
    parser.add_argument("data", type=Path, help="where problems to train on are, or go")
    parser.add_argument("test", type=Path, help="where problems to test on are, or go")
    parser.add_argument("--problems", type=int, default=40, help="to train on, of each data set")
    parser.add_argument("--validation", type=int, default=5, help="to validate on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--tested", type=int, default=10, help="problems of each regime")
    arguments = parser.parse_args()
    count = arguments.problems + arguments.validation
    data = [drawn(DISTRIBUTIONS[name], count, SEED_TRAINING, arguments.data / f"{name}.h5")
            for name in DATA_SETS]  # fmt: skip
    tests = {name: drawn(regime(name, NUM_CELLS), arguments.tested, SEED, arguments.test / f"{name}.h5")
             for name in TESTED}  # fmt: skip
    base = replace(
        STAGES["multigrid"],
        num_problems=arguments.problems,
        num_validation=arguments.validation,
        num_epochs=arguments.epochs,
    )
    path = arguments.folder / "ablation.json"
    settings = {"num_tested": arguments.tested, "data": [d.content_hash for d in data]}
    results = opened(path, settings)
    results["command"] = " ".join(["python", *sys.argv])
    rows = results.setdefault("rows", {})
    untrained = {"before training": LearnedMultigrid(MultigridNetwork()), **UNLEARNED}
    for name, preconditioner in untrained.items():
        if name not in rows:
            rows[name] = {"seconds": 0.0, "regimes": test(preconditioner, tests, arguments.tested)}
            save(results, path)
    for name, stage in stages(base).items():
        run = train(stage, data, arguments.folder / name.replace(" ", "_"))
        if name not in rows:
            regimes = test(load_preconditioner(run.best), tests, arguments.tested)
            rows[name] = {"seconds": seconds(run), "regimes": regimes}
            save(results, path)

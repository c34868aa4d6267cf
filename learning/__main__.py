r"""The commands of `learning`.

    python -m learning reproduce paper runs/paper

does all of the following, and evaluates on other distributions too:

    python -m learning generate data.h5 --distribution paper --num-problems 600
    python -m learning train paper-static data.h5 static
    python -m learning train paper-dynamic data.h5 dynamic --start static/best.safetensors
    python -m learning generate test.h5 --num-problems 100 --seed 1
    python -m learning evaluate evaluation.json --data unseen=test.h5 --weights \
        static=static/best.safetensors dynamic=dynamic/best.safetensors --run dynamic
    python -m learning report report evaluation.json --static static --dynamic dynamic
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from learning.preconditioners.architectures import ARCHITECTURES
from learning.problems.data import FAMILIES, load_dataset
from learning.problems.distributions import DISTRIBUTIONS
from learning.training.stages import LOSSES, STAGES, Stage


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors that a user can mend end the process with their message."""
    parser = argparse.ArgumentParser(
        prog="python -m learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (
        _add_generate,
        _add_train,
        _add_evaluate,
        _add_report,
        _add_reproduce,
        _add_benchmark,
    ):
        add(commands)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    options.command = shlex.join(["python", "-m", "learning", *given])
    try:
        options.run(options)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: give the same command again to go on")


def _command(commands: Any, name: str, summary: str, run: Callable[..., None]) -> Any:
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    return parser


def _add_generate(commands: Any) -> None:
    parser = _command(commands, "generate", "draw problems and write them to a file", _generate)
    parser.add_argument("path", help="HDF5 file to write")
    parser.add_argument("--distribution", choices=DISTRIBUTIONS, default="paper")
    parser.add_argument(
        "--num-cells", type=int, help="cells per side, instead of the distribution's"
    )
    parser.add_argument("--num-problems", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, help="as many as cores by default")


def _generate(options: argparse.Namespace) -> None:
    from learning.problems.generation import generate

    distribution = DISTRIBUTIONS[options.distribution]
    if options.num_cells is not None:
        distribution = dataclasses.replace(distribution, num_cells=options.num_cells)
    dataset = generate(
        distribution, options.num_problems, options.seed, options.path, processes=options.processes
    )
    print(f"{len(dataset)} problems in {options.path}, content {dataset.content_hash}")


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", "run a stage of training, or go on with it", _train)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _STAGES.format(table=_table_of_stages())
    parser.add_argument("stage", choices=STAGES, help="what to do, as the table below says")
    parser.add_argument(
        "data", nargs="+", help="HDF5 files of problems; each batch is from one of them"
    )
    parser.add_argument("folder", help="run folder; an unfinished run in it is continued")
    parser.add_argument("--start", metavar="WEIGHTS", help="weights to start from, else untrained")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--tensorboard", action="store_true", help="write curves there too")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a bar; by default where stderr is a terminal",
    )
    changes = parser.add_argument_group("instead of the stage's own, in the table below")
    for field in dataclasses.fields(Stage):
        option, text = f"--{field.name.replace('_', '-')}", _FIELDS[field.name]
        if field.type == "bool":
            changes.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
        elif field.type == "tuple[str, ...]":
            changes.add_argument(option, nargs="+", choices=FAMILIES, help=text)
        elif field.name in _CHOICES:
            changes.add_argument(option, choices=_CHOICES[field.name], help=text)
        else:
            kind = {"int": int, "float": float}[str(field.type)]
            changes.add_argument(option, type=kind, metavar=kind.__name__.upper(), help=text)


_CHOICES = {"loss": LOSSES, "architecture": tuple(ARCHITECTURES)}

_FIELDS = {
    "loss": "what to minimise",
    "num_problems": "problems to train on, the first of each data set",
    "num_validation": "problems to validate on, the last of each data set",
    "families": "right-hand sides of each problem in an epoch; may repeat",
    "num_epochs": "passes through the samples",
    "batch_size": "samples in a step, over all processes",
    "architecture": "what to train",
    "learning_rate": "of Adam in the first step; falls to zero along a cosine",
    "num_steps": "Krylov steps in every loss but the residual one",
    "static_weight": "of the residual loss in the hybrid one, 0 to 1",
    "mixed_precision": "run most convolutions of the U-Net in bfloat16",
    "checkpoint": "compute activations again in the backward pass, to save memory",
    "seed": "of the first weights, the order of the samples and the right-hand sides",
}

_STAGES = """\
stages:
  paper-* are those of the paper, arXiv:2507.15452, for a GPU; short-* those of the weights that
  come with the package, for an hour and a half on two cores. A *-static stage comes first, and its
  best.safetensors is the --start of the *-dynamic one. Their values:

{table}
"""


def _table_of_stages() -> str:
    """Return the fields of all stages, a line a field."""
    rows = [["", *STAGES]]
    for field in dataclasses.fields(Stage):
        values = [getattr(stage, field.name) for stage in STAGES.values()]
        rows.append([field.name, *(_shown(value) for value in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _shown(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return ", ".join(f"{value.count(name)} {name}" for name in dict.fromkeys(value))


def _train(options: argparse.Namespace) -> None:
    from learning.training.loop import train

    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Stage)}
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    stage = dataclasses.replace(STAGES[options.stage], **changes)
    before = options.stage.replace("-dynamic", "-static")
    if options.start is None and before != options.stage:
        print(
            f"warning: got {options.stage} without --start, and so untrained weights; its protocol "
            f"starts from those of {before}. Give --start .../best.safetensors.",
            file=sys.stderr,
        )
    run = train(
        stage,
        [load_dataset(file) for file in options.data],
        options.folder,
        start=options.start,
        device=options.device,
        tensorboard=options.tensorboard,
        progress=options.progress,
    )
    print(f"weights of the lowest validation loss: {run.best}")


def _add_evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "count iterations on unseen problems", _evaluate)
    parser.add_argument("path", help="JSON file of results; an unfinished one is continued")
    parser.add_argument(
        "--data",
        type=_pair,
        nargs="+",
        required=True,
        metavar="NAME=FILE",
        help="data sets, the one that training was for first",
    )
    parser.add_argument(
        "--weights",
        type=_pair,
        nargs="+",
        required=True,
        metavar="NAME=FILE",
        help="trained weights, by convention as static=... dynamic=...",
    )
    parser.add_argument("--run", dest="run_folder", help="run folder to measure by epoch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def _pair(text: str) -> tuple[str, str]:
    name, separator, file = text.partition("=")
    if not (name and separator and file):
        raise argparse.ArgumentTypeError(f"got {text!r}; wanted a name and a file, NAME=FILE")
    return name, file


def _evaluate(options: argparse.Namespace) -> None:
    from learning.reproduction import evaluate_data_sets

    evaluate_data_sets(
        options.path,
        dict(options.data),
        dict(options.weights),
        run_folder=options.run_folder,
        device=options.device,
        command=options.command,
    )
    print(f"results: {options.path}")


def _add_report(commands: Any) -> None:
    parser = _command(commands, "report", "write the paper's tables and figures", _report)
    parser.add_argument("folder", help="where to write report.md and its pictures")
    parser.add_argument("results", nargs="+", help="JSON files of results")
    parser.add_argument("--static", help="run folder of the static stage")
    parser.add_argument("--dynamic", help="run folder of the dynamic stage")


def _report(options: argparse.Namespace) -> None:
    from learning.reporting import write_report

    page = write_report(
        options.results, options.folder, static_run=options.static, dynamic_run=options.dynamic
    )
    print(f"report: {page}")


def _add_reproduce(commands: Any) -> None:
    parser = _command(commands, "reproduce", "the paper's study from data to report", _reproduce)
    parser.add_argument("protocol", help="paper or short: the stages to train")
    parser.add_argument("folder", help="where everything goes; an unfinished one is continued")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def _reproduce(options: argparse.Namespace) -> None:
    from learning.reproduction import reproduce

    print(f"report: {reproduce(options.protocol, options.folder, device=options.device)}")


def _add_benchmark(commands: Any) -> None:
    from learning.benchmark.methods import METHODS
    from learning.benchmark.regimes import REGIMES
    from learning.benchmark.run import DEFAULT_REGIMES

    parser = _command(
        commands, "benchmark", "time learned and classical methods on the same systems", _benchmark
    )
    parser.description = (
        "Time learned and classical methods on the same systems: set-up, solve, iterations, memory "
        "and failures, in one thread; set OMP_NUM_THREADS=1 to hold all libraries to one."
    )
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("folder", help="where everything goes; an unfinished one is continued")
    some = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument(
        "--regimes", default=[*DEFAULT_REGIMES], help=f"of {', '.join(REGIMES)}", **some
    )
    parser.add_argument(
        "--num-cells", type=int, nargs="+", default=[20, 40], help="cells per side of the cube"
    )
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 16], help="systems solved together"
    )
    parser.add_argument("--methods", default=[*METHODS], help="what to compare", **some)
    parser.add_argument(
        "--num-problems", type=int, default=2, help="systems a cell, filled up to whole batches"
    )
    parser.add_argument("--repetitions", type=int, default=3, help="how often each is timed")
    parser.add_argument(
        "--time-limit", type=float, default=20.0, help="seconds of a method in a cell, to give up"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--data-only",
        action="store_true",
        help="draw the problems and stop, to measure where there is no DOLFINx",
    )


def _benchmark(options: argparse.Namespace) -> None:
    from learning.benchmark.run import generate_data, run_benchmark
    from learning.reporting import write_benchmark_report

    cells = {
        "regimes": options.regimes,
        "num_cells": options.num_cells,
        "batch_sizes": options.batch_sizes,
        "num_problems": options.num_problems,
    }
    if options.data_only:
        generate_data(options.folder, **cells)
        return
    run_benchmark(
        options.folder,
        **cells,
        methods=options.methods,
        repetitions=options.repetitions,
        time_limit=options.time_limit,
        device=options.device,
        command=options.command,
    )
    page = write_benchmark_report(f"{options.folder}/benchmark.json", options.folder)
    print(f"report: {page}")


if __name__ == "__main__":
    main()

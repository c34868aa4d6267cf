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

from learning.data import load_dataset
from learning.distributions import DISTRIBUTIONS
from learning.stages import STAGES, Stage


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; errors that a user can mend end the process with their message."""
    parser = argparse.ArgumentParser(
        prog="python -m learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for add in (_add_generate, _add_train, _add_evaluate, _add_report, _add_reproduce):
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
    parser.add_argument("--num-cells", type=int, help="cells a side, instead of the distribution's")
    parser.add_argument("--num-problems", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, help="as many as cores by default")


def _generate(options: argparse.Namespace) -> None:
    from learning.generation import generate

    distribution = DISTRIBUTIONS[options.distribution]
    if options.num_cells is not None:
        distribution = dataclasses.replace(distribution, num_cells=options.num_cells)
    dataset = generate(
        distribution, options.num_problems, options.seed, options.path, processes=options.processes
    )
    print(f"{len(dataset)} problems in {options.path}, content {dataset.content_hash}")


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", "run a stage of training, or go on with it", _train)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("data", help="HDF5 file of problems")
    parser.add_argument("folder", help="run folder")
    parser.add_argument("--start", help="weights to start from, as a static stage's; else random")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--tensorboard", action="store_true", help="write curves there too")
    changes = parser.add_argument_group("instead of the stage's own")
    for field in dataclasses.fields(Stage):
        option = f"--{field.name.replace('_', '-')}"
        if field.type == "bool":
            changes.add_argument(option, action=argparse.BooleanOptionalAction)
        elif field.type == "tuple[str, ...]":
            changes.add_argument(option, nargs="+", metavar="FAMILY")
        else:
            changes.add_argument(option, type=_TYPES[str(field.type)])


_TYPES = {"int": int, "float": float, "str": str}


def _train(options: argparse.Namespace) -> None:
    from learning.training import train

    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Stage)}
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    stage = dataclasses.replace(STAGES[options.stage], **changes)
    if stage.loss != "residual" and options.start is None:
        print("note: no --start, so from random weights; the paper starts from its static stage")
    run = train(
        stage,
        load_dataset(options.data),
        options.folder,
        start=options.start,
        device=options.device,
        tensorboard=options.tensorboard,
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


if __name__ == "__main__":
    main()

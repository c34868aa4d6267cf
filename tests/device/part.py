"""One part of a run, in a process of its own; run.py starts it.

    part.py PART SECONDS GRACE RESULT ...

One that is still running after its time and the grace says where it is, and ends.
"""

from __future__ import annotations

import faulthandler
import sys

if __name__ == "__main__":  # before torch is loaded, which takes its time too
    faulthandler.dump_traceback_later(float(sys.argv[2]) + float(sys.argv[3]), exit=True)

import argparse
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import parts
import torch
from sizes import FULL, TINY

type Found = dict[str, Any]


def main() -> None:
    """Take the steps of a part, and write what is known after each."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("seconds", type=float)
    parser.add_argument("grace", type=float)
    parser.add_argument("result", type=Path)
    for name in ("--data", "--work", "--out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--device", default="")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    options = parser.parse_args()
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    sizes = TINY if options.tiny else FULL
    context = parts.Context(sizes, options.data, options.work, options.out, device)
    if options.eager:
        parts.refuse_graphs()
    found: Found = {"machine": _machine(device)}
    failed = []

    def left() -> float:
        return options.seconds - (time.monotonic() - began)

    for name, step in _steps(options.part, context, left):
        try:
            found[name] = step() if left() > 0.0 else {"skipped": "no time was left"}
        except Exception as error:  # one step must not end the others
            traceback.print_exc()
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
            failed.append(name)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
        if failed:
            found["failed"] = ", ".join(failed)
        options.result.write_text(json.dumps(found), encoding="utf-8")


def _steps(
    part: str, context: parts.Context, left: Callable[[], float]
) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Yield the steps of a part and their names, in order."""
    if part == "speed":
        yield from parts.speeds(context)
    elif part == "training":
        whole = left()
        for name in context.sizes.stages:
            yield name, lambda name=name: parts.train_stage(context, name, left() - 0.12 * whole)
        yield "iterations", lambda: parts.evaluate_stages(context)
        yield "study", lambda: parts.study(context)
    else:
        yield "cells", lambda: parts.benchmark(context, left())
        yield "direct solvers", lambda: parts.direct(context)


def _machine(device: torch.device) -> Found:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "Python": platform.python_version(),
    }


if __name__ == "__main__":
    main()

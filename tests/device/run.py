"""All that needs an accelerator, in a given time, the most telling first.

    tests/device/run.sh --prepare     where DOLFINx is: write the data, some 50 MB
    tests/device/run.sh 540           where the accelerator is: no DOLFINx, no network

A run takes these parts in turn, each in a process of its own, and writes what it found before it
starts the next:

1. tests      the device against the CPU
2. speed      of the steps of training, with and without CUDA graphs and reduced precision
3. benchmark  learned and classical methods, as many cells as fit in a third of the time
4. training   the paper's protocol: the static stage, the dynamic one, iterations on unseen graphs
5. rest       the cells of the benchmark that are left

A part that fails or hangs is reported, and the next one starts; training then starts again without
CUDA graphs. Results go to the folder $OUT, at most eight files of 16 MB: summary.json,
benchmark.json, evaluation.json, log.txt, and archives of the stages. Copy benchmark.json and the
archives into the data folder, and the next run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import checkpoints

HERE = Path(__file__).parent
PARTS = ("tests", "speed", "benchmark", "training", "rest")
# The time that a part may take of the whole, and the time that is kept for what follows it.
SHARES = {"tests": 0.2, "speed": 0.1, "benchmark": 0.33}
KEPT = {"training": 0.03}
GRACE = 15.0  # seconds after its time in which a part may end by itself


def main() -> None:
    """Prepare, or run what fits into the given time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seconds", type=float, nargs="?", help="how long the run may take")
    parser.add_argument("--prepare", action="store_true", help="write the data and stop")
    parser.add_argument("--tiny", action="store_true", help="everything tiny, to try the script")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to run")
    parser.add_argument("--device", default="", help="cuda where there is one, else cpu")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder of the data")
    parser.add_argument("--work", type=Path, default=HERE / "runs", help="folder of the training")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", HERE / "out")), help="of results"
    )
    options = parser.parse_args()
    if options.prepare:
        from prepare import prepare

        prepare(options.data, tiny=options.tiny)
        return
    if options.seconds is None:
        parser.error("got no number of seconds; wanted how long the run may take, or --prepare")
    if not (options.data / "training.h5").exists():
        parser.error(
            f"got no training.h5 in {options.data}; prepare it, and bring the folder along"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "log.txt").open("a", encoding="utf-8") as log:
        _Run(options, log).run()


class _Run:
    """A run and its summary."""

    def __init__(self, options: argparse.Namespace, log: IO[str]) -> None:
        self.began = time.monotonic()
        self.options, self.log = options, log
        self.summary: dict[str, Any] = {}
        self.last_line = ""

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.options.seconds - (time.monotonic() - self.began)

    def run(self) -> None:
        """Take all parts in turn."""
        options, whole = self.options, self.options.seconds
        for message in checkpoints.unpack(options.data, options.work):
            self.say(message)
        kept = options.data / "benchmark.json"
        if kept.exists():
            shutil.copy(kept, options.out / "benchmark.json")
        for part in [part for part in PARTS if part in options.parts]:
            limit = min(SHARES.get(part, 1.0) * whole, self.left - KEPT.get(part, 0.0) * whole)
            if part == "tests":
                found = self.test(limit)
            elif part == "rest" and not self.is_unfinished:
                found = {"skipped": "nothing was left"}
            else:
                found = self.take(part, limit)
            if part == "training" and _broke(found) and self.left > 0.1 * whole:
                self.summary["training, with CUDA graphs"] = found
                limit = self.left - KEPT[part] * whole
                found = self.take(part, limit, "--eager")
            self.summary[part] = found
            self.summary["seconds"] = round(time.monotonic() - self.began, 1)
            text = json.dumps(self.summary, indent=1)
            (options.out / "summary.json").write_text(text + "\n", encoding="utf-8")
            if part == "training":
                checkpoints.pack(options.work, options.out)
        self.say("==== summary")
        for part, found in self.summary.items():
            for name, value in found.items() if isinstance(found, dict) else ():
                self.say(f"{part}: {name}: {json.dumps(value)}")

    @property
    def is_unfinished(self) -> bool:
        """Whether the benchmark may lack cells."""
        cells = self.summary.get("benchmark", {}).get("cells", {})
        return bool(cells.get("missing", True) or cells.get("failed"))

    def test(self, limit: float) -> dict[str, Any]:
        """Run the tests of the device, on the prepared data."""
        self.say(f"==== tests: {limit:.0f} of {self.left:.0f} seconds")
        began = time.monotonic()
        command = [
            sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(HERE),
            "--confcutdir", str(HERE), "-p", "no:cacheprovider", "--import-mode=importlib",
            "--durations=5", "-k", "products" if self.options.tiny else "",
            str(HERE / "test_accelerator.py"),
        ]  # fmt: skip
        os.environ["DEVICE_DATA"] = str(self.options.data)
        os.environ["DEVICE"] = self.options.device
        failed = self.wait_for(command, limit)
        return {
            "passed" if failed is None else "failed": self.last_line,
            "ended": failed,
            "seconds": round(time.monotonic() - began, 1),
        }

    def take(self, part: str, limit: float, *further: str) -> dict[str, Any]:
        """Run a part for so many seconds; returns what it found, and why it failed if it did."""
        if limit <= 0.0:
            return {"skipped": "no time was left"}
        self.say(f"==== {part}: {limit:.0f} of {self.left:.0f} seconds")
        options, began = self.options, time.monotonic()
        result = options.work / f"{part}.json"
        result.parent.mkdir(parents=True, exist_ok=True)
        result.unlink(missing_ok=True)
        grace = min(GRACE, max(self.left - limit, 1.0))
        command = [sys.executable, str(HERE / "part.py"), part, str(limit), str(grace), str(result)]
        command += ["--data", str(options.data), "--work", str(options.work)]
        command += ["--out", str(options.out), "--device", options.device, *further]
        command += ["--tiny"] if options.tiny else []
        failed = self.wait_for(command, limit + grace + 5.0)  # by then it has ended itself
        found: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
        if failed is not None:
            found["failed"] = failed
        return found | {"seconds": round(time.monotonic() - began, 1)}

    def wait_for(self, command: list[str], limit: float) -> str | None:
        """Run a command with its output in the log; returns why it failed, or None."""
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, **both) as process:
            end = threading.Timer(limit, process.kill)
            end.start()
            assert process.stdout is not None
            for line in process.stdout:
                self.last_line = line.strip() or self.last_line
                self.say(line.rstrip("\n"))
            process.wait()
            is_late = not end.is_alive()
            end.cancel()
        if process.returncode == 0:
            return None
        if is_late:
            return f"it was killed after {limit:.0f} seconds"
        return f"it ended with status {process.returncode}"

    def say(self, line: str) -> None:
        """Print a line, to the log as well."""
        print(line, flush=True)
        print(line, file=self.log, flush=True)


def _broke(found: dict[str, Any]) -> bool:
    """Return whether a stage of training failed, or never came to an end."""
    stages = [found.get(stage, {"failed": "never"}) for stage in checkpoints.STAGES]
    return "failed" in found and any("failed" in stage for stage in stages)


if __name__ == "__main__":
    main()

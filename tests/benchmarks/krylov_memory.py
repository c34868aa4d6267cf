"""Peak memory and time of one step of dynamic training, with and without checkpointing.

    python tests/benchmarks/krylov_memory.py             (five minutes on one core)

One step: the sine loss of the U-Net over m steps of FGMRES in float32, forward and backward. Prints
a Markdown table. Each case runs in a process of its own, whose peak of resident memory is that of
the step on top of torch itself; on CUDA it is the peak of what torch has allocated there.

Problems are written to a folder, n20.npz and so on, and read from there where they exist: a machine
without DOLFINx needs no more than that folder.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import torch
import torch.utils.checkpoint

import learning
import mixeddim as md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grids", type=int, nargs="+", default=[20, 32], help="cells n a side")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20], help="Krylov steps m")
    parser.add_argument("--batch", type=int, default=4, help="systems in a batch")
    parser.add_argument("--problems", type=Path, help="folder of problems; a temporary one if none")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # one case, in a process of its own
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(**json.loads(arguments.case))))
        return

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"batch {arguments.batch}, {torch.get_num_threads()} threads, {name}\n")
    print("n | m | checkpoints | peak memory, GiB | before the step, GiB | seconds")
    print("--- | --- | --- | --- | --- | ---")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.problems or Path(temporary)
        for n, m, checkpoint in product(arguments.grids, arguments.steps, (False, True)):
            path = write_problem(folder / f"n{n}.npz", n)
            case = {"path": str(path), "m": m, "batch": arguments.batch, "device": device}
            result = run(case | {"checkpoint": checkpoint})
            numbers = " | ".join(f"{result[key]:.2f}" for key in ("peak", "before", "seconds"))
            print(f"{n} | {m} | {'yes' if checkpoint else 'no'} | {numbers}", flush=True)


def write_problem(path: Path, num_cells: int) -> Path:
    """Write a problem of the paper regime, unless the file is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        box = md.create_box(num_cells)
        network = md.create_network(md.random_vascular_graph(40, 0.05, seed=0), box.spacing)
        system = md.assemble(box, network, md.Coefficients(sigma_3d=1.0))
        md.save_reduced(md.reduce(system), path)
    return path


def run(case: dict[str, object]) -> dict[str, float]:
    """Measure one case in a fresh process."""
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure(path: str, m: int, batch: int, device: str, checkpoint: bool) -> dict[str, float]:
    """Return the memory in GiB and the seconds of one step, after a short one to warm up."""
    systems = [md.load_reduced(path)] * batch
    tensors = learning.batch_systems(systems, torch.float32, device)
    torch.manual_seed(0)
    unet = learning.UNet().to(device)
    precondition = learning.UNetPreconditioner(unet).setup(systems, tensors)

    def step(num_steps: int) -> None:
        loss = learning.sine_loss(
            tensors, tensors.g, precondition, num_steps, checkpoint=checkpoint
        )
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()

    # The first checkpoint loads a part of torch that counts for 150 MB.
    torch.utils.checkpoint.checkpoint(torch.neg, tensors.g, use_reentrant=False)
    before = peak_memory(device)
    step(1)
    start = time.perf_counter()
    step(m)
    seconds = time.perf_counter() - start
    return {"peak": peak_memory(device), "before": before, "seconds": seconds}


def peak_memory(device: str) -> float:
    """Return the peak so far, in GiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()

"""Time assembly and solution on the processes there are.

    mpiexec -n 2 python -m mpi4py tests/benchmarks/processes.py --num-cells 96

Each line is a run, the last one the median: seconds on the clock and, in brackets, of the busiest
processor. Where other programs use the processors as well, the latter say more.
"""

import mixeddim._fenics

import argparse
import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

import learning
import mixeddim as md

WORLD = MPI.COMM_WORLD


def timed[Result](action: Callable[[], Result]) -> tuple[Result, tuple[float, float]]:
    """Return a result, and the time it took on the clock and of the busiest process."""
    WORLD.barrier()
    clock, processor = time.perf_counter(), time.process_time()
    result = action()
    processor = WORLD.allreduce(time.process_time() - processor, MPI.MAX)
    return result, (WORLD.allreduce(time.perf_counter() - clock, MPI.MAX), processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--num-cells", type=int, default=32, help="cells along each side of the box (32)")
    add("--num-nodes", type=int, default=200, help="nodes of the random network (200)")
    add("--method", default="krylov", help="or reduced, direct, learned (krylov)")
    add("--repeat", type=int, default=3, help="runs (3)")
    args = parser.parse_args()
    graph = md.random_vascular_graph(args.num_nodes, 0.05, seed=0)

    def mesh() -> tuple[md.StructuredBox, md.Network]:
        box = md.create_box(args.num_cells)
        return box, md.create_network(graph, box.spacing)

    def assemble() -> md.CoupledSystem:
        system = md.assemble(box, network, md.Coefficients(sigma_3d=1.0))
        _ = system.A_0, system.Pi, system.N, system.A_11, system.b_3
        return system

    def solve(system: md.CoupledSystem) -> int:
        """Compute both fields and return the iterations."""
        if args.method != "learned":
            return md.solve(system, args.method).iterations
        reduced = md.reduce(system)
        result = learning.solve(reduced, learning.load_pretrained("multigrid"))
        assert result.converged
        reduced.back_substitute(result.x)
        return result.iterations

    (box, network), meshes = timed(mesh)
    runs = []
    for _ in range(args.repeat):
        system, assembled = timed(assemble)
        iterations, solved = timed(lambda system=system: solve(system))
        runs.append((*assembled, *solved))
        report("run", runs[-1])
    if WORLD.rank == 0:
        print(f"meshes {meshes[0]:.1f} s ({meshes[1]:.1f} s), {iterations} iterations")
    report(f"{WORLD.size} processes, {args.num_cells} cells, medians", np.median(runs, axis=0))


def report(name: str, seconds: tuple[float, ...]) -> None:
    """Print the times of one run."""
    if WORLD.rank == 0:
        texts = [f"{seconds[i]:.2f} s ({seconds[i + 1]:.2f} s)" for i in (0, 2)]
        print(f"{name}: assembly {texts[0]}, solution {texts[1]}", flush=True)


if __name__ == "__main__":
    main()

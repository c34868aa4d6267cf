"""Time assembly and solution on the processes there are.

    mpiexec -n 2 python -m mpi4py tests/benchmarks/processes.py --num-cells 96

Each line is a run; the median of the slowest process's times is the last one.
"""

import mixeddim._fenics

import argparse
import time

import numpy as np
from mpi4py import MPI

import mixeddim as md

WORLD = MPI.COMM_WORLD


def seconds(start: float) -> float:
    """Return the time since a start, of the slowest process."""
    return WORLD.allreduce(time.perf_counter() - start, MPI.MAX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--num-cells", type=int, default=32, help="cells along each side of the box (32)")
    add("--num-nodes", type=int, default=200, help="nodes of the random network (200)")
    add("--method", default="reduced", help="or direct, krylov (reduced)")
    add("--repeat", type=int, default=3, help="runs (3)")
    args = parser.parse_args()
    graph = md.random_vascular_graph(args.num_nodes, 0.05, seed=0)
    start = time.perf_counter()
    box = md.create_box(args.num_cells)
    network = md.create_network(graph, box.spacing)
    meshes, runs = seconds(start), []
    for _ in range(args.repeat):
        WORLD.barrier()
        start = time.perf_counter()
        system = md.assemble(box, network, md.Coefficients(sigma_3d=1.0))
        _ = system.A_33, system.A_31, system.A_13, system.A_11, system.b_3
        assembled = seconds(start)
        WORLD.barrier()
        start = time.perf_counter()
        solution = md.solve(system, args.method)
        runs.append((assembled, seconds(start)))
        if WORLD.rank == 0:
            print(f"assemble {runs[-1][0]:.2f} s, solve {runs[-1][1]:.2f} s", flush=True)
    if WORLD.rank == 0:
        first, second = np.median(runs, axis=0)
        print(
            f"{WORLD.size} processes, {args.num_cells} cells, {solution.iterations} iterations: "
            f"meshes {meshes:.1f} s, assemble {first:.2f} s, solve {second:.2f} s (medians)"
        )


if __name__ == "__main__":
    main()

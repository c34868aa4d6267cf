"""Program: solve a reduced system again and again on the processes there are.

    mpiexec -n 3 python -m mpi4py tests/parallel/reuse.py

Prints a JSON object: iterations without and with guesses, and weighted sums of solutions.
"""

import mixeddim._fenics

import json

import numpy as np
from mpi4py import MPI

import learning
import mixeddim as md
from learning.preconditioners.multigrid import geometric, grids

WORLD = MPI.COMM_WORLD

# Grids of a few thousand nodes lie in boxes too, so that small problems have several of these.
grids.MOST_WHOLE = 300
geometric.MOST_COARSE_NODES = 300


def main() -> None:
    box = md.create_box(12)
    network = md.create_network(md.random_vascular_graph(40, radius=0.05, seed=7), box.spacing)
    coefficients = md.Coefficients(sigma_3d=1.0, f_3d=lambda x: x[0])
    reduced = md.reduce(md.assemble(box, network, coefficients))
    assert reduced.grid is not None
    index = np.array(np.unravel_index(reduced.grid.node_of_dof, reduced.grid.shape))
    wave = np.cos(np.array([0.3, 0.5, 0.7]) @ index)
    b_3 = np.stack([reduced.b_3, wave / 1000.0, 1e100 * reduced.b_3])
    b_1 = np.stack([reduced.b_1, 0 * reduced.b_1, -1e100 * reduced.b_1])
    found = {}
    for name, M in {
        "multigrid": learning.GeometricMultigrid(),
        "jacobi": learning.Jacobi(),
    }.items():
        solver = learning.Solver(reduced, M)
        block = solver.solve(b_3, b_1, rtol=1e-10)
        again = solver.solve(b_3, b_1, initial_guess=block.x, rtol=1e-9)
        near = solver.solve(initial_guess=block.x[0] + 1e-4 * wave)
        assert all(result.converged for result in (block, again, near))
        for row, (load, network_load) in enumerate(zip(b_3, b_1, strict=True)):
            g = reduced.condense(load, network_load)
            residual = reduced.processes.norm(g - reduced.S @ block.x[row])
            assert residual <= 1.01e-10 * reduced.processes.norm(g), (name, row)
        u_1d = reduced.back_substitute(block.x, b_1)
        units = np.array([1.0, 1.0, 1e100])
        found[name] = {
            "iterations": np.argmax(
                block.residual_norms < 1e-6 * block.residual_norms[0], 0
            ).tolist(),
            "again": again.iterations.tolist(),
            "near": near.iterations,
            "sums": (reduced.processes.add((block.x * wave).sum(axis=1)) / units).tolist(),
            "network": (u_1d.sum(axis=1) / units).tolist(),
        }
    if WORLD.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()

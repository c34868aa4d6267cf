"""Cost of gradients and Hessian-vector products, in solves of kept set-up.

    OMP_NUM_THREADS=1 python tests/benchmarks/estimation.py 16 32

prints for each number of cells and each parameter the processor time of set-up, of one solve, and
of gradient and Hessian-vector product as multiples of that solve: medians of five, interleaved.
"""

import sys
import time

import numpy as np
import torch

import learning
import mixeddim as md

NAMES = ("permeability", "k_1d", "f_1d", "k_3d", "sigma_3d", "f_3d", "given_1d")


def timed(action, seconds: list[float]):
    start = time.process_time()
    result = action()
    seconds.append(time.process_time() - start)
    return result


def measure(system: md.CoupledSystem, name: str) -> None:
    solve = learning.DifferentiableSolve(
        md.parametrise(system, name), learning.load_pretrained("multigrid")
    )
    value = torch.ones(solve.system.sizes[name], dtype=torch.float64, requires_grad=True)
    direction = torch.ones_like(value)
    solves, gradients, products = [], [], []
    solve({name: value})  # loads compiled code
    solve._solver = None
    first = []
    timed(lambda: solve({name: value}), first)
    for _ in range(5):
        u_3d, _ = timed(lambda: solve({name: value}), solves)
        [g] = timed(
            lambda u=u_3d: torch.autograd.grad((u**2).sum(), value, create_graph=True), gradients
        )
        timed(lambda g=g: torch.autograd.grad(g @ direction, value), products)
    set_up = first[0] - np.median(solves)
    gradient, product = (np.median(np.divide(t, solves)) for t in (gradients, products))
    solve_ms = 1e3 * np.median(solves)
    print(f"{name:14}  {1e3 * set_up:9.0f}  {solve_ms:9.0f}  {gradient:8.2f}  {product:8.2f}")


def main() -> None:
    for num_cells in map(int, sys.argv[1:] or ["16"]):
        box = md.create_box(num_cells)
        network = md.create_network(md.random_vascular_graph(56, 0.03, seed=0), box.spacing)
        system = md.assemble(box, network, md.Coefficients(k_3d=0.02, sigma_3d=1.0, k_1d=10.0))
        print(f"{num_cells} cells per side, {len(network.graph.edges)} vessels")
        print(f"{'parameter':14}  set-up ms   solve ms  gradient   product")
        for name in NAMES:
            measure(system, name)


if __name__ == "__main__":
    main()

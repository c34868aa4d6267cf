"""How much a set-up that is paid once saves: one CPU core, processor time, medians in turns.

    OMP_NUM_THREADS=1 python tests/benchmarks/reuse.py assembly 40
    OMP_NUM_THREADS=1 python tests/benchmarks/reuse.py solves 20
    OMP_NUM_THREADS=1 python tests/benchmarks/reuse.py networks 40

The first compares `md.assemble` with `with_network` and `with_coefficients`, each followed by
`md.reduce`. The second compares a solve with its own set-up, with one that was kept, and as one of
32 right-hand sides in a block. The third solves for 50 networks in one tissue, with a set-up of its
own for each, and with the part of the tissue shared. GAMG has no part of the network where it
coarsens A_0 alone, once for all. The problem has 40 nodes and a k_3d(x) of contrast 100.
"""

import mixeddim._fenics

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import ufl

import learning
import mixeddim as md
from learning.petsc import PetscPreconditioner
from learning.systems.tissue import _TISSUES

NUM_ROUNDS = 5
NUM_RIGHT_HAND_SIDES = 32
PRECONDITIONERS = {
    "fast diagonalisation": learning.FastDiagonalisation(),
    "multigrid, degree 2": learning.GeometricMultigrid(degree=2),
    "learned multigrid": learning.load_pretrained("multigrid"),
}


def k_3d(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
    return ufl.exp(2.3 * ufl.sin(6 * x[0]) * ufl.cos(5 * x[1]))


def medians(ways: Sequence[Callable[[], object]]) -> list[float]:
    """Return the processor time of each way in ms, all in turns after one round that counts not."""
    times = []
    for _ in range(NUM_ROUNDS + 1):
        row = []
        for way in ways:
            start = time.process_time()
            way()
            row.append(1e3 * (time.process_time() - start))
        times.append(row)
    return np.median(times[1:], axis=0).tolist()


def networks(box: md.StructuredBox, number: int) -> list[md.Network]:
    graphs = [md.random_vascular_graph(40, radius=0.05, seed=seed) for seed in range(number)]
    return [md.create_network(graph, box.spacing) for graph in graphs]


def compare_assembly(num_cells: int) -> None:
    box = md.create_box(num_cells)
    one, other = networks(box, 2)
    base = {"k_3d": k_3d, "sigma_3d": 1.0}
    system = md.assemble(box, one, md.Coefficients(**base))
    print(f"{'what changes':<14} assembled anew   reused   ratio")
    for name, network, changed in (
        ("network", other, {}),
        ("permeability", one, {"permeability": 2.0}),
        ("f_3d", one, {"f_3d": 2.0}),
        ("sigma_3d", one, {"sigma_3d": 2.0}),
        ("k_3d", one, {"k_3d": k_3d}),
    ):

        def anew(network=network, changed=changed) -> object:
            return md.reduce(md.assemble(box, network, md.Coefficients(**(base | changed))))

        def reused(network=network, changed=changed) -> object:
            if network is one:
                return md.reduce(system.with_coefficients(**changed))
            return md.reduce(system.with_network(network))

        first, second = medians([anew, reused])
        print(f"{name:<14} {first:>11.0f} ms {second:>5.0f} ms {second / first:>7.2f}", flush=True)


def solve_anew(system: md.ReducedSystem, M: learning.Preconditioner, *, check: bool) -> object:
    """Solve without what an earlier solve made of the tissue."""
    _TISSUES.clear()
    return learning.solve(system, M, check=check)


def compare_solves(num_cells: int) -> None:
    box = md.create_box(num_cells)
    [network] = networks(box, 1)
    coefficients = md.Coefficients(k_3d=k_3d, sigma_3d=1.0)
    reduced = md.reduce(md.assemble(box, network, coefficients))
    rng = np.random.default_rng(0)
    block = rng.standard_normal((NUM_RIGHT_HAND_SIDES, len(reduced.b_3)))
    single = replace(reduced, b_3=block[0])
    print(f"{'ms per right-hand side':<38}    alone     kept  of a block")
    for name, M in PRECONDITIONERS.items():
        for check in (False, True):
            solver = learning.Solver(reduced, M)
            alone, kept, together = medians(
                [
                    lambda M=M, check=check: solve_anew(single, M, check=check),
                    lambda s=solver, check=check: s.solve(block[0], check=check),
                    lambda s=solver, check=check: s.solve(block, check=check),
                ]
            )
            part = together / len(block)
            label = f"{name}, {'fields checked' if check else 'residual only'}"
            print(f"{label:<38} {alone:>8.1f} {kept:>8.1f} {part:>8.1f}", flush=True)


class KeptGAMG:
    """PETSc's GAMG of A_0, coarsened once for all networks."""

    is_linear = is_symmetric = True

    def __init__(self) -> None:
        self.kept: Callable[[torch.Tensor], torch.Tensor] | None = None

    def setup(
        self, systems: Sequence[md.ReducedSystem], batch: learning.SystemBatch
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        if self.kept is None:
            alone = replace(systems[0], beta=0.0 * systems[0].beta)
            self.kept = PetscPreconditioner("gamg").setup([alone], batch)
        return self.kept


def compare_networks(num_cells: int, permeability: float, number: int) -> None:
    """Print, for each method, a solve per network: set-up anew, set-up shared, and iterations."""
    box = md.create_box(num_cells)
    first, *others = networks(box, number)
    coefficients = md.Coefficients(k_3d=k_3d, sigma_3d=1.0, permeability=permeability)
    system = md.assemble(box, first, coefficients)
    systems = [md.reduce(s) for s in (system, *map(system.with_network, others))]
    kept_gamg = KeptGAMG()
    single = torch.float32
    methods = {
        "fast diagonalisation": (learning.FastDiagonalisation(),) * 2,
        "multigrid, degree 1": (learning.GeometricMultigrid(dtype=single),) * 2,
        "multigrid, degree 3": (learning.GeometricMultigrid(degree=3, dtype=single),) * 2,
        "multigrid, fourth kind 3": (
            learning.GeometricMultigrid(degree=3, dtype=single, polynomial="fourth_kind"),
        )
        * 2,
        "PETSc's GAMG": (PetscPreconditioner("gamg"), kept_gamg),
        "learned multigrid": (learning.load_pretrained("multigrid"),) * 2,
    }
    times: dict[str, list[list[float]]] = {name: [] for name in methods}
    for reduced in systems:
        for name, (anew, shared) in methods.items():
            row = []
            # Without the tissue's part, which the second of both finds.
            _TISSUES.clear()
            for M in (anew, shared):
                start = time.process_time()
                result = learning.solve(reduced, M, check=False)
                row.append(1e3 * (time.process_time() - start))
                assert result.converged
            times[name].append([*row, result.iterations])
    print(f"{number} networks, permeability {permeability:g}, ms per network", flush=True)
    print(f"{'':<26} set-up anew   shared   iterations   shared, learned / this")
    found = {name: np.median(rows[1:], axis=0) for name, rows in times.items()}
    learned = found["learned multigrid"][1]
    for name, (anew_ms, shared_ms, iterations) in found.items():
        ratio = learned / shared_ms
        print(
            f"{name:<26} {anew_ms:>8.1f} {shared_ms:>11.1f} {iterations:>9.0f} {ratio:>15.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a set-up that is paid once saves.")
    parser.add_argument("what", choices=["assembly", "solves", "networks"])
    parser.add_argument("num_cells", type=int)
    parser.add_argument("--networks", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "networks":
        for permeability in (1.0, 1e3):
            compare_networks(args.num_cells, permeability, args.networks)
        return
    compare = {"assembly": compare_assembly, "solves": compare_solves}[args.what]
    compare(args.num_cells)


if __name__ == "__main__":
    main()

"""Cost of large networks and fine grids, on jittered lattices of thin vessels.

    python tests/benchmarks/scaling.py [SECTION ...]       (all: about an hour, at most 16 GiB)

Sections: `peers` (the learned multigrid beside md.solve), `growth` (exponents in the number of
vessels and of unknowns), `large` (n = 128 with 200,000 vessels), `dense` (the benchmark's
`dense_1000` beside `paper`). CPU seconds on one thread, each case in a process of its own; memory
is the peak of that process. Prints Markdown tables.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

SECTIONS = ("peers", "growth", "large", "dense")
# Nodes of the lattice along each side: 3 m² (m - 1) vessels.
PEERS = ((32, 15), (64, 25))
VESSELS = (8, 12, 18, 26, 33)  # 1,344 to 104,544 vessels
CELLS = (24, 32, 48, 64, 96)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", choices=SECTIONS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case = json.loads(arguments.case)
        print(json.dumps(CASES[case.pop("kind")](**case)))
        return
    for section in arguments.sections or SECTIONS:
        {"peers": peers, "growth": growth, "large": large, "dense": dense}[section]()


# --- Sections ---------------------------------------------------------------------------------


def peers() -> None:
    print(
        "\n| n, vessels, k_3d | method | CPU s (iterations) | peak GiB |\n| --- | --- | --- | --- |"
    )
    for num_cells, nodes in PEERS:
        for k_3d in (1.0, 1e-3):
            for method in ("learned", "krylov", "reduced"):
                case = {"num_cells": num_cells, "nodes": nodes, "k_3d": k_3d, "method": method}
                found = run("solved", **case)
                print(
                    f"| {num_cells}, {vessels(nodes):,}, {k_3d:g} | {method} | "
                    f"{found['result']} | {found['memory']:.2f} |",
                    flush=True,
                )


def growth() -> None:
    print("\n| n | vessels | assembly | set-up | solve | iterations | peak GiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    by_vessels = [row(48, nodes) for nodes in VESSELS]
    by_cells = [row(num_cells, 12) for num_cells in CELLS]
    for name, sizes, rows in (
        ("vessels", [vessels(nodes) for nodes in VESSELS], by_vessels),
        ("unknowns", [(n + 1) ** 3 for n in CELLS], by_cells),
    ):
        exponents = {part: exponent(sizes, [r[part] for r in rows]) for part in PARTS}
        print(f"exponents in {name}: ", exponents, flush=True)
    model(by_vessels + by_cells)


def model(rows: list[dict[str, float]]) -> None:
    """Fit costs that are linear in unknowns and in vessels, and print what a larger case takes.

    The tissue is shared out over the processes, the network is whole on each.
    """
    import numpy as np
    from scipy.optimize import nnls

    sizes = np.array([[1.0, r["unknowns"], r["vessels"]] for r in rows])
    costs = {}
    for part in (*PARTS, "memory"):
        values = np.array([r[part] for r in rows])
        # Each case counts by its relative error.
        costs[part], _ = nnls(sizes / values[:, None], np.ones(len(rows)))
        _, unknown, vessel = costs[part]
        unit = "byte" if part == "memory" else "microseconds"
        factor = 2**30 if part == "memory" else 1e6
        print(f"{part}: {factor * unknown:.3g} {unit} an unknown, {factor * vessel:.3g} a vessel")
    for processes in (64, 256):
        found = {
            part: constant + 513**3 * unknown / processes + 1e6 * vessel
            for part, (constant, unknown, vessel) in costs.items()
        }
        print(f"512³ cells, 10⁶ vessels, {processes} processes (s, GiB each): ", found)


PARTS = ("assembly", "set-up", "solve")


def row(num_cells: int, nodes: int) -> dict[str, float]:
    found = run("parts", num_cells=num_cells, nodes=nodes, k_3d=1.0)
    found |= {"unknowns": (num_cells + 1) ** 3, "vessels": vessels(nodes)}
    times = " | ".join(f"{found[part]:.2f}" for part in PARTS)
    print(
        f"| {num_cells} | {vessels(nodes):,} | {times} | {found['iterations']} | "
        f"{found['memory']:.2f} |",
        flush=True,
    )
    return found


def exponent(sizes: list[int], times: list[float]) -> float:
    """Return the slope of a line through the logarithms, by least squares."""
    import numpy as np

    return round(float(np.polyfit(np.log(sizes), np.log(times), 1)[0]), 2)


def large() -> None:
    print("\nn = 128, 200,000 vessels:")
    for k_3d in (1.0, 1e-3):
        print(k_3d, run("parts", num_cells=128, nodes=41, k_3d=k_3d), flush=True)


def dense() -> None:
    print("\n| regime, 20 cells | set-up and solve, CPU ms, median of 5 systems | iterations |")
    print("| --- | --- | --- |")
    for name in ("paper", "dense_1000"):
        found = run("regime_time", name=name)
        print(f"| {name} | {1e3 * found['seconds']:.0f} | {found['iterations']} |", flush=True)


def vessels(nodes: int) -> int:
    return 3 * nodes**2 * (nodes - 1)


# --- Cases, each in a process of its own ------------------------------------------------------


def run(kind: str, **case: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", json.dumps({"kind": kind, **case})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def lattice(nodes: int, seed: int = 0):
    """Return a jittered lattice in the unit cube, radii 0.1 to 0.15 of its cell."""
    import networkx as nx
    import numpy as np

    rng, spacing = np.random.default_rng(seed), 1.0 / nodes
    index = np.indices((nodes,) * 3).reshape(3, -1).T
    positions = (index + 0.5 + rng.uniform(-0.3, 0.3, index.shape)) * spacing
    number = np.arange(nodes**3).reshape((nodes,) * 3)
    pairs = [
        np.stack([np.delete(number, -1, axis).ravel(), np.delete(number, 0, axis).ravel()], axis=1)
        for axis in range(3)
    ]
    edges = np.concatenate(pairs)
    radii = rng.uniform(0.1, 0.15, len(edges)) * spacing
    graph = nx.Graph()
    graph.add_nodes_from(
        (i, {"pos": tuple(x), "inlet": i % nodes**2 == 0}) for i, x in enumerate(positions.tolist())
    )
    graph.add_edges_from(
        (u, v, {"radius": r}) for (u, v), r in zip(edges.tolist(), radii.tolist(), strict=True)
    )
    return graph


def assembled(num_cells: int, nodes: int, k_3d: float):
    import mixeddim as md

    md.assemble(md.create_box(2), md.create_network(lattice(2), 0.5), md.Coefficients(), outside="renormalise")  # fmt: skip  # noqa: E501
    graph, start = lattice(nodes), time.process_time()
    box = md.create_box(num_cells)
    network = md.create_network(graph, box.spacing)
    coefficients = md.Coefficients(k_3d=k_3d, sigma_3d=1.0)
    system = md.assemble(box, network, coefficients, outside="renormalise")
    reduced = md.reduce(system)
    return system, reduced, time.process_time() - start


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def solved(num_cells: int, nodes: int, k_3d: float, method: str) -> dict[str, object]:
    """Time one solver, of two runs the faster, from the assembled system to both fields."""
    import learning
    import mixeddim as md

    system, _, _ = assembled(num_cells, nodes, k_3d)
    preconditioner = learning.load_pretrained("multigrid")
    times, iterations = [], 0
    for _ in range(2):
        for name in ("A_0", "A_33", "A_31", "A_13"):
            vars(system).pop(name, None)
        start = time.process_time()
        if method == "learned":
            reduced = md.reduce(system)
            result = learning.solve(reduced, preconditioner)
            reduced.back_substitute(result.x)
            iterations = result.iterations
        else:
            try:
                iterations = md.solve(system, method, rtol=1e-6).iterations
            except RuntimeError as error:
                return {"result": f"refused: {str(error)[:70]}", "memory": memory()}
        times.append(time.process_time() - start)
    return {"result": f"{min(times):.2f} ({iterations})", "memory": memory()}


def parts(num_cells: int, nodes: int, k_3d: float) -> dict[str, float]:
    """Time assembly, set-up and solve of the learned multigrid."""
    import torch

    import learning
    from learning.krylov.conjugate_gradients import cg

    _, reduced, assembly = assembled(num_cells, nodes, k_3d)
    preconditioner = learning.load_pretrained("multigrid")
    with torch.no_grad():
        start = time.process_time()
        batch = learning.batch_systems([reduced])
        M = preconditioner.setup([reduced], replace(batch, kept={}))
        ready = time.process_time()
        result = cg(batch.apply, batch.g, M, rtol=1e-6)
        done = time.process_time()
    return {
        "assembly": assembly, "set-up": ready - start, "solve": done - ready,
        "iterations": int(result.iterations[0]), "memory": memory(),
    }  # fmt: skip


def regime_time(name: str) -> dict[str, float]:
    import learning
    from learning.benchmark.regimes import regime
    from learning.problems.generation import generate

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problems.pt"
        problems = [*generate(regime(name, 20), 6, 7, path, processes=1, progress=False)]
    preconditioner = learning.load_pretrained("multigrid")
    times, iterations = [], 0
    for problem in problems:
        start = time.process_time()
        result = learning.solve(problem.reduced, preconditioner)
        times.append(time.process_time() - start)
        iterations = max(iterations, result.iterations)
    return {"seconds": median(times[1:]), "iterations": iterations}


CASES: dict[str, Callable[..., dict]] = {
    "solved": solved,
    "parts": parts,
    "regime_time": regime_time,
}

if __name__ == "__main__":
    main()

"""Cost of assembling coupled problems, beside the package fenicsx-ii on the same case.

    python tests/benchmarks/coupling.py             (about six minutes)

Prints CPU seconds, medians of warm runs, as a Markdown table; then the time to generate the
problems of a training set on all cores, and the memory of a large problem.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import mixeddim as md

RADIUS = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=600, help="size of the training set")
    parser.add_argument("--repeat", type=int, default=3, help="warm runs of each measurement")
    arguments = parser.parse_args()

    print("CPU seconds | Pi | Pi and the four blocks\n--- | --- | ---")
    for num_cells in (20, 40):
        tissue, network = thousand_segments(num_cells)
        segments = len(network.edge_of_cell)
        ours = time_mixeddim(tissue, network, arguments.repeat)
        theirs = time_fenicsx_ii(tissue, network, arguments.repeat)
        case = f"{segments} segments, n = {num_cells}"
        for name, times in (("mixeddim", ours), ("fenicsx-ii 0.9.0", theirs)):
            print(f"{name}, {case} | {times[0]:.3f} | {times[1]:.3f}")
        print(f"ratio | {theirs[0] / ours[0]:.0f} | {theirs[1] / ours[1]:.0f}", flush=True)

    cores = os.cpu_count() or 1
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        sizes = pool.map(reduced_problem, range(arguments.problems), chunksize=10)
        pool.close()
        pool.join()
    wall = time.perf_counter() - start
    print(f"\n{len(sizes)} reduced problems, n = 20, {cores} processes: {wall:.0f} s")

    code = (
        "import mixeddim as md, resource\n"
        "box = md.create_box(64)\n"
        "graph = md.random_vascular_graph(40, 0.05, seed=0)\n"
        "network = md.create_network(graph, box.spacing)\n"
        "system = md.assemble(box, network, md.Coefficients(sigma_3d=1.0))\n"
        "solution = md.solve(system, 'reduced', rtol=1e-10)\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20\n"
        "print(f'n = 64: {len(system.b_3)} unknowns, {solution.iterations} iterations, '\n"
        "      f'peak memory {peak:.2f} GiB')\n"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    print(f"n = 64: {time.perf_counter() - start:.0f} s in all, start of Python included")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process: {own:.2f} GiB")


def thousand_segments(num_cells: int) -> tuple[md.StructuredBox, md.Network]:
    """Return a box, and a network whose mesh has about a thousand segments."""
    graph = md.random_vascular_graph(400, RADIUS, seed=0, method="spanning_tree")
    return md.create_box(num_cells), md.create_network(graph, 0.0555)


def reduced_problem(seed: int) -> int:
    """Generate one problem of the paper regime, from graph to reduced system."""
    box = md.create_box(20)
    network = md.create_network(md.random_vascular_graph(40, RADIUS, seed), box.spacing)
    reduced = md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0)))
    return len(reduced.g)


def time_mixeddim(
    tissue: md.StructuredBox, network: md.Network, repeat: int
) -> tuple[float, float]:
    coefficients = md.Coefficients(sigma_3d=1.0)

    def blocks() -> None:
        system = md.assemble(tissue, network, coefficients, bcs_1d=[])
        for block in (system.A_33, system.A_31, system.A_13, system.A_11):
            assert block.nnz

    system = md.assemble(tissue, network, coefficients, bcs_1d=[])
    points, cells = system.coupling.points, system.coupling.cells
    tangents = network.tangent.x.array.reshape(-1, 3)[cells]
    radii = network.radius.x.array[cells]

    from mixeddim.fem.averaging import average

    V = system.side_3d.V
    return (
        cpu_seconds(lambda: average(tissue, V, points, tangents, radii), repeat),
        cpu_seconds(blocks, repeat),
    )


def time_fenicsx_ii(
    tissue: md.StructuredBox, network: md.Network, repeat: int
) -> tuple[float, float]:
    import basix.ufl
    import fenicsx_ii
    import ufl
    from dolfinx.fem import Constant, functionspace

    V_3d, V_1d = functionspace(tissue.mesh, ("Lagrange", 1)), network.P1
    element = basix.ufl.quadrature_element(network.mesh.basix_cell(), degree=3)
    at_points = functionspace(network.mesh, element)
    circle = fenicsx_ii.Circle(network.mesh, RADIUS, degree=num_circle_points(tissue) * 2 - 1)
    u, p = ufl.TrialFunctions(ufl.MixedFunctionSpace(V_3d, V_1d))
    v, q = ufl.TestFunctions(ufl.MixedFunctionSpace(V_3d, V_1d))
    mean_u = fenicsx_ii.Average(u, circle, at_points)
    mean_v = fenicsx_ii.Average(v, circle, at_points)
    dx = ufl.Measure("dx", domain=tissue.mesh)
    ds = ufl.Measure("dx", domain=network.mesh, metadata={"quadrature_degree": 3})
    beta = Constant(network.mesh, 2 * 3.141592653589793 * RADIUS)
    form = ufl.inner(ufl.grad(u), ufl.grad(v)) * dx + u * v * dx
    form += ufl.inner(ufl.grad(p), ufl.grad(q)) * ds
    form += beta * (mean_u * mean_v - p * mean_v - mean_u * q + p * q) * ds
    return (
        cpu_seconds(
            lambda: fenicsx_ii.create_interpolation_matrix(V_3d, at_points, circle), repeat
        ),
        cpu_seconds(lambda: fenicsx_ii.assemble_matrix(form).assemble(), repeat),
    )


def num_circle_points(tissue: md.StructuredBox) -> int:
    import numpy as np

    stencil = md.CircleMean().stencil(
        np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]), np.array([RADIUS]), tissue.spacing
    )
    return len(stencil.weights)


def cpu_seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the median CPU time of some work, after one run that is not counted."""
    work()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()

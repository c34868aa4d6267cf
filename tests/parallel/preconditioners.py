"""Program: solve reduced systems with preconditioners on the processes there are.

    mpiexec -n 3 python -m mpi4py tests/parallel/preconditioners.py [PROBLEM ...]

Prints a JSON object: for each problem and preconditioner the iterations to 1e-6, the status, and
weighted sums of the solution.
"""

import mixeddim._fenics

import json
import sys
from collections.abc import Callable

import networkx as nx
import numpy as np
import ufl
from mpi4py import MPI
from petsc4py import PETSc

import learning
import mixeddim as md
from learning.petsc import PetscMultigrid, PetscPreconditioner, as_pc, schur_complement
from learning.preconditioners.multigrid import exchange, geometric, grids

WORLD = MPI.COMM_WORLD

# Grids of a few thousand nodes lie in boxes too, so that small problems have several of these.
grids.MOST_WHOLE = 300
geometric.MOST_COARSE_NODES = 300


def build(
    num_cells: tuple[int, int, int] | int,
    graph: nx.Graph | None = None,
    cell_type: str = "tetrahedron",
    bcs_3d: tuple[md.Dirichlet, ...] = (),
    **coefficients: object,
) -> md.ReducedSystem:
    box = md.create_box(num_cells, cell_type=cell_type)
    if graph is None:
        graph = md.random_vascular_graph(num_nodes=40, radius=0.05, seed=7)
    network = md.create_network(graph, box.spacing)
    values = md.Coefficients(**{"sigma_3d": 1.0, **coefficients})
    return md.reduce(md.assemble(box, network, values, bcs_3d=bcs_3d))


def corner() -> nx.Graph:
    graph = nx.Graph()
    graph.add_node(0, pos=(0.06, 0.05, 0.05), inlet=True)
    graph.add_node(1, pos=(0.09, 0.05, 0.05), inlet=False)
    graph.add_edge(0, 1, radius=0.03)
    return graph


def layers(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
    return ufl.conditional(x[0] > 0.5, 100.0, 1.0)


PROBLEMS: dict[str, Callable[[], md.ReducedSystem]] = {
    "paper": lambda: build(16),
    "odd cells, layers": lambda: build((15, 16, 11), k_3d=layers),
    "anisotropic": lambda: build(12, k_3d=np.diag([1.0, 1.0, 1e-2])),
    "oblique, hexahedra": lambda: build(
        12, cell_type="hexahedron", k_3d=[[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.0]]
    ),
    "strong exchange": lambda: build(12, permeability=1e4),
    "a network that follows": lambda: build(12, k_3d=1e-2, permeability=1e2, k_1d=1e-3),
    "given values": lambda: build(12, sigma_3d=0.0, bcs_3d=(md.Dirichlet(lambda x: x[2] < 1e-9),)),
    "corner": lambda: build(12, corner()),
    "few cells": lambda: build(4),
    "hardly held": lambda: build(12, sigma_3d=0.0, permeability=1e-7),
}
ALL = ("paper", "oblique, hexahedra", "few cells")
MANY_POINTS = ("paper", "strong exchange", "a network that follows")

PRECONDITIONERS: dict[str, learning.Preconditioner] = {
    "learned": learning.load_pretrained("multigrid"),
    "geometric": learning.GeometricMultigrid(degree=2),
    "l1_jacobi": learning.GeometricMultigrid("l1_jacobi"),
    "pcmg": PetscMultigrid(),
    "gamg": PetscPreconditioner("gamg"),
}


def sums(reduced: md.ReducedSystem, x: np.ndarray) -> list[float]:
    """Return sums of a tissue vector that weigh each node differently."""
    assert reduced.grid is not None
    index = np.array(np.unravel_index(reduced.grid.node_of_dof, reduced.grid.shape))
    weights = np.cos(np.array([[0.3, 0.5, 0.7], [1.1, 0.2, 0.1]]) @ index) + 1.5
    return reduced.processes.add(weights @ x / reduced.processes.norm(x)).tolist()


def steps(residual_norms: np.ndarray) -> int:
    """Return the number of iterations to 1e-6: those to the end depend on rounding."""
    return int(np.argmax(residual_norms <= 1e-6 * residual_norms[0]))


def in_a_ksp(reduced: md.ReducedSystem, M: learning.Preconditioner) -> dict[str, object]:
    """Solve by PETSc's conjugate gradients with a preconditioner of ours."""
    S = schur_complement(reduced)
    ksp = PETSc.KSP().create(S.comm)
    ksp.setOperators(S)
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-11)
    ksp.setConvergenceHistory()
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(as_pc(M, reduced))
    x, b = S.createVecs()
    b.setArray(reduced.g)
    ksp.solve(b, x)
    return {
        "iterations": steps(ksp.getConvergenceHistory()),
        "status": str(ksp.getConvergedReason() > 0),
        "sums": sums(reduced, x.getArray()),
    }


def solved(reduced: md.ReducedSystem, M: learning.Preconditioner) -> dict[str, object]:
    result = learning.solve(reduced, M, rtol=1e-11)
    return {
        "iterations": steps(result.residual_norms),
        "status": result.status.name,
        "sums": sums(reduced, result.x),
    }


def main() -> None:
    found = {}
    for name in sys.argv[1:] or PROBLEMS:
        reduced = PROBLEMS[name]()
        for kind, M in PRECONDITIONERS.items():
            if kind == "learned" or name in ALL:
                found[f"{name}: {kind}"] = solved(reduced, M)
        if name == "paper":
            found[f"{name}: learned, KSP"] = in_a_ksp(reduced, PRECONDITIONERS["learned"])
        if name in MANY_POINTS:
            few, exchange.MOST_FACTORED = exchange.MOST_FACTORED, 10
            found[f"{name}: learned, many points"] = solved(reduced, PRECONDITIONERS["learned"])
            exchange.MOST_FACTORED = few
    if WORLD.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()

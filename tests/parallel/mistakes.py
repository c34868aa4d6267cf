"""Program: make mistakes on several processes, and check that each of them gets the same message.

    mpiexec -n 3 python -m mpi4py tests/parallel/mistakes.py

A mistake that one process alone makes, or sees, is raised on all: none waits for the others.
"""

import mixeddim._fenics

import copy
import re
from collections.abc import Callable
from dataclasses import replace

import networkx as nx
import numpy as np
import ufl
from mpi4py import MPI
from petsc4py import PETSc

import learning
import mixeddim as md
from learning.petsc import PetscMultigrid, as_pc, schur_complement
from mixeddim.algebra.distributed import TissueMatrix

WORLD, ALONE = MPI.COMM_WORLD, MPI.COMM_SELF
IS_LAST = WORLD.rank == WORLD.size - 1


def vessel(x: float = 0.5, *, inlet: bool = True) -> nx.Graph:
    graph = nx.Graph()
    graph.add_node(0, pos=(x, 0.5, 0.2), inlet=inlet)
    graph.add_node(1, pos=(x, 0.5, 0.8), inlet=False)
    graph.add_edge(0, 1, radius=0.05)
    return graph


def build(
    graph: nx.Graph | None = None,
    box_comm: MPI.Comm = WORLD,
    network_comm: MPI.Comm = WORLD,
    bcs_3d: tuple[md.Dirichlet, ...] = (),
    bcs_1d: tuple[md.Dirichlet, ...] = (md.Dirichlet("inlets"),),
    **coefficients: object,
) -> md.CoupledSystem:
    box = md.create_box(4, comm=box_comm)
    network = md.create_network(graph or vessel(), 0.1, comm=network_comm)
    values = {"sigma_3d": 1.0, **coefficients}
    return md.assemble(box, network, md.Coefficients(**values), bcs_3d=bcs_3d, bcs_1d=bcs_1d)


def another_graph() -> md.CoupledSystem:
    return build(vessel(0.4 if IS_LAST else 0.5))


def broken_graph() -> md.CoupledSystem:
    graph = vessel()
    if IS_LAST:
        graph.edges[0, 1]["radius"] = -1.0
    return build(graph)


def marker(x: np.ndarray) -> np.ndarray:
    if IS_LAST:
        raise KeyError("a marker that fails on the last process")
    return x[0] < 0.1


def nan_in_a_corner(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
    return ufl.conditional(x[0] + x[1] + x[2] > 2.8, ufl.ln(-x[0]), 1.0)


def unheld() -> md.CoupledSystem:
    return build(bcs_1d=(), sigma_3d=0.0, f_3d=1.0)


def hardly_held() -> md.ReducedSystem:
    return md.reduce(build(sigma_3d=0.0, permeability=1e-14))


def singular(method: str) -> md.Solution:
    return md.solve(unheld(), method)


def with_nan(name: str = "b_3") -> md.ReducedSystem:
    reduced = md.reduce(build())
    part = copy.deepcopy(reduced.b_3 if name == "b_3" else reduced.K.rows)
    if IS_LAST:
        (part if name == "b_3" else part.data)[0] = np.nan
    changed = part if name == "b_3" else TissueMatrix(part, reduced.K.ownership)
    return replace(reduced, **{name: changed})


def set_up(preconditioner: learning.Preconditioner, comm: MPI.Comm = WORLD) -> None:
    pc = PETSc.PC().create(WORLD)
    pc.setOperators(schur_complement(md.reduce(build())))
    pc.setType("python")
    pc.setPythonContext(as_pc(preconditioner, md.reduce(build(None, comm, comm))))
    try:
        pc.setUp()
    except PETSc.Error as error:
        raise error.__cause__ or error from None


MISTAKES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "another graph on one process": (
        another_graph, md.NetworkError, "got another graph or segment length on some of",
    ),
    "no network on one process": (broken_graph, md.NetworkError, "has radius -1.0"),
    "box alone": (lambda: build(box_comm=ALONE), ValueError, "got a tissue on 1 processes"),
    "network alone": (
        lambda: build(network_comm=ALONE), ValueError, "and a network on 1; wanted both",
    ),
    "circles leave": (
        lambda: build(vessel(0.03)), ValueError, "12 of 12 circles leave the tissue",
    ),
    "marker fails": (
        lambda: build(bcs_3d=(md.Dirichlet(marker),)), KeyError, "fails on the last process",
    ),
    "no facet": (
        lambda: build(bcs_3d=(md.Dirichlet(lambda x: x[0] > 2),)), ValueError, "holds no facet",
    ),
    "NaN in a corner": (
        lambda: build(f_3d=nan_in_a_corner), ValueError, "got a source of the tissue",
    ),
    "singular, direct": (lambda: singular("direct"), md.SolverError, "may be off by"),
    "singular, reduced": (lambda: singular("reduced"), md.SolverError, "wanted"),
    "iterations": (
        lambda: md.solve(build(), "reduced", max_iterations=2), md.SolverError,
        "stopped after 2 iterations",
    ),
    "save": (
        lambda: md.save_reduced(md.reduce(build()), "never.npz"), NotImplementedError,
        "save_reduced needs one that lies whole on a process",
    ),
    "tensors": (
        lambda: md.to_torch(md.reduce(build())), NotImplementedError, "to_torch needs one",
    ),
    "a preconditioner of one process": (
        lambda: learning.solve(md.reduce(build()), learning.RugeStuben()), NotImplementedError,
        "RugeStuben needs one",
    ),
    "a guess of another size on one process": (
        lambda: learning.solve(
            other := md.reduce(build()), learning.Jacobi(),
            initial_guess=np.zeros(len(other.b_3) + (WORLD.rank == 1)),
        ), ValueError, "got initial_guess of shape",
    ),
    "a method of one process": (
        lambda: learning.solve(md.reduce(build()), learning.Jacobi(), "fgmres"),
        NotImplementedError, "fgmres needs one",
    ),
    "a preconditioner of one process in a KSP": (
        lambda: set_up(learning.FastDiagonalisation()), NotImplementedError,
        "FastDiagonalisation needs one",
    ),
    "a system of each process in a KSP of all": (
        lambda: set_up(learning.Jacobi(), ALONE), ValueError,
        "got a PC on 3 processes for a system on 1",
    ),
    "another order": (
        lambda: PetscMultigrid().create_pc(md.reduce(build())), ValueError,
        "wanted that of boxes",
    ),
    "singular, learned": (
        lambda: learning.solve(md.reduce(unheld()), learning.load_pretrained("multigrid")),
        ValueError, "got a system that is singular on its coarsest grid",
    ),
    "singular, PCMG": (
        lambda: learning.solve(hardly_held(), PetscMultigrid()), ValueError,
        "whose tissue block is singular on its coarsest grid",
    ),
    "NaN in K": (
        lambda: learning.solve(with_nan("K"), learning.GeometricMultigrid()), ValueError,
        "got NaN or infinity in K",
    ),
    "NaN on one process": (
        lambda: learning.solve(with_nan(), learning.Jacobi()), ValueError, "got NaN or infinity",
    ),
    "plot without a file": (
        lambda: md.plot(md.solve(build())), ValueError, "got no filename on",
    ),
    "file in a file": (
        lambda: md.write_outputs(md.solve(build()), __file__), OSError, "mistakes.py",
    ),
}  # fmt: skip


def main() -> None:
    for name, (make, kind, message) in MISTAKES.items():
        try:
            make()
        except kind as error:
            raised = re.sub("0x[0-9a-f]+", "", str(error))
        else:
            raised = "nothing"
        assert message in raised, (name, raised)
        assert WORLD.allgather(raised) == [raised] * WORLD.size, name
    # Each on its own: other problems on each process, as many as there are.
    alone = md.solve(build(vessel(0.4 + 0.01 * WORLD.rank), ALONE, ALONE))
    assert len({*WORLD.allgather(alone.mass_balance.exchange)}) == WORLD.size
    if WORLD.rank == 0:
        print(f"{len(MISTAKES)} mistakes")


if __name__ == "__main__":
    main()

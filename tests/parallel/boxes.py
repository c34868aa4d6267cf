"""Program: compare a hierarchy in boxes with that of the same system whole on each process.

mpiexec -n 2 python -m mpi4py tests/parallel/boxes.py
"""

import mixeddim._fenics

from collections.abc import Callable

import numpy as np
import torch
import ufl
from mpi4py import MPI

import learning
import mixeddim as md
from learning.petsc import PetscMultigrid
from learning.preconditioners.multigrid import geometric, grids
from learning.preconditioners.multigrid.geometric import Hierarchy, create_hierarchy
from learning.preconditioners.multigrid.smoothers import Polynomial
from learning.systems.boxes import Boxes, InBoxes, in_boxes
from learning.systems.operators import distributed_batch
from mixeddim.tensors import Processes

WORLD, ALONE = MPI.COMM_WORLD, MPI.COMM_SELF
grids.MOST_WHOLE = geometric.MOST_COARSE_NODES = 100

CASES: dict[str, dict[str, object]] = {
    "odd cells": {
        "num_cells": (11, 9, 10),
        "k_3d": lambda x: ufl.conditional(x[0] > 0.4, 20.0, 1.0),
    },
    "flat": {"num_cells": (12, 13, 2)},
    "hexahedra": {"num_cells": (8, 9, 11), "cell_type": "hexahedron", "k_3d": np.diag([1, 4, 9.0])},
    "anisotropic": {"num_cells": (12, 10, 9), "k_3d": np.diag([1.0, 1.0, 1e-2])},
}


def build(
    comm: MPI.Comm,
    num_cells: tuple[int, int, int],
    cell_type: str = "tetrahedron",
    **values: object,
) -> md.ReducedSystem:
    box = md.create_box(num_cells, cell_type=cell_type, comm=comm)
    graph = md.random_vascular_graph(num_nodes=20, radius=0.05, seed=3)
    network = md.create_network(graph, 0.1, comm=comm)
    return md.reduce(md.assemble(box, network, md.Coefficients(sigma_3d=1.0, **values)))


def check_order(reduced: md.ReducedSystem, boxes: InBoxes) -> None:
    shared = Boxes.of(reduced.grid.shape, reduced.processes)
    assert np.array_equal(shared.numbers(shared.nodes(np.arange(shared.ownership.total))),
                          np.arange(shared.ownership.total))  # fmt: skip
    values = np.cos(np.arange(np.prod(reduced.grid.shape)) ** 1.5)
    mine = values[reduced.grid.node_of_dof]
    assert np.array_equal(boxes.to_boxes(mine), values[boxes.system.grid.node_of_dof])
    assert np.array_equal(boxes.to_dofs(boxes.to_boxes(mine)), mine)
    there = boxes.to_dofs(boxes.system.S @ boxes.to_boxes(mine))
    assert np.allclose(there, reduced.S @ mine, rtol=0, atol=1e-12)


def compare(whole: Hierarchy, shared: Hierarchy) -> int:
    """Compare all matrices of all levels on the same vectors; return how many were in boxes."""
    num_shared = 0
    for level, other in zip(shared.levels, whole.levels, strict=True):
        index = level.operator.index
        num_shared += isinstance(level.operator, grids.GridInBoxes)

        def check(name: str, here: torch.Tensor, there: torch.Tensor, at: np.ndarray) -> None:
            there = there[:, at]
            assert (here - there).abs().max() <= 1e-12 * there.abs().max(), name

        v = torch.cos(torch.arange(other.like.shape[1], dtype=torch.float64) ** 1.5)[None]
        check("tissue", level.tissue(v[:, index]), other.tissue(v), index)
        check("exchange", level.exchange.apply(v[:, index]), other.exchange.apply(v), index)
        for S_0 in (Polynomial(1.6), Polynomial(1.6, inverts_coupling=False)):
            smooth, same = (part.smoother(S_0) for part in (level, other))
            check("smoother", smooth(v[:, index]), same(v), index)
        assert level.visits_next_twice == other.visits_next_twice
        restricted = other.prolong.T(v)
        position = next_index(shared, level)
        check("restriction", level.prolong.T(v[:, index]), restricted, position)
        check("P", level.prolong(restricted[:, position]), other.prolong(restricted), index)
    return num_shared


def next_index(hierarchy: Hierarchy, level: geometric.Level) -> np.ndarray:
    """Return which nodes of the grid after a level are here."""
    following = hierarchy.levels.index(level) + 1
    if following < len(hierarchy.levels):
        return hierarchy.levels[following].operator.index
    coarse = level.prolong.T(level.like.new_zeros(level.like.shape)).shape[1]
    return np.arange(coarse)


def dots(M: Callable[[torch.Tensor], torch.Tensor], boxes: InBoxes) -> None:
    """Check that a preconditioner is symmetric."""
    index, processes = boxes.system.grid.node_of_dof, boxes.system.processes
    u, v = (torch.from_numpy(np.cos((index + shift) ** 1.5))[None] for shift in (1, 2))
    one, other = (processes.sum(float((a * M(b)).sum())) for a, b in ((u, v), (v, u)))
    assert abs(one - other) <= 1e-12 * abs(one)


def main() -> None:
    num_shared = 0
    for values in CASES.values():
        alone, reduced = build(ALONE, **values), build(WORLD, **values)
        boxes = in_boxes(reduced)
        check_order(reduced, boxes)
        with torch.no_grad():
            batch = distributed_batch(boxes.system)
            whole = create_hierarchy([alone], learning.batch_systems([alone]), torch.float64)
            shared = create_hierarchy([boxes.system], batch, torch.float64)
            num_shared += compare(whole, shared)
            learned = learning.load_pretrained("multigrid")
            learned.model.double()
            dots(learned.setup([boxes.system], batch), boxes)
            pcmg = PetscMultigrid()
            v = torch.from_numpy(np.cos(boxes.system.grid.node_of_dof**1.5))[None]
            first, second = (pcmg.setup([boxes.system], batch)(v).clone() for _ in range(2))
            assert torch.allclose(first, second, rtol=1e-10, atol=0.0)
    # Fewer nodes along an axis than processes: some have none.
    tiny = build(WORLD, (1, 1, 1))
    iterations = learning.solve(tiny, learning.load_pretrained("multigrid")).iterations
    assert Processes(WORLD).max(iterations) == 1
    if WORLD.rank == 0:
        print(f"{num_shared} grids in boxes")


if __name__ == "__main__":
    main()

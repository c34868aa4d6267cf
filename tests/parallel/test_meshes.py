"""Meshes on two processes: the box is distributed, the network whole and the same on each."""

from collections.abc import Callable

PROGRAM = """
import numpy as np
import mixeddim as md
from mixeddim.fem.location import locate

box = md.create_box((4, 3, 5))
graph = md.random_vascular_graph(30, 0.05, seed=0)
network = md.create_network(graph, 0.1)
comm, mesh = network.comm, network.mesh
assert (comm.size, mesh.comm.size) == (2, 1)

ends = mesh.geometry.x[mesh.geometry.dofmaps[0]]
length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).sum()
assert abs(length - md.network_statistics(graph).total_length) < 1e-12
for array in (ends, network.P1.tabulate_dof_coordinates(), network.edge_of_cell):
    assert np.array_equal(comm.bcast(array), array)

points = np.random.default_rng(0).random((50, 3))
for tissue in (box, md.create_box((4, 3, 5), cell_type="hexahedron")):
    grid, x = tissue.grid(tissue.P1), tissue.P1.tabulate_dof_coordinates()
    nodes = np.stack(np.unravel_index(grid.node_of_dof, grid.shape), axis=1)
    assert np.allclose(grid.lower + grid.cell_size * nodes, x[: len(nodes)])
    assert comm.allreduce(len(nodes)) == 5 * 4 * 6
    assert comm.allreduce(int((locate(tissue, points).cells >= 0).sum())) == 50
print("done", flush=True)
"""


def test_the_box_is_distributed_and_the_network_whole(
    run_on_two_processes: Callable[[str], str],
) -> None:
    assert run_on_two_processes(PROGRAM).count("done") == 2

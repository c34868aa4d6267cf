"""Meshes on two processes: nothing of the network is lost, and assembly says that it is serial."""

from collections.abc import Callable

PROGRAM = """
import numpy as np
import mixeddim as md
from mixeddim.fem.location import locate

box = md.create_box((4, 3, 5))
graph = md.random_vascular_graph(30, 0.05, seed=0)
network = md.create_network(graph, 0.1)
comm, mesh = network.mesh.comm, network.mesh
assert comm.size == 2

num_owned = mesh.topology.index_map(1).size_local
ends = mesh.geometry.x[mesh.geometry.dofmaps[0][:num_owned]]
along = ends[:, 1] - ends[:, 0]
length = comm.allreduce(np.linalg.norm(along, axis=1).sum())
assert abs(length - md.network_statistics(graph).total_length) < 1e-12
tangents = network.tangent.x.array.reshape(-1, 3)[:num_owned]
assert np.allclose(np.linalg.norm(np.cross(along, tangents), axis=1), 0)

tags, num_vertices = network.vertex_tags, mesh.topology.index_map(0).size_local
inlets = tags.values[tags.indices < num_vertices] == md.VertexTag.INLET
assert comm.allreduce(int(inlets.sum())) == md.network_statistics(graph).num_inlets

points = np.random.default_rng(0).random((50, 3))
for tissue in (box, md.create_box((4, 3, 5), cell_type="hexahedron")):
    grid, x = tissue.grid(tissue.P1), tissue.P1.tabulate_dof_coordinates()
    nodes = np.stack(np.unravel_index(grid.node_of_dof, grid.shape), axis=1)
    assert np.allclose(grid.lower + grid.cell_size * nodes, x[: len(nodes)])
    assert comm.allreduce(len(nodes)) == 5 * 4 * 6
    assert comm.allreduce(int((locate(tissue, points).cells >= 0).sum())) == 50

try:
    md.assemble(box, network, md.Coefficients())
except NotImplementedError as error:
    assert "got a tissue mesh on 2 processes; assembly is serial for now" in str(error)
    print("refused", flush=True)
"""


def test_meshes_are_distributed_and_assembly_refuses_them(
    run_on_two_processes: Callable[[str], str],
) -> None:
    # Lines of two processes may run together.
    assert run_on_two_processes(PROGRAM).count("refused") == 2

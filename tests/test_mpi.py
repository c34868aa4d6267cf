"""Meshes on two processes: nothing of the network is lost, and assembly says that it is serial."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np
import mixeddim as md

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

grid, x = box.grid(box.P1), box.P1.tabulate_dof_coordinates()
nodes = np.stack(np.unravel_index(grid.node_of_dof, grid.shape), axis=1)
assert np.allclose(grid.lower + grid.cell_size * nodes, x[: len(nodes)])
assert comm.allreduce(len(nodes)) == 5 * 4 * 6

try:
    md.assemble(box, network, md.Coefficients())
except NotImplementedError as error:
    assert "got a tissue mesh on 2 processes; assembly is serial for now" in str(error)
    print("refused", flush=True)
"""


def test_meshes_are_distributed_and_assembly_refuses_them() -> None:
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which(
        "mpiexec"
    )
    if mpiexec is None:
        pytest.skip("no mpiexec beside this Python or on the PATH")
    result = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("refused") == 2  # lines of two processes may run together

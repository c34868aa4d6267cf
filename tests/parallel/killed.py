"""Write files, then solve again and lose a process in the middle of it.

mpiexec -n 2 python -m mpi4py killed.py FOLDER
"""

import os
import signal
import sys

import mixeddim as md

graph = md.random_vascular_graph(12, 0.05, seed=0)
box = md.create_box(6)
network = md.create_network(graph, box.spacing)
system = md.assemble(box, network, md.Coefficients(sigma_3d=1.0))
solution = md.solve(system, "reduced")
md.write_outputs(solution, sys.argv[1])
print("written", flush=True)
if network.comm.rank == network.comm.size - 1:
    os.kill(os.getpid(), signal.SIGKILL)
md.write_outputs(md.solve(system, "reduced"), sys.argv[1])
print("done", flush=True)

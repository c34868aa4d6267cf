"""Products of distributed matrices between levels, beside those of scipy, on three processes."""

from collections.abc import Callable

PROGRAM = """
import numpy as np
from mpi4py import MPI
from scipy import sparse
from mixeddim.algebra.distributed import FromTissue, Ownership, TissueMatrix, ToTissue
from mixeddim.algebra.interpolation import Interpolation
from mixeddim.processes import Processes

comm = MPI.COMM_WORLD
processes = Processes(comm)
fine, coarse = (Ownership.of(n[comm.rank], processes) for n in ((20, 5, 12), (0, 7, 4)))
rng = np.random.default_rng(0)

def drawn(*shape):
    return sparse.random_array(shape, density=0.2, rng=rng, format="csr")

def own(ownership):
    return slice(ownership.first, ownership.first + ownership.count)

A, P, E, Q = drawn(37, 37), drawn(37, 11), drawn(37, 6), drawn(37, 3)
here = own(fine)
a, p = TissueMatrix(A[here], fine), Interpolation(P[here], fine, coarse)
e, q = ToTissue(E[here], fine), ToTissue(Q[here], fine)
v, w = rng.random(37), rng.random(11)
close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-13)
close(p @ w[own(coarse)], (P @ w)[here])
close(p.T @ v[here], (P.T @ v)[own(coarse)])
close(p.T.T @ w[own(coarse)], (P @ w)[here])
close((a @ p).rows.toarray(), (A @ P)[here].toarray())
close((p.T @ (a @ p)).rows.toarray(), (P.T @ (A @ P))[own(coarse)].toarray())
close((p.T @ e).rows.toarray(), (P.T @ E)[own(coarse)].toarray())
close((e.T @ p).columns.toarray(), (E.T @ P)[:, own(coarse)].toarray())
close((q.T @ (a @ q)).toarray(), (Q.T @ (A @ Q)).toarray())
close(a.sum(axis=1), A.sum(axis=1)[here])
close(e.T.sum(axis=1), E.T.sum(axis=1))
assert (p.shape, p.T.T) == ((fine.count, coarse.count), p)
print("done", flush=True)
"""


def test_products_are_those_of_scipy(run_on_processes: Callable[..., str]) -> None:
    assert run_on_processes(3, "-m", "mpi4py", "-c", PROGRAM).count("done") == 3

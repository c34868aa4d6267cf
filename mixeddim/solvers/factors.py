"""Factors of the whole block matrix by MUMPS, on one process or several.

PETSc wants a contiguous range of rows on each process. That of a process holds its tissue dofs and
behind them an equal share of the network's dofs, which for the factors alone are distributed.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc
from scipy import sparse

from mixeddim.accuracy import Pair
from mixeddim.algebra.distributed import held_rows
from mixeddim.fem.blocks import Blocks
from mixeddim.processes import Processes

__all__ = ["BlockFactors", "distributed_matrix", "petsc_comm"]


class BlockFactors:
    """Factors of [[A_33, A_31], [A_13, A_11]].

    Args:
        blocks: The matrix.
        kind: "cholesky" where it is symmetric positive definite, or "lu".
        check: Whether to raise where factors break down, instead of numbers that are none.

    Raises:
        petsc4py.PETSc.Error: If they do, under `check`.
    """

    def __init__(
        self, blocks: Blocks, kind: Literal["cholesky", "lu"], *, check: bool = False
    ) -> None:
        self._processes = processes = blocks.processes
        num_3, num_1 = blocks.A_31.shape
        starts = np.concatenate([[0], np.cumsum(processes.join(np.array([num_3])))])
        shares = num_1 * np.arange(processes.size + 1) // processes.size
        self._num_3, self._share = num_3, slice(*shares[processes.rank : processes.rank + 2])
        self._starts, self._shares = starts, shares
        matrix = distributed_matrix(_held_rows(blocks, starts, shares), processes)
        self._ksp = ksp = PETSc.KSP().create(petsc_comm(processes))
        ksp.setOperators(matrix)
        ksp.setType("preonly")
        ksp.getPC().setType(kind)
        ksp.getPC().setFactorSolverType("mumps")
        ksp.setErrorIfNotConverged(check)
        self._x, self._b = matrix.createVecs()

    def precondition(self, blocks: Blocks, max_iterations: int) -> None:
        """Solve with another matrix of the same shape from now on, by GMRES.

        The factors precondition it (Saad & Schultz 1986, doi:10.1137/0907058).

        Args:
            blocks: The matrix, near to the factored one.
            max_iterations: Where GMRES gives up.
        """
        matrix = distributed_matrix(_held_rows(blocks, self._starts, self._shares), self._processes)
        ksp = self._ksp
        ksp.getPC().setReusePreconditioner(True)
        ksp.setOperators(matrix)
        ksp.setType("gmres")
        ksp.setPCSide(PETSc.PC.Side.RIGHT)
        ksp.setGMRESRestart(max_iterations)
        ksp.setTolerances(max_it=max_iterations)
        ksp.setErrorIfNotConverged(False)

    def solve_to(self, b: Pair, rtol: float) -> Pair | None:
        """Return the solution by GMRES after `precondition`, or None where that gives up.

        Args:
            b: Right-hand side, as in `solve`.
            rtol: Residual at which to stop, in units of b.
        """
        self._ksp.setTolerances(rtol=rtol, atol=0.0)
        x = self.solve(*b)
        return x if self._ksp.getConvergedReason() > 0 else None

    def solve(self, b_3: NDArray[np.float64], b_1: NDArray[np.float64]) -> Pair:
        """Return tissue and network part of the solution.

        Args:
            b_3: Right-hand side of the tissue, the dofs that this process owns.
            b_1: That of the network, whole.
        """
        self._b.setArray(np.concatenate([b_3, b_1[self._share]]))
        self._ksp.solve(self._b, self._x)
        x = self._x.getArray().copy()
        return x[: self._num_3], self._processes.join(x[self._num_3 :])

    def destroy(self) -> None:
        """Free the memory, which for objects on several processes Python cannot do by itself."""
        for part in (self._ksp, self._x, self._b):
            part.destroy()


def _held_rows(
    blocks: Blocks, starts: NDArray[np.int64], shares: NDArray[np.int64]
) -> sparse.csr_array:
    """Return the rows of the block matrix that this process holds, with all columns.

    Args:
        blocks: The matrix.
        starts: The first tissue dof of each process, and the number of all.
        shares: The same of the network's dofs.
    """
    processes, total = blocks.processes, int(starts[-1] + shares[-1])
    place_3 = np.arange(starts[-1]) + np.repeat(shares[:-1], np.diff(starts))
    place_1 = np.arange(shares[-1]) + np.repeat(starts[1:], np.diff(shares))

    def spread(rows: sparse.csr_array, place: NDArray[np.int64]) -> sparse.csr_array:
        parts = (rows.data, place[rows.indices], rows.indptr)
        return sparse.csr_array(parts, shape=(rows.shape[0], total))

    A_31 = held_rows(blocks.A_31)
    entries = held_rows(blocks.A_13.T).tocoo()
    destination = np.searchsorted(shares, entries.col, side="right") - 1
    tissue_dof = entries.row + starts[processes.rank]
    row, column, value = processes.deliver(destination, entries.col, tissue_dof, entries.data)
    own = slice(*shares[processes.rank : processes.rank + 2])
    shape = (own.stop - own.start, starts[-1])
    A_13 = sparse.coo_array((value, (row - own.start, column)), shape=shape).tocsr()
    tissue = spread(held_rows(blocks.A_33), place_3) + spread(A_31, place_1)
    network = spread(A_13, place_3) + spread(blocks.A_11[own], place_1)
    return sparse.vstack([tissue, network], format="csr")


def distributed_matrix(rows: sparse.csr_array, processes: Processes) -> PETSc.Mat:
    """Return a square matrix as one of PETSc.

    Args:
        rows: The rows that this process holds, with all columns.
        processes: The processes that hold the others.
    """
    rows.sort_indices()
    csr = (rows.indptr.astype(PETSc.IntType), rows.indices.astype(PETSc.IntType), rows.data)
    sizes = (rows.shape[0], rows.shape[1])
    return PETSc.Mat().createAIJ((sizes, sizes), csr=csr, comm=petsc_comm(processes))


def petsc_comm(processes: Processes) -> Any:
    """Return the communicator for PETSc, having freed what objects of Python left there."""
    if processes.comm is None:
        return PETSc.COMM_SELF
    PETSc.garbage_cleanup(processes.comm)
    return processes.comm

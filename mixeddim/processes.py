"""The processes that share one problem: sums, largest values and errors over all of them.

The tissue is distributed: of each tissue vector a process holds the dofs that it owns. The network
is thinner by a dimension, so that every process holds it whole, and all network vectors too. Each
number that an algorithm decides by, and each error, is therefore the same on all processes. On one
process all methods return what they are given. Importing it loads neither MPI nor DOLFINx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["ALONE", "Processes"]


@dataclass(frozen=True, eq=False, repr=False)
class Processes:
    """The processes over which tissue vectors are distributed; all must call a method together.

    Attributes:
        comm: Their communicator (mpi4py), or None for one process alone.
        owner: What keeps the communicator alive, such as the mesh that it belongs to.
    """

    comm: Any = None
    owner: Any = None

    @classmethod
    def of(cls, mesh: Any) -> Processes:
        """Return the processes that a mesh is distributed over."""
        return ALONE if mesh.comm.size == 1 else cls(mesh.comm, mesh)

    @property
    def size(self) -> int:
        """Their number."""
        return 1 if self.comm is None else self.comm.size

    @property
    def rank(self) -> int:
        """The number of this one; 0 is the first."""
        return 0 if self.comm is None else self.comm.rank

    def sum(self, value: float | np.floating) -> float:
        """Return the sum of a number over the processes, the same to the last bit on each."""
        return float(value) if self.comm is None else sum(self.comm.allgather(float(value)))

    def max(self, value: float | np.floating) -> float:
        """Return the largest of the numbers; NaN where one is, which MPI's own maximum may lose."""
        return float(value if self.comm is None else np.max(self.comm.allgather(float(value))))

    def min(self, value: float | np.floating) -> float:
        """Return the smallest of the numbers; NaN where one is."""
        return -self.max(-value)

    def any(self, value: bool | np.bool_) -> bool:
        """Return whether it is true on one of them."""
        return bool(value) if self.comm is None else any(self.comm.allgather(bool(value)))

    def all(self, value: bool | np.bool_) -> bool:
        """Return whether it is true on all of them."""
        return not self.any(not value)

    def dot(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """Return the inner product of two tissue vectors."""
        return self.sum(float(a @ b))

    def norm(self, vector: NDArray[np.float64]) -> float:
        """Return the Euclidean norm of a tissue vector."""
        if self.comm is None:
            return float(np.linalg.norm(vector))
        return float(np.linalg.norm(self.comm.allgather(float(np.linalg.norm(vector)))))

    def add(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the sum over the processes of an array that has the same shape on each."""
        if self.comm is None:
            return array
        total = np.empty_like(array)
        self.comm.Allreduce(np.ascontiguousarray(array), total)
        return total

    def add_sparse(self, matrix: sparse.csr_array) -> sparse.csr_array:
        """Return the sum over the processes of a sparse matrix, whole on each."""
        if self.comm is None:
            return matrix
        parts: list[sparse.csr_array] = self.comm.allgather(matrix)
        return sum(parts[1:], start=parts[0]).tocsr()

    def join(self, part: NDArray[Any]) -> NDArray[Any]:
        """Return the arrays of all processes one after the other, along the first axis."""
        return part if self.comm is None else np.concatenate(self.comm.allgather(part))

    def share_out(self, found: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return what any process found, and which of it falls to this one, the first to find it.

        Args:
            found: What this process found, shape (n,) on each.
        """
        if self.comm is None:
            return found, found
        from mpi4py import MPI

        finder = np.where(found, np.int32(self.rank), np.int32(self.size))
        first = np.empty_like(finder)
        self.comm.Allreduce(finder, first, MPI.MIN)
        return first < self.size, first == self.rank

    def deliver(
        self, destination: NDArray[np.integer], *arrays: NDArray[Any]
    ) -> tuple[NDArray[Any], ...]:
        """Send entry i of each array to process `destination[i]`; return what arrives here."""
        if self.comm is None:
            return arrays
        order = np.argsort(destination, kind="stable")
        cuts = np.searchsorted(destination[order], np.arange(1, self.size))
        pieces = list(zip(*(np.split(array[order], cuts) for array in arrays), strict=True))
        own, pieces[self.rank] = pieces[self.rank], ()  # what stays is not packed
        arrived = self.comm.alltoall(pieces)
        arrived[self.rank] = own
        return tuple(np.concatenate(parts) for parts in zip(*arrived, strict=True))

    def refuse(self, name: str) -> None:
        """Raise NotImplementedError on several processes, for what needs the system on one."""
        if self.size > 1:
            raise NotImplementedError(
                f"got a system on {self.size} processes; {name} needs one that lies whole on a "
                "process. Pass comm=MPI.COMM_SELF to create_box and create_network, or run one "
                "process."
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise on every process what is raised on one, at the end of the block.

        The block must not communicate, since a process may leave it early.
        """
        if self.comm is None:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as own:
            error = own
        raised = [e for e in self.comm.allgather(error) if e is not None]
        if raised:
            raise error or raised[0]

    def on_first[Result](self, action: Callable[[], Result]) -> Result:
        """Let the first process act alone; return its result, or raise its error, on each."""
        if self.comm is None:
            return action()
        result = None
        with self.together():
            if self.rank == 0:
                result = action()
        return self.comm.bcast(result)


ALONE: Final = Processes()
"""One process that holds all."""

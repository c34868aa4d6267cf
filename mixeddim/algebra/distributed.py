"""Matrices of a tissue that is distributed over several processes.

On one process all matrices are scipy's. On several these three classes stand for those with tissue
rows or tissue columns; they know the same products and sums, so that the formulas of the blocks,
the reduction, the multigrid and the error bounds are written once:

    TissueMatrix    tissue x tissue: K, M, A_33       each process holds the rows of its own dofs
    ToTissue        tissue x network: Pi', A_31       each process holds the rows of its own dofs
    FromTissue      network x tissue: Pi, A_13        each process holds the columns of its own dofs

Tissue vectors hold the dofs that a process owns; of a longer array, such as `Function.x.array` with
its ghosts, a product reads those alone. Network vectors, and vectors of quadrature points, are
whole on every process. So a product with `ToTissue` needs no communication, that with `FromTissue`
is one sum over the processes, and only `TissueMatrix` asks its neighbours for values. No entry of
Pi has to be looked for elsewhere in a product: those of a circle whose cells another process owns
are sent to the owners of the dofs once, when Pi is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.processes import ALONE, Processes

__all__ = [
    "FromTissue",
    "Halo",
    "Ownership",
    "TissueMatrix",
    "ToTissue",
    "held_rows",
    "in_halo",
    "processes_of",
    "zeros_like",
]


@dataclass(frozen=True, eq=False)
class Ownership:
    """Which process owns which tissue dof: a range of global numbers each.

    Attributes:
        processes: The processes.
        starts: The first number of each process, and the number of all, shape (size + 1,).
    """

    processes: Processes
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, count: int, processes: Processes) -> Ownership:
        """Return that where each process owns so many, the first process the first numbers."""
        counts = processes.join(np.array([count], dtype=np.int64))
        return cls(processes, np.concatenate([[0], np.cumsum(counts)]))

    @property
    def first(self) -> int:
        """The first global number that this process owns."""
        return int(self.starts[self.processes.rank])

    @property
    def count(self) -> int:
        """How many it owns."""
        return int(self.starts[self.processes.rank + 1]) - self.first

    @property
    def total(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    def owners(self, dofs: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the process that owns each global number."""
        return np.searchsorted(self.starts, dofs, side="right") - 1


class Halo:
    """Values of dofs that other processes own, fetched from them or brought back.

    Args:
        ghosts: Global numbers of those dofs, sorted.
        ownership: Who owns which.

    Attributes:
        numbers: Global numbers of the owned dofs and behind them the ghosts.
    """

    def __init__(self, ghosts: NDArray[np.integer], ownership: Ownership) -> None:
        self.comm, self.count = ownership.processes.comm, ownership.count
        cuts = np.searchsorted(ghosts, ownership.starts[1:-1])
        wanted = np.split(ghosts, cuts)
        asked = self.comm.alltoall(wanted)
        self.received, self.sent = ([len(part) for part in parts] for parts in (wanted, asked))
        self.to_send = np.concatenate(asked) - ownership.first
        self.size = self.count + len(ghosts)
        own = ownership.first + np.arange(self.count, dtype=ghosts.dtype)
        self.numbers = np.concatenate([own, ghosts])

    def extend(self, v: NDArray[Any]) -> NDArray[Any]:
        """Return the owned values and behind them those of the ghosts."""
        return np.concatenate([v[: self.count], self.fetch(v)])

    def fetch(self, v: NDArray[Any]) -> NDArray[Any]:
        """Return the values of the ghosts alone, of one vector or of the columns of several."""
        received = np.empty((self.size - self.count, *v.shape[1:]), dtype=v.dtype)
        sent, each = np.ascontiguousarray(v[self.to_send]), math.prod(v.shape[1:])
        counts = ([each * n for n in numbers] for numbers in (self.sent, self.received))
        self.comm.Alltoallv([sent, next(counts)], [received, next(counts)])
        return received

    def extend_rows(self, rows: sparse.csr_array) -> sparse.csr_array:
        """Return the owned rows of a matrix and behind them those of the ghosts."""
        wanted = np.split(self.to_send, np.cumsum(self.sent)[:-1])
        received = self.comm.alltoall([rows[part] for part in wanted])
        return sparse.vstack([rows, *received], format="csr")

    def add_back(self, extended: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the owned values with those added that others hold for these dofs; transposed."""
        brought = np.empty(len(self.to_send), dtype=extended.dtype)
        self.comm.Alltoallv([extended[self.count :], self.received], [brought, self.sent])
        total = extended[: self.count] + np.bincount(self.to_send, brought, self.count)
        return total.astype(extended.dtype)


class TissueMatrix:
    """A matrix with tissue rows and columns.

    Args:
        rows: The owned rows, with all columns by their global numbers, shape (count, total).
        ownership: Who owns which dof.
    """

    __array_ufunc__ = None  # numpy leaves products with it to this class

    def __init__(self, rows: sparse.csr_array, ownership: Ownership) -> None:
        rows.sum_duplicates()  # scipy does so later, in place, and `local` shares the entries
        self.rows, self.ownership = rows, ownership

    def __repr__(self) -> str:
        return f"TissueMatrix({self.rows.shape[0]} of {self.ownership.total} rows here)"

    @property
    def shape(self) -> tuple[int, int]:
        """Lengths of the vectors here that it maps to and from."""
        return self.ownership.count, self.ownership.count

    @property
    def processes(self) -> Processes:
        """The processes that hold its rows."""
        return self.ownership.processes

    @property
    def data(self) -> NDArray[np.float64]:
        """The entries here."""
        return self.rows.data

    @cached_property
    def local(self) -> tuple[sparse.csr_array, Halo]:
        """The owned rows with owned columns first, then those of the halo."""
        return in_halo(self.rows, self.ownership)

    def __matmul__(self, other: Any) -> Any:
        """Return the product with a tissue vector, `ToTissue` or a diagonal matrix."""
        matrix, halo = self.local
        if isinstance(other, ToTissue):
            return ToTissue(self.times(other.rows), self.ownership)
        if sparse.issparse(other):
            scaled = self.rows.data * halo.extend(other.diagonal())[matrix.indices]
            parts = (scaled, self.rows.indices, self.rows.indptr)
            return self._like(sparse.csr_array(parts, shape=self.rows.shape))
        if not isinstance(other, np.ndarray):
            return NotImplemented
        if other.ndim == 2:
            return np.stack([self @ column for column in other.T], axis=1)
        return matrix @ halo.extend(other)

    def times(self, rows: sparse.csr_array) -> sparse.csr_array:
        """Return the owned rows of the product with a matrix of which each holds its own rows."""
        matrix, halo = self.local
        return (matrix @ halo.extend_rows(rows)).tocsr()

    def __rmatmul__(self, diagonal: sparse.sparray) -> TissueMatrix:
        return self._like((diagonal @ self.rows).tocsr())

    def __add__(self, other: TissueMatrix | sparse.sparray) -> TissueMatrix:
        """Return the sum with another, or with a matrix of the owned dofs alone."""
        if isinstance(other, TissueMatrix):
            return self._like((self.rows + other.rows).tocsr())
        own = other.tocoo()
        entries = (own.data, (own.row, own.col + self.ownership.first))
        return self._like((self.rows + sparse.coo_array(entries, shape=self.rows.shape)).tocsr())

    __radd__ = __add__

    def __truediv__(self, number: float) -> TissueMatrix:
        return self._like(self.rows / number)

    def __abs__(self) -> TissueMatrix:
        return self._like(abs(self.rows))

    def tocsr(self) -> TissueMatrix:
        """Return itself: its rows are compressed."""
        return self

    def diagonal(self) -> NDArray[np.float64]:
        """Return the owned part of the diagonal."""
        return self.rows.diagonal(k=self.ownership.first)

    def sum(self, axis: Literal[1]) -> NDArray[np.float64]:
        """Return the sums of the owned rows."""
        return np.asarray(self.rows.sum(axis=axis))

    def renumbered(self, numbers: NDArray[np.int64], ownership: Ownership) -> TissueMatrix:
        """Return the matrix with its dofs in another order, on the processes that own them there.

        Args:
            numbers: The new number of each dof owned here, shape (count,).
            ownership: Who owns the new numbers.
        """
        matrix, halo = self.local
        entries = matrix.tocoo()
        row, column = numbers[entries.row], halo.extend(numbers)[entries.col]
        processes = ownership.processes
        row, column, value = processes.deliver(ownership.owners(row), row, column, entries.data)
        shape = (ownership.count, ownership.total)
        rows = sparse.coo_array((value, (row - ownership.first, column)), shape=shape)
        return TissueMatrix(rows.tocsr(), ownership)

    def _like(self, rows: sparse.csr_array) -> TissueMatrix:
        return TissueMatrix(rows, self.ownership)


class ToTissue:
    """A matrix with tissue rows and network columns.

    Args:
        rows: The owned rows, shape (count, number of columns).
        ownership: Who owns which dof.
    """

    __array_ufunc__ = None

    def __init__(self, rows: sparse.sparray, ownership: Ownership) -> None:
        self.rows, self.ownership = rows, ownership

    def __repr__(self) -> str:
        return f"ToTissue({self.rows.shape[0]} of {self.ownership.total} rows here)"

    @property
    def shape(self) -> tuple[int, int]:
        """Lengths of the vectors here that it maps to and from."""
        return self.rows.shape

    @property
    def T(self) -> FromTissue:
        """The transpose."""
        return FromTissue(self.rows.T, self.ownership)

    def __matmul__(self, other: Any) -> Any:
        """Return the product with a network vector, or with any of the matrices."""
        if isinstance(other, FromTissue):
            return TissueMatrix((self.rows @ other.complete_rows()).tocsr(), self.ownership)
        if sparse.issparse(other):
            return ToTissue(self.rows @ other, self.ownership)
        return self.rows @ other

    def __neg__(self) -> ToTissue:
        return ToTissue(-self.rows, self.ownership)

    def __abs__(self) -> ToTissue:
        return ToTissue(abs(self.rows), self.ownership)

    def tocsr(self) -> ToTissue:
        """Return the same with compressed rows."""
        return ToTissue(self.rows.tocsr(), self.ownership)


class FromTissue:
    """A matrix with network rows, or rows of quadrature points, and tissue columns.

    Args:
        columns: The owned columns, shape (number of rows, count).
        ownership: Who owns which dof.
    """

    __array_ufunc__ = None

    def __init__(self, columns: sparse.sparray, ownership: Ownership) -> None:
        self.columns, self.ownership = columns, ownership

    def __repr__(self) -> str:
        return f"FromTissue({self.columns.shape[1]} of {self.ownership.total} columns here)"

    @property
    def shape(self) -> tuple[int, int]:
        """Lengths of the vectors here that it maps to and from."""
        return self.columns.shape

    @property
    def T(self) -> ToTissue:
        """The transpose."""
        return ToTissue(self.columns.T, self.ownership)

    def __matmul__(self, other: Any) -> Any:
        """Return the product with a tissue vector, or with any of the matrices.

        That with `ToTissue` is whole on every process; a matrix of scipy's has owned dofs alone.
        """
        if isinstance(other, ToTissue):
            return self.ownership.processes.add_sparse((self.columns @ other.rows).tocsr())
        if sparse.issparse(other):
            return FromTissue(self.columns @ other, self.ownership)
        if not isinstance(other, np.ndarray):
            return NotImplemented
        return self.ownership.processes.add(self.columns @ other[: self.ownership.count])

    def __rmatmul__(self, other: sparse.sparray) -> FromTissue:
        return FromTissue(other @ self.columns, self.ownership)

    def __getitem__(self, rows: NDArray[Any]) -> FromTissue:
        return FromTissue(self.columns[rows], self.ownership)

    def power(self, exponent: int) -> FromTissue:
        """Return a power of each entry."""
        return FromTissue(self.columns.power(exponent), self.ownership)

    def __abs__(self) -> FromTissue:
        return FromTissue(abs(self.columns), self.ownership)

    def sum(self, axis: Literal[1]) -> NDArray[np.float64]:
        """Return the sums of the rows, over all processes."""
        return self.ownership.processes.add(np.asarray(self.columns.sum(axis=axis)))

    def tocsr(self) -> FromTissue:
        """Return the same with compressed rows."""
        return FromTissue(self.columns.tocsr(), self.ownership)

    def renumbered(self, numbers: NDArray[np.int64], ownership: Ownership) -> FromTissue:
        """Return the matrix with its columns in another order; see `TissueMatrix.renumbered`."""
        entries, processes = self.columns.tocoo(), ownership.processes
        row, column = entries.row, numbers[entries.col]
        row, column, value = processes.deliver(ownership.owners(column), row, column, entries.data)
        shape = (self.columns.shape[0], ownership.count)
        columns = sparse.coo_array((value, (row, column - ownership.first)), shape=shape)
        return FromTissue(columns.tocsr(), ownership)

    def complete_rows(self) -> sparse.csr_array:
        """Return each row that has an entry here with all of its entries, by global numbers."""
        processes, first = self.ownership.processes, self.ownership.first
        is_here = np.diff(self.columns.tocsr().indptr) > 0
        is_shared = is_here & (processes.add(is_here.astype(np.int32)) > 1)
        own = self.columns.tocoo()
        entries = (own.row, own.col + first, own.data)
        sent = is_shared[own.row]
        everywhere = [processes.join(part[sent]) for part in entries]
        mine = (everywhere[1] >= first) & (everywhere[1] < first + self.ownership.count)
        theirs = is_here[everywhere[0]] & ~mine
        row, column, value = (
            np.concatenate([part, other[theirs]])
            for part, other in zip(entries, everywhere, strict=True)
        )
        shape = (self.columns.shape[0], self.ownership.total)
        return sparse.coo_array((value, (row, column)), shape=shape).tocsr()


def in_halo(rows: sparse.csr_array, ownership: Ownership) -> tuple[sparse.csr_array, Halo]:
    """Return rows with the owned columns first, then the others among them, and their halo.

    Args:
        rows: With all columns by their global numbers, no entry twice, shape (any, total).
        ownership: Who owns which column.
    """
    first, count = ownership.first, ownership.count
    columns = rows.indices
    is_owned = (columns >= first) & (columns < first + count)
    ghosts, place = np.unique(columns[~is_owned], return_inverse=True)
    local = columns - first
    local[~is_owned] = count + place
    shape = (rows.shape[0], count + len(ghosts))
    matrix = sparse.csr_array((rows.data, local, rows.indptr), shape=shape)
    return matrix, Halo(ghosts, ownership)


def processes_of(A: Any) -> Processes:
    """Return the processes that hold parts of a matrix: this one alone, if it is scipy's."""
    return ALONE if sparse.issparse(A) else A.ownership.processes


def zeros_like(A: Any) -> Any:
    """Return a matrix of the same kind and shape without entries."""
    if isinstance(A, TissueMatrix):
        return TissueMatrix(sparse.csr_array(A.rows.shape), A.ownership)
    return sparse.csr_array(A.shape)


def held_rows(A: Any) -> sparse.csr_array:
    """Return the rows of a matrix that this process holds: all of them, if it is scipy's."""
    return (A.rows if isinstance(A, TissueMatrix | ToTissue) else A).tocsr()

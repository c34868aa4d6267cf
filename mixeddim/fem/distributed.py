"""Matrices of a tissue that is distributed over several processes.

On one process all matrices are scipy's. On several these three classes stand for those with tissue
rows or tissue columns; they know the same products and sums, so that the formulas of the blocks,
the reduction and the error bounds are written once:

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

import mixeddim._fenics  # noqa: F401

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dolfinx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.fem.processes import Processes

__all__ = [
    "FromTissue",
    "Ownership",
    "TissueMatrix",
    "ToTissue",
    "assemble_matrix",
    "assemble_vector",
    "from_tissue",
    "held_rows",
    "owned_columns",
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
    def of(cls, index_map: dolfinx.common.IndexMap, mesh: dolfinx.mesh.Mesh) -> Ownership:
        """Return that of the dofs of a space on a mesh."""
        processes = Processes.of(mesh)
        counts = processes.join(np.array([index_map.size_local], dtype=np.int64))
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


class _Halo:
    """Values of dofs that other processes own, fetched from them.

    Args:
        ghosts: Global numbers of those dofs, sorted.
        ownership: Who owns which.
    """

    def __init__(self, ghosts: NDArray[np.integer], ownership: Ownership) -> None:
        self.comm, self.count = ownership.processes.comm, ownership.count
        cuts = np.searchsorted(ghosts, ownership.starts[1:-1])
        wanted = np.split(ghosts, cuts)
        asked = self.comm.alltoall(wanted)
        self.received, self.sent = ([len(part) for part in parts] for parts in (wanted, asked))
        self.to_send = np.concatenate(asked) - ownership.first
        self.size = self.count + len(ghosts)

    def extend(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the owned values and behind them those of the ghosts."""
        extended = np.empty(self.size)
        extended[: self.count] = v[: self.count]
        received = [extended[self.count :], self.received]
        self.comm.Alltoallv([extended[self.to_send], self.sent], received)
        return extended


class TissueMatrix:
    """A matrix with tissue rows and columns.

    Args:
        rows: The owned rows, with all columns by their global numbers, shape (count, total).
        ownership: Who owns which dof.
    """

    __array_ufunc__ = None  # numpy leaves products with it to this class

    def __init__(self, rows: sparse.csr_array, ownership: Ownership) -> None:
        rows.sum_duplicates()  # scipy does so later, in place, and `_local` shares the entries
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
    def _local(self) -> tuple[sparse.csr_array, _Halo]:
        """The owned rows with owned columns first, then those of the halo."""
        first, count = self.ownership.first, self.ownership.count
        columns = self.rows.indices
        is_owned = (columns >= first) & (columns < first + count)
        ghosts, place = np.unique(columns[~is_owned], return_inverse=True)
        local = columns - first
        local[~is_owned] = count + place
        shape = (count, count + len(ghosts))
        matrix = sparse.csr_array((self.rows.data, local, self.rows.indptr), shape=shape)
        return matrix, _Halo(ghosts, self.ownership)

    def __matmul__(self, other: Any) -> Any:
        """Return the product with a tissue vector, or with a diagonal matrix."""
        matrix, halo = self._local
        if sparse.issparse(other):
            scaled = self.rows.data * halo.extend(other.diagonal())[matrix.indices]
            parts = (scaled, self.rows.indices, self.rows.indptr)
            return self._like(sparse.csr_array(parts, shape=self.rows.shape))
        if np.ndim(other) == 2:
            return np.stack([self @ column for column in other.T], axis=1)
        return matrix @ halo.extend(other)

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

    def __abs__(self) -> TissueMatrix:
        return self._like(abs(self.rows))

    def tocsr(self) -> TissueMatrix:
        """Return itself: its rows are compressed."""
        return self

    def diagonal(self) -> NDArray[np.float64]:
        """Return the owned part of the diagonal."""
        return self.rows.diagonal(k=self.ownership.first)

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
        """Return the product with a tissue vector, or with a matrix of the owned dofs alone."""
        if sparse.issparse(other):
            return FromTissue(self.columns @ other, self.ownership)
        return self.ownership.processes.add(self.columns @ other[: self.ownership.count])

    def __getitem__(self, rows: NDArray[Any]) -> FromTissue:
        return FromTissue(self.columns[rows], self.ownership)

    def power(self, exponent: int) -> FromTissue:
        """Return a power of each entry."""
        return FromTissue(self.columns.power(exponent), self.ownership)

    def __abs__(self) -> FromTissue:
        return FromTissue(abs(self.columns), self.ownership)

    def tocsr(self) -> FromTissue:
        """Return the same with compressed rows."""
        return FromTissue(self.columns.tocsr(), self.ownership)

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


def assemble_matrix(form: dolfinx.fem.Form) -> Any:
    """Assemble a compiled bilinear form: a scipy matrix, or a `TissueMatrix` on several processes.

    Args:
        form: On a P1 space of the tissue, or of the network, which is whole on each process.
    """
    A, mesh = dolfinx.fem.assemble_matrix(form), form.mesh
    if mesh.comm.size == 1:
        # A copy, since a view keeps its mesh alive, and MPI has few communicators for meshes.
        return sparse.csr_array(A.to_scipy(), copy=True)
    A.scatter_reverse()
    ownership = Ownership.of(A.index_map(0), mesh)
    local = A.to_scipy()
    columns = A.index_map(1).local_to_global(local.indices).astype(np.int64)
    rows = (local.data.copy(), columns, local.indptr.copy())
    shape = (ownership.count, ownership.total)
    return TissueMatrix(sparse.csr_array(rows, shape=shape), ownership)


def assemble_vector(form: dolfinx.fem.Form) -> NDArray[np.float64]:
    """Assemble a compiled linear form: the dofs that this process owns."""
    vector = dolfinx.fem.assemble_vector(form)
    vector.scatter_reverse(dolfinx.la.InsertMode.add)
    return vector.array[: vector.index_map.size_local].copy()


def owned_columns(
    V: dolfinx.fem.FunctionSpace,
    rows: NDArray[np.int64],
    dofs: NDArray[np.int32],
    values: NDArray[np.float64],
    num_rows: int,
) -> sparse.csr_array:
    """Return the columns, of the dofs owned here, of a matrix given by entries on all processes.

    Args:
        V: Scalar space of the tissue.
        rows: Row of each entry, shape (n,).
        dofs: Column of each, a dof of this process by its local number, shape (n,).
        values: The entries; those at the same place add up, shape (n,).
        num_rows: Number of rows.
    """
    ownership = Ownership.of(V.dofmap.index_map, V.mesh)
    processes = ownership.processes
    if processes.size > 1:
        numbers = V.dofmap.index_map.local_to_global(dofs).astype(np.int64)
        rows, numbers, values = processes.deliver(ownership.owners(numbers), rows, numbers, values)
        dofs = numbers - ownership.first
    return sparse.coo_array((values, (rows, dofs)), shape=(num_rows, ownership.count)).tocsr()


def from_tissue(V: dolfinx.fem.FunctionSpace, columns: sparse.csr_array) -> Any:
    """Return the matrix with these columns of owned dofs: scipy's, or on several processes ours."""
    ownership = Ownership.of(V.dofmap.index_map, V.mesh)
    return columns if ownership.processes.size == 1 else FromTissue(columns, ownership)


def zeros_like(A: Any) -> Any:
    """Return a matrix of the same kind and shape without entries."""
    if isinstance(A, TissueMatrix):
        return TissueMatrix(sparse.csr_array(A.rows.shape), A.ownership)
    return sparse.csr_array(A.shape)


def held_rows(A: Any) -> sparse.csr_array:
    """Return the rows of a matrix that this process holds: all of them, if it is scipy's."""
    return (A.rows if isinstance(A, TissueMatrix | ToTissue) else A).tocsr()

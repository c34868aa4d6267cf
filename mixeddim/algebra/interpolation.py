"""Interpolation between two levels of a tissue that are both distributed over processes.

It completes the algebra of `distributed` for multigrid: `P @ v`, `P.T @ r`, and what a level passes
on to the next, `P.T @ (A @ P)`, `Pi @ P` and `P.T @ E`, read as they do in scipy. Where the coarser
level is small enough to lie whole on each process, P is a `ToTissue`, and these are scipy's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.algebra.distributed import (
    FromTissue,
    Halo,
    Ownership,
    TissueMatrix,
    ToTissue,
    in_halo,
)

__all__ = ["Interpolation", "Restriction"]


class Interpolation:
    """A matrix with rows of the finer and columns of the coarser level.

    Args:
        rows: The owned rows, with all columns by their global numbers, shape (fine.count,
            coarse.total).
        fine: Who owns which row.
        coarse: Who owns which column.
    """

    __array_ufunc__ = None

    def __init__(self, rows: sparse.csr_array, fine: Ownership, coarse: Ownership) -> None:
        rows.sum_duplicates()  # scipy does so later, in place, and `local` shares the entries
        self.rows, self.fine, self.coarse = rows, fine, coarse

    def __repr__(self) -> str:
        return f"Interpolation({self.coarse.total} to {self.fine.total} dofs)"

    @property
    def shape(self) -> tuple[int, int]:
        """Lengths of the vectors here that it maps to and from."""
        return self.fine.count, self.coarse.count

    @cached_property
    def local(self) -> tuple[sparse.csr_array, Halo]:
        """The owned rows with owned columns first, then those of the halo."""
        return in_halo(self.rows, self.coarse)

    @property
    def T(self) -> Restriction:
        """The transpose."""
        return Restriction(self)

    def __matmul__(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        matrix, halo = self.local
        product: NDArray[np.float64] = matrix @ halo.extend(v)
        return product

    def __rmatmul__(self, A: TissueMatrix | FromTissue) -> Any:
        if isinstance(A, FromTissue):
            return (self.T @ A.T).T
        return Interpolation(A.times(self.rows), self.fine, self.coarse)


class Restriction:
    """The transpose of an interpolation.

    Args:
        P: The interpolation.
    """

    __array_ufunc__ = None

    def __init__(self, P: Interpolation) -> None:
        self.P = P

    @property
    def T(self) -> Interpolation:
        """The transpose."""
        return self.P

    def __matmul__(self, other: Any) -> Any:
        """Return the product with a fine vector, an interpolation or `ToTissue`."""
        if isinstance(other, Interpolation):
            return TissueMatrix(self._times(other.rows), self.P.coarse)
        if isinstance(other, ToTissue):
            return ToTissue(self._times(other.rows), self.P.coarse)
        matrix, halo = self.P.local
        return halo.add_back(matrix.T @ other)

    def _times(self, rows: sparse.sparray) -> sparse.csr_array:
        """Return the owned rows of the product with a matrix of which each holds its own rows."""
        matrix, halo = self.P.local
        coarse, processes = self.P.coarse, self.P.coarse.processes
        part = (matrix.T @ rows).tocsr()
        others = part[coarse.count :].tocoo()
        row = halo.numbers[coarse.count :][others.row]
        row, column, value = processes.deliver(coarse.owners(row), row, others.col, others.data)
        brought = (value, (row - coarse.first, column))
        shape = (coarse.count, part.shape[1])
        return (part[: coarse.count] + sparse.coo_array(brought, shape=shape)).tocsr()

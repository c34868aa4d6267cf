"""Matrices and vectors assembled by DOLFINx, on one process or several.

On one process matrices are scipy's; on several they are those of `mixeddim.algebra.distributed`.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from typing import Any

import dolfinx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.algebra.distributed import FromTissue, Ownership, TissueMatrix
from mixeddim.processes import Processes

__all__ = ["assemble_matrix", "assemble_vector", "from_tissue", "owned_columns"]


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
    ownership = Ownership.of(A.index_map(0).size_local, Processes.of(mesh))
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
    ownership = _owned_by(V)
    processes = ownership.processes
    if processes.size > 1:
        numbers = V.dofmap.index_map.local_to_global(dofs).astype(np.int64)
        rows, numbers, values = processes.deliver(ownership.owners(numbers), rows, numbers, values)
        dofs = numbers - ownership.first
    return sparse.coo_array((values, (rows, dofs)), shape=(num_rows, ownership.count)).tocsr()


def from_tissue(V: dolfinx.fem.FunctionSpace, columns: sparse.csr_array) -> Any:
    """Return the matrix with these columns of owned dofs: scipy's, or on several processes ours."""
    ownership = _owned_by(V)
    return columns if ownership.processes.size == 1 else FromTissue(columns, ownership)


def _owned_by(V: dolfinx.fem.FunctionSpace) -> Ownership:
    return Ownership.of(V.dofmap.index_map.size_local, Processes.of(V.mesh))

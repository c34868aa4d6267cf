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

__all__ = ["assemble_matrices", "assemble_vector", "from_tissue", "owned_columns"]


def assemble_matrices(
    *forms: dolfinx.fem.Form, into: dolfinx.la.MatrixCSR | None = None
) -> list[Any]:
    """Assemble compiled bilinear forms: scipy matrices, or `TissueMatrix` on several processes.

    Args:
        forms: With cell integrals, on one P1 space of the tissue, or of the network, which is whole
            on each process. Their matrices have the same entries, which are found once.
        into: A matrix of `dolfinx.fem.create_matrix` to work in, where forms come again and again.
    """
    A, matrices = into or dolfinx.fem.create_matrix(forms[0]), []
    for form in forms:
        A.set_value(0.0)
        dolfinx.fem.assemble_matrix(A, form)
        matrices.append(_held(A, form.mesh))
    return matrices


def _held(A: dolfinx.la.MatrixCSR, mesh: dolfinx.mesh.Mesh) -> Any:
    """Return what an assembled matrix holds, a copy."""
    if mesh.comm.size == 1:
        # A copy, since a view keeps its mesh alive, and MPI has few communicators for meshes.
        return sparse.csr_array(A.to_scipy(), copy=True)
    A.scatter_reverse()
    ownership = Ownership.of(A.index_map(0).size_local, Processes.of(mesh))
    local = A.to_scipy()
    columns = A.index_map(1).local_to_global(local.indices)
    index = sparse.get_index_dtype(maxval=ownership.total)
    rows = (local.data.copy(), columns.astype(index), local.indptr.astype(index))
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
    ownership, index_map = _owned_by(V), V.dofmap.index_map
    entries = (values, (rows.astype(np.int32), dofs))
    here = sparse.coo_array(entries, shape=(num_rows, ownership.count + index_map.num_ghosts))
    if ownership.processes.size == 1:
        return here.tocsr()
    here = here.tocsc()  # adds up before it sends
    others = here[:, ownership.count :].tocoo()
    number = index_map.ghosts[others.col]
    row, number, value = ownership.processes.deliver(
        ownership.owners(number), others.row, number, others.data
    )
    brought = (value, (row, (number - ownership.first).astype(np.int32)))
    shape = (num_rows, ownership.count)
    return (here[:, : ownership.count] + sparse.coo_array(brought, shape=shape)).tocsr()


def from_tissue(V: dolfinx.fem.FunctionSpace, columns: sparse.csr_array) -> Any:
    """Return the matrix with these columns of owned dofs: scipy's, or on several processes ours."""
    ownership = _owned_by(V)
    return columns if ownership.processes.size == 1 else FromTissue(columns, ownership)


def _owned_by(V: dolfinx.fem.FunctionSpace) -> Ownership:
    return Ownership.of(V.dofmap.index_map.size_local, Processes.of(V.mesh))

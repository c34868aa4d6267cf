"""Levels for the coupled multigrid: the interpolations of PETSc's smoothed aggregation (GAMG).

GAMG coarsens A_0, the tissue without exchange: A_33 it cannot, where strong exchange connects
distant nodes. On boxes of hexahedra A_0 has its oblique entries lumped onto the axes: in long cells
these are large between nodes that diffusion hardly connects, and iterations were four times as
many.

On several processes a level is distributed as long as it is large. A small one lies whole on each,
and so do those below it, where all processes do the same.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc
from scipy import sparse

from mixeddim.algebra.distributed import Ownership, TissueMatrix, ToTissue, held_rows
from mixeddim.algebra.interpolation import Interpolation
from mixeddim.fem.assembly import CoupledSystem
from mixeddim.processes import Processes
from mixeddim.solvers.factors import distributed_matrix, petsc_comm

__all__ = ["interpolations", "rows_to_coarsen"]

MOST_WHOLE: Final = 4000
"""Dofs of a level that lies whole on each process, though the finest is distributed."""

_PREFIX: Final = "mixeddim_coupled_"
_COARSENING: Final = {
    # Below this strength nodes are not tied together: boxes with long cells need that.
    "pc_gamg_threshold": "0.02",
    # Solved directly, with the network.
    "pc_gamg_coarse_eq_limit": "1000",
    # PETSc's own smoothers go unused, and so needs no estimate of eigenvalues.
    "mg_levels_ksp_type": "richardson",
    "mg_levels_pc_type": "none",
}


def rows_to_coarsen(system: CoupledSystem) -> sparse.csr_array:
    """Return A_0, or on hexahedra a matrix of 7 entries in each row that acts alike on smooth u.

    The sums of entries across an axis are those of 1D stiffness times 1D lumped mass matrices.
    Diffusion and reaction do not cancel, so that nodes are tied together whatever their ratio.

    Returns:
        The rows that this process holds.
    """
    A_0, grid = system.A_0, system.grid
    if grid is None or grid.cell_type == "tetrahedron":
        return held_rows(A_0)
    ties = abs(_along_axes(system, system.K)) + abs(_along_axes(system, system.M))
    diagonal = ties.sum(axis=1) + np.maximum(A_0.sum(axis=1), 0.0)
    first = Ownership.of(len(diagonal), system.processes).first
    own = np.arange(len(diagonal))
    return (sparse.coo_array((diagonal, (own, own + first)), shape=ties.shape) - ties).tocsr()


def _along_axes(system: CoupledSystem, A: Any) -> sparse.csr_array:
    """Return held entries between neighbours along each axis, the oblique ones added to them."""
    grid, processes = system.grid, system.processes
    assert grid is not None
    ownership = Ownership.of(len(grid.node_of_dof), processes)
    number, node = _known_dofs(system.side_3d.K, grid.node_of_dof)
    order = np.argsort(node)
    (matrix, node_of_column), own = _columns(A, grid.node_of_dof), grid.node_of_dof
    entries = matrix.tocoo()
    parts = []
    for axis, along in enumerate(np.unravel_index(node_of_column, grid.shape)):
        step, stride = along[entries.col] - along[entries.row], np.prod(grid.shape[axis + 1 :])
        for sign in (-1, 1):
            # Of nodes on that side of the box the place is wrong, and not asked for.
            place = np.searchsorted(node, own + sign * stride, sorter=order)
            neighbour = number[order[np.minimum(place, len(order) - 1)]]
            here = step == sign
            row, data = entries.row[here], entries.data[here] / 2.0
            parts += [(row + ownership.first, neighbour[row], data)]
            parts += [(neighbour[row], row + ownership.first, data)]
    row, column, data = (np.concatenate(part) for part in zip(*parts, strict=True))
    row, column, data = processes.deliver(ownership.owners(row), row, column, data)
    shape = (ownership.count, ownership.total)
    return sparse.coo_array((data, (row - ownership.first, column)), shape=shape).tocsr()


def _columns(A: Any, values: NDArray[np.int64]) -> tuple[sparse.csr_array, NDArray[np.int64]]:
    """Return the rows held here, and the value of the dof that each of their columns is."""
    if not isinstance(A, TissueMatrix):
        return A, values
    matrix, halo = A.local
    return matrix, halo.extend(values.astype(np.float64)).astype(np.int64)


def _known_dofs(
    K: Any, node_of_dof: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the global numbers of owned dofs and of their neighbours, and their nodes.

    Args:
        K: Stiffness before elimination, which may leave no entry between two neighbours.
        node_of_dof: Node of each owned dof.
    """
    _, node = _columns(K, node_of_dof)
    number = K.local[1].numbers if isinstance(K, TissueMatrix) else np.arange(len(node))
    return number, node


def interpolations(rows: sparse.csr_array, processes: Processes) -> list[Any]:
    """Return the interpolations between levels, the finest first and the coarsest whole.

    Args:
        rows: The rows of a tissue matrix that this process holds, with all columns.
        processes: The processes that hold the others.

    Returns:
        `Interpolation` between distributed levels, `ToTissue` from a whole to a distributed one,
        and scipy's between whole ones.
    """
    found = []
    fine = Ownership.of(rows.shape[0], processes)
    is_whole = processes.size == 1
    for P, coarse in _aggregates(rows, processes):
        if is_whole:
            found.append(P if processes.size == 1 else _gathered(P, processes))
        elif coarse.total <= MOST_WHOLE:
            found.append(ToTissue(P, fine))
            is_whole = True
        else:
            found.append(Interpolation(P, fine, coarse))
        fine = coarse
    if not is_whole:
        one = sparse.eye_array(fine.count, fine.total, k=fine.first, format="csr")
        found.append(ToTissue(one, fine))
    return found


def _gathered(rows: sparse.csr_array, processes: Processes) -> sparse.csr_array:
    return sparse.vstack(processes.comm.allgather(rows), format="csr")


def _aggregates(
    rows: sparse.csr_array, processes: Processes
) -> list[tuple[sparse.csr_array, Ownership]]:
    """Return the rows held here of each interpolation, with the ownership of its columns."""
    first = Ownership.of(rows.shape[0], processes).first
    # PETSc takes 1e-20 for zero.
    largest = processes.max(rows.diagonal(k=first).max(initial=0.0))
    scale = np.exp2(-np.rint(np.log2(largest)))
    matrix = distributed_matrix(scale * rows, processes)
    pc = PETSc.PC().create(petsc_comm(processes))
    pc.setOptionsPrefix(_PREFIX)
    pc.setOperators(matrix)
    pc.setType("gamg")
    with _options(_COARSENING):
        pc.setFromOptions()
        pc.setUp()
    found = []
    for level in range(pc.getMGLevels() - 1, 0, -1):
        P = pc.getMGInterpolation(level)
        indptr, indices, data = P.getValuesCSR()
        shape = (P.getLocalSize()[0], P.getSize()[1])
        starts = P.getOwnershipRangesColumn().astype(np.int64)
        coarse = Ownership(processes, starts)
        found.append((sparse.csr_array((data, indices, indptr), shape=shape), coarse))
    pc.destroy()  # on several processes nothing else frees them
    matrix.destroy()
    return found


@contextmanager
def _options(options: Mapping[str, str]) -> Iterator[None]:
    """Put options, under our prefix, into the one database that PETSc has, and take them out."""
    database = PETSc.Options(_PREFIX)
    try:
        for name, value in options.items():
            database.setValue(name, value)
        yield
    finally:
        for name in options:
            database.delValue(name)

"""The Schur complement: the coupled problem reduced to the tissue.

    S u_3d = g      S = A_33 - A_31 A_11^-1 A_13      g = b_3 - A_31 A_11^-1 b_1
    u_1d = A_11^-1 (b_1 - A_13 u_3d)

An assembled Schur term would be dense, so it stays a product of sparse factors. Needs only numpy
and scipy, so that a saved system can be used without DOLFINx.

On several processes tissue vectors are the dofs that a process owns, and so are those that S maps;
A_11 is whole and factored on each, so that its inverse takes no communication.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast, get_args

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator
from scipy.spatial import KDTree

from mixeddim.algebra.network_block import definite_factors
from mixeddim.atomic import replacing
from mixeddim.fem.blocks import Blocks
from mixeddim.fem.grid import CellType, Grid
from mixeddim.memory import MemoryClaimError, check_claim

if TYPE_CHECKING:
    from mixeddim.fem.assembly import CoupledSystem

__all__ = ["ReducedSystem", "load_reduced", "reduce", "save_reduced"]


@dataclass(frozen=True, eq=False, repr=False)
class ReducedSystem(Blocks):
    """The reduced problem S u_3d = g, its Schur term factored, its parts kept apart.

    The parts are those of `CoupledSystem`, with Dirichlet dofs eliminated, in DOLFINx dof order.

    Attributes:
        K: Stiffness matrix of the tissue, shape (num_dofs_3d, num_dofs_3d).
        M: Reaction matrix of the tissue.
        Pi: Averaging matrix, shape (num_points, num_dofs_3d).
        N: Network basis at the quadrature points, shape (num_points, num_dofs_1d).
        weights: Quadrature weights, the diagonal of W, shape (num_points,).
        beta: Wall conductances, the diagonal of B, shape (num_points,).
        points: The quadrature points on the network, shape (num_points, 3).
        A_11: Network block, shape (num_dofs_1d, num_dofs_1d).
        b_3: Right-hand side of the tissue, shape (num_dofs_3d,).
        b_1: Right-hand side of the network, shape (num_dofs_1d,).
        grid: Nodes of the structured box, or None on any other mesh.
    """

    K: sparse.csr_array
    M: sparse.csr_array
    Pi: sparse.csr_array
    N: sparse.csr_array
    weights: NDArray[np.float64]
    beta: NDArray[np.float64]
    points: NDArray[np.float64]
    A_11: sparse.csr_array
    b_3: NDArray[np.float64]
    b_1: NDArray[np.float64]
    grid: Grid | None

    def __repr__(self) -> str:
        here = f" on process {self.processes.rank}" if self.processes.size > 1 else ""
        return f"ReducedSystem({len(self.b_3)} unknowns{here}, {len(self.b_1)} eliminated)"

    @cached_property
    def W(self) -> sparse.dia_array:
        """Diagonal of quadrature weights."""
        return sparse.diags_array(self.weights)

    @cached_property
    def B(self) -> sparse.dia_array:
        """Diagonal of wall conductances."""
        return sparse.diags_array(self.beta)

    @cached_property
    def solve_11(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """Apply A_11^-1 by its sparse factors, to shape (num_dofs_1d,) or (num_dofs_1d, k)."""
        return definite_factors(self.A_11)

    @cached_property
    def L_11(self) -> NDArray[np.float64]:
        """Lower Cholesky factor of A_11, dense, shape (num_dofs_1d, num_dofs_1d)."""
        return np.linalg.cholesky(self.A_11.toarray())

    @cached_property
    def distance_to_network(self) -> NDArray[np.float64]:
        """Distance of each node of the grid to the nearest quadrature point, of the grid's shape.

        Raises:
            ValueError: If the system lives on a mesh without a grid.
        """
        if self.grid is None:
            raise ValueError(
                "got a system on a mesh without a grid; wanted one on a structured box. Use "
                "create_box."
            )
        index = np.moveaxis(np.indices(self.grid.shape), 0, -1)
        nodes = self.grid.lower + self.grid.cell_size * index
        distances: NDArray[np.float64] = KDTree(self.points).query(nodes)[0]
        return distances

    @cached_property
    def S(self) -> LinearOperator:
        """The Schur complement, symmetric positive definite, shape (num_dofs_3d, num_dofs_3d)."""

        def apply(v: NDArray[np.float64]) -> NDArray[np.float64]:
            exchange = self.W @ (self.B @ (self.Pi @ v))
            network = self.solve_11(self.N.T @ exchange)
            exchange -= self.W @ (self.B @ (self.N @ network))
            product: NDArray[np.float64] = self.A_0 @ v + self.Pi.T @ exchange
            return product

        return LinearOperator(
            self.K.shape, matvec=apply, rmatvec=apply, matmat=apply, rmatmat=apply, dtype=float
        )

    @cached_property
    def g(self) -> NDArray[np.float64]:
        """Right-hand side of the reduced problem, shape (num_dofs_3d,)."""
        return self.condense(self.b_3, self.b_1)

    def condense(self, b_3: NDArray[np.float64], b_1: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the right-hand side g of the reduced problem that belongs to loads.

        Args:
            b_3: Right-hand side of the tissue, shape (num_dofs_3d,), or (k, num_dofs_3d) for k
                problems at once.
            b_1: That of the network, shape (num_dofs_1d,) or (k, num_dofs_1d).
        """
        g: NDArray[np.float64] = b_3 + self.exchange_3(self.solve_11(b_1.T)).T
        return g

    def back_substitute(
        self, u_3d: NDArray[np.float64], b_1: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Return the network dofs that belong to tissue dofs.

        Args:
            u_3d: Shape (num_dofs_3d,), or (k, num_dofs_3d) for k problems at once.
            b_1: Right-hand side of the network, shape (num_dofs_1d,) or (k, num_dofs_1d); by
                default that of the system.
        """
        b_1 = self.b_1 if b_1 is None else b_1
        load = b_1 + self.exchange_1(u_3d.T).T
        return self.solve_11(load.T).T


def reduce(system: CoupledSystem) -> ReducedSystem:
    """Eliminate the network from a coupled system.

    Args:
        system: The assembled system; its matrices are shared, not copied.

    Raises:
        ValueError: If fluid drags u through the wall, so that the matrix is not symmetric.
    """
    if system.coupling.drag is not None:
        raise ValueError(
            "got a system in which fluid drags u through the wall, as that of a state of "
            "transport with a leaky flow; wanted a symmetric one. Pass the system that was passed "
            "to simulate_transport."
        )
    reduced = ReducedSystem(
        K=system.K,
        M=system.M,
        Pi=system.Pi,
        N=system.N,
        weights=system.coupling.weights,
        beta=system.coupling.beta,
        points=system.coupling.points,
        A_11=system.A_11,
        b_3=system.b_3,
        b_1=system.b_1,
        grid=system.grid,
    )
    vars(reduced)["A_0"] = system.A_0  # the same object for all systems in one tissue
    return reduced


_FORMAT = 1
_SPARSE = ("K", "M", "Pi", "N", "A_11")
_DENSE = ("weights", "beta", "points", "b_3", "b_1")
_GRID = ("shape", "lower", "cell_size", "node_of_dof", "cell_type")


def save_reduced(reduced: ReducedSystem, path: str | os.PathLike[str]) -> None:
    """Write a reduced system to a compressed `.npz` file, replacing it in one step.

    Args:
        reduced: The system.
        path: File to write; an existing one stays whole until the new one is complete.

    Raises:
        NotImplementedError: If the system is distributed over several processes.
    """
    reduced.processes.refuse("save_reduced")
    arrays: dict[str, Any] = {"format": _FORMAT}
    arrays |= {name: getattr(reduced, name) for name in _DENSE}
    for name in _SPARSE:
        A = getattr(reduced, name)
        arrays |= {f"{name}.data": A.data, f"{name}.indices": A.indices}
        arrays |= {f"{name}.indptr": A.indptr, f"{name}.shape": A.shape}
    if reduced.grid is not None:
        arrays |= {f"grid.{name}": getattr(reduced.grid, name) for name in _GRID}
    with replacing(Path(path)) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_reduced(path: str | os.PathLike[str]) -> ReducedSystem:
    """Read a reduced system written by `save_reduced`; runs no code from the file.

    Args:
        path: File to read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a system, or its arrays claim more memory than is free.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"got {os.fspath(path)!r}, which is no file; wanted a reduced system. Check the path, "
            "or write one with mixeddim.save_reduced."
        )
    with path.open("rb") as file:
        try:
            check_claim(path, _claimed_bytes(file))
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return _from_arrays(dict(arrays))
        except MemoryClaimError:
            raise
        except Exception as error:  # a damaged archive raises whatever its reader trips over
            raise ValueError(
                f"got {os.fspath(path)!r}, which holds no complete reduced system ({error}); "
                "wanted a file written by mixeddim.save_reduced. Write it again."
            ) from error


def _claimed_bytes(file: IO[bytes]) -> int:
    """Return how many bytes the arrays of an `.npz` file take in memory, from their headers."""
    claimed = 0
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                # Others have headers of any length; `save_reduced` writes none.
                if (version := npy.read_magic(stream)) != (1, 0):
                    raise ValueError(f"the array {name!r} has version {version} instead of (1, 0)")
                shape, _, dtype = npy.read_array_header_1_0(stream)
                # Where numpy's product of the shape overflows, it may be a positive number.
                claimed += math.prod(map(abs, shape)) * dtype.itemsize
    return claimed


def _from_arrays(arrays: dict[str, NDArray[Any]]) -> ReducedSystem:
    if int(arrays["format"]) != _FORMAT:
        raise ValueError(f"it has format {arrays['format']}, this version reads {_FORMAT}")
    parts: dict[str, Any] = {name: arrays[name] for name in _DENSE}
    for name in _SPARSE:
        content = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
        parts[name] = sparse.csr_array(content, shape=tuple(arrays[f"{name}.shape"]))
        parts[name].check_format(full_check=True)
    num_points, n_3, n_1 = (len(parts[name]) for name in ("weights", "b_3", "b_1"))
    shapes = {
        "K": (n_3, n_3),
        "M": (n_3, n_3),
        "Pi": (num_points, n_3),
        "N": (num_points, n_1),
        "A_11": (n_1, n_1),
        "beta": (num_points,),
        "points": (num_points, 3),
    }
    for name, shape in shapes.items():
        if parts[name].shape != shape:
            raise ValueError(f"{name} has shape {parts[name].shape} instead of {shape}")
    grid = None
    if "grid.shape" in arrays:
        nx, ny, nz = (int(n) for n in arrays["grid.shape"])
        lower, cell_size, node_of_dof = (arrays[f"grid.{name}"] for name in _GRID[1:4])
        # Files from before there were hexahedra do not say.
        cell_type = str(arrays.get("grid.cell_type", "tetrahedron"))
        if cell_type not in get_args(CellType):
            raise ValueError(f"its cells are {cell_type!r} instead of one of {get_args(CellType)}")
        if not nx * ny * nz == len(node_of_dof) == n_3:
            raise ValueError(f"its grid has {nx} by {ny} by {nz} nodes for {n_3} unknowns")
        grid = Grid((nx, ny, nz), lower, cell_size, node_of_dof, cast(CellType, cell_type))
    return ReducedSystem(**parts, grid=grid)

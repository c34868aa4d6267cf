"""Data sets of problems, read from HDF5 files, and right-hand sides; needs no DOLFINx.

`learning.problems.generation` writes the files. All problems of a file have the same grid. The file
holds the stiffness and reaction matrices of unit coefficients once, and the network data of each
problem; also its diffusion field, if diffusion varies.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, overload

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from learning.problems.distributions import Draw, ProblemDistribution, from_json, to_json
from learning.problems.stiffness import diffusion_tensor, stiffness
from mixeddim.tensors import Grid, MemoryClaimError, ReducedSystem, check_claim

__all__ = [
    "FAMILIES",
    "Dataset",
    "Problem",
    "load_dataset",
    "right_hand_side",
]

FAMILIES: Final = ("canonical", "physical", "random")

FORMAT: Final = 1
# The arrays of each problem in a file. Matrices are stored by rows; the inlet loads, which have few
# columns and mostly zeros, as their transposes. Single precision is enough for means: see
# `unit_rows`.
MATRICES: Final = ("Pi", "N", "A_11", "inlet_loads_3", "inlet_loads_1")
VECTORS: Final = ("weights", "beta", "points")
# For varying or anisotropic diffusion: log k in the cells, the direction of fibres.
FIELDS: Final = ("log_k", "fibres")
GRID: Final = ("shape", "lower", "cell_size", "node_of_dof")


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem of a data set.

    Attributes:
        reduced: The reduced system, u_1d = 1 at the inlets, without sources.
        inlet_loads_3: Column j is b_3 for u_1d = 1 at inlet j and 0 at the others, shape
            (n_3, num_inlets).
        inlet_loads_1: The same for b_1, shape (n_1, num_inlets).
        parameters: generator, seed (of the graph), num_nodes, radius, k_3d, sigma_3d, k_1d,
            permeability, contrast and anisotropy.
    """

    reduced: ReducedSystem
    inlet_loads_3: sparse.csr_array
    inlet_loads_1: sparse.csr_array
    parameters: Mapping[str, float | int | str]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Sequence[Problem]):
    """Problems on one grid, drawn from one distribution; read by `load_dataset`.

    A problem is built at its first use, and kept with its computed properties. K and M of unit
    coefficients are the same objects in every problem: do not write to them.

    Attributes:
        path: The file.
        distribution: Distribution of the problems.
        seed: Seed of the draws.
        versions: Versions of the packages that wrote the file.
        content_hash: SHA-256 of the content, equal for files with the same problems.
        arrays: The content, by name in the file; not to be written to.
    """

    path: Path
    distribution: ProblemDistribution
    seed: int
    versions: Mapping[str, str]
    content_hash: str
    arrays: Mapping[str, NDArray[Any]]
    _built: dict[int, Problem] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Dataset({len(self)} problems, seed {self.seed}, {os.fspath(self.path)!r})"

    def __len__(self) -> int:
        return len(self.arrays["parameters/seed"])

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"got problem {i}; the data set has {len(self)}.")
        i %= len(self)
        if i not in self._built:
            self._built[i] = self._build(i)
        return self._built[i]

    @cached_property
    def _grid(self) -> Grid:
        nx, ny, nz = (int(n) for n in self.arrays["shared/grid.shape"])
        lower, cell_size, node_of_dof = (self.arrays[f"shared/grid.{n}"] for n in GRID[1:])
        return Grid((nx, ny, nz), lower, cell_size, node_of_dof)

    @cached_property
    def _unit_K(self) -> sparse.csr_array:
        return self._shared_matrix("K")

    @cached_property
    def _unit_M(self) -> sparse.csr_array:
        return self._shared_matrix("M")

    def _shared_matrix(self, name: str) -> sparse.csr_array:
        n_3 = len(self._grid.node_of_dof)
        return from_parts({p: self.arrays[f"shared/{name}.{p}"] for p in CSR}, n_3)

    def _build(self, i: int) -> Problem:
        def part(name: str) -> NDArray[Any]:
            start, end = self.arrays[f"offsets/{name}"][i : i + 2]
            return self.arrays[f"problems/{name}"][start:end].copy()

        def matrix(name: str, num_columns: int) -> sparse.csr_array:
            return from_parts({p: part(f"{name}.{p}") for p in CSR}, num_columns)

        n_3, n_1 = len(self._grid.node_of_dof), len(part("A_11.row_lengths"))
        parameters: dict[str, Any] = {}
        for f in fields(Draw):
            column = self.arrays.get(f"parameters/{f.name}")
            parameters[f.name] = f.default if column is None else column[i].item()
        parameters["generator"] = self.distribution.generators[parameters["generator"]]
        k_3d, sigma_3d = parameters["k_3d"], parameters["sigma_3d"]
        if has_fields(self.distribution):
            log_k = part("log_k").reshape([n - 1 for n in self._grid.shape])
            tensor = diffusion_tensor(parameters["anisotropy"], part("fibres"))
            K = stiffness(self._grid, k_3d * np.exp(log_k.astype(np.float64)), tensor)
        else:
            K = self._unit_K if k_3d == 1.0 else k_3d * self._unit_K
        inlet_loads_3 = matrix("inlet_loads_3", n_3).T.tocsr()
        inlet_loads_1 = matrix("inlet_loads_1", n_1).T.tocsr()
        reduced = ReducedSystem(
            K=K,
            M=self._unit_M if sigma_3d == 1.0 else sigma_3d * self._unit_M,
            Pi=unit_rows(matrix("Pi", n_3)),
            N=matrix("N", n_1),
            A_11=matrix("A_11", n_1),
            b_3=inlet_loads_3.sum(axis=1),
            b_1=inlet_loads_1.sum(axis=1),
            grid=self._grid,
            **{name: part(name) for name in VECTORS},
        )
        return Problem(reduced, inlet_loads_3, inlet_loads_1, MappingProxyType(parameters))


def has_fields(distribution: ProblemDistribution) -> bool:
    """Whether each problem has its own diffusion field, in the arrays of `FIELDS`."""
    return distribution.contrast[1] > 1.0 or distribution.anisotropy[1] > 1.0


CSR: Final = ("data", "indices", "row_lengths")


def to_parts(A: sparse.csr_array) -> dict[str, NDArray[Any]]:
    """Return the entries of a matrix, their columns, and the number of entries per row."""
    row_lengths = np.diff(A.indptr).astype(np.int32)
    return {"data": A.data, "indices": A.indices.astype(np.int32), "row_lengths": row_lengths}


def from_parts(parts: Mapping[str, NDArray[Any]], num_columns: int) -> sparse.csr_array:
    """Return the matrix of `to_parts`, in float64."""
    row_lengths = parts["row_lengths"]
    indptr = np.concatenate([[0], np.cumsum(row_lengths)]).astype(np.int32)
    content = (parts["data"].astype(np.float64), parts["indices"], indptr)
    return sparse.csr_array(content, shape=(len(row_lengths), num_columns))


def unit_rows(Pi: sparse.csr_array) -> sparse.csr_array:
    """Scale rows that were stored in single precision to the sum 1, to average constants exactly.

    Then S 1 - g = M 1 holds to rounding for u_1d = 1 at the inlets, as before storage.
    """
    sums = np.repeat(Pi.sum(axis=1), np.diff(Pi.indptr))
    return sparse.csr_array((Pi.data / sums, Pi.indices, Pi.indptr), shape=Pi.shape)


def content_hash(
    arrays: Mapping[str, NDArray[Any]], distribution: ProblemDistribution, seed: int
) -> str:
    """Return the SHA-256 of the content of a data set, independent of its compression."""
    digest = hashlib.sha256(f"{FORMAT} {to_json(distribution)} {seed}".encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def load_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Read a data set into memory and check it against its hash.

    Args:
        path: A file written by `learning.problems.generation.generate`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another format, or damaged, or its arrays claim more memory than is
            free.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"got {os.fspath(path)!r}, which is no file; wanted a data set. Write one with "
            "python -m learning generate."
        )
    try:
        with h5py.File(path) as file:
            attributes = dict(file.attrs)
            if int(attributes["format"]) != FORMAT:
                raise ValueError(f"it has format {attributes['format']}, this version {FORMAT}")
            datasets = {f"{g}/{name}": d for g in file for name, d in file[g].items()}
            # Parts that were never written take no place in the file, but do in memory.
            claims = (math.prod(d.shape) * d.dtype.itemsize for d in datasets.values())
            check_claim(path, sum(claims))
            arrays = {name: d[()] for name, d in datasets.items()}
        distribution, seed = from_json(attributes["distribution"]), int(attributes["seed"])
        if content_hash(arrays, distribution, seed) != attributes["content_hash"]:
            raise ValueError("its content does not match its hash")
        versions = MappingProxyType(json.loads(attributes["versions"]))
    except MemoryClaimError:
        raise
    except Exception as error:  # a damaged file may raise any exception
        raise ValueError(
            f"got {os.fspath(path)!r}, which is no complete data set ({error}); wanted a file "
            "written by this version of learning. Check the path, or generate the data set again."
        ) from error
    return Dataset(path, distribution, seed, versions, attributes["content_hash"], arrays)


# --- Right-hand sides -------------------------------------------------------------------------


def check_families(families: Sequence[str]) -> None:
    """Raise ValueError unless these are some of `FAMILIES`."""
    if not families or set(families) - set(FAMILIES):
        raise ValueError(
            f"got families of right-hand sides {tuple(families)}; wanted some of {FAMILIES}. "
            "Correct the names."
        )


def right_hand_side(problem: Problem, family: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a right-hand side of the reduced system.

    - "canonical": g, with u_1d = 1 at every inlet and no source, as in the paper; it is not random.
      A constant nearly solves it, since S 1 - g = M 1 contains only the reaction.
    - "physical": inlet values uniform in [0, 2], plus a smooth source and uptake in the tissue of
      the same norm.
    - "random": Gaussian.

    Args:
        problem: Of a data set.
        family: One of the above.
        rng: Random number generator.

    Returns:
        Shape (n_3,), of Euclidean norm 1, in DOLFINx dof order.

    Raises:
        ValueError: If the family is another one.
    """
    if family == "canonical":
        b = problem.reduced.g
    elif family == "physical":
        inlets = _inlet_part(problem, rng.uniform(0.0, 2.0, problem.inlet_loads_1.shape[1]))
        source = problem.reduced.M @ _smooth_field(problem.reduced.grid, rng)
        b = inlets + source * (np.linalg.norm(inlets) / np.linalg.norm(source))
    elif family == "random":
        b = rng.standard_normal(len(problem.reduced.b_3))
    else:
        raise ValueError(f"got family={family!r}; wanted one of {', '.join(FAMILIES)}. Choose one.")
    return b / np.linalg.norm(b)


def _inlet_part(problem: Problem, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return g for these values of u_1d at the inlets."""
    reduced = problem.reduced
    network = reduced.solve_11(problem.inlet_loads_1 @ values)
    return problem.inlet_loads_3 @ values + reduced.exchange_3(network)


def _smooth_field(grid: Grid | None, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return dof values of six cosine modes of the box, wave numbers 0 to 3, normal amplitudes."""
    if grid is None:
        raise ValueError(
            "got a problem without a grid; wanted one on a structured box. Draw another family."
        )
    wave_numbers = rng.integers(0, 3, (6, 3), endpoint=True)
    amplitudes = rng.standard_normal(6)
    axes = [np.pi * np.linspace(0.0, 1.0, n) for n in grid.shape]
    modes = [np.cos(np.multiply.outer(k, x)) for k, x in zip(wave_numbers.T, axes, strict=True)]
    return grid.to_dofs(np.einsum("m,mi,mj,mk->ijk", amplitudes, *modes))

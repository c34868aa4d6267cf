"""Generate problems with `mixeddim` and write them to a file; the only module that uses DOLFINx.

Each finished problem is stored in the folder `<path>.parts` until all are complete, so that an
interrupted run can be resumed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, fields, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tqdm import tqdm

import mixeddim as md
from learning.problems.data import (
    CSR,
    FIELDS,
    FORMAT,
    GRID,
    MATRICES,
    VECTORS,
    Dataset,
    content_hash,
    from_parts,
    has_fields,
    load_dataset,
    to_parts,
    unit_rows,
)
from learning.problems.distributions import LOG_UNIFORM, Draw, ProblemDistribution, to_json
from learning.problems.stiffness import smooth_field
from mixeddim.tensors import replacing

__all__ = ["draw", "generate", "in_tissue", "inlet_loads"]

FIELD = 4  # keeps the seeds of diffusion apart from those of graphs
_OF_THE_TISSUE = ("k_3d", "sigma_3d", "contrast", "anisotropy", "fibres")


def generate(
    distribution: ProblemDistribution,
    num_problems: int,
    seed: int,
    path: str | os.PathLike[str],
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Dataset:
    """Draw problems, assemble them in parallel, and write them to one file.

    The content depends only on the first three arguments; a larger number of problems from the same
    seed begins with the same ones. Distributions with the same ranges of network and generator have
    the same graphs for the same seed: evaluate on another seed than you trained on. Processes are
    spawned, so a script has to call this under `if __name__ == "__main__":`.

    Args:
        distribution: Distribution of the problems; `DISTRIBUTIONS` names some.
        num_problems: At least 1.
        seed: Not negative.
        path: HDF5 file to write. If it already holds the same problems, nothing is done.
        processes: Number of processes; by default one per core.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If an argument is out of range, the path holds other problems, or mixeddim
            cannot build one.
    """
    processes = (os.cpu_count() or 1) if processes is None else processes
    if num_problems < 1 or seed < 0 or processes < 1:
        raise ValueError(
            f"got num_problems={num_problems}, seed={seed}, processes={processes}; wanted at "
            "least one problem, a seed that is not negative, and at least one process. Raise them."
        )
    path = Path(path)
    parts = path.with_name(path.name + ".parts")
    if path.exists():
        dataset = _existing(path, distribution, num_problems, seed)
        shutil.rmtree(parts, ignore_errors=True)  # left by a run killed after writing the file
        return dataset
    versions = _versions()
    _open_parts(parts, {"distribution": asdict(distribution), "seed": seed, "versions": versions})
    missing = [i for i in range(num_problems) if not _part(parts, i).exists()]
    with tqdm(
        desc=path.name,
        total=num_problems,
        initial=num_problems - len(missing),
        unit="problem",
        disable=not progress,
    ) as bar:
        for _ in _run(partial(_write_part, distribution, seed, parts), missing, processes):
            bar.update()
    _write_dataset(path, parts, distribution, num_problems, seed, versions)
    dataset = load_dataset(path)
    shutil.rmtree(parts)
    return dataset


def in_tissue(dataset: Dataset, distribution: ProblemDistribution) -> Dataset:
    """Return the networks of a data set in the tissue of another distribution.

    It equals what `generate` draws from the other distribution with the same seed, and needs no
    DOLFINx: networks do not depend on the tissue.

    Args:
        dataset: Any.
        distribution: Like that of the data set, but for k_3d, sigma_3d, contrast, anisotropy and
            fibres.

    Raises:
        ValueError: If they differ in something else.
    """
    wanted, found = asdict(distribution), asdict(dataset.distribution)
    differing = [n for n in wanted if n not in _OF_THE_TISSUE and wanted[n] != found[n]]
    if differing:
        raise ValueError(
            f"got {', '.join(f'{n}={wanted[n]}' for n in differing)} for networks of "
            f"{', '.join(f'{n}={found[n]}' for n in differing)}; wanted another tissue alone. "
            "Generate a data set."
        )
    draws = [draw(distribution, dataset.seed, i) for i in range(len(dataset))]
    arrays = {
        name: array
        for name, array in dataset.arrays.items()
        if not name.startswith("parameters/") and name.split("/")[-1] not in FIELDS
    } | _parameters(draws, distribution)
    if has_fields(distribution):
        drawn = [_fields(one, distribution) for one in draws]
        for name in FIELDS:
            arrays |= _joined(name, [one[name] for one in drawn])
    digest = content_hash(arrays, distribution, dataset.seed)
    return replace(
        dataset, distribution=distribution, content_hash=digest, arrays=arrays, _built={}
    )


def draw(distribution: ProblemDistribution, seed: int, i: int) -> Draw:
    """Draw the numbers of problem i.

    Each has its own uniform variate, so that a change of one range does not change the others.
    """
    u = np.random.default_rng([seed, i]).random(3 + len(LOG_UNIFORM))
    low, high = distribution.num_nodes
    log_uniform = {}
    for name, t in zip(LOG_UNIFORM, u[3:], strict=True):
        a, b = getattr(distribution, name)
        log_uniform[name] = a if a == b else float(min(max(a * (b / a) ** t, a), b))
    return Draw(
        generator=distribution.generators[int(u[0] * len(distribution.generators))],
        seed=int(u[1] * 2**31),
        num_nodes=low + int(u[2] * (high - low + 1)),
        **log_uniform,
    )


def inlet_loads(system: md.CoupledSystem) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return the right-hand sides for u_1d = 1 at one inlet and 0 at the others.

    They are linear in the inlet values: b_3 = loads_3 @ values and b_1 = loads_1 @ values.

    Args:
        system: Without sources and boundary loads, with Dirichlet values only at inlets.

    Returns:
        loads_3, shape (n_3, num_inlets), and loads_1, shape (n_1, num_inlets); the inlets in the
        order of their dofs, `system.side_1d.dirichlet_dofs`.
    """
    side = system.side_1d
    at_rest, is_free = np.zeros(len(system.side_3d.f)), side.is_free
    columns_3, columns_1 = [], []
    for dof in side.dirichlet_dofs:
        value = np.zeros(len(side.f))
        value[dof] = 1.0
        residual_3d, residual_1d = system.unconstrained_residual(at_rest, value)
        columns_3.append(sparse.csr_array(-residual_3d[:, None]))
        b_1 = np.where(is_free, -residual_1d, value * side.dirichlet_diagonal)
        columns_1.append(sparse.csr_array(b_1[:, None]))
    return sparse.hstack(columns_3, format="csr"), sparse.hstack(columns_1, format="csr")


# --- Parts ------------------------------------------------------------------------------------


def _existing(
    path: Path, distribution: ProblemDistribution, num_problems: int, seed: int
) -> Dataset:
    """Return the data set of a path if it holds the wanted problems."""
    dataset = load_dataset(path)
    found = {"num_problems": len(dataset), "seed": dataset.seed, **asdict(dataset.distribution)}
    wanted = {"num_problems": num_problems, "seed": seed, **asdict(distribution)}
    names = [name for name in wanted if found[name] != wanted[name]]
    if names:
        raise ValueError(
            f"got {os.fspath(path)!r}, which holds {', '.join(f'{n}={found[n]}' for n in names)}; "
            f"wanted {', '.join(f'{n}={wanted[n]}' for n in names)}. Choose another path or delete "
            "the file."
        )
    return dataset


def _open_parts(parts: Path, configuration: dict[str, Any]) -> None:
    """Create the folder of parts, or continue one of the same configuration."""
    file, text = parts / "configuration.json", json.dumps(configuration, sort_keys=True)
    if parts.exists() and any(parts.glob("[0-9]*.npz")):
        found = file.read_text() if file.exists() else "an unknown configuration"
        if found != text:
            raise ValueError(
                f"got {os.fspath(parts)!r}, unfinished problems of {found}; wanted {text}. "
                "Choose another path or delete the folder."
            )
    else:
        with replacing(file) as part:
            part.write_text(text)


def _part(parts: Path, i: int) -> Path:
    return parts / f"{i:06d}.npz"


def _run(write: partial[None], missing: list[int], processes: int) -> Iterator[None]:
    """Write the missing problems, in this process or in several."""
    if min(processes, len(missing)) <= 1:
        yield from map(write, missing)
        return
    # Spawned, since a fork breaks MPI and the threads of the parent.
    with ProcessPoolExecutor(min(processes, len(missing)), get_context("spawn")) as executor:
        try:
            yield from executor.map(write, missing)
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def _write_part(distribution: ProblemDistribution, seed: int, parts: Path, i: int) -> None:
    drawn = draw(distribution, seed, i)
    try:
        arrays = _assemble(drawn, distribution.num_cells)
        if has_fields(distribution):
            arrays |= _fields(drawn, distribution)
    except ValueError as error:
        raise ValueError(
            f"got problem {i} of seed {seed}, {drawn}, which cannot be built: {error} Wanted a "
            "network that fits into the unit cube. Narrow the ranges of the distribution."
        ) from error
    with replacing(_part(parts, i)) as part:
        np.savez(part, **arrays)


def _read_part(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as file:
        return dict(file)


@lru_cache(maxsize=1)
def _box(num_cells: int) -> md.StructuredBox:
    return md.create_box(num_cells)


def _assemble(drawn: Draw, num_cells: int) -> dict[str, Any]:
    """Return the arrays of one problem, and keep no mesh: a process has room for some 150."""
    box = _box(num_cells)
    graph = md.random_vascular_graph(
        drawn.num_nodes, drawn.radius, drawn.seed, method=drawn.generator
    )
    coefficients = md.Coefficients(
        k_3d=drawn.k_3d,
        sigma_3d=drawn.sigma_3d,
        k_1d=drawn.k_1d,
        permeability=drawn.permeability,
    )
    system = md.assemble(box, md.create_network(graph, box.spacing), coefficients)
    # Stored in single precision; all else is computed as if these means were exact.
    Pi = system.coupling.Pi.sorted_indices().astype(np.float32)
    exact = unit_rows(from_parts(to_parts(Pi), Pi.shape[1]))
    system = replace(system, coupling=replace(system.coupling, Pi=exact))
    loads_3, loads_1 = inlet_loads(system)
    A_11 = _symmetric(system.A_11)
    matrices = (Pi, system.N, A_11, loads_3.T.tocsr(), loads_1.T.tocsr())
    arrays = {name: getattr(system.coupling, name) for name in VECTORS}
    for name, A in zip(MATRICES, matrices, strict=True):
        arrays |= {f"{name}.{part}": array for part, array in to_parts(A).items()}
    return arrays


def _fields(drawn: Draw, distribution: ProblemDistribution) -> dict[str, Any]:
    """Draw the diffusion of the tissue, from the graph's seed but independent of the graph."""
    rng = np.random.default_rng([FIELD, drawn.seed])
    log_k = np.log(drawn.contrast) * smooth_field(distribution.num_cells, rng)
    oblique = rng.standard_normal(3)
    axes = {"x": [1.0, 0.0, 0.0], "y": [0.0, 1.0, 0.0], "z": [0.0, 0.0, 1.0]}
    fibres = np.array(axes.get(distribution.fibres, oblique / np.linalg.norm(oblique)))
    return {"log_k": log_k.ravel().astype(np.float32), "fibres": fibres}


# --- The file ---------------------------------------------------------------------------------


def _write_dataset(
    path: Path,
    parts: Path,
    distribution: ProblemDistribution,
    num_problems: int,
    seed: int,
    versions: dict[str, str],
) -> None:
    """Join the parts into one file."""
    arrays = _shared(distribution.num_cells)
    arrays |= _parameters([draw(distribution, seed, i) for i in range(num_problems)], distribution)
    problems = [_read_part(_part(parts, i)) for i in range(num_problems)]
    ragged_names = [*VECTORS, *(f"{name}.{part}" for name in MATRICES for part in CSR)]
    if has_fields(distribution):
        ragged_names += FIELDS
    for name in ragged_names:
        arrays |= _joined(name, [problem[name] for problem in problems])
    with replacing(path) as part, h5py.File(part, "w") as file:
        for name, array in arrays.items():
            chunks = (min(len(array), 2**16), *array.shape[1:])
            file.create_dataset(name, data=array, chunks=chunks, compression=6, shuffle=True)
        file.attrs["format"] = FORMAT
        file.attrs["distribution"] = to_json(distribution)
        file.attrs["seed"] = seed
        file.attrs["num_problems"] = num_problems
        file.attrs["versions"] = json.dumps(versions)
        file.attrs["content_hash"] = content_hash(arrays, distribution, seed)


def _joined(name: str, ragged: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of all problems as one, and where each begins."""
    ends = np.cumsum([0, *map(len, ragged)])
    return {f"problems/{name}": np.concatenate(ragged), f"offsets/{name}": ends}


def _shared(num_cells: int) -> dict[str, NDArray[Any]]:
    """Return the grid, and K and M of unit coefficients, which are the same for all networks."""
    box = _box(num_cells)
    network = md.create_network(md.random_vascular_graph(2, 0.05, seed=0), box.spacing)
    system = md.assemble(box, network, md.Coefficients(k_3d=1.0, sigma_3d=1.0))
    arrays = {f"shared/grid.{name}": np.asarray(getattr(system.grid, name)) for name in GRID}
    for name, A in (("K", system.K), ("M", system.M)):
        parts = to_parts(_symmetric(A))
        arrays |= {f"shared/{name}.{part}": array for part, array in parts.items()}
    return arrays


def _symmetric(A: sparse.csr_array) -> sparse.csr_array:
    """Return an exactly symmetric copy of a matrix that is symmetric to rounding."""
    return ((A + A.T) / 2).tocsr()


def _parameters(draws: list[Draw], distribution: ProblemDistribution) -> dict[str, NDArray[Any]]:
    """Return one column per parameter, the generator as its index in the distribution."""
    columns = zip(*map(astuple, draws), strict=True)
    named = dict(zip((field.name for field in fields(Draw)), columns, strict=True))
    named["generator"] = tuple(distribution.generators.index(name) for name in named["generator"])
    if not has_fields(distribution):
        del named["contrast"], named["anisotropy"]
    return {f"parameters/{name}": np.array(column) for name, column in named.items()}


def _versions() -> dict[str, str]:
    _box(1)  # loads all packages
    packages = ("dolfinx", "mixeddim", "networkx", "numpy", "scipy")
    versions = {name: sys.modules[name].__version__ for name in packages}
    return {"Python": platform.python_version(), **versions}

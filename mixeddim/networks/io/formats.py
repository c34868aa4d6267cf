"""The reader and the writer of a file, by its suffix."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import networkx as nx

from mixeddim.networks.io.dgf import read_dgf, write_dgf
from mixeddim.networks.io.graphml import read_graphml, write_graphml
from mixeddim.networks.io.manworks import read_manworks
from mixeddim.networks.io.polylines import read_vtk, write_vtp
from mixeddim.networks.io.secomb import read_secomb
from mixeddim.networks.io.swc import read_swc
from mixeddim.networks.io.tables import read_csv, write_csv

__all__ = ["READERS", "WRITERS", "read_network", "write_network"]

READERS: Final[Mapping[str, Callable[..., nx.Graph]]] = MappingProxyType(
    {
        ".csv": read_csv,
        ".dat": read_secomb,
        ".dgf": read_dgf,
        ".graphml": read_graphml,
        ".pts": read_manworks,
        ".swc": read_swc,
        ".vtk": read_vtk,
        ".vtp": read_vtk,
    }
)
WRITERS: Final[Mapping[str, Callable[..., Path]]] = MappingProxyType(
    {".csv": write_csv, ".dgf": write_dgf, ".graphml": write_graphml, ".vtp": write_vtp}
)


def read_network(path: str | os.PathLike[str], **options: Any) -> nx.Graph:
    """Read a network in the format that the suffix of its file tells.

    Args:
        path: The file: `.csv` (the table of nodes), `.dat` (Secomb), `.dgf`, `.graphml`, `.pts`
            (MANworks), `.swc`, `.vtk` or `.vtp`.
        options: Those of the format's own reader in `mixeddim.networks.io`: `length_unit` (not of
            `.dat`), `diameter` (`.csv`, `.graphml`, `.vtk`, `.vtp`), `decimal` (`.csv`),
            `omit_types` (`.swc`) and others.

    Returns:
        A graph; its units are those of the file times `length_unit`, of `.swc` m, of `.dat` m, Pa
        and m³/s.

    Raises:
        NetworkFileError: if the file does not hold a network.
        FileNotFoundError: if there is no such file.
        ValueError: if the suffix is unknown.
    """
    return _choose(READERS, path)(path, **options)


def write_network(graph: nx.Graph, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write a network, to the last digit, in the format that the suffix of the file tells.

    Args:
        graph: A network. Its attributes that are numbers or booleans go along.
        path: The file: `.csv` (the table of nodes), `.dgf`, `.graphml` or `.vtp`.
        options: Those of the format's own writer in `mixeddim.networks.io`.

    Returns:
        The path.

    Raises:
        ValueError: if the suffix is unknown, or the format cannot hold the graph.
    """
    return _choose(WRITERS, path)(graph, path, **options)


def _choose[Function](functions: Mapping[str, Function], path: str | os.PathLike[str]) -> Function:
    suffix = Path(path).suffix.lower()
    if suffix not in functions:
        raise ValueError(
            f"got the file {os.fspath(path)!r}; wanted one that ends in {', '.join(functions)}. "
            "Rename it, or convert it to one of these formats."
        )
    return functions[suffix]

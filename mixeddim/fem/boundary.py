"""Boundary conditions on the faces of the tissue and at the ends of the network."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass

import dolfinx
import numpy as np
from numpy.typing import NDArray

from mixeddim.fem.forms import Coefficient, check_number
from mixeddim.fem.meshes import Network, StructuredBox, VertexTag
from mixeddim.processes import Processes

__all__ = [
    "BoundaryCondition",
    "Dirichlet",
    "Neumann",
    "Place",
    "Robin",
    "find_facets",
    "find_vertices",
]

type Place = str | Callable[[NDArray[np.float64]], NDArray[np.bool_]]
"""The place of a condition.

For the tissue: "boundary", or on a structured box a face such as "x_min" or "z_max". For the
network: "inlets", "ends" (end points that are not inlets) or "inlets and ends". For both: a DOLFINx
marker, a function from points, shape (3, n), to booleans, shape (n,).
"""


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """u = value. Where two conditions meet, the later one in the list applies."""

    on: Place
    value: Coefficient = 1.0


@dataclass(frozen=True, eq=False)
class Neumann:
    """k du/dn = flux into the domain: per area on a face, an amount at an end of the network."""

    on: Place
    flux: Coefficient


@dataclass(frozen=True, eq=False)
class Robin:
    """k du/dn = coefficient (value - u), with a non-negative coefficient."""

    on: Place
    coefficient: Coefficient
    value: Coefficient = 0.0

    def __post_init__(self) -> None:
        check_number("Robin coefficient", self.coefficient, positive=False)


type BoundaryCondition = Dirichlet | Neumann | Robin

_FACES = {"x_min": (0, 0), "x_max": (0, 1), "y_min": (1, 0), "y_max": (1, 1)}
_FACES |= {"z_min": (2, 0), "z_max": (2, 1)}
_ENDS = {
    "inlets": (VertexTag.INLET,),
    "ends": (VertexTag.END,),
    "inlets and ends": (VertexTag.INLET, VertexTag.END),
}


def find_facets(tissue: StructuredBox | dolfinx.mesh.Mesh, on: Place) -> NDArray[np.int32]:
    """Return the boundary facets of the tissue at a place, sorted.

    Raises:
        ValueError: If the place is unknown or holds no facet.
    """
    mesh = tissue.mesh if isinstance(tissue, StructuredBox) else tissue
    marker = on if callable(on) else _face_marker(tissue, on)
    mesh.topology.create_connectivity(2, 3)  # what follows does not communicate
    processes = Processes.of(mesh)
    with processes.together():
        facets = dolfinx.mesh.locate_entities_boundary(mesh, 2, marker)
    if not processes.any(len(facets) > 0):
        raise ValueError(
            f"got a boundary condition on {on!r}, which holds no facet of the tissue; wanted at "
            "least one. Mark points on the boundary, with a tolerance for rounding."
        )
    return np.sort(facets)


def find_vertices(network: Network, on: Place) -> NDArray[np.int32]:
    """Return the vertices of the network mesh at a place, sorted.

    Raises:
        ValueError: If the place is unknown or holds no vertex.
    """
    if callable(on):
        vertices = dolfinx.mesh.locate_entities(network.mesh, 0, on)
    elif on in _ENDS:
        tags = network.vertex_tags
        vertices = tags.indices[np.isin(tags.values, _ENDS[on])]
    else:
        raise ValueError(
            f"got a network condition on {on!r}; wanted one of {sorted(_ENDS)} or a marker "
            "function."
        )
    if len(vertices) == 0:
        raise ValueError(
            f"got a boundary condition on {on!r}, which holds no vertex of the network; wanted at "
            "least one. Check the marker, or set graph.nodes[n]['inlet'] = True."
        )
    return np.sort(vertices)


def _face_marker(
    tissue: StructuredBox | dolfinx.mesh.Mesh, on: str
) -> Callable[[NDArray[np.float64]], NDArray[np.bool_]]:
    if on == "boundary":
        return lambda x: np.ones(x.shape[1], dtype=bool)
    if not isinstance(tissue, StructuredBox) or on not in _FACES:
        raise ValueError(
            f"got a tissue condition on {on!r}; wanted 'boundary', one of {sorted(_FACES)} of a "
            "StructuredBox, or a marker function."
        )
    axis, side = _FACES[on]
    position = (tissue.lower, tissue.upper)[side][axis]
    tolerance = 1e-8 * tissue.cell_size[axis]
    return lambda x: np.abs(x[axis] - position) < tolerance

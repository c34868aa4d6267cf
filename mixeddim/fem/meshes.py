"""The two meshes: a structured box for the tissue, line segments for the network.

On several processes DOLFINx distributes the tissue. The network lies whole on each process, on a
mesh of its own made from the same graph: its dofs are few beside those of the tissue, its sparse
factors are cheap, and a vessel that leaves a process for another asks for no thought anywhere.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, get_args

import basix.ufl
import dolfinx
import networkx as nx
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from mixeddim.fem.grid import CellType, Grid
from mixeddim.fem.segments import subdivide
from mixeddim.networks.graphs import (
    NetworkError,
    edge_indices,
    edge_outer_radii,
    edge_radii,
    inlet_mask,
    node_positions,
    validate_graph,
)
from mixeddim.processes import ALONE, Processes

__all__ = ["Network", "StructuredBox", "VertexTag", "create_box", "create_network"]


@dataclass(frozen=True, eq=False)
class StructuredBox:
    """A box cut into equal cuboids: of six tetrahedra each (Kuhn's subdivision), or hexahedra.

    Attributes:
        mesh: The DOLFINx mesh.
        num_cells: Number of cuboids along x, y, z.
        lower: Corner with the smallest coordinates, shape (3,).
        upper: Corner with the largest coordinates, shape (3,).
        cell_type: "tetrahedron" or "hexahedron".
    """

    mesh: dolfinx.mesh.Mesh
    num_cells: tuple[int, int, int]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    cell_type: CellType = "tetrahedron"

    @cached_property
    def P1(self) -> dolfinx.fem.FunctionSpace:
        """Continuous functions, linear on each tetrahedron or trilinear on each hexahedron."""
        return dolfinx.fem.functionspace(self.mesh, ("Lagrange", 1))

    @cached_property
    def cell_of_original(self) -> NDArray[np.int32]:
        """The owned cell of each number that the box was made with, or -1, shape (num_all_cells,).

        DOLFINx numbers the cuboids with x running fastest, and six tetrahedra in each.
        """
        per_cuboid = 6 if self.cell_type == "tetrahedron" else 1
        cells = np.full(per_cuboid * int(np.prod(self.num_cells)), -1, dtype=np.int32)
        num_owned = self.mesh.topology.index_map(3).size_local
        original = self.mesh.topology.original_cell_index[:num_owned]
        cells[original] = np.arange(num_owned, dtype=np.int32)
        return cells

    @property
    def cell_size(self) -> NDArray[np.float64]:
        """Edge lengths of a cuboid, shape (3,), in the units of the coordinates."""
        return (self.upper - self.lower) / self.num_cells

    @property
    def spacing(self) -> float:
        """Shortest edge length of a cuboid: the mesh size h."""
        return float(self.cell_size.min())

    def grid(self, V: dolfinx.fem.FunctionSpace) -> Grid:
        """Return the grid of nodes and where the dofs of a P1 space sit on it.

        Args:
            V: Scalar P1 space on this box's mesh.

        Raises:
            ValueError: If the dofs are not the nodes of the grid.
        """
        nx, ny, nz = self.num_cells
        shape = (nx + 1, ny + 1, nz + 1)
        P1 = basix.ufl.element("Lagrange", self.cell_type, 1)
        if V.mesh is not self.mesh or V.ufl_element() != P1:
            raise ValueError(
                f"got a space of {V.ufl_element()}; wanted a scalar P1 space on this box's mesh. "
                "Use box.P1."
            )
        num_dofs = V.dofmap.index_map.size_local
        x = V.tabulate_dof_coordinates()[:num_dofs]
        index = np.rint((x - self.lower) / self.cell_size).astype(np.int64)
        node_of_dof = np.ravel_multi_index(tuple(index.T), shape)
        return Grid(shape, self.lower, self.cell_size, node_of_dof, self.cell_type)


def create_box(
    num_cells: int | Sequence[int],
    lower: Sequence[float] = (0.0, 0.0, 0.0),
    upper: Sequence[float] = (1.0, 1.0, 1.0),
    comm: MPI.Comm = MPI.COMM_WORLD,
    *,
    cell_type: CellType = "tetrahedron",
) -> StructuredBox:
    """Mesh a box with equal cuboids, each cut into six tetrahedra or left as a hexahedron.

    Both have the same nodes and unknowns. On hexahedra functions are trilinear: the mesh prefers no
    diagonal, and each row of the stiffness matrix has 27 entries instead of 7.

    Args:
        num_cells: Number of cuboids along each axis, or along (x, y, z).
        lower: Corner with the smallest coordinates.
        upper: Corner with the largest coordinates.
        comm: Communicator over which the mesh is distributed.
        cell_type: "tetrahedron" or "hexahedron".

    Raises:
        ValueError: If a number of cells is not a positive integer, the box has no volume, or the
            cell type is another one.
    """
    if cell_type not in get_args(CellType):
        raise ValueError(f"got cell_type={cell_type!r}; wanted one of {get_args(CellType)}.")
    counts = np.atleast_1d(num_cells)
    is_number = np.issubdtype(counts.dtype, np.number) and np.all(np.isfinite(counts))
    if counts.shape not in ((1,), (3,)) or not is_number or np.any(counts % 1) or counts.min() < 1:
        raise ValueError(
            f"got num_cells={num_cells}; wanted one positive integer or three, for x, y and z."
        )
    low, high = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    if low.shape != (3,) or high.shape != (3,) or not np.all(np.isfinite(high - low)):
        raise ValueError(f"got lower={lower}, upper={upper}; wanted three finite numbers each.")
    if not np.all(high > low):
        raise ValueError(
            f"got a box from {lower} to {upper}; wanted upper > lower along each axis. "
            "Swap or move the corners."
        )
    nx, ny, nz = (int(n) for n in np.broadcast_to(counts, 3))
    cell = dolfinx.mesh.CellType[cell_type]
    mesh = dolfinx.mesh.create_box(comm, [low, high], (nx, ny, nz), cell)
    return StructuredBox(mesh, (nx, ny, nz), low, high, cell_type)


class VertexTag(IntEnum):
    """The kind of a vertex of the network mesh; points inside an edge carry no tag."""

    INLET = 1
    END = 2
    JUNCTION = 3
    BEND = 4


@dataclass(frozen=True, eq=False, repr=False)
class Network:
    """A network mesh of straight segments in space, and the graph it came from.

    Attributes:
        mesh: DOLFINx mesh of topological dimension 1 and geometric dimension 3.
        graph: A frozen copy of the graph; edges are numbered in the order of `graph.edges`.
        edge_of_cell: Ordinal of the graph edge that a cell is part of, shape (num_cells,).
        vertex_tags: `VertexTag` of each vertex that is a node of the graph.
        comm: The communicator of the processes that hold it, each of them the whole.
    """

    mesh: dolfinx.mesh.Mesh
    graph: nx.Graph
    edge_of_cell: NDArray[np.int64]
    vertex_tags: dolfinx.mesh.MeshTags
    comm: MPI.Comm
    _edge_of_input: NDArray[np.int64]
    _position_of_input: NDArray[np.float64]

    def __repr__(self) -> str:
        nodes, edges = self.graph.number_of_nodes(), self.graph.number_of_edges()
        return f"Network({nodes} nodes, {edges} edges, {len(self.edge_of_cell)} segments)"

    @property
    def processes(self) -> Processes:
        """The processes that hold it, each of them the whole."""
        return Processes(self.comm) if self.comm.size > 1 else ALONE

    @cached_property
    def P1(self) -> dolfinx.fem.FunctionSpace:
        """Continuous piecewise linear functions on the network."""
        return dolfinx.fem.functionspace(self.mesh, ("Lagrange", 1))

    @cached_property
    def radius(self) -> dolfinx.fem.Function:
        """Radius of the edge that a cell is part of: a DG0 function, in units of length."""
        return self.edge_field("radius")

    @cached_property
    def outer_radius(self) -> dolfinx.fem.Function:
        """Radius of the wall's outside, by default the radius: a DG0 function, in length units."""
        outer = edge_outer_radii(self.graph)[self.edge_of_cell]
        return _piecewise_constant(self.mesh, outer, "outer_radius")

    @cached_property
    def tangent(self) -> dolfinx.fem.Function:
        """Unit vector from the first node of an edge to the second: a DG0 vector function."""
        positions, edges = node_positions(self.graph), edge_indices(self.graph)
        along = positions[edges[:, 1]] - positions[edges[:, 0]]
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        return _piecewise_constant(self.mesh, along[self.edge_of_cell], "tangent")

    def edge_field(self, attribute: str) -> dolfinx.fem.Function:
        """Return an edge attribute of the graph as a DG0 function.

        Args:
            attribute: Name of a number that every edge of the graph carries.

        Raises:
            ValueError: If an edge lacks the attribute.
        """
        return self.on_edges(
            _attribute_values(self.graph.edges(data=True), attribute, "edge"), attribute
        )

    def on_edges(self, values: NDArray[np.float64], name: str) -> dolfinx.fem.Function:
        """Return one number of each edge, shape (num_edges,), as a DG0 function."""
        return _piecewise_constant(self.mesh, values[self.edge_of_cell], name)

    def node_field(self, attribute: str) -> dolfinx.fem.Function:
        """Return a node attribute of the graph as a P1 function, linear along each edge.

        Args:
            attribute: Name of a number that every node of the graph carries.

        Raises:
            ValueError: If a node lacks the attribute.
        """
        return self.on_nodes(
            _attribute_values(self.graph.nodes(data=True), attribute, "node"), attribute
        )

    def on_nodes(self, at_nodes: NDArray[np.float64], name: str) -> dolfinx.fem.Function:
        """Return one number of each node, shape (num_nodes,), as a P1 function."""
        first, second = edge_indices(self.graph)[self._edge_of_input].T
        t = self._position_of_input
        at_inputs = (1.0 - t) * at_nodes[first] + t * at_nodes[second]
        field = dolfinx.fem.Function(self.P1, name=name)
        field.x.array[self._dof_of_geometry] = at_inputs[self.mesh.geometry.input_global_indices]
        return field

    @cached_property
    def segments(self) -> tuple[NDArray[Any], ...]:
        """First and last dof, length, and whether each runs along (1) or against (-1) its edge."""
        num_cells = len(self.edge_of_cell)
        start, end = self.P1.dofmap.list[:num_cells].T
        ends = self.mesh.geometry.x[self.mesh.geometry.dofmaps[0][:num_cells]]
        along = ends[:, 1] - ends[:, 0]
        tangent = self.tangent.x.array.reshape(-1, 3)[self.tangent.function_space.dofmap.list[:, 0]]
        sign = np.sign((along * tangent).sum(axis=1))
        return start, end, np.linalg.norm(along, axis=1), sign

    @cached_property
    def dof_of_node(self) -> NDArray[np.int32]:
        """The dof of `P1` at each node of the graph, shape (num_nodes,)."""
        dofs = np.empty_like(self._dof_of_geometry)
        dofs[self.mesh.geometry.input_global_indices] = self._dof_of_geometry
        return dofs[: self.graph.number_of_nodes()]

    @cached_property
    def _dof_of_geometry(self) -> NDArray[np.int32]:
        dofs = np.empty(len(self.mesh.geometry.x), dtype=np.int32)
        dofs[self.mesh.geometry.dofmaps[0].ravel()] = self.P1.dofmap.list.ravel()
        return dofs


def create_network(
    graph: nx.Graph, max_segment_length: float, comm: MPI.Comm = MPI.COMM_WORLD
) -> Network:
    """Mesh a graph: each edge becomes equal segments no longer than the given length.

    Args:
        graph: Network with node attributes `pos` and `inlet`, the edge attribute `radius` and
            optionally `outer_radius`.
        max_segment_length: Upper bound of the segment length; `box.spacing` suits a coupled
            problem.
        comm: The processes that get the network, each of them the whole: those of the tissue. The
            graph must be the same on each.

    Raises:
        NetworkError: If the graph is not a valid network (see `validate_graph`), or not the same
            on each process.
        ValueError: If the segment length is not positive.
    """
    processes = Processes(comm) if comm.size > 1 else ALONE
    with processes.together():
        validate_graph(graph)
        if not (np.isfinite(max_segment_length) and max_segment_length > 0):
            raise ValueError(
                f"got max_segment_length={max_segment_length}; wanted a positive length, "
                "such as box.spacing."
            )
    _check_same(graph, max_segment_length, processes)
    graph = nx.freeze(graph.copy())
    points, segments, edge_of_segment, edge_of_point, position = subdivide(
        node_positions(graph), edge_indices(graph), max_segment_length
    )
    mesh = dolfinx.mesh.create_mesh(
        MPI.COMM_SELF,
        segments,
        basix.ufl.element("Lagrange", "interval", 1, shape=(3,)),
        points,
        max_facet_to_cell_links=max(2, *(degree for _, degree in graph.degree)),
    )
    edge_of_cell = edge_of_segment[mesh.topology.original_cell_index]
    tags = _tag_vertices(mesh, graph)
    return Network(mesh, graph, edge_of_cell, tags, comm, edge_of_point, position)


def _check_same(graph: nx.Graph, max_segment_length: float, processes: Processes) -> None:
    """Refuse networks that differ between processes, which would compute with parts of each."""
    content = hashlib.sha256(np.float64(max_segment_length).tobytes())
    geometry = node_positions(graph), edge_radii(graph), edge_outer_radii(graph)
    for array in (*geometry, edge_indices(graph), inlet_mask(graph)):
        content.update(array.tobytes())
    digest = np.frombuffer(content.digest(), dtype=np.uint8)
    differs = (processes.join(digest[None]) != digest).any(axis=1)
    if processes.any(differs.any()):
        raise NetworkError(
            f"got another graph or segment length on some of {processes.size} processes than on "
            "others; wanted the same on each. Generate it from the same seed, read the same file, "
            "or send it from one: graph = comm.bcast(graph). For a problem of its own on each "
            "process pass comm=MPI.COMM_SELF to create_box and create_network."
        )


def _tag_vertices(mesh: dolfinx.mesh.Mesh, graph: nx.Graph) -> dolfinx.mesh.MeshTags:
    degree = np.array([d for _, d in graph.degree])
    tag_of_node = np.select(
        [inlet_mask(graph), degree == 1, degree > 2],
        [VertexTag.INLET, VertexTag.END, VertexTag.JUNCTION],
        VertexTag.BEND,
    ).astype(np.int32)
    mesh.topology.create_connectivity(1, 0)
    vertices = mesh.topology.connectivity(1, 0).array
    inputs = mesh.geometry.input_global_indices[mesh.geometry.dofmaps[0].ravel()]
    is_node = inputs < len(degree)
    vertices, first = np.unique(vertices[is_node], return_index=True)
    return dolfinx.mesh.meshtags(mesh, 0, vertices, tag_of_node[inputs[is_node][first]])


def _piecewise_constant(
    mesh: dolfinx.mesh.Mesh, cell_values: NDArray[np.float64], name: str
) -> dolfinx.fem.Function:
    element = ("DG", 0) if cell_values.ndim == 1 else ("DG", 0, cell_values.shape[1:])
    field = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element), name=name)
    cell_dofs = field.function_space.dofmap.list[: len(cell_values), 0]
    field.x.array.reshape(-1, *cell_values.shape[1:])[cell_dofs] = cell_values
    return field


def _attribute_values(items: Any, attribute: str, kind: str) -> NDArray[np.float64]:
    rows = list(items)
    missing = [row[:-1] for row in rows if attribute not in row[-1]]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(rows)} {kind}s carry no {attribute!r}, "
            f"the first is {kind} {missing[0]}; wanted a number on each. Set it on the graph."
        )
    return np.array([row[-1][attribute] for row in rows], dtype=float)

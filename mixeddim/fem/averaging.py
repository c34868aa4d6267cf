"""The averaging matrix Pi: from dofs of the tissue to means over the vessel wall.

Row i of Pi holds the weights that take a tissue function u to its mean T u around the i-th point
of the network. An averaging operator says which points that mean is made of; everything else
(finding cells, tabulating the basis, circles that leave the tissue) is common to all of them.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

import dolfinx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.fem.location import extent_of, locate
from mixeddim.fem.matrices import from_tissue, owned_columns
from mixeddim.fem.meshes import StructuredBox
from mixeddim.processes import Processes

__all__ = [
    "Averaging",
    "AveragingOperator",
    "CircleMean",
    "OutsidePolicy",
    "PointTrace",
    "Stencil",
    "average",
]

OutsidePolicy = Literal["raise", "renormalise", "drop", "clip"]


@dataclass(frozen=True)
class Stencil:
    """Points and weights whose weighted sums are the means.

    Attributes:
        rows: Ordinal of the network point that each stencil point belongs to, shape (m,).
        points: Shape (m, 3).
        weights: Shape (m,); those of one row sum to 1.
    """

    rows: NDArray[np.int64]
    points: NDArray[np.float64]
    weights: NDArray[np.float64]


class AveragingOperator(Protocol):
    """Anything that turns points of the network into a stencil in the tissue."""

    def stencil(
        self,
        centres: NDArray[np.float64],
        tangents: NDArray[np.float64],
        radii: NDArray[np.float64],
        spacing: float,
    ) -> Stencil:
        """Return the points and weights of the mean around each network point.

        Args:
            centres: Points of the network, shape (n, 3).
            tangents: Unit vectors along the network there, shape (n, 3).
            radii: Radii of the vessel there, shape (n,).
            spacing: Mesh size h of the tissue.
        """
        ...


@dataclass(frozen=True)
class CircleMean:
    """Mean over the circle of the vessel's outer radius in the plane normal to it.

    Equispaced points integrate periodic functions best; on a finite element function the kinks
    at cell faces limit the accuracy, so the number of points follows radius / h.
    (D'Angelo & Quarteroni 2008, doi:10.1142/S0218202508003108.)

    Attributes:
        num_points: Points on each circle. By default four for each length h of its
            circumference, 16 at least.
        phase: Angle of the first point [rad].
    """

    num_points: int | None = None
    phase: float = 0.0

    def __post_init__(self) -> None:
        if self.num_points is not None and self.num_points < 3:
            raise ValueError(
                f"got num_points={self.num_points}; wanted at least 3 points on a circle. "
                "Leave it out to let the number follow the radius."
            )

    def stencil(
        self,
        centres: NDArray[np.float64],
        tangents: NDArray[np.float64],
        radii: NDArray[np.float64],
        spacing: float,
    ) -> Stencil:
        """Place equispaced points of equal weight on each circle (see `AveragingOperator`)."""
        if self.num_points is None:
            count = np.maximum(16, 4 * np.ceil(2 * np.pi * radii / spacing).astype(np.int64))
        else:
            count = np.full(len(radii), self.num_points)
        rows = np.repeat(np.arange(len(radii)), count)
        position = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
        angle = self.phase + 2 * np.pi * position / count[rows]
        first, second = _normals(tangents)
        direction = np.cos(angle)[:, None] * first[rows] + np.sin(angle)[:, None] * second[rows]
        points = centres[rows] + radii[rows, None] * direction
        return Stencil(rows, points, 1.0 / count[rows])


@dataclass(frozen=True)
class PointTrace:
    """Value at the network point itself: the trace on the line."""

    def stencil(
        self,
        centres: NDArray[np.float64],
        tangents: NDArray[np.float64],  # noqa: ARG002
        radii: NDArray[np.float64],  # noqa: ARG002
        spacing: float,  # noqa: ARG002
    ) -> Stencil:
        """Return the centres with weight 1 (see `AveragingOperator`)."""
        return Stencil(np.arange(len(centres)), centres, np.ones(len(centres)))


@dataclass(frozen=True)
class Averaging:
    """The averaging matrix and the network points it holds for.

    Attributes:
        Pi: Shape (number of points kept, number of dofs); where the tissue is distributed, a
            `mixeddim.algebra.distributed.FromTissue`.
        kept: Which of the network points have a row in Pi, shape (n,).
        share: The part of the wall conductance that acts at each point kept: the share of the
            stencil inside the tissue under "clip", else 1. Shape (number of points kept,).
        num_leaving: Number of points whose stencil leaves the tissue.
    """

    Pi: sparse.csr_array
    kept: NDArray[np.bool_]
    share: NDArray[np.float64]
    num_leaving: int


def average(
    tissue: StructuredBox | dolfinx.mesh.Mesh,
    V: dolfinx.fem.FunctionSpace,
    centres: NDArray[np.float64],
    tangents: NDArray[np.float64],
    radii: NDArray[np.float64],
    operator: AveragingOperator | None = None,
    outside: OutsidePolicy = "raise",
) -> Averaging:
    """Assemble the averaging matrix of a tissue space at points of a network.

    On several processes each passes the same points. A point of a stencil counts where its cell is
    owned, and where processes share a face, at the first that finds it.

    Args:
        tissue: The box, or mesh of straight-edged tetrahedra, that V lives on; on a box, points are
            located by arithmetic.
        V: Scalar Lagrange space of any degree on it.
        centres: Points of the network, shape (n, 3).
        tangents: Unit vectors along the network there, shape (n, 3).
        radii: Radii of the vessel there, shape (n,).
        operator: Which mean to take; the mean over the circle by default.
        outside: What to do with a stencil that leaves the tissue: "raise" an error; "clip" it to
            the part inside, over which the mean runs and whose share of the circle exchanges, and
            leave out points whose stencil lies wholly outside; "renormalise" to the mean over the
            part inside with the full exchange; or "drop" the network point, so that nothing is
            exchanged there. Under "clip" a stencil point on the boundary counts half.

    Raises:
        ValueError: If a radius exceeds the tissue; if a stencil leaves the tissue under "raise", or
            lies wholly outside under "renormalise"; if V is not scalar or not on the tissue's mesh;
            if the weights of a stencil do not sum to 1; if the policy is unknown.
    """
    if outside not in get_args(OutsidePolicy):
        raise ValueError(f"got outside={outside!r}; wanted one of {get_args(OutsidePolicy)}.")
    if V.dofmap.bs != 1 or V.element.basix_element.value_size != 1:
        raise ValueError(
            "got a vector-valued space; wanted a scalar Lagrange space. "
            "Average each component on its own."
        )
    mesh = tissue.mesh if isinstance(tissue, StructuredBox) else tissue
    if V.mesh is not mesh:
        raise ValueError("got a space on another mesh than the tissue's; wanted one on its mesh.")
    spacing = tissue.spacing if isinstance(tissue, StructuredBox) else _median_edge(mesh)
    _check_size(mesh, radii)
    num_points = len(centres)
    leaving, inside = np.zeros(num_points, dtype=bool), np.zeros(num_points)
    parts = []
    for start in range(0, max(num_points, 1), _CHUNK):
        here = slice(start, start + _CHUNK)
        stencil = (operator or CircleMean()).stencil(
            centres[here], tangents[here], radii[here], spacing
        )
        _check_sum(stencil, len(centres[here]))
        means, inside[here], leaving[here] = _means(
            tissue, V, stencil, len(centres[here]), clip=outside == "clip"
        )
        parts.append(means)
    _check_outside(outside, leaving, inside, centres, radii)
    kept = np.ones(num_points, dtype=bool)
    if outside == "drop":
        kept = ~leaving
    elif outside == "clip":
        kept = ~leaving | (inside > 0)
    # What is left of a stencil that leaves the tissue in part has the mean's weight again.
    scale = np.where(leaving & (inside > 0), 1.0 / np.where(inside > 0, inside, 1.0), 1.0)
    columns = sparse.vstack(parts, format="csr")
    columns.data *= np.repeat(scale, np.diff(columns.indptr))
    Pi = from_tissue(V, columns if kept.all() else columns[kept])
    share = np.where(leaving, inside, 1.0) if outside == "clip" else np.ones(num_points)
    return Averaging(Pi, kept, share[kept], int(leaving.sum()))


# Points of the network whose stencils are looked up at once: memory follows their number.
_CHUNK: Final = 100_000


def _means(
    tissue: StructuredBox | dolfinx.mesh.Mesh,
    V: dolfinx.fem.FunctionSpace,
    stencil: Stencil,
    num_rows: int,
    *,
    clip: bool,
) -> tuple[sparse.csr_array, NDArray[np.float64], NDArray[np.bool_]]:
    """Return the sums over stencils, the weight of each inside, and whether a part is outside.

    The matrix has the columns of the dofs that this process owns.
    """
    location = locate(tissue, stencil.points)
    found, mine = Processes.of(V.mesh).share_out(location.cells >= 0)
    leaving = np.zeros(num_rows, dtype=bool)
    leaving[stencil.rows[~found]] = True
    weights = stencil.weights
    if clip and leaving.any():
        cut = np.flatnonzero(found & leaving[stencil.rows])
        weights = weights.copy()
        weights[cut[_on_boundary(tissue, V.mesh, stencil.points[cut])]] *= 0.5
    inside = np.bincount(stencil.rows[found], weights[found], minlength=num_rows)
    basis = V.element.basix_element.tabulate(0, location.reference_points[mine])[0, :, :, 0]
    values = basis * weights[mine, None]
    columns = V.dofmap.list[location.cells[mine]]
    rows = np.repeat(stencil.rows[mine], columns.shape[1])
    return owned_columns(V, rows, columns.ravel(), values.ravel(), num_rows), inside, leaving


def _on_boundary(
    tissue: StructuredBox | dolfinx.mesh.Mesh,
    mesh: dolfinx.mesh.Mesh,
    points: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return which points of the tissue are on its boundary: a small step along an axis leaves."""
    step, processes = 1e-8 * extent_of(mesh), Processes.of(mesh)
    leaves = np.zeros(len(points), dtype=bool)
    for along in step * np.concatenate([np.eye(3), -np.eye(3)]):
        found, _ = processes.share_out(locate(tissue, points + along).cells >= 0)
        leaves |= ~found
    return leaves


def _check_sum(stencil: Stencil, num_rows: int) -> None:
    total = np.bincount(stencil.rows, stencil.weights, minlength=num_rows)
    if not np.allclose(total, 1.0, rtol=0.0, atol=1e-12):
        raise ValueError(
            f"got stencil weights that sum to {total[np.argmax(abs(total - 1.0))]:.6g} around a "
            "point; wanted 1, so that the mean of a constant is that constant. Divide by the sum."
        )


def _check_size(mesh: dolfinx.mesh.Mesh, radii: NDArray[np.float64]) -> None:
    """Refuse radii in another unit, whose circles would take more points than memory holds."""
    extent, largest = extent_of(mesh), float(radii.max(initial=0.0))
    if largest > extent:
        raise ValueError(
            f"got a vessel of radius {largest:.3g} in a tissue of extent {extent:.3g}; wanted "
            "network and box in the same unit. Pass length_unit= to read_network, or upper= to "
            "create_box, or use Scaling."
        )


def _check_outside(
    outside: OutsidePolicy,
    leaving: NDArray[np.bool_],
    inside: NDArray[np.float64],
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
) -> None:
    lost = leaving if outside == "raise" else (inside <= 0) & (outside == "renormalise")
    if not lost.any():
        return
    first = int(np.argmax(lost))
    where = f"the first around {centres[first].tolist()} with radius {radii[first]:.3g}"
    if outside == "raise":
        raise ValueError(
            f"{lost.sum()} of {len(lost)} circles leave the tissue, {where}; wanted all inside. "
            "Give network and box the same unit (Scaling) and place, keep the network a radius "
            "away from the boundary, or pass outside='clip' (exchange over the part inside), "
            "outside='renormalise' (mean over the part inside, full exchange) or outside='drop' "
            "(no exchange there)."
        )
    raise ValueError(
        f"{lost.sum()} of {len(lost)} circles lie wholly outside the tissue, {where}; wanted a "
        "part of each inside. Check units and position of the network, or pass outside='clip' or "
        "outside='drop'."
    )


def _normals(
    tangents: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Complete each unit tangent to a right-handed orthonormal frame."""
    axis = np.eye(3)[np.argmin(np.abs(tangents), axis=1)]
    first = np.cross(tangents, axis)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return first, np.cross(tangents, first)


def _median_edge(mesh: dolfinx.mesh.Mesh) -> float:
    mesh.topology.create_connectivity(1, 3)
    edges = np.arange(mesh.topology.index_map(1).size_local, dtype=np.int32)
    return float(np.median(Processes.of(mesh).join(mesh.h(1, edges))))

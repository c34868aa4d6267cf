"""Incomplete Cholesky factors of a stencil matrix on a grid, as a smoother for anisotropic tissue.

Errors that are smooth along fibres and oscillate across them hardly change the energy: a smoother
that divides by a diagonal leaves them behind, and a coarser grid does not see them where fibres run
obliquely. A factor passes a correction on from node to node along the whole fibre. With D diagonal
and L of unit diagonal, one entry for each neighbour of a node,

    A = L D L' - R        M = (L D L')^-1

where R holds the fill between nodes that are no neighbours (Meijerink & van der Vorst 1977,
doi:10.1090/S0025-5718-1977-0438681-4). A share of what is left out goes to both diagonal entries.
With the whole of it L D L' >= A, whatever the coefficients (Ajiz & Jennings 1984,
doi:10.1002/nme.1620200511); a smaller share damps less and is as safe in all that was measured.
The nodes are numbered so that fibres rise along all axes, and fastest along the slowest one: then
the fill along them falls between neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from learning import kernels
from learning.preconditioners.multigrid.stencils import FORWARD, OFFSETS
from learning.systems.sparse import LinearMap
from mixeddim.tensors import SymmetricProduct

__all__ = [
    "Factor",
    "InTurn",
    "Ordering",
    "incomplete_cholesky",
    "obliqueness_of",
    "tensors_of_stencils",
]

EXPECTED: Final = 0.1
OPPOSITE: Final = 0.7
"""Shares of the fill left out that go to the diagonal: of the sign of diffusion, of the other.

Where that leaves too small a pivot, all of it does.
"""

IS_ANISOTROPIC: Final = 2.0
"""Ratio of mean diffusions from which the order of the nodes follows the fibres."""


def tensors_of_stencils(stencils: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean diffusion tensors up to a factor, in units of cells, shape (batch, 3, 3).

    From the energy of linear functions, as `transfer.mean_diffusion` has it of a matrix.

    Args:
        stencils: Shape (batch, 27, nx, ny, nz).
    """
    sums = stencils.sum(axis=(2, 3, 4))
    offsets = np.array(OFFSETS, dtype=float)
    tensors: NDArray[np.float64] = -0.5 * np.einsum("bo,oi,oj->bij", sums, offsets, offsets)
    return tensors


def obliqueness_of(tensors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how anisotropic diffusion is that runs across the axes, shape (batch,).

    The largest over the smallest eigenvalue of the tensors (batch, 3, 3) scaled to ones on their
    diagonals: 1 for every anisotropy along the axes, which coarsening some of them evens out.
    """
    along = np.diagonal(tensors, axis1=1, axis2=2)
    scales = np.sqrt(np.where(along > 0.0, along, np.inf))  # Dirichlet conditions may leave less
    scaled = tensors / scales[:, :, None] / scales[:, None]
    scaled[:, range(3), range(3)] = 1.0
    strengths = np.linalg.eigvalsh(scaled)
    ratios: NDArray[np.float64] = strengths[:, -1] / np.maximum(
        strengths[:, 0], np.finfo(float).eps * np.abs(strengths[:, -1])
    )
    return ratios


@dataclass(frozen=True)
class Ordering:
    """An order of the nodes of a grid, from first to last.

    Attributes:
        axes: From the slowest to the fastest.
        signs: 1 where nodes ascend along an axis of these, -1 where they descend.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    signs: tuple[int, int, int] = (1, 1, 1)

    @classmethod
    def along_fibres(cls, tensor: NDArray[np.float64]) -> Ordering:
        """Return the order for a diffusion tensor, shape (3, 3)."""
        strengths, directions = np.linalg.eigh(tensor)
        if not strengths[-1] > IS_ANISOTROPIC * max(strengths[0], 0.0):
            return cls()
        fibre = directions[:, -1]
        x, y, z = (int(axis) for axis in np.argsort(-np.abs(fibre), kind="stable"))
        first = fibre[x]
        a, b, c = (-1 if fibre[axis] * first < 0.0 else 1 for axis in (x, y, z))
        return cls((x, y, z), (a, b, c))

    def offsets(self) -> NDArray[np.int64]:
        """Return the number in `OFFSETS` of each offset in this order, shape (27,)."""
        mine = np.zeros((27, 3), dtype=np.int64)
        mine[:, self.axes] = np.array(OFFSETS) * self.signs
        numbers: NDArray[np.int64] = (mine + 1) @ np.array([9, 3, 1])
        return numbers

    def strides(self, shape: Sequence[int]) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
        """Return the shape in this order, the first node, and the steps between nodes."""
        steps = (shape[1] * shape[2], shape[2], 1)
        first = sum(
            (shape[axis] - 1) * steps[axis]
            for axis, sign in zip(self.axes, self.signs, strict=True)
            if sign < 0
        )
        strides = tuple(s * steps[axis] for axis, s in zip(self.axes, self.signs, strict=True))
        return tuple(shape[axis] for axis in self.axes), first, strides


@dataclass(frozen=True, eq=False)
class Factor:
    """r -> (L D L')^-1 r for the matrix of one system.

    Attributes:
        upper: L' without its diagonal, in the order of the nodes, by plane, offset in `FORWARD` and
            node, shape (nx, 13, (ny + 2) (nz + 2)): each plane has a margin of zeros.
        inverse: D^-1, shape (nx, (ny + 2) (nz + 2)).
        shape: (nx, ny, nz).
        first: The first node.
        strides: From node to node along the axes.
    """

    upper: NDArray[Any]
    inverse: NDArray[Any]
    shape: tuple[int, ...]
    first: int
    strides: tuple[int, ...]

    @classmethod
    def of(
        cls, stencil: NDArray[np.float64], added: NDArray[np.float64], dtype: Any, order: Ordering
    ) -> Factor:
        """Factor one matrix.

        Args:
            stencil: Symmetric positive definite, shape (27, nx, ny, nz). Entries that lead out of
                the grid are bounded by the diagonal.
            added: To the diagonal, at each node.
            dtype: Of the vectors.
            order: Of the nodes.
        """
        shape, first, strides = order.strides(stencil.shape[1:])
        flat = np.ascontiguousarray(stencil).reshape(27, -1)
        for shares in ((EXPECTED, OPPOSITE), (1.0, 1.0)):
            entries, pivots = kernels.gather_entries(
                flat, np.ascontiguousarray(added).ravel(), order.offsets(), shape, first, strides
            )
            if kernels.factorise_incompletely(entries, pivots, _PAIRS, shape, *shares):
                break
        upper, inverse = kernels.pack_factors(entries, pivots, shape, np.zeros(1, dtype))
        return cls(upper, inverse, shape, first, strides)

    def __call__(self, r: NDArray[Any]) -> NDArray[Any]:
        """Return (L D L')^-1 r, for r in grid order."""
        x = np.empty_like(r)
        _, ny, nz = self.shape
        kernels.solve_incomplete(self.upper, self.inverse, r, x, ny, nz, self.first, self.strides)
        return x


def incomplete_cholesky(
    stencils: NDArray[np.float64], added: NDArray[np.float64], like: torch.Tensor
) -> LinearMap:
    """Return M = (L D L')^-1 for the matrices of a batch, symmetric positive definite.

    Args:
        stencils: Symmetric positive definite, shape (batch, 27, nx, ny, nz).
        added: To the diagonals, shape (batch n,).
        like: A tensor of dtype, device and shape (batch, n) of the vectors, on a CPU.

    Raises:
        NotImplementedError: On an accelerator.
        ModuleNotFoundError: Without numba.
    """
    if like.device.type != "cpu":
        raise NotImplementedError(
            f"got vectors on {like.device} for smoother='cholesky'; wanted a CPU, since nodes are "
            "solved one after the other. Move the systems, or choose another smoother."
        )
    if not kernels.ARE_COMPILED:
        raise ModuleNotFoundError(
            "got smoother='cholesky' without numba; wanted its compiler. Run pip install numba, or "
            "choose another smoother."
        )
    dtype = torch.empty(0, dtype=like.dtype).numpy().dtype
    tensors = tensors_of_stencils(stencils)
    factors = [
        Factor.of(stencil, diagonal, dtype, Ordering.along_fibres(tensor))
        for stencil, diagonal, tensor in zip(
            stencils, added.reshape(len(like), -1), tensors, strict=True
        )
    ]

    def solve(v: torch.Tensor) -> torch.Tensor:
        rows = v.detach().contiguous().numpy()
        return torch.from_numpy(
            np.stack([factor(row) for factor, row in zip(factors, rows, strict=True)])
        )

    def apply(r: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = SymmetricProduct.apply(r, solve) if r.requires_grad else solve(r)
        return result

    return apply


@dataclass(frozen=True, eq=False)
class InTurn:
    """One symmetric smoother after the other: not symmetric, but its transpose is the reverse.

    Attributes:
        first: r -> x.
        second: Smooths what the first has left.
        apply: S.
    """

    first: LinearMap
    second: LinearMap
    apply: LinearMap

    def __call__(self, r: torch.Tensor) -> torch.Tensor:
        """Return what both add to zero."""
        x = self.first(r)
        return x + self.second(r - self.apply(x))

    @property
    def T(self) -> InTurn:
        """The transpose."""
        return InTurn(self.second, self.first, self.apply)


def _pairs() -> NDArray[np.int64]:
    """Return which forward offset leads from one forward neighbour to another, or -1, (13, 13)."""
    forward = np.array(OFFSETS)[list(FORWARD)]
    pairs = np.full((13, 13), -1)
    for a, near in enumerate(forward):
        for b in range(a + 1, 13):
            step = tuple(forward[b] - near)
            if step in OFFSETS:
                pairs[a, b] = OFFSETS.index(step) - FORWARD[0]
    return pairs


_PAIRS: Final = _pairs()

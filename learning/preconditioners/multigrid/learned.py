"""The learned multigrid: a symmetric V-cycle whose smoothers a network computes once per system.

On every level S = A_0 + Pi' C Pi, and with D the row sums of |A_0|

    S_0 = (D / omega + Pi' C Pi)^-1      X = S_0 + S_0 D^(1/2) F² D^(1/2) S_0

S_0 inverts diagonal, coupling and network together (see `smoothers`). F is a symmetric matrix
between neighbours on the grid; a network computes its entries at each node from the stencil of A_0
there. X is linear in the residual and symmetric positive definite for any output of the network. X
is scaled down where an estimate of the eigenvalues of X S comes near 2: below 2 the V-cycle is
symmetric positive definite too, and conjugate gradients apply.

The inputs of the network are local ratios, so it works on any grid, level and unit. Before training
F is the square root of the best smoother of 27 points for the Laplacian (by Fourier analysis of two
grids: Trottenberg, Oosterlee & Schüller 2001, Multigrid, chapter 4), adapted to strength and
reaction by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learning.krylov.cycles import or_one
from learning.preconditioners.multigrid.cholesky import anisotropy_of, is_compiled
from learning.preconditioners.multigrid.geometric import Level, cholesky, create_hierarchy
from learning.preconditioners.multigrid.stencils import (
    CENTRE,
    FORWARD,
    OFFSETS,
    inside,
    neighbours,
    opposite,
)
from learning.systems.operators import SystemBatch, grids_of
from learning.systems.sparse import LinearMap, total
from mixeddim.tensors import ReducedSystem

__all__ = ["LearnedMultigrid", "MultigridNetwork"]

RELAXATION: Final = 0.9
"""omega; at most 1, so that no eigenvalue of S_0 S is above 1."""

# F for the Laplacian on a cubic grid, at a node and towards neighbours along one, two, three axes,
# the last three in units of products of the strengths along these axes, 1/12 there.
AT_NODE: Final = 1.2256
TOWARDS: Final = (3.37, 6.6, 25.0)

MOST_ANISOTROPIC: Final = 20.0
"""Ratio of mean diffusions up to which smoothers between neighbours are better than factors."""

LARGEST: Final = 1.45
"""Bound on the estimate of the largest eigenvalue of X S, which comes from below."""
LANCZOS_STEPS: Final = 4

NUM_FEATURES: Final = 9
NUM_HIDDEN: Final = 16


class MultigridNetwork(nn.Module):
    """A perceptron at each node, from the stencil of A_0 there to the entries of F.

    It has seven outputs: the logarithm of a factor on F at the node and towards neighbours along
    one, two and three axes, and a multiple of the entries of A_0 to add to the latter three. All
    are zero before training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(
            [nn.Linear(NUM_FEATURES, NUM_HIDDEN), nn.Linear(NUM_HIDDEN, NUM_HIDDEN)]
        )
        self.output = nn.Linear(NUM_HIDDEN, 7)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        stencils: torch.Tensor,
        coupling: torch.Tensor,
        is_coarsened: tuple[bool, bool, bool],
    ) -> torch.Tensor:
        """Return the stencils of F, shape (batch, 27, nx, ny, nz).

        Args:
            stencils: Of A_0, shape (batch, 27, nx, ny, nz).
            coupling: The diagonal of Pi' Pi, shape (batch, nx, ny, nz).
            is_coarsened: Whether the next grid is coarser along x, y and z.
        """
        shape = stencils.shape[2:]
        A_0, coupling = stencils.flatten(2), coupling.flatten(1)
        row_sums = A_0.abs().sum(dim=1)
        scale = row_sums.rsqrt()
        # -D^(-1/2) A_0 D^(-1/2): positive between nodes that diffusion ties together.
        ties = torch.stack(neighbours(-scale, shape), dim=1) * A_0 * scale[:, None]
        reaction = (-ties.sum(dim=1)).clamp(0.0, 1.0)
        strengths = _strengths(ties)
        coarsened = torch.full_like(reaction, sum(is_coarsened) / 3.0)
        features = _features(ties, strengths, reaction, coupling / (coupling + row_sums))
        hidden = torch.stack([*features, coarsened], dim=-1)
        for layer in self.hidden:
            hidden = torch.relu(layer(hidden))
        outputs = self.output(hidden).movedim(-1, 1).contiguous()
        # Where reaction is all, A_0 does not vanish on constants, and F has to be small on them.
        damping = (1.0 + 10.0 * reaction) ** -0.25
        # Between two nodes the factors are geometric means, all else arithmetic ones.
        units = torch.tensor([AT_NODE, *TOWARDS], dtype=torch.float64).sqrt().to(ties)[:, None]
        roots = units * torch.tanh(outputs[:, :4] / 2.0).exp() * damping[:, None]
        multiples = 1.5 * torch.tanh(outputs[:, 4:])
        strengths = strengths / 2.0

        F = [torch.empty_like(reaction)] * 27
        F[CENTRE] = roots[:, 0] ** 2
        is_there = inside((*shape,), ties.dtype, ties.device)
        fields = torch.cat([roots, multiples, strengths, damping[:, None]], dim=1)
        at = neighbours(fields, shape)
        for o in FORWARD:
            there = at[o]
            axes = [axis for axis in range(3) if OFFSETS[o][axis]]
            n = len(axes)
            entry = is_there[o] * roots[:, n] * there[:, n]
            for axis in axes:
                entry = entry * (strengths[:, axis] + there[:, 7 + axis])
            multiple = multiples[:, n - 1] + there[:, 3 + n]
            F[o] = entry + multiple * ties[:, o] * damping * there[:, 10]
            F[26 - o] = opposite(F[o], o, shape)
        return torch.stack(F, dim=1).reshape(stencils.shape)


class LearnedMultigrid:
    """One symmetric V(1,1)-cycle with learned smoothers; linear, symmetric positive definite.

    Works on the box with any number of cells and any diffusion, reaction and network. Where fibres
    conduct much better than what is across, no smoother between neighbours works well: there, on a
    CPU, incomplete factors smooth in its place (see `cholesky`).

    Attributes:
        model: The network; the cycle runs in its dtype, whatever that of the residuals.
    """

    is_linear = is_symmetric = is_parallel = True

    def __init__(self, model: MultigridNetwork) -> None:
        self.model = model

    def setup(self, systems: Sequence[ReducedSystem], batch: SystemBatch) -> LinearMap:
        """Build grids and smoothers, and return the map r -> M r (see `Preconditioner`).

        Differentiable in the parameters of the network, on one process.

        Raises:
            ValueError: If the systems do not live on structured boxes of one shape or not on the
                device of the model, or S is singular.
            NotImplementedError: If several processes want derivatives.
        """
        parameter = next(self.model.parameters())
        if parameter.device != batch.g.device:
            raise ValueError(
                f"got a model on {parameter.device} and systems on {batch.g.device}; wanted one "
                "device. Move the model, or name its device where you solve."
            )
        if torch.is_grad_enabled() and parameter.requires_grad:
            batch.processes.refuse("training")
        is_on_host = batch.g.device.type == "cpu" and not self.model.training
        if is_on_host and is_compiled and _are_fibrous(systems):
            hierarchy = create_hierarchy(
                systems, batch, parameter.dtype, to_smallest=True, is_uniform=True
            )
            return hierarchy.preconditioner([cholesky(level) for level in hierarchy.levels])
        # Coarsen the small grids of training too, so that the network learns more than the finest.
        hierarchy = create_hierarchy(
            systems, batch, parameter.dtype, to_smallest=self.model.training
        )
        return hierarchy.preconditioner([self._smoother(level) for level in hierarchy.levels])

    def _smoother(self, level: Level) -> LinearMap:
        """Return X of a level."""

        def entries(stencils: torch.Tensor, coupling: torch.Tensor) -> torch.Tensor:
            F: torch.Tensor = self.model(stencils, coupling, level.is_coarsened)
            return F

        F = level.operator.matrix_of(entries, level.exchange.diagonal, level.like)
        S_0 = level.exchange.smoother(level.row_sums, RELAXATION)
        root = torch.tensor(np.sqrt(level.row_sums)).to(level.like).reshape(level.like.shape)

        def smooth(r: torch.Tensor) -> torch.Tensor:
            x = S_0(r)
            return x + S_0(root * F(F(root * x)))

        with torch.no_grad():
            largest = _largest_eigenvalues(smooth, level)
        damping = (LARGEST / largest).clamp(max=1.0)[:, None]
        return lambda r: damping * smooth(r)


def _are_fibrous(systems: Sequence[ReducedSystem]) -> bool:
    """Return whether all systems have fibres that need factors; never on several processes."""
    if systems[0].processes.size > 1 or any(system.grid is None for system in systems):
        return False
    pairs = zip(systems, grids_of(systems), strict=True)
    return all(anisotropy_of(system.K, grid) > MOST_ANISOTROPIC for system, grid in pairs)


def _strengths(ties: torch.Tensor) -> torch.Tensor:
    """Return how strongly nodes are tied along x, y and z on the mean of both sides, (batch, 3, n).

    A neighbour along several axes counts for each of them with its share.
    """
    along = np.abs(OFFSETS).T  # whether an offset leads along an axis, shape (3, 27)
    shares = torch.tensor(along / np.maximum(2 * along.sum(axis=0), 1)).to(ties)
    return shares @ ties.clamp_min(0.0)


def _features(
    ties: torch.Tensor, strengths: torch.Tensor, reaction: torch.Tensor, coupling: torch.Tensor
) -> list[torch.Tensor]:
    """Return what the network sees of a node: of order one, whatever the units and the axes."""
    x, y, z = strengths.unbind(dim=1)
    low, high = torch.minimum(x, y), torch.maximum(x, y)
    strongest, weakest = torch.maximum(high, z), torch.minimum(low, z)
    middle = torch.maximum(low, torch.minimum(high, z))
    diagonal = -ties[:, CENTRE]
    repelling = ties.clamp(max=0.0).sum(dim=1) + diagonal
    oblique = [o for o, offset in enumerate(OFFSETS) if sum(map(abs, offset)) > 1]
    far = ties[:, oblique].clamp_min(0.0).sum(dim=1)
    return [
        6.0 * strongest, 6.0 * middle, 6.0 * weakest,
        2.0 * diagonal - 1.0, coupling, reaction, repelling, far,
    ]  # fmt: skip


def _noise(index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a number in [-1, 1) for each index, the same wherever that is held.

    The generator "splitmix64" (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).
    """
    z = (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    noise: NDArray[np.float64] = (z ^ (z >> np.uint64(31))) / 2.0**63 - 1.0
    return noise


def _largest_eigenvalues(smooth: LinearMap, level: Level) -> torch.Tensor:
    """Estimate the largest eigenvalues of X S by Lanczos steps, (batch,); NaN where X S is.

    The steps are those of conjugate gradients, preconditioned by X, whose coefficients make
    Lanczos's matrix (Golub & Van Loan 2013, Matrix Computations, section 11.3). They start from S
    times a random vector, which weighs large eigenvalues more, also those that few nodes make.
    """
    apply, like, processes = level.apply, level.like, level.processes
    r = apply(torch.tensor(_noise(level.operator.index)).to(like).expand_as(like))

    def dot(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return total((u * v).sum(dim=1), processes)

    T = torch.zeros(len(like), LANCZOS_STEPS, LANCZOS_STEPS, dtype=torch.float64)
    z = p = smooth(r)
    rz, before = dot(r, z), torch.zeros(len(like), dtype=torch.float64)
    for i in range(LANCZOS_STEPS):
        Sp = apply(p)
        energy = dot(p, Sp)
        r = r - (rz / or_one(energy))[:, None] * Sp
        z = smooth(r)
        rz_next = dot(r, z)
        ratio = rz_next / or_one(rz)
        inverse, after = (energy / or_one(rz)).double().cpu(), ratio.double().cpu()
        T[:, i, i] = inverse + before
        if i + 1 < LANCZOS_STEPS:
            T[:, i, i + 1] = T[:, i + 1, i] = after.sqrt() * inverse
        before = after * inverse
        p, rz = z + ratio[:, None] * p, rz_next
    is_finite = T.isfinite().all(dim=(1, 2))
    largest = torch.linalg.eigvalsh(torch.where(is_finite[:, None, None], T, 0.0))[:, -1]
    return torch.where(is_finite, largest, torch.nan).to(like)

"""Fast diagonalisation: the inverse of diffusion and reaction on a box by its eigenvectors.

On the structured box (Kuhn's subdivision) the P1 stiffness of constant k has the 7-point stencil,
a sum of tensor products of 1D stiffness and lumped mass matrices, except for the weights along the
twelve edges of the box: with Q the eigenvectors of the 1D pencils (Lynch, Rice & Thomas 1964,
doi:10.1007/BF01386067),

    F⁻¹ = (Q_x ⊗ Q_y ⊗ Q_z) diag(1 / (k_x l_x + k_y l_y + k_z l_z + s m)) (Q_x ⊗ Q_y ⊗ Q_z)'

The consistent mass matrix is not such a sum, so m is its symbol, averaged over the signs of the
frequencies: between 1 for the smooth modes and 1/5. On hexahedra stiffness and mass are sums of
tensor products of 1D stiffness and consistent mass matrices, without exception. The 1D pencils have
the same eigenvectors, and with m_x, m_y, m_z the eigenvalues of the 1D mass, between 1 and 1/3,

    F⁻¹ = (Q_x ⊗ Q_y ⊗ Q_z) diag(1 / (k_x l_x m_y m_z + m_x k_y l_y m_z + m_x m_y k_z l_z
                                      + s m_x m_y m_z)) (Q_x ⊗ Q_y ⊗ Q_z)'

is exact for constant k and s. Varying k(x) is scaled to a constant,
D^(-1/2) F⁻¹ D^(-1/2) with D the diagonal of K over that of its stencil, and what the scaling adds
to the reaction, (Laplacian of √k) / √k for smooth k, is in the mean in s (Concus & Golub 1973,
doi:10.1137/0710092).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh_tridiagonal

from learning.preconditioners.woodbury import woodbury
from learning.systems.operators import SystemBatch, grids_of
from learning.systems.tissue import kept
from mixeddim.tensors import Grid, ReducedSystem

__all__ = ["BoxInverse", "FastDiagonalisation"]


@dataclass(frozen=True)
class FastDiagonalisation:
    """The inverse of constant-coefficient diffusion and reaction; linear and symmetric.

    Coefficients are read off the matrices: their means, and for k its local variation. Sides of
    the box with Dirichlet conditions are known as such.

    Attributes:
        corrects_coupling: Whether M inverts the coupling too, exactly, by the Woodbury formula: two
            of the inverses an iteration and, once a system, one for each quadrature point and a
            dense factor of their number. It pays where the coupling is strong.
    """

    corrects_coupling: bool = False

    is_linear = is_symmetric = True

    @property
    def takes_blocks(self) -> bool:
        """Whether the map of one system takes any number of vectors."""
        return not self.corrects_coupling

    def setup(
        self, systems: Sequence[ReducedSystem], batch: SystemBatch
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Read coefficients off, and return the map r -> M r (see `Preconditioner`).

        Raises:
            ValueError: If the systems do not live on structured boxes of one shape and size, with
                Dirichlet conditions on the same sides.
        """
        if len(systems) == 1:
            tissues = [kept(batch.kept, "fast diagonalisation", lambda: _tissue(systems[0]))]
        else:
            tissues = [_tissue(system) for system in systems]
        parts = [_parts(*pair) for pair in zip(tissues, systems, strict=True)]
        axes = {part.axes for part in parts}
        if len(axes) > 1:
            raise ValueError(
                f"got systems on {len(axes)} kinds of box: (nodes, their distance, whether the "
                f"first and the last are fixed) along each axis are {sorted(axes)}; wanted one "
                "kind in a batch. Batch each on its own."
            )
        inverse = BoxInverse.of(parts, grids_of(systems)[0], batch)
        identity_part = torch.tensor(np.stack([part.fixed_inverse for part in parts])).to(batch.g)
        correct = woodbury(inverse, systems, batch) if self.corrects_coupling else None

        def apply(r: torch.Tensor) -> torch.Tensor:
            rest = r if correct is None else r - correct(inverse.apply(r))
            return inverse.apply(rest) + identity_part * r

        return apply


# --- What is read off a system ----------------------------------------------------------------

type _Axis = tuple[int, float, bool, bool]
"""Number of nodes, their distance, and whether the first and the last have Dirichlet values."""


@dataclass(frozen=True, eq=False)
class _Tissue:
    """What is read off K and M.

    Attributes:
        axes: The axes of the box.
        eigenvalues: Those of diffusion and reaction on its modes, shape (f_x, f_y, f_z).
        scaling: As in `_Parts`.
        is_fixed: Where a Dirichlet value is given, shape (n_3,).
        volume: Of the box, without what belongs to fixed nodes.
    """

    axes: tuple[_Axis, ...]
    eigenvalues: NDArray[np.float64]
    scaling: NDArray[np.float64]
    is_fixed: NDArray[np.bool_]
    volume: float


@dataclass(frozen=True, eq=False)
class _Parts:
    """What F is for one system.

    Attributes:
        axes: The axes of the box.
        eigenvalues: Those of F on the modes of the box, shape (f_x, f_y, f_z).
        scaling: D^(-1/2), shape (n_3,); zero where a Dirichlet value is given.
        fixed_inverse: One over the diagonal of A_33 there, and zero elsewhere, shape (n_3,).
    """

    axes: tuple[_Axis, ...]
    eigenvalues: NDArray[np.float64]
    scaling: NDArray[np.float64]
    fixed_inverse: NDArray[np.float64]


def _tissue(system: ReducedSystem) -> _Tissue:
    [grid], K = grids_of([system]), system.K
    diagonal = K.diagonal()
    is_fixed = np.add.reduceat(np.abs(K.data), K.indptr[:-1]) == diagonal
    sides = grid.to_grid(is_fixed)
    axes = tuple(
        (n, float(h), bool(sides.take(0, axis).all()), bool(sides.take(-1, axis).all()))
        for axis, (n, h) in enumerate(zip(grid.shape, grid.cell_size, strict=True))
    )
    k = _mean_diffusion(K, grid, is_fixed)
    stencil = grid.to_dofs(_stencil_diagonal(k, grid))
    D = np.where(is_fixed, np.inf, diagonal / stencil)
    scaling = np.sqrt(np.mean(D[~is_fixed]) / D)

    is_trilinear = grid.cell_type == "hexahedron"
    lumped = [mass[mass_free].sum() for mass, mass_free in map(_lumped_mass, axes)]
    # Of constants: the ties of the consistent mass to fixed nodes are missing.
    ties = [is_trilinear * h / 6 * (low + high) for _, h, low, high in axes]
    masses = [m - tie for m, tie in zip(lumped, ties, strict=True)]
    volume = np.prod(masses)
    at_sides = [k_a * (low + high) / h / m
                for k_a, (_, h, low, high), m in zip(k, axes, masses, strict=True)]  # fmt: skip
    added = scaling @ (K @ scaling) / volume - sum(at_sides)
    # Entries of the consistent mass matrix on the diagonal, as parts of the lumped ones.
    share = (2 / 3) ** 3 if is_trilinear else 2 / 5
    reaction = (system.M.diagonal() @ scaling**2) / (share * np.prod(lumped))
    symbols = _trilinear_symbols if is_trilinear else _linear_symbols
    eigenvalues = symbols(axes, k, max(added, 0.0) + reaction)
    return _Tissue(axes, eigenvalues, scaling, is_fixed, float(volume))


def _parts(tissue: _Tissue, system: ReducedSystem) -> _Parts:
    scaling = tissue.scaling
    # Without reaction and Dirichlet conditions only the network holds the constants.
    least = 1e-3 * (scaling @ (system.S @ scaling)) / tissue.volume
    eigenvalues = np.maximum(tissue.eigenvalues, least)
    fixed_inverse = np.where(tissue.is_fixed, 1.0 / system.diagonal_33, 0.0)
    return _Parts(tissue.axes, eigenvalues, scaling, fixed_inverse)


def _mean_diffusion(
    K: sparse.csr_array, grid: Grid, is_fixed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the mean of k along each axis, from the energies of the coordinates.

    The energy of u is half the sum of -K_ij (u_i - u_j)², here over pairs of nodes inside the box,
    where the matrix knows of no boundary condition, or if there are too few over all that are free.
    """
    index = np.stack(np.unravel_index(grid.node_of_dof, grid.shape), axis=1)
    inside = np.all((index > 0) & (index < np.array(grid.shape) - 1), axis=1)
    if min(grid.shape) < 4:
        inside = ~is_fixed
    u = np.where(inside[:, None], (index - index.mean(axis=0)) * grid.cell_size, 0.0)

    def energies(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.einsum("ia,ia->a", u, image[:, :3]) - (u**2).T @ image[:, 3]

    columns = np.column_stack([u, inside])
    found = energies(K @ columns)
    # Those of unit coefficients, row by row for each coordinate, along each axis.
    if grid.cell_type == "hexahedron":
        on_grid = grid.to_grid(columns.T)
        images = [grid.to_dofs(_trilinear_stiffness(on_grid, axis, grid)).T for axis in range(3)]
        weights = np.stack([energies(image) for image in images], axis=1)
    else:
        weights = np.diag(_linear_energies(grid.to_grid(inside.astype(np.float64)), grid))
    # On grids of few nodes boundary conditions may leave nothing to see, or the wrong sign.
    is_free = ~is_fixed
    isotropic = grid.to_dofs(_stencil_diagonal(np.ones(3), grid))[is_free].sum()
    least = 1e-6 * K.diagonal()[is_free].sum() / isotropic
    k: NDArray[np.float64] = np.linalg.lstsq(weights, found, rcond=1e-12)[0]
    return np.maximum(k, least)


def _linear_energies(counted: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Return the energies of the coordinates over pairs of nodes on tetrahedra, for k = 1.

    Args:
        counted: 1 at nodes that count, else 0, shape of the grid.
        grid: The grid.
    """
    energies = np.zeros(3)
    for axis in range(3):
        ends = np.moveaxis(counted, axis, 0)
        pairs = np.einsum("abc,abc->bc", ends[1:], ends[:-1])
        others = np.delete(np.array(grid.shape), axis)
        energies[axis] = np.sum(pairs * _edge_weights(*others)) * np.prod(grid.cell_size)
    return energies


def _trilinear_stiffness(
    values: NDArray[np.float64], along: int, grid: Grid
) -> NDArray[np.float64]:
    """Multiply (..., nx, ny, nz) by the stiffness matrix on hexahedra of k = 1 along one axis."""
    for axis, (n, h) in enumerate(zip(grid.shape, grid.cell_size, strict=True)):
        lumped, _ = _lumped_mass((n, h, False, False))
        entries = (2 * lumped / h**2, -1 / h) if axis == along else (2 * lumped / 3, h / 6)
        diagonal, beside = entries
        v = np.moveaxis(values, axis - 3, -1)
        product = diagonal * v
        product[..., 1:] += beside * v[..., :-1]
        product[..., :-1] += beside * v[..., 1:]
        values = np.moveaxis(product, -1, axis - 3)
    return values


def _edge_weights(n_b: int, n_c: int) -> NDArray[np.float64]:
    """Return the entries of K at edges along one axis, by their place on the others, for k = h = 1.

    Of the four such edges of a cuboid two are shared by two of its tetrahedra, and two lie in one.
    """
    weights = np.zeros((n_b, n_c))
    for b, c, weight in ((0, 0, 2), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        weights[b : n_b - 1 + b, c : n_c - 1 + c] += weight / 6
    return weights


def _stencil_diagonal(k: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Return the diagonal of K for constant k along each axis, shape of the grid."""
    diagonal = np.zeros(grid.shape)
    for axis, n in enumerate(grid.shape):
        others = np.delete(np.array(grid.shape), axis)
        num_edges = np.full(n, 2.0)
        num_edges[[0, -1]] = 1.0
        if grid.cell_type == "hexahedron":
            (mass_b, _), (mass_c, _) = (_lumped_mass((m, 1.0, False, False)) for m in others)
            at_others = 4 / 9 * np.outer(mass_b, mass_c)
        else:
            at_others = _edge_weights(*others)
        entries = np.multiply.outer(num_edges, at_others)
        factor = k[axis] * np.prod(grid.cell_size) / grid.cell_size[axis] ** 2
        diagonal += factor * np.moveaxis(entries, 0, axis)
    return diagonal


# --- The box ----------------------------------------------------------------------------------


def _lumped_mass(axis: _Axis) -> tuple[NDArray[np.float64], slice]:
    """Return the lumped mass of each node of an axis, and which nodes are free."""
    n, h, fixed_low, fixed_high = axis
    mass = np.full(n, h)
    mass[[0, -1]] = h / 2
    return mass, slice(int(fixed_low), n - int(fixed_high))


@lru_cache(maxsize=64)
def _eigenvectors(axis: _Axis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues (f,) and eigenvectors (n, f) of 1D stiffness against lumped mass.

    Eigenvectors are orthonormal in the mass, and zero at fixed nodes; f is the number of others.
    """
    n, h, _, _ = axis
    mass, free = _lumped_mass(axis)
    diagonal = np.full(n, 2.0 / h)
    diagonal[[0, -1]] = 1.0 / h
    root = np.sqrt(mass[free])
    values, vectors = eigh_tridiagonal(
        diagonal[free] / mass[free], -1.0 / h / (root[1:] * root[:-1])
    )
    Q = np.zeros((n, len(values)))
    Q[free] = vectors / root[:, None]
    return values, Q


def _trilinear_symbols(
    axes: tuple[_Axis, ...], k: NDArray[np.float64], reaction: float
) -> NDArray[np.float64]:
    """Return the eigenvalues of F on hexahedra on every mode, shape (f_x, f_y, f_z)."""
    l_x, l_y, l_z = (_eigenvectors(axis)[0] for axis in axes)
    # Of the consistent 1D mass against the lumped one: (2 + cosine of the frequency) / 3.
    m_x, m_y, m_z = (
        1.0 - values * axis[1] ** 2 / 6 for values, axis in zip((l_x, l_y, l_z), axes, strict=True)
    )
    mass = np.multiply.outer(np.outer(m_x, m_y), m_z)
    # l_x m_y m_z is l_x / m_x of the mass.
    diffusion = np.add.outer(np.add.outer(k[0] * l_x / m_x, k[1] * l_y / m_y), k[2] * l_z / m_z)
    return (diffusion + reaction) * mass


def _linear_symbols(
    axes: tuple[_Axis, ...], k: NDArray[np.float64], reaction: float
) -> NDArray[np.float64]:
    """Return k_x l_x + k_y l_y + k_z l_z + s m on every mode, shape (f_x, f_y, f_z)."""
    l_x, l_y, l_z = (_eigenvectors(axis)[0] for axis in axes)
    diffusion = np.add.outer(np.add.outer(k[0] * l_x, k[1] * l_y), k[2] * l_z)
    # Cosines of the frequencies, and the consistent mass matrix at them: 2/5 on the diagonal, 1/20
    # for neighbours along axes and the cuboids' main diagonal, 1/30 along diagonals of faces.
    c_x, c_y, c_z = (
        1.0 - values * axis[1] ** 2 / 2 for values, axis in zip((l_x, l_y, l_z), axes, strict=True)
    )
    c_x, c_y, c_z = c_x[:, None, None], c_y[:, None], c_z
    along_axes = c_x + c_y + c_z + c_x * c_y * c_z
    mass = 0.4 + along_axes / 10 + (c_x * c_y + c_y * c_z + c_z * c_x) / 15
    return diffusion + reaction * mass


@dataclass(frozen=True, eq=False)
class BoxInverse:
    """D^(-1/2) F⁻¹ D^(-1/2) for a batch, on its device.

    Attributes:
        Q: Eigenvectors along each axis, shape (n, f).
        inverse: One over the eigenvalues, shape (batch, f_x, f_y, f_z).
        scaling: D^(-1/2) in dof order, shape (batch, n_3).
        node_of_dof: Grid index of each dof, shape (n_3,).
        dof_of_node: Its inverse.
    """

    Q: tuple[torch.Tensor, ...]
    inverse: torch.Tensor
    scaling: torch.Tensor
    node_of_dof: torch.Tensor
    dof_of_node: torch.Tensor

    @classmethod
    def of(cls, parts: Sequence[_Parts], grid: Grid, batch: SystemBatch) -> BoxInverse:
        """Return that of what was read off."""
        node_of_dof = torch.tensor(grid.node_of_dof, device=batch.g.device)
        return cls(
            tuple(torch.tensor(_eigenvectors(axis)[1]).to(batch.g) for axis in parts[0].axes),
            torch.tensor(1.0 / np.stack([part.eigenvalues for part in parts])).to(batch.g),
            torch.tensor(np.stack([part.scaling for part in parts])).to(batch.g),
            node_of_dof,
            torch.argsort(node_of_dof),
        )

    def of_system(self, i: int) -> BoxInverse:
        """Return the inverse of one system, for any number of vectors."""
        inverse, scaling = self.inverse[i : i + 1], self.scaling[i : i + 1]
        return BoxInverse(self.Q, inverse, scaling, self.node_of_dof, self.dof_of_node)

    def apply(self, r: torch.Tensor) -> torch.Tensor:
        """Map (batch, n_3) to the same shape; for one system, (any number, n_3)."""
        Q_x, Q_y, Q_z = self.Q
        x = (self.scaling * r)[:, self.dof_of_node].reshape(-1, len(Q_x), len(Q_y), len(Q_z))
        modes = _along_axes(x, Q_x.mT, Q_y.mT, Q_z) * self.inverse
        x = _along_axes(modes, Q_x, Q_y, Q_z.mT)
        return self.scaling * x.reshape(r.shape)[:, self.node_of_dof]


def _along_axes(
    x: torch.Tensor, A_x: torch.Tensor, A_y: torch.Tensor, A_z: torch.Tensor
) -> torch.Tensor:
    """Multiply (batch, x, y, z) along x and y from the left, along z from the right."""
    x = A_y @ (x @ A_z)
    return (A_x @ x.flatten(2)).unflatten(2, x.shape[2:])

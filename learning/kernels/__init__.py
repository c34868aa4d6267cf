"""Compiled loops over the nodes of a grid and the rows of sparse matrices, for one processor.

Each is a few lines, makes no array of its own but a line, and works in the dtype that it is given.
Matrices come as tuples of arrays:

- stencils: entries of shape (batch, 14, n), which of the 14 offsets occur, and how much further on
  in grid order each leads (see `learning.systems.stencils`). These are the entries of each node
  towards itself and half of its neighbours. The other half are entries of those neighbours, as the
  matrices are symmetric, so that a product reads each number from memory once.
- rows: a matrix in CSR, as starts, columns and values.
- factors: L, U and their permutations (see `mixeddim.algebra.triangular`).

Compiled at the first call and kept on disk. Where numba is missing there are none, and torch and
scipy do the same work in several times the time.
"""

from learning.kernels.cholesky import (
    factorise_incompletely,
    gather_entries,
    pack_factors,
    solve_incomplete,
)
from learning.kernels.compiler import ARE_COMPILED
from learning.kernels.grids import add_interpolated, coarse_along_axis, restrict
from learning.kernels.rows import (
    add_transposed_rows,
    mix_bits,
    multiply_rows,
    one_plus_squared_rows,
    permute,
)
from learning.kernels.smoothing import (
    add_exchange,
    invert_exchange,
    multiply_system,
    smooth,
    smooth_by_diagonal,
    subtract_system,
)
from learning.kernels.stencils import fill_stencils, multiply_stencils, sum_rows, sum_steps

__all__ = [
    "ARE_COMPILED",
    "add_exchange",
    "add_interpolated",
    "add_transposed_rows",
    "coarse_along_axis",
    "factorise_incompletely",
    "fill_stencils",
    "gather_entries",
    "invert_exchange",
    "mix_bits",
    "multiply_rows",
    "multiply_stencils",
    "multiply_system",
    "one_plus_squared_rows",
    "pack_factors",
    "permute",
    "restrict",
    "smooth",
    "smooth_by_diagonal",
    "solve_incomplete",
    "subtract_system",
    "sum_rows",
    "sum_steps",
]

"""PETSc's conjugate gradients with PETSc's preconditioners, the baseline of the benchmark.

This is what a user of PETSc would run: vectors, Krylov method and preconditioner are compiled, and
torch is not involved. The product with S is scipy's, which is as fast as PETSc's Schur complement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from learning.petsc.pc import schur_complement
from learning.petsc.preconditioners import PETSc, PetscMultigrid, pc_of, tissue_block
from mixeddim.tensors import ReducedSystem

__all__ = ["Kind", "petsc_cg"]

Kind = Literal["icc", "gamg", "chebyshev", "sor"]

MARGIN: Final = 0.99  # the true residual may be slightly larger than the one of the recurrence


def petsc_cg(
    reduced: ReducedSystem, kind: Kind, *, rtol: float, max_iterations: int
) -> Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], int]]:
    """Set up KSPCG on S with a preconditioner of A_33, and return the map b -> (x, iterations).

    Args:
        reduced: The system.
        kind: "icc" or "gamg", with PETSc's defaults, or a smoother of `PetscMultigrid`.
        rtol: Wanted norm of the residual, in units of the norm of b.
        max_iterations: Largest number of steps.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"got kind={kind!r}; wanted one of {get_args(Kind)}. Choose one.")
    reduced.processes.refuse("petsc_cg")
    pc = _pc(reduced, kind)
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setPC(pc)
    ksp.setOperators(schur_complement(reduced), pc.getOperators()[1])
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=MARGIN * rtol, atol=0.0, max_it=max_iterations)
    ksp.setUp()
    x, b = pc.getOperators()[1].createVecs()

    def solve(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
        b.setArray(values)
        ksp.solve(b, x)
        return x.getArray().copy(), ksp.getIterationNumber()

    return solve


def _pc(reduced: ReducedSystem, kind: Kind) -> PETSc.PC:
    """Return a PC of A_33, set up."""
    if kind == "chebyshev" or kind == "sor":
        return PetscMultigrid(kind).create_pc(reduced)
    pc = pc_of(tissue_block(reduced), kind)
    pc.setUp()
    return pc

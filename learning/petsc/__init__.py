"""PETSc in both directions: its preconditioners under our protocol, and ours in the user's `KSP`.

Imports `systems`, `krylov`, `preconditioners` and `pretrained`. Read `preconditioners`, `pc`, and
`ksp` (PETSc's own conjugate gradients, for the benchmark).
"""

from learning.petsc.pc import LearningPC, as_pc, schur_complement
from learning.petsc.preconditioners import PetscMultigrid, PetscPreconditioner, tissue_block

__all__ = [
    "LearningPC",
    "PetscMultigrid",
    "PetscPreconditioner",
    "as_pc",
    "schur_complement",
    "tissue_block",
]

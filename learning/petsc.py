"""PETSc on both sides: its preconditioners under our protocol, and any of ours in the user's KSP.

The reduced operator becomes a matrix, a preconditioner of `learning` a PCPYTHON context:

    ksp.setOperators(schur_complement(reduced), tissue_block(reduced))
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(as_pc(learning.load_pretrained("unet-dynamic"), reduced))

or from options, with the system taken from the matrix that `schur_complement` made:

    -ksp_type fgmres -pc_type python -pc_python_type learning.petsc.LearningPC
    -pc_learning_name unet-dynamic

This is the one file of `learning` that needs petsc4py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

import learning
from learning.devices import usable_device
from learning.operators import SystemBatch, batch_systems
from learning.preconditioner import Preconditioner, check_preconditioner, on_host
from learning.pretrained import PRETRAINED, load_preconditioner, load_pretrained
from mixeddim.tensors import ReducedSystem

# The PyPI wheel of PETSc wants MPI to be loaded first, by this module.
if importlib.util.find_spec("dolfinx_solver") is not None:
    import dolfinx_solver as _dolfinx_solver  # noqa: F401
try:
    from petsc4py import PETSc
except ImportError as error:
    raise ImportError(
        "learning.petsc found no petsc4py in this environment. Run `pip install -e '.[fenics]'` in "
        "the checkout (Linux x86-64), or install petsc4py from conda-forge."
    ) from error

__all__ = ["LearningPC", "PetscPreconditioner", "as_pc", "schur_complement", "tissue_block"]

Kind = Literal["icc", "gamg", "mumps"]


# --- PETSc's preconditioners for our solvers --------------------------------------------------


class PetscPreconditioner:
    """A preconditioner of PETSc, serial; linear and symmetric.

    Attributes:
        kind: "icc": incomplete Cholesky factors of A_33 without fill-in. "gamg": a V-cycle of
            algebraic multigrid on A_33. "mumps": the inverse of S, by Cholesky factors of the
            whole block matrix; not approximate, and so the time to beat.
    """

    is_linear = is_symmetric = True

    def __init__(self, kind: Kind) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f"got kind={kind!r}; wanted one of {get_args(Kind)}.")
        self.kind = kind

    def __repr__(self) -> str:
        return f"PetscPreconditioner({self.kind!r})"

    def setup(
        self,
        systems: Sequence[ReducedSystem],
        batch: SystemBatch,  # noqa: ARG002
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Factor or coarsen each system, and return the map r -> M r (see `Preconditioner`)."""
        if self.kind == "mumps":
            return on_host([_block_inverse(system) for system in systems])
        return on_host([_applied(tissue_block(system), self.kind) for system in systems])


def _applied(A: PETSc.Mat, kind: str) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the application of a PC of A, set up."""
    pc = PETSc.PC().create(A.comm)
    pc.setOperators(A)
    pc.setType(kind)
    if kind == "cholesky":
        pc.setFactorSolverType("mumps")
    pc.setUp()
    y = A.createVecLeft()

    def apply(r: NDArray[np.float64]) -> NDArray[np.float64]:
        # PETSc only reads r, which need not be copied.
        pc.apply(PETSc.Vec().createWithArray(r, comm=A.comm), y)
        return y.getArray(readonly=True)

    return apply


def _block_inverse(
    system: ReducedSystem,
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return r -> S⁻¹ r: the tissue part of the block system's solution for (r, 0)."""
    blocks = [[system.A_33, system.A_31], [system.A_13, system.A_11]]
    solve = _applied(_petsc_matrix(sparse.block_array(blocks, format="csr")), "cholesky")
    n_3, zeros = len(system.b_3), np.zeros(len(system.b_1))
    return lambda r: solve(np.concatenate([r, zeros]))[:n_3]


# --- Our systems and preconditioners for PETSc's solvers --------------------------------------


def tissue_block(reduced: ReducedSystem) -> PETSc.Mat:
    """Return A_33 as a PETSc matrix: what PETSc's own preconditioners of S are built from."""
    return _petsc_matrix(reduced.A_33)


def schur_complement(reduced: ReducedSystem) -> PETSc.Mat:
    """Return S as a PETSc matrix that multiplies without being assembled.

    Vectors are the tissue's, in DOLFINx dof order; the right-hand side of the reduced problem is
    `reduced.g`.
    """
    n = len(reduced.b_3)
    S = PETSc.Mat().createPython((n, n), _SchurComplement(reduced), comm=PETSc.COMM_SELF)
    S.setUp()
    S.setOption(PETSc.Mat.Option.SPD, True)
    return S


def as_pc(
    preconditioner: Preconditioner, reduced: ReducedSystem, device: torch.device | str = "cpu"
) -> LearningPC:
    """Return a preconditioner as the context of a PCPYTHON.

    Use CG only with one that `is_linear` and `is_symmetric`, and FGMRES with any.

    Args:
        preconditioner: Any of `learning`'s protocol.
        reduced: The system.
        device: Where to apply it; vectors are copied there and back.

    Raises:
        ValueError: If the first is no preconditioner, or there is no such device.
    """
    check_preconditioner(preconditioner)
    device = usable_device(device)
    return LearningPC(preconditioner, reduced, device)


class LearningPC:
    """PCPYTHON context of a preconditioner of `learning`; `as_pc` makes it from Python.

    Made by PETSc, from `-pc_python_type learning.petsc.LearningPC`, it takes the system from the
    operator and the preconditioner from the option `-pc_learning_name`: a pretrained model, a file
    of weights, or a class of `learning` that needs no arguments, such as Jacobi.

    What it raises inside PETSc arrives as the cause of a PETSc.Error.
    """

    def __init__(
        self,
        preconditioner: Preconditioner | None = None,
        reduced: ReducedSystem | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._preconditioner = preconditioner
        self._reduced = reduced
        self._device = device
        self._apply: Callable[[torch.Tensor], torch.Tensor] | None = None

    def setFromOptions(self, pc: PETSc.PC) -> None:
        """Take the preconditioner that the options name, if they do; called by PETSc."""
        name = PETSc.Options(pc.getOptionsPrefix()).getString("pc_learning_name", "")
        if name:
            self._preconditioner = _named(name)

    def setUp(self, pc: PETSc.PC) -> None:
        """Set the preconditioner up for the system; called by PETSc.

        Raises:
            ValueError: If the PC is on several processes, its matrix has another size than the
                system, or there is no preconditioner or no system.
        """
        if pc.comm.size > 1:
            raise ValueError(
                f"got a PC on {pc.comm.size} processes; wanted one, for learning's preconditioners "
                "are serial. Create the KSP on PETSc.COMM_SELF."
            )
        if self._preconditioner is None:
            prefix = pc.getOptionsPrefix() or ""
            raise ValueError(
                f"got no preconditioner; wanted one. Pass -{prefix}pc_learning_name NAME, such as "
                f"one of {sorted(PRETRAINED)} or Jacobi, or use learning.petsc.as_pc."
            )
        A, _ = pc.getOperators()
        reduced = self._reduced if self._reduced is not None else _system_of(A)
        n = len(reduced.b_3)
        if A.size != (n, n):
            raise ValueError(
                f"got a PC of a matrix of shape {A.size} for a system of {n} tissue dofs; wanted "
                f"({n}, {n}). Give the KSP learning.petsc.schur_complement of the same system."
            )
        batch = batch_systems([reduced], torch.float64, self._device)
        self._apply = self._preconditioner.setup([reduced], batch)

    def apply(self, _: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y = M x; called by PETSc."""
        if self._apply is None:
            raise ValueError("got a PC that is not set up; wanted one that is. Call pc.setUp().")
        r = torch.tensor(x.getArray(readonly=True), device=self._device)[None]
        with torch.no_grad():
            y.setArray(self._apply(r)[0].to("cpu", torch.float64).numpy())

    def applyTranspose(self, pc: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y = M' x; called by PETSc.

        Raises:
            ValueError: If M is not declared symmetric.
        """
        if not getattr(self._preconditioner, "is_symmetric", False):
            raise ValueError(
                f"got {self._preconditioner!r}, which is not symmetric, to be transposed; wanted a "
                "method that needs no transpose. Use fgmres."
            )
        self.apply(pc, x, y)

    def view(self, _: PETSc.PC, viewer: PETSc.Viewer) -> None:
        """Print which preconditioner this is, for -ksp_view; called by PETSc."""
        if viewer.getType() == "ascii":
            viewer.printfASCII(f"    learning: {type(self._preconditioner).__name__}\n")


class _SchurComplement:
    """Context of the matrix of S."""

    def __init__(self, reduced: ReducedSystem) -> None:
        self.reduced = reduced

    def mult(self, _: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self.reduced.S @ x.getArray(readonly=True))

    multTranspose = mult  # noqa: N815 - PETSc's name


def _system_of(A: PETSc.Mat) -> ReducedSystem:
    context = A.getPythonContext() if A.getType() == "python" else None
    if not isinstance(context, _SchurComplement):
        raise ValueError(
            f"got an operator of type {A.getType()}, which tells nothing of the system; wanted "
            "that of learning.petsc.schur_complement(reduced). Set it by ksp.setOperators, or use "
            "learning.petsc.as_pc."
        )
    return context.reduced


def _named(name: str) -> Preconditioner:
    if name in PRETRAINED:
        return load_pretrained(name)
    if Path(name).is_file():
        return load_preconditioner(name)
    kind = getattr(learning, name, None)
    if not (isinstance(kind, type) and hasattr(kind, "setup")):
        raise ValueError(
            f"got pc_learning_name={name!r}; wanted one of {sorted(PRETRAINED)}, a file of "
            "weights, or a class of learning such as Jacobi. Correct the option."
        )
    preconditioner: Preconditioner = kind()
    return preconditioner


def _petsc_matrix(A: sparse.csr_array) -> PETSc.Mat:
    A.sort_indices()
    index = PETSc.IntType
    csr = (A.indptr.astype(index), A.indices.astype(index), A.data)
    matrix = PETSc.Mat().createAIJ(A.shape, csr=csr, comm=PETSc.COMM_SELF)
    matrix.setOption(PETSc.Mat.Option.SPD, True)
    return matrix

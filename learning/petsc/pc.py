"""Preconditioners of `learning` in the user's KSP, as contexts of a PCPYTHON.

The reduced operator becomes a PETSc matrix, and a preconditioner the context:

    ksp.setOperators(schur_complement(reduced), tissue_block(reduced))
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(as_pc(learning.load_pretrained("multigrid"), reduced))

or from options, where the system is taken from the matrix of `schur_complement`:

    -ksp_type cg -pc_type python -pc_python_type learning.petsc.LearningPC
    -pc_learning_name multigrid

The opposite direction, PETSc's preconditioners under our protocol, is in `preconditioners`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import learning
from learning.devices import usable_device
from learning.krylov.cycles import precondition_in
from learning.krylov.preconditioner import Preconditioner, check_preconditioner
from learning.petsc.preconditioners import PETSc
from learning.pretrained import PRETRAINED, load_preconditioner, load_pretrained
from learning.systems.boxes import InBoxes, in_boxes
from learning.systems.operators import batch_systems, distributed_batch
from mixeddim.tensors import ReducedSystem

__all__ = ["LearningPC", "as_pc", "schur_complement"]


def schur_complement(reduced: ReducedSystem) -> PETSc.Mat:
    """Return S as a matrix-free PETSc matrix.

    It acts on tissue vectors in DOLFINx dof order, on several processes on their own dofs; the
    right-hand side of the reduced problem is `reduced.g`.
    """
    sizes = (len(reduced.b_3), None)
    comm = reduced.processes.comm or PETSc.COMM_SELF
    S = PETSc.Mat().createPython((sizes, sizes), _SchurComplement(reduced), comm=comm)
    S.setUp()
    S.setOption(PETSc.Mat.Option.SPD, True)
    return S


def as_pc(
    preconditioner: Preconditioner, reduced: ReducedSystem, device: torch.device | str = "cpu"
) -> LearningPC:
    """Return a preconditioner as the context of a PCPYTHON.

    FGMRES works with any of them, CG only with one that `is_linear` and `is_symmetric`.

    Args:
        preconditioner: Any object with `learning`'s protocol.
        reduced: The system.
        device: Where to apply it; vectors are copied there and back.

    Raises:
        ValueError: If the preconditioner has no `setup`, or there is no such device.
    """
    check_preconditioner(preconditioner)
    device = usable_device(device)
    return LearningPC(preconditioner, reduced, device)


class LearningPC:
    """PCPYTHON context of a preconditioner of `learning`; from Python, use `as_pc`.

    With `-pc_python_type learning.petsc.LearningPC` PETSc makes it. It then takes the system from
    the operator, and the preconditioner from the option `-pc_learning_name`: the name of a
    pretrained model, a file of weights, or a class of `learning` that needs no arguments, such as
    Jacobi.

    PETSc raises a PETSc.Error whose cause is the error that was raised here.
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
        """Take the preconditioner from the options, if they name one; called by PETSc."""
        name = PETSc.Options(pc.getOptionsPrefix()).getString("pc_learning_name", "")
        if name:
            self._preconditioner = _named(name)

    def setUp(self, pc: PETSc.PC) -> None:
        """Set the preconditioner up for the system; called by PETSc.

        Raises:
            ValueError: If the PC and the system are on different processes, the sizes of its matrix
                and the system differ, there is no preconditioner or no system, or its setup
                returns None.
            NotImplementedError: If the preconditioner needs the whole system on one process.
        """
        if self._preconditioner is None:
            prefix = pc.getOptionsPrefix() or ""
            raise ValueError(
                f"got no preconditioner; wanted one. Pass -{prefix}pc_learning_name NAME, such as "
                f"one of {sorted(PRETRAINED)} or Jacobi, or use learning.petsc.as_pc."
            )
        A, _ = pc.getOperators()
        reduced = self._reduced if self._reduced is not None else _system_of(A)
        processes, n = reduced.processes, len(reduced.b_3)
        if pc.comm.size != processes.size:
            raise ValueError(
                f"got a PC on {pc.comm.size} processes for a system on {processes.size}; wanted "
                "the same. Create the KSP on the communicator of "
                "learning.petsc.schur_complement(reduced)."
            )
        if not processes.all(A.local_size == (n, n)):
            raise ValueError(
                f"got a PC of a matrix of shape {A.local_size} for a system of {n} tissue dofs; "
                f"wanted ({n}, {n}). Give the KSP learning.petsc.schur_complement of the same "
                "system."
            )
        check_preconditioner(self._preconditioner, processes)
        boxes, system = None, reduced
        if processes.size > 1 and reduced.grid is not None:
            boxes = in_boxes(reduced)
            system = boxes.system
        if processes.size > 1:
            batch = distributed_batch(system, self._device)
        else:
            batch = batch_systems([system], torch.float64, self._device)
        with torch.no_grad():
            M = self._preconditioner.setup([system], batch)
        if M is None:
            raise ValueError(
                f"got None from the setup of {type(self._preconditioner).__name__}; wanted a "
                f"function of tensors of shape (1, {n}). End setup with `return` and it."
            )
        self._apply = M if boxes is None else partial(_apply_in_boxes, M, boxes)

    def apply(self, _: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Set y = M x; called by PETSc.

        Raises:
            ValueError: If the PC is not set up, or M returns no tensor of the shape of x.
        """
        if self._apply is None:
            raise ValueError("got a PC that is not set up; wanted one that is. Call pc.setUp().")
        r = torch.tensor(x.getArray(readonly=True), device=self._device)[None]
        with torch.no_grad():
            y.setArray(precondition_in(self._apply, r)[0].to("cpu", torch.float64).numpy())

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
        """Print the class of the preconditioner, for -ksp_view; called by PETSc."""
        if viewer.getType() == "ascii":
            viewer.printfASCII(f"    learning: {type(self._preconditioner).__name__}\n")


class _SchurComplement:
    """Context of the matrix of S."""

    def __init__(self, reduced: ReducedSystem) -> None:
        self.reduced = reduced

    def mult(self, _: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self.reduced.S @ x.getArray(readonly=True))

    multTranspose = mult  # noqa: N815 - PETSc's name


def _apply_in_boxes(
    M: Callable[[torch.Tensor], torch.Tensor], boxes: InBoxes, r: torch.Tensor
) -> torch.Tensor:
    """Return M r for a residual in the order of DOLFINx."""
    x = precondition_in(M, torch.from_numpy(boxes.to_boxes(r[0].numpy()))[None])
    return torch.from_numpy(boxes.to_dofs(x[0].numpy()))[None]


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

"""Conjugate gradients on S u_3d = g by PETSc, for one system or a sequence of similar ones."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from petsc4py import PETSc

from mixeddim.accuracy import ACCURACY, ErrorBound, Pair, bound_error, uncertainty
from mixeddim.algebra.distributed import held_rows
from mixeddim.fem.assembly import CoupledSystem
from mixeddim.reduction import ReducedSystem, reduce
from mixeddim.solvers.coupled_multigrid import CoupledMultigrid
from mixeddim.solvers.factors import BlockFactors, distributed_matrix, petsc_comm

__all__ = [
    "ConjugateGradients",
    "SequenceSolver",
    "SolverError",
    "as_solver_error",
    "check_accuracy",
]

_PREFIX: Final = "mixeddim_gamg_"

type Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class SolverError(RuntimeError):
    """A linear solve did not reach its tolerance, or what it reached cannot be trusted."""


def check_accuracy(bound: ErrorBound, accuracy: float, name: str) -> None:
    """Raise SolverError where the bound on the error of a solution is too large."""
    if not bound.largest <= accuracy:
        raise SolverError(
            f"got {name} that may be off by {bound}; wanted at most {accuracy:.0e}. It is singular "
            "if nothing holds the level of the fields: give a Dirichlet or Robin condition, or an "
            "uptake sigma_3d > 0. Or what holds it is lost in the rounding of far larger "
            "coefficients: bring those of diffusion, uptake, exchange and the network nearer to "
            "each other."
        )


@contextmanager
def as_solver_error() -> Iterator[None]:
    """Explain factors that break down."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, SolverError):
            raise
        raise SolverError(
            f"got factors that broke down ({error}); wanted those of a positive definite matrix. "
            "It is singular if nothing holds the level of a field: give a Dirichlet or Robin "
            "condition, or exchange."
        ) from error


class ConjugateGradients:
    """CG on S u_3d = g by PETSc, until the residual and the energy of the error are small.

    With theta the smallest eigenvalue of M S, which CG finds, the error e of a residual r has the
    energy e'S e <= r'M r / theta, and the solution that of g'u_3d. Where exchange is strong, g
    has entries so large that a residual small beside them hides that error.

    Args:
        reduced: The system.
        M: The preconditioner, or None for GAMG on A_33.
        rtol: As in `solve`.
        max_iterations: As in `solve`.
    """

    def __init__(
        self,
        reduced: ReducedSystem,
        M: Map | None,
        rtol: float,
        max_iterations: int,
    ) -> None:
        sizes, comm = (len(reduced.b_3), None), petsc_comm(reduced.processes)
        self.reduced, self.rtol, self.most, self.iterations = reduced, rtol, max_iterations, 0
        self._theta = 1.0
        S = PETSc.Mat().createPython((sizes, sizes), _Product(reduced.S.matvec), comm=comm)
        S.setOption(PETSc.Mat.Option.SYMMETRIC, True)
        self.ksp = ksp = PETSc.KSP().create(comm)
        ksp.setType("cg")
        ksp.setComputeEigenvalues(True)
        if M is None:
            rows = held_rows(reduced.A_33)
            ksp.setOperators(S, distributed_matrix(rows, reduced.processes))
            _use_gamg(ksp.getPC())
        else:
            ksp.setOperators(S)
            ksp.getPC().setType("python")
            ksp.getPC().setPythonContext(_Product(M))
        self.precondition = lambda r: self._apply(ksp.getPC().apply, r)

    def solve(self, start: NDArray[np.float64] | None = None) -> Pair:
        """Return the solution.

        Args:
            start: Where the tissue starts from.
        """
        x_3 = self._correct(self.reduced.g, start)
        return x_3, self.reduced.back_substitute(x_3)

    def bound(self, x: Pair) -> ErrorBound:
        """Return the bound on the error of a solution."""
        reduced = self.reduced
        w_3, w_1 = uncertainty(reduced, (reduced.b_3, reduced.b_1), x)
        rtol, self.rtol, done = self.rtol, 1e-2, self.iterations
        error_3 = self._correct(w_3 + reduced.exchange_3(reduced.solve_11(w_1)))
        error_1 = reduced.solve_11(w_1 + reduced.exchange_1(error_3))
        self.rtol, self.iterations = rtol, done
        return bound_error(x, (error_3, error_1), reduced.processes)

    def _correct(
        self, b: NDArray[np.float64], start: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Return the solution of S x = b."""
        norms, processes = PETSc.KSP.NormType, self.reduced.processes
        size = processes.norm(b)
        if start is None or size == 0.0:
            x = self._run(b, norms.UNPRECONDITIONED, self.rtol, 0.0)
        else:
            x, r = start, b - self.reduced.S @ start
            if not processes.norm(r) <= self.rtol * size:
                x = x + self._run(r, norms.UNPRECONDITIONED, 0.0, self.rtol * size)
        before = np.inf
        while True:
            r = b - self.reduced.S @ x
            wanted = self.rtol * np.sqrt(max(self._theta * processes.dot(b, x), 0.0))
            energy = np.sqrt(max(processes.dot(r, self.precondition(r)), 0.0))
            # Where it hardly falls any more, rounding alone is left: the bound knows of that.
            if not wanted < energy < before / 10.0:
                return x
            x, before = x + self._run(r, norms.NATURAL, 0.0, wanted), energy

    def _run(
        self,
        right_hand_side: NDArray[np.float64],
        norm: PETSc.KSP.NormType,
        rtol: float,
        atol: float,
    ) -> NDArray[np.float64]:
        """Return x, and keep the smallest eigenvalue of M S that was found."""
        ksp = self.ksp
        ksp.setNormType(norm)
        ksp.setTolerances(rtol=rtol, atol=atol, max_it=self.most)
        b = PETSc.Vec().createWithArray(right_hand_side, comm=ksp.comm)
        x = b.duplicate()
        ksp.solve(b, x)
        self.iterations += ksp.getIterationNumber()
        if ksp.getConvergedReason() < 0:
            raise SolverError(
                f"got cg with {ksp.getPC().getType()} stopped after "
                f"{ksp.getIterationNumber()} iterations at residual {ksp.getResidualNorm():.2e} "
                f"(PETSc reason {ksp.getConvergedReason()}); wanted {self.rtol:.0e} of "
                f"{self.reduced.processes.norm(right_hand_side):.2e}. Raise max_iterations or "
                "rtol, or use method='direct'."
            )
        self._theta = min([self._theta, *ksp.computeEigenvalues().real])
        return x.getArray().copy()

    def _apply(
        self, apply: Callable[[PETSc.Vec, PETSc.Vec], None], vector: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        x = PETSc.Vec().createWithArray(vector, comm=self.ksp.comm)
        y = x.duplicate()
        apply(x, y)
        return y.getArray().copy()


class SequenceSolver:
    """Solves systems that differ little, one after the other, each from the solution of the last.

    By CG, preconditioned by what `solve` would set up for one of the systems: factors, or a
    multigrid. It is kept for those that follow, as long as they take few iterations.

    Args:
        method: As in `solve`.
    """

    def __init__(self, method: Literal["direct", "krylov", "reduced"]) -> None:
        self.method: Literal["direct", "krylov", "reduced"] = method
        self._M: Map | None = None
        self._held: BlockFactors | PETSc.KSP | None = None
        self._reduced: ReducedSystem | None = None

    def solve(
        self, system: CoupledSystem, start: NDArray[np.float64], rtol: float, *, check: bool = True
    ) -> Pair:
        """Return the solution.

        Args:
            system: The system.
            start: Tissue dofs to start from.
            rtol: As in `solve`.
            check: Whether to bound its error.

        Raises:
            SolverError: As `solve`.
        """
        reduced, last = reduce(system), self._reduced
        if last is not None and last.A_11 is reduced.A_11:
            vars(reduced)["solve_11"] = last.solve_11
        self._reduced = reduced
        if self._M is not None:
            try:
                return self._solve(reduced, start, rtol, MOST_REUSED, check)
            except SolverError:
                self._M = None
        with as_solver_error():
            self._M = self._set_up(system, reduced)
            return self._solve(reduced, start, rtol, MOST_ITERATIONS, check)

    def _solve(
        self,
        reduced: ReducedSystem,
        start: NDArray[np.float64],
        rtol: float,
        max_iterations: int,
        check: bool,
    ) -> Pair:
        cg = ConjugateGradients(reduced, self._M, rtol, max_iterations)
        x = cg.solve(start)
        if check:
            accuracy = max(ACCURACY, 100.0 * rtol)
            check_accuracy(cg.bound(x), accuracy, f"a solution by method={self.method!r}")
        cg.ksp.destroy()
        return x

    def _set_up(self, system: CoupledSystem, reduced: ReducedSystem) -> Map:
        if self.method == "krylov":
            return CoupledMultigrid(system)
        self.destroy()
        if self.method == "reduced":
            cg = ConjugateGradients(reduced, None, 0.0, 1)
            self._held = cg.ksp
            return cg.precondition
        self._held = factors = BlockFactors(reduced, "cholesky")
        zero = np.zeros_like(reduced.b_1)
        return lambda r: factors.solve(r, zero)[0]

    def destroy(self) -> None:
        """Free the memory, which for objects on several processes Python cannot do by itself."""
        if self._held is not None:
            self._held.destroy()
        self._held = self._M = None


MOST_REUSED: Final = 25
"""Iterations with what was set up for an earlier system: more take longer than a new set-up."""

MOST_ITERATIONS: Final = 1000


def _use_gamg(pc: PETSc.PC) -> None:
    """Choose GAMG, which finds distant neighbours by walks: by default it squares the matrix."""
    name = "pc_gamg_aggressive_square_graph"
    pc.setType("gamg")
    pc.setOptionsPrefix(_PREFIX)
    options = PETSc.Options(_PREFIX)
    options.setValue(name, "false")
    pc.setFromOptions()
    options.delValue(name)


class _Product:
    """PETSc context of a symmetric map of numpy vectors, as matrix and as preconditioner."""

    def __init__(self, product: Map) -> None:
        self.product = product

    def mult(self, _: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self.product(x.getArray(readonly=True)))

    def apply(self, _: PETSc.PC, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self.product(x.getArray(readonly=True)))

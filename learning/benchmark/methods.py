"""The methods of the benchmark, by name; all solve S u = g and are timed in the same way."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch

from learning.krylov.conjugate_gradients import cg
from learning.krylov.cycles import KrylovResult, Status
from learning.krylov.fgmres import fgmres
from learning.krylov.preconditioner import Jacobi, Preconditioner
from learning.preconditioners.classical import RugeStuben, SmoothedAggregation
from learning.preconditioners.fast_diagonalisation import FastDiagonalisation
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.pretrained import PRETRAINED, load_pretrained, pretrained_card
from learning.solver import suited_method
from learning.systems.operators import SystemBatch
from mixeddim.tensors import ReducedSystem

__all__ = ["METHODS", "Method", "Solved", "Stop", "training_seconds"]


@dataclass(frozen=True)
class Stop:
    """When a solve ends.

    Attributes:
        rtol: Wanted norm of the true residual, in units of the right-hand side's norm.
        max_iterations: Where to give up.
        deadline: When to give up, by `time.perf_counter`.
    """

    rtol: float
    max_iterations: int
    deadline: float = np.inf


@dataclass(frozen=True)
class Solved:
    """How the solves of a batch ended: iterations, and names of statuses, one for each system."""

    iterations: list[int]
    statuses: list[str]


type Solve = Callable[[torch.Tensor], Solved]
"""Takes right-hand sides, shape (batch, n_3)."""


class Solver(Protocol):
    """Something that solves batches of systems."""

    def setup(self, systems: Sequence[ReducedSystem], batch: SystemBatch, stop: Stop) -> Solve:
        """Do what depends on the systems alone."""
        ...


@dataclass(frozen=True)
class Krylov:
    """The Krylov method of `learning` that suits a preconditioner: `cg`, or `fgmres`."""

    preconditioner: Preconditioner

    def setup(self, systems: Sequence[ReducedSystem], batch: SystemBatch, stop: Stop) -> Solve:
        """Set the preconditioner up (see `Solver`)."""
        precondition = self.preconditioner.setup(systems, batch)
        methods: dict[str, Callable[..., KrylovResult]] = {"cg": cg, "fgmres": fgmres}
        run = methods[suited_method(self.preconditioner)]

        def in_time(r: torch.Tensor) -> torch.Tensor:
            if time.perf_counter() > stop.deadline:
                raise TimeoutError
            return precondition(r)

        def solve(b: torch.Tensor) -> Solved:
            try:
                result = run(
                    batch.apply, b, in_time, rtol=stop.rtol, max_iterations=stop.max_iterations
                )
            except TimeoutError:
                return Solved([stop.max_iterations] * len(b), ["TIME_LIMIT"] * len(b))
            return Solved(result.iterations.tolist(), [status.name for status in result.status])

        return solve


@dataclass(frozen=True)
class PetscCG:
    """PETSc's compiled conjugate gradients with a PC of its own, system by system."""

    kind: Literal["icc", "gamg", "chebyshev", "sor"]

    def setup(self, systems: Sequence[ReducedSystem], batch: SystemBatch, stop: Stop) -> Solve:  # noqa: ARG002
        """Create a KSP for each system (see `Solver`)."""
        from learning.petsc.ksp import petsc_cg

        maps = [
            petsc_cg(system, self.kind, rtol=stop.rtol, max_iterations=stop.max_iterations)
            for system in systems
        ]

        def solve(b: torch.Tensor) -> Solved:
            iterations, statuses = [], []
            for system, run, row in zip(systems, maps, b.cpu().numpy(), strict=True):
                x, steps = run(row)
                residual = np.linalg.norm(row - system.S @ x) / np.linalg.norm(row)
                status = Status.CONVERGED if residual <= stop.rtol else Status.MAX_ITERATIONS
                iterations.append(steps)
                statuses.append(status.name)
            return Solved(iterations, statuses)

        return solve


@dataclass(frozen=True)
class Method:
    """A method of the benchmark.

    Attributes:
        build: Makes it for a device; raises ImportError where a package is missing.
        label: Its name in reports.
        is_batched: Whether it works on all systems of a batch at once; if not, one after another.
        pretrained: Name of its weights in `PRETRAINED`, where it is learned.
        needs_grid: Whether systems have to live on the structured box.
        most_unknowns: Larger systems are beyond it.
        dense_on: Kinds of device on which it keeps a dense matrix of the size of the number of
            points.
        package: What has to be installed for it, or None.
        is_preconditioner: Whether it is one of our protocol, and not a solver of PETSc.
    """

    build: Callable[[torch.device], Preconditioner | PetscCG]
    label: str
    is_batched: bool = False
    pretrained: str | None = None
    needs_grid: bool = False
    most_unknowns: float = np.inf
    dense_on: tuple[str, ...] = ()
    package: str | None = None
    is_preconditioner: bool = True

    def solver(self, device: torch.device) -> Solver:
        """Return the solver to measure."""
        built = self.build(device)
        return built if isinstance(built, PetscCG) else Krylov(built)


def _petsc(kind: Literal["icc", "gamg", "mumps"]) -> Callable[[torch.device], Preconditioner]:
    def build(_: torch.device) -> Preconditioner:
        from learning.petsc import PetscPreconditioner

        return PetscPreconditioner(kind)

    return build


def _pcmg(smoother: Literal["chebyshev", "sor"]) -> Callable[[torch.device], Preconditioner]:
    def build(_: torch.device) -> Preconditioner:
        from learning.petsc import PetscMultigrid

        return PetscMultigrid(smoother)

    return build


def _ksp(
    kind: Literal["icc", "gamg", "chebyshev", "sor"], label: str, *, needs_grid: bool = False
) -> Method:
    return Method(
        lambda _: PetscCG(kind),
        label,
        needs_grid=needs_grid,
        package="petsc4py",
        is_preconditioner=False,
    )


def _learned(name: str, label: str) -> Method:
    return Method(
        lambda device: load_pretrained(name, device),
        label,
        is_batched=True,
        pretrained=name,
        needs_grid=True,
        dense_on=("cuda",) if name == "multigrid" else (),
    )


def _on_box(preconditioner: Preconditioner, label: str, dense_on: tuple[str, ...] = ()) -> Method:
    return Method(
        lambda _: preconditioner, label, is_batched=True, needs_grid=True, dense_on=dense_on
    )


def _geometric(label: str, **options: Any) -> Method:
    """Return geometric multigrid in the precision of the learned one."""
    return _on_box(GeometricMultigrid(dtype=torch.float32, **options), label, ("cuda",))


_LEARNED: Final = {"unet": ("unet-dynamic", "U-Net"), "multigrid": ("multigrid", "learned MG")}

METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        "jacobi": Method(lambda _: Jacobi(), "Jacobi", is_batched=True),
        "icc": Method(_petsc("icc"), "IC(0)", package="petsc4py"),
        "icc_ksp": _ksp("icc", "IC(0), KSP"),
        "gamg": Method(_petsc("gamg"), "GAMG", package="petsc4py"),
        "gamg_ksp": _ksp("gamg", "GAMG, KSP"),
        # The factors of 64 cells per side take several gigabytes.
        "mumps": Method(_petsc("mumps"), "MUMPS", package="petsc4py", most_unknowns=41**3),
        "petsc_multigrid_chebyshev": Method(
            _pcmg("chebyshev"), "PCMG Cheb.", needs_grid=True, package="petsc4py"
        ),
        "petsc_multigrid_chebyshev_ksp": _ksp("chebyshev", "PCMG Cheb., KSP", needs_grid=True),
        "petsc_multigrid_sor": Method(
            _pcmg("sor"), "PCMG SOR", needs_grid=True, package="petsc4py"
        ),
        "petsc_multigrid_sor_ksp": _ksp("sor", "PCMG SOR, KSP", needs_grid=True),
        "ruge_stuben": Method(lambda _: RugeStuben(), "Ruge-Stüben", package="pyamg"),
        "smoothed_aggregation": Method(
            lambda _: SmoothedAggregation(), "smoothed aggregation", package="pyamg"
        ),
        "geometric": _geometric("geometric MG"),
        "geometric_2": _geometric("geometric MG, 2", degree=2),
        "geometric_3": _geometric("geometric MG, 3", degree=3),
        "geometric_fourth_kind": _geometric(
            "geometric MG, 4th kind", degree=3, polynomial="fourth_kind"
        ),
        "geometric_factors": _geometric("geometric MG, factors", smoother="cholesky"),
        "fast_diagonalisation": _on_box(FastDiagonalisation(), "fast diag."),
        "fast_diagonalisation_woodbury": _on_box(
            FastDiagonalisation(corrects_coupling=True), "fast diag., Woodbury", ("cpu", "cuda")
        ),
    }
    | {
        name: _learned(weights, label)
        for name, (weights, label) in _LEARNED.items()
        if weights in PRETRAINED
    }
)
"""The methods of the benchmark, by name."""


def training_seconds(name: str) -> float | None:
    """Return how long the weights of a learned method were trained, as their card says, or None.

    Args:
        name: One of `METHODS`.
    """
    pretrained = METHODS[name].pretrained
    if pretrained is None:
        return None
    cards = [pretrained_card(pretrained)]
    stages = re.match(r"(.*)-dynamic$", pretrained)
    if stages is not None:  # it started from the static one
        cards.append(pretrained_card(f"{stages[1]}-static"))
    hours = [re.search(r"^\| hardware, time \|.*?([\d.]+) hours", card, re.M) for card in cards]
    found = [float(match[1]) for match in hours if match is not None]
    return 3600.0 * sum(found) if len(found) == len(cards) else None

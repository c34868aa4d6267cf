"""The stages of training: what each one minimises, on how many problems, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from learning.preconditioners.architectures import ARCHITECTURES
from learning.problems.data import check_families
from learning.training.losses import KRYLOV_LOSSES

__all__ = ["LOSSES", "STAGES", "Stage"]

LOSSES = ("residual", *KRYLOV_LOSSES)
"""Names of losses: that of the static stage, and those of the dynamic one."""

SYMMETRIC_LOSSES = ("energy",)
"""Those that run conjugate gradients."""


@dataclass(frozen=True)
class Stage:
    """What a training stage does.

    Attributes:
        loss: One of `LOSSES`.
        num_problems: Problems to train on, the first ones of each data set.
        num_validation: Problems to validate on, the last ones of each data set.
        families: Right-hand sides of each problem in an epoch, of `learning.FAMILIES`;
            physical and random ones are drawn anew every epoch.
        num_epochs: Passes through the samples.
        batch_size: Samples in a step, over all processes, from one data set.
        architecture: What to train, one of `learning.preconditioners.architectures.ARCHITECTURES`.
        learning_rate: Of Adam in the first step; falls to zero along a cosine.
        num_steps: Krylov steps m in the losses that run a Krylov method.
        static_weight: Of the residual loss in the hybrid one, 0 to 1; the sine loss has the rest.
        mixed_precision: Whether most convolutions run in bfloat16 (see `UNetPreconditioner`), which
            not every architecture has; validation does not.
        checkpoint: Whether activations are computed again in the backward pass, to save memory.
        seed: Of the initial weights, the order of the samples and the right-hand sides.

    Raises:
        ValueError: If a field is out of range, or the architecture lacks what another one needs.
    """

    loss: str
    num_problems: int
    num_validation: int
    families: tuple[str, ...]
    num_epochs: int
    batch_size: int
    architecture: str = "unet"
    learning_rate: float = 1e-3
    num_steps: int = 10
    static_weight: float = 0.5
    mixed_precision: bool = False
    checkpoint: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"got loss={self.loss!r}; wanted one of {LOSSES}. Choose one.")
        check_families(self.families)
        for name in ("num_problems", "num_validation", "num_epochs", "batch_size", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}; wanted at least 1. Raise it.")
        if not (self.learning_rate > 0.0 and 0.0 <= self.static_weight <= 1.0 and self.seed >= 0):
            raise ValueError(
                f"got learning_rate={self.learning_rate}, static_weight={self.static_weight} and "
                f"seed={self.seed}; wanted a positive number, one from 0 to 1, and an integer that "
                "is not negative. Correct them."
            )
        self._check_architecture()

    def _check_architecture(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"got architecture={self.architecture!r}; wanted one of {[*ARCHITECTURES]}. "
                "Choose one."
            )
        architecture = ARCHITECTURES[self.architecture]
        if self.mixed_precision and not architecture.has_mixed_precision:
            raise ValueError(
                f"got mixed_precision=True with architecture={self.architecture!r}, which has "
                "none; wanted full precision. Leave it."
            )
        if self.loss in SYMMETRIC_LOSSES and not architecture.is_symmetric:
            raise ValueError(
                f"got loss={self.loss!r} with architecture={self.architecture!r}, which is not "
                "linear and symmetric, as conjugate gradients need; wanted one of "
                f"{[name for name in LOSSES if name not in SYMMETRIC_LOSSES]}. Choose one."
            )


STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        # arXiv:2507.15452, Tables 2 and 3.
        "paper-static": Stage(
            loss="residual",
            num_problems=480,
            num_validation=120,
            families=("canonical", "random", "random", "random", "random"),
            num_epochs=250,
            batch_size=5,
        ),
        "paper-dynamic": Stage(
            loss="sine",
            num_problems=100,
            num_validation=20,
            families=("canonical",),
            num_epochs=150,
            batch_size=20,
        ),
        # An hour and a half on two cores, on all families: what the shipped weights come from.
        "short-static": Stage(
            loss="residual",
            num_problems=480,
            num_validation=40,
            families=("canonical", "physical", "random", "random"),
            num_epochs=5,
            batch_size=4,
            mixed_precision=True,
        ),
        "short-dynamic": Stage(
            loss="log_sine",
            num_problems=200,
            num_validation=20,
            families=("canonical", "physical", "random"),
            num_epochs=5,
            batch_size=4,
            num_steps=8,
            mixed_precision=True,
        ),
        # Twenty minutes on one core of a busy machine, on three data sets, `regimes`,
        # `regimes_varying` and `regimes_fibres`: what the learned multigrid comes from.
        "multigrid": Stage(
            loss="log_sine",
            architecture="multigrid",
            num_problems=80,
            num_validation=10,
            families=("canonical", "physical", "random"),
            num_epochs=15,
            batch_size=10,
            learning_rate=1e-2,
            num_steps=5,
        ),
    }
)
"""Stages by name."""

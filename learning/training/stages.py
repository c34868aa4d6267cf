"""The stages of training: the loss, the problems and the number of epochs of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from learning.preconditioners.architectures import ARCHITECTURES
from learning.problems.data import check_families
from learning.training.losses import KRYLOV_LOSSES

__all__ = ["LOSSES", "STAGES", "Stage"]

LOSSES = ("residual", *KRYLOV_LOSSES)
"""Names of the losses: the first is the static one, the others are dynamic."""

SYMMETRIC_LOSSES = ("energy",)
"""The losses that run conjugate gradients."""


@dataclass(frozen=True)
class Stage:
    """The settings of a training stage.

    Attributes:
        loss: One of `LOSSES`.
        num_problems: Number of problems to train on, the first ones of each data set.
        num_validation: Number of problems to validate on, the last ones of each data set.
        families: Right-hand sides of each problem in an epoch, from `learning.FAMILIES`;
            physical and random ones are drawn anew in every epoch.
        num_epochs: Number of passes through the samples.
        batch_size: Number of samples per step, over all processes; a batch is from one data set.
        architecture: A name in `learning.preconditioners.architectures.ARCHITECTURES`.
        learning_rate: The rate of Adam in the first step; it falls to zero along a cosine.
        num_steps: Number m of Krylov steps, in the losses that run a Krylov method.
        static_weight: Weight of the residual loss in the hybrid loss, from 0 to 1; the sine loss
            has the rest.
        mixed_precision: Whether most convolutions run in bfloat16 in training (see
            `UNetPreconditioner`), for architectures that can; validation uses full precision.
        checkpoint: Whether activations are computed again in the backward pass, to save memory.
        seed: Seed of the initial weights, the order of the samples and the right-hand sides.

    Raises:
        ValueError: If a field is out of range, or the architecture does not support the loss or
            mixed precision.
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
        # The shipped U-Net was trained by these two; its cards have the times.
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
        # The shipped multigrid was trained by this one, on the data sets `regimes`,
        # `regimes_varying` and `regimes_fibres`; its card has the time.
        "multigrid": Stage(
            loss="log_sine",
            architecture="multigrid",
            num_problems=16,
            num_validation=2,
            families=("canonical", "physical", "random"),
            num_epochs=2,
            batch_size=10,
            learning_rate=0.1,
            num_steps=4,
        ),
    }
)
"""Stages by name."""

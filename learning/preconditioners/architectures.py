"""Trainable architectures, by the names that stages and files of weights use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from learning.krylov.preconditioner import Preconditioner
from learning.preconditioners.multigrid.learned import LearnedMultigrid, MultigridBounds
from learning.preconditioners.unet import UNet, UNetPreconditioner

__all__ = ["ARCHITECTURES", "Architecture", "architecture_of", "preconditioner_of"]


@dataclass(frozen=True)
class Architecture:
    """A model that can be trained, and the preconditioner that it makes.

    Attributes:
        model: Class of the model, constructed without arguments, in float32.
        preconditioner: Class of the preconditioner, constructed from a model; its maps are
            differentiable in the parameters of the model.
        has_mixed_precision: Whether that class takes `mixed_precision` too.
    """

    model: type[nn.Module]
    preconditioner: type[Preconditioner]
    has_mixed_precision: bool = False

    @property
    def is_symmetric(self) -> bool:
        """Whether its preconditioners are symmetric positive definite, whatever the weights."""
        return bool(self.preconditioner.is_symmetric)


ARCHITECTURES: Mapping[str, Architecture] = {
    "unet": Architecture(UNet, UNetPreconditioner, has_mixed_precision=True),
    "multigrid": Architecture(MultigridBounds, LearnedMultigrid),
}
"""Architectures by name."""


def architecture_of(model: nn.Module) -> str:
    """Return the name of a model's architecture.

    Raises:
        ValueError: If it is of no class in `ARCHITECTURES`.
    """
    for name, architecture in ARCHITECTURES.items():
        if type(model) is architecture.model:
            return name
    raise ValueError(
        f"got a model of type {type(model).__name__}; wanted one of "
        f"{[a.model.__name__ for a in ARCHITECTURES.values()]}. Pass the model itself, without the "
        "wrapper of torch.compile or DistributedDataParallel."
    )


def preconditioner_of(model: nn.Module, *, mixed_precision: bool = False) -> Preconditioner:
    """Return the preconditioner that a model makes, which shares its weights.

    Args:
        model: Of a class in `ARCHITECTURES`, on the device of the systems.
        mixed_precision: Whether to run in bfloat16 what can; only where the architecture has it.

    Raises:
        ValueError: If the model is of another class.
    """
    options = {"mixed_precision": True} if mixed_precision else {}
    create: Callable[..., Preconditioner] = ARCHITECTURES[architecture_of(model)].preconditioner
    return create(model, **options)

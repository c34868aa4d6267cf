"""The preconditioner protocol: `setup` runs once per batch, its result once per iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from learning.krylov.cycles import precondition_in
from learning.systems.operators import SystemBatch
from mixeddim.tensors import ALONE, Processes, ReducedSystem

__all__ = ["Identity", "Jacobi", "Preconditioner", "check_preconditioner", "map_of", "on_host"]


class Preconditioner(Protocol):
    """Anything that makes an approximate inverse M ≈ S⁻¹ for a batch of systems.

    One whose attribute `is_parallel` is true also works on several processes: `setup` then takes
    one distributed system in the order of boxes (see `learning.systems.boxes`), and the map takes
    and returns the values of the nodes here.

    One whose attribute `takes_blocks` is true makes of one system a map that takes any number of
    vectors, (k, n_3). Of others `learning.Solver` calls the map once per vector.
    """

    @property
    def is_linear(self) -> bool:
        """Whether M (a u + b v) = a M u + b M v; if not, the Krylov method has to be flexible."""
        ...

    @property
    def is_symmetric(self) -> bool:
        """Whether M is also symmetric positive definite, as conjugate gradients need."""
        ...

    def setup(
        self, systems: Sequence[ReducedSystem], batch: SystemBatch
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Do the work that depends on the systems only, and return the map r -> M r.

        Args:
            systems: The systems, with all their blocks.
            batch: The same systems on the device, in the dtype of the vectors.

        Returns:
            A map from residuals to corrections, both of shape (batch, n_3) in dof order.
        """
        ...


class Identity:
    """No preconditioner."""

    is_linear = True
    is_symmetric = True
    is_parallel = True
    takes_blocks = True

    def setup(
        self,
        systems: Sequence[ReducedSystem],  # noqa: ARG002
        batch: SystemBatch,  # noqa: ARG002
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the identity (see `Preconditioner`)."""
        return lambda r: r


class Jacobi:
    """Division by the diagonal of A_33."""

    is_linear = True
    is_symmetric = True
    is_parallel = True
    takes_blocks = True

    def setup(
        self, systems: Sequence[ReducedSystem], batch: SystemBatch
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the division by the diagonal (see `Preconditioner`)."""
        diagonals = torch.stack([torch.tensor(system.diagonal_33) for system in systems])
        inverse = (1.0 / diagonals).to(batch.g)
        return lambda r: inverse * r


def check_preconditioner(candidate: object, processes: Processes = ALONE) -> None:
    """Raise an error for what is no preconditioner, or not one on these processes.

    Raises:
        ValueError: For a class, or an object without `setup`, such as a model or a name.
        NotImplementedError: For one that needs the whole system on one process.
    """
    if isinstance(candidate, type) or not hasattr(candidate, "setup"):
        kind = type(candidate).__name__
        got = repr(candidate) if isinstance(candidate, type | str) else f"an object of type {kind}"
        raise ValueError(
            f"got {got} as preconditioner; wanted an object with a method setup. Use "
            "UNetPreconditioner(model) for a model, Jacobi() for the class Jacobi, "
            "load_pretrained(name) for a name, .preconditioner of what recommend returns."
        )
    if not getattr(candidate, "is_parallel", False):
        processes.refuse(type(candidate).__name__)


def map_of(
    preconditioner: Preconditioner, system: ReducedSystem, batch: SystemBatch
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Set up for one system, and return the map r -> M r for any number of vectors, (k, n_3).

    Args:
        preconditioner: Any.
        system: The system.
        batch: The same system.
    """
    M = preconditioner.setup([system], batch)
    if getattr(preconditioner, "takes_blocks", False) and batch.processes.size == 1:
        return M

    def apply(r: torch.Tensor) -> torch.Tensor:
        if len(r) == 1:
            return precondition_in(M, r)
        return torch.cat([precondition_in(M, row[None]) for row in r])

    return apply


def on_host(
    maps: Sequence[Callable[[NDArray[np.float64]], NDArray[np.float64]]],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the map of a batch made of one numpy map per system, for classical libraries.

    Args:
        maps: Each takes and returns float64 of shape (n_3,), and does not change its argument.
    """

    def apply(r: torch.Tensor) -> torch.Tensor:
        rows = r.detach().to("cpu", torch.float64).numpy()
        corrections = np.stack([M(row) for M, row in zip(maps, rows, strict=True)])
        return torch.from_numpy(corrections).to(r)

    return apply

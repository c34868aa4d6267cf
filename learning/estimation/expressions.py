"""Coefficients that depend on a few numbers, such as UFL expressions, as differentiable tensors."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Expression", "cell_values"]


class Expression(Protocol):
    """A function of a few numbers with derivatives, such as `mixeddim.CellExpression`."""

    @property
    def num_parameters(self) -> int:
        """How many numbers it depends on."""

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values on cells, shape (num_cells,)."""

    def derivative(self, number: int) -> Expression:
        """Return the derivative with respect to one of the numbers."""


def cell_values(expression: Expression, parameters: torch.Tensor) -> torch.Tensor:
    """Evaluate an expression on cells, differentiably to any order in its parameters.

    Args:
        expression: Such as `mixeddim.CellExpression`.
        parameters: Its parameters, shape (num_parameters,), in float64 on the CPU.

    Returns:
        Shape (num_cells,).

    Raises:
        ValueError: If the parameters are of another shape or dtype.
    """
    wanted = (expression.num_parameters,)
    if tuple(parameters.shape) != wanted or parameters.dtype != torch.float64:
        raise ValueError(
            f"got parameters of shape {tuple(parameters.shape)} in {parameters.dtype}; wanted "
            f"{wanted} in torch.float64. Pass one number for each constant."
        )
    values: torch.Tensor = _Evaluation.apply(parameters, expression)
    return values


class _Evaluation(torch.autograd.Function):
    """The values of an expression; the backward pass evaluates its derivatives the same way."""

    @staticmethod
    def forward(ctx: Any, parameters: torch.Tensor, expression: Expression) -> torch.Tensor:
        ctx.expression = expression
        ctx.save_for_backward(parameters)
        return torch.from_numpy(expression(parameters.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        [parameters] = ctx.saved_tensors
        slopes = [
            _Evaluation.apply(parameters, ctx.expression.derivative(number)) @ grad_outputs[0]
            for number in range(len(parameters))
        ]
        return torch.stack(slopes), None

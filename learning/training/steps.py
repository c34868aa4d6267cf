"""A step of Adam, in plain torch or replayed from a CUDA graph.

A small network on small grids keeps an accelerator waiting for the host, unless a graph holds all
kernels of the step. What such a graph records must not look at a value, and find everything at the
same place.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn

__all__ = [
    "MAX_GRADIENT_NORM",
    "Step",
    "ahead",
    "captured",
    "descend",
    "new_optimizer",
    "put_back",
    "restore",
    "set_rate",
]

MAX_GRADIENT_NORM = 1.0  # otherwise a few samples with steep losses spoil the weights
WARM_UP = 3  # steps before a capture, in which libraries choose their algorithms

type Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From the numbers of problems (batch,) and right-hand sides (batch, n) to the mean loss."""


# --- The optimiser ----------------------------------------------------------------------------


def new_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Return Adam for a model where it is; on an accelerator one that a graph can hold."""
    parameters = list(model.parameters())
    if not parameters[0].is_cuda:
        return torch.optim.Adam(parameters, learning_rate)
    rate = torch.tensor(learning_rate, device=parameters[0].device)
    return torch.optim.Adam(parameters, rate, capturable=True, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate, in place where it lies on an accelerator."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def restore(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Load the state of an optimiser that may have been on another device, with other kernels.

    Args:
        optimizer: Of `new_optimizer`, for the model that the state is of.
        content: Its `state_dict`.
    """
    own = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(content)
    for group, options in zip(optimizer.param_groups, own, strict=True):
        group.update(options)
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name, value in state.items():
                if name == "step":
                    device = parameter.device if group["capturable"] else "cpu"
                    state[name] = value.to(device, torch.float32)
                else:  # laid out as the parameter is
                    state[name] = torch.empty_like(parameter).copy_(value)


def descend(
    loss: torch.Tensor, optimizer: torch.optim.Optimizer, num_processes: int = 1
) -> torch.Tensor:
    """Take a step down the gradient of a loss, without a look at any value.

    Where loss or gradient is not finite the step goes on without a gradient, so that the weights
    stay finite.

    Args:
        loss: The share of this process; without gradients where it has none.
        optimizer: Holds the parameters.
        num_processes: Over which losses and gradients are summed.

    Returns:
        The loss over all processes, NaN where it or its gradient is not finite.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total, gradients = loss.detach().double(), [torch.zeros_like(p) for p in parameters]
    if loss.requires_grad:
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        # Copied, since Adam's kernels want gradients laid out as the parameters are.
        gradients = [g.copy_(f) for g, f in zip(gradients, found, strict=True)]
    if num_processes > 1:
        for tensor in (total, *gradients):
            distributed.all_reduce(tensor)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
    finite = torch.isfinite(total) & torch.isfinite(norm)
    for gradient in gradients:
        gradient.masked_fill_(~finite, 0.0)
    optimizer.step()
    return torch.where(finite, total, torch.nan)


# --- CUDA graphs ------------------------------------------------------------------------------


def captured(
    step: Step, optimizer: torch.optim.Optimizer, index: torch.Tensor, f: torch.Tensor
) -> Step:
    """Return a step replayed from a CUDA graph; the step itself where that does not work.

    The first few steps warm up; weights and optimiser are put back after them.

    Args:
        step: It looks at no value, and uses only tensors that stay where they are.
        optimizer: Of `new_optimizer`.
        index: Numbers of problems, as in all further calls (batch,).
        f: Right-hand sides, as in all further calls (batch, n).
    """
    if not f.is_cuda:
        return step
    index, f, current = index.clone(), f.clone(), torch.cuda.current_stream()
    try:
        with put_back(optimizer):
            stream = torch.cuda.Stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    step(index, f)
            current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step(index, f)
    except RuntimeError as error:
        torch.cuda.set_stream(current)  # a capture that fails leaves its own
        print(f"the step runs without a CUDA graph, which failed: {error}", file=sys.stderr)
        return step

    def replay(new_index: torch.Tensor, new_f: torch.Tensor) -> torch.Tensor:
        index.copy_(new_index)
        f.copy_(new_f)
        graph.replay()
        return loss.clone()

    return replay


@contextmanager
def put_back(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Give weights and the optimiser's state their values again afterwards, in place."""
    _prime(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [*parameters, *(v for p in parameters for v in optimizer.state[p].values())]
    before = [tensor.detach().clone() for tensor in kept]
    try:
        yield
    finally:
        if parameters[0].is_cuda:
            torch.cuda.synchronize()
        with torch.no_grad():
            for tensor, value in zip(kept, before, strict=True):
                tensor.copy_(value)


def _prime(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimiser's state, by a step along no gradient that is then not counted."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if optimizer.state[parameters[0]]:
        return
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in parameters:
        optimizer.state[parameter]["step"].zero_()


# --- The host beside it -----------------------------------------------------------------------


def ahead[T, U](
    function: Callable[[T], U], arguments: Sequence[T], num_threads: int, most: int = 16
) -> Iterator[U]:
    """Yield a function's values in order, while threads compute those that come next.

    Args:
        function: What to compute.
        arguments: Of what.
        num_threads: 0 to compute each when it is asked for.
        most: Values that wait at a time.
    """
    if num_threads == 0:
        yield from map(function, arguments)
        return
    with ThreadPoolExecutor(num_threads) as executor:
        waiting: deque[Future[U]] = deque()
        for argument in arguments:
            waiting.append(executor.submit(function, argument))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

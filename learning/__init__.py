"""Neural preconditioners and a differentiable FGMRES for the problems of `mixeddim`."""

from learning.krylov import KrylovResult, Status, fgmres, krylov_sines
from learning.losses import log_sine_loss, residual_loss, sine_loss
from learning.operators import SystemBatch, batch_systems
from learning.preconditioner import Identity, Jacobi, Preconditioner
from learning.solver import SolveResult, solve
from learning.unet import UNet, UNetPreconditioner

__all__ = [
    "Identity",
    "Jacobi",
    "KrylovResult",
    "Preconditioner",
    "SolveResult",
    "Status",
    "SystemBatch",
    "UNet",
    "UNetPreconditioner",
    "batch_systems",
    "fgmres",
    "krylov_sines",
    "log_sine_loss",
    "residual_loss",
    "sine_loss",
    "solve",
]

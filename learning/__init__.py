"""Neural preconditioners and a differentiable FGMRES for the problems of `mixeddim`."""

from learning.benchmark import run_benchmark
from learning.classical import RugeStuben, SmoothedAggregation
from learning.conjugate_gradients import cg, flexible_cg
from learning.data import FAMILIES, Dataset, Problem, load_dataset, right_hand_side
from learning.distributions import DISTRIBUTIONS, ProblemDistribution
from learning.evaluation import evaluate, evaluate_epochs, sine_profile
from learning.fast_diagonalisation import FastDiagonalisation
from learning.generation import generate
from learning.geometric_multigrid import GeometricMultigrid
from learning.krylov import KrylovResult, Status, fgmres, krylov_sines
from learning.losses import energy_loss, hybrid_loss, log_sine_loss, residual_loss, sine_loss
from learning.multigrid import LearnedMultigrid, MultigridNetwork
from learning.operators import SystemBatch, batch_systems
from learning.preconditioner import Identity, Jacobi, Preconditioner
from learning.pretrained import load_preconditioner, load_pretrained, pretrained_card
from learning.recommendation import Recommendation, recommend
from learning.regimes import REGIMES
from learning.solver import SolveResult, solve
from learning.stages import STAGES, Stage
from learning.training import train
from learning.unet import UNet, UNetPreconditioner
from learning.weights import load_weights, save_weights

__all__ = [
    "DISTRIBUTIONS",
    "FAMILIES",
    "REGIMES",
    "STAGES",
    "Dataset",
    "FastDiagonalisation",
    "GeometricMultigrid",
    "Identity",
    "Jacobi",
    "KrylovResult",
    "LearnedMultigrid",
    "MultigridNetwork",
    "Preconditioner",
    "Problem",
    "ProblemDistribution",
    "Recommendation",
    "RugeStuben",
    "SmoothedAggregation",
    "SolveResult",
    "Stage",
    "Status",
    "SystemBatch",
    "UNet",
    "UNetPreconditioner",
    "batch_systems",
    "cg",
    "energy_loss",
    "evaluate",
    "evaluate_epochs",
    "fgmres",
    "flexible_cg",
    "generate",
    "hybrid_loss",
    "krylov_sines",
    "load_dataset",
    "load_preconditioner",
    "load_pretrained",
    "load_weights",
    "log_sine_loss",
    "pretrained_card",
    "recommend",
    "residual_loss",
    "right_hand_side",
    "run_benchmark",
    "save_weights",
    "sine_loss",
    "sine_profile",
    "solve",
    "train",
]

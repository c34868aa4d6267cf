"""Neural preconditioners and a differentiable FGMRES for the problems of `mixeddim`."""

from learning.benchmark.recommendation import Recommendation, recommend
from learning.benchmark.regimes import REGIMES
from learning.benchmark.run import run_benchmark
from learning.estimation.differentiable import DifferentiableSolve
from learning.estimation.expressions import cell_values
from learning.evaluation.measures import evaluate, evaluate_epochs, sine_profile
from learning.krylov.conjugate_gradients import cg, flexible_cg
from learning.krylov.fgmres import KrylovResult, Status, fgmres, krylov_sines
from learning.krylov.preconditioner import Identity, Jacobi, Preconditioner
from learning.preconditioners.classical import RugeStuben, SmoothedAggregation
from learning.preconditioners.fast_diagonalisation import FastDiagonalisation
from learning.preconditioners.multigrid.geometric import GeometricMultigrid
from learning.preconditioners.multigrid.learned import LearnedMultigrid, MultigridBounds
from learning.preconditioners.unet import UNet, UNetPreconditioner
from learning.pretrained import load_preconditioner, load_pretrained, pretrained_card
from learning.problems.data import FAMILIES, Dataset, Problem, load_dataset, right_hand_side
from learning.problems.distributions import DISTRIBUTIONS, ProblemDistribution
from learning.problems.generation import generate
from learning.solver import Solver, SolveResult, solve
from learning.systems.operators import SystemBatch, batch_systems
from learning.training.loop import train
from learning.training.losses import (
    energy_loss,
    hybrid_loss,
    log_sine_loss,
    residual_loss,
    sine_loss,
)
from learning.training.stages import STAGES, Stage
from learning.training.weights import load_weights, save_weights

__all__ = [
    "DISTRIBUTIONS",
    "FAMILIES",
    "REGIMES",
    "STAGES",
    "Dataset",
    "DifferentiableSolve",
    "FastDiagonalisation",
    "GeometricMultigrid",
    "Identity",
    "Jacobi",
    "KrylovResult",
    "LearnedMultigrid",
    "MultigridBounds",
    "Preconditioner",
    "Problem",
    "ProblemDistribution",
    "Recommendation",
    "RugeStuben",
    "SmoothedAggregation",
    "SolveResult",
    "Solver",
    "Stage",
    "Status",
    "SystemBatch",
    "UNet",
    "UNetPreconditioner",
    "batch_systems",
    "cell_values",
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

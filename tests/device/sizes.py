"""How large everything is: at full size for an accelerator, and tiny to try the script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from learning.problems.distributions import DISTRIBUTIONS, ProblemDistribution
from learning.training.stages import STAGES, Stage

MOST_BYTES = 60e6  # of all data files
METHODS = (
    "multigrid",
    "geometric",
    "geometric_2",
    "geometric_3",
    "fast_diagonalisation",
    "fast_diagonalisation_woodbury",
    "jacobi",
    "unet",
)
"""Methods of the benchmark that run on an accelerator, classical and learned."""


@dataclass(frozen=True)
class Sizes:
    """What is prepared, measured and trained.

    Attributes:
        training: The graphs of the paper's protocol.
        num_training: Their number.
        num_unseen: Number of graphs to evaluate on, whose networks the benchmark uses too.
        num_fine: Number of networks on the fine grid, a batch of the benchmark.
        fine_cells: Cells per side there.
        batch_size: Systems solved together on the grid of the training.
        regimes: Of the benchmark, the most telling first.
        methods: Of the benchmark.
        static: The first stage of the protocol.
        dynamic: The second one.
    """

    training: ProblemDistribution
    num_training: int
    num_unseen: int
    num_fine: int
    fine_cells: int
    batch_size: int
    regimes: tuple[str, ...]
    methods: tuple[str, ...]
    static: Stage
    dynamic: Stage

    @property
    def data(self) -> Mapping[str, tuple[ProblemDistribution, int, int]]:
        """Name of a data set -> distribution, number of problems and seed, as in the study."""
        fine = replace(self.training, num_cells=self.fine_cells)
        return {
            "training": (self.training, self.num_training, 0),
            "unseen": (self.training, self.num_unseen, 1),
            "fine": (fine, self.num_fine, 2),
        }

    @property
    def stages(self) -> Mapping[str, Stage]:
        """The stages of the protocol, in order."""
        return {"static": self.static, "dynamic": self.dynamic}


FULL = Sizes(
    training=DISTRIBUTIONS["paper"],
    num_training=600,
    num_unseen=100,
    num_fine=8,
    fine_cells=64,
    batch_size=256,
    regimes=("heterogeneous_1e4", "strong_1e-3", "anisotropic", "paper"),
    methods=METHODS,
    # bfloat16, and TF32 in the last two convolutions: see `UNetPreconditioner`.
    static=replace(STAGES["paper-static"], mixed_precision=True),
    dynamic=replace(STAGES["paper-dynamic"], mixed_precision=True),
)

_TINY = {"num_problems": 6, "num_validation": 2, "num_epochs": 2, "mixed_precision": False}

TINY = Sizes(
    training=replace(DISTRIBUTIONS["paper"], num_cells=3, num_nodes=(6, 8)),
    num_training=8,
    num_unseen=3,
    num_fine=2,
    fine_cells=4,
    batch_size=4,
    regimes=("heterogeneous_1e4",),
    methods=("multigrid", "geometric", "fast_diagonalisation", "jacobi"),
    static=replace(FULL.static, batch_size=3, **_TINY),
    dynamic=replace(FULL.dynamic, batch_size=3, num_steps=3, **_TINY),
)

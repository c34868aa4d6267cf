"""Distributions of problems, by name: networks, radii and coefficients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

__all__ = ["DISTRIBUTIONS", "Draw", "ProblemDistribution", "from_json", "to_json"]

GENERATORS: Final = ("capillary_mesh", "murray_tree", "spanning_tree")
FIBRES: Final = ("x", "y", "z", "oblique")


@dataclass(frozen=True)
class ProblemDistribution:
    """The distribution of problems in the unit cube; all ranges are closed, (low, high).

    Attributes:
        generators: Methods of `mixeddim.random_vascular_graph`, drawn uniformly.
        num_nodes: Nodes of the network, uniform integers.
        radius: Radius of the vessels, log-uniform as the four coefficients.
        k_3d: Diffusion in the tissue.
        sigma_3d: Reaction in the tissue.
        k_1d: Axial conductance of the network.
        permeability: kappa of the vessel wall.
        contrast: Largest over smallest diffusion in the tissue, log-uniform too; above 1 log k is
            a smooth random field with k_3d in the middle of its range.
        anisotropy: Diffusion along fibres over that across, log-uniform; k_3d is their geometric
            mean over the three directions.
        fibres: Where they run: "x", "y", "z", or "oblique" in a random direction for each problem.
        num_cells: Cells along each side of the cube.
    """

    generators: tuple[str, ...] = ("spanning_tree",)
    num_nodes: tuple[int, int] = (40, 40)
    radius: tuple[float, float] = (0.05, 0.05)
    k_3d: tuple[float, float] = (1.0, 1.0)
    sigma_3d: tuple[float, float] = (1.0, 1.0)
    k_1d: tuple[float, float] = (1.0, 1.0)
    permeability: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    anisotropy: tuple[float, float] = (1.0, 1.0)
    fibres: str = "x"
    num_cells: int = 20

    def __post_init__(self) -> None:
        unknown = [name for name in self.generators if name not in GENERATORS]
        if unknown or not self.generators:
            raise ValueError(
                f"got generators={self.generators}; wanted at least one of {', '.join(GENERATORS)}."
                " Correct the names."
            )
        for name in ("num_nodes", *LOG_UNIFORM):
            least = 2 if name == "num_nodes" else 0.0
            low, high = getattr(self, name)
            if not (least <= low <= high < np.inf and low > 0.0):
                raise ValueError(
                    f"got {name}=({low}, {high}); wanted low <= high, both finite and "
                    f"{'at least 2' if least else 'positive'}. Correct the range."
                )
        if self.contrast[0] < 1.0 or self.anisotropy[0] < 1.0 or self.fibres not in FIBRES:
            raise ValueError(
                f"got contrast={self.contrast}, anisotropy={self.anisotropy} and "
                f"fibres={self.fibres!r}; wanted ratios of at least 1, and fibres of {FIBRES}. "
                "Correct them."
            )
        integers = (*self.num_nodes, self.num_cells)
        if not all(isinstance(n, int) for n in integers) or self.num_cells < 1:
            raise ValueError(
                f"got num_nodes={self.num_nodes} and num_cells={self.num_cells!r}; wanted "
                "integers, and at least one cell. Correct them."
            )


LOG_UNIFORM: Final = (
    "radius", "k_3d", "sigma_3d", "k_1d", "permeability", "contrast", "anisotropy"
)  # fmt: skip
# Without them a distribution reads, and is hashed, as before there were any.
_ADDED: Final = {"contrast": (1.0, 1.0), "anisotropy": (1.0, 1.0), "fibres": "x"}

# Training problems of the learned multigrid: the regimes of the benchmark and what lies between, on
# a small grid. Networks full of loops are left out, to try a model on.
_REGIMES: Final = ProblemDistribution(
    generators=("murray_tree", "spanning_tree"),
    num_nodes=(15, 150),
    radius=(0.0125, 0.05),
    k_3d=(1e-4, 1.0),
    sigma_3d=(0.01, 10.0),
    k_1d=(0.1, 100.0),
    permeability=(0.1, 10.0),
    num_cells=16,
)

DISTRIBUTIONS: Final[Mapping[str, ProblemDistribution]] = MappingProxyType(
    {
        # The regime of the paper, as we read it.
        "paper": ProblemDistribution(),
        # Every generator, and each number over one to three decades.
        "wide": ProblemDistribution(
            generators=GENERATORS,
            num_nodes=(15, 150),
            radius=(0.02, 0.08),
            k_3d=(0.03, 3.0),
            sigma_3d=(0.01, 10.0),
            k_1d=(0.1, 100.0),
            permeability=(0.1, 10.0),
        ),
        # For the learned multigrid: constant diffusion, varying diffusion, fibres.
        "regimes": _REGIMES,
        "regimes_varying": replace(_REGIMES, contrast=(100.0, 1e5)),
        "regimes_fibres": replace(_REGIMES, contrast=(1.0, 100.0), anisotropy=(1.0, 100.0)),
        # From here on "paper" with one thing changed, for models that have not seen it:
        # trees that fill the cube from one inlet, of thinner and thinner vessels,
        "murray_tree": ProblemDistribution(generators=("murray_tree",)),
        # networks full of loops,
        "capillary_mesh": ProblemDistribution(generators=("capillary_mesh",)),
        # a quarter of the nodes,
        "sparse": ProblemDistribution(num_nodes=(10, 10)),
        # almost four times as many,
        "dense": ProblemDistribution(num_nodes=(150, 150)),
        # a quarter of the radius, and of a cell at 20 cells per side,
        "thin": ProblemDistribution(radius=(0.0125, 0.0125)),
        # twice the radius,
        "thick": ProblemDistribution(radius=(0.1, 0.1)),
        # a hundredth of the reaction, so that the smooth modes are worse conditioned,
        "weak_reaction": ProblemDistribution(sigma_3d=(0.01, 0.01)),
        # a hundredth of the diffusion, so that exchange and reaction dominate,
        "strong_coupling": ProblemDistribution(k_3d=(0.01, 0.01)),
        # networks that carry the inlet values everywhere.
        "conductive": ProblemDistribution(k_1d=(100.0, 100.0)),
    }
)


@dataclass(frozen=True)
class Draw:
    """The numbers that make one problem; those of a `Problem`'s parameters."""

    generator: str
    seed: int
    num_nodes: int
    radius: float
    k_3d: float
    sigma_3d: float
    k_1d: float
    permeability: float
    contrast: float = 1.0
    anisotropy: float = 1.0


def to_json(distribution: ProblemDistribution) -> str:
    """Return a distribution as text that `from_json` reads."""
    content = asdict(distribution)
    kept = {name: v for name, v in content.items() if name not in _ADDED or v != _ADDED[name]}
    return json.dumps(kept, sort_keys=True)


def from_json(text: str) -> ProblemDistribution:
    """Return the distribution that `to_json` wrote."""
    content: dict[str, Any] = json.loads(text)
    content |= {name: tuple(v) for name, v in content.items() if isinstance(v, list)}
    return ProblemDistribution(**content)

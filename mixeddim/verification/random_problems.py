"""Random legal problems, to compare every solver with a reference solution.

Half of them draw each coefficient and the unit of length independently, like values in SI units.
The other half draw the dimensionless numbers of the problem, with L the longest side:

    sigma_3d L² / k_3d      k_1d / (k_3d L²)      permeability L / k_3d

each log-uniform over 12 decades. The boxes are small, so that a direct solution is cheap.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from mixeddim.fem.assembly import CoupledSystem, assemble
from mixeddim.fem.boundary import BoundaryCondition, Dirichlet, Neumann, Robin
from mixeddim.fem.forms import Coefficients
from mixeddim.fem.meshes import create_box, create_network
from mixeddim.networks.generators import random_vascular_graph

__all__ = ["RandomProblem", "draw_problem", "reference_solution"]

_FACES = ("x_min", "x_max", "y_min", "y_max", "z_min", "z_max")
_GRAPHS = ("spanning_tree", "murray_tree", "capillary_mesh")


@dataclass(frozen=True, kw_only=True)
class RandomProblem:
    """A problem drawn by `draw_problem`, in the user's units.

    Attributes:
        seed: Seed of the problem and of its graph.
        num_cells: Of the box along x, y, z.
        sides: Lengths of the box.
        num_nodes: Of the graph.
        graph: Its method (see `random_vascular_graph`).
        radius: Of the vessels.
        coefficients: Numbers only.
        bcs_3d: Conditions on the faces.
        bcs_1d: Conditions on the network.
    """

    seed: int
    num_cells: tuple[int, int, int]
    sides: tuple[float, float, float]
    num_nodes: int
    graph: str
    radius: float
    coefficients: Coefficients
    bcs_3d: tuple[BoundaryCondition, ...]
    bcs_1d: tuple[BoundaryCondition, ...]

    def assemble(self) -> CoupledSystem:
        """Return the coupled system."""
        box = create_box(self.num_cells, upper=self.sides)
        graph = random_vascular_graph(
            self.num_nodes, self.radius, self.seed, self.graph, upper=self.sides
        )
        network = create_network(graph, 2.0 * box.spacing)
        return assemble(box, network, self.coefficients, bcs_3d=self.bcs_3d, bcs_1d=self.bcs_1d)


def draw_problem(seed: int, *, most_cells: int = 8) -> RandomProblem:
    """Draw a problem; the same seed gives the same one on every machine.

    Args:
        seed: Of the generator.
        most_cells: Largest number of cells along an axis, at least 3.
    """
    rng = np.random.Generator(np.random.PCG64(seed))

    def decades(low: float, high: float) -> float:
        return float(10.0 ** rng.uniform(low, high))

    length = decades(-6, 3)
    sides = length * 10.0 ** rng.uniform(-1, 0, 3)
    sides *= length / sides.max()
    if rng.random() < 0.5:  # independent units, or dimensionless numbers
        k_3d, sigma_3d, k_1d, permeability = (decades(-6, 6) for _ in range(4))
    else:
        k_3d = decades(-6, 6)
        sigma_3d = k_3d / length**2 * decades(-6, 6)
        k_1d = k_3d * length**2 * decades(-6, 6)
        permeability = k_3d / length * decades(-6, 6)
    value = decades(-3, 3) * float(rng.choice([-1.0, 1.0]))
    bcs_3d = _draw_conditions(rng, k_3d / length, value)
    if rng.random() < 0.1 and any(isinstance(bc, Dirichlet) for bc in bcs_3d):
        sigma_3d = 0.0
    f_3d = value * decades(-3, 3) * k_3d / length**2 if rng.random() < 0.3 else 0.0
    f_1d = value * decades(-3, 3) * k_1d / length**2 if rng.random() < 0.3 else 0.0
    return RandomProblem(
        seed=seed,
        num_cells=tuple(int(n) for n in rng.integers(3, most_cells + 1, 3)),  # type: ignore[arg-type]
        sides=tuple(float(side) for side in sides),  # type: ignore[arg-type]
        num_nodes=int(rng.integers(3, 20)),
        graph=str(rng.choice(_GRAPHS)),
        radius=float(rng.uniform(0.02, 0.15) * sides.min()),
        coefficients=Coefficients(
            k_3d=k_3d,
            sigma_3d=sigma_3d,
            k_1d=k_1d,
            permeability=permeability,
            f_3d=f_3d,
            f_1d=f_1d,
        ),
        bcs_3d=bcs_3d,
        bcs_1d=(Dirichlet("inlets", value),),
    )


def reference_solution(
    system: CoupledSystem,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return u_3d and u_1d of a small system, independently of the solvers under test.

    Uses dense LU factors of the block matrix, scaled by its diagonal, and refinement with residuals
    in extended precision (Higham 2002, Accuracy and Stability of Numerical Algorithms, chapter 12).

    Raises:
        ValueError: If the refinement does not converge: the matrix is singular to float64.
    """
    blocks = [[system.A_33, system.A_31], [system.A_13, system.A_11]]
    A, b = sparse.block_array(blocks).toarray(), np.concatenate([system.b_3, system.b_1])
    scale = np.exp2(-np.rint(np.log2(A.diagonal()) / 2))
    A *= scale[:, None] * scale
    factors, extended = linalg.lu_factor(A), A.astype(np.longdouble)
    right, x = (scale * b).astype(np.longdouble), np.zeros(len(b), dtype=np.longdouble)
    sides = slice(len(system.b_3)), slice(len(system.b_3), None)
    for _ in range(50):
        step = linalg.lu_solve(factors, (right - extended @ x).astype(np.float64))
        x += step
        if all(np.abs(step[s]).max() <= 1e-9 * np.abs(x[s]).max() for s in sides):
            u_3d, u_1d = ((scale * x)[s].astype(np.float64) for s in sides)
            return u_3d, u_1d
    raise ValueError(
        "got a system whose direct solution does not settle; wanted one that float64 determines. "
        "Give it more that holds the level of the fields."
    )


def _draw_conditions(
    rng: np.random.Generator, conductance: float, value: float
) -> tuple[BoundaryCondition, ...]:
    """Draw conditions on some faces; on half of the boxes there are none.

    Args:
        rng: The generator.
        conductance: k_3d over the length of the box, the unit of a Robin coefficient.
        value: Value at the inlets, the unit of given values.
    """
    conditions: list[BoundaryCondition] = []
    if rng.random() < 0.5:
        return ()
    for face in rng.choice(_FACES, int(rng.integers(1, 4)), replace=False):
        size = float(10.0 ** rng.uniform(-6, 6))
        match int(rng.integers(3)):
            case 0:
                conditions.append(Dirichlet(str(face), value * rng.uniform(-1, 1)))
            case 1:
                conditions.append(Robin(str(face), conductance * size, value * rng.uniform(-1, 1)))
            case _:
                conditions.append(Neumann(str(face), conductance * value * rng.uniform(-1, 1)))
    return tuple(conditions)

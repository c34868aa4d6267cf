# # The reduced system and its spectrum
#
# Conjugate gradients need as many steps as the eigenvalues of the system lie far apart, and
# a preconditioner is good if it brings them together. On a small grid all of them can be computed.
# This demo
#
# - writes out the matrix $S$ of the reduced system,
# - computes its eigenvalues, plain and preconditioned,
# - sets them beside the steps that conjugate gradients take.
#
# ## The problem
#
# Of the discrete problem of `03_random_vascular_network.py`,
#
# $$ \begin{pmatrix} A_{33} & A_{31} \\ A_{13} & A_{11} \end{pmatrix}
#    \begin{pmatrix} u_{3d} \\ u_{1d} \end{pmatrix} = \begin{pmatrix} b_3 \\ b_1 \end{pmatrix}, $$
#
# the network is eliminated, which leaves $S u_{3d} = g$ with
#
# $$ S = A_{33} - A_{31} A_{11}^{-1} A_{13}, \qquad g = b_3 - A_{31} A_{11}^{-1} b_1. $$
#
# $S$ is symmetric positive definite. Small eigenvalues belong to smooth fields, which diffusion
# hardly resists: the least one to a constant, which the reaction holds. Large ones belong to fields
# that alternate from node to node, and the finer the grid the farther apart they are, as $h^{-2}$.

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

import learning
import mixeddim as md

RTOL = 1e-6


def reduced_problem(num_cells: int, seed: int) -> md.ReducedSystem:
    graph = md.random_vascular_graph(num_nodes=40, radius=0.05, seed=seed)
    box = md.create_box(num_cells)
    network = md.create_network(graph, max_segment_length=box.spacing)
    return md.reduce(md.assemble(box, network, md.Coefficients(k_3d=1.0, sigma_3d=1.0)))


# ## The matrices
#
# `reduced.S` multiplies with the four blocks and is never assembled: the elimination ties all
# tissue along the network together. Column by column it can be written out, as the product with the
# identity.
#
# A preconditioner $M \approx S^{-1}$ is a map of residuals to corrections, for a batch of systems;
# here the batch is of one. It has a matrix where it is linear, which multigrid is, learned or not;
# a U-Net is not, and has no spectrum.


def dense_system(reduced: md.ReducedSystem) -> NDArray[np.float64]:
    return reduced.S @ np.eye(len(reduced.g))


@torch.no_grad()
def dense_preconditioner(
    preconditioner: learning.Preconditioner, reduced: md.ReducedSystem
) -> NDArray[np.float64]:
    batch = learning.batch_systems([reduced])
    precondition = preconditioner.setup([reduced], batch)
    identity = torch.eye(len(reduced.g), dtype=torch.float64)
    return torch.stack([precondition(row[None])[0] for row in identity], dim=1).numpy()


# ## The spectrum
#
# $M S$ is not symmetric, but has the eigenvalues of $L^T M L$, which is, where $S = L L^T$ is
# Cholesky's factorisation.


def spectrum(S: NDArray[np.float64], M: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eigenvalues of M S, ascending."""
    L = np.linalg.cholesky(S)
    return np.linalg.eigvalsh(L.T @ M @ L)


# In the norm of the energy, conjugate gradients shrink the error in k steps to at most
#
# $$ 2 \left( \frac{\sqrt{c} - 1}{\sqrt{c} + 1} \right)^k, \qquad
#    c = \lambda_\text{max} / \lambda_\text{min}, $$
#
# of what it was. So many steps the condition number c alone foretells; fewer are needed where
# the eigenvalues between the ends lie in clusters. (Saad 2003, Iterative Methods for Sparse Linear
# Systems, section 6.11.) The residual, by which solvers stop, is the error in another norm, and
# may take a step more.


def steps_foretold(condition: float) -> int:
    root = np.sqrt(condition)
    factor = (root - 1) / (root + 1)
    return int(np.ceil(np.log(RTOL / 2) / np.log(factor))) if factor > 0 else 1


# ## Four preconditioners
#
# None; the diagonal of $A_{33}$; one cycle of multigrid, whose coarse grids leave the smooth fields
# to few unknowns and whose smoother damps the rough ones; and the same with a smoother that a small
# network makes, trained on other graphs.

PRECONDITIONERS = {
    "none": learning.Identity(),
    "diagonal": learning.Jacobi(),
    "multigrid": learning.GeometricMultigrid(),
    "learned multigrid": learning.load_pretrained("multigrid"),
}
LOOKS = ("#8c8c8c", "#E69F00", "#009E73", "#D55E00")


@dataclass(frozen=True)
class Spectrum:
    eigenvalues: NDArray[np.float64]  # of M S, ascending
    residuals: NDArray[np.float64]  # of conjugate gradients, relative, the initial one first

    @property
    def condition(self) -> float:
        return float(self.eigenvalues[-1] / self.eigenvalues[0])

    @property
    def iterations(self) -> int:
        return len(self.residuals) - 1


def analyse(
    reduced: md.ReducedSystem, preconditioner: learning.Preconditioner, S: NDArray[np.float64]
) -> Spectrum:
    M = dense_preconditioner(preconditioner, reduced)
    result = learning.solve(reduced, preconditioner, "cg", rtol=RTOL)
    return Spectrum(spectrum(S, M), result.residual_norms / result.residual_norms[0])


# ## The picture
#
# On the left the eigenvalues in ascending order, on the right the residuals.


def draw(spectra: dict[str, Spectrum], file: Path) -> Path:
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, s), colour in zip(spectra.items(), LOOKS, strict=True):
        share = np.linspace(0, 1, len(s.eigenvalues))
        left.semilogy(share, s.eigenvalues, ".", color=colour, markersize=3)
        label = f"{name}\nc = {s.condition:.3g}, {s.iterations} steps"
        right.semilogy(s.residuals, color=colour, marker=".", linewidth=1.5, label=label)
    left.set(xlabel="share of the eigenvalues below", ylabel="eigenvalues of M S")
    right.axhline(RTOL, color="black", linewidth=0.8, linestyle=":")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="steps of conjugate gradients", ylabel="residual, relative", xlim=(0, None))
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right", frameon=False, labelspacing=1.2)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file


# ## What came out
#
# The diagonal brings little, since here it is nearly the same at each node. Multigrid leaves all
# eigenvalues between about ½ and 1, on this grid and on finer ones, and the learned smoother draws
# the lower end up to 0.95, which halves the steps. Grids of up to 10 cells per side multigrid
# solves directly, so that one step remains, and two for the learned one, which runs in float32.


@dataclass(frozen=True)
class Result:
    spectra: dict[str, Spectrum]
    S: NDArray[np.float64]
    picture: Path


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(
        description="Compute the spectrum of the reduced system, plain and preconditioned."
    )
    add = parser.add_argument
    add("--num-cells", type=int, default=12, help="cells along each side of the box (12)")
    add("--seed", type=int, default=7, help="seed of the network (7)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    reduced = reduced_problem(args.num_cells, args.seed)
    S = dense_system(reduced)
    print(f"{reduced}\n")
    print(f"{'preconditioner':<17}  smallest   largest  condition  steps foretold  taken")
    spectra = {}
    for name, preconditioner in PRECONDITIONERS.items():
        s = spectra[name] = analyse(reduced, preconditioner, S)
        ends = f"{s.eigenvalues[0]:>8.5f}  {s.eigenvalues[-1]:>8.5f}"
        steps = f"{steps_foretold(s.condition):>14}  {s.iterations:>5}"
        print(f"{name:<17}  {ends}  {s.condition:>9.4g}  {steps}")
    picture = draw(spectra, args.output / "spectrum.png")
    print(f"\nwritten:\n  {picture}")
    return Result(spectra, S, picture)


if __name__ == "__main__":
    main()

# # A straight vessel with an exact solution
#
# A code is checked best on a problem with a known solution. This demo
#
# - solves a straight vessel in tissue with an exact solution for both fields,
# - plots the tissue's field across the vessel and the exact one, with its kink at the wall,
# - refines the mesh, measures the errors, and explains the rates at which they fall.
#
# ## The problem
#
# A vessel $\Lambda$ of radius $R$ lies along the z axis in a box of tissue $\Omega$, from one face
# to the other. With $T u$ the mean of $u$ over the circle of radius $R$ around the vessel, and
# $\beta = 2\pi R \kappa$ the perimeter times the permeability $\kappa$ of the wall,
#
# $$ -\Delta u_{3d} + \beta\, (T u_{3d} - u_{1d})\, \delta_\Lambda = 0 \quad\text{in } \Omega, $$
# $$ -k_{1d}\, \partial_s^2 u_{1d} + \beta\, (u_{1d} - T u_{3d}) = f_{1d}
#    \quad\text{on } \Lambda. $$
#
# In the weak form the test function of the tissue is averaged as well: for all $v_{3d}, v_{1d}$
#
# $$ (\nabla u_{3d}, \nabla v_{3d})_\Omega + (k_{1d}\, \partial_s u_{1d}, \partial_s v_{1d})_\Lambda
#  + (\beta (T u_{3d} - u_{1d}), T v_{3d} - v_{1d})_\Lambda = (f_{1d}, v_{1d})_\Lambda. $$
#
# So the flux through the wall enters the tissue on the wall, not on the centre line.
#
# ## The exact solution
#
# For one wave along the vessel, $u_{1d} = \cos \pi z$, $u_{3d}$ is a modified Bessel function
# across it:
#
# $$ u_{3d} = \hat u \cos \pi z \begin{cases}
#    K_0(\pi R)\, I_0(\pi r) & \text{for } r \le R, \\
#    I_0(\pi R)\, K_0(\pi r) & \text{for } r > R. \end{cases} $$
#
# At the wall $u_{3d}$ is continuous and its slope jumps by $\hat u / R$, so the flux through the
# wall per length is $q = 2\pi \hat u \cos \pi z$. The condition $q = \beta (u_{1d} - T u_{3d})$
# gives $\hat u$, and the network's equation gives $f_{1d}$. Values of $u_{3d}$ are given on the
# four faces beside the vessel; nothing flows through its ends or the two faces that they lie on.

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import mixeddim as md
from mixeddim.verification import Convergence, study_convergence
from mixeddim.verification.manufactured import ExactProblem, bessel_mode

RADIUS = 0.05
CELLS_ALONG = 16


# ## One solution
#
# `bessel_mode` holds the fields and the data, and assembles the problem as you would with
# `md.create_box`, `md.create_network` and `md.assemble`. The box is [-½, ½]² × [0, 1]: with an even
# number of cells across, nodes of the mesh lie on the vessel, and their row at z = 0 gives $u_{3d}$
# across it. On every mesh there are 16 cells along the vessel, for half a wave.


def solve(exact: ExactProblem, num_cells: int) -> md.Solution:
    return md.solve(exact.assemble((num_cells, num_cells, CELLS_ALONG)), "reduced", rtol=1e-11)


def across(solution: md.Solution) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and u_3d at the nodes on a line across the vessel."""
    values = solution.system.grid.to_grid(solution.u_3d.x.array)
    return np.linspace(-0.5, 0.5, len(values)), values[:, values.shape[1] // 2, 0]


# The flux through the wall is the most important result in practice. Its amplitude is that of the
# best fit by the wave $\cos \pi z$.


def flux_amplitude(solution: md.Solution) -> float:
    coupling = solution.system.coupling
    wave = np.cos(np.pi * coupling.points[:, 2])
    products = (coupling.weights @ (wave * f) for f in (solution.wall_flux, wave))
    return float(np.divide(*products))


# ## Errors and their rates
#
# Piecewise linear functions approximate a smooth field with an error of $O(h^2)$, and its slopes
# with $O(h)$. A kink does no harm where faces of the mesh lie along it. Here the wall runs through
# the elements, since the mesh need not follow the network: in the elements that it cuts, the slope
# is wrong by $O(1)$, whatever their size. These elements have a volume of $O(h)$, and the norm is
# the square root of that: order ½ for the slopes. In other words, $u_{3d}$ has 3/2 derivatives and
# not two. Duality gives twice that order for the flux through the wall, and with a given flux one
# order more for $u_{3d}$ itself. On very fine meshes the error of the flux, of order 1, would limit
# $u_{3d}$ too; on these meshes it is far too small.
#
# | field | norm | smooth | kink at the wall |
# | :-- | :-- | --: | --: |
# | $u_{3d}$ | L² | 2 | 3/2 |
# | $\nabla u_{3d}$ | L² | 1 | 1/2 |
# | $u_{1d}$ | L² | 2 | 1 |
# | $q$ | L² | 2 | 1 |
#
# `study_convergence` takes the mean over four positions of the box, since the position of the wall
# in its elements matters as much as their size. Cells are finer along the vessel, so that the error
# of the smooth wave, of order 1 in the slopes, does not hide that of the kink. (Theory: Masri,
# Kuchta, Rivière 2024, doi:10.1137/23M1627390.)

RATES = {"L2_3d": 1.5, "H1_3d": 0.5, "L2_1d": 1.0, "L2_flux": 1.0}
LABELS = {"L2_3d": "u_3d", "H1_3d": "∇u_3d", "L2_1d": "u_1d", "L2_flux": "wall flux q"}
LOOKS = {
    "L2_3d": {"color": "#0072B2", "marker": "o"},
    "H1_3d": {"color": "#D55E00", "marker": "s"},
    "L2_1d": {"color": "#009E73", "marker": "^"},
    "L2_flux": {"color": "#CC79A7", "marker": "D"},
}


# ## The picture


def draw(
    exact: ExactProblem, solutions: Sequence[md.Solution], study: Convergence, file: Path
) -> Path:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    profile, errors = figure.subplots(1, 2)

    x = np.linspace(-0.25, 0.25, 2001)
    profile.axvspan(-RADIUS, RADIUS, color="#f0e6e2", linewidth=0, label="inside the wall")
    profile.plot(x, exact.u_3d(np.array([x, 0 * x, 0 * x])), "k", linewidth=1.2, label="exact")
    blues = ("#9ecae1", "#4292c6", "#084594")
    for solution, colour, marker in zip(solutions, blues, "os.", strict=True):
        x, u_3d = across(solution)
        label = f"h = {(x[1] - x[0]) / RADIUS:.2g} R"
        profile.plot(x, u_3d, color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
    profile.set(xlim=(-0.25, 0.25), xlabel="x, across the vessel", ylabel="u_3d at z = 0")
    profile.yaxis.labelpad = 8
    profile.legend(frameon=False)

    h = 1 / np.array(study.num_cells)
    for norm, rate in RATES.items():
        values, look = study.values(norm), LOOKS[norm]
        errors.loglog(h, values, **look, linestyle="none")
        errors.loglog(h, values[0] * (h / h[0]) ** rate, color=look["color"], linewidth=1)
        text = f"{LABELS[norm]}, order {study.rate(norm):.2f} (theory {rate:g})"
        offset = (-10, -38 if norm == "L2_flux" else 8)  # below where there is no room above
        place = {"xytext": offset, "textcoords": "offset points", "ha": "right"}
        errors.annotate(text, (h[0], values[0]), **place, color=look["color"])
    errors.set_xticks(h, [f"1/{n}" for n in study.num_cells])
    errors.minorticks_off()
    errors.margins(y=0.12)
    errors.set(
        xlabel="h (lines: theory)", ylabel="error in L²", xlim=(h.min() / 1.15, h.max() * 1.15)
    )
    for panel in (profile, errors):
        panel.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file


# ## What came out
#
# On the coarsest mesh the vessel is thinner than an element, and the mesh does not resolve its
# wall. Nevertheless the amplitude of the flux is right to half a per cent, because mean and flux
# are taken on the circle of radius R. (This is a mild test: $T u_{3d}$ is a tenth of $u_{1d}$ here,
# so an error of 3 % in the tissue's field is an error of 0.3 % in the flux.)


@dataclass(frozen=True)
class Result:
    amplitudes: dict[int, float]  # of the flux through the wall, by number of cells
    exact_amplitude: float
    study: Convergence
    picture: Path


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(
        description="Solve a straight vessel in tissue and compare with the exact solution."
    )
    add = parser.add_argument
    add("--num-cells", type=int, default=16, help="cells across, a multiple of 4 (16)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    if args.num_cells < 4 or args.num_cells % 4:
        parser.error(
            f"got --num-cells {args.num_cells}; wanted a multiple of 4, so that nodes of it and of "
            "half of it lie on the vessel. Take 16."
        )

    exact, n = bessel_mode(mode=1, radius=RADIUS), args.num_cells
    exact_amplitude = float(exact.wall_flux(np.zeros((3, 1)))[0])
    solutions = [solve(exact, num_cells) for num_cells in (n // 2, n, 4 * n)]
    amplitudes = {s.system.tissue.num_cells[0]: flux_amplitude(s) for s in solutions}
    print("cells across  amplitude of q     error")
    for num_cells, amplitude in amplitudes.items():
        print(f"{num_cells:>12}  {amplitude:>14.6f}  {amplitude / exact_amplitude - 1:>8.2%}")
    print(f"{'exact':>12}  {exact_amplitude:>14.6f}\n")

    study = study_convergence(exact, (n // 2, 3 * n // 4, n), axial_refinement=3)
    print("error in L²   ", *(f"{f'n = {n}':>9}" for n in study.num_cells), "   rate  theory")
    for norm, rate in RATES.items():
        values = " ".join(f"{value:9.2e}" for value in study.values(norm))
        print(f"{LABELS[norm]:<14} {values}   {study.rate(norm):.2f}  {rate:>6}")
    picture = draw(exact, solutions, study, args.output / "straight_vessel.png")
    print(f"\nwritten:\n  {picture}")
    return Result(amplitudes, exact_amplitude, study, picture)


if __name__ == "__main__":
    main()

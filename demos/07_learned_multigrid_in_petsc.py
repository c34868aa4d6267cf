# # A learned multigrid in your own PETSc solver
#
# In a PETSc `KSP` the preconditioner is a `PC`. This demo uses the learned multigrid of `learning`
# as a `PC`, in three lines or from options. It compares it with incomplete Cholesky, algebraic
# multigrid (GAMG) and geometric multigrid, all of them compiled.
#
# ## The problem
#
# The problem is that of `03_random_vascular_network.py`, reduced to the tissue: $S u_{3d} = g$ with
# the Schur complement $S = A_{33} - A_{31} A_{11}^{-1} A_{13}$. Here k_3d varies by up to 10,000;
# where it is small, exchange with the vessels outweighs diffusion. $S$ is never assembled. PETSc's
# preconditioners are built from the sparse block $A_{33}$, which contains the exchange, but not the
# coupling of all tissue along a vessel.

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ufl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

import learning
import mixeddim as md
from learning.petsc import PetscMultigrid, as_pc, schur_complement, tissue_block

# isort: split
# The wheel of DOLFINx wants mixeddim to be imported before PETSc.
from petsc4py import PETSc

RTOL = 1e-8


def conductivity(x):
    """k_3d, from 1e-4 to 1."""
    return 10 ** (2 * ufl.sin(6 * x[0]) * ufl.sin(6 * x[1]) * ufl.sin(6 * x[2]) - 2)


def assemble(num_cells: int, seed: int) -> md.CoupledSystem:
    graph = md.random_vascular_graph(num_nodes=40, radius=0.05, seed=seed)
    box = md.create_box(num_cells)
    network = md.create_network(graph, max_segment_length=box.spacing)
    return md.assemble(box, network, md.Coefficients(k_3d=conductivity, sigma_3d=1.0))


# ## The solver
#
# These are PETSc's conjugate gradients. S is a matrix that only multiplies; A_33 is for the
# preconditioners.


def create_solver(reduced: md.ReducedSystem) -> PETSc.KSP:
    ksp = PETSc.KSP().create(PETSc.COMM_SELF)
    ksp.setOperators(schur_complement(reduced), tissue_block(reduced))
    ksp.setType("cg")
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=RTOL, atol=0.0)
    return ksp


# The learned multigrid is linear, symmetric and positive definite, as conjugate gradients need. The
# U-Nets of `learning` are not: for them set the type "fgmres" and keep the rest.


def learned(ksp: PETSc.KSP, reduced: md.ReducedSystem) -> None:
    multigrid = learning.load_pretrained("multigrid")
    ksp.getPC().setType("python")
    ksp.getPC().setPythonContext(as_pc(multigrid, reduced))


# A solver that calls `ksp.setFromOptions()` needs no further line. The options with its prefix come
# from the command line, from a file, or from here. `schur_complement` provides the system.

OPTIONS = (
    "-demo_ksp_type fgmres -demo_pc_type python "
    "-demo_pc_python_type learning.petsc.LearningPC -demo_pc_learning_name multigrid"
)


def learned_from_options(ksp: PETSc.KSP, _: md.ReducedSystem) -> None:
    PETSc.Options().insertString(OPTIONS)
    ksp.setOptionsPrefix("demo_")
    ksp.setFromOptions()


# The other methods: GAMG is set to smooth with A_33 and not with S. The geometric multigrid is
# PETSc's PCMG on the grids of `learning`.


def icc(ksp: PETSc.KSP, _: md.ReducedSystem) -> None:
    ksp.getPC().setType("icc")


def gamg(ksp: PETSc.KSP, _: md.ReducedSystem) -> None:
    ksp.getPC().setType("gamg")
    ksp.getPC().setUseAmat(False)


def geometric(ksp: PETSc.KSP, reduced: md.ReducedSystem) -> None:
    S, A_33 = ksp.getOperators()
    ksp.setPC(PetscMultigrid("chebyshev").create_pc(reduced))
    ksp.setOperators(S, A_33)  # a KSP keeps its matrices in its PC


METHODS: dict[str, Callable[[PETSc.KSP, md.ReducedSystem], None]] = {
    "incomplete Cholesky": icc,
    "GAMG": gamg,
    "geometric multigrid": geometric,
    "learned multigrid": learned,
    "the same by options, fgmres": learned_from_options,
}

# ## The comparison
#
# All methods have the same matrices, right-hand side and norm of the residual. Set-up is the work
# done once per system.


@dataclass(frozen=True)
class Run:
    x: NDArray[np.float64]
    residuals: NDArray[np.float64]  # relative, the initial one first
    setup: float  # seconds
    solve: float

    @property
    def iterations(self) -> int:
        return len(self.residuals) - 1


def run(name: str, reduced: md.ReducedSystem) -> Run:
    b = PETSc.Vec().createWithArray(reduced.g, comm=PETSc.COMM_SELF)
    x = b.duplicate()
    ksp = create_solver(reduced)
    ksp.setConvergenceHistory()
    start = time.perf_counter()
    METHODS[name](ksp, reduced)
    ksp.setUp()
    ready = time.perf_counter()
    ksp.solve(b, x)
    end = time.perf_counter()
    if not ksp.is_converged:
        raise RuntimeError(f"{name} did not converge: PETSc's reason {ksp.getConvergedReason()}")
    history = ksp.getConvergenceHistory()
    return Run(x.getArray().copy(), history / history[0], ready - start, end - ready)


# The method with the fewest iterations is not always the fastest: a learned cycle costs more than a
# compiled one, and incomplete Cholesky has a cheap set-up. So the residuals are drawn against both
# iterations and time. `--num-cells 40` shows how the comparison changes on a finer grid.

LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#8c8c8c", "marker": "."},
    {"color": "#E69F00", "marker": "^", "markersize": 4},
    {"color": "#009E73", "marker": "s", "markersize": 3.5},
    {"color": "#D55E00", "marker": "o", "markersize": 5, "linewidth": 2.5},
    {"color": "#0072B2", "marker": "x", "markersize": 8, "linestyle": "none"},
)


def draw(runs: dict[str, Run], file: Path) -> Path:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_iteration, by_time = figure.subplots(1, 2, sharey=True)
    for (name, run), look in zip(runs.items(), LOOKS, strict=True):
        steps = np.arange(len(run.residuals))
        times = 1e3 * (run.setup + run.solve * steps / run.iterations)
        by_iteration.semilogy(steps, run.residuals, **look, label=name)
        by_time.semilogy(times, run.residuals, **look, label=name)
    for panel in (by_iteration, by_time):
        panel.axhline(RTOL, color="black", linewidth=0.8, linestyle=":")
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlim(left=0)
    by_iteration.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_iteration.set(xlabel="iterations", ylabel="residual, relative")
    by_time.set(xlabel="set-up and solve [ms]")
    figure.legend(*by_time.get_legend_handles_labels(), loc="outside right", frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file


# ## What came out
#
# All solutions agree with that of `md.solve`, which factors the coupled system as a whole.


@dataclass(frozen=True)
class Result:
    runs: dict[str, Run]
    differences: dict[str, float]  # of u_3d from the direct solution, relative to its largest value
    reduced: md.ReducedSystem
    picture: Path


def main(argv: Sequence[str] | None = None) -> Result:
    parser = argparse.ArgumentParser(
        description="Compare the learned multigrid with PETSc's preconditioners in a PETSc KSP."
    )
    add = parser.add_argument
    add("--num-cells", type=int, default=20, help="cells along each side of the box (20)")
    add("--seed", type=int, default=7, help="seed of the network (7)")
    add("--output", type=Path, default="output", metavar="FOLDER", help="where to write (output)")
    args = parser.parse_args(argv)

    system = assemble(args.num_cells, args.seed)
    reduced, u_3d = md.reduce(system), md.solve(system).u_3d.x.array
    runs, differences = {}, {}
    print(f"{len(u_3d):,} unknowns, to a relative residual of {RTOL:.0e}\n")
    print(f"{'method':<27}  iterations  set-up [ms]  solve [ms]  from direct solution")
    for name in METHODS:
        run(name, reduced)  # the first one pays for loading libraries
        r = runs[name] = run(name, reduced)
        differences[name] = float(np.abs(r.x - u_3d).max() / np.abs(u_3d).max())
        times = f"{1e3 * r.setup:>11.1f}  {1e3 * r.solve:>10.1f}"
        print(f"{name:<27}  {r.iterations:>10}  {times}  {differences[name]:>20.1e}")
    picture = draw(runs, args.output / "convergence.png")
    print(f"\nwritten:\n  {picture}")
    return Result(runs, differences, reduced, picture)


if __name__ == "__main__":
    main()

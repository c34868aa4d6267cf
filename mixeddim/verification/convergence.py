"""Errors against exact solutions and the rates at which they vanish.

`python -m mixeddim.verification` prints a table that shows whether an installation is sound.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace

import basix.ufl
import dolfinx
import numpy as np
import ufl
from numpy.typing import NDArray

from mixeddim.solvers.nonlinear import solve_nonlinear
from mixeddim.solvers.stationary import Solution, solve
from mixeddim.verification.manufactured import (
    ExactProblem,
    Field,
    bessel_mode,
    saturating_uptake,
    smooth_coupled,
    surface_source,
    uncoupled,
)
from mixeddim.verification.manufactured_transport import (
    ExactTransport,
    advected_wave,
    decaying_mode,
)

__all__ = ["Convergence", "Errors", "compute_errors", "study_convergence", "study_transport"]


# Places of a box, in cells along x and y; no two differ by a multiple of a half along an axis.
SHIFTS = ((0.05, 0.15), (0.3, 0.9), (0.65, 0.4), (0.9, 0.6))


@dataclass(frozen=True)
class Errors:
    """Norms of the error of a solution.

    Attributes:
        L2_3d: L2 norm of u_3d over the tissue.
        H1_3d: L2 norm of the gradient of u_3d over the tissue.
        L2_1d: L2 norm of u_1d over the network.
        L2_flux: L2 norm over the network of the wall flux per length.
    """

    L2_3d: float
    H1_3d: float
    L2_1d: float
    L2_flux: float


@dataclass(frozen=True)
class Convergence:
    """Errors over a sequence of meshes.

    Attributes:
        num_cells: Cuboids along x and y of each mesh.
        errors: Errors on each mesh.
    """

    num_cells: tuple[int, ...]
    errors: tuple[Errors, ...]

    def values(self, norm: str) -> NDArray[np.float64]:
        """Return one norm (a field of `Errors`) on each mesh, shape (len(num_cells),)."""
        return np.array([getattr(error, norm) for error in self.errors])

    def rate(self, norm: str) -> float:
        """Return the slope of log(error) over log(h), fitted; NaN where the error is zero."""
        values = self.values(norm)
        if not values.all():
            return float("nan")
        return -float(np.polyfit(np.log(self.num_cells), np.log(values), 1)[0])


def compute_errors(solution: Solution, exact: ExactProblem, degree: int = 6) -> Errors:
    """Compute the errors of a solution against the exact fields.

    Args:
        solution: The solution of `exact.assemble(...)`.
        exact: The exact fields.
        degree: Degree of the quadrature that compares them.
    """
    coupling, u_3d, u_1d = solution.system.coupling, solution.u_3d, solution.u_1d
    mesh_3d, mesh_1d = u_3d.function_space.mesh, u_1d.function_space.mesh
    flux_error = solution.wall_flux - exact.wall_flux(coupling.points.T)
    return Errors(
        L2_3d=_distance(mesh_3d, u_3d, exact.u_3d, degree),
        H1_3d=_distance(mesh_3d, ufl.grad(u_3d), exact.grad_u_3d, degree, shape=(3,)),
        L2_1d=_distance(mesh_1d, u_1d, exact.u_1d, degree),
        L2_flux=float(np.sqrt(coupling.weights @ flux_error**2)),
    )


def study_convergence(
    exact: ExactProblem, num_cells: Sequence[int], axial_refinement: int = 1
) -> Convergence:
    """Solve an exact problem on a sequence of boxes.

    How a wall lies in the elements around it changes the error of a kinked field as much as the
    mesh size does. So each box is shifted to four places, by fractions of a cell along x and y, and
    the errors are root mean squares over them.

    Args:
        exact: The problem; its fields have to hold in the shifted boxes too.
        num_cells: Cuboids along x and y of each box.
        axial_refinement: Cuboids along z for each along x and y. More of them leave the error of
            a kink around a vessel along z to itself.
    """
    errors = tuple(_mean_errors(exact, n, axial_refinement) for n in num_cells)
    return Convergence(tuple(num_cells), errors)


def _mean_errors(exact: ExactProblem, n: int, axial_refinement: int) -> Errors:
    lower, upper = np.array(exact.lower), np.array(exact.upper)
    errors = []
    for fractions in SHIFTS:
        shift = np.array([*fractions, 0.0]) * (upper - lower) / n
        shifted = replace(exact, lower=lower + shift, upper=upper + shift)
        system = shifted.assemble((n, n, axial_refinement * n))
        if shifted.uptake is None:
            solution = solve(system, "reduced", rtol=1e-11)
        else:
            solution = solve_nonlinear(system, shifted.uptake, method="reduced", rtol=1e-11)
        errors.append(astuple(compute_errors(solution, shifted)))
    return Errors(*np.sqrt(np.mean(np.square(errors), axis=0)).tolist())


def study_transport(
    exact: ExactTransport, num_cells: Sequence[int], num_steps: Sequence[int], end: float
) -> Convergence:
    """Simulate exact transport on a sequence of boxes and of time steps.

    Args:
        exact: The problem.
        num_cells: Cuboids along the vessel of each box; the rates are those in h.
        num_steps: Time steps on each box.
        end: The time at which errors are measured.
    """
    errors = tuple(
        compute_errors(exact.simulate(n, steps, end), exact.at(end))
        for n, steps in zip(num_cells, num_steps, strict=True)
    )
    return Convergence(tuple(num_cells), errors)


def _distance(
    mesh: dolfinx.mesh.Mesh,
    approximate: ufl.core.expr.Expr,
    exact: Field,
    degree: int,
    shape: tuple[int, ...] = (),
) -> float:
    """Return the L2 norm of the difference, with the exact field at the quadrature points."""
    element = basix.ufl.quadrature_element(mesh.basix_cell(), value_shape=shape, degree=degree)
    at_points = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
    at_points.interpolate(exact)
    difference = approximate - at_points
    dx = ufl.Measure("dx", domain=mesh, metadata={"quadrature_degree": degree})
    squared = dolfinx.fem.assemble_scalar(dolfinx.fem.form(ufl.inner(difference, difference) * dx))
    return float(np.sqrt(mesh.comm.allreduce(squared)))


def print_table() -> None:
    """Print errors and fitted rates of all problems with known solutions, as Markdown."""
    norms = [field.name for field in fields(Errors)]
    print("problem | n |", " | ".join(norms))
    print("--- | --- |", " | ".join("---" for _ in norms))
    for make, sizes, axial_refinement in (
        (uncoupled, (8, 16, 32), 1),
        (smooth_coupled, (8, 16, 32), 1),
        (saturating_uptake, (8, 16, 32), 1),
        (bessel_mode, (12, 16, 24), 4),
        (surface_source, (12, 16, 24), 4),
    ):
        _print_rows(make.__name__, study_convergence(make(), sizes, axial_refinement))
    for make, sizes, axial_refinement in (
        (smooth_coupled, (8, 16, 32), 1),
        (bessel_mode, (12, 16, 24), 4),
    ):
        exact = replace(make(), cell_type="hexahedron")
        study = study_convergence(exact, sizes, axial_refinement)
        _print_rows(f"{make.__name__}, hexahedra", study)
    # Time steps as h^2 and as h, so that first order in time shows as the order in h.
    decay = study_transport(decaying_mode(), (8, 16, 24), (4, 16, 36), end=0.05)
    _print_rows("decaying_mode", decay)
    wave = study_transport(advected_wave(), (32, 64, 128), (32, 64, 128), end=1.0)
    _print_rows("advected_wave", wave)


def _print_rows(name: str, study: Convergence) -> None:
    norms = [field.name for field in fields(Errors)]
    for n, errors in zip(study.num_cells, study.errors, strict=True):
        row = (f"{getattr(errors, norm):.2e}" for norm in norms)
        print(f"{name} | {n} |", " | ".join(row))
    row = (f"**{study.rate(norm):.2f}**" for norm in norms)
    print(f"{name} | rate |", " | ".join(row), flush=True)

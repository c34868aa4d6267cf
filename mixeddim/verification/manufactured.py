"""Coupled problems with exact solutions, to verify the discretisation and an installation.

Both trial and test function are averaged over the vessel wall, so that the vessel is a source on
its surface. Exact solutions for a source on the centre line differ.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dolfinx
import networkx as nx
import numpy as np
import ufl
from numpy.typing import NDArray
from scipy import special

from mixeddim.fem.assembly import CoupledSystem, assemble
from mixeddim.fem.averaging import AveragingOperator
from mixeddim.fem.boundary import Dirichlet
from mixeddim.fem.forms import Coefficients
from mixeddim.fem.grid import CellType
from mixeddim.fem.meshes import create_box, create_network
from mixeddim.solvers.nonlinear import MichaelisMenten, Uptake

__all__ = [
    "ExactProblem",
    "bessel_mode",
    "saturating_uptake",
    "smooth_coupled",
    "surface_source",
    "uncoupled",
]

type Field = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From points, shape (3, n), to values, shape (n,), or gradients, shape (3, n)."""


@dataclass(frozen=True, eq=False)
class ExactProblem:
    """A straight vessel in a box, with coefficients and sources that make the fields exact.

    Attributes:
        start: First end of the vessel.
        end: Its second end.
        radius: Its radius.
        lower: Corner of the box.
        upper: The opposite corner.
        coefficients: Material data and sources.
        u_3d: Tissue field.
        grad_u_3d: Its gradient.
        u_1d: Network field.
        wall_flux: Flux from network to tissue per length.
        dirichlet_3d: Places on the tissue boundary where u_3d is given; elsewhere no flux.
        dirichlet_1d: Whether u_1d is given at both ends of the vessel; otherwise no flux.
        uptake: Nonlinear uptake in the tissue, for `solve_nonlinear`; none by default.
        cell_type: Of the box that `assemble` makes.
    """

    start: Sequence[float]
    end: Sequence[float]
    radius: float
    lower: Sequence[float]
    upper: Sequence[float]
    coefficients: Coefficients
    u_3d: Field
    grad_u_3d: Field
    u_1d: Field
    wall_flux: Field
    dirichlet_3d: tuple[str, ...] = ("boundary",)
    dirichlet_1d: bool = True
    uptake: Uptake | None = None
    cell_type: CellType = "tetrahedron"

    def assemble(
        self, num_cells: int | Sequence[int], averaging: AveragingOperator | None = None
    ) -> CoupledSystem:
        """Assemble the problem on a structured box.

        Args:
            num_cells: Cuboids along each axis, or along (x, y, z).
            averaging: Averaging operator; the mean over the circle by default.
        """
        tissue = create_box(num_cells, self.lower, self.upper, cell_type=self.cell_type)
        graph = nx.Graph([(0, 1, {"radius": self.radius})])
        for node, position in enumerate((self.start, self.end)):
            graph.add_node(node, pos=position, inlet=True)
        network = create_network(graph, tissue.spacing)
        given_3d = dolfinx.fem.Function(tissue.P1)
        given_1d = dolfinx.fem.Function(network.P1)
        given_3d.interpolate(self.u_3d)
        given_1d.interpolate(self.u_1d)
        return assemble(
            tissue,
            network,
            self.coefficients,
            bcs_3d=[Dirichlet(place, given_3d) for place in self.dirichlet_3d],
            bcs_1d=[Dirichlet("inlets", given_1d)] if self.dirichlet_1d else [],
            averaging=averaging,
        )


def uncoupled() -> ExactProblem:
    """Return smooth waves on both sides with an impermeable wall between them."""
    return _plane_wave(permeability=0.0)


def smooth_coupled() -> ExactProblem:
    """Return smooth waves on both sides, coupled but without net exchange.

    The mean of cos(q . x) over a circle of radius R is J0(R |q_n|) cos(q . c), with c its centre
    and q_n the part of q in its plane. If the network field equals this mean, the exchange is zero,
    so that the tissue field stays smooth although the coupling is active.
    """
    return _plane_wave(permeability=1.0)


def saturating_uptake() -> ExactProblem:
    """Return smooth waves like `smooth_coupled`, with Michaelis-Menten uptake in the tissue.

    A constant is added to the waves, so that they are positive like concentrations.
    """
    return _plane_wave(permeability=1.0, level=2.0, uptake=MichaelisMenten(maximum=5.0, half=1.0))


def surface_source(permeability: float = 1.0) -> ExactProblem:
    """Return a vessel with a source on its surface: u_3d has a kink at the wall.

    Masri, Kuchta & Riviere 2024, doi:10.1137/23M1627390: u_3d lies in H^(3/2 - delta), so that P1
    on meshes that do not fit the wall converge with order 1/2 in H1 and about 1 in L2.

    Args:
        permeability: xi, the permeability of the wall.
    """
    radius, share = 0.05, permeability / (permeability + 1.0)
    section, perimeter = np.pi * radius**2, 2 * np.pi * radius

    def p(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sin(np.pi * x[2]) + 2.0

    def profile(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1.0 - radius * np.log(np.maximum(np.hypot(x[0], x[1]), radius) / radius)

    def gradient(x: NDArray[np.float64]) -> NDArray[np.float64]:
        r = np.hypot(x[0], x[1])
        slope = np.where(r > radius, -radius / np.maximum(r, radius) ** 2, 0.0) * p(x)
        along = np.pi * np.cos(np.pi * x[2]) * profile(x)
        return share * np.stack([slope * x[0], slope * x[1], along])

    def f_3d(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
        r = ufl.max_value(ufl.sqrt(x[0] ** 2 + x[1] ** 2), radius)
        return share * ufl.pi**2 * ufl.sin(ufl.pi * x[2]) * (1 - radius * ufl.ln(r / radius))

    def f_1d(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
        sine = ufl.sin(ufl.pi * x[2])
        return section * ufl.pi**2 * sine + perimeter * share * (sine + 2)

    return ExactProblem(
        start=(0.0, 0.0, -0.5),
        end=(0.0, 0.0, 0.5),
        radius=radius,
        lower=(-0.5, -0.5, -0.5),
        upper=(0.5, 0.5, 0.5),
        coefficients=Coefficients(k_1d=section, permeability=permeability, f_3d=f_3d, f_1d=f_1d),
        u_3d=lambda x: share * p(x) * profile(x),
        grad_u_3d=gradient,
        u_1d=p,
        wall_flux=lambda x: perimeter * share * p(x),
    )


def bessel_mode(mode: int = 1, radius: float = 0.05, permeability: float = 1.0) -> ExactProblem:
    """Return the axial Fourier mode of a vessel in tissue, with k = mode pi.

    With p = cos kz in the vessel the tissue field is a modified Bessel function on either side of
    the wall. It is continuous there, and the jump of its slope equals the flux.

    Args:
        mode: Number of half waves along the vessel.
        radius: Radius R of the vessel.
        permeability: xi of its wall.
    """
    k, perimeter, section = mode * np.pi, 2 * np.pi * radius, np.pi * radius**2
    i0, k0 = special.i0(k * radius), special.k0(k * radius)
    amplitude = perimeter * permeability / (2 * np.pi + perimeter * permeability * i0 * k0)
    flux = 2 * np.pi * amplitude

    def u_3d(x: NDArray[np.float64]) -> NDArray[np.float64]:
        r = np.hypot(x[0], x[1])
        outside = i0 * special.k0(k * np.maximum(r, radius))
        inside = k0 * special.i0(k * np.minimum(r, radius))
        return amplitude * np.where(r > radius, outside, inside) * np.cos(k * x[2])

    def gradient(x: NDArray[np.float64]) -> NDArray[np.float64]:
        r = np.hypot(x[0], x[1])
        outside = -i0 * special.k1(k * np.maximum(r, radius))
        inside = k0 * special.i1(k * np.minimum(r, radius))
        slope = amplitude * k * np.where(r > radius, outside, inside) * np.cos(k * x[2])
        over_r = slope / np.maximum(r, np.finfo(float).tiny)
        along = -k * np.tan(k * x[2]) * u_3d(x)
        return np.stack([over_r * x[0], over_r * x[1], along])

    return ExactProblem(
        start=(0.0, 0.0, 0.0),
        end=(0.0, 0.0, 1.0),
        radius=radius,
        lower=(-0.5, -0.5, 0.0),
        upper=(0.5, 0.5, 1.0),
        coefficients=Coefficients(
            k_1d=section,
            permeability=permeability,
            f_1d=lambda x: (section * k**2 + flux) * ufl.cos(k * x[2]),
        ),
        u_3d=u_3d,
        grad_u_3d=gradient,
        u_1d=lambda x: np.cos(k * x[2]),
        wall_flux=lambda x: flux * np.cos(k * x[2]),
        dirichlet_3d=("x_min", "x_max", "y_min", "y_max"),
        dirichlet_1d=False,
    )


def _plane_wave(
    permeability: float, level: float = 0.0, uptake: Uptake | None = None
) -> ExactProblem:
    """Return u_3d = level + cos(q . x) around an oblique vessel that carries its mean."""
    wave = np.pi * np.array([1.0, -0.5, 0.75])
    start, radius = np.array([0.2, 0.35, 0.2]), 0.1
    end = start + 0.75 * np.array([2.0, 1.0, 2.0]) / 3
    k_3d, sigma_3d, k_1d = 2.0, 3.0, 0.5
    tangent = (end - start) / np.linalg.norm(end - start)
    along = wave @ tangent
    mean = special.j0(radius * np.linalg.norm(wave - along * tangent))
    q = ufl.as_vector(wave.tolist())

    def f_3d(x: ufl.SpatialCoordinate) -> ufl.core.expr.Expr:
        cosine = ufl.cos(ufl.dot(q, x))
        u = level + cosine
        r = uptake(u) if uptake is not None else 0.0
        return k_3d * float(wave @ wave) * cosine + sigma_3d * u + r

    return ExactProblem(
        start=start.tolist(),
        end=end.tolist(),
        radius=radius,
        lower=(0.0, 0.0, 0.0),
        upper=(1.0, 1.0, 1.0),
        coefficients=Coefficients(
            k_3d=k_3d,
            sigma_3d=sigma_3d,
            k_1d=k_1d,
            permeability=permeability,
            f_3d=f_3d,
            f_1d=lambda x: k_1d * float(mean * along**2) * ufl.cos(ufl.dot(q, x)),
        ),
        u_3d=lambda x: level + np.cos(wave @ x),
        grad_u_3d=lambda x: -wave[:, None] * np.sin(wave @ x),
        u_1d=lambda x: level + mean * np.cos(wave @ x),
        wall_flux=lambda x: np.zeros(x.shape[1]),
        uptake=uptake,
    )

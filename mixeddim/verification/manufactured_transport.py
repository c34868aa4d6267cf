"""Transport problems with exact solutions, to verify the discretisation in space and time."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass

import dolfinx
import numpy as np
import ufl
from numpy.typing import NDArray
from scipy import special

from mixeddim.fem.forms import Coefficient, Coefficients
from mixeddim.solvers.transport import TransportState, simulate_transport
from mixeddim.verification.manufactured import ExactProblem

__all__ = ["ExactTransport", "advected_wave", "decaying_mode"]


@dataclass(frozen=True, eq=False)
class ExactTransport:
    """A straight vessel in a box, with a tracer whose fields are known at all times.

    Attributes:
        at: From a time to the problem with the fields at that time.
        flow: Volume per time along the vessel.
        inlet_concentration: Concentration of the entering flow, a function of the time.
        cells_across: Cuboids along x and y, if the tissue does not matter; otherwise as along z.
        storage_3d: What the tissue stores.
        storage_1d: What the vessel stores.
    """

    at: Callable[[float], ExactProblem]
    flow: float
    inlet_concentration: Callable[[float], float]
    cells_across: int | None = None
    storage_3d: Coefficient = 1.0
    storage_1d: Coefficient = 1.0

    def simulate(self, num_cells: int, num_steps: int, end: float) -> TransportState:
        """Simulate from the exact fields at time 0, and return the state at the end.

        Args:
            num_cells: Cuboids along the vessel.
            num_steps: Time steps.
            end: The final time.
        """
        start = self.at(0.0)
        across = self.cells_across or num_cells
        system = start.assemble((across, across, num_cells))
        initial_3d = dolfinx.fem.Function(system.side_3d.V)
        initial_1d = dolfinx.fem.Function(system.side_1d.V)
        initial_3d.interpolate(start.u_3d)
        initial_1d.interpolate(start.u_1d)
        *_, last = simulate_transport(
            system,
            self.flow,
            time_step=end / num_steps,
            num_steps=num_steps,
            inlet_concentration=self.inlet_concentration,
            initial_3d=initial_3d,
            initial_1d=initial_1d,
            storage_3d=self.storage_3d,
            storage_1d=self.storage_1d,
        )
        return last


def decaying_mode(contrast: float = 0.0) -> ExactTransport:
    """Return a mode that decays equally on both sides, by diffusion and uptake, without flow.

    In the tissue it is exp(-rate t) cos(pi x) cos(pi y) cos(pi z), with rate = 3 pi^2 k_3d +
    sigma_3d. Its mean over a circle of radius R around a vessel along z is J0(sqrt(2) pi R) times
    its value on the axis. A network field equal to that mean, with an axial diffusivity of
    rate / pi^2, decays at the same rate; the exchange is zero although the coupling is active.

    Where the storage varies, as phi_3d = 1 + c (x - 1/2) and phi_1d = 1 + c cos(2 pi z), uptake and
    axial conductance vary with it, so that both sides still decay at that rate.

    Args:
        contrast: c, at most 1.
    """
    x_0, y_0, radius, k_3d, sigma_3d = 0.3, 0.4, 0.1, 0.01, 3.0
    rate, section = 3 * np.pi**2 * k_3d + sigma_3d, np.pi * radius**2
    mean = special.j0(np.sqrt(2) * np.pi * radius) * np.cos(np.pi * x_0) * np.cos(np.pi * y_0)
    coefficients = Coefficients(
        k_3d=k_3d,
        sigma_3d=lambda x: rate * (1 + contrast * (x[0] - 0.5)) - 3 * np.pi**2 * k_3d,
        k_1d=lambda x: (
            section * rate / np.pi**2 * (1 + contrast * (1 - 2 / 3 * ufl.sin(np.pi * x[2]) ** 2))
        ),
    )

    def at(time: float) -> ExactProblem:
        amplitude = np.exp(-rate * time)

        def gradient(x: NDArray[np.float64]) -> NDArray[np.float64]:
            (c_x, c_y, c_z), (s_x, s_y, s_z) = np.cos(np.pi * x), np.sin(np.pi * x)
            return (
                -np.pi * amplitude * np.stack([s_x * c_y * c_z, c_x * s_y * c_z, c_x * c_y * s_z])
            )

        return ExactProblem(
            start=(x_0, y_0, 0.0),
            end=(x_0, y_0, 1.0),
            radius=radius,
            lower=(0.0, 0.0, 0.0),
            upper=(1.0, 1.0, 1.0),
            coefficients=coefficients,
            u_3d=lambda x: amplitude * np.cos(np.pi * x).prod(axis=0),
            grad_u_3d=gradient,
            u_1d=lambda x: amplitude * mean * np.cos(np.pi * x[2]),
            wall_flux=lambda x: np.zeros(x.shape[1]),
            dirichlet_3d=(),
            dirichlet_1d=False,
        )

    return ExactTransport(
        at,
        flow=0.0,
        inlet_concentration=lambda _: 0.0,
        storage_3d=lambda x: 1 + contrast * (x[0] - 0.5),
        storage_1d=lambda x: 1 + contrast * ufl.cos(2 * np.pi * x[2]),
    )


def advected_wave() -> ExactTransport:
    """Return a wave of concentration that a flow carries along a vessel with a tight wall."""
    radius, speed = 0.05, 0.5

    def concentration(time: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1.0 + 0.5 * np.sin(0.5 * np.pi * time)

    def at(time: float) -> ExactProblem:
        return ExactProblem(
            start=(0.3, 0.4, 0.0),
            end=(0.3, 0.4, 1.0),
            radius=radius,
            lower=(0.0, 0.0, 0.0),
            upper=(1.0, 1.0, 1.0),
            # Nearly no diffusion along the vessel; k_1d has to be positive.
            coefficients=Coefficients(k_1d=1e-12, permeability=0.0),
            u_3d=lambda x: np.zeros(x.shape[1]),
            grad_u_3d=np.zeros_like,
            u_1d=lambda x: concentration(time - x[2] / speed),
            wall_flux=lambda x: np.zeros(x.shape[1]),
            dirichlet_3d=(),
            dirichlet_1d=False,
        )

    return ExactTransport(
        at,
        flow=np.pi * radius**2 * speed,
        inlet_concentration=lambda time: float(concentration(np.array(time))),
        cells_across=2,
    )

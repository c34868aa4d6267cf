"""The weak forms of both sides, and the coefficients in them.

On the tissue Omega and along the network Lambda, with beta = 2 pi epsilon kappa the conductance
of the vessel wall per unit length, epsilon its outer radius, and T u the mean of u over it:

    -div(k_3d grad u_3d) + sigma_3d u_3d + beta (T u_3d / s - u_1d) delta = f_3d    in Omega
    -d_s(k_1d d_s u_1d)                  + beta (u_1d - T u_3d / s)       = f_1d    on Lambda

s is the partition coefficient, the ratio u_3d / u_1d of both sides at equilibrium. A resistance
K per length in series with the wall makes of beta the conductance 1 / (1 / beta + K).

The coupling terms are products of matrices, in `mixeddim.fem.assembly`.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import dolfinx
import numpy as np
import ufl
from numpy.typing import ArrayLike
from ufl import dx, grad, inner

__all__ = [
    "Coefficient",
    "Coefficients",
    "as_ufl",
    "check_number",
    "diffusion",
    "reaction",
    "source",
]

type Coefficient = (
    float | ArrayLike | ufl.core.expr.Expr | Callable[[ufl.SpatialCoordinate], Coefficient]
)
"""A number, a UFL expression, a DOLFINx function, or a callable from the position to either."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coefficients:
    """Material data and sources of the coupled problem, nondimensional unless you give units.

    Each is a number, a UFL expression on the mesh of its side, a DOLFINx function there, or a
    callable that takes the position `x` (a UFL vector of three) and returns one of them. A number
    becomes a `dolfinx.fem.Constant`, so that the compiled form is reused for other values.

    Attributes:
        k_3d: Conductivity of the tissue: a scalar, or a symmetric positive definite 3 x 3 tensor
            where the tissue is anisotropic. Positive.
        sigma_3d: Reaction (uptake, drainage) in the tissue, per volume. Not negative.
        k_1d: Axial conductance of a vessel: conductivity times cross-section. Positive.
        permeability: kappa of the vessel wall, per area; beta = 2 pi outer_radius kappa. Not
            negative.
        series_resistance: K in series with the wall, per length: the wall's conductance is
            1 / (1 / (2 pi outer_radius kappa) + K). Not negative; `IntravascularResistance`
            has that of blood by diameter.
        partition: s, the ratio u_3d / u_1d at equilibrium (of solubilities, say): the wall
            exchanges beta (u_1d - T u_3d / s). A positive number.
        f_3d: Source in the tissue, per volume.
        f_1d: Source in the network, per length.
    """

    k_3d: Coefficient = 1.0
    sigma_3d: Coefficient = 0.0
    k_1d: Coefficient = 1.0
    permeability: Coefficient = 1.0
    series_resistance: Coefficient = 0.0
    partition: float = 1.0
    f_3d: Coefficient = 0.0
    f_1d: Coefficient = 0.0

    def __post_init__(self) -> None:
        check_number("k_3d", self.k_3d, positive=True, tensor=True)
        check_number("sigma_3d", self.sigma_3d, positive=False)
        check_number("k_1d", self.k_1d, positive=True)
        check_number("permeability", self.permeability, positive=False)
        check_number("series_resistance", self.series_resistance, positive=False)
        if not (isinstance(self.partition, Real) and 0 < self.partition < np.inf):
            raise ValueError(
                f"got partition={self.partition!r}; wanted a finite positive number, the ratio of "
                "u_3d to u_1d at equilibrium. A ratio that varies between vessels is not supported."
            )


def as_ufl(
    value: Coefficient, mesh: dolfinx.mesh.Mesh, name: str, shapes: tuple[Any, ...] = ((),)
) -> ufl.core.expr.Expr:
    """Convert a user's coefficient to a UFL expression on a mesh.

    Args:
        value: Number, array, UFL expression, DOLFINx function, or a callable of position.
        mesh: The mesh of the side that the coefficient belongs to.
        name: Name of the coefficient, for messages.
        shapes: UFL shapes to accept.

    Raises:
        TypeError: If the value is of another kind.
        ValueError: If it is on another mesh, or its shape is not accepted.
    """
    if callable(value) and not isinstance(value, ufl.core.expr.Expr):
        try:
            value = value(ufl.SpatialCoordinate(mesh))
        except (AttributeError, TypeError, ValueError) as error:
            raise _unknown_kind(name, value) from error
    if not isinstance(value, ufl.core.expr.Expr):
        try:
            number = np.asarray(value).astype(float, casting="safe")
        except (TypeError, ValueError) as error:
            raise _unknown_kind(name, value) from error
        if not np.all(np.isfinite(number)):
            raise ValueError(f"got {name}={value!r}; wanted finite numbers.")
        value = dolfinx.fem.Constant(mesh, number)
    domains = ufl.domain.extract_domains(value)
    foreign = [domain for domain in domains if domain is not mesh.ufl_domain()]
    if foreign:
        raise ValueError(
            f"got {name} on a mesh of topological dimension {foreign[0].topological_dimension}; "
            f"wanted it on the mesh of its side, of dimension {mesh.topology.dim}. "
            "Interpolate it there, or write it as a callable of the position."
        )
    if value.ufl_shape not in shapes:
        wanted = " or ".join("a scalar" if s == () else f"shape {s}" for s in shapes)
        remedy = ""
        if mesh.topology.dim == 1 and len(value.ufl_shape) == 1:
            remedy = (
                " Numbers of each edge or node are attributes of the graph, given before "
                "create_network: pass network.edge_field(attribute), or node_field."
            )
        raise ValueError(f"got {name} of shape {value.ufl_shape}; wanted {wanted}.{remedy}")
    if isinstance(value, ufl.constantvalue.ConstantValue) and value.ufl_shape == ():
        return dolfinx.fem.Constant(mesh, float(value))  # 0 * x[0] is simplified to a bare zero
    return value


def _unknown_kind(name: str, value: object) -> TypeError:
    return TypeError(
        f"got {name}={value!r} of type {type(value).__name__}; wanted a number, a UFL expression, "
        "a dolfinx.fem.Function, or a callable of the position x that returns one of them, "
        "written with ufl (ufl.exp and ufl.conditional, not numpy.exp and if)."
    )


def diffusion(
    u: ufl.Argument, v: ufl.Argument, k: ufl.core.expr.Expr, measure: ufl.Measure = dx
) -> ufl.Form:
    """Return the form of -div(k grad u); k is a scalar or a tensor. On a network, along it."""
    return inner(k * grad(u) if k.ufl_shape == () else ufl.dot(k, grad(u)), grad(v)) * measure


def reaction(
    u: ufl.Argument, v: ufl.Argument, sigma: ufl.core.expr.Expr, measure: ufl.Measure = dx
) -> ufl.Form:
    """Return the form of sigma u."""
    return sigma * u * v * measure


def source(v: ufl.Argument, f: ufl.core.expr.Expr, measure: ufl.Measure = dx) -> ufl.Form:
    """Return the form of a source f."""
    return f * v * measure


def check_number(name: str, value: Coefficient, *, positive: bool, tensor: bool = False) -> None:
    """Check the sign of a coefficient that is a number; expressions are not checked.

    Args:
        name: Its name, for messages.
        value: What the user gave.
        positive: Whether zero is refused too.
        tensor: Whether a symmetric positive definite 3 x 3 tensor is accepted.

    Raises:
        ValueError: If it is out of range.
    """
    if callable(value) or isinstance(value, ufl.core.expr.Expr):
        return
    try:
        number = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return  # as_ufl raises the error for an unknown kind
    if number.shape == (3, 3) and tensor:
        asymmetry = np.abs(number - number.T).max()
        if not asymmetry <= 1e-12 * np.abs(number).max() or np.linalg.eigvalsh(number).min() <= 0:
            raise ValueError(
                f"got {name}={number.tolist()}; wanted a symmetric positive definite tensor."
            )
    elif number.shape == () and not (0 < number < np.inf or (number == 0 and not positive)):
        raise ValueError(
            f"got {name}={value}; wanted a {'positive' if positive else 'non-negative'} number."
        )

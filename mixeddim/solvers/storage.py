"""Storage in a time step: how much tissue and vessels hold per concentration.

The tissue holds phi_3d u_3d per volume, with a consistent mass matrix; a vessel holds phi_1d a u_1d
per length, lumped to the vertices of the network as its volumes are.
"""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

import basix
import dolfinx
import numpy as np
import ufl
from numpy.typing import NDArray
from scipy import sparse

from mixeddim.fem.forms import Coefficient, as_ufl, check_number, reaction, source
from mixeddim.fem.matrices import assemble_matrices, assemble_vector
from mixeddim.fem.meshes import Network
from mixeddim.processes import Processes

__all__ = ["stored_in_network", "stored_in_tissue"]


def stored_in_tissue(
    V: dolfinx.fem.FunctionSpace, storage: Coefficient, time_step: float
) -> sparse.csr_array:
    """Return the mass matrix of phi_3d over the time step.

    Args:
        V: P1 space of the tissue.
        storage: phi_3d.
        time_step: Length of the step.

    Raises:
        ValueError: If phi_3d is negative, NaN or infinite somewhere, or does not fit the tissue.
    """
    phi = _storage(V.mesh, storage, "storage_3d")
    form = reaction(ufl.TrialFunction(V), ufl.TestFunction(V), phi * _per(time_step, V.mesh))
    return assemble_matrices(dolfinx.fem.form(form))[0]


def stored_in_network(
    network: Network, storage: Coefficient, time_step: float
) -> NDArray[np.float64]:
    """Return the integral of phi_1d a around each vertex, over the time step.

    Args:
        network: The network.
        storage: phi_1d.
        time_step: Length of the step.

    Raises:
        ValueError: If phi_1d is negative, NaN or infinite somewhere, or does not fit the network.
    """
    V, section = network.P1, ufl.pi * network.radius**2
    phi = _storage(V.mesh, storage, "storage_1d")
    form = source(ufl.TestFunction(V), phi * section * _per(time_step, V.mesh))
    return assemble_vector(dolfinx.fem.form(form))


def _per(time_step: float, mesh: dolfinx.mesh.Mesh) -> dolfinx.fem.Constant:
    return dolfinx.fem.Constant(mesh, 1.0 / time_step)


def _storage(mesh: dolfinx.mesh.Mesh, value: Coefficient, name: str) -> ufl.core.expr.Expr:
    """Return what is stored per volume, checked where the forms are integrated."""
    check_number(name, value, positive=False)
    phi, topology = as_ufl(value, mesh, name), mesh.topology
    points, _ = basix.make_quadrature(basix.CellType[topology.cell_name()], 3)
    cells = np.arange(topology.index_map(topology.dim).size_local, dtype=np.int32)
    values = dolfinx.fem.Expression(phi, points).eval(mesh, cells) if len(cells) else np.zeros(0)
    processes = Processes.of(mesh)
    if processes.any(not np.all((values >= 0) & np.isfinite(values))):
        least = processes.min(np.nan_to_num(values, nan=-np.inf).min(initial=np.inf))
        raise ValueError(
            f"got {name} from {least:.3g} on; wanted finite, non-negative values everywhere, as of "
            "a porosity, capacity or solubility. Correct the expression or function."
        )
    return phi

"""UFL expressions as functions of the constants in them, with derivatives of every order."""

from __future__ import annotations

import mixeddim._fenics  # noqa: F401

from collections.abc import Sequence
from functools import cached_property

import dolfinx
import numpy as np
import ufl
from numpy.typing import NDArray
from ufl.algorithms.apply_algebra_lowering import apply_algebra_lowering
from ufl.algorithms.apply_derivatives import apply_derivatives

from mixeddim.fem.forms import Coefficient, as_ufl
from mixeddim.fem.matrices import assemble_vector
from mixeddim.fem.meshes import StructuredBox
from mixeddim.processes import Processes

__all__ = ["CellExpression"]


class CellExpression:
    """The mean of a UFL expression over each cell of the tissue, as a function of its constants.

    On tetrahedra P1 gradients are constant, so that the mean of k_3d gives the same stiffness
    matrix as k_3d itself.

    Args:
        expression: A scalar UFL expression on the tissue's mesh, or a callable of the position.
        constants: The scalar constants in it that vary.
        tissue: Structured box or mesh of the tissue.

    Raises:
        ValueError: If there is no constant, one is not a scalar, or the expression does not fit.
        NotImplementedError: If the tissue is distributed over several processes.

    Example:
        >>> a = dolfinx.fem.Constant(box.mesh, 1.0)
        >>> k_3d = md.CellExpression(lambda x: ufl.exp(a * x[2]), [a], box)
        >>> k_3d([0.5]).shape == k_3d.derivative(0)([0.5]).shape
        True
    """

    def __init__(
        self,
        expression: Coefficient,
        constants: Sequence[dolfinx.fem.Constant],
        tissue: StructuredBox | dolfinx.mesh.Mesh,
    ) -> None:
        mesh = tissue.mesh if isinstance(tissue, StructuredBox) else tissue
        Processes.of(mesh).refuse("CellExpression")
        is_scalar = [isinstance(c, dolfinx.fem.Constant) and c.ufl_shape == () for c in constants]
        if not is_scalar or not all(is_scalar):
            raise ValueError(
                f"got the constants {constants!r}; wanted a sequence of scalar "
                "dolfinx.fem.Constant. Make one with dolfinx.fem.Constant(box.mesh, 1.0)."
            )
        variables = [ufl.variable(constant) for constant in constants]
        plain = as_ufl(expression, mesh, "expression")
        self._mesh, self._constants, self._variables = mesh, tuple(constants), variables
        self._expression = ufl.replace(plain, dict(zip(constants, variables, strict=True)))
        self._derivatives: dict[int, CellExpression] = {}

    @property
    def num_parameters(self) -> int:
        """The number of constants that vary."""
        return len(self._constants)

    def __call__(self, values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean over each cell, shape (num_cells,), in the order of the mesh's cells.

        Args:
            values: Of the constants, shape (num_parameters,).
        """
        form, volumes, dofs = self._compiled
        if form is None:
            return np.zeros(len(volumes))
        before = [float(constant.value) for constant in self._constants]
        try:
            self._set(values)
            integrals = assemble_vector(form)
        finally:
            self._set(before)
        return (integrals / volumes)[dofs]

    def derivative(self, number: int) -> CellExpression:
        """Return the derivative with respect to one of the constants.

        Args:
            number: Of the constant, in the order given.
        """
        if number not in self._derivatives:
            derivative = object.__new__(CellExpression)
            vars(derivative).update(
                _mesh=self._mesh,
                _constants=self._constants,
                _variables=self._variables,
                _expression=ufl.diff(self._expression, self._variables[number]),
                _derivatives={},
            )
            self._derivatives[number] = derivative
        return self._derivatives[number]

    def _set(self, values: Sequence[float] | NDArray[np.float64]) -> None:
        for constant, value in zip(self._constants, values, strict=True):
            constant.value = value

    @cached_property
    def _compiled(
        self,
    ) -> tuple[dolfinx.fem.Form | None, NDArray[np.float64], NDArray[np.int32]]:
        """The integral over each cell, None where the expression is zero; volumes, dof of cells."""
        V = dolfinx.fem.functionspace(self._mesh, ("DG", 0))
        v, one = ufl.TestFunction(V), dolfinx.fem.Constant(self._mesh, 1.0)
        volumes = assemble_vector(dolfinx.fem.form(one * v * ufl.dx))
        expanded = apply_derivatives(apply_algebra_lowering(self._expression))
        is_zero = isinstance(expanded, ufl.constantvalue.Zero)
        form = None if is_zero else dolfinx.fem.form(self._expression * v * ufl.dx)
        return form, volumes, V.dofmap.list[: len(volumes), 0]

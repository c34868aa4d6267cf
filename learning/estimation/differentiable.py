"""A solve as a differentiable torch function of coefficients, by the adjoint.

With A(theta) u = b(theta) and a misfit J(u), the adjoint lambda = A^-T dJ/du takes one more solve
with the same matrices and preconditioner, and

    dJ/dtheta = lambda' (db/dtheta - dA/dtheta u)

(Hinze, Pinnau, Ulbrich & Ulbrich 2009, Optimization with PDE Constraints, section 1.6). Nothing is
unrolled. The backward pass consists of differentiable operations and of this solve, so that second
derivatives need no code of their own: a Hessian-vector product takes two more solves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from learning.krylov.cycles import Status
from learning.krylov.preconditioner import Preconditioner, check_preconditioner
from learning.solver import Solver
from learning.systems.sparse import SparseMap, sparse_map
from mixeddim.tensors import ALONE, ParametrisedSystem, Term

__all__ = ["DifferentiableSolve"]

_SIGNS: Final = {
    "k_1d": "positive",
    "k_3d": "positive",
    "permeability": "non-negative",
    "sigma_3d": "non-negative",
}


class DifferentiableSolve:
    """Map parameters to the fields (u_3d, u_1d) that solve the coupled problem, differentiably.

    Args:
        system: What `mixeddim.parametrise` returned, which says what the parameters are.
        preconditioner: How to precondition each solve; set up anew where A changed.
        rtol: Wanted residual of each solve, in units of the norm of its right-hand side. Gradients
            and line searches need small ones.
        max_iterations: Where to give up.

    Attributes:
        num_solves: How many linear systems were solved so far.

    Raises:
        TypeError: If the system is another one.
        ValueError: If the preconditioner is none.

    Example:
        One step of gradient descent::

            solve = learning.DifferentiableSolve(
                md.parametrise(system, "permeability"), learning.load_pretrained("multigrid")
            )
            u_3d, u_1d = solve({"permeability": kappa})
            ((observe @ u_3d - measured) ** 2).sum().backward()
            kappa.data -= 0.1 * kappa.grad
    """

    def __init__(
        self,
        system: ParametrisedSystem,
        preconditioner: Preconditioner,
        *,
        rtol: float = 1e-10,
        max_iterations: int = 200,
    ) -> None:
        if not isinstance(system, ParametrisedSystem):
            raise TypeError(
                f"got a {type(system).__name__}; wanted what mixeddim.parametrise returns. Call "
                'parametrise(system, "permeability") first.'
            )
        check_preconditioner(preconditioner, ALONE)
        self.system = system
        self.num_solves = 0
        self._preconditioner = preconditioner
        self._rtol, self._max_iterations = rtol, max_iterations
        self._solver: tuple[dict[str, NDArray[np.float64]], Solver] | None = None
        self._terms = {name: _TermMaps.of(term) for name, term in system.terms.items()}
        self._loads = {name: _TermMaps.of(term) for name, term in system.loads.items()}
        num_dofs = len(system.load)
        self._lifting = _map(system.lifting)
        self._load = torch.tensor(system.load)
        self._is_free = torch.tensor(system.is_free)
        given = sparse.eye_array(num_dofs).tocsr()[:, system.given_dofs]
        self._at_given = _map(given)

    def __call__(self, parameters: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tissue dofs u_3d, shape (n_3,), and the network dofs u_1d, shape (n_1,).

        Args:
            parameters: By name, of the shapes (system.sizes[name],), in float64 on the CPU: all of
                those that `parametrise` was asked for.

        Raises:
            ValueError: If a name is unknown or missing, or a value of a wrong shape, dtype, device
                or sign.
            RuntimeError: If a solve does not converge.
        """
        self._check(parameters)
        values = {name: parameters[name] for name in self._terms}
        given = self._given(parameters)
        b = self._right_hand_side(parameters, given)
        solver = self._solver_for(values)
        u = _LinearSolve.apply(b, self, solver, *values.values()) + self._at_given(given)
        return self._sides(u)

    def residual(
        self, parameters: Mapping[str, torch.Tensor], u_3d: torch.Tensor, u_1d: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A u - b of both sides, for any fields: what a physics loss makes small.

        No system is solved. At given dofs the fields are replaced by the given values, and the
        residual is zero.

        Args:
            parameters: As for the solve.
            u_3d: Tissue dofs, shape (n_3,).
            u_1d: Network dofs, shape (n_1,).

        Raises:
            ValueError: As the solve, or if the fields do not have these shapes in float64.
        """
        self._check(parameters)
        shapes = (self.system.num_tissue,), (len(self._load) - self.system.num_tissue,)
        got = tuple(u_3d.shape), tuple(u_1d.shape)
        if got != shapes or {u_3d.dtype, u_1d.dtype} != {torch.float64}:
            raise ValueError(
                f"got fields of shapes {got} in {u_3d.dtype} and {u_1d.dtype}; wanted {shapes} in "
                "torch.float64. Convert them: field.double()."
            )
        u = self._is_free * torch.cat([u_3d, u_1d])
        residual = self._is_free * self._fixed(u)
        residual = residual - self._right_hand_side(parameters, self._given(parameters))
        for name, term in self._terms.items():
            residual = residual + term.spread(parameters[name][term.index] * term.P(u))
        return self._sides(residual)

    def _right_hand_side(
        self, parameters: Mapping[str, torch.Tensor], given: torch.Tensor
    ) -> torch.Tensor:
        """Return the loads minus what given values contribute, zero at given dofs."""
        b = self._load - self._lifting(given)
        for name, term in self._loads.items():
            b = b + term.spread(parameters[name][term.index])
        for name, term in self._terms.items():
            b = b - term.spread(parameters[name][term.index] * term.P_given(given))
        return b

    @cached_property
    def _fixed(self) -> _Map:
        """A_fixed, given dofs eliminated."""
        fixed = self.system.fixed
        jump = sparse.hstack([-fixed.Pi, fixed.N]).tocsr()
        exchange = jump.T @ sparse.diags_array(fixed.weights * fixed.beta) @ jump
        return _map((sparse.block_diag([fixed.A_0, fixed.A_11]) + exchange).tocsr())

    def _sides(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n_3 = self.system.num_tissue
        return u[:n_3], u[n_3:]

    def _given(self, parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
        values = torch.tensor(self.system.given_values)
        num_3d = int((self.system.given_dofs < self.system.num_tissue).sum())
        return torch.cat(
            [
                parameters.get("given_3d", values[:num_3d]),
                parameters.get("given_1d", values[num_3d:]),
            ]
        )

    def _solver_for(self, parameters: Mapping[str, torch.Tensor]) -> Solver:
        """Return a solver for values, the last one where these are the same."""
        values = {name: value.detach().numpy().copy() for name, value in parameters.items()}
        if self._solver is not None:
            last, solver = self._solver
            if all(np.array_equal(value, last[name]) for name, value in values.items()):
                return solver
        solver = Solver(self.system.with_values(values), self._preconditioner)
        self._solver = values, solver
        return solver

    def _solve(self, solver: Solver, b: torch.Tensor) -> torch.Tensor:
        """Return A^-1 b for both sides, shape (num_dofs,), zero at given dofs."""
        b_3, b_1 = np.split(b.detach().numpy(), [self.system.num_tissue])
        self.num_solves += 1
        result = solver.solve(
            b_3, b_1, rtol=self._rtol, max_iterations=self._max_iterations, check=False
        )
        if not result.converged:
            reason = result.status.value if isinstance(result.status, Status) else result.status
            raise RuntimeError(
                f"got a solve that did not end well ({reason}); wanted one that "
                f"reaches rtol={self._rtol}. Look at the size of the parameters, or follow "
                "this advice with max_iterations, rtol or another preconditioner."
            )
        u_1d = solver.reduced.back_substitute(result.x, b_1)
        return torch.from_numpy(np.concatenate([result.x, u_1d])) * self._is_free

    def _check(self, parameters: Mapping[str, torch.Tensor]) -> None:
        sizes = self.system.sizes
        if parameters.keys() != sizes.keys():
            raise ValueError(
                f"got the parameters {sorted(parameters)}; wanted {sorted(sizes)}. Pass all that "
                "you named to parametrise, or name others there."
            )
        for name, value in parameters.items():
            _check_value(name, value, sizes[name])


def _check_value(name: str, value: torch.Tensor, size: int) -> None:
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float64:
        got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(
            f"got {name} as {got}; wanted a tensor of torch.float64. Convert it: "
            "torch.as_tensor(value, dtype=torch.float64)."
        )
    if value.device.type != "cpu":
        raise ValueError(
            f"got {name} on {value.device}; wanted it on the CPU. Convert it: value.cpu()."
        )
    if value.shape != (size,):
        raise ValueError(
            f"got {name} of shape {tuple(value.shape)}; wanted ({size},). For one number "
            f"everywhere pass value.expand({size})."
        )
    sign = _SIGNS.get(name)
    least, most = (float(bound) for bound in value.detach().aminmax())
    is_wrong = (sign == "positive" and least <= 0) or (sign == "non-negative" and least < 0)
    if is_wrong or not bool(torch.isfinite(value.detach()).all()):
        wanted = f"finite {sign} numbers" if sign else "finite numbers"
        advice = "Estimate its logarithm: pass logarithm.exp()." if sign else "Look for NaN before."
        raise ValueError(f"got {name} from {least:.3g} to {most:.3g}; wanted {wanted}. {advice}")


@dataclass(frozen=True, eq=False)
class _TermMaps:
    """A term as maps of tensors without batch dimension."""

    P: _Map
    P_given: _Map
    weights: torch.Tensor
    index: torch.Tensor

    @classmethod
    def of(cls, term: Term) -> _TermMaps:
        return cls(
            _map(term.P), _map(term.P_given), torch.tensor(term.weights), torch.tensor(term.index)
        )

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return P' (weights values)."""
        return self.P.T(self.weights * values)

    def slope(self, v: torch.Tensor, u: torch.Tensor, size: int) -> torch.Tensor:
        """Return the derivative of v' A u by each parameter, shape (size,)."""
        products = self.weights * self.P(v) * self.P(u)
        return torch.zeros(size, dtype=products.dtype).index_add(0, self.index, products)


@dataclass(frozen=True, eq=False)
class _Map:
    """v -> A v for one vector."""

    rows: SparseMap

    @property
    def T(self) -> _Map:
        return _Map(self.rows.T)

    def __call__(self, v: torch.Tensor) -> torch.Tensor:
        return self.rows(v[None])[0]


def _map(A: sparse.csr_array) -> _Map:
    return _Map(sparse_map(A, torch.zeros(0, dtype=torch.float64)))


class _LinearSolve(torch.autograd.Function):
    """A(theta)^-1 b, whose backward is the adjoint solve, differentiable again."""

    @staticmethod
    def forward(
        ctx: Any, b: torch.Tensor, problem: DifferentiableSolve, solver: Solver,
        *values: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        u = problem._solve(solver, b)
        ctx.problem, ctx.solver = problem, solver
        ctx.save_for_backward(u, *values)
        return u

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        problem: DifferentiableSolve = ctx.problem
        u, *values = ctx.saved_tensors
        adjoint = _LinearSolve.apply(
            problem._is_free * grad_outputs[0], problem, ctx.solver, *values
        )
        slopes = [
            -term.slope(adjoint, u, len(value)) if is_needed else None
            for term, value, is_needed in zip(
                problem._terms.values(), values, ctx.needs_input_grad[3:], strict=True
            )
        ]
        return adjoint, None, None, *slopes

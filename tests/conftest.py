"""What several test modules share: small networks, and one coupled system with everything in it."""

import mixeddim._fenics  # noqa: F401  # before any module imports DOLFINx or MPI

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import ufl
from dolfinx.jit import DOLFINX_DEFAULT_JIT_OPTIONS
from numpy.typing import NDArray
from scipy import sparse

from learning import kernels
from learning.systems.stencils import StencilMatrix, stencils_of
from mixeddim import (
    Coefficients,
    CoupledSystem,
    Dirichlet,
    Neumann,
    ReducedSystem,
    Robin,
    assemble,
    create_box,
    create_network,
    random_vascular_graph,
    reduce,
)
from mixeddim.tensors import Grid

type Stencils = tuple[StencilMatrix, list[NDArray[np.float64]]]

# A process waits while another one compiles the same form; ten seconds, as usual, may not do.
DOLFINX_DEFAULT_JIT_OPTIONS["timeout"] = (200, "seconds")


def _network(
    positions: Sequence[Sequence[float]],
    edges: Sequence[tuple[int, int, float]],
    inlets: Sequence[int] = (0,),
) -> nx.Graph:
    graph = nx.Graph()
    for node, position in enumerate(positions):
        graph.add_node(node, pos=position, inlet=node in inlets)
    graph.add_weighted_edges_from(edges, weight="radius")
    return graph


_CENTRE = (0.5, 0.45, 0.4)
_RIM = [
    (0.2, 0.2, 0.2), (0.8, 0.2, 0.2), (0.2, 0.8, 0.2), (0.8, 0.8, 0.3),
    (0.2, 0.2, 0.7), (0.8, 0.3, 0.7), (0.3, 0.8, 0.7),
]  # fmt: skip

# All lie in the unit cube, farther than their radius from its faces.
_GRAPHS = {
    "vessel": _network([(0.2, 0.25, 0.3), (0.8, 0.6, 0.65)], [(0, 1, 0.08)]),
    "bend": _network([(0.2, 0.2, 0.5), (0.5, 0.8, 0.5), (0.8, 0.2, 0.5)],
                     [(0, 1, 0.05), (2, 1, 0.1)]),
    "fork": _network([(0.5, 0.5, 0.2), (0.45, 0.5, 0.45), (0.2, 0.25, 0.7), (0.8, 0.7, 0.7)],
                     [(0, 1, 0.1), (1, 2, 0.06), (3, 1, 0.03)]),
    "star of 7": _network([*_RIM, _CENTRE], [(i, 7, 0.02 + 0.01 * i) for i in range(7)], (0, 3)),
    "ring": _network([(0.3, 0.3, 0.3), (0.7, 0.3, 0.4), (0.7, 0.7, 0.5), (0.3, 0.7, 0.6)],
                     [(0, 1, 0.04), (1, 2, 0.05), (2, 3, 0.06), (3, 0, 0.07)]),
    "two parts": _network(
        [(0.2, 0.3, 0.2), (0.2, 0.3, 0.8), (0.8, 0.5, 0.3), (0.3, 0.6, 0.5), (0.8, 0.8, 0.6)],
        [(0, 1, 0.1), (2, 3, 0.02), (4, 3, 0.05)], (1, 4)),
}  # fmt: skip


@pytest.fixture(scope="session", params=_GRAPHS.values(), ids=_GRAPHS.keys())
def graph(request: pytest.FixtureRequest) -> nx.Graph:
    """Each of the small networks in turn."""
    return request.param


@pytest.fixture(scope="session")
def run_on_processes() -> Callable[..., str]:
    """Run Python with arguments on several processes and return what all of them printed."""
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which(
        "mpiexec"
    )
    if mpiexec is None:
        pytest.skip("no mpiexec beside this Python or on the PATH")

    def run(number: int, *arguments: str) -> str:
        result = subprocess.run(
            [mpiexec, "-n", str(number), sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            # More processes than cores then give way while they wait (MPICH).
            env={**os.environ, "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1"},
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="session")
def run_on_two_processes(run_on_processes: Callable[..., str]) -> Callable[[str], str]:
    """Run a program under mpiexec and return what both processes printed."""
    return lambda program: run_on_processes(2, "-c", program)


@pytest.fixture(scope="session")
def fork() -> nx.Graph:
    """A vessel from the inlet 0 to the junction 1, and from there to the ends 2 and 3."""
    return _GRAPHS["fork"]


@pytest.fixture(scope="session")
def vessel() -> nx.Graph:
    """One oblique vessel."""
    return _GRAPHS["vessel"]


@pytest.fixture(scope="session")
def system(fork: nx.Graph) -> CoupledSystem:
    """A system with every kind of coefficient and boundary condition."""
    box = create_box((4, 5, 3), upper=(1.0, 1.2, 0.9))
    coefficients = Coefficients(
        k_3d=[[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]],
        sigma_3d=lambda x: 0.5 + x[0],
        k_1d=0.7,
        permeability=3.0,
        f_3d=lambda x: ufl.sin(x[1]),
        f_1d=0.4,
    )
    return assemble(
        box,
        create_network(fork, box.spacing),
        coefficients,
        bcs_3d=[
            Dirichlet("x_min", lambda x: x[1]),
            Neumann("y_max", 0.3),
            Robin("z_min", 2.0, 0.5),
        ],
        bcs_1d=[Dirichlet("inlets", 1.5), Robin("ends", 0.8, 0.2)],
    )


@pytest.fixture(scope="session")
def reduced() -> Callable[..., ReducedSystem]:
    """Return a function that reduces a problem with a random network, for the multigrids."""

    def make(
        num_cells: int | tuple[int, int, int],
        *,
        seed: int = 0,
        num_nodes: int = 12,
        upper: Sequence[float] = (1.0, 1.0, 1.0),
        faces: Sequence[str] = (),
        contrast: float | None = None,
        **coefficients: object,
    ) -> ReducedSystem:
        """Hold u_3d on some faces; k_3d is smooth with a contrast, where one is given."""
        if contrast is not None:
            coefficients["k_3d"] = lambda x: (
                contrast ** (0.5 * ufl.sin(7 * x[0]) * ufl.sin(5 * x[1] + 1))
            )
        network = create_network(random_vascular_graph(num_nodes, 0.05, seed), 0.1)
        bcs = [Dirichlet(face, 0.3) for face in faces]
        box = create_box(num_cells, upper=upper)
        parameters = Coefficients(**{"sigma_3d": 1.0, **coefficients})
        return reduce(assemble(box, network, parameters, bcs_3d=bcs))

    return make


# --- Matrices on grids ------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do all with compiled loops, and all without."""
    if request.param and not kernels.ARE_COMPILED:
        pytest.skip("needs numba")
    monkeypatch.setattr(kernels, "ARE_COMPILED", request.param)


@pytest.fixture(scope="session")
def grid_of() -> Callable[..., Grid]:
    """Return a function that numbers the nodes of a grid at random."""

    def make(shape: tuple[int, int, int], seed: int = 0) -> Grid:
        order = np.random.default_rng(seed).permutation(int(np.prod(shape)))
        return Grid(shape, np.zeros(3), np.ones(3), order)

    return make


@pytest.fixture(scope="session")
def random_stencils(grid_of: Callable[..., Grid]) -> Callable[..., Stencils]:
    """Return a function that makes random matrices as stencils, and dense in grid order."""

    def matrix(shape: tuple[int, int, int], seed: int, density: float) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        index = np.indices(shape).reshape(3, -1)
        adjacent = np.abs(index[:, :, None] - index[:, None]).max(axis=0) <= 1
        A = rng.standard_normal(adjacent.shape) * (rng.random(adjacent.shape) < density)
        symmetric: NDArray[np.float64] = (A + A.T) * adjacent
        return symmetric

    def make(shape: tuple[int, int, int], seeds: Sequence[int], density: float = 1.0) -> Stencils:
        matrices = [matrix(shape, seed, density) for seed in seeds]
        grids = [grid_of(shape, seed) for seed in seeds]
        in_dofs = [
            sparse.csr_array(A[np.ix_(grid.node_of_dof, grid.node_of_dof)])
            for A, grid in zip(matrices, grids, strict=True)
        ]
        return stencils_of(in_dofs, grids), matrices

    return make

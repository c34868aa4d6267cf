"""The table of `mixeddim.fem.unresolved`: effective radii of vessels in tetrahedra and hexahedra.

    python tests/benchmarks/unresolved_resistance.py            (about four minutes)

A vessel that gives off 1 per length lies along a random integer direction in a periodic cube of
N³ cells, which consumes as much everywhere. There it forms a lattice of parallel lines, whose
Green's function is known: with the shortest periods w_1, w_2 across the vessel as complex numbers,
tau = w_2 / w_1, and A the area between them,

    G(r) = -ln(2 pi |eta(tau)|² r / |w_1|) / (2 pi k) + r² / (4 A k)      near r = 0,

where eta is Dedekind's (Kronecker's second limit formula). The mean over a circle of radius R of
what leaves that circle is G(R) + R² / (4 A k). The discrete mean, by the fast Fourier transform,
equals it at another radius r_e. Printed are R / h, r_e / h (geometric mean over random places and
directions) and the standard deviation of ln r_e.
"""

import argparse
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mixeddim.fem.averaging import CircleMean
from mixeddim.fem.grid import CellType
from mixeddim.fem.unresolved import EFFECTIVE, RADIUS

NUM_CELLS = 24
GAUSS = np.array([0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=400, help="places and directions (400)")
    samples = parser.parse_args().samples
    for cell_type in EFFECTIVE:
        rng = np.random.default_rng(0)
        lines = [(random_direction(rng), rng.uniform(size=3)) for _ in range(samples)]
        print(f"{cell_type}\n R / h  r_e / h  shipped  deviation of ln r_e")
        for radius, shipped in zip(RADIUS, EFFECTIVE[cell_type], strict=True):
            logs = np.log([effective_radius(*line, radius, cell_type) for line in lines])
            found = np.exp(logs.mean())
            print(f"{radius:6.1f} {found:8.3f} {shipped:8.3f} {logs.std():8.3f}", flush=True)


def random_direction(rng: np.random.Generator) -> NDArray[np.int64]:
    """Return coprime integers near a random direction in space."""
    while True:
        u = rng.normal(size=3)
        direction = np.rint(3 * u / np.linalg.norm(u)).astype(np.int64)
        if direction.any():
            return direction // np.gcd.reduce(direction)


def effective_radius(
    direction: NDArray[np.int64], place: NDArray[np.float64], radius: float, cell_type: CellType
) -> float:
    """Return r_e / h of a vessel of R / h = `radius` through a place, in cells of size 1."""
    length = NUM_CELLS * float(np.linalg.norm(direction))
    num_segments = int(np.ceil(1.3 * length))
    along = (np.arange(num_segments)[:, None] + GAUSS).ravel() / num_segments
    centres = place + NUM_CELLS * along[:, None] * direction
    tangents = np.tile(direction / np.linalg.norm(direction), (len(centres), 1))
    circles = CircleMean().stencil(centres, tangents, np.full(len(centres), radius), 1.0)
    nodes, weights = basis(circles.points, cell_type)
    nodes = np.ravel_multi_index(tuple(np.moveaxis(nodes % NUM_CELLS, -1, 0)), (NUM_CELLS,) * 3)
    mean = np.bincount(nodes.ravel(), weights.ravel(), NUM_CELLS**3) / len(circles.points)

    stiffness = symbol(cell_type)
    stiffness[0, 0, 0] = np.inf  # the constant, of which the mean is zero
    u = np.fft.ifftn(np.fft.fftn(length * mean.reshape((NUM_CELLS,) * 3)) / stiffness).real
    eta_squared, period, area = across(direction)
    log = -2 * np.pi * (mean @ u.ravel() - radius**2 / (2 * area))
    return float(np.exp(log) * period / (2 * np.pi * eta_squared))


def basis(
    points: NDArray[np.float64], cell_type: CellType
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nodes whose basis functions are not zero at points (m, 3), and their values."""
    cell = np.floor(points).astype(np.int64)
    inside = points - cell
    if cell_type == "hexahedron":
        corners = np.array(list(product((0, 1), repeat=3)))
        values = np.where(corners == 1, inside[:, None], 1 - inside[:, None]).prod(axis=2)
        return cell[:, None] + corners, values
    # Kuhn's tetrahedra: from the lower corner to the upper, the longest way first.
    order = np.argsort(-inside, axis=1)
    steps = np.cumsum(np.eye(3, dtype=np.int64)[order], axis=1)
    corners = np.concatenate([np.zeros_like(steps[:, :1]), steps], axis=1)
    falling = np.take_along_axis(inside, order, axis=1)
    values = -np.diff(falling, axis=1, prepend=1.0, append=0.0)
    return cell[:, None] + corners, values


def symbol(cell_type: CellType) -> NDArray[np.float64]:
    """Return the eigenvalues of the stiffness matrix of a periodic cube."""
    cosine = np.cos(2 * np.pi * np.fft.fftfreq(NUM_CELLS))
    k = 2 - 2 * cosine
    m = (2 + cosine) / 3 if cell_type == "hexahedron" else np.ones(NUM_CELLS)
    terms = ((k, m, m), (m, k, m), (m, m, k))
    return sum(np.einsum("i,j,k->ijk", *term) for term in terms)


def across(direction: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return |eta(tau)|², |w_1| and A of the lattice of lines across a direction."""
    u = direction / np.linalg.norm(direction)
    first = np.cross(u, np.eye(3)[np.argmin(abs(u))])
    first /= np.linalg.norm(first)
    reach = np.arange(-4, 5)
    shifts = NUM_CELLS * np.array(list(product(reach, repeat=3)))
    periods = shifts @ first + 1j * (shifts @ np.cross(u, first))
    periods = periods[abs(periods) > 1e-9]
    periods = periods[np.argsort(abs(periods))]
    ratios = periods / periods[0]
    tau = ratios[np.argmax(abs(ratios.imag) > 1e-9)]
    tau = complex(tau.real, abs(tau.imag))
    eta = np.exp(1j * np.pi * tau / 12) * np.prod(1 - np.exp(2j * np.pi * tau) ** np.arange(1, 30))
    return abs(eta) ** 2, abs(periods[0]), abs(periods[0]) ** 2 * tau.imag


if __name__ == "__main__":
    main()

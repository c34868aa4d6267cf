"""The regime in which the paper's 147.5 unpreconditioned iterations make sense, pinned."""

import pytest
from scipy.sparse.linalg import gmres

import mixeddim as md

NUM_CELLS = 20


@pytest.mark.parametrize("seed", range(10))
def test_unpreconditioned_gmres_takes_as_many_iterations_as_in_the_paper(seed: int) -> None:
    box = md.create_box(NUM_CELLS)
    graph = md.random_vascular_graph(num_nodes=40, radius=0.05, seed=seed)
    network = md.create_network(graph, box.spacing)
    coefficients = md.Coefficients(k_3d=1.0, sigma_3d=1.0, k_1d=1.0, permeability=1.0)
    reduced = md.reduce(md.assemble(box, network, coefficients))

    residual_norms: list[float] = []
    _, status = gmres(
        reduced.S,
        reduced.g,
        rtol=1e-6,
        restart=250,
        maxiter=1,
        callback=residual_norms.append,
        callback_type="pr_norm",
    )
    assert status == 0
    assert 125 <= len(residual_norms) <= 185

"""Networks in SWC files: trees of points with a radius, each linked to its parent; µm."""

from __future__ import annotations

import os

import networkx as nx

from mixeddim.networks.io.places import NetworkFileError, existing_file, in_units, read_lines

__all__ = ["read_swc"]


def read_swc(path: str | os.PathLike[str], *, length_unit: float = 1e-6) -> nx.Graph:
    """Read a tree of vessels, or a forest, from an SWC file.

    A line is `sample type x y z radius parent`, the parent -1 at a root; what follows a `#`, and
    columns after the seventh, are left out. Parents may come after their children.

    Args:
        path: The file.
        length_unit: What to multiply `pos` and `radius` by. The format fixes µm, so that the
            default returns m; pass the length of the file's unit where it breaks this rule.

    Returns:
        A graph whose nodes are labelled by sample, with `pos`, `type`, `radius` and `inlet`, which
        is True at the roots. The `radius` of an edge is the mean of those of its two ends, as of
        the frustum between them.

    Raises:
        NetworkFileError: if the file does not hold such a network.
        FileNotFoundError: if there is no such file.

    Source:
        R. C. Cannon et al., J. Neurosci. Methods 84 (1998) 49; http://www.neuronland.org, format
        specification SWC.
    """
    path = existing_file(path)
    graph = nx.Graph()
    links = []
    for line in read_lines(path, comments="#"):
        line.require(7, "sample, type, x, y, z, radius, parent")
        sample, parent = line.integer(0, "sample"), line.integer(6, "parent")
        x, y, z, radius = line.floats(slice(2, 6))
        attributes = {"type": line.integer(1, "type"), "radius": radius, "inlet": parent == -1}
        line.add_node(graph, sample, (x, y, z), attributes)
        if parent != -1:
            links.append((line, parent, sample))
    for line, parent, sample in links:
        if parent not in graph:
            raise line.error(
                f"got the parent {parent}, which is no sample of the file; wanted one, or -1 at a "
                "root. Add the sample, or correct the parent."
            )
        radius = 0.5 * (graph.nodes[parent]["radius"] + graph.nodes[sample]["radius"])
        line.add_edge(graph, parent, sample, {"radius": radius})
    if not links:
        raise NetworkFileError(
            f"{path}: got {len(graph)} samples and no link between them; wanted lines of sample, "
            "type, x, y, z, radius, parent. Pass a file in the SWC format."
        )
    return in_units(graph, length_unit)

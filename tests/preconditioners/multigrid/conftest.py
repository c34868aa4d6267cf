"""Shared by the tests of multigrid: coarse grids as small as on an accelerator."""

import pytest

from learning.preconditioners.multigrid import geometric


@pytest.fixture
def more_grids(monkeypatch):
    """Solve on coarse grids as small as on an accelerator, lest small problems have but one."""
    monkeypatch.setattr(geometric, "MOST_COARSE_NODES", geometric.MOST_DENSE_NODES)

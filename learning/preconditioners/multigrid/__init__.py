"""Geometric multigrid on the grid of the box, plain and learned.

Imports `systems` and `krylov`. Read `stencils` (operators on a grid), `transfer` (between grids),
`grids` (whole or in boxes), `tissue` (all grids of it), `network`, `exchange`, `smoothers` and
`cholesky`, `level`, `near_kernel`, `geometric` and `cycle`, `learned` (with trained smoothers).
"""

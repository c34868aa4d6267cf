"""Geometric multigrid on the grid of the box, plain and learned.

Imports `systems` and `krylov`. Read `stencils` (operators on a grid), `transfer` (between grids),
`grids` (whole or in boxes), `network`, `exchange`, `smoothers` and `cholesky`, `near_kernel`,
`geometric` (the cycle), and `learned` (the cycle with trained smoothers).
"""

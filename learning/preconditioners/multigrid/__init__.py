"""Geometric multigrid on the grid of the box, plain and learned.

Imports `krylov`. Read `stencils` (operators on a grid), `transfer` (between grids), `smoothers`,
`geometric` (the cycle), and `learned` (the cycle with trained smoothers).
"""

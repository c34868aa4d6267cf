"""Linear algebra that networks, solvers and learned preconditioners share.

Imports numpy, scipy, numba and, for large networks, PyAMG. Read `compiler` (compiled loops),
`network_block` (solvers for matrices on graphs, coarser networks), `triangular` (solves with
factors), `chebyshev` (polynomials of a smoother), `distributed` (matrices of a tissue on several
processes) and `interpolation` (between its levels).
"""

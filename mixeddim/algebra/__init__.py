"""Linear algebra that networks, solvers and learned preconditioners share.

Imports numpy, scipy and, for large networks, PyAMG. Read `network_block` (solvers for matrices on
graphs, coarser networks), `triangular` and `cholesky` (compiled solves and factors), `chebyshev`
(polynomials of a smoother), `distributed` (matrices of a tissue on several processes) and
`interpolation` (between its levels).
"""

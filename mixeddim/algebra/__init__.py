"""Linear algebra that networks, solvers and learned preconditioners share.

<<<<<<< HEAD
Imports numpy, scipy, numba and, for large networks, PyAMG. Read `compiler` (compiled loops),
`network_block` (solvers for matrices on graphs, coarser networks), `triangular` (solves with
factors), `chebyshev` (polynomials of a smoother), `distributed` (matrices of a tissue on several
processes) and `interpolation` (between its levels).
=======
Imports numpy, scipy and, for large networks, PyAMG. Read `network_block` (solvers for matrices on
graphs, coarser networks), `triangular` and `cholesky` (compiled solves and factors), `chebyshev`
(polynomials of a smoother), `distributed` (matrices of a tissue on several processes) and
`interpolation` (between its levels).
>>>>>>> strong13
"""

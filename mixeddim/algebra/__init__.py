"""Linear algebra that solvers and learned preconditioners share.

Imports numpy and scipy alone. Read `network_block` (factors of A_11, coarser networks), `chebyshev`
(polynomials of a smoother), `distributed` (matrices of a tissue on several processes) and
`interpolation` (between its levels).
"""

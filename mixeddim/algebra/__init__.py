"""Linear algebra that solvers and learned preconditioners share.

Imports numpy and scipy alone. Read `network_block` (factors of A_11, coarser networks) and
`chebyshev` (polynomials of a smoother).
"""

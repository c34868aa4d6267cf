"""Linear algebra that networks, solvers and learned preconditioners share.

Imports numpy, scipy and, for large networks, PyAMG. Read `network_block` (solvers for matrices on
graphs, coarser networks) and `chebyshev` (polynomials of a smoother).
"""

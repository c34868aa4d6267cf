"""Batches of systems, and the Krylov methods that solve them.

Imports no other room. Read `operators` (the product with S) and `sparse`, `preconditioner` (the
protocol), `cycles`, `fgmres` and `conjugate_gradients`.
"""

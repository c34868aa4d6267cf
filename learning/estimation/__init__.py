"""Solves that are differentiable in the coefficients of the problem, to estimate these from data.

Imports `systems`, `krylov` and `solver`. Read `differentiable`, then `expressions`.
"""

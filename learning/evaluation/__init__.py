"""Iterations, residuals and sines of preconditioners on unseen problems.

Imports the rooms before it: `problems`, `krylov`, `preconditioners`, `training`. Read `measures`,
then `results`, the file that keeps them.
"""

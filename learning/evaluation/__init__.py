"""Iterations, residuals and sines of preconditioners on unseen problems.

Imports `problems`, `systems`, `krylov`, `preconditioners` and `training`. Read `measures`, then
`results`, which has the results and their file.
"""

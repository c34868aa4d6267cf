"""Solve the coupled problem: stationary, nonlinear, or in time.

Imports `networks`, `fem` and `reduction`. Read `factors`, `stationary` and `mass_balance`, with its
multigrid `coarsening`, `exchange` and `coupled_multigrid`, then `nonlinear`, and `advection`,
`transport_balance` and `transport`.
"""

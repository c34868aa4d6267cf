"""Solve the coupled problem: stationary, nonlinear, or in time.

Imports `networks`, `fem` and `reduction`. Read `factors`, `conjugate_gradients`, `stationary` and
`mass_balance`, with the multigrid `coarsening`, `exchange` and `coupled_multigrid`, then
`nonlinear`, and `advection`, `transport_balance`, `transport`, `oxygen_budget`, `oxygen_data` and
`oxygen`.
"""

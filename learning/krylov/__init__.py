"""The Krylov methods, and the protocol of the preconditioners that they apply.

Imports `systems`. Read `preconditioner` (the protocol), `cycles`, `fgmres` and
`conjugate_gradients`.
"""

"""Preconditioners, learned and classical.

Imports `systems` and `krylov`. Read `unet`, `fast_diagonalisation`, `classical` (PyAMG) and the
folder `multigrid`; `architectures` names those that can be trained.
"""

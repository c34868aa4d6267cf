"""Training in stages, and files of weights.

Imports `problems`, `krylov` and `preconditioners`. Read `losses`, `stages`, `loop`; `runs` keeps
the folder of a run, `processes` spreads it, `weights` saves and loads.
"""

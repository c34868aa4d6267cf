"""Training in stages, and files of weights.

Imports `problems`, `systems`, `krylov` and `preconditioners`. Read `losses`, `stages`, `samples`,
`steps`, `loop`; `runs` keeps the folder of a run, `processes` joins several processes, `weights`
saves and loads weights.
"""

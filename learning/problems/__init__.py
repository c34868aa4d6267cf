"""Random problems to train on, and their files.

Imports no other room; only `generation` imports `mixeddim` with DOLFINx. Read `distributions`,
`stiffness`, `data`, `generation`.
"""

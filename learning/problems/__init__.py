"""Problems to train on, drawn at random and kept in files.

Imports no other room; `generation` alone imports `mixeddim` with DOLFINx. Read `distributions`,
`stiffness`, `data`, `generation`.
"""

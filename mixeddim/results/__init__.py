"""Results of a solve: numbers, tables, files and pictures.

Imports all rooms before it; only `verification` may import it. Read `quantities` and `statistics`,
then `output`; `plotting` draws.
"""

"""Results of a solve: numbers, tables, files and pictures.

Imports all rooms before it; nothing but `verification` may import it. Read `quantities` and
`statistics`, then `output`; `plotting` draws.
"""

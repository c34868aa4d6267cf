"""Measure learned and classical methods on the same systems, and recommend one.

Imports all rooms before it. Read `regimes` and `methods` (what is compared), `features` (what a
system is like), `measurement` and `memory`, `results`, `run`, and `recommendation`.
"""

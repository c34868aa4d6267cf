"""Networks as graphs, and what is done to them without a mesh.

Imports no other room and no DOLFINx. Read `graphs`, then `generators`, `cleaning`, `scaling`,
`viscosity` and `blood_flow`; `io` reads and writes files.
"""

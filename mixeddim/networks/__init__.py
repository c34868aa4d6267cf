"""Networks as graphs, and what is done to them without a mesh.

Imports no other room and no DOLFINx. Read `graphs` (with `kinds`), then `generators`,
`skeletons` (of images), `cleaning`, `artefacts`, `centre_lines`, `scaling`, `viscosity` and
`blood_flow`; `io` reads and writes files.
"""

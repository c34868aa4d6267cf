"""Networks as graphs: generators, files, repair, scaling and blood flow, all without a mesh.

Of the other rooms imports `algebra` alone, and no DOLFINx. Read `graphs` (with `kinds`), then
`generators`, `skeletons` (of images), `cleaning`, `artefacts`, `centre_lines`, `scaling`,
`viscosity`, `blood_flow`, `hematocrit`, `relaxation`, `blood` and `oxygen`; `io` reads and writes
files.
"""

"""Assembly: from a graph and a box to the matrices of the coupled problem.

Imports `networks`. Read `grid` and `meshes`, `location` and `averaging`, `forms` and `boundary`,
then `sides`, `coupling` and `blocks`, and last `assembly`, which calls the others. `processes` and
`distributed` are what changes where there are several processes.
"""

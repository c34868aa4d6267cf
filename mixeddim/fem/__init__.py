"""Assembly: from a graph and a box to the matrices of the coupled problem.

Imports `networks` and `algebra`. Read `grid` and `meshes`, `location`, `averaging` and
`unresolved`, `forms` and `boundary`, then `matrices`, `sides`, `coupling` and `blocks`, and last
`assembly`, which calls the others.
"""

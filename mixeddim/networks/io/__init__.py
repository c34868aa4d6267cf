"""Read networks from files, and write them, as graphs that keep the contract of `graphs`.

| suffix          | reader           | writer          | units                       |
|-----------------|------------------|-----------------|-----------------------------|
| `.graphml`      | `read_graphml`   | `write_graphml` | the file's, `length_unit=`  |
| `.vtp`, `.vtk`  | `read_vtk`       | `write_vtp`     | the file's, `length_unit=`  |
| `.csv`          | `read_csv`       | `write_csv`     | the file's, `length_unit=`  |
| `.dgf`          | `read_dgf`       | `write_dgf`     | the file's, `length_unit=`  |
| `.pts`          | `read_manworks`  |                 | the file's, `length_unit=`  |
| `.swc`          | `read_swc`       |                 | µm in the file, m returned  |
| `.dat`          | `read_secomb`    |                 | m, Pa, m³/s returned        |

`read_solute_parameters` and `read_intravascular_resistance` read what Secomb's programs know of
oxygen.

`read_network` and `write_network` choose by suffix. `Scaling` then maps lengths to those of the
problem, `mixeddim.networks.cleaning` repairs measured networks.
"""

from mixeddim.networks.io.dgf import read_dgf, write_dgf
from mixeddim.networks.io.formats import read_network, write_network
from mixeddim.networks.io.graphml import read_graphml, write_graphml
from mixeddim.networks.io.manworks import read_manworks
from mixeddim.networks.io.places import NetworkFileError
from mixeddim.networks.io.polylines import read_vtk, write_vtp
from mixeddim.networks.io.secomb import read_secomb
from mixeddim.networks.io.secomb_oxygen import (
    SoluteParameters,
    read_intravascular_resistance,
    read_solute_parameters,
)
from mixeddim.networks.io.swc import read_swc
from mixeddim.networks.io.tables import read_csv, write_csv

__all__ = [
    "NetworkFileError",
    "SoluteParameters",
    "read_csv",
    "read_dgf",
    "read_graphml",
    "read_intravascular_resistance",
    "read_manworks",
    "read_network",
    "read_secomb",
    "read_solute_parameters",
    "read_swc",
    "read_vtk",
    "write_csv",
    "write_dgf",
    "write_graphml",
    "write_network",
    "write_vtp",
]

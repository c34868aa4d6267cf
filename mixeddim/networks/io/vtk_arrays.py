"""A script that copies the polylines of a VTK file into a NumPy file, for `polylines`.

VTK may crash on a damaged file and end its process, so it runs in a process of its own. The script
imports nothing of mixeddim and starts in a third of a second.
"""

import sys

import numpy as np
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkDataSetAttributes
from vtkmodules.vtkIOLegacy import vtkPolyDataReader
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader


def main(source: str, target: str) -> None:
    """Read `source`, and write points, lines and the arrays with one number each to `target`."""
    reader = vtkXMLPolyDataReader() if source.lower().endswith(".vtp") else vtkPolyDataReader()
    if isinstance(reader, vtkPolyDataReader):
        reader.ReadAllScalarsOn()
        reader.ReadAllFieldsOn()
    reader.SetFileName(source)
    reader.Update()
    mesh = reader.GetOutput()
    lines = mesh.GetLines()
    points = mesh.GetPoints()
    arrays = {
        "points": np.empty((0, 3)) if points is None else vtk_to_numpy(points.GetData()),
        "offsets": vtk_to_numpy(lines.GetOffsetsArray()),
        "connectivity": vtk_to_numpy(lines.GetConnectivityArray()),
        "first_line": np.array(mesh.GetNumberOfVerts()),  # cell data count vertices before lines
    }
    arrays |= _named_arrays("point", mesh.GetPointData())
    arrays |= _named_arrays("cell", mesh.GetCellData())
    np.savez(target, allow_pickle=False, **arrays)


def _named_arrays(kind: str, data: vtkDataSetAttributes) -> dict[str, np.ndarray]:
    arrays = [data.GetArray(index) for index in range(data.GetNumberOfArrays())]
    kept = [array for array in arrays if array is not None and array.GetNumberOfComponents() == 1]
    values = {f"{kind}_{index}": vtk_to_numpy(array) for index, array in enumerate(kept)}
    return {f"{kind}_names": np.array([str(array.GetName()) for array in kept], "U"), **values}


if __name__ == "__main__":
    main(*sys.argv[1:])

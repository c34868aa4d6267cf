"""What may import what, and what loads when."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted([*ROOT.glob("mixeddim/**/*.py"), *ROOT.glob("learning/**/*.py")])


# The order in which data flows; a room, or a file beside the rooms, imports what stands before it.
ORDER = {
    "mixeddim": (
        "_fenics",
        "atomic",
        "memory",
        "processes",
        "algebra",
        "networks",
        "fem",
        "accuracy",
        "reduction",
        "parametrisation",
        "tensors",
        "solvers",
        "results",
        "verification",
    ),
    "learning": (
        "kernels",
        "devices",
        "progress",
        "problems",
        "systems",
        "krylov",
        "preconditioners",
        "accuracy",
        "solver",
        "estimation",
        "training",
        "pretrained",
        "petsc",
        "evaluation",
        "benchmark",
        "reporting",
        "plotting",
        "reproduction",
    ),
}


def package_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0]


def room_of(module: str) -> str:
    return module.split(".")[1]


def imported_modules(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = f"{file.parent.name}." if node.level else ""
            names.add(package + (node.module or ""))
    return names


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "", "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_data_flows_one_way(file: Path) -> None:
    names = imported_modules(file)
    roots = {name.split(".")[0] for name in names}
    if package_of(file) == "mixeddim":
        assert "learning" not in roots
        assert "pyamg" not in roots or file.stem == "network_block"
    else:
        assert not roots & {"dolfinx", "ufl", "basix", "mpi4py"}
        assert "petsc4py" not in roots or file.parts[-2:] == ("petsc", "preconditioners.py")
        assert "pyamg" not in roots or file.stem == "classical"
        # `mixeddim` itself is lazy; the module that generates data is the one to build with it.
        allowed = {"mixeddim", "mixeddim.tensors"} if file.stem == "generation" else set()
        assert {n for n in names if n.startswith("mixeddim")} <= allowed | {"mixeddim.tensors"}


def arrows_back(file: Path) -> list[str]:
    package, *parts = file.relative_to(ROOT).with_suffix("").parts
    order = ORDER[package]
    if parts[0] in {"__init__", "__main__"}:  # the fronts of the house see all rooms
        return []
    here = order.index(parts[0])
    there = {room_of(n) for n in imported_modules(file) if n.startswith(f"{package}.")}
    return [f"{parts[0]} -> {room}" for room in sorted(there) if order.index(room) > here]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_arrow_between_rooms_runs_back(file: Path) -> None:
    assert arrows_back(file) == []


def test_an_arrow_that_runs_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ORDER, "mixeddim", (*reversed(ORDER["mixeddim"]),))
    assert arrows_back(ROOT / "mixeddim/solvers/stationary.py") == [
        "solvers -> _fenics",
        "solvers -> accuracy",
        "solvers -> fem",
        "solvers -> reduction",
    ]


@pytest.mark.parametrize(("folder", "most"), [("learning", 10), ("mixeddim", 12), ("tests", 10)])
def test_few_files_lie_outside_of_the_rooms(folder: str, most: int) -> None:
    assert len([*(ROOT / folder).glob("*.py")]) <= most


@pytest.mark.parametrize("room", sorted({f.parent for f in MODULES}), ids=lambda r: r.name)
def test_every_room_says_what_lives_there(room: Path) -> None:
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert docstring, room


@pytest.mark.parametrize("sink", ["results.plotting", "results.output"])
def test_nothing_imports_a_sink(sink: str) -> None:
    for file in MODULES:
        if file.parent.name != "plotting" and file.stem != sink.split(".")[-1]:
            names = imported_modules(file)
            assert not [n for n in names if f"{n}.".startswith(f"mixeddim.{sink}.")], file


@pytest.mark.parametrize(
    "file",
    [f for f in MODULES if package_of(f) == "mixeddim"],
    ids=lambda f: str(f.relative_to(ROOT)),
)
def test_modules_on_dolfinx_load_mpi_first(file: Path) -> None:
    names = imported_modules(file)
    if "dolfinx" in {name.split(".")[0] for name in names}:
        assert "mixeddim._fenics" in names


def test_every_package_and_what_lies_in_it_is_installed() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {file.parent for file in MODULES}
    assert {".".join(folder.relative_to(ROOT).parts) for folder in folders} == {*wanted["packages"]}
    for folder in ("benchmarks", "pretrained_weights"):
        assert f"{folder}/*" in wanted["package-data"]["learning"]


def test_every_public_name_resolves() -> None:
    result = run("import mixeddim", EAGER_IMPORT="1", HOME=str(Path.home()))
    assert result.returncode == 0, result.stderr


def test_import_loads_no_heavy_package() -> None:
    result = run(
        "import sys, mixeddim\n"
        "print(*{'dolfinx', 'torch', 'pyvista', 'networkx', 'scipy'} & set(sys.modules))"
    )
    assert result.stdout.strip() == "", result.stderr


def test_learning_loads_no_dolfinx() -> None:
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in MODULES]
    imports = ", ".join(name for name in names if name.startswith("learning."))
    result = run(f"import sys, {imports}\nprint(*{{'dolfinx', 'ufl'}} & set(sys.modules))")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_learning_loads_petsc_and_pyamg_only_where_they_are_used() -> None:
    result = run("import sys, learning\nprint(*{'petsc4py', 'pyamg'} & set(sys.modules))")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_submodules_do_not_shadow_functions() -> None:
    names = [file.stem for file in MODULES if file.parent.name == "mixeddim"]
    names += [f.parent.name for f in MODULES if f.parent.parent.name == "mixeddim"]
    result = run(f"import mixeddim\nprint(*set({names}) & set(mixeddim.__all__))")
    assert result.stdout.strip() == "", result.stderr


def test_missing_dolfinx_is_explained() -> None:
    block = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name.startswith('dolfinx') else find(name, *a)\n"
        "import mixeddim\n"
        "mixeddim.assemble"
    )
    result = run(block)
    assert "pip install -e '.[fenics]'" in result.stderr

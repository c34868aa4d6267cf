"""How a test gets at a demo, whose name starts with a number and so cannot be imported."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DEMOS = Path(__file__).resolve().parents[2] / "demos"


@pytest.fixture(scope="session")
def load_demo() -> Callable[[str], ModuleType]:
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"demo_{name}", DEMOS / f"{name}.py")
        demo = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(demo)
        return demo

    return load

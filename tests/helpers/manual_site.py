"""The scripts of docs/ as modules: they are in no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


def load_hooks() -> ModuleType:
    """Import docs/generate.py, the hooks of the manual's site."""
    return _load("generate")


def load_tables() -> ModuleType:
    """Import docs/tables.py, which writes the tables that are made of the records."""
    return _load("tables")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"manual_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

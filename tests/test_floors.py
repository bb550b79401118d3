"""The house's one structural rule: a floor imports only from the floors below it."""

import ast
from pathlib import Path

import pytest

import agebench

FLOORS = {
    "cli": 8,
    "deploy": 7,
    "suites": 6,
    "analysis": 6,
    "runs": 5,
    "reports": 4,
    "testing": 4,
    "engine": 3,
    "export": 3,
    "data": 2,
    "models": 2,
    "evaluation": 2,
    "registry": 1,
    "scaffold": 1,
    "cells": 0,
    "errors": 0,
    "paths": 0,
    "files": 0,
    "integrity": 0,
    "progress": 0,
    "terminal": 0,
    "locks": 0,
}
# The public doors: they stand outside the house and may open any room.
DOORS = {"__init__", "__main__", "pytest_plugin"}
PACKAGE = Path(agebench.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported_rooms(tree: ast.AST) -> set[str]:
    rooms = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("agebench."):
            rooms.add(node.module.split(".")[1])
        if isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("agebench.")}
    return rooms


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(source: Path) -> None:
    room = source.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in DOORS:
        return
    assert room in FLOORS, f"agebench/{room} stands on no floor: give it one here and in docs/decisions.md"
    upward = {
        other
        for other in imported_rooms(ast.parse(source.read_text()))
        if other != room and FLOORS[other] >= FLOORS[room] > 0
    }
    assert not upward, f"{source.name} imports {sorted(upward)} from its own floor or above"


def test_evaluation_needs_no_torch() -> None:
    for source in (PACKAGE / "evaluation").glob("*.py"):
        names = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(source.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {name for name in names if name.split(".")[0] in ("torch", "timm", "torchvision")}, source

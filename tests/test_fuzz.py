"""Damaged inputs are refused with a message; `benchmarks/robustness/fuzz.py` does the same for longer."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "robustness" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fuzz"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "first", "count"),
    [
        *((kind, 0, 50) for kind in ("card", "table", "record")),
        *(pytest.param(kind, 50, 150, marks=pytest.mark.slow) for kind in ("card", "table", "record")),
        pytest.param("run", 0, 200, marks=pytest.mark.slow),
    ],
)
def test_damaged_inputs_are_refused_with_a_message(
    kind: str, first: int, count: int, fuzz: ModuleType, tmp_path: Path
) -> None:
    outcomes = dict(fuzz.cases(kind, first, count, tmp_path))
    failures = {own: outcome.message for own, outcome in outcomes.items() if outcome.state == "failed"}
    assert not failures, f"python {FILE} --kind {kind} --count 1 --seed {next(iter(failures))}"
    states = Counter(outcome.state for outcome in outcomes.values())
    assert min(states["read"], states["refused"]) > count / 10

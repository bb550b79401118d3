"""The table of costs against size: what is kept, the exponent, and the size that takes too long."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "perf"


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("scale")


def test_sizes_are_added_and_the_first_that_takes_too_long_ends_a_row(
    scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {50: 1.0, 1_000: 3.0, 10_000: 21.0, 100_000: 201.0}

    def measure(step: object, count: int, timeout: float) -> tuple[float, float] | None:
        return (seconds[count], count / 100) if seconds[count] < timeout else None

    monkeypatch.setattr(scale, "measure", measure)
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- scale: begin -->\n<!-- scale: end -->\nb\n")
    words = ["--page", str(page), "--results", str(tmp_path / "scale.json"), "--only", "split", "--sizes"]
    scale.main([*words, "1000", "10000", "100000", "1000000"])
    cells = "1,000: 2.0 s, 10 MB; 10,000: 20.0 s, 100 MB; 100,000: over 180 s"
    title = "| open a dataset and split it by person | images"
    assert f"{title} | {cells} | 1.0 s | 1.00 |" in page.read_text()
    scale.main(["--timeout", "300", *words, "100000"])
    cells = "1,000: 2.0 s, 10 MB; 10,000: 20.0 s, 100 MB; 100,000: 200.0 s, 1,000 MB"
    assert f"{title} | {cells} | 1.0 s | 1.00 |" in page.read_text()
    assert page.read_text().endswith("b\n")


def test_a_command_is_measured_in_its_own_process(scale: ModuleType) -> None:
    cost = scale.measure(scale.STEPS["cards"], 3, 60)
    assert cost is not None
    assert cost[0] > 0
    assert cost[1] > 5
    assert scale.measure(scale.STEPS["cards"], 3, 0.01) is None

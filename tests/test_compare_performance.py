"""The comparison with other packages: ratios of processor time with generous bounds, and what it does without a peer."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "perf" / "compare.py"


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_performance", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_bootstrap_is_much_faster_than_fairlearn_and_torchmetrics(compare: ModuleType) -> None:
    for package in ("fairlearn", "torchmetrics"):
        pytest.importorskip(package)
    ratios = compare.main(["--quick", "--only", "bootstrap"])["bootstrap"]
    assert ratios["fairlearn MetricFrame"] > 30  # measured: 500
    assert ratios["torchmetrics BootStrapper"] > 5  # measured: 80
    assert ratios["scipy.stats.bootstrap"] > 0.5  # measured: 6


def test_missing_peer_is_named_and_skipped(compare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    work = compare.Work("x", "x", lambda: 1.0, (compare.Peer("Peer", {"no-such": "no_such_module"}, lambda: 1.0),))
    own, others = compare.measure(work, repeats=2)
    assert len(own.seconds) == 2
    assert others["Peer"].seconds == []
    assert others["Peer"].error == "skipped: no-such cannot be imported (ModuleNotFoundError)"


def test_peer_that_fails_is_named_and_skipped(compare: ModuleType) -> None:
    def fail() -> float:
        raise TypeError("an unexpected argument")

    _, others = compare.measure(compare.Work("x", "x", lambda: 1.0, (compare.Peer("Peer", {}, fail),)), repeats=1)
    assert others["Peer"].error == "skipped: it fails (TypeError: an unexpected argument)"


def test_time_of_a_share_of_the_work_is_scaled(compare: ModuleType) -> None:
    def tenth() -> float:
        sum(range(200_000))
        return 0.1

    def whole() -> float:
        for _ in range(10):
            tenth()
        return 1.0

    own, others = compare.measure(compare.Work("x", "x", whole, (compare.Peer("Peer", {}, tenth),)), repeats=3)
    assert 0.3 < others["Peer"].median / own.median < 3

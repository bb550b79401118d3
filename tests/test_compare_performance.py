"""The comparison with other packages: ratios of processor time with generous bounds, and what it does without a peer."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "perf"


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("compare")


@pytest.fixture
def timing(compare: ModuleType) -> ModuleType:
    return importlib.import_module("comparison.timing")


def test_bootstrap_is_much_faster_than_fairlearn_and_torchmetrics(compare: ModuleType) -> None:
    for package in ("fairlearn", "torchmetrics"):
        pytest.importorskip(package)
    ratios = compare.main(["--quick", "--only", "bootstrap"])["bootstrap"]
    assert ratios["fairlearn MetricFrame"] > 30  # measured: 500
    assert ratios["torchmetrics BootStrapper"] > 5  # measured: 80
    assert ratios["scipy.stats.bootstrap"] > 0.5  # measured: 6


@pytest.mark.parametrize("name", ["corruptions", "conformal", "calibration", "duplicates", "training"])
def test_agebench_does_every_other_work(compare: ModuleType, timing: ModuleType, name: str) -> None:
    work = compare.WORKS[name](True)
    (own,) = timing.measure([timing.Here(work.peers[0])], repeats=1)
    assert len(own.seconds) == 1


def test_missing_peer_is_named_and_skipped(timing: ModuleType) -> None:
    here = timing.Here(timing.Peer("own", timing.Done))
    missing = timing.Here(timing.Peer("Peer", timing.Done, {"no-such": "no_such_module"}))
    own, other = timing.measure([here, missing], repeats=2)
    assert len(own.seconds) == 2
    assert other.seconds == []
    assert other.error == "skipped: no-such cannot be imported (ModuleNotFoundError)"


def test_peer_that_fails_is_named_and_skipped(timing: ModuleType) -> None:
    def fail() -> None:
        raise TypeError("an unexpected argument")

    own, failing = (timing.Here(timing.Peer(name, run)) for name, run in (("own", timing.Done), ("Peer", fail)))
    assert timing.measure([own, failing], repeats=1)[1].error == "skipped: an unexpected argument"
    with pytest.raises(TypeError, match="unexpected"):
        timing.measure([failing, own], repeats=1)


def test_runner_of_another_process_tells_what_it_did(compare: ModuleType, timing: ModuleType) -> None:
    runner = timing.Elsewhere("agebench", compare.WORKS["calibration"], True, 0)
    seconds, done = runner()
    runner.close()
    assert seconds >= 0
    assert done == timing.Done(1)


def test_time_of_a_share_of_the_work_is_scaled(timing: ModuleType) -> None:
    def tenth() -> object:
        sum(range(2_000_000))
        return timing.Done(0.1)

    def whole() -> object:
        for _ in range(10):
            tenth()
        return timing.Done()

    runners = [timing.Here(timing.Peer("", run)) for run in (whole, tenth)]
    whole_time, tenth_time = timing.measure(runners, repeats=3)
    assert 0.3 < tenth_time.median / whole_time.median < 3


def test_page_keeps_what_was_measured_before(compare: ModuleType, tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "compare.json"
    page.write_text("a\n<!-- measured: begin -->\n<!-- measured: end -->\nb\n")
    for name, machine in (("calibration", "a Xeon"), ("conformal", "an EPYC")):
        rows = [("agebench", 0.5, ""), ("slow", 2.0, "finds less"), ("away", None, "skipped: it is not there")]
        compare.keep(
            compare.Result(
                name=name,
                title="20,000 rows",
                note="a note",
                machine=machine,
                versions={"torch": "9"},
                repeats=3,
                load=0.2,
                rows=[compare.Row(name=who, seconds=seconds, remark=remark) for who, seconds, remark in rows],
            ),
            results,
            page,
        )
    assert list(json.loads(results.read_text())) == ["conformal", "calibration"]  # in the order of the works
    lines = page.read_text().splitlines()
    assert lines[0] == "a"
    assert lines[-1] == "b"
    assert "| `conformal`: 20,000 rows | agebench | 500 ms |  |  |" in lines
    assert lines.count("|  | slow | 2 s | 4 | finds less |") == 2
    assert lines.count("|  | away |  |  | skipped: it is not there |") == 2
    assert "- conformal, calibration: a note" in lines
    (xeon,) = (line for line in lines if "a Xeon" in line)
    assert xeon.startswith("Measured (calibration): a Xeon, medians of 3")
    assert "an EPYC" not in xeon

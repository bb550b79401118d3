"""Records become one honest table."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agebench.cli import main
from agebench.config.cards.suite import PublishedResult
from agebench.leaderboard import systems
from agebench.leaderboard.markdown import leaderboard, matrix_csv, matrix_latex, pool_seeds
from agebench.leaderboard.records import content_hash
from agebench.leaderboard.schema import Record
from agebench.leaderboard.systems import System, failure_to_process_counts, images_per_second, robustness_summary
from agebench.metrics.evaluate import evaluate
from agebench.metrics.schema import MetricValue
from agebench.utils.io import write_json


def group_into_systems(records: Iterable[dict[str, Any]]) -> list[System]:
    return systems.group_into_systems(map(Record.from_json, records))


def entry(error: float, seed: int, baseline: float | None = 15.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    age = rng.integers(5, 70, 200).astype(float)
    table = pd.DataFrame(
        {
            "sample_id": [f"image-{row}" for row in range(200)],
            "age": age,
            "age_pred": age + rng.normal(0, error, 200),
            "gender": rng.choice(["female", "male"], 200),
        }
    )
    found = evaluate(table, groups=["gender"], resamples=100, seed=0).to_json()
    return found if baseline is None else found | {"baseline_mae": baseline}


def record(name: str, error: float, seed: int = 0, train: str | None = "utk", **test: Any) -> dict[str, Any]:
    content = {
        "schema": 1,
        "id": f"{train}-{name}-s{seed}",
        "config": {"seed": seed, "data": {"train": train, "test": ["utk", "fgnet"]}, "model": {"name": name}},
        "model": {"name": name, "title": name.title(), "head": "coral", "size": 64, "weights": "random"},
        "metrics": {
            "schema": 1,
            "train": train,
            "tests": {set_: entry(error, seed + place) | test for place, set_ in enumerate(["utk", "fgnet"])},
        },
        "predictions": {},
    }
    return content | {"sha256": content_hash(content)}


def test_seeds_of_one_system_are_one_row() -> None:
    rows = group_into_systems([record("a", 5, 0), record("a", 5, 1), record("a", 5, 2), record("b", 5, 0)])
    assert [(row.name, len(row.records)) for row in rows] == [("A, coral, 64 px", 3), ("B, coral, 64 px", 1)]


def test_other_settings_are_another_system() -> None:
    other = record("a", 5)
    other["config"]["train"] = {"lr": 0.1}
    rows = group_into_systems([record("a", 5), other | {"id": "utk-a-s0-abcd1234"}])
    assert sorted(row.name for row in rows) == ["A, coral, 64 px, train.lr 0.1", "A, coral, 64 px, train.lr default"]


def test_systems_that_differ_in_many_settings_are_told_apart_by_a_hash() -> None:
    other = record("a", 5)
    other["config"]["train"] = {"lr": 0.1, "epochs": 3, "clip": 1.0}
    rows = group_into_systems([record("a", 5), other | {"id": "utk-a-s0-abcd1234"}])
    assert sorted(row.name for row in rows) == ["A, coral, 64 px #abcd1234", "A, coral, 64 px #s0"]


def test_a_frozen_backbone_is_named_and_its_head_alone_has_no_speed() -> None:
    frozen = record("a", 5)
    frozen["config"]["train"] = {"freeze": "backbone"}
    (row,) = group_into_systems([frozen | {"timings": {"predict_s": 0.1, "features_s": 3.0}}])
    assert row.name == "A frozen, coral, 64 px"
    assert images_per_second(row) is None
    (whole,) = group_into_systems([record("b", 5) | {"timings": {"predict_s": 0.1}}])
    assert images_per_second(whole) == pytest.approx(4000)


def test_speed_is_that_of_the_fastest_run() -> None:
    """The first run shared its machine with others."""
    slow, fast = (record("b", 5, seed) | {"timings": {"predict_s": seconds}} for seed, seconds in ((0, 9.0), (1, 0.1)))
    (row,) = group_into_systems([slow, fast])
    assert images_per_second(row) == pytest.approx(4000)


def test_what_stress_does_is_shown_over_the_seeds_that_met_the_same() -> None:
    def stressed(seed: int, error: float, corruptions: list[str]) -> dict[str, Any]:
        summary = {"relative_error": {"value": error}, "corruptions": corruptions, "strengths": 5}
        return record("a", 5, seed) | {"stress": {"fgnet": {"summary": summary, "clean": {"mae": {"value": 5.0}}}}}

    both = ["blur", "grey"]
    records = [stressed(0, 1.2, both), stressed(1, 1.4, both), stressed(2, 9.0, ["blur"])]
    (row,) = group_into_systems(records)
    found = robustness_summary(row)["fgnet"]
    assert (found.corruptions, found.strengths) == (2, 5)
    assert found.relative_error.value == pytest.approx(1.3)
    page = leaderboard(group_into_systems(records))
    assert "## Robustness" in page
    assert "1.30" in page
    assert "## Robustness" not in leaderboard(group_into_systems([record("a", 5)]))


def test_what_could_not_be_processed_counts_on_every_test_set_of_a_system() -> None:
    runs = []
    for test, lost in (("fgnet", 0), ("utk", 40)):
        run = record("a", 5)
        run["metrics"]["tests"] = {test: run["metrics"]["tests"][test]}
        runs.append(run | {"id": test, "samples": {test: {"read": 100, "quarantined": {"no face found": lost}}}})
    (row,) = group_into_systems(runs)
    assert row.tests == ["fgnet", "utk"]
    assert failure_to_process_counts(row) == (40, 200)


def test_seeds_that_disagree_widen_the_interval() -> None:
    alike = pool_seeds([MetricValue(value=5.0, ci_low=4.0, ci_high=6.5)] * 3)
    assert (alike.value, alike.ci_low, alike.ci_high) == pytest.approx((5.0, 4.0, 6.5))
    apart = pool_seeds([MetricValue(value=value, ci_low=value - 1, ci_high=value + 1.5) for value in (4.0, 5.0, 6.0)])
    # Student's 97.5 % point with two degrees of freedom is 4.303; the standard error of the mean is 1 / sqrt(3).
    assert apart.value - apart.ci_low == pytest.approx((1 + (4.3027 / 3**0.5) ** 2) ** 0.5, rel=1e-4)
    assert pool_seeds([MetricValue(value=5.0), MetricValue()]) == MetricValue()


def test_the_page_says_what_stands_behind_each_row() -> None:
    records = [record("a", 3), record("b", 5), record("c", 8), record("d", 4, train=None, contamination="unknown")]
    rival = PublishedResult(system="<b>theirs", train="utk", test="utk", value=4.4, citation="Somebody 2020")
    page = leaderboard(group_into_systems(records), [rival])
    assert "| always the median age of the training set" in page.replace("  ", "")
    assert page.count("°") >= 4  # three systems and the legend
    assert "random start and one seed" in page
    assert "unknown training data" in page
    assert "needs at least 5 test sets" in page.replace("\n", " ")
    assert "&lt;b&gt;theirs" in page
    assert "<b>" not in page


def test_the_command_writes_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "results" / "a.json", record("a", 3))
    words = ["leaderboard", "--results", str(tmp_path / "results")]
    assert main([*words, "--out", str(tmp_path / "page.md")]) == 0
    assert "Reported elsewhere" in (tmp_path / "page.md").read_text()
    assert main([*words, "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("trained on,system,seeds,utk,fgnet")
    assert main([*words, "--format", "latex"]) == 0
    assert "tabular" in capsys.readouterr().out
    assert main([*words, "--format", "csv", "--out", str(tmp_path / "page.csv")]) == 0
    assert (tmp_path / "page.csv").read_text().startswith("trained on,system,seeds,utk,fgnet")
    assert main([*words, "--out", str(tmp_path / "page.md"), "--json"]) == 0
    (system,) = json.loads(capsys.readouterr().out)["systems"]
    value, low, high = system["tests"]["utk"]["mae"]
    assert low < value < high
    assert main([*words, "--format", "csv", "--json"]) == 2
    assert "both write to standard output" in capsys.readouterr().err


def test_a_record_that_does_not_hold_is_on_no_leaderboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "a.json", record("a", 3) | {"sha256": "0"})
    assert main(["leaderboard", "--results", str(tmp_path), "--out", str(tmp_path / "page.md")]) == 2
    assert "seal is broken" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


def counted(name: str, error: float, n: int, read: int, fingerprint: str = "1", **more: Any) -> dict[str, Any]:
    """A record of a test on `n` of `read` images of two sets that it was not trained on."""
    made = record(name, error, train="elsewhere")
    samples = {"read": read, "quarantined": {}, "fingerprint": fingerprint, "test": n}
    return made | {"samples": {"utk": samples, "fgnet": samples}} | more


def line_of(page: str, name: str) -> str:
    """The system's line in the table of all systems."""
    return next(line for line in page.split("# Appendix")[1].splitlines() if line.startswith("|") and name in line)


def test_leaderboard_shows_and_never_ranks_excluded_images() -> None:
    whole = [counted(name, error, 200, 200) for name, error in (("a", 5), ("b", 6), ("c", 7))]
    gamed = [
        counted(name, 2, 200, 802, fingerprint="2", excluded={"bad.csv": {"sha256": "0", "images": 602}})
        for name in "xyz"
    ]
    page = leaderboard(group_into_systems([*whole, *gamed]))
    assert "(200 of 200)" in line_of(page, "A, coral")
    assert "† (200 of 802)" in line_of(page, "X, coral")
    assert "images excluded" in page
    assert "X, coral, 64 px (elsewhere)" in page.split("Without a rank")[1]


def test_leaderboard_sees_exclusions_in_the_config_alone() -> None:
    hidden = counted("x", 2, 200, 200)
    hidden["config"]["data"] = hidden["config"]["data"] | {"exclude": ["bad.csv"]}
    assert "† (200 of 200)" in line_of(leaderboard(group_into_systems([counted("a", 5, 200, 200), hidden])), "X, coral")


def test_leaderboard_marks_partial_and_other_copies() -> None:
    whole = [counted(name, 5, 200, 200) for name in "abc"]
    partial = [counted(name, 2, 150, 150, fingerprint="2") for name in "xyz"]
    other = counted("o", 4, 200, 200, fingerprint="3")
    page = leaderboard(group_into_systems([*whole, *partial, other]))
    assert "† (150 of 150)" in line_of(page, "X, coral")
    assert "≠ (200 of 200)" in line_of(page, "O, coral")
    assert "part of a test set missing" in page
    assert "Ranking 2" not in page
    alone = counted("x", 2, 150, 150, datasets={"utk": {"count": 200}})
    assert "† (150 of 150)" in line_of(leaderboard(group_into_systems([alone])), "X, coral")


def test_leaderboard_names_seeds_that_were_picked() -> None:
    picked = leaderboard(group_into_systems([record("a", 5, seed) for seed in (4, 9, 17)]))
    assert "seeds 4, 9 and 17, not 0 to 2" in picked
    assert "not 0 to" not in leaderboard(group_into_systems([record("a", 5, seed) for seed in (0, 1, 2)]))


EVIL = '=HYPERLINK("http://x") & <b>50%_\\$#{}~^|`'


def test_csv_has_no_markup_and_no_formulas() -> None:
    evil = record("a", 5)
    evil["model"]["title"] = EVIL
    named = record("b", 5)
    named["model"]["title"] = "Tiny_Net <2> [x]"
    lines = matrix_csv(group_into_systems([evil, named])).splitlines()
    cells = [cell for line in csv.reader(lines) for cell in line]
    assert f"'{EVIL}, coral, 64 px" in cells
    assert "Tiny_Net <2> [x], coral, 64 px" in cells
    assert not [cell for cell in cells if cell[:1] in "=+-@" and cell]


def test_latex_escapes_what_latex_reads() -> None:
    evil = record("a", 5)
    evil["model"]["title"] = EVIL
    text = matrix_latex(group_into_systems([evil]))
    assert (
        r"=HYPERLINK(\textquotedbl{}http://x\textquotedbl{}) \& \textless{}b\textgreater{}50\%\_\textbackslash{}\$\#\{\}"
        r"\textasciitilde{}\textasciicircum{}\textbar{}`, coral, 64 px & 1 &" in text
    )
    assert "&lt;" not in text
    assert text.count(r" \\") == 3

"""Requirements, gates and margins from Python."""

import numpy as np
import pytest

import agebench as ab
from agebench.errors import UserError


def ages(n: int = 500):
    rng = np.random.default_rng(0)
    age = rng.integers(10, 60, n).astype(float)
    return age, age + rng.normal(0, 3, n), age + rng.normal(0.2, 3, n), rng.choice(["f", "m"], n)


def test_score_decides_requirements():
    age, estimates, _, gender = ages()
    limits = ["mae<=4", "fpr(18@25)<=0.5", "mae(every gender)<=1"]
    report = ab.score(age, estimates, groups={"gender": gender}, gate_ages=(13, 17), require=limits, resamples=200)
    assert list(report.requirements["verdict"]) == ["shown", "shown", "refuted"]
    assert (report.verdict, report.verdict.exit_code) == ("refuted", 4)
    assert report.requirements["group"].iloc[2] in ("f", "m")
    assert "### Requirements" in report.to_markdown()
    assert ab.score(age, estimates, resamples=0).verdict == "shown"
    with pytest.raises(UserError, match=r"mae<=4\.5"):
        ab.score(age, estimates, require=["mae"])


def test_compare_tests_margins_at_a_gate():
    age, a, b, gender = ages()
    margins = {"mae": 1.0, "fpr": 0.2}
    report = ab.compare(
        {"a": a, "b": b}, age, groups={"gender": gender}, gates=["18@21"], margins=margins, resamples=200
    )
    rows = report.figures.loc["a", "b"]
    assert {"mae", "bias", "cs5", "fpr(18@21)", "fnr(18@21)", "gap(gender)"} <= set(rows.index)
    assert rows.loc["mae", "equivalent"]
    assert rows.loc["mae", "difference"] == pytest.approx(np.abs(a - age).mean() - np.abs(b - age).mean())

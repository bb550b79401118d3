"""Sections with the figures that decide: age gates, the beginning of a report."""

import numpy as np
import pandas as pd

from agebench.metrics.prediction_io import JoinedPredictions
from agebench.metrics.schema import MeasuredFile, Measurement, MetricsFile
from agebench.metrics.scoring import ScoreOptions, score_predictions
from agebench.reports.evaluation import write_score
from agebench.reports.run import summary
from agebench.reports.sections.evaluation import score_text
from agebench.reports.sections.summary import score_summary


def table(n: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(5, 60, n).astype(float)
    labels = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "age_pred": age + rng.normal(0, 3, n)})
    return labels.assign(gender=rng.choice(["f", "m"], n), race=rng.choice(["r|1", "r2"], n))


def scored(**options) -> MetricsFile:
    labels = table()
    lost = labels[:20].drop(columns="age_pred")
    joined = JoinedPredictions(labels[20:].reset_index(drop=True), missing=20, unanswered=lost)
    return score_predictions("faces", [joined], ScoreOptions(resamples=200, **options))


def test_the_screen_has_the_years_next_to_the_limit_and_the_report_has_all():
    screen, report = score_text(scored()), score_text(scored(), full=True)
    for text in (screen, report):
        assert "| aged 17" in text
        assert "refused at T = 25" in text
        assert "gender: f" in text
        assert "Minors at 18: " in text
        assert "r\\|1" in text
    assert "| aged 7 " in report
    assert "gender × race: f × r2" in report
    legal_18 = screen.partition("Legal age 18, by age")[2].partition("Legal age 21")[0]
    assert "| aged 7 " not in legal_18
    assert "gender × race" not in legal_18


def test_the_ages_of_the_chosen_minors_stand_beside_the_rate():
    text = score_text(scored(minor_ages=(16, 17)))
    line = next(line for line in text.splitlines() if line.startswith("- Minors at 18"))
    assert "images aged 16 to 17 (16: " in line
    assert "0-9" not in line


def test_a_run_prints_its_gates():
    text = summary(scored())
    assert "Age gates on faces" in text
    assert "Minors at 18: " in text


def test_a_report_begins_with_what_was_measured(tmp_path):
    files = [MeasuredFile(role="predictions", name="a|b.csv", sha256="0" * 64)]
    made = Measurement(created="2026-01-02T03:04:05+00:00", version="9.9", command="agebench score x", files=files)
    metrics = scored().model_copy(update={"measurement": made})
    write_score(tmp_path, metrics, {"faces": table()[20:]})
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    order = [report.index(word) for word in ("## Measurement", "## Figures that decide", "## faces")]
    assert order == sorted(order)
    opening = report[: order[1]]
    for word in (
        "2026-01-02T03:04:05",
        "agebench 9.9",
        "agebench score x",
        "a\\|b.csv",
        "0" * 64,
        "580 scored",
        "20 of 600",
    ):
        assert word in opening
    assert MetricsFile.from_json(metrics.to_json()).measurement == made


def test_failures_of_scored_files_are_counted_by_group():
    failures = scored().tests["faces"].failure_to_process
    assert (failures.n, failures.failed) == (600, 20)
    assert sum(group.failed for group in failures.groups["gender"].values()) == 20


def test_the_screen_begins_with_what_decides_and_names_the_rest():
    text = score_summary(scored(), rest="The rest: there.")
    assert text.count("\n") <= 62
    assert text.index("### Figures that decide") < text.index("### Groups")
    assert "gender: f" in text
    assert "gender × race" not in text
    assert text.endswith("The rest: there.\n")


def test_groups_and_ages_of_a_few_images_are_marked():
    labels = table(200).assign(
        gender=["x"] * 3 + ["m"] * 197, age=lambda frame: frame["age"].where(frame["age"] != 17, 18)
    )
    labels.loc[0, "age"] = 17
    metrics = score_predictions("faces", [JoinedPredictions(labels)], ScoreOptions(resamples=100))
    report, screen = score_text(metrics, full=True), score_summary(metrics, rest="")
    for text in (report, screen):
        assert any("x " in row and "too few" in row for row in text.splitlines())
        assert "Too few: a group of fewer than 5 images" in text
    assert any("aged 17" in row and "too few" in row for row in report.splitlines())
    assert "17-year-olds that pass at T = 18" in screen
    assert "too few (n = 1)" in screen

"""`score` and `compare` on arrays and frames give what the command line gives for files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import agebench as ab
from agebench.cli import main
from agebench.errors import UserError
from agebench.metrics.schema import MetricsFile


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(1, 80, 300).astype(float)
    return pd.DataFrame(
        {
            "sample_id": [f"image-{i}" for i in range(300)],
            "age": age,
            "age_pred": age + rng.normal(0, 5, 300),
            "subject": [f"s{i // 2}" for i in range(300)],
            "gender": rng.choice(["female", "male"], 300),
            "race": rng.choice(["a", "b"], 300),
        }
    )


def test_arrays_table_and_command_line_agree(table: pd.DataFrame, tmp_path: Path) -> None:
    of_table = ab.score(table, resamples=100)
    of_arrays = ab.score(
        table["age"].tolist(),
        table["age_pred"].to_numpy(),
        groups=table[["gender", "race"]],
        subjects=table["subject"],
        sample_ids=table["sample_id"],
        resamples=100,
    )
    table.to_csv(tmp_path / "test.csv", index=False)
    assert main(["score", str(tmp_path / "test.csv"), "--resamples", "100", "--out", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert of_table.metrics == of_arrays.metrics
    written_mae = written["tests"]["test"]["overall"]["mae"]
    assert tuple(of_table.overall["mae"])[:3] == pytest.approx(tuple(written_mae.values())[:3])
    assert written["tests"]["test"]["groups"].keys() == of_table.metrics.tests["test"].groups.keys()


def test_score_files_equals_the_command_line(table: pd.DataFrame, tmp_path: Path) -> None:
    predictions, labels = tmp_path / "predictions.csv", tmp_path / "labels.csv"
    table[["sample_id", "age_pred"]].to_csv(predictions, index=False)
    table.drop(columns="age_pred").to_csv(labels, index=False)
    words = ["score", str(predictions), "--labels", str(labels), "--resamples", "100", "--gate", "18@22"]
    assert main([*words, "--require", "mae<=4.3", "--out", str(tmp_path / "out")]) == 3
    report = ab.score_files(predictions, labels=labels, resamples=100, gates=["18@22"], require=["mae<=4.3"])
    written = MetricsFile.from_json(json.loads((tmp_path / "out" / "metrics.json").read_text()))
    assert report.metrics.tests == written.tests
    assert report.verdict == "not shown"
    assert [file.role for file in report.metrics.measurement.files] == ["predictions", "labels"]
    assert "score_files" in report.metrics.measurement.command
    assert written.measurement.command.startswith("agebench score")


def test_compare_files_of_run_folders_has_all_tests(table: pd.DataFrame, tmp_path: Path) -> None:
    for run, shift in (("a", 0.0), ("b", 1.0)):
        (tmp_path / run / "predictions").mkdir(parents=True)
        for test in ("fgnet", "utk"):
            shifted = table.assign(age_pred=table["age_pred"] + shift)
            shifted.to_parquet(tmp_path / run / "predictions" / f"{test}.parquet")
    report = ab.compare_files({"a": tmp_path / "a", "b": [tmp_path / "b"]}, resamples=100, margins=["mae=0.5"])
    assert report.name == "fgnet"
    assert list(report.tests) == ["fgnet", "utk"]
    assert report.tests["utk"].pairs.loc[("a", "b"), "difference"] == report.pairs.loc[("a", "b"), "difference"]
    assert report.figures.loc[("a", "b", "mae"), "margin"] == 0.5
    with pytest.raises(UserError, match="give files only, or run folders only"):
        ab.compare_files({"a": tmp_path / "a", "b": tmp_path / "b" / "predictions" / "utk.parquet"})


def test_report_views(table: pd.DataFrame, tmp_path: Path) -> None:
    report = ab.score(table, groups=["gender", "gender*race"], resamples=100)
    mae = report.overall["mae"]
    assert mae.value == pytest.approx((table["age"] - table["age_pred"]).abs().mean())
    assert mae.ci_low < mae.value < mae.ci_high
    assert mae.n == 300
    assert report.to_frame().loc["mae", "ci_high"] == mae.ci_high
    by_gender = (table["age"] - table["age_pred"]).abs().groupby(table["gender"]).mean()
    assert report.by_group.loc["gender", "mae"].to_dict() == pytest.approx(by_gender.to_dict())
    assert {"gender", "gender*race"} <= set(report.gaps.index)
    assert {"fpr", "fpr_ci_low", "fnr"} <= set(report.gates.columns)
    assert (18, 25.0) in report.gates.index
    assert report.save(tmp_path / "report").read_text().startswith("#")
    assert "MAE" in report.to_markdown()
    assert "<table" in report._repr_html_()


def test_labels_are_escaped_in_notebooks(table: pd.DataFrame) -> None:
    groups = {"<b>": np.where(np.arange(300) % 2, "<script>", "x")}
    assert "<script>" not in ab.score(table["age"], table["age_pred"], groups=groups, resamples=0)._repr_html_()


def test_rows_are_matched_by_position() -> None:
    ages = pd.Series([10.0, 20.0, 30.0], index=[7, 8, 9])
    assert ab.score(ages, pd.Series([11.0, 21.0, 31.0]), resamples=0).overall["mae"].value == 1.0


def test_compare_arrays_and_seeds(table: pd.DataFrame, tmp_path: Path) -> None:
    seeds = np.stack([table["age_pred"], table["age_pred"] + 1])
    report = ab.compare({"a": table["age_pred"], "b": seeds}, table["age"], subjects=table["subject"], resamples=100)
    assert report.systems["seeds"].to_dict() == {"a": 1, "b": 2}
    assert ("a", "b") in report.pairs.index
    assert report.save(tmp_path).exists()
    assert "<table" in report._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1, 2],), {}, "y_pred is missing"),
        (([1, 2], [1, 2, 3]), {}, "different lengths: age 2, age_pred 3"),
        (([1, 2], [1, float("nan")]), {}, "not a finite number"),
        (([1, 2], [[1], [2]]), {}, "2 dimensions"),
        (([1, 2], [1, 2]), {"resamples": 3}, "resamples = 3"),
        (([1, 2], [1, 2]), {"groups": {"g": ["a"]}}, "different lengths"),
        (([1], [1]), {}, "at least two"),
        (([1, 2], [1, 2]), {"train_ages": (60, 10)}, "lower age first"),
    ],
)
def test_score_rejects(arguments: tuple[object, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ab.score(*arguments, **options)  # type: ignore[arg-type]


def test_compare_needs_two_systems() -> None:
    with pytest.raises(UserError, match="at least two systems"):
        ab.compare({"a": [1, 2]}, [1, 2])


@pytest.mark.parametrize("argument", ["y_pred", "subjects", "sample_ids", "std", "probs"])
def test_score_refuses_columns_beside_a_table(argument: str, table: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=f"^{argument} is given beside a table of predictions"):
        ab.score(table, **{argument: table["age"]}, resamples=0)


@pytest.mark.parametrize("name", ["age", "age_pred", "sample_id", "subject"])
def test_group_with_the_name_of_a_column_of_predictions_is_refused(name: str, table: pd.DataFrame) -> None:
    decades = (table["age"] // 10 * 10).rename(name)
    with pytest.raises(UserError, match=f"group '{name}': that name is taken"):
        ab.score(table["age"], table["age_pred"], groups=decades, resamples=0)
    with pytest.raises(UserError, match=f"group '{name}': that name is taken"):
        ab.compare({"a": table["age_pred"], "b": table["age"]}, table["age"], groups={name: decades}, resamples=0)
    report = ab.score(table["age"], table["age_pred"], groups={"decade": decades}, resamples=0)
    assert "decade" in report.by_group.index.get_level_values("grouping")

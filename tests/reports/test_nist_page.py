from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agebench.metrics.evaluate import evaluate
from agebench.metrics.failure_to_process import failures_to_process
from agebench.metrics.presets.nist_fate import nist
from agebench.metrics.schema import MetricsFile
from agebench.reports.evaluation import write_score
from agebench.reports.nist import nist_page, write_nist_page


def faces(n: int = 4000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(0, 90, n).astype(float)
    table = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "age_pred": age + rng.normal(0, 4, n)})
    table["gender"] = rng.choice(["female", "male"], n)
    return table.assign(race=rng.choice(["Asian", "Black|White"], n))


def metrics_of(table: pd.DataFrame, *names: str) -> MetricsFile:
    failed = pd.Series(np.arange(len(table)) % 50 == 0)
    changes = {"nist": nist(table, resamples=50), "failure_to_process": failures_to_process(table, failed, ["gender"])}
    entry = evaluate(table, resamples=0).model_copy(update=changes)
    return MetricsFile(tests=dict.fromkeys(names, entry))


def cells(text: str, label: str) -> list[str]:
    """The cells of the first table row that begins with a label."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} "))
    return [cell.strip() for cell in line.strip("|").split(" |")]


def test_nist_bands_are_means_over_the_images_of_their_ages() -> None:
    table = faces()
    bands = nist(table, resamples=20).by_age
    assert [band.ages for band in bands][1:5] == [[8, 12], [13, 16], [17, 17], [18, 22]]
    assert bands[-1].ages == [61, 89]
    assert sum(band.mae.n for band in bands) == len(table)
    errors = (table.age_pred - table.age).abs()
    teens = table.age.between(13, 16)
    assert bands[2].mae.value == pytest.approx(errors[teens].mean())
    assert bands[2].by_sex["male"].value == pytest.approx(errors[teens & (table.gender == "male")].mean())
    assert bands[2].by_sex["male"].n == (teens & (table.gender == "male")).sum()
    assert bands[2].accuracy["3"].value == pytest.approx((errors[teens] <= 3).mean())
    assert bands[2].mae.ci_low < bands[2].mae.value < bands[2].mae.ci_high


def test_nist_bands_of_absent_ages_and_sexes_are_left_out() -> None:
    table = faces()
    table = table[~table.age.between(13, 17) & ~((table.gender == "male") & (table.age > 60))]
    bands = nist(table, resamples=20).by_age
    assert [13, 16] not in [band.ages for band in bands]
    assert list(bands[-1].by_sex) == ["female"]


def test_nist_intervals_of_bands_count_people() -> None:
    table = faces()
    people = table.assign(subject=(np.arange(len(table)) // 100).astype(str), age=np.arange(len(table)) // 100 * 2.0)
    people["age_pred"] = people.age + np.repeat(np.random.default_rng(1).normal(0, 4, len(table) // 100), 100)
    by_image, by_person = (nist(frame, resamples=200).by_age[-1] for frame in (people.drop(columns="subject"), people))
    assert by_person.accuracy["3"].ci_high - by_person.accuracy["3"].ci_low > 0.3
    assert by_image.accuracy["3"].ci_high - by_image.accuracy["3"].ci_low < 0.1


def test_nist_page_has_the_sections_of_a_report_card() -> None:
    page = nist_page(metrics_of(faces(), "x"))
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Accuracy by dataset",
        "## MAE by sex and region of birth",
        "## MAE by age and sex",
        "## Challenge 25",
        "## Child online safety (13-16)",
        "## Failure to process",
    ]
    assert "These figures are not NIST's" in page
    assert "The column race stands for the region of birth" in page
    assert cells(page, "x")[3].startswith("2.0 %")
    assert len(cells(page, "Black\\|White")) == 3


def test_nist_page_states_values_of_the_metrics() -> None:
    table = faces()
    page = nist_page(metrics_of(table, "x"))
    seventeen = table[table.age == 17]
    rate = 100 * (seventeen.age_pred >= 25).mean()
    assert cells(page, "17")[1].startswith(f"{(seventeen.age_pred - 17).abs().mean():.2f}")
    gate = page.split("## Challenge 25")[1]
    assert cells(gate, "17")[1].startswith(f"{rate:.1f} %" if rate >= 1 else f"{rate:.2f} %")
    assert cells(gate, "18")[1] == ""


def test_nist_page_prints_no_value_of_few_images() -> None:
    table = faces()
    few = table[(table.age != 17) | (table.index.isin(table.index[table.age == 17][:3]))]
    page = nist_page(metrics_of(few, "x"))
    assert cells(page, "17")[1] == "too few (n = 3)"


def test_nist_page_names_datasets_where_there_are_several() -> None:
    page = nist_page(metrics_of(faces(), "a", "b"))
    assert "## Challenge 25: a" in page
    assert "## Challenge 25: b" in page


def test_nist_page_is_written_beside_the_report_with_the_preset_only(tmp_path: Path) -> None:
    table = faces(500)
    metrics = metrics_of(table, "x")
    write_score(tmp_path / "with", metrics, {"x": table})
    assert "<h1>Report card" in (tmp_path / "with" / "nist.html").read_text(encoding="utf-8")
    plain = MetricsFile(tests={"x": evaluate(table, resamples=0)})
    assert write_nist_page(tmp_path / "without", plain) is None
    assert not (tmp_path / "without").exists()

import re

import numpy as np
import pandas as pd
import pytest

from agebench.errors import UserError
from agebench.metrics.evaluate import evaluate
from agebench.metrics.presets.nist_fate import mean_rate, nist
from agebench.metrics.schema import MetricsFile
from agebench.reports.sections.evaluation import score_text

REGIONS = ["E Africa", "E Asia", "E Europe", "S Asia", "SE Asia", "W Africa"]


def faces(n: int = 6000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.integers(5, 60, n).astype(float) + rng.choice([0.0, 0.5], n)
    gender = rng.choice(["female", "male"], n, p=[0.3, 0.7])
    table = pd.DataFrame({"age": age, "age_pred": age + rng.normal(0.5, 4, n), "gender": gender})
    return table.assign(region=rng.choice(REGIONS, n), sample_id=np.arange(n).astype(str))


def errors_of(table: pd.DataFrame) -> "pd.Series[float]":
    return (table.age_pred - table.age).abs()


def test_nist_mae_is_the_mean_of_26_cells() -> None:
    table = faces()
    found = nist(table, resamples=0)
    adults = table[(table.age >= 18) & (table.age < 31)]
    cells = errors_of(adults).groupby([adults.gender, np.floor(adults.age)]).mean()
    assert len(cells) == 26
    assert found.mae.value == pytest.approx(cells.mean())
    assert (found.mae.ages, found.mae.cells, found.mae.of_cells) == ([18, 30], 26, 26)
    assert found.mae.n == len(adults)
    assert found.by_sex["female"].mae.value == pytest.approx(cells["female"].mean())
    assert found.by_sex["female"].of_cells == 13
    theirs = adults[(adults.region == "S Asia") & (adults.gender == "male")]
    entry = found.by_origin.groups["S Asia, male"]
    assert entry.mae.value == pytest.approx(errors_of(theirs).groupby(np.floor(theirs.age)).mean().mean())
    assert len(found.by_origin.groups) == 12


def test_nist_mae_is_not_moved_by_other_ages() -> None:
    table = faces()
    spoiled = table.assign(age_pred=table.age_pred.where(table.age.between(18, 30.9), 100.0))
    before, after = nist(table, resamples=100), nist(spoiled, resamples=100)
    assert before.mae == after.mae
    assert before.by_origin == after.by_origin
    assert before.all_ages.mae != after.all_ages.mae


def test_challenge_25_is_the_mean_of_12_cells_at_age_17() -> None:
    table = faces(60_000)
    found = nist(table, resamples=0).challenge_25
    seventeen = table[np.floor(table.age) == 17]
    cells = (seventeen.age_pred >= 25).groupby([seventeen.gender, seventeen.region]).mean()
    assert len(cells) == 12
    assert found.fpr.value == pytest.approx(cells.mean())
    assert found.fpr.ci_low < found.fpr.value < found.fpr.ci_high
    assert (found.ages, found.cells, found.of_cells, found.n) == ([17, 17], 12, 12, len(seventeen))


def test_challenge_25_interval_covers_the_mean_over_cells() -> None:
    rng = np.random.default_rng(1)
    counts = np.repeat(np.arange(12), [5, 10, 20, 40, 80, 160] * 2)
    rates = np.linspace(0.02, 0.2, 12)
    among, covered = np.ones(len(counts), dtype=bool), 0
    for _ in range(1000):
        fpr = mean_rate(rng.random(len(counts)) < rates[counts], among, counts)
        covered += fpr.ci_low <= rates.mean() <= fpr.ci_high
    assert covered >= 930


def test_intervals_at_the_ages_of_few_people_count_these() -> None:
    table = faces(600)
    table = table[table.age >= 31]
    few = faces(60).assign(age=np.repeat([13.5, 15.5], 30), gender="male", subject=np.repeat(["a", "b"], 30))
    few["age_pred"] = few.age + np.repeat([2.0, 3.0], 30)
    one = faces(30).assign(age=9.0, gender="female", subject="c")
    whole = pd.concat([table, few, one], ignore_index=True)
    found = nist(whole, resamples=200)
    assert found.child_online_safety.mae.value == 2.5
    # Student's interval of two people reaches 12.7 standard errors of half a year, and less where resamples lose an age.
    assert found.child_online_safety.mae.ci_high > 5
    bands = {tuple(band.ages): band for band in found.by_age}
    assert bands[13, 16].by_sex["male"].ci_high == pytest.approx(2.5 + 12.7 * 0.5, abs=1)
    assert (bands[8, 12].mae.ci_low, bands[8, 12].mae.ci_high) == (None, None)


def test_a_label_that_is_a_range_counts_only_where_all_of_it_does() -> None:
    table = faces(6000)
    rng = np.random.default_rng(1)
    decades = faces(3000).assign(age=lambda made: np.floor(made.age / 10) * 10 + 5, age_pred=rng.uniform(0, 60, 3000))
    decades = decades.assign(age_low=decades.age - 5, age_high=decades.age + 4)
    # Of the children, but of no year.
    teens = faces(50).assign(age=14.0, age_low=13.0, age_high=15.0, age_pred=14.0)
    alone, mixed = nist(table, resamples=0), nist(pd.concat([table, decades, teens], ignore_index=True), resamples=0)
    for ours, theirs in ((mixed, alone), (mixed.all_ages, alone.all_ages)):
        assert (ours.mae, ours.by_sex, ours.by_origin) == (theirs.mae, theirs.by_sex, theirs.by_origin)
    assert mixed.challenge_25 == alone.challenge_25
    ours, theirs = mixed.child_online_safety, alone.child_online_safety
    assert (ours.mae, ours.fpr_below, ours.fpr_above) == (theirs.mae, theirs.fpr_below, theirs.fpr_above)
    assert ours.tpr.n == theirs.tpr.n + 50
    # No band holds a whole decade below 61.
    sizes, before = ({tuple(band.ages): band.mae.n for band in found.by_age} for found in (mixed, alone))
    assert sizes == before | {(13, 16): before[13, 16] + 50}


def test_ranges_alone_have_no_figure_of_years() -> None:
    table = faces(300).assign(age_low=20.0, age_high=39.0, age=29.5)
    found = nist(table, resamples=100)
    assert found.mae.value is found.all_ages.mae.value is found.child_online_safety.mae.value is None
    assert found.by_age == []
    assert found.all_ages.accuracy["10"].value is not None


def test_child_online_safety_has_its_ages() -> None:
    table = faces()
    found = nist(table, resamples=100).child_online_safety
    whole_years, said = np.floor(table.age), table.age_pred
    children, below, above = (whole_years.between(*ages) for ages in ((13, 16), (8, 12), (17, 22)))
    accepted = (said >= 13) & (said < 17)
    assert found.mae.value == pytest.approx(errors_of(table)[children].groupby(whole_years[children]).mean().mean())
    assert found.tpr.value == pytest.approx(accepted[children].mean())
    assert found.fnr_below.value == pytest.approx(((said >= 8) & (said < 13))[children].mean())
    assert found.fnr_above.value == pytest.approx(((said >= 17) & (said < 23))[children].mean())
    assert found.fpr_below.value == pytest.approx(accepted[below].mean())
    assert found.fpr_above.value == pytest.approx(accepted[above].mean())
    assert [getattr(found, key).ages for key in ("mae", "tpr", "fpr_below", "fpr_above")] == [
        [13, 16],
        [13, 16],
        [8, 12],
        [17, 22],
    ]


def test_all_ages_keep_the_figures_of_the_test_set() -> None:
    table = faces()
    found = nist(table, resamples=0).all_ages
    errors = errors_of(table)
    cells = errors.groupby([table.gender, np.floor(table.age)]).mean()
    assert found.mae.value == pytest.approx(cells.mean())
    assert (found.mae.cells, found.mae.ages) == (len(cells), [5, 59])
    assert set(found.by_origin.groups) == set(REGIONS)
    assert found.accuracy["3"].value == pytest.approx((errors <= 3).mean())
    young = table.age < 18
    assert found.challenge_25.challenge["25"].fpr.value == pytest.approx((table.age_pred[young] >= 25).mean())


def test_nist_text_states_ages_and_missing_cells() -> None:
    table = faces(3000)
    table = table[~((table.gender == "male") & (np.floor(table.age) == 30))].drop(columns="region")
    entry = evaluate(table, resamples=0).model_copy(update={"nist": nist(table, resamples=0)})
    text = score_text(MetricsFile(tests={"x": entry}))
    assert "| MAE (mean over cells of sex and age) | 18-30 |" in re.sub(" +", " ", text)
    assert "| Child online safety (13-16), false positives (estimated 13 to 16) | 17-22 |" in re.sub(" +", " ", text)
    assert "25 of 26" in text
    assert "2 of 12" in text
    assert "do not compare with NIST's" in text
    assert "all ages of this test set (not NIST's)" in text


def test_nist_without_people_of_its_ages_has_no_figure() -> None:
    table = faces()
    found = nist(table[table.age > 40], resamples=100)
    assert found.mae.value is None
    assert found.mae.cells == 0
    assert found.challenge_25.fpr.value is None
    assert found.child_online_safety.mae.value is None
    assert found.all_ages.mae.value is not None


def test_a_region_named_like_a_metric_keeps_its_interval() -> None:
    table = faces()
    named = nist(table.assign(region=table.region.replace({"W Africa": "cs"})), resamples=100)
    plain = nist(table, resamples=100)
    assert named.all_ages.by_origin.groups["cs"] == plain.all_ages.by_origin.groups["W Africa"]


def test_without_gender_the_layout_is_refused() -> None:
    with pytest.raises(UserError, match="--col gender"):
        nist(faces().drop(columns="gender"))
    with pytest.raises(UserError, match="two values, female and male; it has a, b, c"):
        nist(faces().assign(gender=np.resize(["a", "b", "c"], 6000)))


def test_mean_over_cells_of_single_rows_has_an_interval():
    # One row in each cell shows no spread within cells; neighboring ages do.
    rng = np.random.default_rng(0)
    age = np.repeat(np.arange(20.0, 60), 2)
    table = pd.DataFrame({"age": age, "age_pred": age + rng.normal(0, 4, 80), "gender": ["female", "male"] * 40})
    mae = nist(table, resamples=200).all_ages.mae
    spread = np.abs(table["age_pred"] - age).std() / 80**0.5
    assert mae.ci_high - mae.ci_low == pytest.approx(2 * 1.96 * spread, rel=0.3)


def test_accuracy_of_one_is_not_certain():
    table = pd.DataFrame({"age": np.arange(40.0), "age_pred": np.arange(40.0) + 0.1, "gender": ["female", "male"] * 20})
    assert nist(table, resamples=100).all_ages.accuracy["5"].ci_low == pytest.approx(0.025 ** (1 / 40))

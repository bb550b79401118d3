import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency

from agebench.metrics.failure_to_process import failures_to_process
from agebench.reports.sections.failures import describe_failures, failures_tables


@pytest.fixture
def table() -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame({"age": generator.uniform(1, 80, 600), "race": generator.choice(["dark", "light"], 600)})


def test_a_detector_that_misses_one_group_is_shown(table: pd.DataFrame) -> None:
    chance = np.random.default_rng(4).random(600)
    failed = pd.Series(chance < np.where(table["race"] == "dark", 0.15, 0.03))
    found = failures_to_process(table, failed, ["race"])
    dark = found.groups["race"]["dark"]
    assert dark.failed == (failed & (table["race"] == "dark")).sum()
    assert dark.rate.ci_low < 0.15 < dark.rate.ci_high
    gap = found.gaps["race"]
    assert (gap.worst, gap.best) == ("dark", "light")
    assert gap.p <= gap.p_holm < 0.001
    assert sum(entry.failed for entry in found.groups["age_band"].values()) == found.failed
    text = describe_failures("x", found)
    assert "more often" in text
    assert "biases the benchmark" in text
    assert "misses dark more often than others" in text
    assert "dark" in "".join(failures_tables(found))


def test_a_detector_that_misses_all_groups_alike_is_not_called_biased(table: pd.DataFrame) -> None:
    failed = pd.Series(np.random.default_rng(6).random(600) < 0.1)
    assert "biases the benchmark" not in describe_failures("x", failures_to_process(table, failed, ["race"]))


def test_p_agrees_with_the_chi_squared_test_for_counts(table: pd.DataFrame) -> None:
    failed = pd.Series(np.random.default_rng(5).random(600) < 0.2)
    p = failures_to_process(table, failed, ["race"]).gaps["race"].p
    expected = chi2_contingency(pd.crosstab(table["race"], failed), correction=True).pvalue
    assert p == pytest.approx(expected, abs=0.05)


def test_where_nothing_fails_the_rate_has_an_upper_end(table: pd.DataFrame) -> None:
    found = failures_to_process(table, pd.Series(False, index=table.index), ["race"])
    assert found.rate.value == 0
    assert 0.005 < found.rate.ci_high < 0.007
    assert found.gaps == {}
    assert failures_tables(found) == []
    assert "every one of 600 images" in describe_failures("x", found)
    assert failures_to_process(table[:0], pd.Series([], dtype=bool), ["race"]).rate.value is None


@pytest.mark.parametrize("within", [False, True])
def test_a_persons_images_fail_together_and_count_as_one(monkeypatch: pytest.MonkeyPatch, within: bool) -> None:
    monkeypatch.setattr("agebench.metrics.failure_to_process._DRAWS_OF_PEOPLE", 199)
    covered, called = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(60), 10)
        # Bearded or not: the person's own, or on some of his photographs; with no bearing on who fails.
        group = rng.integers(0, 2, 600) if within else rng.integers(0, 2, 60)[person]
        table = pd.DataFrame({"age": 30.0, "beard": group, "subject": person.astype(str)})
        gone = (rng.random(60) < 0.2)[person] & (rng.random(600) < 0.9)
        found = failures_to_process(table, pd.Series(gone), ["beard"])
        covered += found.rate.ci_low <= 0.18 <= found.rate.ci_high
        called += found.gaps["beard"].p <= 0.05
    assert covered >= 53  # 60 of 95 %: fewer has a chance of 1 %; by image about 25 held it
    assert called <= 8  # 60 tests at 5 %: more has a chance of 0.5 %; by image it were 30 of the person's own


def test_where_nobody_fails_people_count_and_images_of_nobody_are_people(table: pd.DataFrame) -> None:
    none = pd.Series(False, index=table.index)
    people = table.assign(subject=np.arange(len(table)) // 10)
    by_person = failures_to_process(people, none).rate.ci_high
    assert by_person == failures_to_process(table[:60], none[:60]).rate.ci_high
    each = table.assign(subject=np.arange(len(table)).astype(str))
    assert failures_to_process(each, none).rate == failures_to_process(table, none).rate

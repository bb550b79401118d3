import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agebench.errors import UserError
from agebench.metrics.evaluate import evaluate
from agebench.metrics.prediction_format import check_predictions
from agebench.metrics.schema import MetricsFile, MetricValue, TestResult

PUBLISHED = {
    ("or-cnn", 0): (2.87, 4.08),
    ("or-cnn", 1): (2.81, 3.97),
    ("or-cnn", 2): (2.82, 3.87),
    ("coral", 0): (2.66, 3.69),
    ("coral", 1): (2.64, 3.64),
    ("coral", 2): (2.62, 3.63),
}


def made(n: int = 400, *, seed: int = 0, harm: float = 0.0, subjects: int | None = None) -> pd.DataFrame:
    """Predictions whose errors grow with age; `harm` adds years of error for one gender."""
    rng = np.random.default_rng(seed)
    gender = rng.choice(["female", "male"], n)
    age = np.where(gender == "male", rng.integers(20, 70, n), rng.integers(10, 60, n)).astype(float)
    error = rng.normal(0, 1 + age / 15) + np.where(gender == "female", harm, 0) * rng.choice([-1, 1], n)
    table = pd.DataFrame({"age": age, "age_pred": age + error, "gender": gender})
    table["sample_id"] = [f"i{place}" for place in range(n)]
    table["race"] = rng.choice(["A", "B", "C"], n)
    if subjects:
        table["subject"] = rng.integers(0, subjects, n).astype(str)
    return table


def values(entry: TestResult) -> dict[str, float | None]:
    found = {f"overall/{name}": figure.value for name, figure in entry.overall.items()}
    for grouping, groups in entry.groups.items():
        for group, row in groups.items():
            found |= {f"{grouping}/{group}/{name}": f.value for name, f in row if isinstance(f, MetricValue)}
    return found


def intervals(found: object) -> list[MetricValue]:
    if isinstance(found, MetricValue):
        return [found]
    parts = found.values() if isinstance(found, dict) else dict(found).values() if isinstance(found, BaseModel) else []
    return [interval for part in parts for interval in intervals(part)]


tables = st.builds(
    made,
    st.integers(12, 60),
    seed=st.integers(0, 1000),
    harm=st.sampled_from([0.0, 3.0]),
    subjects=st.sampled_from([None, 5]),
)


@pytest.mark.parametrize(("system", "seed"), list(PUBLISHED))
def test_published_figures_come_out(test_data, system, seed):
    folder = test_data / "published-predictions"
    labels = pd.read_csv(folder / "morph2-test-labels.csv")
    predictions = pd.read_csv(folder / f"morph2-{system}-seed{seed}.csv")
    entry = evaluate(check_predictions(predictions.merge(labels, on="sample_id")), resamples=0)
    mae, rmse = PUBLISHED[system, seed]
    assert entry.n == 11044
    assert round(entry.overall["mae"].value, 2) == mae
    assert round(entry.overall["rmse"].value, 2) == rmse


def test_figures_of_four_rows_by_hand():
    table = pd.DataFrame({"age": [10.0, 20, 30, 40], "age_pred": [12.0, 20, 24, 41], "sample_id": list("abcd")})
    overall = evaluate(table, train_ages=(15, 35), resamples=0).overall
    assert overall["mae"].value == pytest.approx(9 / 4)
    assert overall["bias"].value == pytest.approx(-3 / 4)
    assert overall["rmse"].value == pytest.approx(np.sqrt(41 / 4))
    assert overall["cs1"].value == 0.5
    assert overall["cs5"].value == 0.75
    assert overall["median_ae"].value == 1.5
    assert overall["r2"].value == pytest.approx(1 - 41 / 500)
    assert overall["mae_within_train_ages"].value == 3
    assert overall["mae_within_train_ages"].n == 2
    assert overall["balanced_mae_bands"].value == pytest.approx((2 + 0 + 6 + 1) / 4)


def test_correlations_are_scipys():
    from scipy import stats

    table = made(300, subjects=40)
    overall = evaluate(table, resamples=0).overall
    assert overall["pearson"].value == pytest.approx(stats.pearsonr(table.age, table.age_pred)[0])
    assert overall["spearman"].value == pytest.approx(stats.spearmanr(table.age, table.age_pred)[0])


def test_label_ranges_and_label_spread():
    table = pd.DataFrame({"age": [24.5, 24.5], "age_pred": [27.0, 40.0], "sample_id": ["a", "b"]})
    table = table.assign(age_low=20.0, age_high=29.0, label_std=[2.5, 0.0])
    overall = evaluate(table, resamples=0).overall
    assert overall["range_mae"].value == pytest.approx(11 / 2)
    assert overall["range_hit"].value == 0.5
    assert overall["epsilon_error"].value == pytest.approx((1 - np.exp(-0.5) + 1) / 2)


@settings(deadline=None, max_examples=25)
@given(tables, st.integers(-30, 30))
def test_a_shift_moves_the_bias_alone(table, shift):
    before = evaluate(table, resamples=0).overall
    after = evaluate(table.assign(age_pred=table.age_pred + shift), resamples=0).overall
    assert after["bias"].value == pytest.approx(before["bias"].value + shift)
    assert after["pearson"].value == pytest.approx(before["pearson"].value)


@settings(deadline=None, max_examples=15)
@given(tables, st.randoms(use_true_random=False))
def test_row_order_and_doubling_change_no_point_figure(table, random):
    before = values(evaluate(table, groups=["gender", "race"], resamples=0, minimum=2))
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = values(evaluate(table.iloc[order], groups=["gender", "race"], resamples=0, minimum=2))
    doubled = evaluate(pd.concat([table, table]), groups=["gender", "race"], resamples=0, minimum=4)
    assert shuffled == pytest.approx(before, nan_ok=True)
    plain = {name: value for name, value in values(doubled).items() if not name.endswith("age_standardized_mae")}
    assert plain == pytest.approx({name: before[name] for name in plain}, nan_ok=True)


@settings(deadline=None, max_examples=15)
@given(tables)
def test_intervals_contain_the_value_and_json_takes_the_entry(table):
    entry = evaluate(table, groups=["gender", "race"], train_ages=(20, 50), resamples=50, minimum=5)
    assert (
        MetricsFile.from_json({"tests": {"a": json.loads(json.dumps(entry.to_json(), allow_nan=False))}}).tests["a"]
        == entry
    )
    shown = intervals(entry)
    assert len(shown) > 50
    for figure in shown:
        if figure.ci_low is not None:
            assert figure.ci_low <= figure.value + 1e-9
            if figure.ci_high is None:
                # A quantile beyond which no error of so few need lie: 0.95^73 = 2.4 %, 0.5^6 = 1.6 %; fewer of one person.
                # On a log scale, a few images leave the end of a group's RMSE open, too.
                few = [group.rmse for groups in entry.groups.values() for group in groups.values() if group.n < 8]
                assert figure in (entry.overall["p95_ae"], entry.overall["median_ae"], *few)
                continue
            assert figure.ci_high >= figure.value - 1e-9


@settings(deadline=None, max_examples=10)
@given(tables)
def test_a_group_alone_gives_the_overall_figure(table):
    row = evaluate(table.assign(gender="female"), groups=["gender"], resamples=20)
    for name in ("mae", "bias", "rmse", "cs5"):
        ours, theirs = getattr(row.groups["gender"]["female"], name), row.overall[name]
        assert ours.to_json() == pytest.approx(theirs.to_json())
    assert row.gaps == {}


def test_the_same_seed_gives_the_same_entry():
    table = made(200, subjects=30)
    assert evaluate(table, groups=["gender"], seed=3) == evaluate(table, groups=["gender"], seed=3)
    assert evaluate(table, resamples=100, seed=3) != evaluate(table, resamples=100, seed=4)


def test_subjects_widen_the_interval():
    table = made(60, seed=1)
    many = pd.concat([table] * 10)
    alone = evaluate(many).overall["mae"]
    together = evaluate(many.assign(subject=many.sample_id))
    assert together.subjects == 60
    assert together.method.resampled == "subjects"
    wide, narrow = (figure.ci_high - figure.ci_low for figure in (together.overall["mae"], alone))
    assert wide > 2 * narrow


def test_unknown_groups_are_counted_not_shown():
    table = made(100)
    table.loc[:9, "gender"] = None
    entry = evaluate(table, groups=["gender", "race"], resamples=0)
    assert entry.n_unknown["gender"] == entry.n_unknown["gender*race"] == 10
    assert sum(row.n for row in entry.groups["gender"].values()) == 90
    assert "gender*race" in entry.groups


def test_a_group_of_one_has_a_value_and_no_interval():
    table = made(100)
    table.loc[0, "race"] = "only"
    row = evaluate(table, groups=["race"]).groups["race"]["only"]
    assert row.n == 1
    assert not row.eligible
    assert row.mae.value == pytest.approx(abs(table.age_pred[0] - table.age[0]))
    assert row.mae.ci_low is None


def test_a_share_of_one_is_not_certain():
    table = made(60)
    entry = evaluate(table.assign(age_pred=table.age + 1), groups=["gender"])
    for cs5 in (entry.overall["cs5"], entry.groups["gender"]["female"].cs5):
        assert cs5.value == cs5.ci_high == 1
        assert 0.8 < cs5.ci_low < 0.96


def test_one_row_has_figures_and_no_intervals():
    entry = evaluate(made(1), groups=["gender"])
    assert entry.overall["mae"].value is not None
    assert entry.overall["mae"].ci_low is None
    assert entry.overall["pearson"].value is None


def test_all_one_age_is_said():
    entry = evaluate(made(50).assign(age=30.0), resamples=50)
    assert entry.overall["r2"].value is None
    assert entry.overall["spearman"].value is None
    assert any("every label is 30" in note for note in entry.notes)


def test_an_unknown_column_is_refused_with_the_closest():
    with pytest.raises(UserError, match="'gendre'; did you mean 'gender'"):
        evaluate(made(20), groups=["gendre"])


def test_plain_figures_agree_with_fairlearn():
    fairlearn = pytest.importorskip("fairlearn.metrics")
    from sklearn.metrics import mean_absolute_error

    table = made(500)
    frame = fairlearn.MetricFrame(
        metrics=mean_absolute_error, y_true=table.age, y_pred=table.age_pred, sensitive_features=table[["race"]]
    )
    entry = evaluate(table, groups=["race"], resamples=0)
    assert {name: row.mae.value for name, row in entry.groups["race"].items()} == pytest.approx(
        frame.by_group.to_dict()
    )
    assert entry.gaps["race"].difference.value == pytest.approx(frame.difference())
    assert entry.gaps["race"].ratio.value == pytest.approx(1 / frame.ratio())
    assert entry.gaps["race"].worst == frame.by_group.idxmax()


def test_a_planted_bias_is_found_and_named():
    gap = evaluate(made(2000, harm=4.0), groups=["gender", "race"]).gaps
    assert gap["gender"].flagged
    assert gap["gender"].age_standardized.worst == "female"
    assert not gap["race"].flagged


def test_a_gap_of_ages_alone_shrinks_and_is_not_flagged():
    flagged = 0
    for seed in range(40):
        gap = evaluate(made(600, seed=seed), groups=["gender"], resamples=99, seed=seed).gaps["gender"]
        flagged += gap.flagged
    assert gap.p < 0.05
    assert gap.explained_by_age
    assert flagged <= 5  # 40 tests at 5 %: more than 5 has a chance of 1.4 %.


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("spearman", lambda table: table["age"].corr(table["age_pred"], method="spearman")),
        ("median_ae", lambda table: (table["age_pred"] - table["age"]).abs().median()),
        ("p95_ae", lambda table: (table["age_pred"] - table["age"]).abs().quantile(0.95)),
        ("r2", lambda table: 1 - ((table["age_pred"] - table["age"]) ** 2).mean() / table["age"].var(ddof=0)),
        ("balanced_mae", lambda table: (table["age_pred"] - table["age"]).abs().groupby(table["age"]).mean().mean()),
    ],
)
def test_intervals_of_what_is_no_mean_agree_with_resampled_rows(name, figure):
    table = made(1500, seed=7)
    rng = np.random.default_rng(0)
    plain = [figure(table.iloc[rng.integers(0, len(table), len(table))]) for _ in range(300)]
    found = evaluate(table, interval="percentile").overall[name]
    assert (found.ci_high - found.ci_low) / 3.92 == pytest.approx(np.std(plain), rel=0.2)
    assert (found.ci_high + found.ci_low) / 2 == pytest.approx(np.mean(plain), abs=np.std(plain))


def equal_groups(seed: int, n: int = 400, groups: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 40, n).astype(float)
    group = rng.integers(0, groups, n).astype(str)
    error = rng.normal(0, 3, n)
    return pd.DataFrame(
        {"sample_id": [f"i{row}" for row in range(n)], "age": age, "age_pred": age + error, "group": group}
    )


def test_gap_of_a_selected_pair_covers_zero(monkeypatch):
    monkeypatch.setattr("agebench.metrics.gaps.group_permutation_test", lambda *_, **__: 1.0)
    pairs = sets = 0
    for seed in range(40):
        gap = evaluate(equal_groups(seed), groups=["group"], resamples=200, seed=seed).gaps["group"]
        pairs += gap.difference.ci_low <= 0
        sets += len(gap.worst_groups) == len(gap.excess)
    # 40 intervals at 95 %: fewer than 34 has a chance of 0.3 %; of plain intervals of the selected pair about 18 hold 0.
    assert min(pairs, sets) >= 34


def test_worst_groups_are_one_where_it_can_be_told():
    table = equal_groups(0, n=4000, groups=4)
    worse = table["group"].isin(["2"])
    table["age_pred"] = table["age"] + (table["age_pred"] - table["age"]) * np.where(worse, 2, 1)
    gap = evaluate(table, groups=["group"], resamples=200).gaps["group"]
    assert gap.worst_groups == ["2"] == gap.age_standardized.worst_groups
    assert gap.excess["2"].ci_low > 0 > gap.excess["1"].ci_high
    both = table["group"].isin(["2", "3"])
    table["age_pred"] = table["age"] + equal_groups(1, n=4000)["age_pred"] - equal_groups(1, n=4000)["age"]
    table["age_pred"] += (table["age_pred"] - table["age"]) * np.where(both, 1, 0)
    assert set(evaluate(table, groups=["group"], resamples=200).gaps["group"].worst_groups) == {"2", "3"}


def test_intervals_do_not_depend_on_row_order():
    table = made(300, seed=3, subjects=40).assign(sample_id=[f"i{row}" for row in range(300)])
    mixed = table.sample(frac=1, random_state=1).reset_index(drop=True)
    first, second = (evaluate(rows, groups=["gender", "race"], resamples=100) for rows in (table, mixed))
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())


def test_shares_of_one_have_exact_intervals():
    age = np.arange(40.0)
    table = pd.DataFrame({"age": age, "age_pred": age + 0.1, "age_low": age - 1, "age_high": age + 1})
    overall = evaluate(table, resamples=100).overall
    assert overall["range_hit"].ci_high == 1
    assert overall["range_hit"].ci_low == pytest.approx(0.025 ** (1 / 40))


def test_constant_predictions_have_no_correlation():
    table = pd.DataFrame({"age": np.arange(333.0) % 70, "age_pred": np.full(333, 33.3)})
    overall = evaluate(table, resamples=100).overall
    assert overall["pearson"].value is None
    assert overall["spearman"].value is None


def test_balanced_mae_and_rmse_cover_the_truth():
    # Skewed ages: many single years have one or two rows. Of plain bootstrap intervals 80 to 85 % cover.
    covered = np.zeros(3)
    for seed in range(80):
        rng = np.random.default_rng(seed)
        age = np.floor(rng.gamma(4, 8, 80))
        error = rng.normal(0, 2 + age / 20)
        table = pd.DataFrame({"age": age, "age_pred": age + error})
        overall = evaluate(table, resamples=100, seed=seed).overall
        ages = np.unique(age)
        truths = {
            "balanced_mae": np.mean(2 + ages / 20) * np.sqrt(2 / np.pi),
            "rmse": 3.6616,  # of four million draws
            "p95_ae": 7.2959,
        }
        covered += [
            overall[name].ci_low <= truth <= (overall[name].ci_high or np.inf) for name, truth in truths.items()
        ]
    assert (covered >= 70).all()  # Of 80 at 95 %: fewer than 70 has a chance of 0.3 %.


def test_p95_of_few_images_has_no_upper_end():
    rng = np.random.default_rng(0)
    age = rng.integers(0, 80, 50).astype(float)
    overall = evaluate(pd.DataFrame({"age": age, "age_pred": age + rng.normal(0, 4, 50)}), resamples=100).overall
    assert overall["p95_ae"].ci_high is None  # The largest of 50 errors lies below the percentile in 8 of 100 cases.
    assert overall["p95_ae"].ci_low < overall["p95_ae"].value
    assert overall["median_ae"].ci_high is not None


@pytest.mark.parametrize(("freedom", "marked"), [(2, ["rmse"]), (1000, [])])
def test_heavy_tails_mark_the_rmse(freedom, marked):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": np.full(2000, 40.0), "age_pred": 40 + rng.standard_t(freedom, 2000)})
    assert evaluate(table, resamples=100).undercovering == marked

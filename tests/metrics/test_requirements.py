"""Requirements: the parser, and verdicts from intervals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agebench.errors import UserError
from agebench.metrics.age_gates import Gate
from agebench.metrics.evaluate import evaluate
from agebench.metrics.prediction_io import JoinedPredictions, read_predictions
from agebench.metrics.requirements import (
    Operator,
    Requirement,
    Scope,
    ScopeKind,
    Verdict,
    check_requirements,
    parse_requirement,
    required_gates,
    with_requirements,
    worst_verdict,
)
from agebench.metrics.schema import GroupMetrics, MetricsFile, MetricValue, TestResult
from agebench.metrics.scoring import ScoreOptions, score_predictions

NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
LIMITS = st.floats(-1e6, 1e6)
SHARES = st.floats(-1e6, 1)
GATES = st.builds(lambda legal, margin: Gate(legal, legal + margin / 2), st.integers(1, 30), st.integers(0, 40))
GROUPED = st.one_of(
    st.builds(Scope, st.just(ScopeKind.EVERY), NAMES),
    st.builds(Scope, st.just(ScopeKind.GROUP), NAMES, NAMES),
)
ANY_SCOPE = st.one_of(
    st.just(Scope()), GROUPED, st.builds(lambda year: Scope(ScopeKind.AGE, year=year), st.integers(0, 99))
)
OPERATORS = st.sampled_from(Operator)
REQUIREMENTS = st.one_of(
    st.builds(Requirement, st.sampled_from(["mae", "rmse", "balanced_mae"]), OPERATORS, LIMITS),
    st.builds(Requirement, st.sampled_from(["cs5", "failure"]), OPERATORS, SHARES),
    st.builds(Requirement, st.sampled_from(["mae", "bias"]), OPERATORS, LIMITS, st.none(), GROUPED),
    st.builds(Requirement, st.just("cs5"), OPERATORS, SHARES, st.none(), GROUPED),
    st.builds(Requirement, st.sampled_from(["fpr", "fnr"]), OPERATORS, SHARES, GATES, ANY_SCOPE),
    st.builds(
        Requirement,
        st.just("gap"),
        OPERATORS,
        LIMITS,
        st.none(),
        st.builds(Scope, st.just(ScopeKind.EVERY), NAMES),
        st.booleans(),
    ),
)


def entry(value: float, low: float | None, high: float | None) -> TestResult:
    return TestResult(n=100, overall={"mae": MetricValue(value=value, ci_low=low, ci_high=high)})


def verdict(result: TestResult, text: str) -> Verdict:
    return Verdict(check_requirements(result, [parse_requirement(text)])[0].verdict)


@given(REQUIREMENTS)
def test_what_is_written_is_read_back(requirement):
    assert parse_requirement(str(requirement)) == requirement


@pytest.mark.parametrize("text", ["cs5>=60", "fpr(18@25)<=5", "failure<=101%"])
def test_share_above_one_is_refused(text):
    with pytest.raises(UserError, match="Write a share or a percentage"):
        parse_requirement(text)


@given(st.text(max_size=40))
def test_any_text_is_a_requirement_or_refused(text):
    try:
        requirement = parse_requirement(text)
    except UserError:
        return
    assert parse_requirement(str(requirement)) == requirement


@given(st.lists(st.floats(0, 20), min_size=3, max_size=3), st.floats(0, 20), st.floats(0, 5))
def test_a_looser_limit_is_never_judged_worse(ends, limit, slack):
    low, value, high = sorted(ends)
    order = [Verdict.REFUTED, Verdict.NOT_SHOWN, Verdict.SHOWN]
    strict, loose = (verdict(entry(value, low, high), f"mae<={limit + more!r}") for more in (0.0, slack))
    assert order.index(strict) <= order.index(loose)
    opposite = verdict(entry(value, low, high), f"mae>={limit!r}")
    assert not strict is opposite is Verdict.SHOWN or low == high == limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mae<=5", Verdict.SHOWN),
        ("mae <= 4.5", Verdict.SHOWN),
        ("mae<=4.2", Verdict.NOT_SHOWN),
        ("mae<=3", Verdict.REFUTED),
        ("mae>=3.5", Verdict.SHOWN),
        ("mae>=4", Verdict.NOT_SHOWN),
        ("mae>=4.6", Verdict.REFUTED),
    ],
)
def test_the_whole_interval_decides(text, expected):
    assert verdict(entry(4.0, 3.5, 4.5), text) is expected


def test_without_an_interval_nothing_is_shown():
    assert verdict(entry(4.0, None, None), "mae<=9") is Verdict.NOT_SHOWN


def test_every_group_must_meet_the_limit():
    groups = {
        name: GroupMetrics(n=50, mae=MetricValue(value=v, ci_low=v - 0.5, ci_high=v + 0.5))
        for name, v in zip("abc", (3.0, 4.0, 4.8), strict=True)
    }
    result = TestResult(n=150, groups={"race": groups})
    assert verdict(result, "mae(every race)<=5.3") is Verdict.SHOWN
    assert verdict(result, "mae(every race)<=5") is Verdict.NOT_SHOWN
    assert verdict(result, "mae(every race)<=4") is Verdict.REFUTED
    # The interval of one group begins at 4.3: not enough among three groups.
    assert verdict(result, "mae(every race)<=4.25") is Verdict.NOT_SHOWN
    assert verdict(result, "mae(race=c)<=4.25") is Verdict.REFUTED
    assert check_requirements(result, [parse_requirement("mae(every race)<=5")])[0].group == "c"


def scored(n: int = 1500, seed: int = 0, **options) -> MetricsFile:
    rng = np.random.default_rng(seed)
    age = rng.integers(10, 40, n).astype(float)
    table = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "age_pred": age + rng.normal(0, 3, n)})
    table["gender"] = rng.choice(["f", "m"], n)
    return score_predictions("t", [JoinedPredictions(table)], ScoreOptions(resamples=200, **options))


def test_gates_groups_and_years_are_looked_up():
    texts = ("fpr(18@21.5)<=1", "fpr(18@21.5, age 17)<=1", "fnr(18@21.5, every gender)<=1", "fpr(18@21.5, gender=f)<=1")
    requirements = tuple(
        map(parse_requirement, (*texts, "gap(gender)<=9", "gap(gender, equal ages)<=9", "failure<=1%"))
    )
    assert required_gates(requirements) == (Gate(18, 21.5),)
    metrics = scored(requirements=requirements)
    results, gate = metrics.tests["t"].requirements, metrics.tests["t"].age_gates["18"]
    assert results[0].value == gate.challenge["21.5"].fpr
    assert results[1].value == gate.by_age["21.5"]["17"].fpr
    assert results[2].group in ("f", "m")
    assert results[3].value == gate.by_group["21.5"]["gender"]["f"].fpr
    assert {result.verdict for result in results} == {"shown"}
    assert worst_verdict(metrics) is Verdict.SHOWN
    assert MetricsFile.from_json(metrics.to_json()).tests["t"].requirements == results


def test_the_bound_of_a_gap_is_over_all_pairs():
    gap = scored().tests["t"].gaps["gender"]
    assert gap.upper >= gap.difference.ci_high - 1e-9


def test_a_gate_without_minors_shows_nothing():
    table = MetricsFile(tests={"t": TestResult(n=5)})
    checked = with_requirements(table, [parse_requirement("fpr(18@25)<=0.5")])
    assert worst_verdict(checked) is Verdict.NOT_SHOWN


def test_the_exit_codes_order_the_verdicts():
    assert [verdict.exit_code for verdict in (Verdict.SHOWN, Verdict.NOT_SHOWN, Verdict.REFUTED)] == [0, 3, 4]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_a_requirement_at_the_observed_value_is_not_shown(seed):
    mae = scored(seed=seed).tests["t"].overall["mae"]
    assert verdict(TestResult(n=9, overall={"mae": mae}), f"mae<={mae.value!r}") is Verdict.NOT_SHOWN


def test_a_true_limit_is_rarely_shown_at_its_boundary():
    """Errors are normal with sd 3, so that the true MAE is 3 * sqrt(2 / pi): 2.5 % of intervals lie wholly below it."""
    truth = float(3 * np.sqrt(2 / np.pi))
    shown = 0
    for seed in range(120):
        error = np.random.default_rng(seed).normal(0, 3, 300)
        result = evaluate(pd.DataFrame({"age": np.full(300, 30.0), "age_pred": 30 + error}), resamples=200, seed=seed)
        shown += verdict(result, f"mae<={truth!r}") is Verdict.SHOWN
    assert shown <= 120 * 0.05 + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mae", "e.g. mae<=4.5"),
        ("mae<4", "e.g. mae<=4.5"),
        ("mae<=four", "'four' is not a number"),
        ("mea<=4", "did you mean 'mae'"),
        ("gap<=1", "gap(gender)"),
        ("fpr<=1", "18@25"),
        ("fpr(25@18)<=1", "legal age or more"),
        ("rmse(gender)<=1", "every GROUPING"),
        ("p95_ae(every gender)<=1", "not computed for 'every gender'"),
        ("mae(age 17)<=1", "by year of age: fpr and fnr"),
    ],
)
def test_a_requirement_that_is_none_is_refused(text, message):
    with pytest.raises(UserError, match=r".*") as raised:
        parse_requirement(text)
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["mae(every gander)<=4", "mae(gender=x)<=4", "gap(colour)<=1", "crps<=1"])
def test_what_the_test_set_does_not_have_is_named(text):
    with pytest.raises(UserError, match="requirement"):
        with_requirements(scored(), [parse_requirement(text)])


@pytest.mark.parametrize(
    ("n", "shown", "refuted"), [(2, False, False), (7, False, False), (8, False, True), (30, True, True)]
)
def test_few_images_neither_show_nor_refute(n, shown, refuted):
    ends = MetricValue(value=3.5, ci_low=3.0, ci_high=4.0)
    result = TestResult(n=n, overall={"mae": ends}, groups={"race": {"x": GroupMetrics(n=n, mae=ends)}})
    for figure in ("mae", "mae(race=x)"):
        assert (verdict(result, f"{figure}<=5") is Verdict.SHOWN) is shown
        assert (verdict(result, f"{figure}<=1") is Verdict.REFUTED) is refuted


def test_two_images_leave_the_upper_end_open():
    table = pd.DataFrame({"sample_id": ["a", "b"], "age": [30.0, 16.0], "age_pred": [31.0, 22.0]})
    rmse = evaluate(table, resamples=200).overall["rmse"]
    assert rmse.value == pytest.approx(18.5**0.5)
    assert rmse.ci_high is None
    assert verdict(TestResult(n=2, overall={"rmse": rmse}), "rmse<=1000") is Verdict.NOT_SHOWN


def test_an_image_without_an_estimate_is_a_miss_and_a_refusal():
    rng = np.random.default_rng(0)
    n = 1000
    labels = pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": rng.integers(8, 60, n).astype(float)})
    labels["gender"] = np.where(np.arange(n) % 2, "f", "m")
    table = labels.assign(age_pred=labels["age"] + rng.normal(0, 0.5, n))
    lost = (labels["age"] >= 18) & (np.arange(n) % 5 == 0) & (labels["gender"] == "m")
    joined = JoinedPredictions(
        table[~lost].reset_index(drop=True), missing=int(lost.sum()), unanswered=labels[lost].reset_index(drop=True)
    )
    texts = ("fnr(18@18)<=0.1", "cs5>=0.95", "cs5(gender=f)>=0.95", "cs5(gender=m)>=0.95")
    options = ScoreOptions(resamples=100, requirements=tuple(parse_requirement(text) for text in texts))
    entry = score_predictions("t", [joined], options).tests["t"]
    adults = labels["age"] >= 18
    refused = ((table["age_pred"] < 18) | lost) & adults
    assert entry.age_gates["18"].challenge["18"].fnr.value == pytest.approx(refused.sum() / adults.sum())
    assert entry.age_gates["18"].n_under == (~adults).sum()
    values = {found.figure: found for found in entry.requirements}
    assert values["cs5"].value.value == pytest.approx(((table["age_pred"] - table["age"]).abs() <= 5)[~lost].sum() / n)
    assert [found.verdict for found in entry.requirements] == ["not shown", "refuted", "shown", "refuted"]


def test_a_group_counts_its_people_not_its_images():
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(82), 12)
    table = pd.DataFrame({"sample_id": np.arange(len(subject)).astype(str), "subject": subject.astype(str)})
    table["age"] = rng.integers(18, 60, len(table)).astype(float)
    table["age_pred"] = table["age"] + rng.normal(0, 3, 82)[subject] + rng.normal(0, 1, len(table))
    table["glasses"] = np.where(subject < 4, "yes", "no")
    result = evaluate(table, groups=["glasses"], resamples=200)
    few = result.groups["glasses"]["yes"]
    assert (few.n, few.subjects, few.eligible) == (48, 4, True)
    errors = (table["age_pred"] - table["age"]).abs()[subject < 4].groupby(subject[subject < 4]).mean()
    students = 3.18 * errors.std() / 2
    assert few.mae.ci_high - few.mae.ci_low > 1.5 * students
    assert verdict(result, "mae(glasses=yes)<=50") is Verdict.NOT_SHOWN
    assert verdict(result, "mae(glasses=no)<=50") is Verdict.SHOWN


def test_images_of_unknown_people_count_as_people():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"sample_id": np.arange(200).astype(str), "age": rng.integers(18, 60, 200).astype(float)})
    table["age_pred"] = table["age"] + rng.normal(0, 3, 200)
    table["subject"] = [f"p{place}" if place < 5 else None for place in range(200)]
    result = evaluate(table, resamples=200)
    assert (result.subjects, result.method.clusters) == (5, 200)
    assert verdict(result, "mae<=50") is Verdict.SHOWN


def test_groups_that_only_the_predictions_have_keep_their_names(tmp_path):
    labels = pd.DataFrame({"sample_id": [str(place) for place in range(80)], "age": [15.0, 30.0] * 40})
    predictions = labels.assign(age_pred=labels["age"], camera=[1, 2] * 40).drop(columns="age").iloc[:-1]
    paths = tmp_path / "predictions.csv", tmp_path / "labels.csv"
    predictions.to_csv(paths[0], index=False)
    labels.to_csv(paths[1], index=False)
    joined = read_predictions(*paths, allow={"missing"})
    options = ScoreOptions(resamples=0, groups=("camera",), gates=(Gate(18, 25),))
    entry = score_predictions("t", [joined], options).tests["t"]
    assert list(entry.groups["camera"]) == list(entry.age_gates["18"].by_group["25"]["camera"]) == ["1", "2"]
    assert list(entry.failure_to_process.groups["camera"]) == ["1", "2"]

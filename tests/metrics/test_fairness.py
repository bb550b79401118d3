import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agebench.metrics.evaluate import evaluate
from agebench.metrics.fairness import (
    age_strata,
    comparable_groups,
    describe_gap,
    eligible_groups,
    group_permutation_test,
    holm,
)
from agebench.metrics.gaps import worst_group
from agebench.metrics.groups import Grouping, age_bands, grouping, scanned_groups
from agebench.metrics.schema import Gap
from agebench.reports.sections import gaps as gap_section
from agebench.reports.sections.evaluation import clean


def two_groups(labels) -> Grouping:
    return Grouping("g", ("a", "b"), np.asarray(labels))


def test_holm_is_statsmodels_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_raises_p_and_keeps_its_order(p):
    adjusted = holm(p)
    assert all(p_one <= one <= 1 for p_one, one in zip(p, adjusted, strict=True))
    assert [adjusted[place] for place in np.argsort(p, kind="stable")] == sorted(adjusted)


def test_every_compared_group_stands_in_every_stratum():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 800)
    years = np.where(labels == 0, rng.integers(0, 60, 800), rng.integers(20, 90, 800))
    strata = age_strata(years, two_groups(labels), np.array([0, 1]))
    assert strata.weights.sum() == pytest.approx(1)
    for place in range(len(strata.ranges)):
        inside = strata.codes == place
        assert min(np.bincount(labels[inside], minlength=2)) >= 10
        low, high = strata.ranges[place]
        assert ((years[inside] >= low) & (years[inside] <= high)).all()
    assert (strata.codes[years < 10] == -1).all()


def test_groups_that_share_no_ages_are_not_compared():
    years = np.concatenate([np.arange(200) % 20, 50 + np.arange(200) % 20])
    groups, strata = comparable_groups(years, two_groups(np.repeat([0, 1], 200)), np.array([0, 1]))
    assert len(groups) == 0
    assert strata.ranges == ()


def test_the_smallest_group_is_left_out_where_it_alone_prevents_a_comparison():
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.integers(0, 2, 1000), np.full(30, 2)])
    years = np.concatenate([rng.integers(0, 80, 1000), np.full(30, 40)])
    groups, strata = comparable_groups(years, Grouping("g", ("a", "b", "c"), codes), np.array([0, 1, 2]))
    assert groups.tolist() == [0, 1]
    assert strata.coverage == 1


@pytest.mark.parametrize("repeat_images", [1, 4])
def test_the_permutation_test_keeps_its_size(repeat_images):
    rejected = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        people = np.repeat(np.arange(100), repeat_images)
        errors = np.abs(rng.normal(0, 3, 100)[people] + rng.normal(0, 1, len(people)))
        labels = rng.integers(0, 2, 100)[people]
        rejected += (
            group_permutation_test(errors, two_groups(labels), np.array([0, 1]), people, permutations=99, seed=seed)
            <= 0.05
        )
    assert rejected <= 18  # 200 tests at 5 %: more than 18 has a chance of 1 %.


@pytest.mark.parametrize("design", ["images", "people", "strata", "limit"])
def test_equality_test_allows_unequal_spread(design, monkeypatch):
    # Every group has a mean absolute error of 1; the errors of one group in ten vary, the others hardly.
    if design == "limit":
        monkeypatch.setattr("agebench.metrics.fairness._SHUFFLED", 10)
    rejected = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        images_each = 4 if design == "people" else 1
        people = np.repeat(np.arange(600), images_each)
        labels = np.where(np.arange(600) < 60, 0, 1)[people]
        errors = np.where(labels == 0, rng.gamma(1.5, 1 / 1.5, len(people)), rng.uniform(0.8, 1.2, len(people)))
        years = rng.integers(20, 40, 600)[people]
        groups = np.array([0, 1])
        strata = age_strata(years, two_groups(labels), groups) if design == "strata" else None
        p = group_permutation_test(
            errors, two_groups(labels), groups, people, strata, permutations=99, seed=1000 + seed
        )
        rejected += p <= 0.05
    assert rejected <= 12  # 100 tests at 5 %: more than 12 has a chance of 0.1 %; unstudentized, 40 and more.


def test_equality_test_of_equal_errors_gives_one():
    labels = np.arange(200) % 2
    assert group_permutation_test(np.full(200, 3.0), two_groups(labels), np.array([0, 1]), np.arange(200)) == 1


def test_the_limit_agrees_with_the_shuffles(monkeypatch):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 4000)
    years = rng.integers(0, 60, 4000)
    errors = rng.gamma(2, 2, 4000) + 0.25 * labels
    groups = np.array([0, 1])
    strata = age_strata(years, two_groups(labels), groups)
    clusters = np.arange(4000) // 2

    def p() -> float:
        return group_permutation_test(errors, two_groups(labels), groups, clusters, strata, permutations=4000)

    shuffled = p()
    monkeypatch.setattr("agebench.metrics.fairness._SHUFFLED", 10)
    assert p() == pytest.approx(shuffled, abs=0.02)


def test_groups_are_found_by_column_and_crossing():
    table = pd.DataFrame({"g": ["x", "y", None, "x"], "r": [1, 1, 2, 2]})
    crossed = grouping(table, "g*r")
    assert crossed.names == ("x*1", "x*2", "y*1")
    assert crossed.codes.tolist() == [0, 2, -1, 1]
    assert crossed.unknown == 1
    assert eligible_groups(crossed, 1).tolist() == [0, 1, 2]


def test_age_bands_hold_their_completed_years():
    bands = age_bands(np.array([0, 12.9, 13, 17.99, 70]))
    assert [bands.names[code] for code in bands.codes] == ["0-12", "0-12", "13-17", "13-17", "65+"]


def test_the_verdict_says_when_the_gap_is_one_of_ages():
    gap = {
        "difference": {"value": 2.0},
        "worst": "old",
        "best": "young",
        "p_holm": 0.001,
        "shrinks": True,
        "flagged": False,
        "standardised": {"difference": {"value": 0.1}, "worst": "young", "best": "old", "p_holm": 0.7},
    }
    assert "mix of ages" in describe_gap(Gap.model_validate(gap))
    assert "no difference shown" in describe_gap(Gap.model_validate(gap))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.sampled_from([1, 10, 30]))
def test_comparable_groups_drop_the_smallest_until_half_of_the_rows_count(seed, n_groups, minimum):
    rng = np.random.default_rng(seed)
    codes = rng.choice(n_groups, 600, p=rng.dirichlet(np.ones(n_groups))) - int(rng.random() < 0.3)
    years = np.clip(np.round(rng.gamma(3, 10, 600) + 5 * codes), 0, None).astype(int)
    grouping = Grouping("g", tuple(map(str, range(n_groups))), codes)
    left = eligible_groups(grouping, minimum)
    while len(left) > 1 and not age_strata(years, grouping, left).coverage >= 0.5:
        left = np.delete(left, np.argmin(grouping.counts[left]))
    groups, strata = comparable_groups(years, grouping, eligible_groups(grouping, minimum))
    assert groups.tolist() == (left.tolist() if len(left) > 1 else [])
    assert strata.ranges == (age_strata(years, grouping, left).ranges if len(left) > 1 else ())


def test_verdict_names_all_groups_that_may_be_worst():
    gap = {
        "difference": {"value": 0.3},
        "worst": "a",
        "best": "c",
        "worst_groups": ["a", "b"],
        "p_holm": 0.5,
        "shrinks": False,
        "flagged": False,
        "standardised": None,
    }
    assert "it may be any of 2 (a, b)" in describe_gap(Gap.model_validate(gap))
    assert "may be any" not in describe_gap(Gap.model_validate(gap | {"worst_groups": ["a"]}))


def test_no_p_value_is_written_as_zero():
    gap = {"difference": {"value": 2.0}, "worst": "a", "best": "b", "standardised": None}
    shown = Gap.model_validate(gap | {"p_holm": 0.0004, "flagged": True})
    assert describe_gap(shown).endswith("at equal ages: more than chance (p < 0.001)")
    assert "(p = 0.001)" in describe_gap(shown.model_copy(update={"p_holm": 0.001}))


def test_sentence_of_a_gap_escapes_names_and_no_signs():
    part = {"difference": {"value": 2.0}, "worst": "<a>", "best": "b_", "worst_groups": ["<a>", "b_"], "p_holm": 0.0004}
    gap = Gap.model_validate(part | {"standardised": part, "flagged": True})
    assert describe_gap(gap, clean) == (
        "&lt;a&gt; has the largest MAE, 2.00 years above b\\_; at equal ages &lt;a&gt; is 2.00 years above b\\_; "
        "which group is worst is uncertain, it may be any of 2 (&lt;a&gt;, b\\_): more than chance (p < 0.001)"
    )


def test_the_worst_group_of_all_crossings_is_the_planted_one():
    rng = np.random.default_rng(0)
    n = 4000
    table = pd.DataFrame({"age": rng.integers(20, 60, n).astype(float), "a": rng.choice(["x", "y"], n)})
    table["b"] = rng.choice(["p", "q"], n)
    planted = (table.a == "x") & (table.b == "q")
    table["age_pred"] = table.age + rng.normal(0, np.where(planted, 6, 3))
    worst = worst_group(evaluate(table, groups=["a", "b", "a*b"], resamples=200).gaps)
    assert (worst.grouping, worst.group, worst.at_equal_ages, worst.n_groups) == ("a*b", "x*q", True, 8)
    assert worst.shown
    table["age_pred"] = table.age + rng.normal(0, 3, n)
    assert not worst_group(evaluate(table, groups=["a", "b", "a*b"], resamples=200).gaps).shown
    assert worst_group({}) is None


def test_every_two_columns_are_crossed_unless_they_are_many():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.integers(0, 3, 200).astype(str) for name in "abc"})
    assert scanned_groups(table) == ("a", "b", "c", "a*b", "a*c", "b*c")
    assert scanned_groups(table.assign(many=np.arange(200) % 20)) == (
        *("a", "b", "c", "many", "a*b", "a*c"),
        *("a*many", "b*c", "b*many", "c*many"),
    )
    wide = table.assign(d=table.a, e=table.b)
    assert scanned_groups(wide) == ("a", "b", "c", "d", "e")


def biased(seed: int, extra: float = 0.0, n: int = 300) -> pd.DataFrame:
    """Estimates that are pulled toward 40 years, of two groups with other ages; `extra` years for the second group."""
    rng = np.random.default_rng(seed)
    is_old = rng.random(n) < 0.5
    age = np.clip(rng.normal(np.where(is_old, 45, 35), 12), 1, 90).round()
    estimate = age + (40 - age) / 3 + rng.normal(0, 3, n) + extra * is_old
    side = np.where(is_old, "old", "young")
    ids = [str(row) for row in range(n)]
    return pd.DataFrame(
        {"sample_id": ids, "age": age, "age_pred": estimate, "side": side, "half": rng.choice(["x", "y"], n)}
    )


def test_the_bias_gap_at_equal_ages_keeps_its_level():
    shown = excluded = raw = 0
    for seed in range(40):
        table = biased(seed)
        gaps = evaluate(table, groups=["side", "half"], resamples=100, seed=seed).gaps
        found = [gap.bias for gap in gaps.values()]
        assert all(bias.at_equal_ages for bias in found)
        shown += any(bias.p_holm < 0.05 for bias in found)
        excluded += any(bias.difference.ci_low > 0 for bias in found)
        errors = (table["age_pred"] - table["age"]).to_numpy()
        sides = two_groups((table["side"] == "old").to_numpy().astype(int))
        raw += (
            group_permutation_test(errors, sides, np.array([0, 1]), np.arange(300), signed=True, permutations=99)
            <= 0.05
        )
    assert shown <= 7  # 40 families at 5 %: more than 7 has a chance of 0.1 %
    assert excluded <= 7
    assert raw > 33  # without equal ages the pull toward the middle looks like a bias against the old


def test_a_planted_bias_is_found_in_its_grouping():
    gaps = evaluate(biased(1, extra=2.0, n=800), groups=["side", "half"], resamples=200, seed=0).gaps
    bias = gaps["side"].bias
    assert (bias.highest, bias.lowest) == ("old", "young")
    assert bias.p_holm < 0.05
    assert bias.difference.ci_low < 2.0 < bias.difference.ci_high
    assert gaps["half"].bias.p_holm >= gaps["half"].bias.p
    text = gap_section.describe_gap("side", gaps["side"])
    assert "Bias at equal ages: old +" in text
    assert "No difference in bias at equal ages is shown" in gap_section.describe_gap("half", gaps["half"])

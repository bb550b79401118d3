import numpy as np
import pandas as pd
import pytest

from agebench.errors import UserError
from agebench.metrics.comparison import align_systems, compare_systems, friedman_nemenyi


def system(seed: int, spread: float = 4.0, n: int = 800, labels: int = 0) -> pd.DataFrame:
    age = np.random.default_rng(labels).uniform(10, 70, n)
    error = np.random.default_rng(seed).normal(0, spread, n)
    return pd.DataFrame({"sample_id": np.arange(n).astype(str), "age": age, "age_pred": age + error})


def test_coral_is_better_than_or_cnn_on_morph(test_data):
    from agebench.metrics.prediction_io import read_predictions

    folder = test_data / "published-predictions"
    labels = folder / "morph2-test-labels.csv"
    systems = {
        name: [read_predictions(folder / f"morph2-{name}-seed{seed}.csv", labels).table for seed in range(3)]
        for name in ("coral", "or-cnn")
    }
    found = compare_systems(align_systems(systems))
    row = found.pairs[0]
    assert row.difference.value == pytest.approx(-0.19, abs=0.005)
    assert row.difference.ci_low < -0.19 < row.difference.ci_high < 0
    assert row.better == "coral"
    assert found.subjects == 7369


def test_a_planted_difference_is_shown_with_its_size():
    row = compare_systems(align_systems({"good": [system(1)], "bad": [system(2, 5.5)]})).pairs[0]
    assert row.shown
    assert row.better == "good"
    truth = (4 - 5.5) * np.sqrt(2 / np.pi)
    assert row.difference.ci_low <= truth <= row.difference.ci_high


@pytest.mark.slow
def test_no_difference_is_said_to_be_none_in_95_of_100():
    shown = 0
    for repeat in range(100):
        systems = {"a": [system(2 * repeat, n=200)], "b": [system(2 * repeat + 1, n=200)]}
        row = compare_systems(align_systems(systems), resamples=200).pairs[0]
        shown += row.shown
        assert row.shown or row.verdict.startswith("no difference shown")
    assert shown <= 10  # A test at 5 % shows more than 10 with a chance of 1 %.


def test_the_needed_images_show_the_difference_with_a_power_of_80_percent():
    paired = align_systems({"a": [system(1, n=4000)], "b": [system(2, n=4000)]})
    needed = compare_systems(paired).pairs[0].images_needed
    # Two independent folded normals of spread 4: the difference has a standard deviation of 4 sqrt(2 (1 - 2 / pi)).
    assert needed == pytest.approx((2.8016 * 4 * np.sqrt(2 * (1 - 2 / np.pi)) / 0.1) ** 2, rel=0.1)


def test_seeds_that_disagree_widen_the_interval():
    calm = [system(seed) for seed in (1, 2, 3)]
    wild = [table.assign(age_pred=table.age_pred + shift) for table, shift in zip(calm, (0, 4, 8), strict=True)]
    other = [system(9)]
    narrow = compare_systems(align_systems({"a": calm, "b": other})).pairs[0].difference
    wide = compare_systems(align_systems({"a": wild, "b": other})).pairs[0].difference
    assert wide.ci_high - wide.ci_low > 3 * (narrow.ci_high - narrow.ci_low)


def test_equal_systems_have_no_difference():
    row = compare_systems(align_systems({"a": [system(1)], "b": [system(1)]})).pairs[0]
    assert row.difference.value == 0
    assert not row.shown
    assert row.p == 1
    assert row.images_needed is None
    assert "same on every image" in row.verdict


def test_images_that_one_system_lacks_are_refused_unless_allowed():
    systems = {"a": [system(1)], "b": [system(2)[:700]]}
    with pytest.raises(UserError, match="only 700 of 800 images"):
        align_systems(systems)
    assert align_systems(systems, allow_missing=True).left_out == 100


def test_labels_that_disagree_are_refused():
    with pytest.raises(UserError, match="not the same labels"):
        align_systems({"a": [system(1)], "b": [system(2, labels=5)]})


def trained(rng: np.random.Generator, seeds: int, seed_spread: float, images: np.ndarray) -> list[pd.DataFrame]:
    """One system whose trainings differ by `seed_spread` years of MAE beside noise by image."""
    tables = []
    for _ in range(seeds):
        error = images + rng.normal(0, 0.5, len(images)) + rng.normal(0, seed_spread)
        tables.append(
            pd.DataFrame({"sample_id": np.arange(len(images)).astype(str), "age": 40.0, "age_pred": 40 + error})
        )
    return tables


@pytest.mark.parametrize("seed_spread", [0.0, 0.3])
def test_compare_with_three_seeds_keeps_its_level(seed_spread):
    # Two systems of the same kind: 5 % are shown to differ, where one variance of two seeds each showed none.
    repeats, shown = 200, 0
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        images = rng.normal(20, 2, 60)
        systems = {name: trained(rng, 3, seed_spread, images) for name in "ab"}
        shown += compare_systems(align_systems(systems), resamples=200, seed=repeat + 1000).pairs[0].shown
    assert 2 <= shown <= 20  # Of 200 tests at 5 %: outside with a chance of 0.3 %.


def test_compare_does_not_depend_on_row_order():
    a, b = system(1), system(2)
    mixed = compare_systems(align_systems({"a": [a.sample(frac=1, random_state=0)], "b": [b]}), resamples=100)
    assert mixed.pairs == compare_systems(align_systems({"a": [a], "b": [b]}), resamples=100).pairs


def test_ranks_over_datasets_agree_with_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal([3, 3.1, 3.6, 5], 0.5, (9, 4)), columns=list("abcd"))
    found = friedman_nemenyi({f"d{row}": dict(table.iloc[row]) for row in range(9)})
    theirs = posthocs.posthoc_nemenyi_friedman(table)
    assert found.nemenyi
    for row in found.nemenyi:
        assert row.p == pytest.approx(theirs.loc[row.a, row.b], abs=1e-3)
    # Demšar 2006, table 5: q for four systems at 5 % is 2.569.
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 9)), abs=0.001)
    for group in found.groups:
        ranks = [found.ranks[name] for name in group]
        assert max(ranks) - min(ranks) <= found.critical_difference


def test_too_few_for_friedman_is_said():
    with pytest.raises(UserError, match="three systems on two datasets"):
        friedman_nemenyi({"d": {"a": 1.0, "b": 2.0, "c": 3.0}})

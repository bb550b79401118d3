import numpy as np
import pandas as pd
import pytest

from agebench.errors import UserError
from agebench.metrics.comparing import compare_on_test_sets
from agebench.metrics.comparison import align_systems, compare_systems, friedman_nemenyi
from agebench.metrics.paired_figures import FigureOptions
from agebench.metrics.prediction_io import JoinedPredictions


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


def test_differences_of_many_systems_are_shown_with_few_resamples():
    systems = {str(place): [system(place, 2 + place)] for place in range(8)}
    found = compare_systems(align_systems(systems), resamples=100)
    assert all(pair.shown for pair in found.pairs if abs(int(pair.a) - int(pair.b)) > 2)
    assert found.pairs[-1].p_holm <= 1


def test_people_that_one_file_names_are_known_for_all():
    people = np.arange(200) // 10
    shared = np.random.default_rng(5).normal(0, 3, 20)[people]
    a = system(1, 1.0, 200)
    b = system(2, 1.0, 200).assign(subject=people.astype(str))
    a["age_pred"] += shared
    found = []
    for first, second in ((a, b), (b, a)):
        tests = {"t": {"first": [JoinedPredictions(first)], "second": [JoinedPredictions(second)]}}
        result = compare_on_test_sets(tests, FigureOptions(resamples=200)).tests["t"]
        assert result.subjects == 20
        found.append(result.figures.differences[0]["bias"].difference)
    assert found[0].value == pytest.approx(-found[1].value)
    widths = [difference.ci_high - difference.ci_low for difference in found]
    assert widths[0] == pytest.approx(widths[1], rel=0.2)
    assert min(widths) > 1.5  # of 200 independent images it would be 0.9


def test_two_people_on_one_image_are_refused():
    people = np.arange(200).astype(str)
    a, b = system(1, n=200).assign(subject=people), system(2, n=200).assign(subject=people[::-1])
    with pytest.raises(UserError, match="two people on '0', '0' and '199'"):
        compare_on_test_sets(
            {"t": {"a": [JoinedPredictions(a)], "b": [JoinedPredictions(b)]}}, FigureOptions(resamples=0)
        )


def test_the_held_out_part_of_a_training_set_is_no_new_dataset():
    names = ("utk", "one", "two", "three", "four")
    tests = {
        name: {
            str(place): [JoinedPredictions(system(10 * labels + place, 3 + place, 120, labels))] for place in range(3)
        }
        for labels, name in enumerate(names)
    }
    alone = compare_on_test_sets(tests, FigureOptions(resamples=100))
    apart = compare_on_test_sets(tests, FigureOptions(resamples=100), held_out={"utk"})
    assert alone.across.datasets == list(names)
    assert apart.across is None
    assert [ranking.tests for ranking in apart.rankings] == [[name] for name in names] + [list(names[1:])]
    assert apart.rankings[0].held_out == [True]
    assert alone.rankings[-1].systems[0].new_datasets is not None
    assert apart.rankings[-1].systems[0].new_datasets is None


def test_a_test_set_of_one_age_is_not_among_those_over_which_systems_are_ranked():
    def tested(labels: int, age: float | None) -> dict[str, list[JoinedPredictions]]:
        tables = [system(10 * labels + place, 3 + place, 120, labels) for place in range(3)]
        if age is not None:
            tables = [table.assign(age_pred=table.age_pred - table.age + age, age=age) for table in tables]
        return {str(place): [JoinedPredictions(table)] for place, table in enumerate(tables)}

    tests = {"a": tested(0, None), "one age": tested(1, 18.0), "b": tested(2, None)}
    rankings = compare_on_test_sets(tests, FigureOptions(resamples=100)).rankings
    assert [ranking.tests for ranking in rankings] == [["a"], ["one age"], ["b"], ["a", "b"]]
    del tests["b"]
    rankings = compare_on_test_sets(tests, FigureOptions(resamples=100)).rankings
    assert [ranking.tests for ranking in rankings] == [["a"], ["one age"]]


def test_a_test_set_of_almost_one_age_is_ranked():
    """Resamples without the one image of another age have no ratio."""
    tests = {}
    for labels, name in enumerate("ab"):
        tables = [system(10 * labels + place, 3 + place, 60, labels) for place in range(3)]
        if name == "b":
            age = np.where(np.arange(60) < 1, 30.0, 18.0)
            tables = [table.assign(age_pred=table.age_pred - table.age + age, age=age) for table in tables]
        tests[name] = {str(place): [JoinedPredictions(table)] for place, table in enumerate(tables)}
    ranking = compare_on_test_sets(tests, FigureOptions(resamples=100)).rankings[-1]
    assert ranking.tests == ["a", "b"]
    assert all(one.value.ci_low < one.value.value < one.value.ci_high for one in ranking.systems)


def test_two_people_alone_show_no_difference():
    people = np.arange(200) // 100
    a, b = (
        system(1, 0.1, 200).assign(subject=people.astype(str)),
        system(2, 0.1, 200).assign(subject=people.astype(str)),
    )
    a["age_pred"], b["age_pred"] = a["age"] + 1, b["age"] + np.where(people, 2.0, 4.0)
    tests = {"t": {"a": [JoinedPredictions(a)], "b": [JoinedPredictions(b)]}}
    found = compare_on_test_sets(tests, FigureOptions(resamples=200)).tests["t"]
    assert not any(difference.shown for difference in found.figures.differences[0].values())
    assert found.pairs[0].p == pytest.approx(0.295, abs=0.05)  # Student's t of 2 with one degree of freedom


def test_people_are_the_same_as_numbers_and_as_text():
    people = np.arange(200) // 10
    tables = [system(1, 1.0, 200).assign(subject=people.astype(str)), system(2, 1.0, 200).assign(subject=people)]
    tables.append(system(3, 1.0, 200).assign(subject=people.astype(float)))
    tests = {"t": {str(place): [JoinedPredictions(table)] for place, table in enumerate(tables)}}
    found = compare_on_test_sets(tests, FigureOptions(resamples=100)).tests["t"]
    assert found.subjects == 20

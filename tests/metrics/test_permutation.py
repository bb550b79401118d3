"""Group labels are shuffled between people only where a person has one, and within people where not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agebench.metrics.fairness import age_strata, group_permutation_test
from agebench.metrics.group_distance import GroupDistance
from agebench.metrics.groups import Grouping
from agebench.metrics.permutation import PermutationData, make_permutations


def two_groups(labels) -> Grouping:
    return Grouping("g", ("a", "b"), np.asarray(labels))


@pytest.mark.parametrize("kind", ["pairs", "three of five", "half of the people"])
def test_a_group_that_varies_within_people_keeps_the_tests_size(kind):
    # As photographs with and without glasses of the same people: no difference, whatever a person's own error is.
    rejected = np.zeros(2)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        people = np.repeat(np.arange(120), 2 if kind == "pairs" else 5)
        labels = {
            "pairs": lambda rng=rng: np.tile([0, 1], 120),
            "three of five": lambda: np.tile([0, 0, 0, 1, 1], 120),
            "half of the people": lambda rng=rng: np.where(
                np.arange(600) < 300, rng.integers(0, 2, 600), np.repeat(rng.integers(0, 2, 120), 5)
            ),
        }[kind]()
        years = rng.integers(20, 40, 120)[people]
        errors = np.abs(rng.normal(0, 3, 120)[people] + rng.normal(0, 2 + years / 20, len(people)))
        strata = age_strata(years, two_groups(labels), np.array([0, 1]))
        rejected += [
            group_permutation_test(errors, two_groups(labels), np.array([0, 1]), people, at, permutations=99, seed=seed)
            <= 0.05
            for at in (None, strata)
        ]
    assert (rejected <= 7).all()  # 40 tests at 5 %: more than 7 has a chance of 0.2 %.


def test_a_difference_within_people_is_seen_beside_what_they_share():
    rng = np.random.default_rng(0)
    people, labels = np.repeat(np.arange(150), 2), np.tile([0, 1], 150)
    errors = rng.gamma(4, 2, 150)[people] + rng.normal(0, 0.5, 300) + 0.3 * labels
    assert group_permutation_test(errors, two_groups(labels), np.array([0, 1]), people) < 0.01


@st.composite
def rows(draw):
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    units = np.unique(rng.integers(0, max(1, n // 3), n), return_inverse=True)[1]
    return rng.normal(size=n).round(1), rng.integers(0, 3, n), rng.integers(0, 2, n), units


@given(rows(), st.integers(0, 9))
def test_a_shuffle_keeps_every_value_and_what_stands_in_each_unit(of, seed):
    values, labels, stratum, units = of
    made = make_permutations(PermutationData(values, labels, stratum, units), 2)
    cells = made.cells(np.random.default_rng(seed))
    assert made.sums.sum() == pytest.approx(values.sum())
    assert made.counts.sum() == len(values)
    assert np.bincount(cells % 2, made.counts, minlength=2) == pytest.approx(np.bincount(stratum, minlength=2))
    mixed = np.array([len(np.unique(labels[units == unit])) > 1 for unit in range(units.max() + 1)])
    if mixed.all():
        before = np.bincount(labels * 2 + stratum, minlength=6)
        assert np.bincount(cells, made.counts, minlength=6) == pytest.approx(before)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=40), st.integers(0, 9))
def test_images_of_nobody_and_people_with_one_label_are_shuffled_as_wholes(labels, seed):
    labels = np.array(labels)
    zeros, each = np.zeros(len(labels), dtype=np.int64), np.arange(len(labels))
    made = make_permutations(PermutationData(np.ones(len(labels)), labels, zeros, each), 1)
    assert made.moved == len(labels)
    assert made.cells(np.random.default_rng(seed)).tolist() == np.random.default_rng(seed).permutation(labels).tolist()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("n", "people"), [(40, 15), (300, 300), (40_000, 40_000)])
def test_shuffles_computed_together_give_the_same_statistics(n: int, people: int, signed: bool) -> None:
    rng = np.random.default_rng(n)
    units = np.unique(rng.integers(0, people, n), return_inverse=True)[1]
    labels, stratum = rng.integers(0, 3, people)[units], rng.integers(0, 4, n)
    items = make_permutations(PermutationData(rng.gamma(2, 3, n), labels, stratum, units), 4)
    distance = GroupDistance(items, 3, np.array([0.1, 0.2, 0.3, 0.4]), signed=signed)
    together = distance.shuffled(items, np.random.default_rng(1), 7)
    draws = np.random.default_rng(1)
    assert together.tolist() == [distance(items.cells(draws)) for _ in range(7)]


@pytest.mark.parametrize("groups", [2, 3])
def test_limit_agrees_with_shuffles_within_people(monkeypatch, groups):
    rng = np.random.default_rng(5)
    units = np.arange(1800) // 3
    labels = np.where(units < 300, rng.integers(0, groups, 1800), rng.integers(0, groups, 600)[units])
    errors = rng.gamma(2, 2, 600)[units] + rng.gamma(2, 1, 1800) + 0.4 * (labels == 0)
    grouping = Grouping("g", tuple("abc"[:groups]), labels)

    def p() -> float:
        return group_permutation_test(errors, grouping, np.arange(groups), units, permutations=2000)

    shuffled = p()
    monkeypatch.setattr("agebench.metrics.fairness._SHUFFLED", 10)
    assert shuffled > 0.001
    assert p() == pytest.approx(shuffled, abs=0.03)

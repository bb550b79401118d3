from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agebench.config.cards.protocol import Protocol
from agebench.config.run import DataConfig
from agebench.data.digests import leakage_groups
from agebench.data.samples import Samples, validate_samples
from agebench.data.splits.protocols import make_folds
from agebench.data.splits.splits import (
    REORDERED_SCHEME,
    SPLIT_SCHEME,
    assign_splits,
    drop_overlapping,
    make_split,
    split_scheme,
    stratified_group_assign,
)
from agebench.errors import UserError
from agebench.registry.catalog import load_catalog
from agebench.runs.splits import make_run_splits
from agebench.types import Split

SEEDS = 300


def samples(
    digests: list[str],
    subjects: list[str | None] | None = None,
    ages: list[float] | None = None,
    **more: Sequence[str | None],
) -> Samples:
    count = len(digests)
    table = pd.DataFrame(
        {
            "sample_id": [f"s{number}" for number in range(count)],
            "path": [f"{number}.jpg" for number in range(count)],
            "age": ages or list(np.arange(count) % 80 + 1.0),
            "subject": subjects or [None] * count,
            "bytes_digest": digests,
            "pixels_digest": digests,
            **more,
        }
    )
    return validate_samples(table)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.one_of(st.none(), st.integers(0, 20))), min_size=60, max_size=150),
    st.integers(0, 5),
)
def test_no_duplicate_and_no_subject_straddles(rows: list[tuple[int, int | None]], seed: int) -> None:
    whole = samples([f"d{digest}" for digest, _ in rows], [None if who is None else f"p{who}" for _, who in rows])
    try:
        parts = make_split(whole, test=0.2, val=0.15, seed=seed)
    except UserError:
        assert len(np.unique(leakage_groups(whole.table))) < 20  # everything hangs together: there is nothing to split
        return
    tables = [parts.train.table, parts.val.table, parts.test.table]
    assert sorted(pd.concat(tables)["sample_id"]) == sorted(whole.table["sample_id"])
    for column in ("bytes_digest", "subject"):
        sides = [set(table[column].dropna()) for table in tables]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]


def test_shares_and_ages_are_kept() -> None:
    generator = np.random.default_rng(0)
    ages = np.round(generator.gamma(4, 9, 5000).clip(1, 100)).tolist()
    whole = samples([f"d{number}" for number in range(5000)], ages=ages)
    parts = make_split(whole, test=0.2, val=0.15, seed=3)
    assert len(parts.test) == pytest.approx(1000, abs=3)
    assert len(parts.val) == pytest.approx(600, abs=3)
    for part in (parts.train, parts.val, parts.test):
        for share in (0.1, 0.5, 0.9):
            assert part.table["age"].quantile(share) == pytest.approx(whole.table["age"].quantile(share), abs=1)


def test_the_seed_decides() -> None:
    whole = samples([f"d{number}" for number in range(300)])
    first, again, other = (
        make_split(whole, test=0.2, val=0.15, seed=seed).test.table["sample_id"].tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def family_album() -> tuple[np.ndarray, np.ndarray]:
    """Person and age of each image: 82 people of 6 to 18 images, from childhood on, as in FG-NET."""
    rng = np.random.default_rng(7)
    counts = rng.integers(6, 19, 82)
    ages = np.round(np.repeat(rng.gamma(3, 6, 82), counts) * rng.uniform(0.2, 2, counts.sum()))
    return np.repeat(np.arange(82), counts), ages


@pytest.mark.parametrize("shares", [(0.68, 0.12, 0.2), (0.8, 0.2), (0.85, 0.15), (0.2,) * 5])
def test_deal_seeds_draw_independent_people(shares: tuple[float, ...]) -> None:
    people, ages = family_album()
    dealt = np.array(
        [
            stratified_group_assign(people, ages, np.array(shares), np.random.default_rng([seed]))
            for seed in range(SEEDS)
        ]
    )
    rng = np.random.default_rng(0)
    for part, share in enumerate(shares):
        rows = dealt == part
        drawn = rows[:, np.unique(people, return_index=True)[1]]
        pairs = drawn.reshape(SEEDS // 2, 2, -1)
        overlaps = (pairs[:, 0] & pairs[:, 1]).sum(axis=1) / pairs[:, 0].sum(axis=1)
        assert abs(overlaps.mean() - share) < 3 * overlaps.std() / len(pairs) ** 0.5
        # Of 82 people one exceeds 4.5 standard errors in one of 2,000 such tests.
        assert np.abs(drawn.mean(axis=0) - share).max() < 4.5 * (share * (1 - share) / SEEDS) ** 0.5
        assert len(np.unique(drawn, axis=0)) == SEEDS
        assert np.abs(rows.mean(axis=1) - share).max() < 12 / len(people)  # a mean person's images
        chance = [ages[np.isin(people, rng.choice(82, round(82 * share), replace=False))].mean() for _ in range(SEEDS)]
        assert np.std([ages[row].mean() for row in rows]) < 0.8 * np.std(chance)


@pytest.mark.parametrize(
    "content", [None, {"kind": "folds", "k": 5}, {"kind": "holdout", "test_share": 0.2}, {"kind": "official"}]
)
def test_fold_draws_everyone_sooner_or_later(content: dict[str, object] | None) -> None:
    people, ages = family_album()
    more = {"split": ["test" if who < 3 else "train" for who in people]} if content == {"kind": "official"} else {}
    whole = samples([f"d{row}" for row in range(len(people))], [f"p{who}" for who in people], ages.tolist(), **more)
    protocol = Protocol.model_validate({"name": "mine", **content}) if content else None
    parts = [make_folds(protocol, whole, test=0.2, val=0.15, seed=seed).assignment[0] for seed in range(60)]
    drawn = np.array(parts) == (Split.VAL if more else Split.TEST)
    assert set(people[drawn.any(axis=0)]) == set(range(3, 82) if more else range(82))
    assert len(np.unique(drawn, axis=0)) == 60


@given(st.integers(2, 60), st.integers(0, 3))
def test_deal_as_many_folds_as_groups_leaves_none_empty(count: int, seed: int) -> None:
    groups = np.arange(count)
    parts = stratified_group_assign(
        groups, groups.astype(float), np.full(count, 1 / count), np.random.default_rng(seed)
    )
    assert sorted(parts) == list(range(count))


@given(st.lists(st.integers(1, 9), min_size=3, max_size=60), st.integers(0, 3))
def test_deal_fills_every_part_that_has_a_share(sizes: list[int], seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    shares = np.array([0.68, 0.12, 0.2, 0.0])
    parts = stratified_group_assign(groups, groups.astype(float), shares, np.random.default_rng(seed))
    assert set(parts) == {0, 1, 2}


def test_doubles_are_chained_through_bytes_pixels_and_subjects() -> None:
    table = pd.DataFrame(
        {
            "bytes_digest": ["a", "a", "b", "c", "d"],
            "pixels_digest": ["p", "p", "q", "q", "r"],
            "subject": [None, "x", "x", None, None],
        }
    )
    assert leakage_groups(table).tolist() == [0, 0, 0, 0, 1]


def test_unknown_subjects_are_nobodys_double() -> None:
    table = pd.DataFrame({"bytes_digest": ["a", "b"], "pixels_digest": ["p", "q"], "subject": [None, None]})
    assert leakage_groups(table).tolist() == [0, 1]


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 groups of images .* are too few"):
        make_split(samples(["a", "a", "b"]), test=0.2, val=0.15, seed=0, source="mine")


def test_an_official_split_is_kept_and_its_leaks_are_taken_from_train() -> None:
    digests = [f"d{number}" for number in range(100)]
    digests[0] = digests[99]  # an image of train that is also in test
    whole = samples(digests, split=["train"] * 80 + ["test"] * 20)
    parts = make_split(whole, test=0.5, val=0.25, seed=0)
    assert parts.test.table["sample_id"].tolist() == [f"s{number}" for number in range(80, 100)]
    assert parts.n_cross_split_removed == 1
    assert "s0" not in {*parts.train.table["sample_id"], *parts.val.table["sample_id"]}
    assert len(parts.val) == pytest.approx(20, abs=2)


def test_an_official_split_with_gaps_is_kept_and_its_gaps_are_in_no_part() -> None:
    marked: list[str | None] = ["train"] * 70 + ["test"] * 29
    whole = samples([f"d{number}" for number in range(100)], split=[*marked, None])
    parts, straddling, _ = assign_splits(whole.table, test=0.5, val=0.25, seed=0)
    assert (parts[:70] <= 1).all()
    assert (parts[70:99] == 2).all()
    assert (parts[99], straddling) == (-1, 0)
    few = samples([f"d{number}" for number in range(9)], split=["train"] * 6 + [None] * 3)
    with pytest.raises(UserError, match="the official split leaves nothing for test; 6 of 9 images are in it"):
        assign_splits(few.table, test=0.5, val=0.25, seed=0)


def test_what_training_saw_is_dropped_from_another_test_set() -> None:
    seen, other = samples(["a", "b"]), samples(["b", "c", "d"])
    kept, dropped = drop_overlapping(other, [seen])
    assert dropped == 1
    assert kept.table["bytes_digest"].tolist() == ["c", "d"]
    assert kept.rejected["reason"].tolist() == ["also in the training set"]


def test_whom_training_saw_is_dropped_from_another_card_of_the_same_people() -> None:
    seen, other = samples(["a", "b"], ["p1", None]), samples(["b", "c", "d", "e"], [None, "p1", "p2", None])
    assert drop_overlapping(other, [seen])[1] == 1
    kept, dropped = drop_overlapping(other, [seen], same_people=True)
    assert (dropped, kept.table["bytes_digest"].tolist()) == (2, ["d", "e"])
    assert dict(zip(kept.rejected["sample_id"], kept.rejected["reason"], strict=True)) == {
        "s0": "also in the training set",
        "s1": "their person is in the training set",
    }
    assert set(kept.rejected["code"]) == {"in-training-set"}


def test_a_run_tests_nobody_whom_it_trains_on_under_another_card() -> None:
    whole = samples([f"d{number}" for number in range(60)], [f"p{number // 2}" for number in range(60)])
    other = samples([f"e{number}" for number in range(60)], [f"p{number // 2}" for number in range(60)])
    data, sets = DataConfig(train="mine", test=("mine", "more")), {"mine": whole, "more": other}
    apart = make_run_splits(data, sets, seed=0)
    assert (len(apart.external_tests["more"]), apart.overlap["more"]) == (60, 0)
    splits = make_run_splits(data, sets, seed=0, same_people=frozenset({"mine", "more"}))
    assert set(splits.external_tests["more"].table["subject"]) == set(splits[0].tests["mine"].table["subject"])
    assert splits.overlap == {"mine": 0, "more": 60 - len(splits.external_tests["more"])}


def test_cards_of_one_source_share_people() -> None:
    cards = load_catalog().datasets
    adience, frontal, utk = (cards.get(name) for name in ("adience", "adience-frontal", "utk"))
    assert adience.shares_people(frontal)
    assert utk.shares_people(utk)
    assert not utk.shares_people(cards.get("utk-hub"))
    assert not utk.shares_people(adience)


def test_the_scheme_of_a_source_that_lists_images_in_another_order_is_another() -> None:
    ids = [f"{number:02d}.jpg" for number in range(20)]
    assert split_scheme(pd.DataFrame({"sample_id": ids})) == SPLIT_SCHEME
    assert split_scheme(pd.DataFrame({"sample_id": ids[::-1]})) == REORDERED_SCHEME
    assert split_scheme(pd.DataFrame({"sample_id": ids[:1]})) == SPLIT_SCHEME

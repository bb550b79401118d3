from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agebench.data.audit import same_side
from agebench.data.samples import Samples, make_samples
from agebench.data.splits import split, split_parts, without_overlap
from agebench.errors import UserError


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
    return make_samples(table)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.one_of(st.none(), st.integers(0, 20))), min_size=60, max_size=150),
    st.integers(0, 5),
)
def test_no_duplicate_and_no_subject_straddles(rows: list[tuple[int, int | None]], seed: int) -> None:
    whole = samples([f"d{digest}" for digest, _ in rows], [None if who is None else f"p{who}" for _, who in rows])
    try:
        parts = split(whole, test=0.2, val=0.15, seed=seed)
    except UserError:
        assert len(np.unique(same_side(whole.table))) < 20  # everything hangs together: there is nothing to split
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
    parts = split(whole, test=0.2, val=0.15, seed=3)
    assert len(parts.test) == pytest.approx(1000, abs=3)
    assert len(parts.val) == pytest.approx(600, abs=3)
    for part in (parts.train, parts.val, parts.test):
        for share in (0.1, 0.5, 0.9):
            assert part.table["age"].quantile(share) == pytest.approx(whole.table["age"].quantile(share), abs=1)


def test_the_seed_decides() -> None:
    whole = samples([f"d{number}" for number in range(300)])
    first, again, other = (
        split(whole, test=0.2, val=0.15, seed=seed).test.table["sample_id"].tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_doubles_are_chained_through_bytes_pixels_and_subjects() -> None:
    table = pd.DataFrame(
        {
            "bytes_digest": ["a", "a", "b", "c", "d"],
            "pixels_digest": ["p", "p", "q", "q", "r"],
            "subject": [None, "x", "x", None, None],
        }
    )
    assert same_side(table).tolist() == [0, 0, 0, 0, 1]


def test_unknown_subjects_are_nobodys_double() -> None:
    table = pd.DataFrame({"bytes_digest": ["a", "b"], "pixels_digest": ["p", "q"], "subject": [None, None]})
    assert same_side(table).tolist() == [0, 1]


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 groups of images .* are too few"):
        split(samples(["a", "a", "b"]), test=0.2, val=0.15, seed=0, source="mine")


def test_an_official_split_is_kept_and_its_leaks_are_taken_from_train() -> None:
    digests = [f"d{number}" for number in range(100)]
    digests[0] = digests[99]  # an image of train that is also in test
    whole = samples(digests, split=["train"] * 80 + ["test"] * 20)
    parts = split(whole, test=0.5, val=0.25, seed=0)
    assert parts.test.table["sample_id"].tolist() == [f"s{number}" for number in range(80, 100)]
    assert parts.straddling == 1
    assert "s0" not in {*parts.train.table["sample_id"], *parts.val.table["sample_id"]}
    assert len(parts.val) == pytest.approx(20, abs=2)


def test_an_official_split_with_gaps_is_kept_and_its_gaps_are_in_no_part() -> None:
    marked: list[str | None] = ["train"] * 70 + ["test"] * 29
    whole = samples([f"d{number}" for number in range(100)], split=[*marked, None])
    parts, straddling = split_parts(whole.table, test=0.5, val=0.25, seed=0)
    assert (parts[:70] <= 1).all()
    assert (parts[70:99] == 2).all()
    assert (parts[99], straddling) == (-1, 0)
    few = samples([f"d{number}" for number in range(9)], split=["train"] * 6 + [None] * 3)
    with pytest.raises(UserError, match="the official split leaves nothing for test; 6 of 9 images are in it"):
        split_parts(few.table, test=0.5, val=0.25, seed=0)


def test_what_training_saw_is_dropped_from_another_test_set() -> None:
    seen, other = samples(["a", "b"]), samples(["b", "c", "d"])
    kept, dropped = without_overlap(other, [seen])
    assert dropped == 1
    assert kept.table["bytes_digest"].tolist() == ["c", "d"]
    assert kept.quarantined["reason"].tolist() == ["also in the training set"]

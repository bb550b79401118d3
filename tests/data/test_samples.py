import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agebench.data.samples import dataset_fingerprint, validate_samples
from agebench.errors import AgebenchError


def table(ages: list[float], **columns: list[str]) -> pd.DataFrame:
    names = [f"s{number}" for number in range(len(ages))]
    return pd.DataFrame({"sample_id": names, "path": names, "age": ages, **columns})


@given(st.lists(st.floats(-500, 500), max_size=30))
def test_every_row_is_a_sample_or_in_quarantine(ages: list[float]) -> None:
    samples = validate_samples(table(ages))
    assert len(samples) + len(samples.rejected) == len(ages)
    assert samples.table["age"].between(0, 120).all()


def test_an_impossible_age_is_named() -> None:
    samples = validate_samples(table([30, -3, 200, float("inf")]))
    assert samples.rejected["reason"].tolist() == [
        "age -3 is outside [0, 120]",
        "age 200 is outside [0, 120]",
        "age inf is outside [0, 120]",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (table([1.0, float("nan")]), "1 samples have no age, the first is s1"),
        (table([1.0, 2.0]).assign(sample_id="same"), "sample_id 'same' is repeated"),
        (table([1.0]).drop(columns="path"), "gave no column path"),
    ],
)
def test_a_readers_mistake_is_named(rows: pd.DataFrame, message: str) -> None:
    with pytest.raises(AgebenchError, match=message):
        validate_samples(rows)


def test_a_group_that_the_card_names_must_be_there() -> None:
    with pytest.raises(AgebenchError, match="gave no column skin_type"):
        validate_samples(table([1.0]), groups=["skin_type"])


def test_the_fingerprint_covers_the_cards_groups_and_no_order() -> None:
    rows = table([1.0, 2.0], gender=["f", "m"], skin_type=["II", "VI"]).assign(bytes_digest=["a", "b"])
    plain, grouped = (
        dataset_fingerprint(validate_samples(rows, groups=groups)) for groups in (["gender"], ["skin_type"])
    )
    assert plain == dataset_fingerprint(validate_samples(rows.drop(columns="skin_type")))
    assert grouped != plain
    assert grouped == dataset_fingerprint(validate_samples(rows[::-1], groups=["skin_type"]))
    corrected = rows.assign(skin_type=["II", "V"])
    assert grouped != dataset_fingerprint(validate_samples(corrected, groups=["skin_type"]))

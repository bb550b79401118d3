import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agebench.data.readers.age_parsing import age_range, resolve_ages
from agebench.errors import UserError


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("(25, 32)", (25, 32)),
        ("[0,2]", (0, 2)),
        ("3-9", (3, 9)),
        ("20 – 29", (20, 29)),
        ("25 to 32 years", (25, 32)),
        ("03-Sep", (3, 9)),
        ("9-Mar", (3, 9)),
        ("19-Oct", (10, 19)),
        ("Oct-19", (10, 19)),
        ("more than 70", (70, 90)),
        ("More than 70 years old", (70, 90)),
        ("70+", (70, 90)),
        (">=70", (70, 90)),
        ("60 and over", (60, 90)),
        ("95+", (95, 95)),
        ("under 3", (0, 2)),
        ("<3", (0, 2)),
        ("up to 2", (0, 2)),
        ("2 or younger", (0, 2)),
        ("32-25", None),
        ("25", None),
        ("-3", None),
        ("25,5", None),
        ("None", None),
        ("", None),
        ("2017-01-16", None),
    ],
)
def test_ranges_as_datasets_write_them(text: str, ends: tuple[float, float] | None) -> None:
    assert age_range(text, (0, 90)) == ends


@pytest.mark.parametrize("text", ["more than 70", "70+", "under 3"])
def test_an_open_range_needs_a_rule_on_the_card(text: str) -> None:
    with pytest.raises(UserError, match=r"labels\.csv: age '.*' is a range with an open end\. .*options\.open_ages"):
        age_range(text, source="labels.csv")


def test_ranges_numbers_and_neither_in_one_column() -> None:
    table = pd.DataFrame({"age": ["3-9", "35", "4", None, "old"]})
    found = resolve_ages(table, {"4": "40-49", "35": "38-43"}, (), source="x")
    assert pd.to_numeric(found["age"], errors="coerce").tolist()[:3] == [6, 40.5, 44.5]
    assert found["age_low"].tolist()[:3] == [3, 38, 40]
    assert found["age"][4] == "old"
    assert found["age_high"].isna().tolist() == [False, False, False, True, True]


def test_numbers_stay_as_they_are() -> None:
    table = pd.DataFrame({"age": ["25", "7.5"]})
    assert resolve_ages(table, {}, (), source="x") is table


def test_the_ends_alone() -> None:
    found = resolve_ages(pd.DataFrame({"age_low": [3.0], "age_high": [9.0]}), {}, (), source="x")
    assert found["age"].tolist() == [6]


@given(
    low=st.integers(0, 100),
    width=st.integers(0, 20),
    form=st.sampled_from(["{}-{}", "({}, {})", "{} to {}", "[{};{}]"]),
)
def test_any_range(low: int, width: int, form: str) -> None:
    assert age_range(form.format(low, low + width)) == (low, low + width)

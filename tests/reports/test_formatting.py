import pytest

from agebench.reports.formatting import format_count


@pytest.mark.parametrize(
    ("value", "noun", "text"),
    [(1, "face", "1 face"), (0, "face", "0 faces"), (2300, "image", "2,300 images"), (None, "image", "– images")],
)
def test_count_of_a_noun_is_in_its_number(value: int | None, noun: str, text: str) -> None:
    assert format_count(value, noun) == text
    assert format_count(value) == text.split(" ")[0]

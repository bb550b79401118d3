from pathlib import Path

import pandas as pd
import pytest

from agebench.data.exclude import without_excluded
from agebench.data.samples import Samples, make_samples
from agebench.errors import UserError


@pytest.fixture
def samples() -> dict[str, Samples]:
    table = {name: pd.DataFrame({"sample_id": list(ids), "path": list(ids), "age": 30.0}) for name, ids in
             (("one", "abc"), ("two", "cde"))}  # fmt: skip
    return {name: make_samples(each) for name, each in table.items()}


def test_ids_are_put_aside_with_the_file_s_name(samples: dict[str, Samples], tmp_path: Path) -> None:
    file = tmp_path / "bad-2.csv"
    file.write_text("dataset,sample_id,reason\none,a,\none,c,\none,nosuch,\nelsewhere,b,\n")
    kept, found = without_excluded(samples, [str(file)])
    assert kept["one"].table["sample_id"].tolist() == ["b"]
    assert len(kept["two"]) == 3
    assert set(kept["one"].quarantined["reason"]) == {"excluded by bad-2.csv"}
    assert (found["bad-2.csv"]["images"], found["bad-2.csv"]["unknown"]) == (2, 1)


def test_without_a_dataset_an_id_counts_wherever_it_is(samples: dict[str, Samples], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sample_id\nc\n")
    (tmp_path / "b.csv").write_text("sample_id\nc\nd\n")
    kept, found = without_excluded(samples, [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    assert [len(each) for each in kept.values()] == [2, 1]
    assert [each["images"] for each in found.values()] == [2, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id\na\n", r"no column 'sample_id' \(there are 'id'\)"),
        ("dataset,sample_id\nthree,a\n", r"none of its 1 ids is in one, two: it is for three"),
        ("sample_id\nx\ny\n", r"none of its 2 ids is in one, two: its first id is 'x'"),
        ("", "not a readable CSV file"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    content: str | None, message: str, samples: dict[str, Samples], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "x.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        without_excluded(samples, [str(tmp_path / "x.csv")])


def test_an_empty_list_excludes_nothing(samples: dict[str, Samples], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("dataset,sample_id,reason\n")
    assert [len(each) for each in without_excluded(samples, [str(tmp_path / "x.csv")])[0].values()] == [3, 3]

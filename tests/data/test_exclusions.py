from pathlib import Path

import pandas as pd
import pytest

from agebench.data.exclusions import drop_excluded
from agebench.data.samples import Samples, validate_samples
from agebench.errors import UserError
from agebench.utils.io import write_csv


@pytest.fixture
def samples() -> dict[str, Samples]:
    table = {name: pd.DataFrame({"sample_id": list(ids), "path": list(ids), "age": 30.0}) for name, ids in
             (("one", "abc"), ("two", "cde"))}  # fmt: skip
    return {name: validate_samples(each) for name, each in table.items()}


def test_ids_are_put_aside_with_the_file_s_name(samples: dict[str, Samples], tmp_path: Path) -> None:
    file = tmp_path / "bad-2.csv"
    file.write_text("dataset,sample_id,reason\none,a,\none,c,\nelsewhere,b,\n")
    kept, found = drop_excluded(samples, [str(file)])
    assert kept["one"].table["sample_id"].tolist() == ["b"]
    assert len(kept["two"]) == 3
    assert set(kept["one"].rejected["reason"]) == {"excluded by bad-2.csv"}
    assert found["bad-2.csv"]["images"] == 2


def test_without_a_dataset_an_id_counts_wherever_it_is(samples: dict[str, Samples], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sample_id\nc\n")
    (tmp_path / "b.csv").write_text("sample_id\nc\nd\n")
    kept, found = drop_excluded(samples, [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    assert [len(each) for each in kept.values()] == [2, 1]
    assert [each["images"] for each in found.values()] == [2, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id\na\n", r"no column 'sample_id' \(there are 'id'\)"),
        ("dataset,sample_id\nthree,a\n", r"none of its 1 ids is for one, two: it is for three"),
        ("sample_id\nx\ny\n", r"one, two lacks 2 of its 2 ids, for example 'x'"),
        ("sample_id\na\ny\n", r"one, two lacks 1 of its 2 ids, for example 'y'"),
        (
            "dataset,sample_id\none,a\none,x\none,e\ntwo,y\n",
            r"one lacks 2 of its 3 ids, for example 'x'; two lacks 1 of its 1 ids, for example 'y'",
        ),
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
        drop_excluded(samples, [str(tmp_path / "x.csv")])


def test_an_empty_list_excludes_nothing(samples: dict[str, Samples], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("dataset,sample_id,reason\n")
    assert [len(each) for each in drop_excluded(samples, [str(tmp_path / "x.csv")])[0].values()] == [3, 3]


def test_exclude_refuses_two_lists_of_one_name(samples: dict[str, Samples], tmp_path: Path) -> None:
    files = [tmp_path / folder / "bad.csv" for folder in ("first", "second")]
    for file, name in zip(files, "ab", strict=True):
        file.parent.mkdir()
        file.write_text(f"sample_id\n{name}\n")
    with pytest.raises(UserError, match=r"another list has the name bad\.csv too"):
        drop_excluded(samples, [str(file) for file in files])


def test_exclude_of_a_part_of_a_run_passes_over_ids(samples: dict[str, Samples], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("sample_id\na\ne\n")
    kept, found = drop_excluded({"one": samples["one"]}, [str(tmp_path / "x.csv")], complete=False)
    assert (len(kept["one"]), found["x.csv"]["images"]) == (2, 1)


def test_exclude_reads_ids_that_were_made_safe(tmp_path: Path) -> None:
    table = pd.DataFrame({"sample_id": ["=1+1.jpg", "-b.jpg", "'c.jpg"], "path": "x", "age": 30.0})
    write_csv(tmp_path / "x.csv", table[["sample_id"]])
    assert "\n'=1+1.jpg\n'-b.jpg\n'c.jpg\n" in (tmp_path / "x.csv").read_text()
    kept, _ = drop_excluded({"one": validate_samples(table)}, [str(tmp_path / "x.csv")])
    assert len(kept["one"]) == 0

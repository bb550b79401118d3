"""CSV files for people: nothing in them is evaluated by a spreadsheet, and nothing is lost."""

from pathlib import Path

import pandas as pd
import pytest

import agebench
from agebench.inference.writers import open_writer
from agebench.utils.io import csv_cell, csv_origin, csv_text


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1+1", "-x", "@SUM(A1)", "\tx", "\r=x", "\n=x", "＝x", "'=x", "-"])
def test_csv_cell_takes_no_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert csv_origin(csv_cell(text)) == text


@pytest.mark.parametrize("value", [-1.5, 3, None, "-1.5", "+2", "-1e-5", "-.5", "x=1", "", "'x", "4.52 [4.40, 4.63]"])
def test_csv_cell_leaves_numbers_and_text(value: object) -> None:
    assert csv_cell(value) is value
    if isinstance(value, str):
        assert csv_origin(csv_cell(value)) == value


def test_csv_text_covers_cells_headers_and_index() -> None:
    table = pd.DataFrame(
        {
            "=a": pd.Categorical(["=x", "fine"]),
            "n": [-1.5, 2.0],
            "given": pd.array(["+y", None], dtype="str"),
            "mixed": [None, "@z"],
        },
        index=pd.Index(["-left", "right"], name="=side"),
    )
    assert csv_text(table, index=True).splitlines() == [
        "'=side,'=a,n,given,mixed",
        "'-left,'=x,-1.5,'+y,",
        "right,fine,2.0,,'@z",
    ]


def test_predict_writes_no_formula(tmp_path: Path) -> None:
    row = {"input": "=cmd|'/C calc'!A0.jpg", "face": 0, "age": -1.5, "error": "-"}
    with open_writer(tmp_path / "ages.csv", list(row), {}) as write:
        write([row])
    assert (tmp_path / "ages.csv").read_text() == "input,face,age,error\n'=cmd|'/C calc'!A0.jpg,0,-1.5,'-\n"


def test_every_csv_for_people_goes_through_one_function() -> None:
    """Digests and the file that a model's command reads are no CSV for people."""
    machine = {
        *("data/samples.py", "leaderboard/records.py", "estimators/external/command.py", "inference/writers.py"),
        "utils/io.py",
    }
    package = Path(agebench.__file__).parent
    writers = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if any(call in file.read_text() for call in (".to_csv(", "csv.writer(", "csv.DictWriter("))
    }
    assert writers <= machine

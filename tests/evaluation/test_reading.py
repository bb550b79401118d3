import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agebench.errors import UserError
from agebench.evaluation.reading import column_map, read_predictions, read_table


@pytest.fixture
def files(tmp_path):
    """Writes predictions.csv and labels.csv; returns their paths."""

    def write(predictions: str, labels: str | None = None):
        paths = [tmp_path / "predictions.csv", tmp_path / "labels.csv"]
        paths[0].write_text(predictions, encoding="utf-8")
        if labels is None:
            return paths[0], None
        paths[1].write_text(labels, encoding="utf-8")
        return paths[0], paths[1]

    return write


LABELS = "sample_id,age,gender,subject\n001,20,female,07\n002,30,male,08\n003,40,,\n"


def test_labels_and_predictions_join_on_the_id(files):
    joined = read_predictions(*files("sample_id,age_pred\n003,41\n001,22.5\n002,30\n", LABELS))
    assert joined.table["sample_id"].tolist() == ["001", "002", "003"]
    assert joined.table["age_pred"].tolist() == [22.5, 30, 41]
    assert joined.table["subject"].tolist()[:2] == ["07", "08"]
    assert joined.table["gender"].isna().tolist() == [False, False, True]


def test_columns_are_mapped_by_name(files):
    paths = files("image;guess\n001;22\n002;30\n003;41\n", LABELS.replace("sample_id", "image"))
    joined = read_predictions(*paths, columns=column_map(["sample_id=image", "age_pred=guess"]))
    assert joined.table["sample_id"].tolist() == ["001", "002", "003"]


def test_parquet_and_gzip_hold_the_same(tmp_path):
    table = pd.DataFrame(
        {"sample_id": ["a", "b"], "age": [20, 30], "age_pred": [21.0, 29.5], "p": [[0.5, 0.5], [0.1, 0.9]]}
    )
    table.to_parquet(tmp_path / "t.parquet")
    with gzip.open(tmp_path / "t.csv.gz", "wt") as handle:
        table.drop(columns="p").to_csv(handle, index=False)
    one, two = read_predictions(tmp_path / "t.parquet").table, read_predictions(tmp_path / "t.csv.gz").table
    assert one["age_pred"].tolist() == two["age_pred"].tolist() == [21.0, 29.5]
    assert one["p"].iloc[1].tolist() == [0.1, 0.9]


@pytest.mark.parametrize(
    ("predictions", "fault", "message"),
    [
        ("sample_id,age_pred\n001,22\n002,30\n", "missing", "1 of the 3 labelled images have no prediction"),
        ("sample_id,age_pred\n001,1\n002,2\n003,3\n004,4\n", "extra", "1 of the 4 predictions have no label"),
        ("sample_id,age_pred\n001,1\n002,2\n003,3\n001,4\n", "duplicates", "1 rows repeat an id, the first is '001'"),
    ],
)
def test_ids_that_do_not_match_are_counted_and_refused_unless_allowed(files, predictions, fault, message):
    paths = files(predictions, LABELS)
    with pytest.raises(UserError, match=message) as caught:
        read_predictions(*paths)
    assert f"--allow {fault}" in str(caught.value)
    assert getattr(read_predictions(*paths, allow=[fault]), fault) == 1


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ("sample_id,age,age_pred\na,20,nan\nb,30,30\n", "age_pred of 'a' is nan, not a finite number"),
        ("sample_id,age,age_pred\na,20,inf\nb,30,30\n", "age_pred of 'a' is inf"),
        ("sample_id,age,age_pred\na,twenty,20\nb,30,30\n", "age of 'a' is 'twenty'"),
        ("sample_id,age,age_pred\na,200,20\nb,30,30\n", r"age of 'a' is .*200.*, outside \[0, 120\]"),
        ("sample_id,age,age_pred,age_std\na,20,20,-1\nb,30,30,2\n", "age_std of 'a' is .*, below 0"),
        ("sample_id,age,age_pred,age_low,age_high\na,20,20,30,25\nb,30,30,,\n", "age_low of 'a' is .*, above age_high"),
        ("sample_id,age\na,20\n", "no column age_pred.*--col age_pred=COLUMN"),
        ("sample_id,age_pred\na,20\n", "no column age.*--labels"),
        ("sample_id,age,age_pred\n", "no rows"),
        ("sample_id,age,age_pred\n,20,20\n", "row 1 has no sample_id"),
        ("sample_id,age,age,age_pred\na,2,2,2\n", "'age' stands twice"),
        ("sample_id,age,age_pred\na,20\n", "not a readable CSV"),
        ("", "not a readable CSV"),
    ],
)
def test_bad_input_has_its_one_clear_error(files, predictions, message):
    with pytest.raises(UserError, match=message) as caught:
        read_predictions(*files(predictions))
    assert "predictions.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_common_ids_shows_one_of_each(files):
    with pytest.raises(UserError, match=r"no sample_id in common: 'x/001' there, '001' here"):
        read_predictions(*files("sample_id,age_pred\nx/001,20\n", LABELS))


def test_a_mapped_column_that_is_not_there_is_refused(files):
    with pytest.raises(UserError, match=r"--col age_pred=gues: no column 'gues'.*did you mean 'guess'"):
        read_predictions(*files("sample_id,guess\n001,2\n", LABELS), columns={"age_pred": "gues"})
    with pytest.raises(UserError, match="NAME=COLUMN"):
        column_map(["estimate"])


def test_a_missing_file_and_a_file_that_is_no_table(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_predictions(tmp_path / "x.parquet")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_give_a_table_or_one_error(tmp_path, content):
    path = tmp_path / "any.csv"
    path.write_bytes(b"sample_id,age,age_pred\n" + content)
    try:
        table = read_predictions(path).table
    except UserError:
        return  # Refused in words: nothing else may be raised.
    assert np.isfinite(table[["age", "age_pred"]].to_numpy()).all()


def test_types_that_change_far_down_a_file_are_found(tmp_path):
    path = tmp_path / "long.csv"
    rows = [f"image-{row:07d},{row % 90},{row % 90},a" for row in range(80_000)]
    path.write_text("\n".join(["sample_id,age,age_pred,tone", *rows, "last,30.5,31.25,b"]) + "\n")
    last = read_table(path).iloc[-1]
    assert (last["age"], last["age_pred"], last["tone"]) == (30.5, 31.25, "b")

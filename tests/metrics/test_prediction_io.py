import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agebench.errors import UserError
from agebench.metrics.prediction_io import column_map, read_predictions, read_table
from agebench.metrics.scoring import ScoreOptions, score_predictions


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
        ("sample_id,age,age,age_pred\na,2,2,2\n", "'age' occurs twice"),
        ("sample_id,age,age_pred\na,20\n", "not a readable CSV"),
        ("", "not a readable CSV"),
    ],
)
def test_bad_input_has_its_one_clear_error(files, predictions, message):
    with pytest.raises(UserError, match=message) as caught:
        read_predictions(*files(predictions))
    assert "predictions.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("allow", [[], ["missing"]])
@pytest.mark.parametrize("word", ["twenty", "True", "0x15", "2_1", "inf"])
@pytest.mark.parametrize("column", ["age_pred", "age", "age_std"])
def test_text_for_a_number_is_to_be_corrected(files, column, word, allow):
    rows = [{"sample_id": name, "age": "20.5", "age_pred": "21.5", "age_std": "2.5"} for name in "abc"]
    rows[1]["age_pred"] = "" if column == "age_pred" else "21.5"  # An empty estimate could be left out.
    rows[2][column] = word
    paths = files(pd.DataFrame(rows).to_csv(index=False))
    fault = rf"predictions\.csv: {column} of 'c' is '?{word}'?, not a finite number; correct this cell$"
    with pytest.raises(UserError, match=fault):
        read_predictions(*paths, allow=allow)


def test_an_empty_estimate_may_be_allowed_and_an_empty_column_may_not(files):
    with pytest.raises(UserError, match=r"age_pred of 'b' is nan, .*`--allow missing` counts"):
        read_predictions(*files("sample_id,age,age_pred\na,20,21\nb,30,\n"))
    with pytest.raises(UserError, match=r"age of 'b' is nan, .*fill in this cell or leave out the row$"):
        read_predictions(*files("sample_id,age,age_pred\na,20,21\nb,,31\n"))
    paths = files("sample_id,age,age_pred\na,20,\nb,30,\n")
    for allow in ([], ["missing"]):
        with pytest.raises(UserError, match=r"age_pred of 'a' is .*no row has one: name another column") as caught:
            read_predictions(*paths, allow=allow)
        assert "--allow missing" not in str(caught.value)


@pytest.mark.parametrize("values", ["True True True", "True False True", "false true ", "True  "])
@pytest.mark.parametrize("column", ["age", "age_pred", "age_std", "age_low", "label_std"])
def test_truth_values_are_no_numbers(files, tmp_path, column, values):
    table = pd.DataFrame({"sample_id": ["a", "b", "c"], "age": 20, "age_pred": 21, "age_std": 2})
    table = table.assign(age_low=20, age_high=30, label_std=1).assign(**{column: values.split(" ")})
    path = files(table.to_csv(index=False))[0]
    truth = [{"true": True, "false": False}.get(value.lower()) for value in values.split(" ")]
    table.assign(**{column: truth}).to_parquet(tmp_path / "t.parquet")
    for file in (path, tmp_path / "t.parquet"):
        with pytest.raises(UserError, match=rf"{column} of 'a' is '?({truth[0]}|{values[:5].strip()})'?, not a finite"):
            read_predictions(file, allow=["missing"])


def test_no_common_ids_shows_one_of_each(files):
    with pytest.raises(UserError, match=r"no sample_id in common: 'x/001' there, '001' here"):
        read_predictions(*files("sample_id,age_pred\nx/001,20\n", LABELS))


def test_a_mapped_column_that_is_not_there_is_refused(files):
    with pytest.raises(UserError, match=r"--col age_pred=gues: no column 'gues'.*did you mean 'guess'"):
        read_predictions(*files("sample_id,guess\n001,2\n", LABELS), columns={"age_pred": "gues"})
    with pytest.raises(UserError, match="NAME=COLUMN"):
        column_map(["estimate"])


@pytest.mark.parametrize(
    ("pair", "labelled", "files_named"),
    [
        ("age_pred=zz", False, "predictions"),
        ("gender=zz", False, "predictions"),
        ("age_pred=zz", True, "predictions"),
        ("age_pred=years", True, "predictions"),
        ("age=zz", True, "labels"),
        ("age=guess", True, "labels"),
        ("gender=zz", True, "predictions or labels"),
        ("sample_id=zz", True, "predictions or labels"),
    ],
)
def test_a_named_column_is_not_replaced_by_one_of_our_name(files, pair, labelled, files_named):
    own = files(
        "sample_id,age,age_pred,gender,guess\na,20,21,f,1\nb,30,29,m,1\n",
        "sample_id,age,gender,years\na,20,f,1\nb,30,m,1\n" if labelled else None,
    )
    named = " or ".join(rf"[^ ]*{name}\.csv" for name in files_named.split(" or "))
    with pytest.raises(UserError, match=rf"--col {pair}: no column '\w+' in {named}; (did you mean|there are)"):
        read_predictions(*own, columns=column_map([pair]))


def test_a_named_column_is_read_instead_of_one_of_our_name(files):
    own = files("sample_id,other,age,age_pred\na,25,20,21\nb,35,30,29\n")
    table = read_predictions(*own, columns={"age_pred": "other"}).table
    assert table.to_dict("list") == {"sample_id": ["a", "b"], "age_pred": [25, 35], "age": [20, 30]}
    with pytest.raises(UserError, match=r"no column age; there are: sample_id, other, age_pred"):
        read_predictions(*own, columns={"age_pred": "age"})
    swapped = read_predictions(*own, columns={"age_pred": "age", "age": "age_pred"}).table
    assert (swapped["age_pred"].tolist(), swapped["age"].tolist()) == ([20, 30], [21, 29])
    both = read_predictions(*own, columns={"age_pred": "age", "age": "age"}).table
    assert both["age_pred"].tolist() == both["age"].tolist() == [20, 30]
    twice = files("sample_id,age_pred,age,age_pred,other,other\na,1,20,2,21,22\n")
    with pytest.raises(UserError, match=r"'age_pred' occurs twice; name another with --col age_pred=COLUMN"):
        read_predictions(*twice)
    with pytest.raises(UserError, match=r"'other' occurs twice; name another with --col age_pred=COLUMN"):
        read_predictions(*twice, columns={"age_pred": "other"})
    with pytest.raises(UserError, match=r"--col age_pred=b: 'age_pred' is already read from 'a'"):
        column_map(["age_pred=a", "age_pred=b"])


def test_a_named_column_wins_over_our_name_in_the_other_file(files):
    own = files("sample_id,age,age_pred,sex\na,21,1,m\nb,29,1,f\n", "sample_id,age,gender\na,20,f\nb,30,m\n")
    table = read_predictions(*own, columns=column_map(["age_pred=age", "gender=sex"])).table
    assert (table["age"].tolist(), table["age_pred"].tolist()) == ([20, 30], [21, 29])
    assert table["gender"].tolist() == ["m", "f"]


def test_ids_of_other_names_in_the_two_files_are_text_in_both(files):
    own = files("file,age_pred\n007,21\n008,29\n", "sample_id,age\n007,20\n008,30\n")
    assert read_predictions(*own, columns={"sample_id": "file"}).table["sample_id"].tolist() == ["007", "008"]


def test_one_file_with_a_named_column_is_enough(files, tmp_path):
    path, _ = files("sample_id,age,age_pred\na,20,21\nb,30,29\n")
    other = tmp_path / "other.csv"
    other.write_text("sample_id,age,estimate\na,20,22\n")
    columns = {"age_pred": "estimate"}
    assert read_predictions(path, columns=columns, others=[(other, None)]).table["age_pred"].tolist() == [21, 29]
    pd.read_csv(other).to_parquet(tmp_path / "other.parquet")
    joined = read_predictions(path, columns=columns, others=[(path, None), (tmp_path / "other.parquet", None)])
    assert joined.table["age_pred"].tolist() == [21, 29]
    named = r"predictions\.csv or [^ ]*other\.csv; did you mean 'estimate'"
    with pytest.raises(UserError, match=rf"--col age_pred=estimat: no column 'estimat' in [^ ]*{named}"):
        read_predictions(path, columns={"age_pred": "estimat"}, others=[(other, None)])
    with pytest.raises(UserError, match=r"predictions\.csv; there are: sample_id, age, age_pred"):
        read_predictions(path, columns={"age_pred": "zz"}, others=[(path, None)])
    with pytest.raises(UserError, match=r"no column 'estimate' in [^ ]*predictions\.csv;"):
        read_predictions(path, columns=columns, others=[(path, other)])  # Labels have no estimates.


def test_a_missing_file_and_a_file_that_is_no_table(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_predictions(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r": a folder; give a table in it, of a run folder one of its predictions/"):
        read_predictions(tmp_path)
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


def test_a_pipe_is_refused_and_not_read(tmp_path):
    end, start = os.pipe()
    try:
        os.write(start, b"sample_id,age,age_pred\na,20,21\n")
        for path in (Path(f"/dev/fd/{end}"), Path(os.devnull)):
            with pytest.raises(UserError, match=rf"^{path}: not a regular file.*write its content to a file"):
                read_predictions(path)
    finally:
        os.close(start)
        os.close(end)


def test_types_that_change_far_down_a_file_are_found(tmp_path):
    path = tmp_path / "long.csv"
    rows = [f"image-{row:07d},{row % 90},{row % 90},a" for row in range(80_000)]
    path.write_text("\n".join(["sample_id,age,age_pred,tone", *rows, "last,30.5,31.25,b"]) + "\n")
    last = read_table(path).iloc[-1]
    assert (last["age"], last["age_pred"], last["tone"]) == (30.5, 31.25, "b")


# Files that were read wrongly without a word


def test_words_for_unknown_are_no_groups(files):
    rows = ["a,20,21,nan,NA,nan", "b,30,31,male,EU,NA", "c,40,41,NaN,AS,8", "d,50,51,female,NA,None", "e,60,61,NA,,9"]
    table = read_predictions(*files("sample_id,age,age_pred,gender,region,subject\n" + "\n".join(rows) + "\n")).table
    known = {column: [None if pd.isna(value) else value for value in table[column]] for column in table}
    assert known["gender"] == [None, "male", None, "female", None]
    assert known["region"] == ["NA", "EU", "AS", "NA", None]
    assert known["subject"] == [None, None, "8", None, "9"]


def test_parquet_has_the_same_words_for_unknown(tmp_path):
    table = pd.DataFrame({"sample_id": ["a", "b"], "age": [20, 30], "age_pred": [21.0, 29.5], "tone": ["nan", "II"]})
    table.assign(more=pd.Categorical(["None", "x"])).to_parquet(tmp_path / "T.PARQUET")
    read = read_predictions(tmp_path / "T.PARQUET").table
    assert read["tone"].isna().tolist() == read["more"].isna().tolist() == [True, False]


@pytest.mark.parametrize("word", ["nan", "NA", "null", ""])
def test_an_id_that_is_unknown_is_named(files, word):
    with pytest.raises(UserError, match="row 2 has no sample_id"):
        read_predictions(*files(f"sample_id,age,age_pred\na,20,21\n{word},30,31\n"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text",
    [
        "sample_id,age,age_pred,city\na,20,21,Bern\nb,30,31,Zürich\n",
        "sample_id,age,age_pred,Größe\na,20,21,Bern\nb,30,31,Bern\n",
        "sample_id,age,age_pred\na,20,21\nZürich,30,31\n",
    ],
)
def test_other_encodings_are_refused(tmp_path, text, encoding):
    path = tmp_path / "p.csv"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match=r"p\.csv: not UTF-8 text.*save it as UTF-8") as caught:
        read_predictions(path)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_far_down_is_found(tmp_path):
    path = tmp_path / "p.csv"
    rows = "".join(f"i{row},30,31,Bern\n" for row in range(200_000))
    path.write_bytes(b"sample_id,age,age_pred,city\n" + rows.encode() + "last,30,31,Zürich\n".encode("latin-1"))
    with pytest.raises(UserError, match="in line 200002"):
        read_predictions(path)


def test_decimal_commas_are_read(files):
    table = read_predictions(*files("sample_id;age;age_pred;age_std\na;20;21,5;1,5\nb;30,5;31;2\n")).table
    assert table["age"].tolist() == [20, 30.5]
    assert table["age_pred"].tolist() == [21.5, 31]
    assert table["age_std"].tolist() == [1.5, 2]


def test_a_renamed_prediction_leaves_the_labels_their_age(files):
    paths = files("file,age\na,21\nb,29\n", "file,age,gender\na,20,f\nb,30,m\n")
    table = read_predictions(*paths, columns=column_map(["sample_id=file", "age_pred=age"])).table
    assert table["age"].tolist() == [20, 30]
    assert table["age_pred"].tolist() == [21, 29]
    paths = files("sample_id,years,age_pred\na,1,21\nb,2,29\n", "sample_id,years\na,20\nb,30\n")
    assert read_predictions(*paths, columns={"age": "years"}).table["age"].tolist() == [20, 30]


@pytest.mark.parametrize("column", ["age_pred", "est"])
def test_estimates_are_those_of_the_predictions_not_of_the_labels(files, column):
    labels = "sample_id,age,age_pred,age_std,p\na,20,20,1,x\nb,30,30,1,x\nc,40,40,1,x\n"
    paths = files(f"sample_id,{column}\na,50\nb,60\n", labels)
    joined = read_predictions(*paths, columns={"age_pred": column}, allow=["missing"])
    assert joined.table.to_dict("list") == {"sample_id": ["a", "b"], "age": [20, 30], "age_pred": [50, 60]}
    assert joined.unanswered.to_dict("list") == {"sample_id": ["c"], "age": [40]}
    with pytest.raises(UserError, match=r"predictions\.csv: no column age_pred; there are: sample_id, guess"):
        read_predictions(*files("sample_id,guess\na,50\n", labels))


PREDICTED = "input,face,x0,y0,x1,y1,age,age_std,low,high,error\n"


def test_what_predict_writes_is_a_file_of_predictions(files):
    rows = "in/a.jpg,0,1,2,3,4,21,2,15,27,\nin/b.jpg,0,1,2,3,4,29,2,23,35,\nin/c.jpg,,,,,,,,,,no face found\n"
    paths = files(PREDICTED + rows, "sample_id,age,gender\na,20,f\nb,30,m\nc,40,m\n")
    columns = {"sample_id": "input", "age_pred": "age"}
    with pytest.raises(UserError, match=r"no sample_id in common.*--match stem joins 3 of 3 labels"):
        read_predictions(*paths, columns=columns)
    joined = read_predictions(*paths, columns=columns, match="stem", allow=["missing"])
    assert joined.missing == 1
    assert sorted(joined.table) == ["age", "age_pred", "age_std", "gender", "sample_id"]
    assert joined.table["age"].tolist() == [20, 30]
    paths[0].write_text(PREDICTED + "a.jpg,0,,,,,21,,0,80,\nb.jpg,0,,,,,29,,0,80,\nc.jpg,0,,,,,39,,0,80,\n")
    joined = read_predictions(*paths, columns=columns, match="stem")
    assert sorted(joined.table) == ["age", "age_pred", "gender", "sample_id"]


def test_ids_are_matched_by_name_and_by_stem(files):
    paths = files("sample_id,age_pred\nfaces/a.b.jpg,21\nfaces\\c.jpg,29\n", "sample_id,age\nc.png,30\na.b.png,20\n")
    with pytest.raises(UserError, match=r"\. --match stem joins 2 of 2 labels, by the file's stem"):
        read_predictions(*paths, match="name")
    assert read_predictions(*paths, match="stem").table["age_pred"].tolist() == [29, 21]
    paths = files("sample_id,age_pred\nx/a.jpg,21\ny/a.jpg,29\n", "sample_id,age\na.jpg,30\n")
    with pytest.raises(UserError, match=r"'x/a\.jpg' and 'y/a\.jpg' have the same name"):
        read_predictions(*paths, match="name")
    with pytest.raises(UserError, match=r"--match stem joins predictions to labels.*give --labels FILE, or leave out"):
        read_predictions(files("sample_id,age,age_pred\na.jpg,20,21\n")[0], match="stem")
    with pytest.raises(UserError, match=r"--col sample_id=COLUMN"):
        read_predictions(*files("sample_id,age_pred\n1,21\n", "sample_id,age\n2,30\n"))


def test_an_unanswered_image_without_an_age_is_counted_in_no_age_band(files):
    joined = read_predictions(*files("sample_id,age,age_pred\na,20,22\nb,30,\nz,,\nc,31,30\n"), allow={"missing"})
    failures = score_predictions("t", [joined], ScoreOptions(resamples=0)).tests["t"].failure_to_process
    assert (failures.n, failures.failed) == (4, 2)
    assert {name: (band.n, band.failed) for name, band in failures.groups["age_band"].items()} == {
        "18-24": (1, 0),
        "25-34": (2, 1),
    }


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_repeated_id_counts_once_and_as_answered(files, order):
    rows = ["a,20,22", "a,20,"]
    text = "sample_id,age,age_pred\n" + "\n".join([*(rows[place] for place in order), "b,30,", "b,30,", "c,9,8"]) + "\n"
    with pytest.raises(UserError, match="2 rows repeat an id"):
        read_predictions(*files(text), allow={"missing"})
    joined = read_predictions(*files(text), allow={"missing", "duplicates"})
    assert (joined.missing, joined.duplicates) == (1, 2)
    assert joined.table["sample_id"].tolist() == ["a", "c"]
    assert joined.unanswered["sample_id"].tolist() == ["b"]

"""Sources that were read wrongly without a word: each is read as it is meant, or rejected by name."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from agebench.config.cards.dataset import DatasetCard
from agebench.config.cards.protocol import Protocol
from agebench.data.digests import add_digests, leakage_groups
from agebench.data.readers import open_reader
from agebench.data.readers.folder import FolderReader
from agebench.data.readers.table import TableReader
from agebench.data.readers.utkface import UTKFaceReader
from agebench.data.samples import Samples
from agebench.data.splits.split_files import read_split_files
from agebench.data.splits.splits import make_split
from agebench.data.storage.importer import import_dataset
from agebench.data.storage.verify import verify_dataset
from agebench.errors import RejectReason, UserError

NAMES = tuple(f"f{number}.jpg" for number in range(8))


def card(**changes: object) -> DatasetCard:
    facts = {"name": "mine", "title": "mine", "reader": "csv", "licence": "mine"}
    return DatasetCard.model_validate(facts | changes)


def pictures(root: Path, *names: str, size: tuple[int, int] = (8, 8)) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (20 * (number % 12), 90, number // 12)).save(root / name, "JPEG")
    return root


def table(root: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding=encoding)
    return root


def rejected(samples: Samples) -> list[tuple[str, str]]:
    return list(zip(samples.rejected["path"], samples.rejected["code"], strict=True))


def column(samples: Samples, name: str) -> list[object]:
    return [None if pd.isna(value) else value for value in samples.table[name].tolist()]


# Rows of one image


def test_two_ages_of_one_image_are_both_rejected(tmp_path: Path) -> None:
    root = table(pictures(tmp_path, *NAMES[:3]), "path,age\nf0.jpg,11\n./f0.jpg,99\nf1.jpg,20\nf2.jpg,30\nf2.jpg,30\n")
    samples = TableReader(root).read()
    assert column(samples, "sample_id") == ["f1.jpg", "f2.jpg"]
    assert rejected(samples) == [
        ("f0.jpg", RejectReason.CONFLICTING_LABELS),
        ("f0.jpg", RejectReason.CONFLICTING_LABELS),
        ("f2.jpg", RejectReason.DUPLICATE_ROW),
    ]
    assert "two different ages: 11 and 99" in samples.rejected["reason"][0]


def test_other_labels_of_one_image_conflict_too(tmp_path: Path) -> None:
    root = table(pictures(tmp_path, *NAMES[:2]), "path,age,gender\nf0.jpg,11,f\nf0.jpg,11,m\nf1.jpg,20,f\nf1.jpg,20,\n")
    samples = TableReader(root, ("gender",)).read()
    assert column(samples, "sample_id") == ["f1.jpg"]
    assert "two different values of gender: 'female' and 'male'" in samples.rejected["reason"][0]


def test_an_unlabelled_row_rejects_no_other_of_its_image(tmp_path: Path) -> None:
    samples = TableReader(table(pictures(tmp_path, NAMES[0]), "path,age\nf0.jpg,\nf0.jpg,30\n")).read()
    assert column(samples, "age") == [30]
    assert rejected(samples) == [("f0.jpg", RejectReason.NO_AGE)]


def test_rows_of_one_image_with_own_ids_are_samples(tmp_path: Path) -> None:
    rows = "".join(f"r{rater}-{name},{name},{20 + rater}\n" for name in NAMES for rater in (1, 2))
    reader = TableReader(table(pictures(tmp_path, *NAMES), "sample_id,path,age\n" + rows))
    samples = add_digests(reader, reader.read(), name="raters", workers=1)
    assert len(samples) == 2 * len(NAMES)
    for seed in range(5):
        parts = make_split(samples, test=0.25, val=0.25, seed=seed)
        files = [set(part.table["path"]) for part in (parts.train, parts.val, parts.test)]
        assert sum(map(len, files)) == len(NAMES)


def test_lists_name_all_rows_of_an_image(tmp_path: Path) -> None:
    rows = "".join(f"r{rater}-{name},in/{name},{20 + rater}\n" for name in NAMES for rater in (1, 2))
    root = table(pictures(tmp_path, *(f"in/{name}" for name in NAMES)), "sample_id,path,age\n" + rows)
    table(root, "\n".join(NAMES[:5]), name="train.txt")
    table(root, "\n".join(f"in/{name}" for name in NAMES[5:]), name="test.txt")
    lists = {"split": {"train": "train.txt", "test": "test.txt"}}
    samples = TableReader(root, lists=lists).read()
    assert column(samples, "split") == ["train"] * 10 + ["test"] * 6
    protocol = Protocol(name="own", kind="lists", files={"train": "train.txt", "test": "test.txt"})
    parts = read_split_files(protocol, TableReader(root).read(), "x", root)
    assert parts.tolist() == [0] * 10 + [2] * 6


def test_own_ids_must_be_there_and_differ(tmp_path: Path) -> None:
    root = pictures(tmp_path, *NAMES[:3])
    with pytest.raises(UserError, match="row 2 has no sample_id"):
        TableReader(table(root, "sample_id,path,age\na,f0.jpg,20\n,f1.jpg,30\n")).read()
    samples = TableReader(table(root, "sample_id,path,age\na,f0.jpg,20\na,f1.jpg,30\nb,f2.jpg,9\nb,f2.jpg,8\n")).read()
    assert column(samples, "path") == ["f0.jpg"]
    assert [code for _, code in rejected(samples)] == ["conflicting-labels", "conflicting-labels", "duplicate-id"]


def test_parts_of_one_photograph_stay_on_one_side(tmp_path: Path) -> None:
    rows = "f0.jpg,20,0,0,4,4\nf0.jpg,30,4,4,8,8\nf1.jpg,40,0,0,4,4\n"
    root = table(pictures(tmp_path, *NAMES[:2], size=(9, 8)), "path,age,l,t,r,b\n" + rows)
    reader = TableReader(root, box=["l", "t", "r", "b"], margin=0)
    # One color: the pixels of all parts of a photograph would be alike, so they are told apart here.
    digests = {"bytes_digest": ["a", "b", "c"], "pixels_digest": ["a", "b", "c"]}
    groups = leakage_groups(reader.read().table.assign(**digests))
    assert groups[0] == groups[1] != groups[2]


# Words, numbers and encodings


def test_words_for_unknown_are_no_groups_and_no_person(tmp_path: Path) -> None:
    rows = ["f0.jpg,20,nan,nan,NA", "f1.jpg,30,NaN,None,EU", "f2.jpg,40,dark,7,nan", "f3.jpg,50,light,NA,AS"]
    root = table(pictures(tmp_path, *NAMES[:4]), "path,age,race,subject,region\n" + "\n".join(rows) + "\n")
    samples = TableReader(root, ("race", "region")).read()
    assert column(samples, "race") == [None, None, "dark", "light"]
    assert column(samples, "subject") == [None, None, "7", None]
    assert column(samples, "region") == ["NA", "EU", None, "AS"]


def test_a_word_for_unknown_that_the_card_explains_is_its_value(tmp_path: Path) -> None:
    root = table(pictures(tmp_path, *NAMES[:2]), "path,age,race\nf0.jpg,20,None\nf1.jpg,20,nan\n")
    samples = TableReader(root, ("race",), values={"race": {"None": "no answer"}}).read()
    assert column(samples, "race") == ["no answer", None]


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    root = table(pictures(tmp_path, *NAMES[:2]), "path;age;age_low;age_high\nf0.jpg;57,5;57;58\nf1.jpg;20;19,5;20,5\n")
    samples = TableReader(root, separator=";").read()
    assert column(samples, "age") == [57.5, 20]
    assert column(samples, "age_low") == [57, 19.5]


def test_another_separator_is_named(tmp_path: Path) -> None:
    root = table(pictures(tmp_path, NAMES[0]), "path;age\nf0.jpg;20\n")
    with pytest.raises(UserError, match=r"separated by ';': options\.separator = \";\" on the card"):
        TableReader(root).read()


def test_names_of_columns_are_stripped(tmp_path: Path) -> None:
    samples = TableReader(
        table(pictures(tmp_path, NAMES[0]), "path, age ,gender \nf0.jpg ,20 ,male \n"), ("gender",)
    ).read()
    assert (column(samples, "age"), column(samples, "gender")) == ([20], ["male"])


def test_a_column_that_stands_twice_is_refused_if_used(tmp_path: Path) -> None:
    root = table(pictures(tmp_path, NAMES[0]), "path,age,note,note,age \nf0.jpg,20,a,b,30\n")
    with pytest.raises(UserError, match="two columns are called 'age'"):
        TableReader(root).read()
    assert column(TableReader(root, columns={"age": "age.1"}).read(), "age") == [30]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    root = table(pictures(tmp_path, NAMES[0]), "path,age,city\nf0.jpg,20,Bern\nf0.jpg,20,Zürich\n", encoding=encoding)
    with pytest.raises(UserError, match=r"labels\.csv: not UTF-8 text.*save it as UTF-8"):
        TableReader(root).read()
    table(root, "path,age\nf0.jpg,20\n")
    table(root, "Zürich.jpg\nf0.jpg\n", name="train.txt", encoding=encoding)
    with pytest.raises(UserError, match=r"train\.txt: not UTF-8 text"):
        TableReader(root, table="labels.csv", lists={"split": {"train": "train.txt"}}).read()


def test_ranges_that_a_spreadsheet_made_dates_of(tmp_path: Path) -> None:
    ages = ["9-Mar", "19-Oct", "2024-03-09", "20-29", "2019-10-01", "1.3.2024", "09.03.2024"]
    root = table(
        pictures(tmp_path, *NAMES), "path,age\n" + "".join(f"f{row}.jpg,{age}\n" for row, age in enumerate(ages))
    )
    samples = TableReader(root).read()
    assert list(zip(column(samples, "age_low"), column(samples, "age_high"), strict=True)) == [
        (3, 9),
        (10, 19),
        (3, 9),
        (20, 29),
        (3, 9),
    ]
    assert rejected(samples) == [("f4.jpg", RejectReason.BAD_AGE), ("f5.jpg", RejectReason.BAD_AGE)]
    assert "spreadsheet" in samples.rejected["reason"][0]


def test_dates_of_birth_are_no_ranges(tmp_path: Path) -> None:
    root = table(pictures(tmp_path, *NAMES[:3]), "path,age\nf0.jpg,1987-03-09\nf1.jpg,1990-02-17\nf2.jpg,33\n")
    samples = TableReader(root).read()
    assert column(samples, "age") == [33]
    assert rejected(samples) == [("f0.jpg", RejectReason.BAD_AGE), ("f1.jpg", RejectReason.BAD_AGE)]


def test_ages_with_units(tmp_path: Path) -> None:
    ages = ["25 years", "025Y", "11 months", "018M", "7 yrs old", "52 weeks", "30", "two"]
    root = table(
        pictures(tmp_path, *NAMES), "path,age\n" + "".join(f"f{row}.jpg,{age}\n" for row, age in enumerate(ages))
    )
    samples = TableReader(root).read()
    assert column(samples, "age") == pytest.approx([25, 25, 11 / 12, 1.5, 7, 52 * 7 / 365.25, 30])
    assert samples.rejected["reason"].tolist() == ["age 'two' is not a number"]


@pytest.mark.parametrize(
    "name",
    [
        "26_1_0_20170116184024662.jpg.chip.jpg.jpg",
        "26_1_0_20170116184024662.jpg.chip (1).jpg",
        "26_1_0_20170116184024662 (1).jpg",
        "26_1_0_20170116184024662 - Copy.jpg",
        "26_1_0_20170116184024662.JPG",
    ],
)
def test_utkface_names_that_a_browser_changed(tmp_path: Path, name: str) -> None:
    samples = UTKFaceReader(pictures(tmp_path, name)).read()
    assert (column(samples, "sample_id"), column(samples, "age")) == (["26_1_0_20170116184024662"], [26])


# What `data import` and `data verify` say


def test_many_rejected_rows_are_said_first(tmp_path: Path) -> None:
    rows = "".join(f"gone{number}.jpg,30\n" for number in range(40))
    root = table(pictures(tmp_path, *NAMES), "path,age\n" + "".join(f"{name},20\n" for name in NAMES) + rows)
    problem = "40 of 48 rows (83.3 %) are rejected as missing-file (no image file at the path), the first is gone0.jpg"
    assert import_dataset(card(), root).problems[0].startswith(problem)
    report = verify_dataset(card())
    assert report.problems[0].startswith(problem)
    assert report.rejected == {"missing-file": 40}
    assert verify_dataset(card(expected_rejections=["missing-file"])).problems == ()
    assert verify_dataset(card(count=len(NAMES))).problems == ()


def test_few_rejected_rows_are_good(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(60)]
    root = table(pictures(tmp_path, *names), "path,age\n" + "".join(f"{name},20\n" for name in names) + "gone.jpg,3\n")
    assert import_dataset(card(), root).problems == ()
    assert verify_dataset(card()).problems == ()


def test_another_copy_is_not_taken_for_the_one_there(tmp_path: Path) -> None:
    root = table(pictures(tmp_path, *NAMES[:2]), "path,age\nf0.jpg,11\nf1.jpg,20\n")
    import_dataset(card(), root)
    assert import_dataset(card(), root).was_present
    with pytest.raises(UserError, match=r"1 values of age changed, the first is 'f0\.jpg': 11 there, 77 in.*--replace"):
        import_dataset(card(), table(root, "path,age\nf0.jpg,77\nf1.jpg,20\n"))
    with pytest.raises(UserError, match=r"1 images more and 1 fewer, 'f2\.jpg' is new"):
        import_dataset(card(), table(pictures(root, "f2.jpg"), "path,age\nf0.jpg,11\nf2.jpg,20\n"))
    table(root, "path,age\nf0.jpg,11\nf1.jpg,20\n")
    pictures(root, "f1.jpg", size=(64, 60))
    with pytest.raises(UserError, match=r"1 images changed, the first is 'f1\.jpg'"):
        import_dataset(card(), root)
    assert not import_dataset(card(), root, replace=True).was_present
    assert import_dataset(card(), root).was_present


def test_photographs_are_not_taken_for_crops(tmp_path: Path) -> None:
    names = [f"{20 + number}_0_0_2017010914{number:02d}08075.jpg" for number in range(10)]
    wild = card(reader="utkface", faces="none")
    report = import_dataset(wild, pictures(tmp_path / "wild", *names, size=(64, 42)))
    assert "10 of 10 images looked at are not square, the first is 20_0_0_" in report.problems[0]
    assert 'faces = "detect"' in report.problems[0]
    assert verify_dataset(card(reader="utkface", faces="detect")).problems == ()
    assert import_dataset(wild, pictures(tmp_path / "crops", *names, size=(20, 18)), replace=True).problems == ()


# Options, lists and landmarks


def test_a_wrong_option_lists_the_right_ones(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no 'patern'; did you mean 'pattern'\? Its options: pattern, images, values, open_ages"
    ):
        open_reader("folder", tmp_path, (), {"patern": "{age}.jpg"}, source="card 'mine'")
    with pytest.raises(UserError, match=r"no 'xyz'\. Its options: table, columns"):
        open_reader("csv", tmp_path, (), {"xyz": 1}, source="card 'mine'")
    with pytest.raises(UserError, match=r"no 'table'\. It has none"):
        open_reader("utkface", tmp_path, (), {"table": "x"}, source="card 'mine'")


@pytest.mark.parametrize(
    ("reader", "option", "value", "message"),
    [
        ("folder", "open_ages", [90, 0], "must be the youngest and the oldest age"),
        ("csv", "open_ages", [0], "must be the youngest and the oldest age"),
        ("csv", "open_ages", 90, "must be the youngest and the oldest age"),
        ("csv", "open_ages", ["0", "90"], "must be the youngest and the oldest age"),
        ("csv", "open_ages", [0, float("inf")], "must be the youngest and the oldest age"),
        ("csv", "margin", "0.5", "must be a number from 0 to 10"),
        ("csv", "margin", float("nan"), "must be a number from 0 to 10"),
        ("huggingface", "urls", "no", "must be true or false"),
        ("huggingface", "streaming", 1, "must be true or false"),
        ("huggingface", "side", 0, "must be a number from 1 to 65535"),
    ],
)
def test_an_option_of_another_type_or_range_is_refused(
    tmp_path: Path, reader: str, option: str, value: object, message: str
) -> None:
    with pytest.raises(UserError) as raised:
        open_reader(reader, tmp_path, (), {option: value}, source="card 'mine'")
    assert str(raised.value).startswith(f"options.{option} = {value!r}: {message}")


def test_a_list_is_tied_to_a_folder(tmp_path: Path) -> None:
    root = pictures(tmp_path, "a/20_x.jpg", "a/30_y.jpg", "b/20_x.jpg", "b/30_y.jpg")
    table(root, "20_x.jpg\n30_y\n", name="train.txt")
    table(root, "20_x\n30_y.jpg,30\n", name="test.csv")
    lists = {"split": {"train": {"file": "train.txt", "images": "a"}, "test": {"file": "test.csv", "images": "b"}}}
    samples = FolderReader(root, pattern="{age}_{}.jpg", lists=lists).read()
    assert dict(zip(column(samples, "path"), column(samples, "split"), strict=True)) == {
        "a/20_x.jpg": "train",
        "a/30_y.jpg": "train",
        "b/20_x.jpg": "test",
        "b/30_y.jpg": "test",
    }
    with pytest.raises(UserError, match=r"may be a/20_x\.jpg or b/20_x\.jpg.*\{ file = \"…\", images = \"…\" \}"):
        FolderReader(root, pattern="{age}_{}.jpg", lists={"split": {"train": "train.txt"}}).read()
    with pytest.raises(UserError, match="unknown key 'folder'"):
        FolderReader(root, lists={"split": {"train": {"file": "train.txt", "folder": "a"}}})


def test_landmarks_from_cells_and_from_columns(tmp_path: Path) -> None:
    rows = ["f0.jpg,20,1 2 3 4 5 6.5", 'f1.jpg,30,"[(1,2),(3,4),(5,6)]"', "f2.jpg,40,", "f3.jpg,50,1 2 3"]
    root = table(pictures(tmp_path, *NAMES[:4]), "path,age,landmarks\n" + "\n".join(rows) + "\n")
    samples = TableReader(root).read()
    assert samples.table["landmarks"].tolist() == [[1, 2, 3, 4, 5, 6.5], [1, 2, 3, 4, 5, 6], None]
    assert rejected(samples) == [("f3.jpg", RejectReason.BAD_LANDMARKS)]
    table(root, "path,age,lx,ly,rx,ry,nx,ny\nf0.jpg,20,1,2,3,4,5,6\n")
    samples = TableReader(root, columns={"landmarks": "{lx} {ly} {rx} {ry} {nx} {ny}"}).read()
    assert samples.table["landmarks"].tolist() == [[1, 2, 3, 4, 5, 6]]
    with pytest.raises(UserError, match=r"cannot be combined with options\.box"):
        TableReader(root, columns={"landmarks": "{lx} {ly} {rx} {ry} {nx} {ny}"}, box=["lx", "ly", "nx", "ny"]).read()


def test_landmarks_from_files(tmp_path: Path) -> None:
    root = pictures(tmp_path, "i/20_a.jpg", "i/30_b.jpg", "i/40_c.jpg", "i/50_d.jpg")
    table(root / "p", "version: 1\nn_points: 3\n{\n1 2\n3 4\n5 6\n}\n", name="20_a.pts")
    table(root / "p", "1,2\n3,4\n5,6\n", name="30_b.pts")
    table(root / "p", "no points", name="40_c.pts")
    samples = FolderReader(root, pattern="{age}_{}.jpg", landmarks="p/{stem}.pts").read()
    assert samples.table["landmarks"].tolist() == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], None]
    assert rejected(samples) == [("i/40_c.jpg", RejectReason.BAD_LANDMARKS)]
    with pytest.raises(UserError, match=r"fits no file, the first would be 'q/20_a\.pts'"):
        FolderReader(root, pattern="{age}_{}.jpg", landmarks="q/{stem}.pts").read()
    with pytest.raises(UserError, match="no label 'steem'"):
        FolderReader(root, pattern="{age}_{}.jpg", landmarks="p/{steem}.pts").read()

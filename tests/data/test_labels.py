"""A new dataset is a card: ages in names, further labels in lists and tables, the official split in two lists."""

from pathlib import Path

import pandas as pd
import pytest

from agebench.data.readers.folder import FolderReader
from agebench.data.readers.table import TableReader
from agebench.data.samples import Samples
from agebench.errors import UserError

PATTERN = r"{subject:\d+}A{age:\d+}{}.jpg"
NAMES = ("img/1A20.jpg", "img/1A30b.jpg", "img/2A40.jpg", "img/3A50.jpg")


def files(root: Path, *names: str, text: str = "x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files(tmp_path, "set/train.txt", text="img/1A20.jpg\n1A30b.jpg 30\n")
    files(tmp_path, "set/test.txt", text="./img/2A40.jpg\n3A50\n")
    files(tmp_path, "set/people.csv", text="who,sex,tone\n1,0,II\n2,1,VI\n3,1,\n")
    files(tmp_path, "set/glasses.txt", text="1A20.jpg 1\n2A40.jpg -1\n")
    return files(tmp_path, *(f"set/{name}" for name in NAMES))


PEOPLE = {"file": "people.csv", "by": "subject", "columns": {"subject": "who", "gender": "sex", "tone": "tone"}}
GLASSES = {"file": "glasses.txt", "header": False, "separator": " ", "columns": {"path": 0, "glasses": 1}}
LISTS = {"split": {"train": "train.txt", "test": "test.txt"}}
VALUES = {"gender": {"0": "male", "1": "female"}, "glasses": {"1": "yes", "-1": "no"}}


def column(samples: Samples, name: str) -> list[object]:
    return [None if pd.isna(value) else value for value in samples.table[name].tolist()]


def reasons(samples: Samples) -> dict[str, str]:
    return dict(zip(samples.rejected["path"], samples.rejected["reason"], strict=True))


def test_names_tables_and_lists(root: Path) -> None:
    groups = ("gender", "tone", "glasses")
    samples = FolderReader(root, groups, pattern=PATTERN, tables=[PEOPLE, GLASSES], lists=LISTS, values=VALUES).read()
    assert column(samples, "age") == [20, 30, 40, 50]
    assert column(samples, "split") == ["train", "train", "test", "test"]
    assert column(samples, "gender") == ["male", "male", "female", "female"]
    assert column(samples, "tone") == ["II", "II", "VI", None]
    assert column(samples, "glasses") == ["yes", None, "no", None]
    assert len(samples.rejected) == 0


def test_images_in_no_list_of_the_split_and_lines_without_image_are_put_aside(root: Path) -> None:
    files(root, "set/img/4A60.jpg", "set/img/5Ab.jpg")
    files(root, "set/test.txt", text="2A40.jpg\ngone.jpg\n5Ab.jpg\n")
    samples = FolderReader(root, pattern=PATTERN, lists=LISTS).read()
    assert column(samples, "age") == [20, 30, 40]
    assert reasons(samples) == {
        "set/img/5Ab.jpg": f"its path 'set/img/5Ab.jpg' does not end like '{PATTERN}'",
        "set/img/3A50.jpg": "in none of the split's lists (train.txt, test.txt)",
        "set/img/4A60.jpg": "in none of the split's lists (train.txt, test.txt)",
        "gone.jpg": "named in 'test.txt', but there is no such image",
    }


def test_a_list_of_another_column_says_nothing_of_the_rest(root: Path) -> None:
    samples = FolderReader(root, pattern=PATTERN, lists={"fold": {"0": "train.txt"}}).read()
    assert column(samples, "fold") == ["0", "0", None, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lists": {"split": {"train": "no.txt"}}}, r"no list 'no\.txt' in it \(options\.lists\.split\)"),
        ({"lists": {"split": {"train": "people.csv"}}}, r"people\.csv: not one of its lines is an image"),
        (
            {"lists": {"split": {"train": "train.txt", "test": "all.txt"}}},
            r"is in two lists of split: train\.txt and all",
        ),
        ({"tables": [{**PEOPLE, "file": "no.csv"}]}, r"no table 'no\.csv' in it"),
        ({"tables": [{**PEOPLE, "by": "name"}]}, r"no column 'path' for path; there are who, sex, tone"),
        (
            {"tables": [{**GLASSES, "by": "path", "images": "x"}]},
            r"fits no image: by path, its first row is 'set/x/1A20\.jpg'",
        ),
        ({"tables": [{**GLASSES, "by": "row"}]}, r"by = 'row' joins 'glasses\.txt' to the rows of another table"),
        (
            {"tables": [{"fil": "x"}]},
            r"options\.tables: the key 'file' is missing; unknown key 'fil'; did you mean 'file'",
        ),
        ({"tables": [{**PEOPLE, "columns": {"subject": "sex"}}], "pattern": "{}.jpg"}, "fits no image: by subject"),
    ],
)
def test_what_is_wrong_is_named(root: Path, options: dict[str, object], message: str) -> None:
    files(root, "set/all.txt", text="1A20.jpg\n2A40.jpg\n")
    with pytest.raises(UserError, match=message):
        FolderReader(root, **{"pattern": PATTERN, **options}).read()  # type: ignore[arg-type]


def test_an_unknown_key_joins_nothing(tmp_path: Path) -> None:
    files(tmp_path, *(f"{number}.jpg" for number in range(4)))
    files(tmp_path, "main.csv", text="path,age,subject\n0.jpg,20,a\n1.jpg,30,b\n2.jpg,40,\n3.jpg,50,\n")
    files(tmp_path, "people.csv", text="subject,gender\na,f\nb,f\n,m\n")
    tables = [{"file": "people.csv", "by": "subject"}]
    samples = TableReader(tmp_path, table="main.csv", tables=tables).read()
    assert column(samples, "gender") == ["female", "female", None, None]
    files(tmp_path, "people.csv", text="subject,gender\na,f\n,m\n,f\n")  # two unknown people: no contradiction
    samples = TableReader(tmp_path, table="main.csv", tables=tables).read()
    assert column(samples, "gender") == ["female", None, None, None]
    files(tmp_path, "people.csv", text="subject,gender\n,m\n")
    with pytest.raises(UserError, match="fits no image"):
        TableReader(tmp_path, table="main.csv", tables=tables).read()


def test_two_images_that_a_line_may_mean(root: Path) -> None:
    files(root, "set/more/1A30b.jpg")
    with pytest.raises(UserError, match=r"train\.txt: '1A30b\.jpg' may be set/img/1A30b\.jpg or set/more/1A30b\.jpg"):
        FolderReader(root, pattern=PATTERN, lists=LISTS).read()
    files(root, "set/train.txt", text="img/1A20.jpg\nmore/1A30b.jpg\n")
    samples = FolderReader(root, pattern=PATTERN, lists=LISTS).read()
    assert "set/more/1A30b.jpg" in column(samples, "path")
    assert reasons(samples)["set/img/1A30b.jpg"].startswith("in none of")


def test_a_line_with_a_folder_is_no_image_of_another_folder(root: Path) -> None:
    files(root, "set/train.txt", text="img/1A20.jpg\nphotos/1A30b.jpg\nimg/3A50\n")
    files(root, "set/test.txt", text="/home/me/set/img/2A40.jpg\n")
    samples = FolderReader(root, pattern=PATTERN, lists=LISTS).read()
    assert column(samples, "split") == ["train", "test", "train"]
    assert reasons(samples) == {
        "set/img/1A30b.jpg": "in none of the split's lists (train.txt, test.txt)",
        "photos/1A30b.jpg": "named in 'train.txt', but there is no such image",
    }


@pytest.mark.parametrize("top", ["", "set/"])
@pytest.mark.parametrize(
    ("images", "written", "ages", "by"),
    [
        (["a/1.jpg", "b/1.jpg"], ["a/1.jpg"], [30, None], "name"),
        (["a/1.jpg", "b/1.jpg"], ["a/1.png"], [30, None], "stem"),
        (["a/1.jpg", "b/1.jpg"], ["b/1.jpg", "a/1.jpg"], [31, 30], "name"),
        (["x/a/1.jpg", "x/b/1.jpg"], ["a/1.jpg", "b\\1.jpg"], [30, 31], "name"),
        (["a/1.jpg", "b/1.jpg"], ["x/a/1.jpg", "./x/b/1.jpg"], [30, 31], "name"),
        (["1.jpg", "b/1.jpg"], ["1.jpg"], [30, None], "name"),
        (["1.jpg", "b/1.jpg"], ["x/b/1.jpg", "x/1.jpg"], [31, 30], "name"),
        (["b/1.jpg", "b/2.jpg"], ["a/1.jpg", "b/1.jpg", "2.jpg"], [31, 32], "name"),
        (["b/1.jpg", "b/2.jpg"], ["photos/1.jpg", "photos/2.jpg"], [30, 31], "name"),
    ],
)
def test_folders_decide_between_images_of_one_name(
    tmp_path: Path, top: str, images: list[str], written: list[str], ages: list[int | None], by: str
) -> None:
    lines = [f"{path},{30 + number}" for number, path in enumerate(written)]
    files(tmp_path, f"{top}ages.csv", text="\n".join(["path,age", *lines]) + "\n")
    files(tmp_path, *(top + image for image in images))
    samples = FolderReader(tmp_path, pattern="{}.jpg", tables=[{"file": "ages.csv", "by": by}]).read()
    found = dict(zip(samples.table["path"], samples.table["age"], strict=True))
    assert [found.get(top + image) for image in images] == ages


def test_a_bare_name_of_several_images_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg")
    files(tmp_path, "ages.csv", text="path,age\n1.jpg,30\n2.jpg,40\n")
    table = {"file": "ages.csv"}
    message = r"table 'ages\.csv': '1\.jpg' may be a/1\.jpg or b/1\.jpg\. Add the folder, .*options\.tables\.images"
    with pytest.raises(UserError, match=message):
        FolderReader(tmp_path, pattern="{}.jpg", tables=[table]).read()
    samples = FolderReader(tmp_path, pattern="{}.jpg", tables=[table | {"images": "b"}]).read()
    assert samples.table[["path", "age"]].to_numpy().tolist() == [["b/1.jpg", 30], ["b/2.jpg", 40]]


def test_a_rejected_image_takes_its_label_from_no_other(tmp_path: Path) -> None:
    files(tmp_path, "main.csv", text="path,subject\na/1.jpg,p\nb/1.jpg,q\nb/2.jpg,q\n")
    files(tmp_path, "b/1.jpg", "b/2.jpg")
    files(tmp_path, "ages.csv", text="path,age\na/1.jpg,30\n2.jpg,40\n")
    samples = TableReader(tmp_path, table="main.csv", tables=[{"file": "ages.csv"}]).read()
    assert column(samples, "path") == ["b/2.jpg"]
    assert reasons(samples) == {"a/1.jpg": "no file 'a/1.jpg'", "b/1.jpg": "its age is missing"}


def test_a_table_that_contradicts_itself(root: Path) -> None:
    files(root, "set/people.csv", text="who,sex,tone\n1,0,II\n1,0,II\n2,1,VI\n2,0,VI\n")
    samples = FolderReader(root, pattern=PATTERN, tables=[PEOPLE], values={"gender": VALUES["gender"]}).read()
    assert column(samples, "gender") == ["male", "male", None]
    assert reasons(samples) == {"set/img/2A40.jpg": "'people.csv' has rows with different labels for it"}


def test_ages_in_a_table_beside_a_pattern_without_them(tmp_path: Path) -> None:
    files(tmp_path, "ages.csv", text="path,age\na.jpg,3-9\nb.jpg,70+\n")
    files(tmp_path, "7/a.jpg", "8/b.jpg", "8/c.jpg")
    options = {"pattern": "{subject}/{}.jpg", "tables": [{"file": "ages.csv"}], "open_ages": [0, 90]}
    samples = FolderReader(tmp_path, **options).read()  # type: ignore[arg-type]
    assert column(samples, "age") == [6, 80]
    assert reasons(samples) == {"8/c.jpg": "its age is missing"}
    files(tmp_path, "ages.csv", text="path,years\na.jpg,3\n")
    with pytest.raises(UserError, match="no column is an age"):
        FolderReader(
            tmp_path, pattern="{subject}/{}.jpg", tables=[{"file": "ages.csv", "columns": {"born": "years"}}]
        ).read()


def test_a_further_table_fills_in_every_unknown_label(tmp_path: Path) -> None:
    words = ["", "NaN", "None", "N/A", "9", "NA", "1"]
    lines = [f"{number}.jpg,{word},{word},{word or 20}" for number, word in enumerate(words)]
    files(tmp_path, "main.csv", text="\n".join(["path,gender,race,age", *lines]) + "\n")
    lines = [f"{number}.jpg,f,B,30" for number in range(len(words))]
    files(tmp_path, "more.csv", text="\n".join(["path,gender,race,age", *lines]) + "\n")
    files(tmp_path, *(f"{number}.jpg" for number in range(len(words))))
    values = {"gender": {"1": "male", "9": ""}, "race": {"NaN": "Not a number", "9": ""}, "age": {"9": "", "NA": "50"}}
    samples = TableReader(tmp_path, table="main.csv", tables=[{"file": "more.csv"}], values=values).read()
    assert column(samples, "gender") == ["female"] * 6 + ["male"]
    assert column(samples, "race") == ["B", "Not a number", "B", "B", "B", "NA", "1"]
    assert column(samples, "age") == [20, 30, 30, 30, 30, 50, 1]


def test_values_that_the_card_leaves_out_are_filled_in(tmp_path: Path) -> None:
    files(tmp_path, "main.csv", text="path,age,beard\na.jpg,31,1\nb.jpg,8,?\n")
    files(tmp_path, "more.csv", text="path,beard\na.jpg,no\nb.jpg,1\n")
    files(tmp_path, "a.jpg", "b.jpg")
    values = {"beard": {"1": "yes", "*": ""}}
    samples = TableReader(tmp_path, ("beard",), table="main.csv", tables=[{"file": "more.csv"}], values=values).read()
    assert column(samples, "beard") == ["yes", "yes"]


def test_csv_without_header_by_number_and_by_template(tmp_path: Path) -> None:
    files(tmp_path, "labels.txt", text="a  31 m\nb  8  f\n")
    files(tmp_path, "faces/a.jpg", "faces/b.jpg")
    columns = {"path": "faces/{0}.jpg", "age": 1, "gender": 2}
    samples = TableReader(tmp_path, table="labels.txt", separator=" ", header=False, columns=columns).read()
    assert column(samples, "age") == [31, 8]
    assert column(samples, "path") == ["faces/a.jpg", "faces/b.jpg"]
    with pytest.raises(UserError, match="no column '7' for age; there are 0, 1, 2"):
        TableReader(tmp_path, table="labels.txt", separator=" ", header=False, columns=columns | {"age": 7}).read()
    with pytest.raises(UserError, match="no column 'no' for path"):
        TableReader(
            tmp_path, table="labels.txt", separator=" ", header=False, columns=columns | {"path": "{no}.jpg"}
        ).read()


def test_csv_with_any_group_columns_and_lists(tmp_path: Path) -> None:
    files(tmp_path, "labels.csv", text="path,age,tone,beard\na.jpg,31,II,1\nb.jpg,8,VI,0\n")
    files(tmp_path, "a.jpg", "b.jpg")
    files(tmp_path, "train.lst", text="a.jpg\n")
    files(tmp_path, "test.lst", text="b.jpg\n")
    lists = {"split": {"train": "train.lst", "test": "test.lst"}}
    samples = TableReader(tmp_path, ("tone", "beard"), lists=lists, values={"beard": {"1": "yes", "*": "no"}}).read()
    assert column(samples, "beard") == ["yes", "no"]
    assert column(samples, "split") == ["train", "test"]
    assert samples.groups == ("tone", "beard")


def test_tables_that_should_stand_side_by_side_and_do_not(tmp_path: Path) -> None:
    files(tmp_path, "names.txt", text="a.jpg\nb.jpg\n")
    files(tmp_path, "ages.txt", text="3\n")
    files(tmp_path, "b.jpg")
    ages = {"file": "ages.txt", "header": False, "columns": {"age": 0}, "by": "row"}
    with pytest.raises(UserError, match=r"'ages\.txt' has 1 rows beside 2"):
        TableReader(tmp_path, table="names.txt", header=False, columns={"path": 0}, tables=[ages]).read()
    files(tmp_path, "ages.txt", text="3\n4\n")
    samples = TableReader(tmp_path, table="names.txt", header=False, columns={"path": 0}, tables=[ages]).read()
    assert column(samples, "age") == [4]
    assert reasons(samples) == {"a.jpg": "no file 'a.jpg'"}


def test_a_table_whose_name_fits_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no table in it whose name is like 'fold_\{fold\}\.txt'"):
        TableReader(files(tmp_path, "a.jpg"), table="fold_{fold}.txt").read()


@pytest.mark.parametrize("top", ["", "A Dataset/"])
@pytest.mark.parametrize("others", [[], ["aligned/03A30.jpg"]])
def test_names_of_images_do_not_depend_on_other_folders_of_a_copy(tmp_path: Path, top: str, others: list[str]) -> None:
    for name in ("original/img/01A10.jpg", "original/img/02A20.jpg", *others):
        file = tmp_path / top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    samples = FolderReader(tmp_path, pattern=r"{:\d+}A{age:\d+}.jpg", images="original/img").read()
    assert samples.table["sample_id"].tolist() == ["original/img/01A10.jpg", "original/img/02A20.jpg"]


def test_images_of_one_folder_are_read_and_others_ignored(root: Path) -> None:
    files(root, "set/copies/1A20.jpg", "set/img/more/9A90.jpg")
    samples = FolderReader(root, pattern=PATTERN, images="img").read()
    assert column(samples, "sample_id") == list(NAMES)
    assert len(samples.rejected) == 0
    with pytest.raises(UserError, match="no image in a folder 'photos'"):
        FolderReader(root, pattern=PATTERN, images="photos").read()


def test_landmark_means_replace_points_and_name_missing_ones(root: Path) -> None:
    for name, count in (("1A20", 5), ("1A30b", 3), ("2A40", 5)):
        files(root, f"set/points/{name}.txt", text="".join(f"{number},{2 * number}\n" for number in range(count)))
    means = [[0, 1], [1, 2, 3], [4]]
    samples = FolderReader(root, pattern=PATTERN, landmarks="points/{stem}.txt", landmark_means=means).read()
    assert samples.table["landmarks"].tolist()[:2] == [[0.5, 1, 2, 4, 4, 8]] * 2
    assert samples.table["landmarks"].isna().tolist() == [False, False, True]
    assert "asks for number 4" in reasons(samples)["set/img/1A30b.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"landmarks": [[1, 2], [3, 4]]}, "x and y of three points or more"),
        ({"landmarks": [1, 2, 3, 4, 5, 6]}, "x and y of three points or more"),
        ({"landmarks": "p/{stem}.txt", "landmark_means": [[0], [1]]}, "three lists of point numbers"),
        ({"landmarks": "p/{stem}.txt", "landmark_means": [[0], [1], [-2]]}, "three lists of point numbers"),
    ],
)
def test_wrong_landmark_options_are_named(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FolderReader(root, pattern=PATTERN, **options)

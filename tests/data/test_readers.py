import os
import posixpath
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agebench.data.readers import Reader, open_reader
from agebench.data.readers.base import check_paths, list_images, normalize_path, top_folder, walk_files
from agebench.data.readers.fgnet import FGNetReader, read_points
from agebench.data.readers.folder import FolderReader, compile_pattern
from agebench.data.readers.patterns import to_text
from agebench.data.readers.table import TableReader
from agebench.data.readers.utkface import UTKFaceReader
from agebench.data.samples import Samples
from agebench.data.storage.archives import extract
from agebench.errors import ImageRejectedError, UserError
from agebench.types import RejectReason


def files(root: Path, *names: str, content: str = "x") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


def row(samples: Samples, sample_id: str) -> "pd.Series[object]":
    return samples.table.set_index("sample_id").loc[sample_id]


def reasons(samples: Samples) -> dict[str, str]:
    return dict(zip(samples.rejected["path"], samples.rejected["reason"], strict=True))


def points(count: int = 68) -> str:
    lines = "\n".join(f"{number}.5 {number + 100}" for number in range(count))
    return f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n"


# Listing


def test_hidden_files_and_links_that_lead_out_are_no_images(tmp_path: Path) -> None:
    root = files(tmp_path / "set", "b.JPG", "a/c.webp", ".hidden.jpg", "__MACOSX/b.jpg", ".git/d.png", "notes.txt")
    files(tmp_path, "outside.jpg", "elsewhere/e.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "inner.jpg").symlink_to(root / "b.JPG")
    (root / "broken.jpg").symlink_to(root / "nothing.jpg")
    images, put_aside = list_images(root)
    assert images == ["a/c.webp", "b.JPG", "inner.jpg"]
    assert [rejected.path for rejected in put_aside] == ["broken.jpg", "link.jpg"]
    assert walk_files(root)[1] == ["broken.jpg", "folder", "link.jpg"]


def test_a_folder_without_images_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image in it"):
        list_images(files(tmp_path, "notes.txt"))
    with pytest.raises(UserError, match="agebench data import"):
        list_images(tmp_path / "notes.txt")


def test_a_name_that_is_no_text_is_put_aside(tmp_path: Path) -> None:
    files(tmp_path, "25/a.jpg")
    try:
        Path(os.fsdecode(bytes(tmp_path / "25") + b"/Jos\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system has Unicode names only")
    samples = FolderReader(tmp_path).read()
    assert samples.table["sample_id"].tolist() == ["a.jpg"]
    assert samples.rejected["reason"].tolist() == ["its name is not UTF-8"]


@pytest.mark.parametrize(
    ("paths", "top"),
    [(["a/b/1.jpg", "a/b/c/2.jpg"], "a/b/"), (["a/1.jpg", "2.jpg"], ""), (["ab/1.jpg", "ac/1.jpg"], ""), ([], "")],
)
def test_the_folder_that_holds_everything(paths: list[str], top: str) -> None:
    assert top_folder(paths) == top


def test_numbers_become_text_without_a_decimal_point() -> None:
    assert to_text(pd.Series([1.0, None, 3.0])).tolist()[::2] == ["1", "3"]
    assert to_text(pd.Series([1.0, None])).isna().tolist() == [False, True]
    assert to_text(pd.Series([0.5, 1.0])).tolist() == ["0.5", "1.0"]


# UTKFace


@pytest.mark.parametrize(
    ("name", "age", "gender", "race"),
    [
        ("25_0_3_20170116220224657.jpg.chip.jpg", 25, "male", "Indian"),
        ("116_1_4_2017011622022465.jpg", 116, "female", "Others"),
        ("24_0_1_20170116220224657 .jpg.chip.jpg", 24, "male", "Black"),
        ("55_0_0_20170116232725357jpg.chip.jpg", 55, "male", "White"),
        ("39_1_20170116174525125.jpg.chip.jpg", 39, "female", None),
        ("61_3_20170109150557335.jpg.chip.jpg", 61, None, "Indian"),
        ("53__0_20170116184028385.jpg.chip.jpg", 53, None, "White"),
        ("1_0_2_20161219200908404.jpg.chip.JPG", 1, "male", "Asian"),
    ],
)
def test_utkface_names(tmp_path: Path, name: str, age: int, gender: str | None, race: str | None) -> None:
    table = UTKFaceReader(files(tmp_path, f"UTKFace/{name}"), ("gender", "race")).read().table
    assert table["path"].tolist() == [f"UTKFace/{name}"]
    assert table["age"].tolist() == [age]
    for column, value in (("gender", gender), ("race", race)):
        assert table[column].tolist() == [value] if value else table[column].isna().all()


def test_utkface_puts_aside_what_has_no_usable_age(tmp_path: Path) -> None:
    good = "30_0_0_20170116220224657.jpg.chip.jpg"
    bad = ["abc_0_0_20170116220224651.jpg", "-3_0_0_20170116220224652.jpg", "200_0_0_20170116220224653.jpg", "me.jpg"]
    samples = UTKFaceReader(files(tmp_path, good, *bad)).read()
    assert samples.table["sample_id"].tolist() == ["30_0_0_20170116220224657"]
    found = reasons(samples)
    assert found[bad[0]] == "age 'abc' is not a number"
    assert found[bad[1]] == "age -3 is outside [0, 120]"
    assert found[bad[2]] == "age 200 is outside [0, 120]"
    assert "its name 'me'" in found["me.jpg"]


def test_utkface_takes_one_of_two_copies(tmp_path: Path) -> None:
    name = "30_0_0_20170116220224657.jpg.chip.jpg"
    samples = UTKFaceReader(files(tmp_path, f"a/{name}", f"b/{name}")).read()
    assert samples.table["path"].tolist() == [f"a/{name}"]
    assert reasons(samples) == {f"b/{name}": f"a second image called like a/{name}"}


def test_a_folder_of_something_else_is_refused_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of 2 images is usable; the first is cat\.jpg: its name 'cat'"):
        UTKFaceReader(files(tmp_path, "cat.jpg", "dog.jpg")).read()
    with pytest.raises(UserError, match="age 200 is outside"):
        UTKFaceReader(files(tmp_path / "old", "200_0_0_20170116220224653.jpg")).read()


@given(
    age=st.integers(0, 120),
    gender=st.sampled_from("01"),
    race=st.sampled_from("01234"),
    stamp=st.integers(10**16, 10**17 - 1),
)
def test_any_regular_utkface_name(
    tmp_path_factory: pytest.TempPathFactory, age: int, gender: str, race: str, stamp: int
) -> None:
    root = files(tmp_path_factory.mktemp("set"), f"{age}_{gender}_{race}_{stamp}.jpg.chip.jpg")
    table = UTKFaceReader(root, ("gender", "race")).read().table
    assert table.loc[0, "age"] == age
    assert table["sample_id"].tolist() == [f"{age}_{gender}_{race}_{stamp}"]


NAMES = st.text(st.sampled_from("0123456789_-.aAbé ~\u0663jpgchi"), min_size=1, max_size=24).filter(
    lambda name: not name.startswith(".")
)


@settings(max_examples=60)
@given(names=st.sets(NAMES, min_size=1, max_size=8))
@pytest.mark.parametrize(
    "kind", [UTKFaceReader, FGNetReader, lambda root: FolderReader(root, pattern="{age}_{number:[01]?}{}.jpg")]
)
def test_any_name_is_a_sample_or_put_aside(
    tmp_path_factory: pytest.TempPathFactory, kind: type[Reader], names: set[str]
) -> None:
    root = files(tmp_path_factory.mktemp("set"), *(f"{name}.jpg" for name in names))
    try:
        samples = kind(root).read()
    except UserError:  # where none fits
        return
    assert {*samples.table["path"], *samples.rejected["path"]} == {f"{name}.jpg" for name in names}
    assert len(samples) + len(samples.rejected) == len(names)


# FG-NET


def test_fgnet_reads_people_ages_and_points(tmp_path: Path) -> None:
    files(tmp_path, "Images/001A02.JPG", "Images/001a43B.jpg", "Images/082A00.JPG")
    files(tmp_path, "points/001a02.pts", "points/001A43b.PTS", content=points())
    samples = FGNetReader(tmp_path).read()
    assert samples.table["sample_id"].tolist() == ["001A02", "001A43b", "082A00"]
    assert samples.table["subject"].tolist() == ["001", "001", "082"]
    assert samples.table["age"].tolist() == [2, 43, 0]
    assert samples.table["gender"].isna().all()
    landmarks = row(samples, "001A43b")["landmarks"]
    assert len(landmarks) == 136
    assert landmarks[:4] == [0.5, 100.0, 1.5, 101.0]
    assert row(samples, "082A00")["landmarks"] is None


def test_fgnet_puts_aside_damaged_points_and_strange_names(tmp_path: Path) -> None:
    files(tmp_path, "001A02.JPG", "001A03.JPG", "001A200.JPG", "001Aabc.JPG", "contact sheet.jpg")
    files(tmp_path, "001a03.pts", content=points(67))
    found = reasons(FGNetReader(tmp_path).read())
    assert found == {
        "001A03.JPG": "its points 001a03.pts cannot be used: 67 points where 68 are announced and 68 wanted",
        "001A200.JPG": "age 200 is outside [0, 120]",
        "001Aabc.JPG": "age 'abc' is not a number",
        "contact sheet.jpg": "its name 'contact sheet' is not person, A, age",
    }


@pytest.mark.parametrize(
    "content", ["", "version: 2\nn_points: 68\n{\n}\n", points().replace("7.5", "x"), points()[:-2]]
)
def test_damaged_points_are_named(tmp_path: Path, content: str) -> None:
    files(tmp_path, "001a02.pts", content=content)
    with pytest.raises(ValueError, match=r"001a02\.pts cannot be used"):
        read_points(tmp_path / "001a02.pts")


# A table


def table(root: Path, text: str, name: str = "labels.csv") -> Path:
    return files(root, name, content=text)


def test_csv_with_its_own_names_for_everything(tmp_path: Path) -> None:
    root = files(
        table(tmp_path, "\ufefffile;years;sex;Tone\nx/a.jpg;25;M;dark\ny\\b.jpg;7.5;F;\n"),
        "faces/x/a.jpg",
        "faces/y/b.jpg",
    )
    samples = TableReader(
        root,
        ("gender", "tone"),
        columns={"path": "file", "age": "years", "gender": "sex", "tone": "Tone"},
        separator=";",
        images="faces",
    ).read()
    assert samples.table["path"].tolist() == ["faces/x/a.jpg", "faces/y/b.jpg"]
    assert samples.table["sample_id"].tolist() == ["x/a.jpg", "y/b.jpg"]
    assert samples.table["age"].tolist() == [25, 7.5]
    assert samples.table["gender"].tolist() == ["male", "female"]
    assert samples.table["tone"].isna().tolist() == [False, True]
    assert samples.groups == ("gender", "tone")


def test_csv_puts_aside_bad_ages_missing_files_and_escapes(tmp_path: Path) -> None:
    files(tmp_path, "secret.jpg")
    text = "path,age\na.jpg,abc\nb.jpg,-3\nc.jpg,200\nd.jpg,40\ngone.jpg,30\n../secret.jpg,30\n/etc/hostname,30\nd.jpg,41\ne.jpg,\n"
    text += "f.jpg,50\nf.jpg,50\n"
    root = files(table(tmp_path / "set", text), "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg")
    (root / "out").symlink_to(tmp_path, target_is_directory=True)
    (root / "labels.csv").write_text(text + "out/secret.jpg,30\n")
    samples = TableReader(root).read()
    assert samples.table["sample_id"].tolist() == ["f.jpg"]
    assert samples.rejected.set_index("path")["reason"].to_dict() == {
        "a.jpg": "age 'abc' is not a number",
        "b.jpg": "age -3 is outside [0, 120]",
        "c.jpg": "age 200 is outside [0, 120]",
        "gone.jpg": "no file 'gone.jpg'",
        "../secret.jpg": "its path '../secret.jpg' leads out of the dataset's folder",
        "/etc/hostname": "its path '/etc/hostname' leads out of the dataset's folder",
        "out/secret.jpg": "its path 'out/secret.jpg' is a link that leads out of the dataset's folder",
        "d.jpg": "its rows have two different ages: 40 and 41; a column sample_id of their own keeps such rows apart",
        "e.jpg": "its age is missing",
        "f.jpg": "a row of the same image with the same labels precedes it",
    }


def test_repeated_rows_of_an_image_complete_each_other(tmp_path: Path) -> None:
    text = "path,age,subject,gender,landmarks\na.jpg,25,,f,\na.jpg,25,p7,,1 2 3 4 5 6\na.jpg,25,,f,\nb.jpg,30,p7,,\n"
    samples = TableReader(files(table(tmp_path, text), "a.jpg", "b.jpg")).read()
    assert samples.table["path"].tolist() == ["a.jpg", "b.jpg"]
    assert samples.table["subject"].tolist() == ["p7", "p7"]
    assert samples.table["gender"].isna().tolist() == [False, True]
    assert samples.table["landmarks"][0] == [1, 2, 3, 4, 5, 6]
    assert samples.rejected["code"].tolist() == ["duplicate-row"] * 2


@given(st.lists(st.sampled_from(["a", ".", "..", "", "b.jpg", "...", ".c", "C:", "d..", "x\\\\y"]), max_size=5))
def test_normalize_path_equals_normpath(parts: list[str]) -> None:
    path = "/".join(parts)
    assert normalize_path(path) == posixpath.normpath(path)


def test_check_paths_accepts_only_files_within_the_folder(tmp_path: Path) -> None:
    root = files(tmp_path / "set", "a.jpg", "in/b.jpg", "in/c d.jpg")
    files(tmp_path, "elsewhere/e.jpg")
    (root / "out").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "again").symlink_to(root / "in", target_is_directory=True)
    (root / "in" / "link.jpg").symlink_to(root / "a.jpg")
    (root / "in" / "outward.jpg").symlink_to(tmp_path / "elsewhere" / "e.jpg")
    usable = {
        "a.jpg": "a.jpg",
        "./in//b.jpg": "in/b.jpg",
        "in\\c d.jpg": "in/c d.jpg",
        "in/../a.jpg": "a.jpg",
        "again/b.jpg": "again/b.jpg",
        "in/link.jpg": "in/link.jpg",
    }
    outside = [
        "/a.jpg",
        "../set/a.jpg",
        "../elsewhere/e.jpg",
        str(tmp_path / "set" / "a.jpg"),
        "out/e.jpg",
        "in/outward.jpg",
    ]
    missing = ["in", "A.jpg.gone", "gone/a.jpg", "a.jpg/b.jpg", "nul\0/a.jpg", "a\0.jpg"]
    faults, paths = check_paths(root, "", [*usable, *outside, *missing, ""])
    codes = [fault and str(fault.code) for fault in faults]
    assert codes == [None] * len(usable) + ["outside-folder"] * len(outside) + ["missing-file"] * len(missing) + [
        "no-image"
    ]
    assert paths[: len(usable)] == list(usable.values())
    faults, paths = check_paths(root, "in", ["b.jpg", "../a.jpg", "a.jpg"])
    assert [fault is None for fault in faults] == [True, True, False]
    assert paths[:2] == ["in/b.jpg", "a.jpg"]


def test_a_box_outside_its_image_is_no_failure_to_read(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    reader = TableReader(table(tmp_path, "path,age,l,t,r,b\na.png,20,10,10,20,20\n"), box=["l", "t", "r", "b"])
    with pytest.raises(ImageRejectedError, match="lies outside the image") as raised:
        reader.image_bytes(reader.read().table["path"].iloc[0])
    assert raised.value.reason == RejectReason.BAD_FACE_BOX


def test_csv_that_ends_in_a_web_page(tmp_path: Path) -> None:
    root = files(table(tmp_path, "path,age\na.jpg,3\n<html><body>502 Bad Gateway</body></html>\n"), "a.jpg")
    with pytest.raises(UserError, match=r"labels\.csv: holds a web page"):
        TableReader(root).read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,years\na.jpg,3\n", "no column 'age' for age; there are path, years"),
        ("path,age\na.jpg,3,4\n", "not a readable table"),
        ("", "not a readable table"),
        ("path,age\n", "not one row in it"),
        ("path,age\ngone.jpg,3\n", "none of 1 images is usable; the first is gone.jpg: no file 'gone.jpg'"),
        ("path,age,gender\na.jpg,3,2\n", "gender '2' is none of female, male. Translate it on the card"),
        ("path,age,split\na.jpg,3,dev\n", "split 'dev' is none of train, val, test"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    root = files(table(tmp_path, text), "a.jpg")
    with pytest.raises(UserError) as raised:
        TableReader(root).read()
    assert message in str(raised.value)
    assert str(tmp_path / "labels.csv") in str(raised.value)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("path,age\nJosé.jpg,3\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        TableReader(tmp_path).read()


def test_which_table(tmp_path: Path) -> None:
    root = files(tmp_path, "top/one.csv", "top/two.csv", content="path,age\na.jpg,9\n")
    files(root, "top/a.jpg")
    with pytest.raises(
        UserError, match=r"2 tables \(top/one\.csv, top/two\.csv\)\. Name the table on the card: options\.table"
    ):
        TableReader(root).read()
    with pytest.raises(UserError, match=r"no table 'three\.csv'"):
        TableReader(root, table="three.csv").read()
    samples = TableReader(root, table="two.csv").read()
    assert samples.table["path"].tolist() == ["top/a.jpg"]
    assert samples.table["sample_id"].tolist() == ["a.jpg"]
    assert len(TableReader(root / "top" / "one.csv").read()) == 1


def test_values_are_translated(tmp_path: Path) -> None:
    root = files(table(tmp_path, "path,age,gender,race\na.jpg,3,0,B\nb.jpg,4,-1,W\n"), "a.jpg", "b.jpg")
    values = {"gender": {"0": "male", "1": "female", "-1": ""}, "race": {"B": "Black"}}
    found = TableReader(root, ("gender", "race"), values=values).read().table
    assert found["race"].tolist() == ["Black", "W"]
    assert found["gender"].isna().tolist() == [False, True]
    with pytest.raises(UserError, match=r"options\.values names 'tone'"):
        TableReader(root, values={"tone": {}}).read()


def test_parquet(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg", "b.jpg")
    content = {"path": ["a.jpg", "b.jpg"], "age": [3, 4], "skin": [1.0, None], "subject": [17, 18]}
    pd.DataFrame(content).to_parquet(tmp_path / "labels.parquet")
    samples = TableReader(tmp_path, ("skin",)).read()
    assert samples.table["skin"].tolist()[0] == "1"
    assert samples.table["skin"].isna().tolist() == [False, True]
    assert samples.table["subject"].tolist() == ["17", "18"]


# Folders


def test_a_folder_an_age(tmp_path: Path) -> None:
    root = files(tmp_path, "set/25/a.jpg", "set/25/men/111/b.jpg", "set/007/a.jpg", "set/200/c.jpg", "set/abc/d.jpg")
    samples = FolderReader(root).read()
    assert dict(zip(samples.table["sample_id"], samples.table["age"], strict=True)) == {
        "007/a.jpg": 7,
        "25/a.jpg": 25,
        "25/men/111/b.jpg": 25,
    }
    assert reasons(samples) == {
        "set/200/c.jpg": "age 200 is outside [0, 120]",
        "set/abc/d.jpg": "its path 'set/abc/d.jpg' has no folder that is an age",
    }


def test_a_pattern_of_names(tmp_path: Path) -> None:
    root = files(tmp_path, "f/1_MariaCallas_35_f.jpg", "f/2_Max_Planck_60_m.JPG", "f/3_x_abc_f.jpg", "f/readme.png")
    samples = FolderReader(root, ("gender",), pattern="{}_{subject}_{age}_{gender}.jpg").read()
    assert samples.table["age"].tolist() == [35, 60]
    assert samples.table["subject"].tolist() == ["MariaCallas", "Max_Planck"]
    assert samples.table["gender"].tolist() == ["female", "male"]
    assert reasons(samples) == {
        "f/readme.png": "its path 'f/readme.png' does not end like '{}_{subject}_{age}_{gender}.jpg'",
        "f/3_x_abc_f.jpg": "age 'abc' is not a number",
    }


def test_a_pattern_with_folders_and_expressions(tmp_path: Path) -> None:
    root = files(tmp_path, "AFAD/25/111/77-0.jpg", "AFAD/25/112/78-0.jpg")
    values = {"gender": {"111": "male", "112": "female"}}
    table = FolderReader(root, ("gender",), pattern="{age}/{gender}/{subject}-{}.jpg", values=values).read().table
    assert table["gender"].tolist() == ["male", "female"]
    assert table["subject"].tolist() == ["77", "78"]
    match = compile_pattern(r"{subject:\d{6}}_{:\d+}{gender:[MF]}{age:\d\d}.jpg").fullmatch("x/273546_01M22.JPG")
    assert match is not None
    assert match.groupdict() == {"subject": "273546", "gender": "M", "age": "22"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{years}.jpg", "it has no {age}"),
        ("{age}_{age}.jpg", "redefinition of group name"),
        ("{age:[}.jpg", "options.pattern = '{age:[}.jpg': unterminated character set"),
    ],
)
def test_a_pattern_that_is_none(pattern: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        compile_pattern(pattern)
    assert message in str(raised.value)


def test_groups_that_are_in_no_label(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the card's groups name 'gender'"):
        FolderReader(files(tmp_path, "25/a.jpg"), ("gender",)).read()


def test_an_option_that_a_reader_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"card .mine.: the options of reader .folder. are wrong.*patern"):
        open_reader("folder", tmp_path, (), {"patern": "{age}.jpg"}, source="card 'mine'")


# The real ones


@pytest.fixture(scope="module")
def real(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("real")
    extract(test_data / "UTKFace.tar.gz", root / "utk")
    extract(test_data / "FGNET.zip", root / "fgnet")
    return root


@pytest.mark.slow
def test_all_of_utkface(real: Path) -> None:
    samples = UTKFaceReader(real / "utk", ("gender", "race")).read()
    assert len(samples) == 23707
    assert len(samples.rejected) == 0
    assert (samples.table["gender"].isna() | samples.table["race"].isna()).sum() == 3
    assert (samples.table["age"].min(), samples.table["age"].max()) == (1, 116)


@pytest.mark.slow
def test_all_of_fgnet(real: Path) -> None:
    samples = FGNetReader(real / "fgnet").read()
    assert len(samples) == 1002
    assert len(samples.rejected) == 0
    assert samples.table["subject"].nunique() == 82
    assert (samples.table["landmarks"].map(len) == 136).all()
    assert (samples.table["age"].min(), samples.table["age"].max()) == (0, 69)

"""Every shipped card reads the form in which its owners hand the dataset out; made-up samples, no photograph."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from agebench.cli import main
from agebench.data.image_io import open_image
from agebench.data.readers import Reader, open_reader
from agebench.data.samples import Samples
from agebench.registry.catalog import load_catalog


def picture(size: tuple[int, int] = (8, 8), colour: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture())
    return root


def write(root: Path, name: str, text: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root


def reader(name: str, root: Path) -> Reader:
    card = load_catalog().datasets.get(name)
    return open_reader(card.reader, root, card.groups, card.options, source=name)


def read(name: str, root: Path) -> Samples:
    card = load_catalog().datasets.get(name)
    samples = reader(name, root).read()
    for label in card.labels:
        assert samples.table[label].notna().any(), label
    assert samples.groups == card.groups
    return samples


def column(samples: Samples, name: str) -> list[object]:
    return [None if pd.isna(value) else value for value in samples.table[name].tolist()]


def test_fairface(tmp_path: Path) -> None:
    header = "file,age,gender,race,service_test\n"
    train = "train/1.jpg,03-Sep,Male,East Asian,True\ntrain/2.jpg,20-29,Female,Indian,False\n"
    val = "val/1.jpg,more than 70,Female,Latino_Hispanic,False\nval/2.jpg,3-9,Male,White,True\n"
    write(tmp_path, "fairface_label_train.csv", header + train)
    write(tmp_path, "fairface_label_val.csv", header + val)
    samples = read("fairface", files(tmp_path, "train/1.jpg", "train/2.jpg", "val/1.jpg", "val/2.jpg"))
    assert column(samples, "age") == [6, 24.5, 80, 6]
    assert column(samples, "age_low") == [3, 20, 70, 3]
    assert column(samples, "age_high") == [9, 29, 90, 9]
    assert column(samples, "split") == ["train", "train", "test", "test"]
    assert column(samples, "sample_id") == ["train/1.jpg", "train/2.jpg", "val/1.jpg", "val/2.jpg"]


def test_fairface_val_has_ranges_and_the_points_of_its_chips(tmp_path: Path) -> None:
    header = "file,age,gender,race,service_test\n"
    write(
        tmp_path,
        "FairFace/fairface_label_val.csv",
        header + "val/1.jpg,03-Sep,Male,Black,TRUE\nval/2.jpg,Oct-19,Female,White,FALSE\n",
    )
    samples = read("fairface-val", files(tmp_path, "FairFace/val/1.jpg", "FairFace/val/2.jpg"))
    assert column(samples, "age_low") == [3, 10]
    assert column(samples, "age_high") == [9, 19]
    points = np.array(samples.table["landmarks"].tolist())
    # dlib's mean shape of five points, as its chips of 224 px with a padding of 0.25 place it.
    shape = np.array([[0.2273, 0.2214], [0.7528, 0.2212], [0.4901, 0.6278]])
    np.testing.assert_allclose(points.reshape(2, 3, 2), np.stack([(shape + 0.25) / 1.5 * 224] * 2), atol=0.1)


@pytest.mark.slow
def test_fairface_val_as_it_is_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = os.environ.get("AGEBENCH_TEST_DATA", "")
    archive = Path(folder) / "FairFace-val-5000.zip"
    if not folder or not archive.is_file():
        pytest.skip("AGEBENCH_TEST_DATA names no folder with FairFace-val-5000.zip")
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path))
    assert main(["data", "import", "fairface-val", str(archive), "--allow-partial"]) == 0
    assert "5000 images" in capsys.readouterr().out
    samples = read("fairface-val", tmp_path / "fairface-val")
    assert len(samples) == 5000
    assert len(samples.rejected) == 0
    assert samples.table["age_low"].eq(3).sum() == 628  # `03-Sep` in the table
    assert samples.table["race"].nunique() == 7


def test_all_age_faces_reads_the_original_images(tmp_path: Path) -> None:
    top = "All-Age-Faces Dataset"
    names = ("00000A02.jpg", "00001A02.jpg", "12000A45.jpg")
    files(tmp_path, *(f"{top}/{folder}/{name}" for folder in ("original images", "aglined faces") for name in names))
    write(tmp_path, f"{top}/image sets/train.txt", "00000A02.jpg 0\n12000A45.jpg 1\n")
    write(tmp_path, f"{top}/image sets/val.txt", "00001A02.jpg 0\n")
    write(tmp_path, f"{top}/image sets/val_shuffle.txt", "00001A02.jpg 0\n")
    points = "".join(f"{number} {100 + number}\r\n" for number in range(49))
    for name in names:
        write(tmp_path, f"{top}/key points/{Path(name).stem}.txt", points)
    samples = read("all-age-faces", tmp_path)
    assert column(samples, "age") == [2, 2, 45]
    assert column(samples, "gender") == ["female", "female", "male"]
    assert column(samples, "split") == ["train", "test", "train"]
    assert len(samples.rejected) == 0
    assert samples.table["landmarks"].iloc[0] == [21.5, 121.5, 27.5, 127.5, 16, 116]


@pytest.mark.parametrize(("name", "stem"), [("adience", "fold_"), ("adience-frontal", "fold_frontal_")])
def test_adience(tmp_path: Path, name: str, stem: str) -> None:
    header = (
        "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\tfiducial_score\n"
    )
    rest = "\t1\t2\t3\t4\t0\t0\t50\n"
    for other in ("fold_", "fold_frontal_"):
        user = "30601258@N03" if other == stem else "1@N00"
        write(
            tmp_path,
            f"{other}0_data.txt",
            f"{header}{user}\ta_b_o.jpg\t1\t(25, 32)\tf{rest}{user}\tc_o.jpg\t2\t35\tu{rest}",
        )
        write(
            tmp_path,
            f"{other}1_data.txt",
            f"{header}{user}2\td_o.jpg\t7\tNone\tm{rest}{user}2\te_o.jpg\t8\t(60, 100)\tm{rest}",
        )
    faces = "aligned/30601258@N03"
    files(tmp_path, f"{faces}/landmark_aligned_face.1.a_b_o.jpg", f"{faces}/landmark_aligned_face.2.c_o.jpg")
    files(tmp_path, f"{faces}2/landmark_aligned_face.7.d_o.jpg", f"{faces}2/landmark_aligned_face.8.e_o.jpg")
    samples = read(name, tmp_path)
    assert column(samples, "age") == [28.5, 35, 80]
    assert column(samples, "age_low") == [25, 35, 60]
    assert column(samples, "gender") == ["female", None, "male"]
    assert column(samples, "fold") == ["0", "0", "1"]
    assert column(samples, "subject") == ["30601258@N03", "30601258@N03", "30601258@N032"]
    assert samples.rejected["reason"].tolist() == ["its age is missing"]


def appa_real(root: Path) -> Path:
    header = "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age\n"
    for split, name in (("train", "000000"), ("valid", "004113"), ("test", "005613")):
        write(root, f"appa-real-release/gt_avg_{split}.csv", f"{header}{name}.jpg,36,5.5,0.9,4\n")
        write(
            root,
            f"appa-real-release/gt_{split}.csv",
            f"file_name,age,worker,worker_age,worker_gender\n{name}.jpg,5,1,20,male\n",
        )
        files(root, f"appa-real-release/{split}/{name}.jpg", f"appa-real-release/{split}/{name}.jpg_face.jpg")
    return root


def test_appa_real(tmp_path: Path) -> None:
    samples = read("appa-real", appa_real(tmp_path))
    assert column(samples, "age") == [4, 4, 4]
    assert sorted(zip(column(samples, "split"), column(samples, "path"), strict=True)) == [
        ("test", "appa-real-release/test/005613.jpg_face.jpg"),
        ("train", "appa-real-release/train/000000.jpg_face.jpg"),
        ("val", "appa-real-release/valid/004113.jpg_face.jpg"),
    ]
    samples = read("appa-real-apparent", tmp_path)
    assert column(samples, "age") == [5.5, 5.5, 5.5]
    assert column(samples, "real_age") == ["4", "4", "4"]


def test_clap2016(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path, f"{split}_gt.csv", f"image,mean,stdv\n{split}1.jpg,31.4,4.2\n")
        files(tmp_path, f"{split}/{split}1.jpg")
    samples = read("clap2016", tmp_path)
    assert column(samples, "age") == [31.4] * 3
    assert sorted(map(str, column(samples, "split"))) == ["test", "train", "val"]
    assert column(samples, "age_std") == ["4.2"] * 3


def test_agedb(tmp_path: Path) -> None:
    samples = read("agedb", files(tmp_path, "AgeDB/0_MariaCallas_35_f.jpg", "AgeDB/16486_Åsa_Ek_7_m.jpg"))
    assert column(samples, "age") == [35, 7]
    assert column(samples, "subject") == ["MariaCallas", "Åsa_Ek"]
    assert column(samples, "gender") == ["female", "male"]


def test_afad(tmp_path: Path) -> None:
    samples = read("afad", files(tmp_path, "AFAD-Full/15/111/638660-1.jpg", "AFAD-Full/40/112/8-0.jpg"))
    assert column(samples, "age") == [15, 40]
    assert column(samples, "gender") == ["male", "female"]
    assert column(samples, "subject") == ["638660", "8"]


def test_morph2(tmp_path: Path) -> None:
    text = "id_num,picture_num,dob,doa,race,gender,age,photo\n273546,1,1980-01-01,2002-01-01,B,M,22,Album2/273546_01M22.JPG\n"
    write(tmp_path, "MORPH_Album2_EntireSet.csv", f"{text}9055,0,1960-01-01,1999-01-01,W,F,39,Album2/009055_0F39.JPG\n")
    samples = read("morph2", files(tmp_path, "Album2/273546_01M22.JPG", "Album2/009055_0F39.JPG"))
    assert sorted(zip(*(column(samples, name) for name in ("age", "gender", "race", "subject")), strict=True)) == [
        (22, "male", "B", "273546"),
        (39, "female", "W", "009055"),
    ]


@pytest.mark.parametrize("name", ["megaage", "megaage-asian"])
def test_megaage(tmp_path: Path, name: str) -> None:
    for split, ages in (("train", "25\n3\n"), ("test", "61\n40\n")):
        write(tmp_path, f"{name}/list/{split}_name.txt", "1.jpg\n2.jpg\n")
        write(tmp_path, f"{name}/list/{split}_age.txt", ages)
        files(tmp_path, f"{name}/{split}/1.jpg", f"{name}/{split}/2.jpg")
    samples = read(name, tmp_path)
    found = dict(
        zip(column(samples, "path"), zip(column(samples, "age"), column(samples, "split"), strict=True), strict=True)
    )
    assert found == {
        f"{name}/train/1.jpg": (25, "train"),
        f"{name}/train/2.jpg": (3, "train"),
        f"{name}/test/1.jpg": (61, "test"),
        f"{name}/test/2.jpg": (40, "test"),
    }


def test_lagenda_reads_each_face_of_a_photograph(tmp_path: Path) -> None:
    image = Image.new("RGB", (100, 60), (0, 0, 255))
    image.paste((255, 0, 0), (10, 10, 30, 30))
    (tmp_path / "lag_benchmark").mkdir()
    image.save(tmp_path / "lag_benchmark" / "a.png")
    text = "img_name,age,gender,face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1\n"
    rows = "lag_benchmark/a.png,31.2,M,10,10,30,30,0,0,50,60\nlag_benchmark/a.png,-1,-1,60,10,80,30,50,0,100,60\n"
    write(
        tmp_path,
        "lagenda_test.csv",
        f"{text}{rows}lag_benchmark/a.png,8,-1,60,30,80,50,50,0,100,60\nlag_benchmark/a.png,9,F,-1,-1,-1,-1,0,0,9,9\n",
    )
    samples = read("lagenda", tmp_path)
    assert column(samples, "age") == [31.2, 8]
    assert column(samples, "gender") == ["male", None]
    assert samples.rejected["reason"].tolist() == ["no box of a face", "age -1 is outside [0, 120]"]
    source = reader("lagenda", tmp_path)
    first, second = (np.asarray(open_image(source.image_bytes(path))) for path in samples.table["path"])
    assert first.shape == (40, 40, 3)  # 20 pixels, and as much again around them
    assert first[20, 20].tolist() == [255, 0, 0]
    assert second[20, 20].tolist() == [0, 0, 255]
    assert source.version_token(samples.table["path"][0]) != source.version_token("gone.png#0,0,1,1")


def test_imdb_clean(tmp_path: Path) -> None:
    names = [
        "00/nm0000100_rm1_1955-1-6_2003.jpg",
        "17/nm0000217_rm2_1960-2-3_2004.jpg",
        "03/nm0000103_rm3_1970-1-1_2000.jpg",
    ]
    for split, name, age, gender in zip(("train", "valid", "test"), names, (48, 44, 30), ("M", "F", "M"), strict=True):
        box = "x_min,y_min,x_max,y_max"
        write(tmp_path, f"imdb_{split}_new_1024.csv", f"filename,age,gender,{box}\n{name},{age},{gender},1,2,3,4\n")
        files(tmp_path, f"imdb-clean-1024/{name}")
    samples = read("imdb-clean", tmp_path)
    assert column(samples, "age") == [48, 30, 44]
    assert column(samples, "subject") == ["nm0000100", "nm0000103", "nm0000217"]
    assert column(samples, "split") == ["train", "test", "val"]


def test_cacd(tmp_path: Path) -> None:
    names = ["53_Robin_Williams_0001.jpg", "23_Ana_Ek_0002.jpg", "62_Bo_Li_0003.jpg"]
    records = {
        "age": np.array([[53], [23], [62]]),
        "identity": np.array([[1], [2], [3]]),
        "year": np.array([[2004], [2004], [2004]]),
        "rank": np.array([[1], [4], [17]]),
        "name": np.array([[name] for name in names], dtype=object),
    }
    savemat(
        tmp_path / "celebrity2000_meta.mat", {"celebrityImageData": records, "celebrityData": {"name": np.array(["x"])}}
    )
    samples = read("cacd", files(tmp_path, *(f"CACD2000/{name}" for name in names)))
    assert column(samples, "age") == [53, 23, 62]
    assert column(samples, "subject") == ["1", "2", "3"]
    assert column(samples, "split") == ["val", "test", "train"]


def test_imdb_wiki(tmp_path: Path) -> None:
    names = ["17/a_1981-05-05_2009.jpg", "48/b_1948-10-03_2008.jpg", "12/c.jpg", "13/d.jpg"]
    wiki = {
        "dob": np.array([723671.0, 711763.0, 703186.0, 0.0]),
        "photo_taken": np.array([2009, 2008, 1964, 2000]),
        "full_path": np.array(names, dtype=object),
        "gender": np.array([1.0, 0.0, np.nan, 1.0]),
        "name": np.array(["Ann", "Bob", "Cy", "Di"], dtype=object),
        "face_location": np.array([[1, 2, 3, 4]] * 4, dtype=object),
        "face_score": np.array([4.3, 2.6, -np.inf, 1.0]),
        "second_face_score": np.array([np.nan] * 4),
    }
    savemat(tmp_path / "wiki.mat", {"wiki": wiki})
    samples = read("imdb-wiki", files(tmp_path, *names))
    assert column(samples, "age") == [28, 59]
    assert column(samples, "gender") == ["male", "female"]
    assert column(samples, "subject") == ["Ann", "Bob"]
    assert samples.rejected["reason"].tolist() == [
        "its owners' detector found no face",
        "its age is missing",
    ]


def test_damaged_matlab_files_are_named(tmp_path: Path) -> None:
    from agebench.errors import UserError

    (tmp_path / "celebrity2000_meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\x00" * 200)
    with pytest.raises(UserError, match=r"celebrity2000_meta\.mat: not a readable table"):
        read("cacd", files(tmp_path, "CACD2000/a.jpg"))


def test_cards_of_unchecked_facts_say_so() -> None:
    found = load_catalog().datasets
    assert found.broken() == {}
    unchecked = {name for name in found.names() if not found.get(name).verified}
    assert unchecked >= {
        "fairface",
        "fairface-hub",
        "adience",
        "appa-real",
        "clap2016",
        "megaage",
        "cacd",
        "imdb-clean",
        "agedb",
    }
    assert unchecked.isdisjoint({"fgnet", "utk", "synth", "all-age-faces", "fairface-val"})


def test_a_card_that_states_nothing_is_not_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "datasets").mkdir()
    card = 'name = "mine"\ntitle = "Mine"\nreader = "csv"\nlicence = "ours"\n'
    (tmp_path / "datasets" / "mine.toml").write_text(card)
    assert main(["info", "mine", "--registry", str(tmp_path)]) == 0
    assert "verified = true" not in capsys.readouterr().out
    assert main(["info", "utk"]) == 0
    assert "verified = true" in capsys.readouterr().out

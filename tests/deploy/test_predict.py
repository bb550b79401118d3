"""`agebench predict` and `agebench.load`: rows for everything that was given, in its order, and reasons instead of crashes."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import agebench
from agebench.cli import main
from agebench.data.store import reader_for
from agebench.errors import UserError
from agebench.registry.catalogue import catalogue

SIZE = 64


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small model."""
    home = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEBENCH_CACHE", str(home / "cache"))
        patch.setenv("AGEBENCH_DATA", str(home / "data"))
        words = [
            "run",
            "--train",
            "synth",
            "--test",
            "synth",
            "--test",
            "synth-shift",
            "--model",
            "tiny",
            "--epochs",
            "1",
        ]
        assert main([*words, "--set", "evaluate.resamples=100", "--out", str(home / "run")]) == 0
    return home / "run"


def face(number: int) -> Image.Image:
    """A generated face, framed like the training faces."""
    reader = reader_for(catalogue().datasets.get("synth"))
    path = reader.read().table["path"].iloc[number]
    return Image.open(io.BytesIO(reader.image_bytes(path))).convert("RGB")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three faces, a text that calls itself a picture, and one more face in a folder within."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    for number in range(3):
        face(number).save(place / f"{number}.png")
    (place / "3.jpg").write_text("a text")
    face(3).save(place / "more" / "4.png")
    return place


def rows(run: Path, tmp_path: Path, *words: str) -> pd.DataFrame:
    out = tmp_path / "ages.parquet"
    assert main(["predict", str(run), *words, "--faces", "none", "--out", str(out)]) == 0
    return pd.read_parquet(out)


def test_a_folder_becomes_rows_in_its_order(run: Path, folder: Path, tmp_path: Path) -> None:
    table = rows(run, tmp_path, str(folder))
    assert [Path(name).name for name in table["input"]] == ["0.png", "1.png", "2.png", "3.jpg", "4.png"]
    bad = table["input"].str.endswith("3.jpg")
    assert table.loc[bad, "age"].isna().all()
    assert "not an image" in table.loc[bad, "error"].item()
    good = table[~bad]
    assert (good["error"] == "").all()
    assert good["age"].between(0, 100).all()
    assert (good["low"] <= good["age"]).all()
    assert (good["age"] <= good["high"]).all()


def test_files_say_what_python_says(run: Path, folder: Path, tmp_path: Path) -> None:
    paths = [folder / "2.png", folder / "0.png"]
    by_file = rows(run, tmp_path, *map(str, paths))
    with agebench.load(run) as model:
        by_path = model.predict(paths, faces="none")
        in_memory = model.predict([Image.open(paths[0]), np.asarray(Image.open(paths[1]))], faces="none")
        estimated = model.estimate(np.stack([np.asarray(Image.open(path).resize((SIZE, SIZE))) for path in paths]))
    assert np.allclose(by_path["age"], in_memory["age"], atol=1e-4)
    assert np.allclose(by_path["age"], by_file["age"], atol=0.006)  # files have two decimals
    assert estimated.age.shape == (2,)


def test_images_are_taken_as_they_come(run: Path, folder: Path) -> None:
    """The number of images is nowhere known: memory cannot grow with it."""
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield folder / f"{taken % 3}.png"

    with agebench.load(run) as model:
        stream = model.stream(endless(), faces="none", workers=1)
        ages = [next(stream).faces[0].age for _ in range(200)]
    assert np.isfinite(ages).all()
    assert taken < 1000


def test_an_exported_file_answers_like_its_run(run: Path, folder: Path, tmp_path: Path) -> None:
    file = run / "export" / "model.ts"
    with pytest.raises(UserError, match="trusted"):
        agebench.load(file)
    with agebench.load(run) as ours, agebench.load(file, trusted=True) as exported:
        pictures = [folder / f"{number}.png" for number in range(3)]
        expected, found = (model.predict(pictures, faces="none") for model in (ours, exported))
        assert exported.gate(18)["tests"].keys() == ours.gate(18)["tests"].keys()
    for column in ("age", "low", "high"):
        assert np.allclose(found[column], expected[column], atol=0.02)


def test_a_gate_says_how_often_it_errs(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = ["--threshold", "18", "--challenge", "25"]
    assert main(["predict", str(run), str(folder), "--faces", "none", "--json", *gate]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    of_shift = found["gate"]["tests"]["synth-shift"]
    truth = pd.read_parquet(run / "predictions" / "synth-shift.parquet")
    under = truth[truth["age"] < 18]
    assert of_shift["n_under"] == len(under)
    assert of_shift["fpr"]["value"] == pytest.approx((under["age_pred"] >= 25).mean())
    assert "pass as over" in said.err
    for row in found["faces"]:
        assert row["decision"] == (None if row["age"] is None else "over" if row["age"] >= 25 else "check")


def test_an_interval_is_what_its_promise_says(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Split conformal: the ceil((n + 1) level)-th smallest error of the validation part."""
    assert main(["predict", str(run), str(folder), "--faces", "none", "--json", "--level", "0.8"]) == 0
    found = json.loads(capsys.readouterr().out)
    table = pd.read_parquet(run / "validation.parquet")
    errors = np.sort((table["age_pred"] - table["age"]).abs())
    assert not found["interval"]["scaled"]
    assert found["interval"]["radius"] == pytest.approx(errors[int(np.ceil((len(errors) + 1) * 0.8)) - 1])
    row = found["faces"][0]
    assert row["high"] - row["age"] == pytest.approx(found["interval"]["radius"], abs=0.011)


def test_paths_on_standard_input(run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder / '1.png'}\n{folder / '0.png'}\n"))
    assert [Path(name).name for name in rows(run, tmp_path, "-")["input"]] == ["1.png", "0.png"]


def test_pictures_are_drawn(run: Path, folder: Path, tmp_path: Path) -> None:
    rows(run, tmp_path, str(folder), "--draw", str(tmp_path / "drawn"))
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == ["0.jpg", "1.jpg", "2.jpg", "4.jpg"]
    drawn, plain = (
        np.asarray(Image.open(file).convert("RGB"), float) for file in (tmp_path / "drawn/0.jpg", folder / "0.png")
    )
    assert drawn.shape == plain.shape
    assert np.abs(drawn - plain).mean() > 1


def video(path: Path, frames: int = 3) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = np.asarray(face(number).resize((128, 128)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_video_is_rows_of_frames_and_a_drawn_video(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = rows(run, tmp_path, str(video(tmp_path / "film.mp4")), "--draw", str(tmp_path / "drawn"))
    assert table["frame"].tolist() == [0, 1, 2]
    assert table["time"].tolist() == pytest.approx([0, 0.04, 0.08])
    assert "frames/s from end to end" in capsys.readouterr().err
    with av.open(str(tmp_path / "drawn" / "film.mp4")) as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == 3


def without_picture(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    return path


def test_bad_input_is_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("a text")
    sound = without_picture(tmp_path / "sound.mp4")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.toml").write_text((run / "config.toml").read_text())
    for model, given, said in (
        (run, tmp_path / "empty", "this folder holds no image"),
        (run, tmp_path / "gone.jpg", "no such file or folder"),
        (run, tmp_path / "*.tiff", "no file fits this pattern"),
        (run, sound, "no video stream in it, only audio"),
        (run, tmp_path / "text.mp4", "not a video that can be read"),
        (run, "camera:7", "no camera answers there"),
        (unfinished, sound, "this run is not finished"),
        ("nothing", sound, "no such folder or file, and no model's card of this name"),
    ):
        out = tmp_path / "out.csv"
        assert main(["predict", str(model), str(given), "--out", str(out)]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("agebench: ")]
        assert said in line
        assert not out.exists()


@pytest.mark.slow
def test_every_face_of_a_photograph_is_found(run: Path, test_data: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(test_data / "FGNET.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(".jpg"))
        chosen = [Image.open(io.BytesIO(archive.read(names[place]))).convert("RGB") for place in (120, 260)]
    group = Image.new("RGB", (1000, 500))
    for place, photograph in enumerate(chosen):
        group.paste(photograph.resize((500, 500)), (500 * place, 0))
    group.save(tmp_path / "group.png")
    with agebench.load(run) as model:
        table = model.predict([tmp_path / "group.png"])
    assert table["face"].tolist() == [0, 1]
    assert sorted(table["x0"] > 500) == [False, True]
    assert (table["x1"] > table["x0"]).all()
    assert (table["y1"] > table["y0"]).all()

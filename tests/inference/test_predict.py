"""`agebench predict` and `agebench.load`: rows for everything that was given, in its order, and reasons instead of crashes."""

import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

import agebench
from agebench.cli import main
from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.detectors.base import Detection as Place
from agebench.data.readers.synth import SynthReader
from agebench.errors import UserError
from agebench.estimators.exported.adapter import CardGuarantees, ExportedEstimator
from agebench.estimators.exported.card import ExportCard, read_card
from agebench.estimators.exported.loading import open_exported
from agebench.inference import face_extraction, predictor
from agebench.inference.annotate import face_caption
from agebench.inference.batch_predict import PredictSummary, _FreeNames
from agebench.inference.formatting import format_interval
from agebench.inference.input_sources import expand_inputs
from agebench.inference.predictor import FacePrediction, Predictor
from agebench.inference.video import Video, open_video
from agebench.registry.catalog import load_catalog
from agebench.runs import estimators
from agebench.runs.guarantees import deployment_guarantees
from agebench.runs.run_dir import RunDir

pytestmark = pytest.mark.slow
SIZE = 32
FEW = """
name = "few"
title = "Few"
reader = "synth"
licence = "made up"
citation = "nobody"
faces = "none"
[options]
count = 240
size = 48
"""
SHIFTED = FEW.replace('"few"', '"few-shift"') + "seed = 7\nblur = 2.0\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cards of two small datasets, and the finished run of a tiny model on them."""
    home = tmp_path_factory.mktemp("predict")
    (home / "cards" / "datasets").mkdir(parents=True)
    (home / "cards" / "datasets" / "few.toml").write_text(FEW)
    (home / "cards" / "datasets" / "few-shift.toml").write_text(SHIFTED)
    words = ["run", "--train", "few", "--test", "few", "--test", "few-shift", "--model", "tiny", "--epochs", "2"]
    words += ["--set", f"model.size={SIZE}", "--set", "evaluate.resamples=100", "--out", str(home / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEBENCH_CACHE", str(home / "cache"))
        patch.setenv("AGEBENCH_REGISTRY", str(home / "cards"))
        assert main(words) == 0
    return home


@pytest.fixture
def run(home: Path, own_homes: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished run; the datasets' cards are known."""
    monkeypatch.setenv("AGEBENCH_REGISTRY", str(home / "cards"))
    return home / "run"


def face(number: int) -> Image.Image:
    """A generated face, framed like the training faces."""
    reader = SynthReader(None, count=8)
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
    assert main(["predict", str(run), *words, "--align", "none", "--out", str(out)]) == 0
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
        assert exported.gate(18).tests.keys() == ours.gate(18).tests.keys()
    for column in ("age", "low", "high"):
        assert np.allclose(found[column], expected[column], atol=0.02)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("gates", "18", "25", "challenge"), 0, "under challenge 25 it states challenge 0"),
        (("gates", "18", "25", "threshold"), 13, "under threshold 18 it states threshold 13"),
        (("intervals", "0.9", "level"), 0.5, "under level 0.9 it states level 0.5"),
        (("intervals", "0.9", "scaled"), True, "standard deviations, and the model predicts none"),
    ],
)
def test_a_card_does_not_decide_what_was_asked(run: Path, place: tuple[str, ...], value: float, said: str) -> None:
    with agebench.load(run / "export" / "model.ts", trusted=True) as model:
        assert model.gate(18, 25).challenge == 25
        with pytest.raises(UserError, match=r"--challenge 25.0000001: the card of .* knows only 18, 19"):
            model.gate(18, 25.0000001)
        content = model.card.to_json()
    at = content["promises"]
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    guarantees = CardGuarantees(Path("model.ts"), ExportCard.model_validate(content))
    with pytest.raises(UserError, match=f"model.ts: its card is wrong: .*{said}"):
        guarantees.gate(18, 25) if place[0] == "gates" else guarantees.interval(0.9)


def test_a_gate_says_how_often_it_errs(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = ["--threshold", "18", "--challenge", "25"]
    assert main(["predict", str(run), str(folder), "--align", "none", "--json", *gate]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    of_shift = found["gate"]["tests"]["few-shift"]
    truth = pd.read_parquet(run / "predictions" / "few-shift.parquet")
    under = truth[truth["age"] < 18]
    assert of_shift["n_under"] == len(under)
    assert of_shift["fpr"]["value"] == pytest.approx((under["age_pred"] >= 25).mean())
    assert "pass as over" in said.err
    for row in found["faces"]:
        assert row["decision"] == (None if row["age"] is None else "over" if row["age"] >= 25 else "check")


def test_an_interval_is_what_its_promise_says(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hierarchical conformal: the least error that level (K + 1) of the K people, each shared by his images, do not exceed."""
    assert main(["predict", str(run), str(folder), "--align", "none", "--json", "--coverage", "0.8"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    table = pd.read_parquet(run / "validation.parquet")
    table["error"] = (table["age_pred"] - table["age"]).abs()
    table["share"] = 1 / table.groupby("subject")["error"].transform("size")
    people, ordered = table["subject"].nunique(), table.sort_values("error")
    radius = ordered["error"][ordered["share"].cumsum() > 0.8 * (people + 1) - 1e-9].iloc[0]
    assert not found["interval"]["scaled"]
    assert (found["interval"]["radius"], found["interval"]["people"]) == (pytest.approx(radius), people)
    assert f"n = {len(table)} of {people} people, for new people" in said.err
    row = found["faces"][0]
    assert row["high"] - row["age"] == pytest.approx(found["interval"]["radius"], abs=0.011)


def test_only_a_level_that_was_asked_for_is_refused(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = without_digests(Path(shutil.copytree(run, tmp_path / "few")))
    pd.read_parquet(run / "validation.parquet").head(8).to_parquet(few / "validation.parquet")
    assert set(deployment_guarantees(RunDir(few), "few", ["few"]).intervals or ()) == {"0.5", "0.8"}
    table = rows(few, tmp_path, str(folder / "0.png"))
    assert table[["low", "high"]].isna().all(axis=None)
    assert "--coverage 0.9: cannot be guaranteed from 8 validation images" in capsys.readouterr().err
    for level, said in (("0.9", "it needs 9 or more"), ("0", "must lie between 0 and 1")):
        assert main(["predict", str(few), str(folder / "0.png"), "--align", "none", "--coverage", level]) == 2
        assert said in capsys.readouterr().err
    file = open_exported(run / "export" / "model.ts", trusted=True)
    assert " people, for new people" in format_interval(ExportedEstimator(file).interval(0.8))
    content = file.card.to_json()
    del content["promises"]["intervals"]["0.8"][
        "people"
    ]  # as files have it that were written before people were counted
    del content["promises"]["intervals"]["0.9"]
    file.card = read_card(file.path, json.dumps(content))
    with Predictor(ExportedEstimator(file)) as model:
        assert " people" not in format_interval(model.interval(0.8))
        assert model.predict([folder / "0.png"], faces="none")["low"].isna().all()
        with pytest.raises(UserError, match=r"--coverage 0.85: the card of .* knows only 0.5, 0.8;"):
            model.predict([folder / "0.png"], faces="none", level=0.85)


def test_an_exported_file_is_opened_on_the_device_that_was_asked_for(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(estimators, "resolve_device", torch.device)
    monkeypatch.setattr(estimators, "ExportedEstimator", lambda file: file)
    monkeypatch.setattr(estimators, "open_exported", lambda path, trusted, device: asked.append(device))
    estimators.load_estimator(run / "export" / "model.ts", trusted=True, device="cuda:1")
    assert asked == ["cuda:1"]


def test_a_label_does_not_contradict_itself() -> None:
    face = predictor.FacePrediction("a", 0, None, 24.97, np.nan, 18.0, 33.0, "")
    assert face_caption(face, 25) == "24.9 (18-33) check"
    assert face_caption(face) == "25 (18-33)"
    for tenths in range(1000):
        assert face_caption(face._replace(age=tenths / 10), 25).startswith(f"{tenths / 10} ")


def test_paths_on_standard_input(run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder / '1.png'}\n{folder / '0.png'}\n"))
    assert [Path(name).name for name in rows(run, tmp_path, "-")["input"]] == ["1.png", "0.png"]


def test_a_name_that_is_no_text_is_a_row(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b"caf\xe9.jpg\n" + bytes(folder / "0.png") + b"\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    table = rows(run, tmp_path, "-")
    assert table["input"].iloc[0] == r"caf\udce9.jpg"
    assert "cannot be read" in table["error"].iloc[0]
    assert table["error"].iloc[1] == ""


def test_a_folder_that_cannot_be_read_is_no_empty_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(path: str) -> Any:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", closed)
    with pytest.raises(UserError, match=r"photos/more: this folder cannot be read \(Permission denied\)"):
        expand_inputs([str(folder)], [])


def test_a_broken_video_is_found_before_the_images_are_predicted(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "film.mp4").write_text("a text")
    monkeypatch.setattr("agebench.inference.batch_predict._images", lambda *_: pytest.fail("predicted"))
    words = ["predict", str(run), str(folder), str(tmp_path / "film.mp4"), "--align", "none"]
    assert main([*words, "--out", str(tmp_path / "ages.csv")]) == 2
    assert "film.mp4: not a video that can be read" in capsys.readouterr().err


def test_an_address_is_not_asked_by_a_cluster(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "aws-rekognition", str(folder), "--executor", "ray"]) == 2
    assert "'aws-rekognition' is asked over HTTP, by one machine at a time" in capsys.readouterr().err


def test_an_image_counts_by_all_its_faces() -> None:
    summary = PredictSummary()
    nan = float("nan")
    place = FacePrediction("a.jpg", 0, None, nan, nan, nan, nan, "no answer")
    summary.add([place, place._replace(face=1, age=30.0, error="")], "a.jpg")
    assert (summary.images, summary.faces, summary.without) == (1, 1, 0)
    summary.add([place, place], "b.jpg")
    assert (summary.images, summary.faces, summary.without, summary.reason) == (2, 1, 1, "b.jpg: no answer")


def test_another_file_or_card_of_the_same_name_has_another_digest(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    digests = set()
    for size, code in ((32, "a = 1"), (48, "a = 1"), (48, "a = 2")):
        (tmp_path / "models" / "theirs.py").write_text(code)
        (tmp_path / "models" / "theirs.toml").write_text(
            'name = "theirs"\nkind = "external"\ntitle = "Theirs"\nformat = "callable"\nsource = "theirs.py:f"\n'
            f'licence = "ours"\n[input]\nsize = {size}\ncoverage = 1.2\n[output]\nkind = "age"\n'
        )
        digests.add(estimators.content_digest("theirs", load_catalog([tmp_path])))
    assert len(digests) == 3


def test_a_path_that_cannot_be_is_a_row(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"a.jpg\0b.jpg\n{'x' * 5000}\n{folder / '0.png'}\n"))
    table = rows(run, tmp_path, "-", "--annotate-dir", str(tmp_path / "drawn"))
    assert table["input"].iloc[0] == r"a.jpg\x00b.jpg"
    assert "leave out -print0" in table["error"].iloc[0]
    assert "cannot be read" in table["error"].iloc[1]
    assert table["error"].iloc[2] == ""
    assert "\0" not in capsys.readouterr().err


def test_a_folders_images_of_other_formats_are_counted(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face(4).save(folder / "more" / "5.JFIF", "JPEG")
    for name in ("a.HEIC", "more/b.heic", "c.dng", ".d.heic", "notes.txt"):
        (folder / name).touch()
    table = rows(run, tmp_path, str(folder))
    assert Path(table["input"].iloc[-1]).name == "5.JFIF"
    assert table["error"].iloc[-1] == ""
    assert "left out: 3 images of formats that are not read here: 1 .dng, 2 .heic" in capsys.readouterr().err
    phone = tmp_path / "phone"
    phone.mkdir()
    (phone / "a.avif").touch()
    with pytest.raises(
        UserError, match=r"holds no image.*; it holds 1 image of formats that are not read here: 1 \.avif"
    ):
        expand_inputs([str(phone)], [])


def test_only_a_colon_makes_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("camera_roll").mkdir()
    for place in ("camera.jpg", "camera_roll/1.jpg"):
        face(1).save(place)
    parts = expand_inputs(["camera_roll/", "camera.jpg", "camera*.jpg", "camera:0"], [])
    assert [part.paths for part in parts] == [("camera_roll/1.jpg", "camera.jpg", "camera.jpg"), ("camera:0",)]
    for word in ("camera", "camera0", "camera:", "camera:x"):
        with pytest.raises(UserError, match=r"no such file or folder; a camera is written camera:0"):
            expand_inputs([word], [])


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_an_interruption_leaves_nothing_half_written(
    run: Path, folder: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", interrupted(folder))
    out = tmp_path / "out"
    words = ["--align", "none", "--workers", "1", "--out", str(out / f"ages{suffix}")]
    assert main(["predict", str(run), "-", *words]) == 130
    assert list(out.iterdir()) == []


def test_an_interruption_leaves_whole_lines(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", interrupted(folder))
    assert main(["predict", str(run), "-", "--align", "none", "--workers", "1"]) == 130
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert len(table) == 128  # the batches that were done
    assert table["age"].notna().all()


def interrupted(folder: Path) -> Iterator[str]:
    """Paths, and Ctrl-C in the middle of them."""
    for number in range(150):
        yield f"{folder / f'{number % 3}.png'}\n"
    raise KeyboardInterrupt


def test_pictures_are_drawn(run: Path, folder: Path, tmp_path: Path) -> None:
    rows(run, tmp_path, str(folder), "--annotate-dir", str(tmp_path / "drawn"))
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == ["0.jpg", "1.jpg", "2.jpg", "4.jpg"]
    drawn, plain = (
        np.asarray(Image.open(file).convert("RGB"), float) for file in (tmp_path / "drawn/0.jpg", folder / "0.png")
    )
    assert drawn.shape == plain.shape
    assert np.abs(drawn - plain).mean() > 1


def test_drawing_replaces_nothing(run: Path, folder: Path, tmp_path: Path) -> None:
    face(0).save(folder / "0.jpg")
    film = video(tmp_path / "film.mp4", frames=1)
    (folder / "film.mp4").symlink_to(film)
    originals = {path: path.read_bytes() for path in (folder / "0.jpg", film)}
    given = [str(folder / "0.jpg"), str(folder / "0.png"), str(film)]
    for _ in range(2):
        rows(run, tmp_path, *given, "--annotate-dir", str(folder))
    assert {path: path.read_bytes() for path in originals} == originals
    made = sorted(path.name for path in folder.glob("*-*"))
    assert made == ["0-2.jpg", "0-3.jpg", "0-4.jpg", "0-5.jpg", "film-2.mp4", "film-3.mp4"]


def test_equal_names_are_not_tried_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, asked = set[Path](), []
    monkeypatch.setattr("os.path.lexists", lambda path: asked.append(path) or path in there)
    names = _FreeNames()
    for number in range(1000):
        there.add(names.free(tmp_path, f"{number}/photo.jpg", ".jpg"))
    assert len(there) == 1000
    assert len(asked) < 2000


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


def test_faces_of_frames_between_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []

    class Once:
        def detect(self, image: Image.Image) -> list[Place]:
            searched.append(image.size)
            left = float(len(searched))
            return [Place((left, 0.0, left + 20, 20.0), np.array([[8.0, 8], [16, 8], [12, 16]]))]

    monkeypatch.setattr(face_extraction, "open_detector", lambda name: Once())
    frames = [np.zeros((64, 64, 3), np.uint8)] * 5 + [np.zeros((32, 64, 3), np.uint8)]
    found = face_extraction.FaceExtractor(AlignmentSpec("detect", SIZE, 1.0), search=32, every=3)(frames)
    assert searched == [(32, 32), (32, 32), (32, 16)]  # another size is another scene
    assert [one.boxes[0][0] for one in found] == [2, 2, 2, 4, 4, 6]  # type: ignore[index]


@pytest.mark.parametrize("every", [1, 5, 16, 17, 100])
def test_few_frames_are_held(every: int) -> None:
    finder = face_extraction.FaceExtractor(AlignmentSpec("detect", SIZE, 1.0), every=every)
    how = predictor._division("memory", finder, 64)
    assert how["chunk"] == every
    assert how["workers"] * how["prefetch"] * every <= max(32, every)
    assert (how["workers"] > 1) == (every <= 16)
    assert predictor._division("memory", finder, 1)["workers"] == 1
    assert predictor._division("image", finder, 64)["workers"] == 1


def test_a_video_is_rows_of_frames_and_a_drawn_video(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = rows(run, tmp_path, str(video(tmp_path / "film.mp4")), "--annotate-dir", str(tmp_path / "drawn"))
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


def test_the_manuals_commands_run(run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On generated faces; all but the camera's, which no test machine has."""
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "predict.md").read_text(encoding="utf-8")
    shown = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    lines = [line.split("  #")[0].rpartition("| ")[2].strip() for line in shown if "camera:" not in line]
    assert len(lines) >= 6
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "more", "holiday/more")
    shutil.copytree(folder / "more", "crops")
    for place in ("photo.jpg", "holiday/more/4.jpg"):
        face(1).save(place)
    video(Path("film.mp4"), frames=1)
    for line in lines:
        words = line.replace("model.onnx", "RUN/export/model.ts --allow-code-execution").replace("RUN", str(run))
        monkeypatch.setattr("sys.stdin", io.StringIO("photo.jpg\n"))
        assert main(shlex.split(words)[1:]) == 0, line
    assert sorted(file.name for file in Path("drawn").iterdir()) == ["4.jpg", "film.mp4", "photo.jpg"]


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
        (run, tmp_path / "*.tiff", "no file matches this pattern"),
        (run, sound, "no video stream in it, only audio"),
        (run, tmp_path / "text.mp4", "not a video that can be read"),
        (run, "camera:7", "no camera can be opened"),
        (run, f"{run} --detector nobody", "no detector called 'nobody'"),
        (unfinished, sound, "this run is not finished"),
        ("nothing", sound, "no such folder or file, and no model's card of this name"),
    ):
        out = tmp_path / "out.csv"
        assert main(["predict", str(model), *str(given).split(), "--out", str(out)]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("agebench: ")]
        assert said in line
        assert not out.exists()
    assert main(["predict", str(run), "camera:7", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_a_single_bad_image_is_no_crash_but_a_failure(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jpg").write_text("a text")
    assert main(["predict", str(run), str(tmp_path / "text.jpg")]) == 1
    assert "1 without an age, the first" in capsys.readouterr().err
    monkeypatch.setattr(face_extraction, "MAX_BYTES", 5)
    with agebench.load(run) as model:
        assert "larger than" in model.predict([tmp_path / "text.jpg"])["error"].item()


def other_onnx(path: Path) -> Path:
    """A model of somebody else: it doubles what it gets."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", ends[:1], ends[1:])
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    return path


def copy_of(run: Path, place: Path, old: str, new: str) -> Path:
    """The run, its config changed."""
    shutil.copytree(run, place)
    config = (run / "config.toml").read_text()
    assert old in config
    (place / "config.toml").write_text(config.replace(old, new))
    return without_digests(place)


def without_digests(run: Path) -> Path:
    """The run as of an agebench that kept no digests of its files."""
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({key: value for key, value in manifest.items() if key != "files"}))
    return run


def test_models_that_cannot_be_asked(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    another = copy_of(run, tmp_path / "another", 'head = "regression"', 'head = "gaussian"')
    huge = copy_of(run, tmp_path / "huge", "[data]", "[data]")
    with (huge / "checkpoints" / "best.safetensors").open("ab") as file:
        file.truncate(9 * 1024**3)  # sparse: it takes no room
    for model, *said in (
        (other_onnx(tmp_path / "other.onnx"), "not a model that `agebench export` wrote", "docs/how-to/estimators.md"),
        (run / "export" / "model.ts", "a .ts file is a program", "--allow-code-execution"),
        (another, "a checkpoint of another model", "is (1,) in the file and (2,) in the model"),
        (huge, "9,663,676,416 bytes are more than a checkpoint may have"),
        ("tiny", "has to be trained first", "agebench run --train"),
    ):
        assert main(["predict", str(model), str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert all(part in line for part in said), line


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


def stretched(path: Path, ratio: Fraction, options: dict[str, str] | None = None) -> Path:
    """Twelve frames of 128 x 96 stored pixels."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = ratio
        for _ in range(12):
            pixels = noise.integers(0, 256, (96, 128, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_start_at_zero_and_have_square_pixels(tmp_path: Path) -> None:
    with open_video(str(stretched(tmp_path / "film.mts", Fraction(4, 3)))) as film:
        frames = [*film.frames()]
    assert [frame.time for frame in frames] == pytest.approx([0.04 * number for number in range(12)])
    assert {frame.pixels.shape for frame in frames} == {(96, 171, 3)}


class Late:
    """A container whose first packets are not there yet, as a camera's."""

    def __init__(self, film: Video) -> None:
        self.calls, self._film = 0, film._container

    def demux(self, stream: Any) -> Iterator[Any]:
        self.calls += 1
        if self.calls < 3:
            raise BlockingIOError(11, "not yet")
        yield from self._film.demux(stream)


def test_a_camera_that_has_no_frame_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av.error.BlockingIOError", BlockingIOError)
    with open_video(str(video(tmp_path / "film.mp4"))) as film:
        film._container = late = Late(film)
        assert len([*film.frames()]) == 3
    assert late.calls == 3


def test_a_video_without_a_frame_is_found_before_the_images_are_predicted(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its header comes first and is whole, as of a download that broke off."""
    header_first = {"movflags": "faststart"}
    whole = stretched(tmp_path / "whole.mp4", Fraction(1), header_first).read_bytes()
    (tmp_path / "film.mp4").write_bytes(whole[: whole.index(b"mdat") + 8])
    monkeypatch.setattr("agebench.inference.batch_predict._images", lambda *_: pytest.fail("predicted"))
    assert main(["predict", str(run), str(folder), str(tmp_path / "film.mp4"), "--align", "none"]) == 2
    assert "film.mp4: not one frame of its video can be decoded" in capsys.readouterr().err

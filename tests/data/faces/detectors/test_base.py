"""Detectors as plugins: what is found lands on the template, and what breaks the contract stops with one sentence."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.cli import main
from agebench.config.cards.dataset import DatasetCard
from agebench.config.run import FacesConfig
from agebench.data.faces.alignment import AlignmentSpec, align_or_crop
from agebench.data.faces.cache import load_or_build_face_cache
from agebench.data.faces.detectors.base import Detection, Detector, detectors
from agebench.data.readers.synth import SynthReader
from agebench.data.samples import Samples
from agebench.errors import AgebenchError, ImageRejectedError
from agebench.plugins.testing import ContractViolation, check_detector
from agebench.runs.resolve import alignment_spec

BOX, POINTS = (20.0, 20.0, 90.0, 90.0), np.array([[35.0, 40], [75, 40], [55, 70]])


class Middle(Detector):
    """The same face in every picture that is not of one colour."""

    answer: ClassVar[Any] = [Detection((0.0, 0.0, 5.0, 5.0), POINTS + 1), Detection(BOX, POINTS)]

    def detect(self, image: Image.Image) -> Any:
        return self.answer if np.ptp(np.asarray(image), axis=(0, 1)).any() else []


class Raising(Middle):
    def detect(self, image: Image.Image) -> Any:
        raise KeyError("weights")


class Beside(Middle):
    answer: ClassVar[Any] = [Detection((5000.0, 10.0, 5100.0, 90.0), POINTS)]


class NoNumbers(Middle):
    answer: ClassVar[Any] = [Detection(BOX, POINTS * np.nan)]


class TwoPoints(Middle):
    answer: ClassVar[Any] = [Detection(BOX, POINTS[:2])]


class Swapped(Middle):
    answer: ClassVar[Any] = [Detection(BOX, POINTS[[1, 0, 2]])]


class Boxes(Middle):
    answer: ClassVar[Any] = [(1, 2, 3, 4)]


class Everywhere(Middle):
    def detect(self, image: Image.Image) -> Any:
        return [Detection((0.0, 0.0, 1.0, 1.0), np.array([[0.2, 0.3], [0.8, 0.3], [0.5, 0.6]]))]


class Restless(Middle):
    def detect(self, image: Image.Image) -> Any:
        return (
            [Detection(BOX, POINTS + np.random.default_rng().random())]
            if np.ptp(np.asarray(image), axis=(0, 1)).any()
            else []
        )


class NeedsMore(Middle):
    def __init__(self, weights: str) -> None:
        self.weights = weights


BROKEN = {
    Raising: "KeyError",
    Beside: "lies outside the image",
    NoNumbers: "not finite (NaN)",
    TwoPoints: "of the shape (2, 2)",
    Swapped: "the eye on the image's left",
    Boxes: "gives tuple where a face should be",
    Everywhere: "there is none",
    Restless: "must be deterministic",
    NeedsMore: "cannot be made without arguments",
    int: "is no subclass of",
}


@pytest.fixture(autouse=True)
def registered() -> None:
    for kind in (Middle, Raising, Beside, NoNumbers):
        detectors.register(f"test-{kind.__name__.lower()}", kind)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_each_breach_is_one_sentence(kind: Any) -> None:
    with pytest.raises(ContractViolation) as raised:
        check_detector(kind)
    assert BROKEN[kind] in str(raised.value)
    assert "agebench.data.faces.detectors.base.Detector" in str(raised.value)


def test_a_good_one_passes_and_so_does_the_built_in_one() -> None:
    assert "6 drawn faces, of which it found 12" in check_detector(Middle)
    pytest.importorskip("dlib")
    check_detector("dlib")


def test_the_largest_face_is_brought_to_the_template() -> None:
    image = SynthReader(None, count=1, size=112)
    pixels = np.zeros((112, 112, 3), dtype=np.uint8)
    pixels[36:44, 31:39] = 255  # about the first eye
    spec = AlignmentSpec("detect", 112, detector="test-middle")
    face = align_or_crop(Image.fromarray(pixels), spec)
    rows, columns, _ = np.nonzero(face > 128)
    assert np.abs([columns.mean() - spec.template()[0, 0], rows.mean() - spec.template()[0, 1]]).max() < 4
    assert image.needs_files is False
    with pytest.raises(ImageRejectedError, match="no face found"):
        align_or_crop(Image.new("RGB", (50, 50)), spec)


@pytest.mark.parametrize("kind", [Raising, Beside, NoNumbers], ids=lambda kind: kind.__name__)
def test_a_broken_plugin_stops_the_work_with_its_name_and_the_image(kind: Any) -> None:
    reader = SynthReader(None, count=3)
    samples = reader.read()
    table = samples.table.assign(bytes_digest=list("abc"), pixels_digest=list("abc"))
    spec = AlignmentSpec("detect", 64, detector=f"test-{kind.__name__.lower()}")
    with pytest.raises(AgebenchError) as raised:
        load_or_build_face_cache(reader, Samples(table, samples.groups), spec, name="x")
    assert f"synth-000000.png: detector 'test-{kind.__name__.lower()}' broke its contract" in str(raised.value)
    assert BROKEN[kind].split()[0] in str(raised.value)


def test_the_detector_is_part_of_the_cache_s_key() -> None:
    keys = [AlignmentSpec("detect", 64, detector=name).key() for name in ("dlib", "test-middle")]
    assert keys[1]["detector"]["name"] == "test-middle"
    assert repr(keys[0]) != repr(keys[1])


def test_the_setting_wins_over_the_card() -> None:
    card = DatasetCard(name="x", title="x", reader="folder", licence="x", detector="test-middle")
    assert alignment_spec(FacesConfig(), card, 64).detector == "test-middle"
    assert alignment_spec(FacesConfig(detector="dlib"), card, 64).detector == "dlib"
    assert alignment_spec(FacesConfig(mode="none"), card, 64).mode == "none"


@pytest.fixture
def cards(tmp_path: Path) -> list[str]:
    """The option that adds a small dataset."""
    (tmp_path / "cards" / "datasets").mkdir(parents=True)
    card = 'name = "few"\ntitle = "Few"\nreader = "synth"\nlicence = "CC0-1.0"\nfaces = "none"\ngroups = ["gender"]\n'
    (tmp_path / "cards" / "datasets" / "few.toml").write_text(f"{card}[options]\ncount = 50\n")
    return ["--registry", str(tmp_path / "cards")]


def test_data_faces_reports_failures_by_group(
    cards: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["data", "faces", "few", *cards, "--limit", "40", "--size", "64", "--out", str(out)]
    assert main([*words, "--set", "faces.mode=detect", "--set", "faces.detector=test-middle"]) == 0
    assert "every one of 40 images" in capsys.readouterr().out
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {"report.md", "report.html", "faces.json", "failed.csv", "figures/before-after.png"}
    assert pd.read_csv(out / "failed.csv").empty


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["utk"], 2, "agebench data import utk PATH"),
        (["few", "--set", "faces.detector=dlb"], 2, "did you mean 'dlib'?"),
        (["few", "--set", "faces.covrage=2"], 2, "did you mean 'coverage'?"),
        (["few", "--set", "faces.mode=landmarks"], 2, "names no landmark_points"),
        (["few", "--set", "train.lr=1"], 2, "only faces.… can be set"),
        (["few", "--size", "3"], 2, "between 16 and 1024"),
        (
            ["few", "--limit", "2", "--set", "faces.mode=detect", "--set", "faces.detector=test-raising"],
            1,
            "KeyError",
        ),
    ],
)
def test_mistakes_leave_nothing_behind(
    words: list[str], code: int, message: str, cards: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "faces", *words, *cards, "--out", str(tmp_path / "out")]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

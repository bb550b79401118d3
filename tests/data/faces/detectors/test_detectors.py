"""The built-in detectors: their contract, the choice of the default one, and faces in pixels of the photograph."""

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.cli import main
from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.detectors import base, yunet
from agebench.data.faces.detectors.base import Detection, Detector, default_detector, detectors, open_detector
from agebench.data.faces.detectors.five_points import Search, detection_from_points, search_faces
from agebench.data.image_io import open_image
from agebench.data.synthetic.renderer import DomainShift, Person, draw_face
from agebench.errors import UserError
from agebench.plugins.testing import check_detector

NAMES = ("yunet", "blazeface", "mtcnn", "libfacedetection", "dlib")
POINTS = np.array([[30.0, 40], [70, 40], [50, 60], [35, 80], [65, 80]])


@pytest.fixture
def photograph() -> Image.Image:
    """A drawn face of 300 px in a photograph of 500 px."""
    person = Person("female", "medium", 0, 0, 1.0, 0.0, 0.0, False)
    face = draw_face(person, 30.0, DomainShift(0.0, 0.0, 0.0), np.random.default_rng(3), 300)
    ground = Image.new("RGB", (500, 500), (120, 125, 130))
    ground.paste(face, (60, 140))
    return ground


@pytest.fixture
def fresh_default() -> Iterator[Callable[[], None]]:
    """Forget the choice of the default detector, now and after the test."""
    default_detector.cache_clear()
    yield default_detector.cache_clear
    default_detector.cache_clear()


def skip_unless_installed(name: str) -> None:
    if not detectors.get(name).is_installed():
        pytest.skip(f"the packages of '{name}' are not installed")


@pytest.mark.parametrize("name", NAMES)
def test_built_in_detector_keeps_its_contract(name: str) -> None:
    skip_unless_installed(name)
    assert check_detector(name).endswith("of which it found 6")


@pytest.mark.parametrize("name", NAMES)
def test_landmarks_of_an_enlarged_photograph_are_enlarged(name: str, photograph: Image.Image) -> None:
    skip_unless_installed(name)
    detector = open_detector(name)
    (face,), (large,) = detector.detect(photograph), detector.detect(photograph.resize((1000, 1000)))
    eyes = np.linalg.norm(face.landmarks[0] - face.landmarks[1])
    assert np.abs(large.landmarks / 2 - face.landmarks).max() < 0.15 * eyes
    assert np.abs(np.array(large.box) / 2 - face.box).max() < 0.3 * eyes
    left, right, nose = face.landmarks
    assert left[0] < nose[0] < right[0]
    assert nose[1] > max(left[1], right[1]) + 0.3 * eyes


def test_yunet_agrees_with_dlib_on_the_landmarks(photograph: Image.Image) -> None:
    skip_unless_installed("yunet")
    skip_unless_installed("dlib")
    (face,), (other,) = (open_detector(name).detect(photograph) for name in ("yunet", "dlib"))
    eyes = np.linalg.norm(other.landmarks[0] - other.landmarks[1])
    assert np.linalg.norm(face.landmarks - other.landmarks, axis=1).max() < 0.2 * eyes


def test_yunet_weights_are_those_of_opencv() -> None:
    digest = hashlib.sha256(yunet.WEIGHTS.read_bytes()).hexdigest()
    assert digest == "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
    assert "MIT License" in (yunet.WEIGHTS.parent / "LICENSE.yunet.txt").read_text()


def test_yunet_in_several_threads_gives_the_same_faces(photograph: Image.Image) -> None:
    skip_unless_installed("yunet")
    images = [photograph.resize((side, side)) for side in (180, 260, 340, 500)]
    expected = [yunet.YuNetDetector().detect(image)[0].box for image in images]
    boxes: dict[int, list[tuple[float, ...]]] = {}

    def detect(number: int) -> None:
        boxes[number] = [yunet.YuNetDetector().detect(images[number])[0].box for _ in range(5)]

    threads = [threading.Thread(target=detect, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert boxes == {number: [expected[number]] * 5 for number in range(len(images))}


def test_default_detector_is_the_first_installed_one(
    fresh_default: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"yunet": True, "dlib": True}
    for name in installed:
        monkeypatch.setattr(
            detectors.get(name), "is_installed", classmethod(lambda cls, name=name: installed[name]), raising=True
        )
    choices = []
    for installed["yunet"], installed["dlib"] in ((True, True), (True, False), (False, True), (False, False)):
        fresh_default()
        choices.append(AlignmentSpec("detect", 64).detector)
    assert choices == ["yunet", "yunet", "dlib", "yunet"]
    assert choices[-1] == base.DEFAULT_DETECTOR


def test_cache_key_names_detector_version_and_packages() -> None:
    skip_unless_installed("yunet")
    key = AlignmentSpec("detect", 64, detector="yunet").key()["detector"]
    assert isinstance(key, dict)
    assert (key["name"], key["version"]) == ("yunet", yunet.YuNetDetector.version)
    assert list(key["packages"]) == ["opencv-python-headless"]


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(Detector):
        packages = ("no-such-package",)

        def detect(self, image: Image.Image) -> list[Detection]:
            return []

    assert not Absent.is_installed()
    with pytest.raises(UserError, match="pip install no-such-package"):
        Absent().key()
    monkeypatch.setattr(yunet, "_networks", threading.local())
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install 'agebench\[detect\]'"):
        yunet.YuNetDetector().detect(Image.new("RGB", (50, 50)))


def test_search_goes_on_until_faces_are_detected() -> None:
    shapes = []

    def find(pixels: np.ndarray) -> list[Detection]:
        shapes.append(pixels.shape[:2])
        return [detection_from_points((20, 30, 80, 95), POINTS, 0.9)] if len(shapes) == 3 else []

    searches = (Search(400), Search(400), Search(100), Search(100, border=0.25), Search(50))
    (face,) = search_faces(Image.new("RGB", (200, 400)), searches, find)
    assert shapes == [(400, 200), (100, 50), (150, 100)]  # the second search would repeat the first
    assert np.allclose(face.box, (4 * -5, 4 * 5, 4 * 55, 4 * 70))
    assert face.five_points is not None
    assert np.allclose(face.five_points, 4 * (POINTS - 25))
    assert np.allclose(face.landmarks[:2], 4 * (POINTS[:2] - 25))
    nose_base = POINTS[2] + 0.4 * (POINTS[3:].mean(axis=0) - POINTS[2])
    assert np.allclose(face.landmarks[2], 4 * (nose_base - 25))


def test_search_leaves_out_faces_beyond_the_image() -> None:
    def find(pixels: np.ndarray) -> list[Detection]:
        return [detection_from_points((0, 0, 20, 20), POINTS, 0.9)] if pixels.shape[0] == 150 else []

    assert search_faces(Image.new("RGB", (100, 100)), (Search(100), Search(100, border=0.25)), find) == []


def test_five_points_of_another_shape_break_the_contract() -> None:
    face = Detection((20.0, 20.0, 90.0, 90.0), POINTS[:3], 0.5, POINTS[:4])
    assert "five_points of the shape (4, 2)" in base.validate_detection(face, (100, 100))
    assert base.validate_detection(detection_from_points(face.box, POINTS, 0.5), (100, 100)) == ""


@pytest.mark.slow
def test_yunet_detects_the_faces_of_fgnet(test_data: Path) -> None:
    import zipfile

    skip_unless_installed("yunet")
    detector, errors = open_detector("yunet"), []
    with zipfile.ZipFile(test_data / "FGNET.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(".jpg"))[::10]
        points = {name.lower(): name for name in archive.namelist() if name.lower().endswith(".pts")}
        for name in names:
            text = archive.read(points[name.lower().replace("images", "points").replace(".jpg", ".pts")]).decode()
            numbers = [float(word) for word in text.split("{")[1].split("}")[0].split()]
            annotated = np.array(numbers).reshape(-1, 2)[[31, 36, 41]]  # pupils and nose base
            faces = base.detect_faces(detector, open_image(archive.read(name)), name="yunet")
            if faces:
                distance = np.linalg.norm(annotated[0] - annotated[1])
                errors.append(np.linalg.norm(faces[0].landmarks - annotated, axis=1) / distance)
    assert len(errors) >= len(names) - 1
    assert np.median(errors, axis=0).max() < 0.1


def test_list_names_the_default_and_what_is_not_installed(
    fresh_default: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detectors.get("dlib"), "is_installed", classmethod(lambda cls: True))
    monkeypatch.setattr(detectors.get("yunet"), "is_installed", classmethod(lambda cls: False))
    fresh_default()
    assert main(["list", "detectors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  yunet             not installed: pip install 'agebench[detect]'" in lines
    assert "  dlib              the default" in lines

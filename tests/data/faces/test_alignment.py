import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agebench.config.cards.external import ExternalInput
from agebench.config.run import FacesConfig
from agebench.data.faces.alignment import TEMPLATE, AlignmentSpec, align_or_crop, estimate_similarity
from agebench.data.faces.detectors import dlib
from agebench.data.image_grid import make_contact_sheet
from agebench.data.image_io import open_image
from agebench.errors import ImageRejectedError, UserError

THREE = (0, 1, 2)


def photograph(width: int, height: int, points: np.ndarray) -> Image.Image:
    """A grey picture with a red, a green and a blue disc at the three points."""
    pixels = np.full((height, width, 3), 90, dtype=np.uint8)
    rows, columns = np.indices((height, width)) + 0.5
    for channel, (x, y) in enumerate(points):
        pixels[(columns - x) ** 2 + (rows - y) ** 2 < (0.035 * np.ptp(points[:, 0])) ** 2 + 9, channel] = 255
    return Image.fromarray(pixels)


def discs(face: np.ndarray) -> np.ndarray:
    """Where the three discs lie, (3, 2), pixels."""
    found = []
    for channel in range(3):
        weight = np.clip(face[..., channel].astype(float) - face.astype(float).mean(axis=2) - 20, 0, None)
        rows, columns = np.indices(weight.shape) + 0.5
        found.append(((weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()))
    return np.array(found)


@given(
    angle=st.floats(-0.6, 0.6),
    scale=st.floats(0.8, 5),
    x=st.floats(-20, 60),
    y=st.floats(-20, 60),
)
def test_a_similarity_is_recovered(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = estimate_similarity(TEMPLATE * 112, TEMPLATE * 112 @ turn.T + [x, y])
    np.testing.assert_allclose(found, np.column_stack([turn, [x, y]]), atol=1e-9)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    mirrored = TEMPLATE * [-1, 1] + [1, 0]
    assert np.linalg.det(estimate_similarity(TEMPLATE, mirrored)[:, :2]) > 0


@pytest.mark.parametrize(("scale", "angle"), [(1.0, 0.0), (3.7, 0.2), (0.6, -0.4)])
@pytest.mark.parametrize("coverage", [1.0, 1.4])
def test_annotated_points_end_on_the_template(scale: float, angle: float, coverage: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - 0.5) * 200 @ turn.T + [500, 450]
    spec = AlignmentSpec("landmarks", 112, coverage, THREE)
    face = align_or_crop(photograph(1000, 900, points), spec, points.ravel().tolist())
    assert face.shape == (112, 112, 3)
    np.testing.assert_allclose(discs(face), spec.template(), atol=0.7)


def test_none_keeps_the_frame_whatever_the_shape() -> None:
    spec = AlignmentSpec("none", 112)
    square = align_or_crop(photograph(200, 200, TEMPLATE * 200), spec)
    np.testing.assert_allclose(discs(square), spec.template(), atol=0.5)
    wide = align_or_crop(photograph(300, 200, TEMPLATE * 200 + [50, 0]), spec)
    np.testing.assert_allclose(discs(wide), spec.template(), atol=0.5)
    closer = AlignmentSpec("none", 112, 0.8)
    np.testing.assert_allclose(
        discs(align_or_crop(photograph(200, 200, TEMPLATE * 200), closer)), closer.template(), atol=0.7
    )


def test_outside_the_photograph_its_edge_is_repeated() -> None:
    points = TEMPLATE * 200 - [60, 0]  # a face half out of the picture
    face = align_or_crop(
        Image.new("RGB", (140, 200), (10, 200, 30)), AlignmentSpec("landmarks", 64, 1.0, THREE), points.ravel().tolist()
    )
    assert (np.abs(face.astype(int) - [10, 200, 30]) <= 1).all()


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (None, "no landmarks are annotated"),
        ([1.0, 2.0, 3.0, 4.0], "2 landmarks are annotated"),
        ([5.0, 5.0] * 3, "fall together"),
        ([float("nan")] * 6, "fall together"),
    ],
)
def test_points_that_give_no_face_are_refused(landmarks: list[float] | None, message: str) -> None:
    with pytest.raises(ImageRejectedError, match=message):
        align_or_crop(Image.new("RGB", (50, 50)), AlignmentSpec("landmarks", 32, 1.0, THREE), landmarks)


def test_a_face_of_absurd_size_is_refused() -> None:
    with pytest.raises(ImageRejectedError, match="20,000"):
        align_or_crop(
            Image.new("RGB", (50, 50)), AlignmentSpec("landmarks", 32, 1.0, THREE), [0, 0, 40_000, 0, 20_000, 30_000]
        )


def test_no_face_is_found_in_none() -> None:
    with pytest.raises(ImageRejectedError, match="no face found"):
        align_or_crop(Image.new("RGB", (120, 120), (80, 90, 100)), AlignmentSpec("detect", 64))


def test_without_the_extra_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlib, "_dlib", dlib._dlib.__wrapped__)  # what other tests loaded is not asked
    monkeypatch.setitem(__import__("sys").modules, "dlib", None)
    with pytest.raises(UserError, match=r"pip install 'agebench\[dlib\]'"):
        align_or_crop(Image.new("RGB", (120, 120)), AlignmentSpec("detect", 64, detector="dlib"))


def test_every_setting_is_in_the_key() -> None:
    specs = [
        AlignmentSpec("none", 64),
        AlignmentSpec("none", 65),
        AlignmentSpec("none", 64, 1.1),
        AlignmentSpec("landmarks", 64, 1.0, THREE),
        AlignmentSpec("none", 64, offset=0.1),
    ]
    specs += [AlignmentSpec("landmarks", 64, 1.0, (3, 4, 5)), AlignmentSpec("detect", 64)]
    assert len({repr(spec.key()) for spec in specs}) == len(specs)


def test_a_contact_sheet_shows_all_faces() -> None:
    faces = np.stack([np.full((32, 32, 3), shade, dtype=np.uint8) for shade in (40, 90, 140, 190, 240)])
    sheet = make_contact_sheet(faces, ["a", "b", "c", "d", "e"], columns=3, template=True)
    shades = set(np.asarray(sheet)[..., 0].ravel().tolist())
    assert {40, 90, 140, 190, 240} <= shades


ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
# Crop scale and offset that frame faces as ArcFace's 112 px template does: eyes 0.315 apart, at 0.46 of the height.
ARCFACE_SCALE, ARCFACE_OFFSET = 1.22, 0.12


def test_arcface_template_is_a_scale_and_an_offset() -> None:
    spec = AlignmentSpec("landmarks", 112, ARCFACE_SCALE, THREE, offset=ARCFACE_OFFSET)
    eyes = spec.template()[:2]
    assert np.ptp(eyes[:, 0]) == pytest.approx(np.ptp(ARCFACE[:2, 0]), abs=0.2)
    assert eyes.mean(axis=0) == pytest.approx(ARCFACE[:2].mean(axis=0), abs=1.0)


@pytest.mark.parametrize("mode", ["none", "landmarks", "boxes"])
def test_offset_moves_the_face_down_by_its_share(mode: str) -> None:
    image = photograph(200, 200, TEMPLATE * 200)
    box = [0.0, 0.0, 200.0, 0.0, 200.0, 200.0, 0.0, 200.0]
    landmarks = box if mode == "boxes" else (TEMPLATE * 200).ravel().tolist()
    plain, lower = (AlignmentSpec(mode, 100, 1.5, THREE, offset=offset) for offset in (0.0, 0.1))  # type: ignore[arg-type]
    moved = discs(align_or_crop(image, lower, landmarks)) - discs(align_or_crop(image, plain, landmarks))
    np.testing.assert_allclose(moved, [[0.0, 10.0]] * 3, atol=0.15)


@pytest.mark.parametrize("mode", ["none", "landmarks"])
def test_visible_repeats_the_edge_of_the_crop_outside_it(mode: str) -> None:
    """Whatever lies around the crop's region, the same face comes out; within the region, nothing changes."""
    rng = np.random.default_rng(0)
    inside = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    spec = AlignmentSpec(mode, 100, 1.25, THREE, offset=0.1, visible=1.0)  # type: ignore[arg-type]
    landmarks = (TEMPLATE * 200 + 100).ravel().tolist()
    faces = []
    for _ in range(2):
        photograph = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
        photograph[100:300, 100:300] = inside
        image = Image.fromarray(photograph if mode == "landmarks" else inside)
        faces.append(
            (align_or_crop(image, spec, landmarks), align_or_crop(image, replace(spec, visible=0.0), landmarks))
        )
    (first, first_all), (second, _) = faces
    np.testing.assert_array_equal(first[21:99, 11:89], first_all[21:99, 11:89])
    if mode == "landmarks":  # one pixel beside the border is interpolated with what lies outside
        first, second = first[21:99, 11:89], second[21:99, 11:89]
    np.testing.assert_array_equal(first, second)
    whole = faces[0][0]
    assert (whole[:20] == whole[20]).all()
    assert (whole[:, :10] == whole[:, 10:11]).all()
    assert (whole[:, 90:] == whole[:, 89:90]).all()


def test_offset_of_zero_leaves_template_and_cache_key_alone() -> None:
    spec = AlignmentSpec("landmarks", 64, 1.3, THREE)
    assert np.array_equal(spec.template(), ((TEMPLATE - 0.5) / 1.3 + 0.5) * 64)
    assert spec.key() == {"version": 2, "mode": "landmarks", "size": 64, "coverage": 1.3, "points": THREE}
    assert len({repr(other.key()) for other in (spec, replace(spec, offset=0.1), replace(spec, visible=1.0))}) == 3
    assert not {"offset", "visible"} & set(ExternalInput().model_dump() | FacesConfig().model_dump())


@pytest.mark.slow
def test_fgnet_points_land_where_arcface_puts_them(test_data: Path) -> None:
    """Our eyes and nose base with scale and offset, against ArcFace's similarity of five annotated points.

    ArcFace's template is longer than faces are, so that its five points frame faces closer than its eyes alone.
    """
    spec = AlignmentSpec("landmarks", 112, 1.14, (31, 36, 41), offset=0.135)
    differences = []
    with zipfile.ZipFile(test_data / "FGNET.zip") as archive:
        for name in [name for name in archive.namelist() if name.lower().endswith(".pts")][::9]:
            text = archive.read(name).decode()
            points = np.array([float(word) for word in text.split("{")[1].split("}")[0].split()]).reshape(-1, 2)
            five = points[[31, 36, 67, 48, 54]]
            places = []
            for template, source in ((ARCFACE, five), (spec.template(), points[[31, 36, 41]])):
                matrix = estimate_similarity(source, template)
                places.append(five @ matrix[:, :2].T + matrix[:, 2])
            differences.append(places[1] - places[0])
    assert len(differences) > 100
    assert np.abs(np.median(differences, axis=0)).max() < 2.0  # pixels of 112


@pytest.mark.slow
def test_the_eyes_of_fgnet_and_utkface_coincide(test_data: Path) -> None:
    """FG-NET by its own points, UTKFace as it is: medians of the eyes' and the nose's places, looked for in the results."""
    size = 112
    with zipfile.ZipFile(test_data / "FGNET.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(".jpg"))[::9]
        points = {name.lower(): name for name in archive.namelist() if name.lower().endswith(".pts")}
        fgnet, residuals = [], []
        for name in names:
            text = archive.read(points[name.lower().replace("images", "points").replace(".jpg", ".pts")]).decode()
            landmarks = [float(word) for word in text.split("{")[1].split("}")[0].split()]
            spec = AlignmentSpec("landmarks", size, 1.0, (31, 36, 41))
            fgnet.append(align_or_crop(open_image(archive.read(name)), spec, landmarks))
            three = np.array(landmarks).reshape(-1, 2)[[31, 36, 41]]
            matrix = estimate_similarity(spec.template(), three)
            residuals.append(np.linalg.solve(matrix[:, :2], (three - matrix[:, 2]).T).T - spec.template())
    typical = np.abs(np.median(residuals, axis=0))
    assert typical.max() < 1  # pixels of 112
    utkface = _some_of_utkface(test_data / "UTKFace.tar.gz", 250, size)
    places = []
    for faces in (fgnet, utkface):
        found = []
        for face in faces:
            try:
                found.append(dlib.find_landmarks(Image.fromarray(face).resize((336, 336))) / 3)
            except ImageRejectedError:
                continue
        assert len(found) > 60
        places.append(np.median(found, axis=0))
    assert np.abs(places[0] - places[1])[:2].max() < 3
    assert np.abs(places[1] - TEMPLATE * size).max() < 3


def _some_of_utkface(path: Path, count: int, size: int) -> list[np.ndarray]:
    import tarfile

    faces: list[np.ndarray] = []
    with tarfile.open(path) as archive:
        for number, member in enumerate(archive):
            if number % 7 == 3 and member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                faces.append(
                    align_or_crop(open_image(io.BytesIO(content.read()).getvalue()), AlignmentSpec("none", size))
                )
            if len(faces) == count:
                break
    return faces

"""Bodies beside faces, from the table of labels to six channels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from agebench.config.cards.model import Augment
from agebench.config.run import FacesConfig
from agebench.data.digests import add_digests
from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.body_crops import (
    MIN_FACE,
    Body,
    Mask,
    body_boxes,
    face_boxes,
    prepare_body,
    prepare_masked_body,
    read_boxes,
    shown_halves,
)
from agebench.data.faces.cache import load_or_build_face_cache
from agebench.data.readers.table import TableReader
from agebench.errors import ImageRejectedError, UserError
from agebench.registry.catalog import load_catalog
from agebench.runs.resolve import model_alignment_spec
from agebench.training.augmentation import Augmenter, normalize

STILL = Augment(flip=0, rotate=0, brightness=0, saturation=0, hue=0)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def folder(root: Path, rows: list[str], header: str = "path,age,body_bbox,body_path") -> Path:
    for number in range(3):
        colour = np.full((40, 60, 3), 50 + 60 * number, np.uint8)
        colour[:, 30:] = 255 - colour[:, 30:]
        Image.fromarray(colour).save(root / f"{number}.png")
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def test_from_the_table_to_six_channels(tmp_path: Path) -> None:
    rows = ["0.png,20,0 0 30 40,", "1.png,30,,2.png", '2.png,40,"[30, 0, 90, 40]",']
    reader = TableReader(folder(tmp_path, rows))
    samples = add_digests(reader, reader.read(), name="few")
    first, second, third = body_boxes(samples)
    assert first == Body("", (0, 0, 30, 40))
    assert second == Body("2.png", None)
    assert third == Body("", (30, 0, 90, 40))
    faces = load_or_build_face_cache(reader, samples, AlignmentSpec("none", 32, bodies=True), name="few", workers=1)
    assert faces.pixels.shape == (3, 32, 32, 6)
    assert faces.rejected == {"2.png": "its body_bbox 30 0 90 40 leaves the image, which is 60 x 40 pixels"}
    body = faces.pixels[0, ..., 3:]
    assert (body[:, :4] == 0).all()  # black beside it: it is narrower than high
    assert (body[:, 6:26] == 50).all()
    alone = load_or_build_face_cache(reader, samples, AlignmentSpec("none", 32), name="few", workers=1)
    assert alone.pixels.shape == (3, 32, 32, 3)
    assert alone.rejected == {}


def test_a_body_does_without_a_face_that_is_not_found(tmp_path: Path) -> None:
    reader = TableReader(folder(tmp_path, ["0.png,20,0 0 30 40,", "1.png,30,,"]))
    samples = add_digests(reader, reader.read(), name="few")
    spec = AlignmentSpec("landmarks", 32, landmark_points=(0, 1, 2), bodies=True)
    faces = load_or_build_face_cache(reader, samples, spec, name="few", workers=1)
    assert list(faces.rejected) == ["1.png"]
    assert (faces.pixels[0, ..., :3] == 0).all()
    assert faces.pixels[0, ..., 3:].any()


@pytest.mark.parametrize(
    ("row", "error"), [("0.png,20,1 2 3,", "is not four numbers"), ("0.png,20,left top 3 4,", "is not four numbers")]
)
def test_a_box_that_is_none(tmp_path: Path, row: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        TableReader(folder(tmp_path, [row])).read()


def test_a_body_outside_the_folder_is_put_aside(tmp_path: Path) -> None:
    samples = TableReader(folder(tmp_path, ["0.png,20,,../../etc/passwd", "1.png,30,,gone.png", "2.png,3,,"])).read()
    assert len(samples) == 1
    reasons = samples.rejected["reason"].tolist()
    assert reasons[0] == "of its body: its path '../../etc/passwd' leads out of the dataset's folder"
    assert reasons[1] == "of its body: no file 'gone.png'"


@pytest.mark.parametrize("box", [(10, 10, 10, 30), (30, 5, 20, 20), (0, 0, float("nan"), 5), (-9, 0, 20, 20)])
def test_a_box_that_holds_nothing(box: tuple[float, ...]) -> None:
    with pytest.raises(ImageRejectedError, match="its body_bbox"):
        prepare_body(Image.new("RGB", (60, 40)), box, 32)


def test_both_halves_are_normalised_and_turned_alike() -> None:
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    pair = torch.cat([images, images], dim=3)
    found = normalize(pair, MEAN, STD)
    assert torch.equal(found[:, :3], found[:, 3:])
    assert torch.equal(found[:, :3], normalize(images, MEAN, STD))
    changed = Augmenter(Augment(), MEAN, STD)(pair, torch.Generator().manual_seed(0))
    assert torch.equal(changed[:, :3], changed[:, 3:])
    assert torch.equal(changed[:, :3], Augmenter(Augment(), MEAN, STD)(images, torch.Generator().manual_seed(0)))


def test_face_or_body_is_blackened_and_never_both() -> None:
    images = torch.full((400, 8, 8, 6), 200, dtype=torch.uint8)
    images[:100, ..., 3:] = 0  # no body: the face stays
    spec = STILL.model_copy(update={"drop_face": 0.3, "drop_body": 0.2})
    seen = Augmenter(spec, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(images, torch.Generator().manual_seed(0))
    face, body = (half.flatten(1).any(1) for half in (seen[:, :3], seen[:, 3:]))
    assert (face | body).all()
    assert face[:100].all()
    assert 0.2 < (~face[100:]).float().mean() < 0.4
    assert 0.1 < (~body[100:]).float().mean() < 0.3


def pictures(root: Path) -> np.ndarray:
    """One photograph of 300 x 240 pixels without a black value."""
    colours = np.random.default_rng(3).integers(1, 256, (240, 300, 3), dtype=np.uint8)
    Image.fromarray(colours).save(root / "all.png")
    return colours


def blackened(
    pixels: np.ndarray, body: list[int], face: list[int] | None, others: list[list[int]]
) -> np.ndarray | None:
    """What the authors' reader makes of a body, pixel by pixel: an independent reading of the rules."""
    height, width = pixels.shape[:2]
    inside = np.zeros((height, width), bool)
    inside[max(0, body[1]) : max(0, body[3]), max(0, body[0]) : max(0, body[2])] = True
    if inside.any(axis=0).sum() < 100 or inside.any(axis=1).sum() < 100:
        return None
    hidden = np.zeros_like(inside)
    for box in ([face] if face else []) + others:
        area = np.zeros_like(inside)
        area[max(0, box[1]) : max(0, box[3]), max(0, box[0]) : max(0, box[2])] = True
        shared = (area & inside).sum() / max(1, (area | inside).sum())
        if box is face or shared >= 0.0001:
            hidden |= area
    left = np.where(hidden[..., None], 0, pixels)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    crop = left[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    return crop if (crop != 0).mean() >= 0.4 else None


BODY = [20, 10, 160, 200]
OTHERS = {
    "nobody": [],
    "a face": [[100, 150, 130, 190]],
    "a person beside": [[150, 0, 290, 230]],
    "a person far away": [[170, 0, 290, 230]],
    "a person over most of it": [[20, 50, 160, 200]],
    "a box that leaves the image": [[-30, -20, 60, 40]],
}


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("face", [None, [60, 20, 100, 70]])
@pytest.mark.parametrize("body", [BODY, [20, 10, 110, 200], [-15, 30, 140, 400]])
def test_a_body_is_masked_as_its_authors_do(
    tmp_path: Path, body: list[int], face: list[int] | None, others: str
) -> None:
    pixels = pictures(tmp_path)
    boxes = [Mask(tuple(map(float, box)), MIN_FACE, False) for box in OTHERS[others]]
    own = [Mask(tuple(map(float, face)), MIN_FACE, True)] if face else []
    expected = blackened(pixels, body, face, OTHERS[others])
    image = Image.fromarray(pixels)
    found = prepare_masked_body(image, Body("", tuple(map(float, body)), (*own, *boxes)), 224)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found == prepare_body(Image.fromarray(expected), None, 224)).all()


PEOPLE = "img_name,age,gender,face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1"


def people(root: Path, *rows: str) -> TableReader:
    pictures(root)
    (root / "lagenda_test.csv").write_text("\n".join([PEOPLE, *(f"all.png,{row}" for row in rows)]) + "\n")
    card = load_catalog().datasets.get("lagenda")
    return TableReader(root, ("gender",), **card.options)


def test_lagenda_rows_have_faces_bodies_and_masks(tmp_path: Path) -> None:
    reader = people(
        tmp_path,
        "30,F,60,20,100,70,20,10,160,200",
        "40,M,200,20,240,70,-1,-1,-1,-1",  # no body
        "50,M,-1,-1,-1,-1,150,0,290,230",  # a body alone
        "-1,-1,180,100,220,150,10,0,290,239",  # nobody knows the age, yet this person is blackened in others
        "60,F,-1,-1,-1,-1,-1,-1,-1,-1",
    )
    samples = add_digests(reader, reader.read(), name="lagenda")
    assert samples.table["age"].tolist() == [30, 40, 50]
    assert sorted(samples.rejected["reason"]) == ["age -1 is outside [0, 120]", "no box of a face"]
    first, second, third = body_boxes(samples, masked=True)
    assert second is None
    assert first is not None
    assert third is not None
    assert [mask.own for mask in first.masks] == [True, False, False]
    assert {mask.box for mask in third.masks} == {
        (20, 10, 160, 200),
        (200, 20, 240, 70),
        (180, 100, 220, 150),
        (10, 0, 290, 239),
    }
    assert face_boxes(samples) == [(60, 20, 100, 70), (200, 20, 240, 70), None]


def test_letterboxed_faces_and_bodies_in_the_cache(tmp_path: Path) -> None:
    reader = people(
        tmp_path, "30,F,60,20,100,70,20,10,160,200", "40,M,200,20,240,70,-1,-1,-1,-1", "50,M,-1,-1,-1,-1,150,0,290,230"
    )
    samples = add_digests(reader, reader.read(), name="lagenda")
    spec = AlignmentSpec("detect", 64, bodies=True, letterbox=True, mask_bodies=True)
    faces = load_or_build_face_cache(reader, samples, spec, name="lagenda", workers=1)
    assert faces.rejected == {}
    assert faces.mode == "letterbox"
    pixels = np.asarray(Image.open(tmp_path / "all.png"))
    expected = prepare_body(Image.fromarray(pixels[20:70, 60:100]), None, 64)
    assert (faces.pixels[0, ..., :3] == expected).all()
    shown = [half.tolist() for half in shown_halves(faces.pixels)]
    assert shown == [[True, True, False], [True, False, True]]
    body = blackened(pixels, [20, 10, 160, 200], [60, 20, 100, 70], [[150, 0, 290, 230]])
    assert body is not None
    assert (faces.pixels[0, ..., 3:] == prepare_body(Image.fromarray(body), None, 64)).all()
    alone = load_or_build_face_cache(
        reader, samples, AlignmentSpec("detect", 64, letterbox=True), name="lagenda", workers=1
    )
    assert list(alone.rejected.values()) == ["no box of a face"]
    on_template = load_or_build_face_cache(reader, samples, AlignmentSpec("none", 64), name="lagenda", workers=1)
    assert list(on_template.rejected.values()) == ["no box of a face"]
    assert on_template.mode == "none"


def test_without_annotated_boxes_faces_are_on_the_template(tmp_path: Path) -> None:
    reader = TableReader(folder(tmp_path, ["0.png,20,0 0 30 40,"]))
    samples = add_digests(reader, reader.read(), name="few")
    plain, boxed = (
        load_or_build_face_cache(reader, samples, AlignmentSpec("none", 32, letterbox=letterbox), name="few", workers=1)
        for letterbox in (False, True)
    )
    assert plain.key == boxed.key
    assert boxed.mode == "none"


def test_a_face_box_of_a_table_is_letterboxed(tmp_path: Path) -> None:
    rows = ["0.png,20,10 5 30 35", "1.png,30,-1 -1 -1 -1", "2.png,40,0 0 3 3"]
    reader = TableReader(folder(tmp_path, rows, header="path,age,face_bbox"))
    samples = add_digests(reader, reader.read(), name="few")
    faces = load_or_build_face_cache(reader, samples, AlignmentSpec("none", 32, letterbox=True), name="few", workers=1)
    assert list(faces.rejected.values()) == [
        "no box of a face",
        "its face_bbox 0 0 3 3 holds less than 5 pixels of a side",
    ]
    assert (faces.pixels[0, :, 6:26] == 50).all()
    assert (faces.pixels[0, :, :5] == 0).all()


def test_no_body_is_four_times_minus_one() -> None:
    column = pd.Series(["-1 -1 -1 -1", "-1.0, -1.0, -1.0, -1.0", "-1 0 20 30", " "])
    assert read_boxes(column, source="it").tolist() == [None, None, (-1, 0, 20, 30), None]


def test_mivolo_prepares_as_its_authors_unless_told_otherwise() -> None:
    card = load_catalog().datasets.get("lagenda")
    for name, bodies in (("mivolo-d1", True), ("volo-d1", False)):
        model = load_catalog().models.get(name).architecture
        spec = model_alignment_spec(FacesConfig(), card, model)
        assert (spec.letterbox, spec.mask_bodies, spec.bodies) == (True, bodies, bodies)
        assert not model_alignment_spec(FacesConfig(mode="detect"), card, model).letterbox
        plain = model.model_copy(update={"letterbox": False, "mask_bodies": False})
        assert plain.model_dump(mode="json")["letterbox"] is False
        assert not model_alignment_spec(FacesConfig(), card, plain).letterbox
    assert not model_alignment_spec(FacesConfig(), card, load_catalog().models.get("tiny").architecture).letterbox

"""Bodies beside faces, from the table of labels to six channels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agebench.data.audit import audit
from agebench.data.augment import Augmenter, normalise
from agebench.data.bodies import bodies_of, prepare_body
from agebench.data.cache import build_faces
from agebench.data.faces import FaceSpec
from agebench.data.readers.csv import CSVReader
from agebench.errors import ImageRefused, UserError
from agebench.registry.cards import Augment

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
    reader = CSVReader(folder(tmp_path, rows))
    samples = audit(reader, reader.read(), name="few")
    first, second, third = bodies_of(samples)
    assert first == ("", (0, 0, 30, 40))
    assert second == ("2.png", None)
    assert third == ("", (30, 0, 90, 40))
    faces = build_faces(reader, samples, FaceSpec("none", 32, bodies=True), name="few", workers=1)
    assert faces.pixels.shape == (3, 32, 32, 6)
    assert faces.refused == {"2.png": "its body_bbox 30 0 90 40 leaves the image, which is 60 x 40 pixels"}
    body = faces.pixels[0, ..., 3:]
    assert (body[:, :4] == 0).all()  # black beside it: it is narrower than high
    assert (body[:, 6:26] == 50).all()
    alone = build_faces(reader, samples, FaceSpec("none", 32), name="few", workers=1)
    assert alone.pixels.shape == (3, 32, 32, 3)
    assert alone.refused == {}


def test_a_body_does_without_a_face_that_is_not_found(tmp_path: Path) -> None:
    reader = CSVReader(folder(tmp_path, ["0.png,20,0 0 30 40,", "1.png,30,,"]))
    samples = audit(reader, reader.read(), name="few")
    spec = FaceSpec("landmarks", 32, landmark_points=(0, 1, 2), bodies=True)
    faces = build_faces(reader, samples, spec, name="few", workers=1)
    assert list(faces.refused) == ["1.png"]
    assert (faces.pixels[0, ..., :3] == 0).all()
    assert faces.pixels[0, ..., 3:].any()


@pytest.mark.parametrize(
    ("row", "error"), [("0.png,20,1 2 3,", "is not four numbers"), ("0.png,20,left top 3 4,", "is not four numbers")]
)
def test_a_box_that_is_none(tmp_path: Path, row: str, error: str) -> None:
    with pytest.raises(UserError, match=error):
        CSVReader(folder(tmp_path, [row])).read()


def test_a_body_outside_the_folder_is_put_aside(tmp_path: Path) -> None:
    samples = CSVReader(folder(tmp_path, ["0.png,20,,../../etc/passwd", "1.png,30,,gone.png", "2.png,3,,"])).read()
    assert len(samples) == 1
    reasons = samples.quarantined["reason"].tolist()
    assert reasons[0] == "of its body: its path '../../etc/passwd' leads out of the dataset's folder"
    assert reasons[1] == "of its body: no file 'gone.png'"


@pytest.mark.parametrize("box", [(10, 10, 10, 30), (30, 5, 20, 20), (0, 0, float("nan"), 5), (-9, 0, 20, 20)])
def test_a_box_that_holds_nothing(box: tuple[float, ...]) -> None:
    with pytest.raises(ImageRefused, match="its body_bbox"):
        prepare_body(Image.new("RGB", (60, 40)), box, 32)


def test_both_halves_are_normalised_and_turned_alike() -> None:
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    pair = torch.cat([images, images], dim=3)
    found = normalise(pair, MEAN, STD)
    assert torch.equal(found[:, :3], found[:, 3:])
    assert torch.equal(found[:, :3], normalise(images, MEAN, STD))
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

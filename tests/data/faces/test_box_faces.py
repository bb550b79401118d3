"""Faces cut out by an annotated or a detected box."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.box_faces import AnnotatedFace, annotated_faces, crop_face_box
from agebench.data.faces.detectors.base import Detection, Detector
from agebench.data.samples import Samples
from agebench.errors import ImageRejectedError

BOX = (40.0, 20.0, 80.0, 40.0)  # 40 x 20 pixels, white on gray


class Two(Detector):
    """Detects a large face on the left and a small one on the right; nothing in a dark image."""

    def detect(self, image: Image.Image) -> Sequence[Detection]:
        if np.asarray(image).max() == 0:
            return []
        points = np.array([[45.0, 25], [75, 25], [60, 35]])
        return [Detection((0, 0, 50, 50), points), Detection(BOX, points)]


def photograph() -> Image.Image:
    pixels = np.full((60, 120, 3), 90, np.uint8)
    pixels[20:40, 40:80] = 255
    return Image.fromarray(pixels)


def white_share(face: np.ndarray) -> float:
    return float((face > 170).mean())


def crop(fit: str, margin: float = 0.0, face: AnnotatedFace = AnnotatedFace(BOX, None)) -> np.ndarray:  # noqa: B008
    return crop_face_box(photograph(), AlignmentSpec("none", 40, fit=fit, margin=margin), face, Two())  # type: ignore[arg-type]


def test_square_takes_the_longer_side_around_the_middle() -> None:
    face = crop("square")
    assert white_share(face) == pytest.approx(0.5, abs=0.02)
    assert (face[12:28, 2:38] == 255).all()
    assert (face[:8] == 90).all()


def test_letterbox_keeps_the_aspect_ratio_on_black() -> None:
    face = crop("letterbox")
    assert white_share(face) == pytest.approx(0.5, abs=0.02)
    assert (face[:8] == 0).all()


def test_stretch_fills_the_square() -> None:
    assert white_share(crop("stretch")) == 1.0


def test_margin_is_a_share_of_the_longer_side() -> None:
    assert white_share(crop("square", 0.5)) == pytest.approx(0.125, abs=0.01)
    # 40 px of margin are cut at the image's border: 120 x 60 pixels remain of 120 x 100.
    assert white_share(crop("stretch", 1.0)) == pytest.approx(40 * 20 / (120 * 60), abs=0.02)


def test_box_of_the_face_nearest_to_the_points_is_taken() -> None:
    assert white_share(crop("stretch", 0.0, AnnotatedFace(None, [58, 28, 62, 32]))) == 1.0
    assert white_share(crop("stretch", 0.0, AnnotatedFace(None, None))) < 0.2


def test_photograph_without_a_face_or_with_an_empty_box_is_rejected() -> None:
    spec = AlignmentSpec("none", 40, fit="square")
    with pytest.raises(ImageRejectedError, match="no face found"):
        crop_face_box(Image.new("RGB", (50, 50)), spec, AnnotatedFace(None, None), Two())
    with pytest.raises(ImageRejectedError, match="smaller than 4 pixels"):
        crop("square", 0.0, AnnotatedFace((10.0, 10.0, 10.0, 40.0), None))
    with pytest.raises(ImageRejectedError, match="outside the image"):
        crop("letterbox", 0.0, AnnotatedFace((200.0, 10.0, 230.0, 40.0), None))


def test_annotations_are_boxes_in_whole_images_then_boxes_then_points() -> None:
    table = pd.DataFrame(
        {
            "sample_id": list("abc"),
            "face_bbox": [(1.0, 2.0, 30.0, 40.0), None, None],
            "bbox": [[0, 0, 5, 5], [1, 1, 6, 6], None],
            "landmarks": [None, None, [3, 4, 30, 4, 30, 40, 3, 40]],
        }
    )
    boxes = annotated_faces(Samples(table), "boxes")
    assert boxes[0] == AnnotatedFace((1.0, 2.0, 30.0, 40.0), None, whole=True)
    assert boxes[1:] == [AnnotatedFace((1, 1, 6, 6), None), AnnotatedFace((3, 4, 30, 40), None)]
    assert annotated_faces(Samples(table), "landmarks")[2] == AnnotatedFace(None, [3, 4, 30, 4, 30, 40, 3, 40])

"""Whole photographs for estimators that detect faces themselves, and the choice among the faces that they detect.

A callable of the input kind `photo` is called as `function(photo, box, points)`, once per photograph: (H, W, 3) uint8 RGB,
upright; the annotated box (4,) left, top, right, bottom, or None; the annotated points (k, 2), or None; in pixels. It returns
the age of the face; None or NaN where it detects none; or a dict with `age` (F,), `box` (F, 4) and, if its card reads it,
`gender` (F, C), of all F faces that it detects.
"""

import io
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from agebench.config.cards.external import ExternalCard
from agebench.data.image_io import ORIENTATION, open_image
from agebench.estimators.base import AgeEstimates
from agebench.estimators.external.decoding import parse_gender
from agebench.estimators.external.io_spec import ExternalModelError

if TYPE_CHECKING:  # pandas, which the process of a callable does not need
    from agebench.data.readers import Reader
    from agebench.data.samples import Samples


@dataclass(frozen=True)
class Photo:
    """A photograph with one annotated face.

    Attributes:
        path: its path within the dataset.
        content: the encoded image.
        box: left, top, right, bottom of the annotated face, pixels of the upright image; None if it is not annotated.
        points: (k, 2) annotated points of the face, pixels; None if they are not annotated.
    """

    path: str
    content: bytes
    box: tuple[float, ...] | None = None
    points: np.ndarray | None = None

    @cached_property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        return np.asarray(open_image(self.content))

    @cached_property
    def is_upright(self) -> bool:
        """True if the stored image needs no rotation, so that annotations refer to it as it is."""
        with Image.open(io.BytesIO(self.content)) as image:
            return int(image.getexif().get(ORIENTATION, 1)) == 1

    @property
    def media_type(self) -> str:
        """Media type of `file`."""
        return mimetypes.types_map.get(self.suffix.lower(), "image/jpeg")

    @property
    def suffix(self) -> str:
        """Suffix of `file`."""
        return (PurePosixPath(self.path).suffix or ".jpg") if self.is_upright else ".png"

    @property
    def file(self) -> bytes:
        """The encoded upright image: as it is stored, or a PNG of it where the stored one has to be rotated."""
        if self.is_upright:
            return self.content
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    @property
    def center(self) -> np.ndarray | None:
        """(2,) center of the annotated face; None if neither box nor points are annotated."""
        if self.box is not None:
            return np.array([self.box[0] + self.box[2], self.box[1] + self.box[3]]) / 2
        return None if self.points is None else np.asarray(self.points.mean(axis=0))


class Photos(Sequence[Photo]):
    """The photographs of samples; each is read when it is accessed.

    Args:
        reader: reader of the dataset.
        samples: the samples.
    """

    def __init__(self, reader: "Reader", samples: "Samples") -> None:
        self._reader, self._table = reader, samples.table

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        row = self._table.iloc[index]
        whole = self._reader.whole_image(row["path"])
        box = row.get("face_bbox")
        if not _is_annotated(box) and whole == row["path"]:
            box = row.get("bbox")
        points = row.get("landmarks") if whole == row["path"] else None
        return Photo(
            whole,
            self._reader.image_bytes(whole),
            tuple(float(side) for side in box) if _is_annotated(box) else None,
            np.asarray(points, dtype=np.float64).reshape(-1, 2) if _is_annotated(points) else None,
        )


def _is_annotated(values: object) -> bool:
    return isinstance(values, list | tuple | np.ndarray) and len(values) > 0


@dataclass(frozen=True)
class DetectedFaces:
    """The faces that an estimator detects in one photograph.

    Attributes:
        ages: (F,) years.
        boxes: (F, 4) left, top, right, bottom, pixels; (0, 4) if the estimator states none.
        genders: (F, C) numbers that are read as `output.gender` states; (F, 0) if it returns none.
    """

    ages: np.ndarray
    boxes: np.ndarray
    genders: np.ndarray

    def nearest(self, photo: Photo, model: str) -> int | None:
        """Return the index of the face nearest to the annotated one, else of the largest; None without a face.

        Args:
            photo: the photograph.
            model: name of the card, for messages.

        Raises:
            ExternalModelError: there are several faces and no box for each.
        """
        finite = np.isfinite(self.ages)
        if len(self.boxes) == len(self.ages):
            finite &= np.isfinite(self.boxes).all(axis=1)
        usable = np.flatnonzero(finite)
        if len(usable) < 2:
            return int(usable[0]) if len(usable) else None
        if len(self.boxes) != len(self.ages):
            raise ExternalModelError(
                f"model '{model}' gives {len(self.ages)} ages and {len(self.boxes)} boxes for {photo.path}; several faces need a "
                "box each, so that the annotated one can be selected"
            )
        boxes, center = self.boxes[usable], photo.center
        if center is None:
            return int(usable[((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmax()])
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        return int(usable[np.linalg.norm(middles - center, axis=1).argmin()])


def select_faces(faces: Sequence[DetectedFaces], photos: Sequence[Photo], card: ExternalCard) -> AgeEstimates:
    """Return the estimates of the annotated faces; photographs without a detected face have failed.

    Args:
        faces: the faces that the estimator detects in each photograph.
        photos: the photographs.
        card: the model's card.

    Raises:
        ExternalModelError: several faces have no boxes, or genders are no probabilities.
    """
    rows = [detected.nearest(photo, card.name) for detected, photo in zip(faces, photos, strict=True)]
    ages = [np.nan if row is None else detected.ages[row] for detected, row in zip(faces, rows, strict=True)]
    failed = np.array([row is None for row in rows], dtype=bool)
    estimates = AgeEstimates(
        card.output.offset + card.output.scale * np.array(ages, dtype=np.float64),
        failed=failed if failed.any() else None,
    )
    gender = card.output.gender
    if gender is None or failed.all():
        return estimates
    answers = [detected.genders[row] for detected, row in zip(faces, rows, strict=True) if row is not None]
    widths = {len(answer) for answer in answers}
    if len(widths) > 1:
        raise ExternalModelError(
            f"model '{card.name}' gives {' and '.join(str(width) for width in sorted(widths))} numbers for the gender of a face; "
            "it must give the same number of them for each face"
        )
    numbers = np.stack(answers)
    probabilities = np.full((len(rows), len(gender.classes)), np.nan, np.float32)
    probabilities[~failed] = parse_gender(numbers, len(numbers), gender, card.name)
    return replace(estimates, tasks={"gender": probabilities})


def photo_arguments(arrays: Sequence[np.ndarray] | str) -> list[np.ndarray | None]:
    """Return photograph, box and points as a callable takes them: empty arrays become None.

    Args:
        arrays: the three arrays of a message.
    """
    return [array if isinstance(array, np.ndarray) and array.size else None for array in arrays]


def photo_reply(result: Any, names: Sequence[str], model: str) -> list[np.ndarray]:
    """Convert the result of a callable to ages, boxes and genders.

    Args:
        result: what the callable returned for one photograph.
        names: the card's names of age and, if it is read, gender; empty names stand for `age` and `gender`.
        model: name of the card, for messages.

    Raises:
        ExternalModelError: the result is neither an age nor a dict with ages.
    """
    if not isinstance(result, dict):
        result = {names[0] or "age": [] if result is None else result}
    keys = [name or default for name, default in zip(names, ("age", "gender"), strict=False)]
    missing = [key for key in keys if key not in result]
    if missing and len(result.get(keys[0], [0])):
        raise ExternalModelError(f"model '{model}' returns a dict without {' and '.join(missing)} for a photograph")
    try:
        ages = np.atleast_1d(np.asarray(result[keys[0]], dtype=np.float64)).reshape(-1)
        boxes = np.asarray(result.get("box", []), dtype=np.float64).reshape(-1, 4)
        genders = np.asarray(result.get(keys[1], []) if len(keys) > 1 else [], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ExternalModelError(
            f"model '{model}' returns for a photograph what is neither age nor box: {error}"
        ) from error
    return [ages, boxes, genders.reshape(len(ages), -1) if len(ages) else np.zeros((0, 0))]

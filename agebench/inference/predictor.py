"""Ages for pictures: the public door `agebench.load`, and what it opens."""

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from PIL import Image

from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.detectors.base import DEFAULT_DETECTOR as DEFAULT_DETECTOR
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates, AgeEstimator, Guarantees, check_crops
from agebench.inference.face_extraction import AlignMode, Box, ExtractedFaces, FaceExtractor, check_picture
from agebench.metrics.guarantees import CalibrationError
from agebench.registry.catalog import Catalog
from agebench.runs.estimators import load_estimator
from agebench.utils.parallel import available_cores, parallel_map

DEFAULT_COVERAGE = 0.9
# Pictures a batch, and from how many on starting processes takes less time than it saves: detection is slow.
_CHUNK = {"detect": 16, "none": 64}
_WORTH = {"detect": 64, "none": 600}
# Pictures in memory that are under way at a time; of a video of 1920 x 1080 these are 200 MB.
_HELD = 32


class FacePrediction(NamedTuple):
    """What is said of one face; a picture without one has a `Face` with the reason.

    Attributes:
        input: what the picture was: its path, or `#` and its position.
        face: 0 for the largest face of the picture, then 1, …
        box: left, top, right, bottom, pixels; None where no face was looked for, or none found.
        age: years; NaN where `error` says why.
        age_std: years, as the model states it; NaN where it states none.
        low: of the interval, years; NaN where there is none.
        high: likewise.
        error: why there is no age; else "".
    """

    input: str
    face: int
    box: Box | None
    age: float
    age_std: float
    low: float
    high: float
    error: str


class ImageResult(NamedTuple):
    """One picture's faces, and the processor time of each stage, seconds: decode, detect, align, estimate."""

    faces: list[FacePrediction]
    seconds: dict[str, float]


def load(
    model: str | Path, *, trusted: bool = False, device: str = "auto", cards: Catalog | None = None
) -> "Predictor":
    """Open a model for prediction on photographs.

    Args:
        model: the folder of a finished run, an exported file, the name of an external model's card, or
            hf://OWNER/NAME@COMMIT, a model that `agebench push` wrote.
        trusted: whether files that can run code when they are opened may be opened.
        device: `auto`, `cpu`, `cuda`, …
        cards: the cards whose names can be given; default: the shipped ones, those of plugins and of
            AGEBENCH_REGISTRY.

    Raises:
        UserError: there is no such model, or its run is not finished.
    """
    return Predictor(load_estimator(model, trusted=trusted, device=device, catalog=cards))


class Predictor:
    """An estimator with face detection and alignment: photographs in, ages out. Close it, or use it as a context manager.

    Args:
        estimator: the estimator.

    Attributes:
        estimator: the estimator.
        card: the full card of the model.
    """

    def __init__(self, estimator: AgeEstimator) -> None:
        self.estimator = estimator
        self.card: Mapping[str, Any] = estimator.info.card

    def estimate(self, faces: np.ndarray) -> AgeEstimates:
        """Estimate the ages of prepared faces.

        Args:
            faces: (N, S, S, 3) uint8 RGB, framed as in training; N may be 0.

        Raises:
            UserError: the array has another shape or type.
        """
        check_crops(faces, self.estimator.input_spec.size)
        return self.estimator.estimate(faces)

    def predict(
        self,
        images: Iterable[Any],
        *,
        faces: AlignMode = "detect",
        level: float | None = DEFAULT_COVERAGE,
        workers: int = 1,
    ) -> pd.DataFrame:
        """One row a face, in the order of the images; an image without a usable face has one row with the reason.

        Args:
            images: paths, PIL images, (H, W, 3) uint8 RGB arrays, or files' bytes; any iterable, taken as it comes.
            faces: `detect` finds every face and aligns it; `none`: each image is one face, framed like the training faces.
            level: share of true ages that `low` to `high` is to hold; None: no intervals. Where nothing is there to calibrate
                them on, the default gives none, another level is an error.
            workers: processes that decode and detect.

        Returns:
            input, face, x0, y0, x1, y1, age, age_std, low, high, error.

        Raises:
            UserError: something that is no image at all, or a level that cannot be promised.
            AgebenchError: the detector is missing or fails.
        """
        seen = self.stream(images, faces=faces, level=level, workers=workers)
        return to_frame([face for one in seen for face in one.faces])

    def stream(
        self,
        images: Iterable[Any],
        *,
        faces: AlignMode = "detect",
        level: float | None = DEFAULT_COVERAGE,
        workers: int | None = 1,
        detector: str = "",
        search: int = 0,
        every: int = 1,
    ) -> Iterator[ImageResult]:
        """As `predict`, image by image as they come: memory does not grow with their number.

        Args:
            images: as there.
            faces: as there.
            level: as there.
            workers: as there; None: one a core.
            detector: another than the model's, by name.
            search: the longest side, pixels, at which faces are looked for; larger pictures are reduced for that. 0: as they are.
            every: the images are frames of one video, and faces are looked for in every so many of them only; between, they
                are taken to be where they were. So many of them are answered at a time, and of pictures in memory 32 are held, or
                `every`; where that is much, fewer processes work.
        """
        interval = None
        if level is not None:
            try:
                interval = self.interval(level)
            except CalibrationError:
                if level != DEFAULT_COVERAGE:
                    raise
        finder = self.finder(faces, detector=detector, search=search, every=every)
        for names, found in self._found(images, finder, workers):
            yield from self._answered(names, found, interval)

    def finder(
        self, faces: AlignMode = "detect", *, detector: str = "", search: int = 0, every: int = 1
    ) -> FaceExtractor:
        """Return the function that turns photographs into faces for `estimate`.

        Args:
            faces: `detect` finds every face and aligns it; `none`: each image is one face, framed as in training.
            detector: name of a detector; empty: the model's.
            search: longest side, pixels, at which faces are searched; larger images are reduced to it. 0: as they are.
            every: the images are frames of a video, and faces are searched in every so many of them.
        """
        spec = self.estimator.input_spec
        name = detector or spec.detector or DEFAULT_DETECTOR
        return FaceExtractor(AlignmentSpec(faces, spec.size, spec.crop_scale, detector=name), search, every)

    def interval(self, level: float = DEFAULT_COVERAGE) -> dict[str, Any]:
        """Return the conformal interval of this level, with its coverage on the model's test sets.

        Args:
            level: share of true ages that the interval is to contain.

        Raises:
            CalibrationError: there are no calibration data, or too few.
            UserError: the level is out of range.
        """
        if not isinstance(self.estimator, Guarantees):
            raise CalibrationError(
                f"model '{self.estimator.info.name}' was not trained by agebench, so there is no validation part to "
                "calibrate intervals on"
            )
        return self.estimator.interval(level)

    def gate(self, threshold: int, challenge: float | None = None) -> dict[str, Any]:
        """Return the error rates of an age gate, measured on the model's test sets.

        Args:
            threshold: legal age, years.
            challenge: estimated age from which a person passes, years; None: the threshold plus the default margin.

        Raises:
            UserError: there is no test set on which the rates were measured.
        """
        if not isinstance(self.estimator, Guarantees):
            name = self.estimator.info.name
            raise UserError(
                f"model '{name}' has no test here that a gate could be measured on; `agebench test --model {name} "
                "--test DATASET` and `agebench score` measure it"
            )
        return self.estimator.gate(threshold, challenge)

    def errors(self) -> dict[str, Any]:
        """Return errors by estimated age; see `agebench.metrics.guarantees.error_by_estimated_age`.

        Raises:
            UserError: there is no test set on which the errors were measured.
        """
        if not isinstance(self.estimator, Guarantees):
            raise UserError(
                f"model '{self.estimator.info.name}' was not trained by agebench: `agebench test` measures its errors"
            )
        return self.estimator.errors()

    def close(self) -> None:
        """End what the model holds."""
        self.estimator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _found(
        self, images: Iterable[Any], finder: FaceExtractor, workers: int | None
    ) -> Iterator[tuple[list[str], list[ExtractedFaces]]]:
        """Chunk by chunk, names and what was found; of what is in memory already, each picture is a chunk."""
        for kind, run in groupby(_checked(images), key=lambda item: _kind(item[1])):
            names: list[str] = []
            sources = _noting(run, names)
            for found in parallel_map(finder, sources, **_division(kind, finder, workers)):
                yield names[: len(found)], found
                del names[: len(found)]

    def _answered(
        self, names: list[str], found: list[ExtractedFaces], interval: dict[str, Any] | None
    ) -> Iterator[ImageResult]:
        start = time.process_time()  # of all threads
        answers = self.estimator.estimate(np.concatenate([one.faces for one in found]))
        share = (time.process_time() - start) / len(found)
        std = answers.std if answers.std is not None else np.full(len(answers.age), np.nan)
        numbers = np.column_stack([answers.age, std, *interval_bounds(answers, interval)]).astype(float)
        failed = answers.failed if answers.failed is not None else np.zeros(len(answers), bool)
        errors = ["the model returned no estimate" if fails else "" for fails in failed]
        at = 0
        for name, one in zip(names, found, strict=True):
            if one.error:
                yield ImageResult(
                    [FacePrediction(name, 0, None, np.nan, np.nan, np.nan, np.nan, one.error)],
                    one.seconds | {"estimate": share},
                )
                continue
            rows = [
                FacePrediction._make((name, number, box, *numbers[at + number].tolist(), errors[at + number]))
                for number, box in enumerate(one.boxes)
            ]
            at += len(rows)
            yield ImageResult(rows, one.seconds | {"estimate": share})


def interval_bounds(answers: AgeEstimates, interval: dict[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """(N,) and (N,): where the intervals begin, not below 0, and end; NaN where there is none."""
    if interval is None:
        nothing = np.full(len(answers.age), np.nan)
        return nothing, nothing
    scale = (
        np.maximum(answers.std, 1e-6) if interval["scaled"] and answers.std is not None else np.ones(len(answers.age))
    )
    reach = interval["radius"] * scale
    return np.maximum(answers.age - reach, 0), answers.age + reach


def to_frame(faces: Iterable[FacePrediction]) -> pd.DataFrame:
    """One row a face: input, face, x0, y0, x1, y1, age, age_std, low, high, error."""
    rows = [(*face[:2], *(face.box or (np.nan,) * 4), *face[3:]) for face in faces]
    columns = ["input", "face", "x0", "y0", "x1", "y1", "age", "age_std", "low", "high", "error"]
    return pd.DataFrame(rows, columns=columns)


def _kind(image: Any) -> str:
    """`picture` is PIL's: sent to another process, a damaged one that was opened lazily would fail on the way."""
    if isinstance(image, str | Path):
        return "path"
    return "picture" if isinstance(image, Image.Image) else "memory"


def _division(kind: str, finder: FaceExtractor, workers: int | None) -> dict[str, int]:
    """How `parallel_map` is to divide pictures of one kind: of those in memory _HELD at most are held, or one chunk."""
    mode = finder.spec.mode
    workers = 1 if kind == "picture" else workers or available_cores()
    if kind == "path":
        chunk = _CHUNK[mode] if finder.every == 1 else finder.every
        return {"workers": workers, "chunk": chunk, "worth": _WORTH[mode]}
    ahead = 2 if finder.every == 1 else 1
    workers = max(1, min(workers, _HELD // (ahead * finder.every)))
    return {"workers": workers, "chunk": finder.every, "worth": 2, "ahead": ahead}


def _checked(images: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Each image with its name."""
    if isinstance(images, str | Path | bytes):
        raise UserError(f"images = {str(images)[:80]!r}: give a list of images, also of one")
    for position, image in enumerate(images):
        check_picture(image, position)
        yield (str(image) if isinstance(image, str | Path) else f"#{position}"), image


def _noting(run: Iterable[tuple[str, Any]], names: list[str]) -> Iterator[Any]:
    """The images alone; their names are put aside, to be taken when the answers come."""
    for name, image in run:
        names.append(name)
        yield image

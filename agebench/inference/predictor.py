"""Predict ages on photographs: face detection, alignment, estimation and intervals."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from PIL import Image

from agebench.data.faces.alignment import AlignmentSpec
from agebench.data.faces.detectors.base import default_detector
from agebench.errors import UserError
from agebench.estimators.base import AgeEstimates, AgeEstimator, Guarantees, check_crops
from agebench.inference.face_extraction import (
    AlignMode,
    Box,
    ExtractedFaces,
    FaceExtractor,
    check_image,
    has_image_shape,
)
from agebench.inference.shards import ImageChunk
from agebench.metrics.guarantees import CalibrationError
from agebench.metrics.schema import CalibratedInterval, EstimateErrors, GateGuarantee
from agebench.registry.catalog import Catalog
from agebench.runs.estimators import load_estimator
from agebench.utils.parallel import available_cores, parallel_map

DEFAULT_COVERAGE = 0.9
# Images per task, and the smallest number of images for which worker processes pay off; detection is slow.
CHUNK_SIZES: dict[str, int] = {"detect": 16, "none": 64}
_MIN_PARALLEL: dict[str, int] = {"detect": 64, "none": 600}
# Images held in memory at a time; 200 MB for a video of 1920 x 1080.
_MAX_IN_MEMORY = 32


class FacePrediction(NamedTuple):
    """The prediction for one face; an image without a usable face has one prediction with the reason.

    Attributes:
        input: path of the image, or `#` and its position.
        face: 0 for the largest face of the image, then 1, …
        box: left, top, right, bottom in pixels; None if no face was searched or found.
        age: estimated age, years; NaN if there is an `error`.
        age_std: predicted standard deviation, years; NaN if the model predicts none.
        low: lower end of the interval, years; NaN if there is no interval.
        high: upper end of the interval, years; NaN if there is no interval.
        error: the reason for a missing age; else empty.
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
    """The predictions for one image, and the processor time of each stage in seconds: decode, detect, align, estimate."""

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
        card: the full card of a model that agebench trained; None for others.
    """

    def __init__(self, estimator: AgeEstimator) -> None:
        self.estimator = estimator
        self.card = estimator.info.card

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
        """Predict the ages of all faces in images.

        Args:
            images: an iterable of paths, PIL images, (H, W, 3) uint8 RGB arrays, or bytes of image files.
            faces: `detect` finds and aligns every face; `none`: each image is one face, framed as in training.
            level: share of true ages that `low` to `high` is to contain; None: no intervals. Without calibration data,
                the default level gives no intervals and any other level is an error.
            workers: number of processes that decode and detect.

        Returns:
            One row per face, in the order of the images: input, face, x0, y0, x1, y1, age, age_std, low, high, error.
            An image without a usable face has one row with the reason.

        Raises:
            UserError: an item is not an image, or there is no interval of this level.
            AgebenchError: the detector is missing or fails.
        """
        results = self.stream(images, faces=faces, level=level, workers=workers)
        return to_frame([face for result in results for face in result.faces])

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
        """Predict the ages of all faces image by image, in bounded memory.

        Args:
            images: an iterable of paths, PIL images, (H, W, 3) uint8 RGB arrays, or bytes of image files.
            faces: `detect` finds and aligns every face; `none`: each image is one face, framed as in training.
            level: share of true ages that `low` to `high` is to contain; None: no intervals. Without calibration data,
                the default level gives no intervals and any other level is an error.
            workers: number of processes that decode and detect; None: one per core.
            detector: name of a detector; empty: the model's.
            search: longest side, pixels, at which faces are searched; larger images are reduced to it. 0: as they are.
            every: the images are frames of one video, and faces are searched in every so many of them; in between, their
                positions are kept. So many frames form one task. At most 32 or `every` images are held in memory, so that
                a large `every` reduces the number of processes.

        Yields:
            The faces of each image, with timings.

        Raises:
            UserError: an item is not an image, or there is no interval of this level.
            AgebenchError: the detector is missing or fails.
        """
        interval = self._usable_interval(level)
        extractor = self.finder(faces, detector=detector, search=search, every=every)
        for names, extracted in self._extract(images, extractor, workers):
            yield from self._predict_chunk(names, extracted, interval)

    def stream_chunks(
        self,
        chunks: Iterable[ImageChunk],
        *,
        faces: AlignMode = "detect",
        level: float | None = DEFAULT_COVERAGE,
        workers: int | None = 1,
        detector: str = "",
        search: int = 0,
    ) -> Iterator[tuple[ImageChunk, list[ImageResult]]]:
        """Predict the ages of all faces chunk by chunk; the images of a chunk share one forward pass.

        Args:
            chunks: the chunks, read lazily.
            faces: `detect` finds and aligns every face; `none`: each image is one face, framed as in training.
            level: see `stream`.
            workers: number of processes that decode and detect; None: one per core.
            detector: name of a detector; empty: the model's.
            search: longest side, pixels, at which faces are searched; larger images are reduced to it. 0: as they are.

        Yields:
            Each chunk, and the faces of each of its images.

        Raises:
            UserError: there is no interval of this level, or a shard cannot be opened.
            AgebenchError: the detector is missing or fails.
        """
        interval = self._usable_interval(level)
        extractor = self.finder(faces, detector=detector, search=search)
        pending: deque[ImageChunk] = deque()
        results = parallel_map(
            _ChunkExtractor(extractor),
            _collect_chunks(chunks, pending),
            workers=workers,
            chunk=1,
            min_items=-(-_MIN_PARALLEL[faces] // CHUNK_SIZES[faces]),
        )
        for extracted in results:
            chunk = pending.popleft()
            yield chunk, list(self._predict_chunk(chunk.names, extracted, interval))

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
        if spec.kind != "aligned":
            raise UserError(
                f"'{self.estimator.info.name}' takes no aligned faces (input.kind: {spec.kind}); only `agebench test` can call it"
            )
        name = detector or spec.detector or default_detector()
        alignment = AlignmentSpec(
            faces, spec.size, spec.crop_scale, detector=name, offset=spec.offset, visible=spec.visible
        )
        return FaceExtractor(alignment, search, every)

    def interval(self, level: float = DEFAULT_COVERAGE) -> CalibratedInterval:
        """Return the conformal interval of this level, with its coverage on the model's test sets.

        Args:
            level: share of true ages that the interval is to contain.

        Raises:
            CalibrationError: there are no calibration data, or too few.
            UserError: the level is no number or out of range.
        """
        _check_number("level", level, DEFAULT_COVERAGE)
        if not isinstance(self.estimator, Guarantees):
            raise CalibrationError(
                f"model '{self.estimator.info.name}' was not trained by agebench, so there is no validation part to "
                "calibrate intervals on"
            )
        return self.estimator.interval(level)

    def gate(self, threshold: int, challenge: float | None = None) -> GateGuarantee:
        """Return the error rates of an age gate, measured on the model's test sets.

        Args:
            threshold: legal age, years.
            challenge: estimated age from which a person passes, years; None: the threshold plus the default margin.

        Raises:
            UserError: an age is no number, or there is no test set on which the rates were measured.
        """
        _check_number("threshold", threshold, 18)
        if challenge is not None:
            _check_number("challenge", challenge, 25)
        if not isinstance(self.estimator, Guarantees):
            name = self.estimator.info.name
            raise UserError(
                f"model '{name}' has no test here that a gate could be measured on; `agebench test --model {name} "
                "--test DATASET` and `agebench score` measure it"
            )
        return self.estimator.gate(threshold, challenge)

    def errors(self) -> EstimateErrors:
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
        """Release the processes, memory and files of the estimator."""
        self.estimator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _usable_interval(self, level: float | None) -> CalibratedInterval | None:
        """Return the interval of this level; None without a level, or if the default level cannot be calibrated."""
        if level is None:
            return None
        try:
            return self.interval(level)
        except CalibrationError:
            if level != DEFAULT_COVERAGE:
                raise
            return None

    def _extract(
        self, images: Iterable[Any], extractor: FaceExtractor, workers: int | None
    ) -> Iterator[tuple[list[str], list[ExtractedFaces]]]:
        """Yield names and extracted faces chunk by chunk; images in memory are chunks of their own."""
        for kind, group in groupby(_checked(images), key=lambda item: _kind(item[1])):
            names: list[str] = []
            sources = _collect_names(group, names)
            for extracted in parallel_map(extractor, sources, **_division(kind, extractor, workers)):
                yield names[: len(extracted)], extracted
                del names[: len(extracted)]

    def _predict_chunk(
        self, names: Sequence[str], extracted: list[ExtractedFaces], interval: CalibratedInterval | None
    ) -> Iterator[ImageResult]:
        start = time.process_time()  # of all threads
        estimates = self.estimator.estimate(np.concatenate([image.faces for image in extracted]))
        seconds_per_image = (time.process_time() - start) / len(extracted)
        std = estimates.std if estimates.std is not None else np.full(len(estimates.age), np.nan)
        columns = np.column_stack([estimates.age, std, *_interval_bounds(estimates, interval)]).astype(float)
        failed = estimates.failed if estimates.failed is not None else np.zeros(len(estimates), bool)
        errors = ["the model returned no estimate" if fails else "" for fails in failed]
        offset = 0
        for name, image in zip(names, extracted, strict=True):
            if image.error:
                yield ImageResult(
                    [FacePrediction(name, 0, None, np.nan, np.nan, np.nan, np.nan, image.error)],
                    image.seconds | {"estimate": seconds_per_image},
                )
                continue
            rows = [
                FacePrediction._make((name, number, box, *columns[offset + number].tolist(), errors[offset + number]))
                for number, box in enumerate(image.boxes)
            ]
            offset += len(rows)
            yield ImageResult(rows, image.seconds | {"estimate": seconds_per_image})


def _interval_bounds(estimates: AgeEstimates, interval: CalibratedInterval | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper ends of conformal intervals, in years.

    Args:
        estimates: the estimates of N faces.
        interval: radius and scaling, see `agebench.metrics.guarantees.conformal_interval`; None: no intervals.

    Returns:
        (N,) lower ends, not below 0, and (N,) upper ends; NaN without intervals.
    """
    if interval is None:
        missing = np.full(len(estimates.age), np.nan)
        return missing, missing
    scale = (
        np.maximum(estimates.std, 1e-6)
        if interval.scaled and estimates.std is not None
        else np.ones(len(estimates.age))
    )
    half_width = interval.radius * scale
    return np.maximum(estimates.age - half_width, 0), estimates.age + half_width


def to_frame(faces: Iterable[FacePrediction]) -> pd.DataFrame:
    """Return one row per face: input, face, x0, y0, x1, y1, age, age_std, low, high, error.

    Args:
        faces: the predictions.
    """
    rows = [(*face[:2], *(face.box or (np.nan,) * 4), *face[3:]) for face in faces]
    columns = ["input", "face", "x0", "y0", "x1", "y1", "age", "age_std", "low", "high", "error"]
    return pd.DataFrame(rows, columns=columns)


def _kind(image: Any) -> str:
    """Classify an image. PIL images stay in this process: a damaged one, opened lazily, would fail on the way to another."""
    if isinstance(image, str | Path):
        return "path"
    return "image" if isinstance(image, Image.Image) else "memory"


def _division(kind: str, extractor: FaceExtractor, workers: int | None) -> dict[str, int]:
    """Return the arguments of `parallel_map` for images of one kind; at most `_MAX_IN_MEMORY` images or one chunk are held."""
    mode = extractor.spec.mode
    workers = 1 if kind == "image" else workers or available_cores()
    if kind == "path":
        chunk = CHUNK_SIZES[mode] if extractor.every == 1 else extractor.every
        return {"workers": workers, "chunk": chunk, "min_items": _MIN_PARALLEL[mode]}
    ahead = 2 if extractor.every == 1 else 1
    workers = max(1, min(workers, _MAX_IN_MEMORY // (ahead * extractor.every)))
    return {"workers": workers, "chunk": extractor.every, "min_items": 2, "prefetch": ahead}


@dataclass(frozen=True)
class _ChunkExtractor:
    """Extracts the faces of one chunk; can be pickled."""

    extractor: FaceExtractor

    def __call__(self, chunks: Sequence[tuple[Any, ...]]) -> list[ExtractedFaces]:
        """Extract the faces of the images of the only chunk."""
        (images,) = chunks
        return self.extractor(images)


def _collect_chunks(chunks: Iterable[ImageChunk], pending: deque[ImageChunk]) -> Iterator[tuple[Any, ...]]:
    """Yield the images of chunks, and append the chunks, without their images, to `pending`."""
    for chunk in chunks:
        pending.append(replace(chunk, images=()))
        yield chunk.images


def _check_number(name: str, value: Any, example: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{name} = {value!r}: give a number, e.g. {example}")


def _checked(images: Any) -> Iterator[tuple[str, Any]]:
    """Yield each image with its name."""
    if isinstance(images, str | Path | bytes):
        raise UserError(f"images = {str(images)[:80]!r}: give a list of images, also of one")
    try:
        items = iter(images)
    except TypeError:
        items = None
    # A mapping or a table would be read as its keys, and one image as images of its rows, also a (H, W, 1) or RGBA one.
    is_array = isinstance(images, np.ndarray)
    is_one_image = is_array and has_image_shape(images, channels=(1, 3, 4))
    if items is None or isinstance(images, Mapping | pd.DataFrame) or is_one_image:
        shape = f" of shape {images.shape}" if is_array else ""
        raise UserError(f"images: {type(images).__name__}{shape}; give a list of images, also of one")
    for position, image in enumerate(items):
        check_image(image, position)
        yield (str(image) if isinstance(image, str | Path) else f"#{position}"), image


def _collect_names(items: Iterable[tuple[str, Any]], names: list[str]) -> Iterator[Any]:
    """Yield the images, and append their names to `names`."""
    for name, image in items:
        names.append(name)
        yield image

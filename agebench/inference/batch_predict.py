"""Predict ages for images, shards and videos in bulk: rows, and annotated copies on request."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from agebench.errors import ImageRejectedError
from agebench.inference.annotate import annotate, save_image
from agebench.inference.face_extraction import AlignMode, load_image
from agebench.inference.input_sources import InputItem, camera_number
from agebench.inference.predictor import CHUNK_SIZES, DEFAULT_COVERAGE, FacePrediction, ImageResult, Predictor
from agebench.inference.shards import ImageChunk, file_chunks, shard_chunks
from agebench.inference.video import Frame, VideoWriter, open_video
from agebench.inference.writers import Write, printable_path, to_row
from agebench.utils.io import atomic_write
from agebench.utils.progress import progress


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict_all`.

    Attributes:
        faces: `detect` or `none`, see `Predictor.stream`.
        level: level of the intervals; None: no intervals.
        detector: name of a detector; empty: the model's.
        search: longest side at which faces are searched, pixels; 0: as the images are.
        workers: number of processes; None: one per core.
        challenge: challenge age of a gate, years; None: no gate.
        draw: folder for annotated images, where no file is replaced; None: none are drawn.
        frames: number of frames of each video; None: all.
        every: faces are searched in every so many frames of a video; in between, their positions are kept.
    """

    faces: AlignMode = "detect"
    level: float | None = DEFAULT_COVERAGE
    detector: str = ""
    search: int = 0
    workers: int | None = None
    challenge: float | None = None
    draw: Path | None = None
    frames: int | None = None
    every: int = 1

    @property
    def chunk_size(self) -> int:
        """Return the number of images of one forward pass."""
        return CHUNK_SIZES[self.faces]

    def stream(self, predictor: Predictor, images: Iterable[Any], *, every: int = 1) -> Iterator[ImageResult]:
        """Predict images with these options.

        Args:
            predictor: the model.
            images: the images.
            every: see `Predictor.stream`.
        """
        return predictor.stream(
            images,
            faces=self.faces,
            level=self.level,
            workers=self.workers,
            detector=self.detector,
            search=self.search,
            every=every,
        )

    def stream_chunks(
        self, predictor: Predictor, chunks: Iterable[ImageChunk]
    ) -> Iterator[tuple[ImageChunk, list[ImageResult]]]:
        """Predict chunks of images with these options.

        Args:
            predictor: the model.
            chunks: the chunks.
        """
        return predictor.stream_chunks(
            chunks,
            faces=self.faces,
            level=self.level,
            workers=self.workers,
            detector=self.detector,
            search=self.search,
        )


class PredictedImages(NamedTuple):
    """The predictions for successive images.

    Attributes:
        source: path of their shard; empty for image files.
        images: the faces of each image, see `FacePrediction`.
    """

    source: str
    images: list[list[FacePrediction]]


class Compute(Protocol):
    """Predicts successive images or shards: on this machine, or on a cluster."""

    def __call__(self, item: InputItem, *, ordered: bool = True) -> Iterator[PredictedImages]:
        """Predict all images of an item.

        Args:
            item: images or shards.
            ordered: whether the predictions have the order of the input; otherwise only the images of one shard are
                together and in order.

        Yields:
            Predictions for successive images.
        """
        ...


@dataclass(frozen=True)
class LocalCompute:
    """Predicts in processes of this machine.

    Attributes:
        predictor: the model.
        options: options of prediction.
    """

    predictor: Predictor
    options: PredictOptions

    def __call__(self, item: InputItem, *, ordered: bool = True) -> Iterator[PredictedImages]:
        """Predict all images of an item, in order.

        Args:
            item: images or shards.
            ordered: without effect: the order is always that of the input.

        Yields:
            Predictions for the images of one chunk.
        """
        for chunk, results in self.options.stream_chunks(self.predictor, item_chunks(item, self.options.chunk_size)):
            yield PredictedImages(chunk.source, [result.faces for result in results])


def item_chunks(item: InputItem, size: int) -> Iterator[ImageChunk]:
    """Divide the images of an item into chunks, lazily.

    Args:
        item: images or shards.
        size: images of a chunk.

    Yields:
        The chunks, in order. No chunk has images of two shards.
    """
    if item.kind == "images":
        yield from file_chunks(item.paths, size)
    else:
        for path in item.paths:
            yield from shard_chunks(path, size)


@dataclass
class VideoTiming:
    """Timing of one video.

    Attributes:
        name: path of the video.
        frames: number of frames that are finished.
        damaged: number of packets that could not be decoded.
        first: `time.perf_counter` when the first frame was finished.
        wall: seconds from the first finished frame to the last one, without the start of processes.
        seconds: stage -> total processor time in seconds: decode, detect, align, estimate, draw.
    """

    name: str
    frames: int = 0
    damaged: int = 0
    wall: float = 0.0
    first: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Return the frames per second, from end to end."""
        return (self.frames - 1) / self.wall if self.wall > 0 else float("nan")

    def tick(self) -> None:
        """Count a finished frame."""
        now = time.perf_counter()
        self.first = self.first or now
        self.frames, self.wall = self.frames + 1, now - self.first

    def add(self, seconds: dict[str, float]) -> None:
        """Add the stages of one frame.

        Args:
            seconds: stage -> processor time in seconds.
        """
        for stage, duration in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + duration


@dataclass
class PredictSummary:
    """Counts over all inputs.

    Attributes:
        images: number of images and frames.
        faces: number of faces with an age.
        without: number of images without an age.
        reason: the first such image, with the reason.
        finished_before: number of shards whose predictions an earlier call wrote.
        videos: timing of each video.
        left_out: suffix -> number of files in folders that are images of a format that is not read here.
    """

    images: int = 0
    faces: int = 0
    without: int = 0
    reason: str = ""
    finished_before: int = 0
    videos: list[VideoTiming] = field(default_factory=list)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def add(self, faces: list[FacePrediction], name: str) -> None:
        """Count one image.

        Args:
            faces: the predictions for it.
            name: its name, for messages.
        """
        self.images += 1
        with_age = sum(not face.error for face in faces)
        self.faces += with_age
        if not with_age:
            self.without += 1
            self.reason = self.reason or f"{printable_path(name)}: {faces[0].error}"


def predict_all(
    predictor: Predictor,
    inputs: Iterable[InputItem],
    options: PredictOptions,
    write: Write,
    compute: Compute | None = None,
) -> PredictSummary:
    """Process all inputs in order.

    Args:
        predictor: the model.
        inputs: images, shards and videos.
        options: options of prediction and drawing.
        write: called with each image's rows as soon as they are available.
        compute: where images and shards are predicted; None: on this machine. Videos always are.

    Raises:
        AgebenchError: a video cannot be opened, the detector fails, an image cannot be written.
    """
    summary, names = PredictSummary(), _FreeNames()
    compute = compute or LocalCompute(predictor, options)
    for item in inputs:
        if item.kind == "video":
            for path in item.paths:
                _video(predictor, path, options, write, summary, names)
        else:
            _images(compute, item, options, write, summary, names)
    return summary


class _FreeNames:
    """File names for annotated images that do not exist yet."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def free(self, folder: Path, name: str, suffix: str) -> Path:
        """Return `folder/<stem of name><suffix>`, or the first of -2, -3, … that does not exist; write it before the next call."""
        stem = Path(name).stem or "image"
        number = self._next.get(stem + suffix, 1)
        while os.path.lexists(path := folder / f"{stem}{f'-{number}' * (number > 1)}{suffix}"):
            number += 1
        self._next[stem + suffix] = number  # with 100,000 equal names, no number is tried twice
        return path


def _images(
    compute: Compute,
    item: InputItem,
    options: PredictOptions,
    write: Write,
    summary: PredictSummary,
    names: _FreeNames,
) -> None:
    images = (faces for predicted in compute(item) for faces in predicted.images)
    for faces in progress(images, total=item.count, label="ages", unit="img"):
        name = faces[0].input
        summary.add(faces, name)
        write([to_row(face, options.challenge) for face in faces])
        if options.draw is not None:
            # The image is read again, because keeping all images until their predictions arrive would fill memory.
            with suppress(ImageRejectedError, OSError):
                image = load_image(name)
                with atomic_write(names.free(options.draw, name, ".jpg")) as file:
                    save_image(annotate(image, faces, options.challenge), file)


def _video(
    predictor: Predictor, name: str, options: PredictOptions, write: Write, summary: PredictSummary, names: _FreeNames
) -> None:
    """Process one video or camera; a camera ends at Ctrl-C."""
    with ExitStack() as stack:
        video = stack.enter_context(open_video(name))
        bar = stack.enter_context(progress(total=_min_known(video.count, options.frames), label=name, unit="frame"))
        writer = None
        if options.draw is not None:
            file = stack.enter_context(atomic_write(names.free(options.draw, name.replace(":", "-"), ".mp4")))
            writer = VideoWriter(file, video.rate)
            stack.callback(writer.close)
        timing = VideoTiming(name)
        summary.videos.append(timing)
        pending: deque[Frame] = deque()
        frames = _collect_frames(video.frames(options.frames), pending, timing)
        with suppress(*[KeyboardInterrupt] if camera_number(name) is not None else []):
            for result in options.stream(predictor, frames, every=options.every):
                frame = pending.popleft()
                summary.add(result.faces, f"{name}, frame {frame.number}")
                write(
                    [
                        to_row(face._replace(input=name), options.challenge, frame.number, frame.time)
                        for face in result.faces
                    ]
                )
                start = time.process_time()
                if writer is not None:
                    writer.write(annotate(Image.fromarray(frame.pixels), result.faces, options.challenge))
                    timing.add({"draw": time.process_time() - start})
                timing.add({stage: duration for stage, duration in result.seconds.items() if stage != "decode"})
                timing.tick()
                bar.update()
        timing.damaged = video.damaged


def _collect_frames(frames: Iterator[Frame], pending: "deque[Frame]", timing: VideoTiming) -> Iterator[Any]:
    """Yield the pixels of frames, and append the frames to `pending`."""
    while True:
        start = time.process_time()
        frame = next(frames, None)
        timing.add({"decode": time.process_time() - start})
        if frame is None:
            return
        pending.append(frame)
        yield frame.pixels


def _min_known(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return min(known) if known else None

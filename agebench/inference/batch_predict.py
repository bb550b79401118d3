"""The work of `agebench predict`: all parts of the input to rows, and to pictures where they are asked for."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from agebench.errors import ImageRejectedError
from agebench.inference.annotate import annotate, save_picture
from agebench.inference.face_extraction import AlignMode, open_picture
from agebench.inference.input_sources import InputItem, camera_number
from agebench.inference.predictor import DEFAULT_COVERAGE, ImageResult, Predictor
from agebench.inference.video import Frame, VideoWriter, open_video
from agebench.inference.writers import Write, printable_path, to_row
from agebench.utils.io import atomic_write
from agebench.utils.progress import progress


@dataclass(frozen=True)
class PredictOptions:
    """How the work is done.

    Attributes:
        faces, level, detector, search, workers: as `Predictor.stream` takes them.
        challenge: the challenge age of a gate; None: no gate.
        draw: the folder of pictures, where nothing is replaced that stands there; None: no pictures.
        frames: of each video, the first ones only; None: all.
        every: of each video, faces are looked for in every so many frames, and taken to stay there between.
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

    def seen(self, predictor: Predictor, images: Iterable[Any], *, every: int = 1) -> Iterator[ImageResult]:
        """The images, asked about."""
        return predictor.stream(
            images,
            faces=self.faces,
            level=self.level,
            workers=self.workers,
            detector=self.detector,
            search=self.search,
            every=every,
        )


@dataclass
class VideoTiming:
    """Where the time of one video went.

    Attributes:
        name: the video's.
        frames: how many were done.
        damaged: pieces of it that could not be decoded.
        first: when the first frame's answer came, on the clock of `time.perf_counter`.
        wall: seconds from the first frame's answer to the last one's, so that starting processes does not count.
        seconds: stage -> seconds of processor time in all: decode, detect, align, estimate, draw.
    """

    name: str
    frames: int = 0
    damaged: int = 0
    wall: float = 0.0
    first: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Frames a second, from end to end."""
        return (self.frames - 1) / self.wall if self.wall > 0 else float("nan")

    def tick(self) -> None:
        """A frame is done."""
        now = time.perf_counter()
        self.first = self.first or now
        self.frames, self.wall = self.frames + 1, now - self.first

    def add(self, seconds: dict[str, float]) -> None:
        """One frame's stages more."""
        for stage, spent in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent


@dataclass
class PredictSummary:
    """What was done.

    Attributes:
        pictures: images and frames.
        faces: faces with an age.
        without: pictures without one.
        reason: why, of the first of these.
        videos: where the time of each went.
    """

    pictures: int = 0
    faces: int = 0
    without: int = 0
    reason: str = ""
    videos: list[VideoTiming] = field(default_factory=list)

    def add(self, seen: ImageResult, name: str) -> None:
        """One picture more."""
        self.pictures += 1
        error = seen.faces[0].error
        self.faces += 0 if error else len(seen.faces)
        self.without += bool(error)
        self.reason = self.reason or (f"{printable_path(name)}: {error}" if error else "")


def predict_all(predictor: Predictor, parts: Iterable[InputItem], job: PredictOptions, write: Write) -> PredictSummary:
    """All parts in order; `write` gets the rows of each picture when they are known.

    Raises:
        AgebenchError: a video cannot be opened, the detector fails, a picture cannot be written.
    """
    tally, names = PredictSummary(), _Names()
    for part in parts:
        if part.kind == "video":
            for path in part.paths:
                _video(predictor, path, job, write, tally, names)
        else:
            _images(predictor, part, job, write, tally, names)
    return tally


class _Names:
    """Names for drawn pictures that nothing has yet, be it a photograph, an earlier call's picture or this one's."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def free(self, folder: Path, name: str, suffix: str) -> Path:
        """`folder/<name's stem><suffix>`, or the first of -2, -3, … where such a file stands there; write it before the next."""
        stem = Path(name).stem or "picture"
        number = self._next.get(stem + suffix, 1)
        while os.path.lexists(path := folder / f"{stem}{f'-{number}' * (number > 1)}{suffix}"):
            number += 1
        self._next[stem + suffix] = number  # of 100,000 equal names, none is tried twice
        return path


def _images(
    predictor: Predictor, part: InputItem, job: PredictOptions, write: Write, tally: PredictSummary, names: _Names
) -> None:
    found = job.seen(predictor, part.paths)
    for seen in progress(found, total=part.count, label="ages", unit="img"):
        name = seen.faces[0].input
        tally.add(seen, name)
        write([to_row(face, job.challenge) for face in seen.faces])
        if job.draw is not None:
            # Read again: only now it is known what to draw, and keeping all pictures until then would fill memory.
            with suppress(ImageRejectedError, OSError):
                picture = open_picture(name)
                with atomic_write(names.free(job.draw, name, ".jpg")) as file:
                    save_picture(annotate(picture, seen.faces, job.challenge), file)


def _video(
    predictor: Predictor, name: str, job: PredictOptions, write: Write, tally: PredictSummary, names: _Names
) -> None:
    """One video or camera; Ctrl-C is how a camera ends."""
    with ExitStack() as stack:
        video = stack.enter_context(open_video(name))
        bar = stack.enter_context(progress(total=_least(video.count, job.frames), label=name, unit="frame"))
        film = None
        if job.draw is not None:
            file = stack.enter_context(atomic_write(names.free(job.draw, name.replace(":", "-"), ".mp4")))
            film = VideoWriter(file, video.rate)
            stack.callback(film.close)
        timing = VideoTiming(name)
        tally.videos.append(timing)
        waiting: deque[Frame] = deque()
        frames = _noted(video.frames(job.frames), waiting, timing)
        with suppress(*[KeyboardInterrupt] if camera_number(name) is not None else []):
            for seen in job.seen(predictor, frames, every=job.every):
                frame = waiting.popleft()
                tally.add(seen, f"{name}, frame {frame.number}")
                write(
                    [to_row(face._replace(input=name), job.challenge, frame.number, frame.time) for face in seen.faces]
                )
                start = time.process_time()
                if film is not None:
                    film.write(annotate(Image.fromarray(frame.pixels), seen.faces, job.challenge))
                    timing.add({"draw": time.process_time() - start})
                timing.add({stage: spent for stage, spent in seen.seconds.items() if stage != "decode"})
                timing.tick()
                bar.update()
        timing.damaged = video.damaged


def _noted(frames: Iterator[Frame], waiting: "deque[Frame]", timing: VideoTiming) -> Iterator[Any]:
    """The frames' pixels; the frames themselves are put aside, to be taken when the answers come."""
    while True:
        start = time.process_time()
        frame = next(frames, None)
        timing.add({"decode": time.process_time() - start})
        if frame is None:
            return
        waiting.append(frame)
        yield frame.pixels


def _least(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return min(known) if known else None

"""Read videos and cameras frame by frame with PyAV. Videos are untrusted: formats and sizes are limited."""

import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agebench.errors import UserError
from agebench.inference.input_sources import InputItem, camera_number

# 8K has 33 million pixels; one such frame takes 100 MB as RGB.
MAX_FRAME_PIXELS = 36_000_000
# Containers of a single file; playlists and scripts, which refer to other files or addresses, are excluded.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg"
_WAIT = 0.005  # seconds between two attempts to read a camera's next frame


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        number: position, from 0.
        time: seconds from the start.
        pixels: (H, W, 3) uint8 RGB, upright, in square pixels.
    """

    number: int
    time: float
    pixels: np.ndarray


class Video:
    """An open video or camera; use `open_video`.

    Attributes:
        name: path of the video, or `camera:N`.
        rate: frames per second, from the metadata.
        count: number of frames, from the metadata; None if it is not stated.
        damaged: number of packets so far that could not be decoded and were skipped.
    """

    def __init__(self, name: str, container: Any) -> None:
        self.name = name
        self._container = container
        if not container.streams.video:
            raise UserError(f"{name}: no video stream in it, only {_kinds(container)}")
        self._stream = container.streams.video[0]
        self._refuse_large(self._stream.codec_context.width, self._stream.codec_context.height)
        self._stream.thread_type = "AUTO"
        # The size of frames may change later; the decoder refuses large ones before it allocates memory.
        self._stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        self.rate = Fraction(self._stream.average_rate or 25)
        self.count: int | None = self._stream.frames or None
        self.damaged = 0

    def frames(self, limit: int | None = None) -> Iterator[Frame]:
        """Yield the frames in order; damaged ones are skipped and counted.

        Args:
            limit: largest number of frames; None: all.

        Raises:
            UserError: no frame can be decoded, or a frame is too large.
        """
        number, origin = -1, None
        for number, frame in enumerate(islice(self._decoded(), limit)):
            width = self._square_width(frame.width)
            self._refuse_large(width, frame.height)
            pixels = np.rot90(frame.to_ndarray(format="rgb24", width=width), round(frame.rotation / 90))
            if origin is None and frame.time is not None:
                origin = frame.time - float(number / self.rate)  # broadcast files and cameras do not start at 0
            seconds = float(number / self.rate) if frame.time is None or origin is None else frame.time - origin
            yield Frame(number, seconds, np.ascontiguousarray(pixels))
        if number < 0:
            raise UserError(f"{self.name}: not one frame of its video can be decoded")

    def _square_width(self, width: int) -> int:
        """Return the width of a frame in square pixels: those of DVDs and HDV are wider than high, or higher than wide."""
        ratio = self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio
        return round(width * ratio) if ratio else width

    def _decoded(self) -> Iterator[Any]:
        from av.error import BlockingIOError as NotReady
        from av.error import FFmpegError

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except NotReady:  # a camera has no new frame yet
                time.sleep(_WAIT)
                packets = self._container.demux(self._stream)
                continue
            except FFmpegError:  # the file is truncated; the earlier frames are valid
                self.damaged += 1
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except FFmpegError:
                self.damaged += 1

    def _refuse_large(self, width: int, height: int) -> None:
        if width * height > MAX_FRAME_PIXELS:
            raise UserError(
                f"{self.name}: frames of {width} x {height} pixels are more than the "
                f"{MAX_FRAME_PIXELS // 1_000_000} million allowed"
            )


@contextmanager
def open_video(name: str) -> Iterator[Video]:
    """Open a video or a camera.

    Args:
        name: path of a video, or `camera:N`.

    Raises:
        UserError: PyAV is not installed, there is no such camera, the file is no video, or its frames are too large.
    """
    av = _import_av()
    number = camera_number(name)
    try:
        if number is not None:
            file, mode, kind = _camera(number)
            # Built-in cameras of Macs refuse the rate that is asked for by default, 29.97.
            options = {"framerate": "30"} if kind == "avfoundation" else {}
            container = av.open(file, mode, kind, options=options)
        else:
            whitelist = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
            container = av.open(str(Path(name).resolve()), container_options=whitelist, metadata_errors="replace")
    except OSError as error:  # the base class of PyAV's errors
        reason = (error.strerror or str(error)).split(": '")[0]
        if number is not None:
            raise UserError(
                f"{name}: no camera can be opened: {reason}; is one connected, and may this user open it?"
            ) from error
        raise UserError(f"{name}: not a video that can be read: {reason}") from error
    except ValueError as error:
        raise UserError(f"{name}: not a video that can be read: {error}") from error
    with container:
        yield Video(name, container)


def check_videos(items: Iterable[InputItem]) -> None:
    """Decode a frame of each video of the inputs, so that one that cannot be read is found before the others are predicted.

    Args:
        items: the inputs; cameras are not opened.

    Raises:
        UserError: PyAV is not installed, or a file is no video that can be read.
    """
    for path in (path for item in items if item.kind == "video" for path in item.paths):
        if camera_number(path) is None:
            with open_video(path) as video:
                next(video.frames(1))
        else:
            _import_av()


class VideoWriter:
    """Writes frames to an H.264 file, which is created with the first frame's size.

    Args:
        path: the file.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._container = _import_av().open(str(path), "w", format="mp4")
        self._rate = rate
        self._stream: Any = None

    def write(self, image: Image.Image) -> None:
        """Write one frame, resized to the first frame's size; sides are even, because colors have half the resolution.

        Args:
            image: the frame.
        """
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate, options={"preset": "veryfast"})
            self._stream.width, self._stream.height = (max(2, side - side % 2) for side in image.size)
            self._stream.pix_fmt = "yuv420p"
        size = (self._stream.width, self._stream.height)
        image = image if image.size == size else image.resize(size)
        frame = _import_av().VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write buffered frames and close the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


def _camera(number: int) -> tuple[str, str, str]:
    """Return file, mode and format of a camera for `av.open`."""
    system = platform.system()
    if system == "Linux":
        return f"/dev/video{number}", "r", "video4linux2"
    if system == "Darwin":
        return str(number), "r", "avfoundation"
    raise UserError(f"camera:{number}: cameras can be read on Linux and macOS only; record a video and give that")


def _kinds(container: Any) -> str:
    kinds = sorted({stream.type for stream in container.streams})
    return " and ".join(kinds) if kinds else "nothing"


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError(
            "videos and cameras need a package that is not installed: pip install 'agebench[video]'"
        ) from error
    av.logging.set_level(av.logging.PANIC)
    return av

"""The demonstration, without its page: what is shown and said of a picture, of a camera's frame, of a face's map."""

import base64
import html
import io
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from PIL import Image

from agebench.errors import AgebenchError
from agebench.inference.annotate import annotate, save_picture
from agebench.inference.demo.formatting import ResultFormatter
from agebench.inference.demo.heatmap import occlusion_heatmap
from agebench.inference.face_extraction import AlignMode, Box, open_picture
from agebench.inference.predictor import FacePrediction, Predictor
from agebench.reports.formatting import escape_markdown

_WIDEST = 1280  # pixels, of drawn pictures
_EXPLAINED = 3  # faces of a picture, the largest


@dataclass
class FrameRate:
    """Frames of one camera, counted.

    Attributes:
        frames: so far.
        times: of the last ones, seconds.
    """

    frames: int = 0
    times: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    def tick(self, work: float) -> str:
        """One more, that took `work` seconds here; in words."""
        self.frames += 1
        self.times.append(time.perf_counter())
        passed = self.times[-1] - self.times[0]
        speed = f"{(len(self.times) - 1) / passed:.1f} frames/s, " if passed > 0 else ""
        return f"{speed}frame {self.frames:,}, {1000 * work:.0f} ms of work here"


class DemoSession:
    """A model that pictures can be shown to.

    Args:
        predictor: the model, open.
        level: the share of true ages that intervals are to hold.
        detector: see `Predictor.stream`.
        search: likewise.
    """

    def __init__(self, predictor: Predictor, *, level: float, detector: str = "", search: int = 0) -> None:
        self._predictor, self._detector, self._search = predictor, detector, search
        self._lock = threading.Lock()  # one picture at a time: two would only slow each other down
        self.words = ResultFormatter(predictor, level)

    def predict(self, picture: bytes | None, framing: AlignMode) -> tuple[str, str]:
        """An uploaded picture -> it as HTML, its faces marked, and what is said of them as Markdown."""
        if picture is None:
            return "", ""
        if not picture:
            return "", "### No age\n\nThis picture is not an image, or no longer kept here: choose it again."
        try:
            faces = self._look(picture, framing)
            return _shown(picture, faces), self.words.answer(faces)
        except AgebenchError as error:
            return "", f"### No age\n\n{escape_markdown(error)}"

    def predict_frame(self, frame: bytes | None, framing: AlignMode, rate: FrameRate) -> tuple[str, str]:
        """A camera's frame -> likewise, with the frames a second."""
        if frame is None:
            return "", ""
        start = time.perf_counter()
        try:
            faces = self._look(frame, framing)
            shown = _shown(frame, faces)
            return shown, self.words.live(faces, rate.tick(time.perf_counter() - start))
        except AgebenchError as error:
            return "", f"### No age\n\n{escape_markdown(error)}"

    def attribute(self, picture: bytes | None, framing: AlignMode) -> tuple[str, str]:
        """The same picture -> the maps of its largest faces, and what they mean."""
        if picture is None:
            return "", "First a picture."
        try:
            with self._lock:
                finder = self._predictor.finder(framing, detector=self._detector, search=self._search)
                found = finder([picture])[0]
                if found.error:
                    return "", f"No map: {escape_markdown(found.error)}."
                drawn, words = occlusion_heatmap(self._predictor.estimator, found.faces[:_EXPLAINED])
        except AgebenchError as error:
            return "", escape_markdown(error)
        return _img(drawn, "heatmap"), words

    def _look(self, picture: bytes, framing: AlignMode) -> list[FacePrediction]:
        with self._lock:
            seen = self._predictor.stream(
                [picture], faces=framing, level=self.words.level, detector=self._detector, search=self._search
            )
            return next(seen).faces


def _shown(picture: bytes, faces: list[FacePrediction]) -> str:
    """With boxes and ages; a large one reduced, a text over a dozen of pixels would not be seen."""
    try:
        image = open_picture(picture)
    except (AgebenchError, OSError):
        return ""
    shrink = max(1.0, max(image.size) / _WIDEST)
    if shrink > 1:
        image = image.resize((round(image.width / shrink), round(image.height / shrink)), reducing_gap=2)
        faces = [face._replace(box=_scaled(face.box, shrink)) for face in faces]
    return _img(image if faces[0].error else annotate(image, faces), "faces")


def _scaled(box: Box | None, shrink: float) -> Box | None:
    return None if box is None else (box[0] / shrink, box[1] / shrink, box[2] / shrink, box[3] / shrink)


def _img(picture: Image.Image, name: str) -> str:
    """The picture inside the page itself, so that no file of it is written."""
    buffer = io.BytesIO()
    save_picture(picture, buffer)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{html.escape(name)}" alt="{html.escape(name)}" src="data:image/jpeg;base64,{content}">'

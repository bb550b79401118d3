"""The demo without its page: results for an image, a camera frame, and a face's attribution map."""

import base64
import html
import io
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from PIL import Image

from agebench.errors import AgebenchError
from agebench.inference.annotate import annotate, save_image
from agebench.inference.demo.formatting import ResultFormatter
from agebench.inference.demo.heatmap import occlusion_heatmap
from agebench.inference.face_extraction import AlignMode, Box, load_image
from agebench.inference.predictor import FacePrediction, Predictor
from agebench.reports.formatting import escape_markdown

_MAX_SIDE = 1280  # of drawn images, pixels
_MAX_MAPS = 3  # faces of an image with a map, the largest


@dataclass
class FrameRate:
    """Frame rate of one camera.

    Attributes:
        frames: number of frames so far.
        times: times of the last frames, seconds.
    """

    frames: int = 0
    times: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    def tick(self, work: float) -> str:
        """Count a frame and describe the rate.

        Args:
            work: seconds of computation for the frame.
        """
        self.frames += 1
        self.times.append(time.perf_counter())
        passed = self.times[-1] - self.times[0]
        speed = f"{(len(self.times) - 1) / passed:.1f} frames/s, " if passed > 0 else ""
        return f"{speed}frame {self.frames:,}, {1000 * work:.0f} ms of work here"


class DemoSession:
    """An open model that predicts one image at a time.

    Args:
        predictor: the model.
        level: share of true ages that intervals are to contain.
        detector: name of a detector; empty: the model's.
        search: longest side at which faces are searched, pixels; 0: as the images are.
    """

    def __init__(self, predictor: Predictor, *, level: float, detector: str = "", search: int = 0) -> None:
        self._predictor, self._detector, self._search = predictor, detector, search
        self._lock = threading.Lock()  # one image at a time, because two would slow each other down
        self.words = ResultFormatter(predictor, level)

    def predict(self, content: bytes | None, framing: AlignMode) -> tuple[str, str]:
        """Predict the faces of an uploaded image.

        Args:
            content: bytes of the image; empty if it is no longer kept; None if there is none.
            framing: `detect` or `none`, see `Predictor.stream`.

        Returns:
            HTML of the image with its faces marked, and the results as Markdown.
        """
        if content is None:
            return "", ""
        if not content:
            return "", "### No age\n\nThis file is not an image, or is no longer stored: choose it again."
        try:
            faces = self._predict_faces(content, framing)
            return _draw(content, faces), self.words.answer(faces)
        except AgebenchError as error:
            return "", f"### No age\n\n{escape_markdown(error)}"

    def predict_frame(self, frame: bytes | None, framing: AlignMode, rate: FrameRate) -> tuple[str, str]:
        """Predict the faces of a camera frame.

        Args:
            frame: bytes of the frame; None if there is none.
            framing: `detect` or `none`, see `Predictor.stream`.
            rate: frame rate of the camera.

        Returns:
            HTML of the frame with its faces marked, and the results with the frame rate as Markdown.
        """
        if frame is None:
            return "", ""
        start = time.perf_counter()
        try:
            faces = self._predict_faces(frame, framing)
            drawn = _draw(frame, faces)
            return drawn, self.words.live(faces, rate.tick(time.perf_counter() - start))
        except AgebenchError as error:
            return "", f"### No age\n\n{escape_markdown(error)}"

    def attribute(self, content: bytes | None, framing: AlignMode) -> tuple[str, str]:
        """Draw attribution maps of the largest faces of an image.

        Args:
            content: bytes of the image; None if there is none.
            framing: `detect` or `none`, see `Predictor.stream`.

        Returns:
            HTML of the maps, and their meaning as Markdown.
        """
        if content is None:
            return "", "Choose an image first."
        try:
            with self._lock:
                extractor = self._predictor.finder(framing, detector=self._detector, search=self._search)
                extracted = extractor([content])[0]
                if extracted.error:
                    return "", f"No map: {escape_markdown(extracted.error)}."
                drawn, words = occlusion_heatmap(self._predictor.estimator, extracted.faces[:_MAX_MAPS])
        except AgebenchError as error:
            return "", escape_markdown(error)
        return _img(drawn, "heatmap"), words

    def _predict_faces(self, content: bytes, framing: AlignMode) -> list[FacePrediction]:
        with self._lock:
            results = self._predictor.stream(
                [content], faces=framing, level=self.words.level, detector=self._detector, search=self._search
            )
            return next(results).faces


def _draw(content: bytes, faces: list[FacePrediction]) -> str:
    """Return the image with boxes and ages; a large image is reduced, so that its labels stay legible on the page."""
    try:
        image = load_image(content)
    except (AgebenchError, OSError):
        return ""
    factor = max(1.0, max(image.size) / _MAX_SIDE)
    if factor > 1:
        image = image.resize((round(image.width / factor), round(image.height / factor)), reducing_gap=2)
        faces = [face._replace(box=_scaled(face.box, factor)) for face in faces]
    has_none = all(face.error and not face.box for face in faces)
    return _img(image if has_none else annotate(image, faces), "faces")


def _scaled(box: Box | None, factor: float) -> Box | None:
    return None if box is None else (box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor)


def _img(image: Image.Image, name: str) -> str:
    """Return an image as HTML with a data URL, so that no file is written."""
    buffer = io.BytesIO()
    save_image(image, buffer)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="{html.escape(name)}" alt="{html.escape(name)}" src="data:image/jpeg;base64,{encoded}">'

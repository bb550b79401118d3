"""Estimate ages with an external model of any format."""

import hashlib
import importlib.util
import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.estimators.base import (
    AgeEstimates,
    BaseEstimator,
    EstimatorInfo,
    InputSpec,
    concat_estimates,
)
from agebench.estimators.external.callable import CallableProcess
from agebench.estimators.external.command import run_command_model, run_photo_command
from agebench.estimators.external.decoding import DecodeFunction, parse_outputs
from agebench.estimators.external.formats import FILES, model_files, open_model
from agebench.estimators.external.http_answers import to_estimates
from agebench.estimators.external.http_api import HttpModel
from agebench.estimators.external.http_request import encode_face, secrets_of
from agebench.estimators.external.io_spec import prepare
from agebench.estimators.external.model_files import OpenModel
from agebench.estimators.external.photos import DetectedFaces, Photo, select_faces
from agebench.estimators.packages import package_digest, require_package
from agebench.utils.io import file_digest
from agebench.utils.progress import progress


class ExternalEstimator(BaseEstimator):
    """A model that agebench did not train, called as its card specifies.

    Args:
        card: the model's card. Files and callables are called batch by batch, a command once per call of `estimate`.
        device: device of files that torch runs, e.g. `cpu`; the others run on the CPU.

    Raises:
        UserError: the model's file or package is missing or cannot be read.
        ExternalModelError: the callable cannot be loaded.
    """

    def __init__(self, card: ExternalCard, device: str = "cpu") -> None:
        self.card, self._stack = card, ExitStack()
        spec = card.input
        self.input_spec = InputSpec(
            card.size,
            spec.coverage,
            kind=spec.kind,
            offset=spec.offset,
            visible=spec.visible,
            margin=spec.margin,
            fit=spec.box_fit,
        )
        self.info = EstimatorInfo(
            card.name,
            card.title,
            licence=card.licence,
            training_data=card.training_data,
            trained_on=card.trained_on,
        )
        self._model: OpenModel | None = None
        self._process: CallableProcess | None = None
        self._http: HttpModel | None = None
        if card.format in FILES:
            self._model = self._stack.enter_context(open_model(card, device))
        elif card.format == "callable":
            photos = spec.kind == "photo"
            self._process = self._stack.enter_context(CallableProcess(card, photos=photos))
            self._model = OpenModel(self._process)
        elif card.format == "http":
            self._http = HttpModel(card)
            self._stack.callback(self._http.close)
        self._decode = self._open_decoder()

    def _open_decoder(self) -> DecodeFunction | None:
        if not self.card.output.decode_function:
            return None
        process = self._stack.enter_context(CallableProcess(self.card, self.card.output.decode, ("",)))
        return lambda values: process(values)[0]

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N faces, in float64.

        Args:
            images: (N, S, S, 3) uint8 RGB, S = `card.input.size`; N may be 0.

        Raises:
            ExternalModelError: the model raised, timed out, or returned a result that its card does not announce.
            UserError: the model takes whole photographs.
        """
        if self.card.input.kind == "photo":
            raise UserError(
                f"model '{self.card.name}' takes whole photographs and detects faces itself: it is tested with `agebench test`"
            )
        if self._http is not None:
            encoded = [(*encode_face(face, self._http.request), face.tobytes()) for face in images]
            return to_estimates([self._http.ask(*image) for image in encoded], self.card)
        if self._model is None:
            if not len(images):
                return AgeEstimates(np.zeros(0, np.float32))
            return run_command_model(self.card, images, np.arange(len(images)))
        size = self.card.batch_size
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        return concat_estimates([self._estimate_batch(self._model, batch) for batch in batches])

    def _estimate_batch(self, model: OpenModel, batch: np.ndarray) -> AgeEstimates:
        outputs = model.call(prepare(batch, self.card.input))
        return parse_outputs(outputs, len(batch), self.card, ages=model.ages, decode=self._decode)

    def estimate_photos(self, photos: Sequence[Photo], *, label: str = "") -> AgeEstimates:
        """Estimate the age of the annotated face in each photograph; a photograph without a detected face fails.

        Args:
            photos: the photographs.
            label: text before the progress bar.

        Raises:
            ExternalModelError: the model raised, timed out, or returned a result that its card does not announce.
            UserError: the model takes prepared faces.
        """
        if self.card.input.kind != "photo":
            raise UserError(f"model '{self.card.name}' takes prepared faces, not photographs")
        if self._http is not None:
            images = progress(photos, label=label, unit="img")
            return to_estimates([self._http.ask(photo.file, photo.media_type) for photo in images], self.card)
        if self._process is None:
            faces = run_photo_command(self.card, photos)
        else:
            faces = []
            for photo in progress(photos, label=label, unit="img"):
                box, points = (np.zeros(0) if part is None else np.asarray(part) for part in (photo.box, photo.points))
                faces.append(DetectedFaces(*self._process(photo.pixels, box, points)))
        return select_faces(faces, photos, self.card)

    def close(self) -> None:
        """End the processes of callables."""
        self._stack.close()


def estimate(
    card: ExternalCard, pixels: np.ndarray, rows: np.ndarray, *, device: str = "cpu", label: str = ""
) -> AgeEstimates:
    """Estimate the ages of selected faces, with a progress bar.

    Args:
        card: the model's card.
        pixels: (M, S, S, 3) uint8 RGB faces, S = `card.input.size`; may be memory-mapped.
        rows: (N,) the rows of `pixels` to estimate.
        device: device of TorchScript and torch.export files.
        label: text before the progress bar.

    Returns:
        Estimates in the order of `rows`.

    Raises:
        UserError: the model's file or package is missing or cannot be read.
        ExternalModelError: the model raised, timed out, or returned a result that its card does not announce.
    """
    if card.format == "command":
        return run_command_model(card, pixels, rows)
    batches = []
    with ExternalEstimator(card, device) as estimator, progress(total=len(rows), label=label, unit="img") as bar:
        for start in range(0, len(rows), card.batch_size):
            batch = pixels[rows[start : start + card.batch_size]]
            batches.append(estimator.estimate(batch))
            bar.update(len(batch))
    return concat_estimates(batches)


def fingerprint(card: ExternalCard) -> str:
    """Return the first 16 digits of a SHA-256: of the model's file, of the digests of its files, or of the card's package.

    Args:
        card: the model's card.

    Returns:
        The digits; empty for models that are not in files.

    Raises:
        UserError: the file, the package, the module or the program is missing; raised before any work is done.
    """
    if card.format in FILES:
        digests = [file_digest(path) for path in model_files(card)]
        return (digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest())[:16]
    if card.format == "http":
        secrets_of(card)
        return ""
    if card.package is not None:
        require_package(card)
        return package_digest(card.package)[:16]
    if card.format == "command":
        program = shlex.split(card.source)[0]
        if shutil.which(program) is None:
            raise UserError(f"model '{card.name}': no such program: {program}")
        return ""
    location = card.source.rpartition(":")[0]
    path = Path(location)
    if not location.endswith(".py"):
        module = location.partition(".")[0]
        if importlib.util.find_spec(module) is None:
            raise UserError(f"model '{card.name}': no module called {module} is installed or on PYTHONPATH")
        return ""
    if not path.is_file():
        raise UserError(f"model '{card.name}': no such file: {path}")
    return file_digest(path)[:16]

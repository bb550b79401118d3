"""Estimate ages with an external model of any format."""

import importlib.util
import shlex
import shutil
from collections.abc import Callable
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
from agebench.estimators.external.command import run_command_model
from agebench.estimators.external.io_spec import parse_output, prepare
from agebench.estimators.external.model_files import find_file, open_file
from agebench.estimators.packages import require_package
from agebench.utils.io import file_digest
from agebench.utils.progress import progress

FILES = ("onnx", "torchscript", "torch-export")


class ExternalEstimator(BaseEstimator):
    """A model that agebench did not train, called as its card specifies.

    Args:
        card: the model's card. Files and callables are called batch by batch, a command once per call of `estimate`.
        device: device of TorchScript and torch.export files, e.g. `cpu`; ONNX files run on the CPU.

    Raises:
        UserError: the model's file or package is missing or cannot be read.
        ExternalModelError: the callable cannot be loaded.
    """

    def __init__(self, card: ExternalCard, device: str = "cpu") -> None:
        self.card, self._stack = card, ExitStack()
        self.input_spec = InputSpec(card.size, card.input.coverage, offset=card.input.offset)
        self.info = EstimatorInfo(
            card.name,
            card.title,
            licence=card.licence,
            training_data=card.training_data,
            trained_on=card.trained_on,
            card=card.model_dump(mode="json"),
        )
        self._call: Callable[[np.ndarray], np.ndarray] | None = None
        if card.format in FILES:
            self._call = open_file(card, device)
        elif card.format == "callable":
            self._call = self._stack.enter_context(CallableProcess(card))

    def estimate(self, images: np.ndarray) -> AgeEstimates:
        """Estimate the ages of N faces, in float64.

        Args:
            images: (N, S, S, 3) uint8 RGB, S = `card.input.size`; N may be 0.

        Raises:
            ExternalModelError: the model raised, timed out, or returned a result that its card does not announce.
        """
        if self._call is None:
            if not len(images):
                return AgeEstimates(np.zeros(0, np.float32))
            return run_command_model(self.card, images, np.arange(len(images)))
        size = self.card.batch_size
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        return concat_estimates(
            [parse_output(self._call(prepare(batch, self.card.input)), len(batch), self.card) for batch in batches]
        )

    def close(self) -> None:
        """End the process of a callable."""
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
    """Return the first 16 digits of the SHA-256 of the model's file, or of the package that a callable or command uses.

    Args:
        card: the model's card.

    Returns:
        The digits; empty for models that are not a single file.

    Raises:
        UserError: the file, the package, the module or the program is missing; raised before any work is done.
    """
    if card.format in FILES:
        path = find_file(card)
    elif card.package is not None:
        require_package(card)
        return card.package.sha256[:16]
    elif card.format == "command":
        program = shlex.split(card.source)[0]
        if shutil.which(program) is None:
            raise UserError(f"model '{card.name}': no such program: {program}")
        return ""
    else:
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

"""Ages from any external model, whatever it is made of."""

import importlib.util
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from agebench.config.cards.external import ExternalCard
from agebench.errors import UserError
from agebench.estimators.external.callable import CallableProcess
from agebench.estimators.external.command import run_command_model
from agebench.estimators.external.io_spec import ExternalOutputBatch, concat_outputs, prepare, read_answer
from agebench.estimators.external.model_files import find_file, open_file
from agebench.utils.io import file_digest
from agebench.utils.progress import progress

FILES = ("onnx", "torchscript", "torch-export")


def estimate(
    card: ExternalCard, pixels: np.ndarray, rows: np.ndarray, *, device: str = "cpu", label: str = ""
) -> ExternalOutputBatch:
    """What the model says about some faces, in their order.

    Args:
        card: the model's; files and callables are called batch by batch, a command once.
        pixels: (M, S, S, 3) uint8 RGB faces, S = card.input.size.
        rows: (N,) the rows of `pixels` that are asked for.
        device: of TorchScript and torch.export files.
        label: before the progress bar.

    Raises:
        UserError: the model's file or package is not there or cannot be read.
        ExternalModelError: it raised, hung, or said something else than its card announces.
    """
    if card.format == "command":
        return run_command_model(card, pixels, rows)
    answers = []
    with open_estimator(card, device) as ask, progress(total=len(rows), label=label, unit="img") as bar:
        for start in range(0, len(rows), card.batch_size):
            batch = pixels[rows[start : start + card.batch_size]]
            answers.append(ask(batch))
            bar.update(len(batch))
    return concat_outputs(answers)


@contextmanager
def open_estimator(card: ExternalCard, device: str = "cpu") -> Iterator[Callable[[np.ndarray], ExternalOutputBatch]]:
    """A function that asks the model about (N, S, S, 3) uint8 RGB faces, S = card.input.size, N > 0; it stays open for many calls.

    Raises:
        UserError, ExternalModelError: as `estimate`.
    """
    with ExitStack() as stack:
        if card.format == "command":
            yield lambda faces: run_command_model(card, faces, np.arange(len(faces)))
            return
        call = open_file(card, device) if card.format in FILES else stack.enter_context(CallableProcess(card))

        def ask(faces: np.ndarray) -> ExternalOutputBatch:
            pieces = (faces[start : start + card.batch_size] for start in range(0, len(faces), card.batch_size))
            return concat_outputs([read_answer(call(prepare(piece, card.input)), len(piece), card) for piece in pieces])

        yield ask


def fingerprint(card: ExternalCard) -> str:
    """What changes when the model's file does: the first 16 digits of its SHA-256; empty where there is no one file.

    Raises:
        UserError: the file, the package, the module or the program is not there; found before any work is done.
    """
    if card.format in FILES:
        path = find_file(card)
    elif card.format == "command":
        program = shlex.split(card.source)[0]
        if shutil.which(program) is None:
            raise UserError(f"model '{card.name}': no such program: {program}")
        return ""
    else:
        place = card.source.rpartition(":")[0]
        path = Path(place)
        if not place.endswith(".py"):
            module = place.partition(".")[0]
            if importlib.util.find_spec(module) is None:
                raise UserError(f"model '{card.name}': no module called {module} is installed or on PYTHONPATH")
            return ""
        if not path.is_file():
            raise UserError(f"model '{card.name}': no such file: {path}")
    return file_digest(path)[:16]

"""Ages from any external model, whatever it is made of."""

import hashlib
from contextlib import ExitStack

import numpy as np

from agebench.models.external.command import ask_command
from agebench.models.external.contract import Answer, join, prepare, read_answer
from agebench.models.external.files import find_file, open_file
from agebench.models.external.process import CallableProcess
from agebench.progress import progress
from agebench.registry.external import ExternalCard

FILES = ("onnx", "torchscript", "torch-export")


def estimate(
    card: ExternalCard, pixels: np.ndarray, rows: np.ndarray, *, device: str = "cpu", label: str = ""
) -> Answer:
    """What the model says about some faces, in their order.

    Args:
        card: the model's; files and callables are called batch by batch, a command once.
        pixels: (M, S, S, 3) uint8 RGB faces, S = card.input.size.
        rows: (N,) the rows of `pixels` that are asked for.
        device: of TorchScript and torch.export files.
        label: before the progress bar.

    Raises:
        UserError: the model's file or package is not there or cannot be read.
        ExternalBroken: it raised, hung, or said something else than its card announces.
    """
    if card.format == "command":
        return ask_command(card, pixels, rows)
    answers = []
    with ExitStack() as stack:
        call = open_file(card, device) if card.format in FILES else stack.enter_context(CallableProcess(card))
        bar = stack.enter_context(progress(total=len(rows), label=label, unit="img"))
        for start in range(0, len(rows), card.batch_size):
            batch = pixels[rows[start : start + card.batch_size]]
            answers.append(read_answer(call(prepare(batch, card.input)), len(batch), card))
            bar.update(len(batch))
    return join(answers)


def fingerprint(card: ExternalCard) -> str:
    """What changes when the model's file does: the first 16 digits of its SHA-256; empty for callables and commands.

    Raises:
        UserError: the file or its package is not there.
    """
    if card.format not in FILES:
        return ""
    with find_file(card).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]

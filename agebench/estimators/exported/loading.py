"""Open exported files of any format."""

from pathlib import Path

import numpy as np

from agebench.errors import UserError
from agebench.estimators.exported.base import MAX_FILE_BYTES, SUFFIXES, ExportedFile, read_archive_card


def open_exported(path: Path, *, trusted: bool = False, device: str = "cpu") -> ExportedFile:
    """Open a file that `agebench export` wrote: .ts or .pt (TorchScript), .onnx, .pt2 (torch.export).

    Args:
        path: the file.
        trusted: whether code in it may run. TorchScript and torch.export files are programs; ONNX files need no trust.
        device: device of TorchScript and torch.export files; ONNX files run on the CPU.

    Raises:
        UserError: there is no such file, `agebench export` did not write it, it is damaged, too large or not trusted, or
            its card does not fit it.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if kind is None:
        raise UserError(f"{path}: not an exported model; these end in {', '.join(SUFFIXES)}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(
            f"{path}: {path.stat().st_size:,} bytes are more than an exported model may have ({MAX_FILE_BYTES:,})"
        )
    if kind != "onnx" and not trusted:
        raise UserError(
            f"{path}: a {path.suffix} file is a program, and opening it can run code of its author. If you trust its "
            "origin, pass --allow-code-execution (trusted=True in Python); an .onnx file of the same model needs no trust"
        )
    opened = _open(path, kind, device)
    _check_fit(opened)
    return opened


def _open(path: Path, kind: str, device: str) -> ExportedFile:
    if kind == "onnx":
        from agebench.estimators.exported.onnx_file import OnnxFile

        return OnnxFile(path)
    from agebench.estimators.exported.torch_files import TorchExportFile, TorchScriptFile

    reader = TorchExportFile if kind == "pt2" else TorchScriptFile
    return reader(path, read_archive_card(path), device)


def _check_fit(opened: ExportedFile) -> None:
    """Check the shapes of the outputs for one gray face against the card.

    Raises:
        UserError: they differ, or the file refuses an input that its card allows.
    """
    side, planes, output = opened.card.input.size, opened.card.input.planes, opened.card.output
    announced = [(1,), (1,) if output.std else (0,), (1, output.n_ages) if output.probs else (0, 0)]
    try:
        shapes = [output.shape for output in opened.run(np.full((1, planes, side, side), 128, np.uint8))]
    except Exception as error:  # each runtime raises exceptions of its own
        raise UserError(f"{opened.path}: refuses a face as its card describes it: {error}") from error
    if shapes != announced:
        raise UserError(
            f"{opened.path}: the file does not fit its card: for one face age, std and probs should have the shapes "
            f"{announced}; they have {shapes}"
        )

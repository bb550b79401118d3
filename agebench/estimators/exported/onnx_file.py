"""Read exported ONNX files: standard operators only, one file, checked before a runtime opens it."""

from pathlib import Path

import numpy as np

from agebench.errors import UserError
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.card import foreign_model_message, read_card
from agebench.estimators.exported.onnx_inspect import scan_onnx
from agebench.estimators.external.model_files import first_line, onnx_session

CARD_KEY = "agebench.card"  # of the file's metadata
OUTPUTS = ["age", "std", "probs"]
# Domains of operators that every runtime has, and prefixes of domains that runtimes define themselves.
_STANDARD = {"", "ai.onnx"}
_RUNTIMES = ("ai.onnx", "com.microsoft", "com.ms")


class OnnxFile(ExportedFile):
    """An exported ONNX file: standard operators, all weights inside.

    Args:
        path: the file.

    Raises:
        UserError: the file is damaged, holds no card, or uses other operators or files.
    """

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        scan = scan_onnx(path, content)
        if scan.external:
            raise UserError(f"{path}: keeps weights in other files; an exported model is one file")
        # Functions that the file defines consist of operators that are checked too. A function named like a runtime's
        # operator is not allowed: which of the two would run depends on the runtime.
        defined = {name for name in scan.functions if not name[0].startswith(_RUNTIMES)}
        unknown = {domain for domain, _ in (scan.operators | scan.functions) - defined if domain not in _STANDARD}
        if unknown:
            raise UserError(f"{path}: has operators of {', '.join(sorted(unknown))}; only the standard ones are run")
        if CARD_KEY not in scan.metadata:
            raise UserError(foreign_model_message(path, "it holds no card"))
        super().__init__(path, read_card(path, scan.metadata[CARD_KEY]))
        try:
            self.session = onnx_session(str(path), content)
        except UserError:
            raise
        except Exception as error:  # onnxruntime raises exceptions of its own
            raise UserError(f"{path}: not readable as an ONNX model: {first_line(error)}") from error
        inputs = [(each.name, each.type, len(each.shape)) for each in self.session.get_inputs()]
        outputs = [each.name for each in self.session.get_outputs()]
        if inputs != [("images", "tensor(uint8)", 4)] or outputs != OUTPUTS:
            raise UserError(
                f"{path}: its card specifies images (uint8, NCHW) in and {', '.join(OUTPUTS)} out; the file has "
                f"{', '.join(f'{name} ({kind}, {axes} axes)' for name, kind, axes in inputs)} in and {', '.join(outputs)} out"
            )

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call the file; see `ExportedFile.run`.

        Args:
            images: (B, C, H, W) uint8.
        """
        return tuple(self.session.run(OUTPUTS, {"images": images}))

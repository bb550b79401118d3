"""Read exported ONNX files: standard operators only, one file, checked before a runtime opens it."""

from pathlib import Path

import numpy as np

from agebench.errors import UserError
from agebench.estimators.exported.base import ExportedFile, foreign_model_message, read_card
from agebench.estimators.exported.onnx_inspect import scan_onnx
from agebench.estimators.external.model_files import first_line, onnx_session

CARD_KEY = "agebench.card"  # of the file's metadata
OUTPUTS = ["age", "std", "probs"]
# Domains of operators that every runtime has, and prefixes of domains that runtimes define themselves.
_STANDARD = {"", "ai.onnx"}
_RUNTIMES = ("ai.onnx", "com.microsoft", "com.ms")


class OnnxFile(ExportedFile):
    """An ONNX file of ours: standard operators, nothing outside of the file."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        found = scan_onnx(path, content)
        if found.external:
            raise UserError(f"{path}: keeps weights in other files; an exported model is one file")
        # A function of the file's own is made of operators that are looked at too; one that is called like an operator of a
        # runtime is none of our exporter's, and what would then be run is not for us to find out.
        own = {name for name in found.functions if not name[0].startswith(_RUNTIMES)}
        strange = {domain for domain, _ in (found.operators | found.functions) - own if domain not in _STANDARD}
        if strange:
            raise UserError(f"{path}: has operators of {', '.join(sorted(strange))}; only the standard ones are run")
        if CARD_KEY not in found.metadata:
            raise UserError(foreign_model_message(path, "it holds no card"))
        super().__init__(path, read_card(path, found.metadata[CARD_KEY]))
        try:
            self.session = onnx_session(str(path), content)
        except UserError:
            raise
        except Exception as error:  # onnxruntime raises kinds of its own.
            raise UserError(f"{path}: not readable as an ONNX model: {first_line(error)}") from error
        inputs = [(one.name, one.type, len(one.shape)) for one in self.session.get_inputs()]
        outputs = [one.name for one in self.session.get_outputs()]
        if inputs != [("images", "tensor(uint8)", 4)] or outputs != OUTPUTS:
            raise UserError(
                f"{path}: its card says images (uint8, NCHW) in and {', '.join(OUTPUTS)} out; the file has "
                f"{', '.join(f'{name} ({kind}, {axes} axes)' for name, kind, axes in inputs)} in and {', '.join(outputs)} out"
            )

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `ExportedFile`."""
        return tuple(self.session.run(OUTPUTS, {"images": images}))

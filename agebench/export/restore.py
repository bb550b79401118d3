"""Rebuild the network of an exported TorchScript file, to write it in another format."""

from pathlib import Path

import numpy as np

from agebench.config.cards.model import Architecture
from agebench.config.toml_io import validate_model
from agebench.data.image_io import open_image
from agebench.data.readers.synth import SynthReader
from agebench.errors import AgebenchError, UserError
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.loading import open_exported
from agebench.estimators.external.model_files import load_torchscript
from agebench.export.writer import TOLERANCE, ExportVariant, write_export
from agebench.models.age_model import AgeModel, create_model

# Drawn faces on which the two files are compared.
_EXAMPLES = 32


def restore_model(source: ExportedFile) -> tuple[AgeModel, Architecture]:
    """Return the network inside a TorchScript file that `agebench export` wrote, as a model of this package.

    Args:
        source: the opened file; it is trusted.

    Raises:
        UserError: the network is not the one that the file's card describes.
    """
    facts = source.card.model.to_json()
    fields = {key: value for key, value in facts.items() if key in Architecture.model_fields}
    architecture = validate_model(Architecture, fields, source=f"{source.path}: its card")
    model = create_model(architecture, ages=(source.card.output.ages[0], source.card.output.ages[1]))
    module = load_torchscript(source.path, "cpu")
    expected = model.state_dict()  # the file also has constants, which a model does not store
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in module.state_dict().items()
        if name in expected
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{source.path}: the network is not the one that its card describes, so that it cannot be written in another "
            f"format: {' '.join(str(error).split())[:300]}. Export the run again, with --format onnx"
        ) from error
    model.flip_tta = bool(getattr(module, "flip", False))
    return model.eval(), architecture


def convert_to_onnx(source: ExportedFile, path: Path) -> None:
    """Write the model of a TorchScript file as ONNX, with the same card.

    Args:
        source: the opened file; it is trusted.
        path: the ONNX file.

    Raises:
        UserError: the network is not the one that the file's card describes, or a package is missing.
        AgebenchError: the two files' ages differ by more than `TOLERANCE`.
    """
    model, architecture = restore_model(source)
    faces = _drawn_faces(architecture.size)
    write_export(model, architecture, source.card, path, examples=faces, variant=ExportVariant("onnx"))
    largest = float(np.abs(open_exported(path).estimate(faces).age - source.estimate(faces).age).max())
    if not largest <= TOLERANCE:
        path.unlink()
        raise AgebenchError(
            f"{source.path}: as ONNX, its ages differ by up to {largest:.3g} years (allowed: {TOLERANCE}); the file was not kept"
        )


def _drawn_faces(size: int) -> np.ndarray:
    reader = SynthReader(None, count=_EXAMPLES, size=size)
    return np.stack([np.asarray(open_image(reader.image_bytes(f"synth-{idx}.png"))) for idx in range(_EXAMPLES)])

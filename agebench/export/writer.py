"""Write a trained model as a file, which is kept only if its estimates agree with the model's."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agebench.config.cards.model import Architecture
from agebench.errors import AgebenchError
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.card import INPUT_SIDE_RANGE, AccuracyComparison, AgreementCheck, ExportCard
from agebench.estimators.exported.loading import open_exported
from agebench.export.accuracy_check import AccuracyCheckFailed
from agebench.export.wrapper import ExportWrapper, SaveFn
from agebench.models.age_model import AgeModel
from agebench.training.augmentation import normalize
from agebench.utils.io import atomic_write

# Largest allowed difference in years. float32 convolutions may be fused and ordered differently.
TOLERANCE = 0.01

SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx", "pt2": ".pt2"}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
# Combinations that cannot be exported -> the reason.
UNSUPPORTED = {
    ("onnx", "bf16"): "onnxruntime has no convolutions in bf16 on CPUs",
    ("torchscript", "int8"): "PyTorch's own quantization is no longer part of it; int8 is written as onnx",
    ("pt2", "int8"): "PyTorch's own quantization is no longer part of it; int8 is written as onnx",
}
# Number of faces that are also checked at another size than the network's.
_RESIZED = 8


@dataclass(frozen=True)
class ExportVariant:
    """One file of a model: its format and the precision of its network."""

    kind: str
    precision: str = "fp32"

    @property
    def file(self) -> str:
        """Return the name of the file, e.g. `model.ts` or `model.int8.onnx`."""
        return f"model{'' if self.precision == 'fp32' else '.' + self.precision}{SUFFIXES[self.kind]}"


@dataclass(frozen=True)
class WrittenExport:
    """The checks of a written file.

    Attributes:
        checked: its agreement with the model.
        accuracy: test set -> change of the MAE; empty where only the agreement is checked.
    """

    checked: AgreementCheck
    accuracy: dict[str, AccuracyComparison]


# Checks a file before it is kept and returns its comparisons by test set for the card; raises to reject it.
AccuracyCheck = Callable[[ExportedFile], dict[str, AccuracyComparison]]


def write_export(
    model: AgeModel,
    architecture: Architecture,
    card: ExportCard,
    path: Path,
    *,
    examples: np.ndarray,
    variant: ExportVariant,
    calibration: np.ndarray | None = None,
    judge: AccuracyCheck | None = None,
) -> WrittenExport:
    """Write a file and compare it with the model; a rejected file is not kept.

    Args:
        model: the trained model; it is not changed.
        architecture: the model's architecture.
        card: the card, see `agebench.export.card.build_card`.
        path: the file.
        examples: (n, S, S, 3) uint8 real faces to compare on. float32 files must agree with the model to `TOLERANCE`.
        variant: format and precision.
        calibration: (m, S, S, 3) uint8 training faces; required for int8.
        judge: a further check of the file; None: only the agreement is checked.

    Returns:
        The results of the checks, which the card inside the file has, too.

    Raises:
        AgebenchError: the file's estimates differ from the model's, or `judge` rejects it.
    """
    plain = copy.deepcopy(model).cpu().float().eval()
    backbone = copy.deepcopy(plain.backbone).to(TYPES[variant.precision]).to(memory_format=torch.channels_last)
    module = ExportWrapper(backbone, plain.head, architecture, TYPES[variant.precision], flip=model.flip_tta).eval()
    save = _build(module, variant, examples, calibration)
    card = card.model_copy(update={"format": variant.kind, "precision": variant.precision})
    with atomic_write(path) as temporary:
        save(temporary, card)
        file = open_exported(temporary, trusted=True)
        checked = compare(plain, architecture, examples, file, exact=variant.precision == "fp32")
        accuracy = judge(file) if judge else {}
        save(temporary, card.model_copy(update={"checked": checked} | ({"accuracy": accuracy} if accuracy else {})))
    return WrittenExport(checked, accuracy)


def _build(
    module: ExportWrapper, variant: ExportVariant, examples: np.ndarray, calibration: np.ndarray | None
) -> SaveFn:
    """Build the file's content; exporters are imported when needed, because most of them take seconds to import."""
    if variant.precision == "int8":
        from agebench.export.quantize import build_int8

        assert calibration is not None
        return build_int8(module, calibration)
    if variant.kind == "onnx":
        from agebench.export.formats.onnx import build_onnx

        return build_onnx(module)
    if variant.kind == "pt2":
        from agebench.export.formats.torch_export import build_pt2

        return build_pt2(module)
    from agebench.export.formats.torchscript import build_torchscript

    return build_torchscript(module, _planar(examples))


def compare(
    model: AgeModel, architecture: Architecture, examples: np.ndarray, file: ExportedFile, *, exact: bool
) -> AgreementCheck:
    """Compare a file's ages with the model's, on faces of the network's size and on some that the file must resize.

    Args:
        model: the trained model, on the CPU.
        architecture: the model's architecture.
        examples: (n, S, S, 3) uint8 faces.
        file: the opened file.
        exact: whether differences above `TOLERANCE` are an error.

    Returns:
        The number of faces, and the largest differences in years.

    Raises:
        AccuracyCheckFailed: an age is not finite, and `exact` is false.
        AgebenchError: `exact` is true, and an age is not finite or differs by more than `TOLERANCE`.
    """
    larger = (
        examples[:_RESIZED].repeat(2, axis=1).repeat(2, axis=2)[:, : INPUT_SIDE_RANGE[1], : INPUT_SIDE_RANGE[1] - 1]
    )
    module = ExportWrapper(model.backbone, model.head, architecture, torch.float32, flip=model.flip_tta).eval()
    with torch.inference_mode():
        expected = model.predict(normalize(torch.from_numpy(examples), architecture.mean, architecture.std)).age
        resized = module(_planar(larger))[0]
    check = AgreementCheck(
        faces=len(examples),
        max_difference_years=_largest(file.estimate(examples).age - expected.numpy()),
        max_difference_resized_years=_largest(file.estimate(larger).age - resized.numpy()),
    )
    worst = check.largest
    if not np.isfinite(worst):
        raise (AgebenchError if exact else AccuracyCheckFailed)("it returns ages that are no numbers")
    if exact and worst > TOLERANCE:
        raise AgebenchError(
            f"the exported model differs from the trained one by up to {worst:.3g} years on {len(examples)} faces "
            f"(allowed: {TOLERANCE}); the checkpoint in the run folder is valid, the export was not kept"
        )
    return check


def _largest(differences: np.ndarray) -> float:
    return float(np.abs(differences).max())  # NaN where one is


def _planar(faces: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2)

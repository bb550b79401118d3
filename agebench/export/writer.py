"""One trained model as one file, which is kept only if it says what the model says."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agebench.config.cards.base import Architecture
from agebench.errors import AgebenchError
from agebench.estimators.exported.base import INPUT_SIDE_RANGE, ExportedFile
from agebench.estimators.exported.loading import open_exported
from agebench.export.accuracy_check import AccuracyCheckFailed
from agebench.export.wrapper import ExportWrapper, SaveFn
from agebench.models.age_model import AgeModel
from agebench.training.augmentation import normalize
from agebench.utils.io import atomic_write

# Years. float32 convolutions may be fused and ordered differently; anything above is a wrong export.
TOLERANCE = 0.01

SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx", "pt2": ".pt2"}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
# What cannot be had, and why.
UNSUPPORTED = {
    ("onnx", "bf16"): "onnxruntime has no convolutions in bf16 on CPUs",
    ("torchscript", "int8"): "PyTorch's own quantisation is no longer part of it; int8 is written as onnx",
    ("pt2", "int8"): "PyTorch's own quantisation is no longer part of it; int8 is written as onnx",
}
# Faces that are also checked at another size than the network's.
_RESIZED = 8


@dataclass(frozen=True)
class ExportVariant:
    """One file of a model: its format, and what its network computes in."""

    kind: str
    precision: str = "fp32"

    @property
    def file(self) -> str:
        """`model.ts`, `model.int8.onnx`."""
        return f"model{'' if self.precision == 'fp32' else '.' + self.precision}{SUFFIXES[self.kind]}"


# What is found out about a file before it is kept: entries for its card. Raises to have it thrown away.
AccuracyCheck = Callable[[ExportedFile], dict[str, Any]]


def write_export(
    model: AgeModel,
    architecture: Architecture,
    card: dict[str, Any],
    path: Path,
    *,
    examples: np.ndarray,
    variant: ExportVariant,
    calibration: np.ndarray | None = None,
    judge: AccuracyCheck = lambda file: {},
) -> dict[str, Any]:
    """Write `path`, compared with the model itself; returns the card that stands in it.

    Args:
        model: trained; it is not changed.
        architecture: of the model.
        card: see `make_card`.
        path: the file.
        examples: (n, S, S, 3) uint8 real faces to compare on. float32 files must agree with the model to `TOLERANCE`.
        variant: format and precision.
        calibration: (m, S, S, 3) uint8 training faces, for int8.
        judge: a further look at the file.

    Raises:
        AgebenchError: the file says something else than the model, or `judge` does not like it; it is not kept.
    """
    plain = copy.deepcopy(model).cpu().float().eval()
    backbone = copy.deepcopy(plain.backbone).to(TYPES[variant.precision]).to(memory_format=torch.channels_last)
    module = ExportWrapper(backbone, plain.head, architecture, TYPES[variant.precision]).eval()
    save = _build(module, variant, examples, calibration)
    card = card | {"format": variant.kind, "precision": variant.precision}
    with atomic_write(path) as temporary:
        save(temporary, card)
        file = open_exported(temporary, trusted=True)
        card |= {"checked": compare(plain, architecture, examples, file, exact=variant.precision == "fp32")}
        card |= judge(file)
        save(temporary, card)
    return card


def _build(
    module: ExportWrapper, variant: ExportVariant, examples: np.ndarray, calibration: np.ndarray | None
) -> SaveFn:
    """Imported when wanted: a run writes TorchScript alone, and the other exporters take seconds to import."""
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
) -> dict[str, Any]:
    """The largest differences of the ages, years: on faces of the network's size, and on some that the file must resize.

    Raises:
        Refused: an age that is no number, where less than `exact` is asked.
        AgebenchError: if `exact`, likewise, or more than `TOLERANCE`.
    """
    larger = (
        examples[:_RESIZED].repeat(2, axis=1).repeat(2, axis=2)[:, : INPUT_SIDE_RANGE[1], : INPUT_SIDE_RANGE[1] - 1]
    )
    module = ExportWrapper(model.backbone, model.head, architecture, torch.float32).eval()
    with torch.inference_mode():
        expected = model.predict(normalize(torch.from_numpy(examples), architecture.mean, architecture.std)).age
        resized = module(_planar(larger))[0]
    found = {
        "faces": len(examples),
        "max_difference_years": _largest(file.estimate(examples).age - expected.numpy()),
        "max_difference_resized_years": _largest(file.estimate(larger).age - resized.numpy()),
    }
    worst = max(found["max_difference_years"], found["max_difference_resized_years"])
    if not np.isfinite(worst):
        raise (AgebenchError if exact else AccuracyCheckFailed)("ages come out of it that are no numbers")
    if exact and worst > TOLERANCE:
        raise AgebenchError(
            f"the exported model differs from the trained one by up to {worst:.3g} years on {len(examples)} faces "
            f"(allowed: {TOLERANCE}); the checkpoint in the run folder is right, the export was not kept"
        )
    return found


def _largest(differences: np.ndarray) -> float:
    return float(np.abs(differences).max())  # NaN where one is


def _planar(faces: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2)

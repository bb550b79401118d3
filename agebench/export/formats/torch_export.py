"""Export by torch.export, the successor of TorchScript, to a .pt2 file."""

import json
import warnings
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from agebench.estimators.exported.card import INPUT_SIDE_RANGE, ExportCard
from agebench.export.wrapper import ExportWrapper, SaveFn

MAX_BATCH_SIZE = 65535


def example_sides(size: int) -> tuple[int, int]:
    """Return the height and the width of the example image, which are allowed and differ from the network's side and each other.

    Args:
        size: side of the network's input, pixels.
    """
    sign = 1 if size + 24 <= INPUT_SIDE_RANGE[1] else -1
    return size + 8 * sign, size + 24 * sign


def exported_program(module: ExportWrapper) -> ExportedProgram:
    """Trace the module to a graph with variable batch size, height and width.

    The example has another shape than the network's input, because torch.export takes equal sides for a constraint.

    Args:
        module: the module, in evaluation mode, on the CPU.
    """
    images = torch.zeros(3, module.channels, *example_sides(module.size), dtype=torch.uint8)
    dynamic = {0: Dim("N", min=1, max=MAX_BATCH_SIZE), 2: Dim("H", min=INPUT_SIDE_RANGE[0], max=INPUT_SIDE_RANGE[1])}
    dynamic[3] = Dim("W", min=INPUT_SIDE_RANGE[0], max=INPUT_SIDE_RANGE[1])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (images,), dynamic_shapes=(dynamic,))


def build_pt2(module: ExportWrapper) -> SaveFn:
    """Export the module; the card becomes the archive's extra file card.json.

    Args:
        module: the module, in evaluation mode, on the CPU.
    """
    program = exported_program(module)

    def save(path: Path, card: ExportCard) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, path, extra_files={"card.json": json.dumps(card.to_json())})

    return save

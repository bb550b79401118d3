"""Read exported TorchScript and torch.export files. Opening one can run code from it."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from agebench.errors import UserError
from agebench.estimators.exported.base import ExportedFile
from agebench.estimators.exported.card import ExportCard
from agebench.estimators.external.model_files import first_line, load_torchscript, temporary_env


@contextmanager
def ignore_warnings() -> Iterator[None]:
    """Suppress warnings; that of TorchScript's deprecation is nothing that a user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _TorchFile(ExportedFile):
    """A file that torch opens; opening it can run its code.

    Args:
        path: the file.
        card: the card inside.
        device: device of the model.

    Raises:
        UserError: the file cannot be read.
    """

    def __init__(self, path: Path, card: ExportCard, device: str) -> None:
        super().__init__(path, card)
        self.device = torch.device(device)
        with ignore_warnings():
            self.module = self.load()

    @abstractmethod
    def load(self) -> nn.Module:
        """Load the model onto the device."""

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call the file; see `ExportedFile.run`.

        Args:
            images: (B, C, H, W) uint8.
        """
        with torch.inference_mode():
            return tuple(output.cpu().numpy() for output in self.module(torch.from_numpy(images).to(self.device)))


class TorchScriptFile(_TorchFile):
    """A TorchScript file; opening it can run its code."""

    def load(self) -> nn.Module:
        """Load the module, frozen."""
        try:
            module = load_torchscript(self.path, str(self.device)).eval()
            return torch.jit.freeze(module)  # type: ignore[no-any-return]  # fuses normalization into convolutions: 20 % faster
        except (RuntimeError, ValueError) as error:
            raise UserError(f"{self.path}: not readable as a TorchScript model: {first_line(error)}") from error


class TorchExportFile(_TorchFile):
    """A torch.export file (.pt2); opening it can run its code."""

    def load(self) -> nn.Module:
        """Load the program's module."""
        try:
            # torch.export.load falls back to full unpickling by itself; this forbids it.
            with temporary_env("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1"):
                program = torch.export.load(self.path)
                if self.device.type != "cpu":
                    program = move_to_device_pass(program, self.device)
                return program.module()
        except Exception as error:  # torch raises exceptions of its own
            raise UserError(f"{self.path}: not readable as a torch.export model: {first_line(error)}") from error

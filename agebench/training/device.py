"""Devices, precision and determinism."""

import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from agebench.errors import UserError
from agebench.training import distributed
from agebench.utils.allocator import keep_freed_memory
from agebench.utils.parallel import available_cores


def resolve_device(name: str) -> torch.device:
    """Return a device by name. For the CPU, see `keep_freed_memory`.

    Args:
        name: a torch device (`cpu`, `cuda`, `cuda:1`, `mps`), or `auto` for a CUDA GPU, else Apple's GPU, else the CPU.

    Raises:
        UserError: the machine does not have this device.
    """
    name = distributed.local_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not available on this machine: {str(error).splitlines()[0]}") from error
    if device.type == "cpu":
        keep_freed_memory()
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the autocast context of forward passes.

    On CPUs `auto` is float32: even with avx512_bf16, a small convolutional network trained slower in bf16
    (54 against 83 images/s for EfficientNet-Lite0 at 112 px on two cores of an AMD EPYC).

    Args:
        device: the device of the model.
        precision: "float32", "bf16", or "auto" for bf16 on CUDA GPUs that support it.
    """
    use_bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16) if use_bf16 else nullcontext()


def set_deterministic() -> None:
    """Use torch's deterministic kernels.

    A seed then gives the same result on the same machine.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A debugging aid that costs a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def hardware_info(device: torch.device) -> dict[str, str | int]:
    """Return the hardware entry of the manifest.

    Args:
        device: the device of the run.
    """
    hardware: dict[str, str | int] = {
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if distributed.get_world_size() > 1:
        hardware["processes"] = distributed.get_world_size()
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
    return hardware


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

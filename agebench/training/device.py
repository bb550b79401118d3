"""Where the work runs, and in which precision."""

import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from agebench.errors import UserError
from agebench.training import distributed
from agebench.utils.parallel import available_cores


def resolve_device(name: str) -> torch.device:
    """`auto`: a CUDA GPU, else Apple's, else the CPU; or what `name` says (`cpu`, `cuda`, `cuda:1`, `mps`).

    Raises:
        UserError: no such device on this machine.
    """
    name = distributed.local_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: not on this machine: {str(error).splitlines()[0]}") from error
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context for forward passes. `auto` takes bf16 on GPUs that compute in it.

    On CPUs `auto` stays with float32: even with avx512_bf16, a small convolutional network trained slower in bf16
    (54 against 83 images/s for EfficientNet-Lite0 at 112 px on two cores of an AMD EPYC).
    """
    wanted = precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def set_deterministic() -> None:
    """Same machine, same seed, same result: ask torch for its deterministic kernels."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A help in debugging that costs a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def hardware_info(device: torch.device) -> dict[str, Any]:
    """What the manifest says about the machine."""
    found = {"cpu": _cpu_name(), "cores": available_cores(), "threads": torch.get_num_threads(), "device": str(device)}
    if distributed.get_world_size() > 1:
        found["processes"] = distributed.get_world_size()
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

